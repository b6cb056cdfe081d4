//! `pigeonfs mount`

pub(super) mod as_owner;
pub(super) mod background;
pub(super) mod helper;
mod notify;
mod options;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::context::Context;
use super::daemon::DaemonArgs;
use super::signals::Signals;
use super::{Stop, log, output, seconds};
use crate::engine::Owner;
use crate::engine::control::{Failure, FailureKind, Opening, take_for_mount};
use crate::engine::status::LinkStatus;
use crate::fs::Fs;
use crate::mount::{MountError, MountOptions, Session};
use crate::store::{Role, StoreError};
use background::Background;
use options::{DiskArgs, FileArgs};

/// How often a drain looks at what is left.
const LOOK: Duration = Duration::from_millis(50);
/// After this time a person is told what the end of a mount waits for.
const SOON: Duration = Duration::from_millis(300);
/// How long files that are being prepared when the time is up may take.
const IN_HAND: Duration = Duration::from_secs(2);
/// Channels that are looked at at a time.
const PAGE: usize = 256;

/// Mount the channels at an empty directory
#[derive(Args, Debug)]
#[command(after_help = "\
Ends in order on SIGINT, SIGTERM, `pigeonfs umount` and `umount`; a second signal ends it at once. What was accepted
and not sent by then goes out with the next mount.

Examples:
  pigeonfs mount ~/pigeons                            with the daemon that is found
  pigeonfs mount --config thinclient.toml ~/pigeons   with this one
  pigeonfs mount --localnet ~/pigeons                 with none: an embedded network
  pigeonfs mount --daemonize ~/pigeons                in the background; returns when it is there

In the mount:
  cp notes.txt ~/pigeons/notes      a new stream; >> appends to it
  tail -f ~/pigeons/inbox           a channel that was added, as it grows

In /etc/fstab, with links /sbin/mount.pigeonfs and /sbin/mount.fuse.pigeonfs to this program:
  /home/a/.local/state/pigeonfs /home/a/pigeons pigeonfs noauto,user,fsync=stored,spool_limit=1GiB 0 0")]
pub(super) struct Typed {
    /// Where: an empty directory
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    disk: DiskArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// How the process runs and ends.
#[derive(Args, Debug)]
#[command(next_help_heading = "The process")]
struct ProcessArgs {
    /// Go to the background, and return when the mount is there or has failed
    #[arg(long)]
    daemonize: bool,
    /// Log to this file instead of stderr; in the background, without it, to mount.log in the state directory, or, where that is
    /// sealed, to its `pigeonfs log` alone. It is begun anew at 4 MiB, and the one before is kept as FILE.old
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// At the end, send what is left for at most TIME
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "5")]
    drain_timeout: Duration,
    /// What stands for it in the mount table; mount(8) names it
    #[arg(long, hide = true, value_name = "NAME", default_value = "pigeonfs")]
    source: OsString,
}

impl Typed {
    /// Whether the process is to go to the background.
    pub(super) fn goes_to_background(&self) -> bool {
        self.process.daemonize
    }

    /// The file that was named for the log.
    pub(super) fn log_file(&self) -> Option<&Path> {
        self.process.log_file.as_deref()
    }

    fn mount_options(&self) -> MountOptions {
        let source = self.process.source.clone();
        MountOptions { source, allow_other: self.files.allow_other, read_only: self.files.read_only }
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    // While the terminal is still ours.
    context.ask_for_key()?;
    let background = typed.process.daemonize.then(Background::enter).transpose()?;
    let signals = Signals::take()?;
    let mount_point = std::path::absolute(&typed.mount_point)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("{}: {error}", typed.mount_point.display())))?;
    context.check_state()?;
    let chosen = typed.daemon.clone().meant()?.choose(context).await?;
    let opening = Opening {
        making: context.making,
        choices: Some(typed.disk.choices()),
        unlock: context.keys.unlock(),
        ..Opening::new(context.state.clone(), chosen.engine.clone())
    };
    let taken = tokio::select! {
        taken = take_for_mount(&opening) => taken.map_err(Stop::from),
        () = signals.came() => Err(Failure::new(FailureKind::Interrupted, "interrupted").into()),
    };
    let result = match taken {
        Ok(owner) => {
            if owner.store().sealing().is_sealed() {
                log::seal();
                log::to_store(owner.store().clone());
            }
            let result = serve(context, &mount_point, &typed, &owner, &signals, background).await;
            owner.close().await;
            result.and_then(|()| Ok(owner.check()?))
        }
        Err(stop) => Err(stop),
    };
    chosen.close().await;
    result
}

