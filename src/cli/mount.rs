//! `pigeonfs mount`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tracing::{info, warn};

use super::context::Context;
use super::daemon::DaemonArgs;
use super::signals::Signals;
use super::{Stop, output};
use crate::engine::Owner;
use crate::engine::control::{Failure, FailureKind, Opening, take_for_mount};
use crate::fs::{self, Fs};
use crate::mount::{MountError, MountOptions, Session};

/// Mount the channels at an empty directory, in the foreground
#[derive(Args, Debug)]
#[command(after_help = "\
Ends in order on SIGINT, SIGTERM and `pigeonfs umount`. What was accepted and not sent yet goes out with the next mount.

Examples:
  pigeonfs mount ~/pigeons                            with the daemon that is found
  pigeonfs mount --config thinclient.toml ~/pigeons   with this one
  pigeonfs mount --localnet ~/pigeons                 with none: an embedded network

In the mount:
  cp notes.txt ~/pigeons/notes      a new stream; >> appends to it
  tail -f ~/pigeons/inbox           a channel that was added, as it grows")]
pub(super) struct Typed {
    /// Where: an empty directory
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let signals = Signals::take()?;
    let chosen = typed.daemon.meant().choose(context).await?;
    let opening = Opening::new(context.state.clone(), chosen.engine.clone());
    let result = match take_for_mount(&opening).await {
        Ok(owner) => {
            let result = serve(context, &typed.mount_point, &owner, &signals).await;
            owner.close().await;
            result
        }
        Err(failure) => Err(failure.into()),
    };
    chosen.close().await;
    result
}

async fn serve(context: &Context, mount_point: &Path, owner: &Arc<Owner>, signals: &Signals) -> Result<(), Stop> {
    let fs = Arc::new(Fs::new(Arc::clone(owner), fs::Options::default()));
    let start = || Session::start(mount_point, fs, Handle::current(), &MountOptions::default());
    let session = block_in_place(start).map_err(|error| mount_failure(&error))?;
    if context.json {
        output::json(&json!({ "mounted": session.path(), "state": context.state }))?;
    }
    tokio::select! {
        () = session.ended() => info!("unmounted from outside"),
        () = signals.came() => info!("ending on a signal"),
    }
    if let Err(error) = block_in_place(|| session.unmount()) {
        warn!(%error, "the mount is left behind");
    }
    Ok(())
}

/// What is told of a mount that could not be made or removed.
pub(super) fn mount_failure(error: &MountError) -> Failure {
    let kind = match error {
        MountError::Missing(_) | MountError::NotADirectory(_) | MountError::NotEmpty(_) => FailureKind::Usage,
        MountError::AlreadyMounted(_) | MountError::InUse(_) => FailureKind::Busy,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}
