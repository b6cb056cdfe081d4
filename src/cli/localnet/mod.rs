//! `pigeonfs localnet`

mod ctl;
mod network;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::daemon::localnet_failure;
use super::signals::Signals;
use super::{Stop, output};
use crate::engine::control::{Failure, FailureKind};
use crate::localnet::{Listen, Localnet, Options};
use crate::store::{PrivateDir, PrivateDirError};
use crate::text::{shown, shown_path};
use crate::thin::Address;
pub(super) use network::PaceArgs;

/// Run an embedded network in the foreground, for mounts and for upstream's own clients
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
It speaks the protocol of kpclientd, with real capabilities and real boxes, and no mixnet behind
it: it gives no anonymity. It prints a line for each address when it is ready, and keeps its boxes
in the directory.

Examples:
  pigeonfs localnet --state /tmp/net --listen 127.0.0.1:0 --config-out thinclient.toml
  pigeonfs mount --config thinclient.toml ~/pigeons
  pigeonfs localnet --state /tmp/net --profile docker --time-scale 50 --loss 0.05
  pigeonfs localnet --state /tmp/net --daemons 2 --profile docker
  pigeonfs localnet ctl --state /tmp/net stats"
)]
pub(super) struct Typed {
    #[command(subcommand)]
    sub: Option<Sub>,
    /// An address besides the socket in the directory: HOST:PORT (loopback; port 0 takes a free one), a path, @NAME or ws://HOST:PORT; may repeat. With --daemons they are the daemons' in turn
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Let --listen name addresses that other machines reach: anybody there can then use this network, unencrypted
    #[arg(long)]
    allow_non_loopback: bool,
    /// Write a thinclient.toml that dials the first --listen; with --daemons one more for each, FILE with -2, -3 in its name
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
    #[command(flatten)]
    network: network::NetworkArgs,
    #[command(flatten)]
    faults: network::FaultArgs,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Ctl(ctl::Typed),
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    match typed.sub {
        Some(Sub::Ctl(typed)) => ctl::run(context, typed).await,
        None => serve(context, typed).await,
    }
}

/// What a network keeps in its directory beside its daemons' files. An empty file system has `lost+found`.
const FILES: &[&str] = &["lock", "ctl.sock", "lost+found"];
/// Its database, by which a directory is known for a network's.
const DATABASE: &str = "localnet.db";

/// A path that is mistyped must not get a network: one is made at the default place, at a path where nothing is and in an
/// empty directory, of this user, and never in a mount, whose files go to the network.
fn check_place(directory: &Path, is_default: bool) -> Result<(), Failure> {
    let refused = |reason: String| Failure::new(FailureKind::Failed, reason).hint("choose another --state directory");
    let unusable = |error: PrivateDirError| match error {
        PrivateDirError::Io { .. } | PrivateDirError::Missing { .. } => {
            refused(format!("the directory {} cannot be used: {error}", directory.display()))
        }
        error => refused(error.to_string()),
    };
    let (place, _) = PrivateDir::open_or_make(directory).map_err(unusable)?;
    if is_default || place.check_file(DATABASE).map_err(unusable)? {
        return Ok(());
    }
    let is_foreign = |name: &&std::ffi::OsString| {
        !FILES.iter().any(|file| name == file) && !Localnet::daemon_files().any(|file| file == Path::new(name))
    };
    match place.names().map_err(unusable)?.iter().find(is_foreign) {
        None => Ok(()),
        Some(found) => Err(refused(format!(
            "{} holds {found:?} and no network, and a network is made in an empty directory only",
            directory.display()
        ))),
    }
}

async fn serve(context: &Context, typed: Typed) -> Result<(), Stop> {
    let settings = typed.network.settings(&typed.faults)?;
    let signals = Signals::take()?;
    // A state that was named is the network's own directory; else it is where `mount --localnet` keeps its network.
    let directory = if context.state_is_default { context.localnet_dir() } else { context.state.clone() };
    check_place(&directory, context.state_is_default)?;
    let asked = typed.listen.len();
    let listen = typed.listen.into_iter().map(Listen).collect();
    let (profile, daemons) = (settings.profile.name, settings.daemons);
    let options = Options {
        state: directory.clone(),
        listen,
        allow_non_loopback: typed.allow_non_loopback,
        config_out: typed.config_out,
        settings,
    };
    let localnet = Localnet::start(options).await.map_err(|error| localnet_failure(&error))?;
    let addresses = localnet.addresses();
    if std::io::stderr().is_terminal() && !context.json {
        let mut stderr = std::io::stderr().lock();
        // A person who cannot be told is told by the log.
        let _ = writeln!(stderr, "localnet: an embedded network for trying and testing. It gives NO ANONYMITY.");
        let _ = writeln!(stderr, "  profile   {profile}");
        for address in addresses {
            let _ = writeln!(stderr, "  at        {}", shown(&address.to_string()));
        }
        for file in localnet.config_files() {
            let _ = writeln!(stderr, "  clients   {}", shown_path(&file));
        }
        let _ = writeln!(stderr, "  commands  pigeonfs localnet ctl --state {} ...", shown_path(&directory));
    }
    // The sockets in the directory come first; they are worth a line only where nothing else was asked for.
    let told = if asked == 0 { addresses } else { &addresses[daemons..] };
    for (at, address) in told.iter().enumerate() {
        if context.json {
            output::json(&json!({
                "listening": address.to_string(),
                "localnet": true,
                "anonymity": false,
                "profile": profile,
                "daemon": at % daemons + 1,
            }))?;
        } else {
            output::line(&format!("listening {address}"))?;
        }
    }
    signals.came().await;
    localnet.shutdown().await;
    Ok(())
}