async fn serve(
    context: &Context,
    mount_point: &Path,
    typed: &Typed,
    owner: &Arc<Owner>,
    signals: &Signals,
    background: Option<Background>,
) -> Result<(), Stop> {
    let fs = Arc::new(Fs::new(Arc::clone(owner), typed.files.meant()));
    let start = || Session::start(mount_point, fs, Handle::current(), &typed.mount_options());
    let session = block_in_place(start).map_err(|error| mount_failure(&error))?;
    let ready = if context.json {
        // A path that is no text is shown as near to it as can be.
        let (path, state) = (session.path().to_string_lossy(), context.state.to_string_lossy());
        output::json(&json!({ "mounted": path, "state": state }))
    } else {
        Ok(())
    };
    let ready = match background {
        Some(background) => ready.and_then(|()| {
            if typed.process.log_file.is_none() && !owner.store().sealing().is_sealed() {
                log::to_state(&context.state)?;
            }
            Ok(background.detach()?)
        }),
        None => ready,
    };
    if ready.is_ok() {
        owner.mounted_at(session.path());
        notify::ready(session.path());
        let point = session.path().display();
        info!("mounted at {point}, from {}; `pigeonfs umount {point}` ends it", context.state.display());
        tokio::select! {
            () = session.ended() => info!("unmounted from outside"),
            () = signals.came() => info!("ending on a signal"),
        }
    }
    notify::stopping();
    // From here on another mount may have the state: nothing of it is lost, and nobody need wait for us.
    owner.yield_when_asked();
    if let Err(error) = block_in_place(|| session.unmount()) {
        warn!(%error, "the mount is left behind");
    }
    if ready.is_ok() {
        let until = Instant::now() + typed.process.drain_timeout;
        hand_over(&session, owner, until).await;
        drain(owner, until).await;
    }
    ready
}

/// Gives files in drops that were closed some time to become what is sent.
async fn hand_over(session: &Session, owner: &Owner, until: Instant) {
    let mut settled = std::pin::pin!(session.settled());
    tokio::select! {
        () = &mut settled => return,
        () = sleep(SOON) => info!("preparing files that were closed; a second signal ends it now"),
    }
    tokio::select! {
        () = &mut settled => return,
        () = owner.asked_to_yield() => {}
        () = sleep_until(until) => info!("the time is up: the next mount prepares the files that are left"),
    }
    session.stop_settling();
    // Those that are in hand.
    tokio::select! {
        () = settled => {}
        () = sleep(IN_HAND) => {}
    }
}

/// Gives what was accepted some time to leave, where there is a network to take it.
async fn drain(owner: &Owner, until: Instant) {
    let mut told = false;
    let finish = async {
        if let Err(error) = seal_tails(owner).await {
            return warn!(%error, "what is left could not be put on its way; it goes out with the next mount");
        }
        while let Ok(left @ 1..) = owner.store().spool_bytes() {
            if owner.engine().daemon().link != LinkStatus::Connected {
                return info!(bytes = left, "there is no network: what is left goes out with the next mount");
            }
            if !std::mem::replace(&mut told, true) {
                let timeout = until.saturating_duration_since(Instant::now());
                info!(bytes = left, ?timeout, "sending what is left; a second signal ends it now");
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = finish => {}
        () = owner.asked_to_yield() => info!("another process takes the state; it goes on with what is left"),
        () = sleep_until(until) => info!("the time is up: what is left goes out with the next mount"),
    }
}

/// Puts boxes that are not full on their way: nothing more will come to fill them.
async fn seal_tails(owner: &Owner) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = owner.store().channels(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.name.clone());
        for channel in page.iter().filter(|it| it.role == Role::Writer && it.size > it.stored_bytes) {
            // One that is fenced keeps what it has, and was told of before.
            let _ = owner.store().seal_tail(channel.id).await;
        }
    }
}

/// What is told of a mount that could not be made or removed.
pub(super) fn mount_failure(error: &MountError) -> Failure {
    let kind = match error {
        MountError::Missing(_)
        | MountError::NothingThere(_)
        | MountError::NotADirectory(_)
        | MountError::NotEmpty(_)
        | MountError::NotYours(_) => FailureKind::Usage,
        MountError::AlreadyMounted(_)
        | MountError::InUse { .. }
        | MountError::Stranger { .. }
        | MountError::Covered(_) => FailureKind::Busy,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}
