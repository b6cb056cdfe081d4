//! `pigeonfs localnet`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::daemon::localnet_failure;
use super::signals::Signals;
use super::{Stop, output};
use crate::localnet::{Listen, Localnet, Options};
use crate::thin::Address;

/// Run an embedded network in the foreground, for mounts and for upstream's own clients
#[derive(Args, Debug)]
#[command(after_help = "\
It speaks the protocol of kpclientd, with real capabilities and real boxes, and no mixnet behind it: it gives no
anonymity. It prints a line for each address when it is ready, and keeps its boxes in the directory.

Examples:
  pigeonfs localnet --state /tmp/net --listen 127.0.0.1:0 --config-out thinclient.toml
  pigeonfs mount --config thinclient.toml ~/pigeons")]
pub(super) struct Typed {
    /// An address besides the socket in the directory: HOST:PORT (loopback; port 0 takes a free one), a path or @NAME
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Write a thinclient.toml that dials the first --listen
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let signals = Signals::take()?;
    // A state that was named is the network's own directory; else it is where `mount --localnet` keeps its network.
    let directory = if context.state_is_default { context.localnet_dir() } else { context.state.clone() };
    let asked = typed.listen.len();
    let listen = typed.listen.into_iter().map(Listen).collect();
    let options = Options { listen, config_out: typed.config_out, ..Options::new(directory) };
    let localnet = Localnet::start(options).await.map_err(|error| localnet_failure(&error))?;
    // The socket in the directory comes first; it is worth a line only where nothing else was asked for.
    let addresses = localnet.addresses();
    let told = if asked == 0 { addresses } else { &addresses[1..] };
    for address in told {
        if context.json {
            output::json(&json!({ "listening": address.to_string() }))?;
        } else {
            output::line(&format!("listening {address}"))?;
        }
    }
    signals.came().await;
    localnet.shutdown().await;
    Ok(())
}
