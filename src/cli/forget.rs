//! `pigeonfs forget`

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::{Stop, name, output};
use crate::engine::control::Request;
use crate::store::ChannelName;

/// Drop a channel: its capability and its bytes here
#[derive(Args, Debug)]
#[command(after_help = "\
What was sent stays with the replicas until it is one to two weeks old, for those who can read it. A capability that
was not kept elsewhere is gone for good, and so is what was accepted and not sent yet.

Example:
  pigeonfs share --write log > log.cap && pigeonfs forget log")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    context.ask(Request::Forget { name: typed.name.to_string() }).await?;
    if context.json { output::json(&json!({ "forgotten": typed.name.as_str() })) } else { Ok(()) }
}
