//! `pigeonfs wait`

use std::time::Duration;

use clap::Args;

use super::context::{Context, channel_of};
use super::daemon::DaemonArgs;
use super::new::Level;
use super::progress::beside;
use super::{Stop, byte_count, milliseconds, name, output, seconds};
use crate::engine::control::{Link, Request};
use crate::store::ChannelName;

/// Wait until all that was written is stored, or until so much has arrived
#[derive(Args, Debug)]
#[command(after_help = "\
Of a channel that is written here, it waits until replicas hold all that was accepted before. Of a channel that is read
here, until --bytes have arrived, or without it until the network has said that nothing more is there yet.

Examples:
  cp backup.tar ~/pigeons/backup && pigeonfs wait backup
  pigeonfs wait --bytes 1 --timeout 600 inbox && cat ~/pigeons/inbox")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Of a channel that is read here: this many bytes, counted from its start
    #[arg(long, value_name = "SIZE", value_parser = byte_count)]
    bytes: Option<u64>,
    /// Of a channel that is written here: until replicas have it, or only until couriers do, which may still lose it
    #[arg(long, value_name = "WHOSE", default_value = "stored")]
    level: Level,
    /// Give up after TIME, with exit code 3 [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let name = typed.name.to_string();
    let request = Request::Wait {
        name: typed.name.to_string(),
        bytes: typed.bytes,
        timeout_ms: typed.timeout.map(milliseconds),
        level: typed.level.into(),
    };
    let answer = context.with_state(typed.daemon.meant()?, async |link: &Link| {
        Ok(beside(context, &name, typed.bytes, link.request(request)).await?)
    });
    let channel = channel_of(answer.await?)?;
    if context.json { output::json(&channel) } else { Ok(()) }
}
