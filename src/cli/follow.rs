//! `pigeonfs follow`

use std::time::Duration;

use clap::Args;

use super::context::{Context, channel_of};
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::Request;
use crate::store::ChannelName;

/// Look for what is new in a channel often, for a while
#[derive(Args, Debug)]
#[command(after_help = "\
A mount looks at its own pace, so that nobody can see from its traffic which files are read, or when. Following a channel
gives that up for a while: whoever watches the network can see that something is waited for. Needs a mount.

Examples:
  pigeonfs follow news --for 10m
  pigeonfs follow news --for 0s       no longer")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// How long, such as 90s, 10m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, default_value = "1h")]
    time: Duration,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Follow { name: typed.name.to_string(), for_ms: milliseconds(typed.time) };
    let channel = channel_of(context.ask(request).await?)?;
    if context.json { output::json(&channel) } else { Ok(()) }
}
