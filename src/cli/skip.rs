//! `pigeonfs skip`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, name, output};
use crate::engine::control::{Request, Response};
use crate::store::ChannelName;

/// Give up boxes that are missing in a channel that is read here, and go on behind them
#[derive(Args, Debug)]
#[command(after_help = "\
A box that is missing before a later one is late: it is asked for again and again, and a read at that place waits. Once
it is older than the network keeps anything (two weeks, counted from when a later box was first seen) it is lost, and a
read gives `Input/output error`. In either case, skip goes on with the next box that is here; what it gives up reads as
no bytes, for ever, also if it should still come. Each call gives up one hole.

Examples:
  pigeonfs status news            is a box late, and since when
  pigeonfs skip news              go on behind it")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let Response::Skipped { first_box, boxes, bytes } =
        context.ask(Request::Skip { name: typed.name.to_string() }).await?
    else {
        return Err(misunderstood());
    };
    if context.json {
        let name = typed.name.as_str();
        return output::json(&json!({ "name": name, "first_box": first_box, "skipped_boxes": boxes, "bytes": bytes }));
    }
    let given_up = if boxes == 1 {
        format!("box {first_box} is given up")
    } else {
        format!("{boxes} boxes, from {first_box} on, are given up")
    };
    output::line(&format!("{given_up}; {} behind them can be read", output::size(bytes)))
}
