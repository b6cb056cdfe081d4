//! `pigeonfs rename`

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::{Stop, name, output};
use crate::engine::control::Request;
use crate::store::ChannelName;

/// Give a channel another name, here only
#[derive(Args, Debug)]
#[command(after_help = "\
A name never leaves this machine. In a mount, `mv MNT/OLD MNT/NEW` does the same.

Examples:
  pigeonfs rename log old-log
  pigeonfs rename inbox from-alice --json")]
pub(super) struct Typed {
    /// Its name now
    #[arg(value_parser = name)]
    old: ChannelName,
    /// A free name
    #[arg(value_parser = name)]
    new: ChannelName,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let (old, new) = (typed.old.to_string(), typed.new.to_string());
    context.ask(Request::Rename { old: old.clone(), new: new.clone() }).await?;
    if context.json { output::json(&json!({ "old": old, "new": new })) } else { Ok(()) }
}
