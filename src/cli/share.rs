//! `pigeonfs share`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, name, output};
use crate::engine::control::{Request, Response};
use crate::store::ChannelName;

/// Print a channel's capability, for others
#[derive(Args, Debug)]
#[command(after_help = "\
Whoever holds the read capability can read all of the channel, for ever: nothing can be taken back, and from now on
the channel can only grow. Send it over a way that you trust, and into a file or a pipe rather than a terminal.
Two writers of one channel destroy each other's bytes, so give the write capability away only with the channel.

Examples:
  pigeonfs share notes > notes.cap
  pigeonfs share notes | ssh friend pigeonfs add notes")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// The write capability, with which others can append
    #[arg(long)]
    write: bool,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Share { name: typed.name.to_string(), write: typed.write };
    let Response::Capability(capability) = context.ask(request).await? else {
        return Err(misunderstood());
    };
    if context.json {
        let text = std::str::from_utf8(capability.expose()).map_err(|_| misunderstood())?;
        let kind = if typed.write { "write" } else { "read" };
        return output::json(&json!({ "name": typed.name.as_str(), "kind": kind, "capability": text }));
    }
    output::bytes(capability.expose())?;
    output::line("")
}
