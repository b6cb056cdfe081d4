//! `pigeonfs new`

use clap::Args;

use super::context::{Context, channel_of};
use super::{Stop, name, output};
use crate::engine::control::Request;
use crate::store::ChannelName;

/// Make a stream: a file that is appended to here and read elsewhere
#[derive(Args, Debug)]
#[command(after_help = "\
Needs no daemon. In a mount, `touch MNT/NAME` does the same.

Example:
  pigeonfs new log && pigeonfs share log")]
pub(super) struct Typed {
    /// A free name
    #[arg(value_parser = name)]
    name: ChannelName,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let made = channel_of(context.ask(Request::New { name: typed.name.to_string() }).await?)?;
    if context.json { output::json(&made) } else { Ok(()) }
}
