//! `pigeonfs move`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, name, output};
use crate::engine::control::{Request, Response};
use crate::store::ChannelName;

/// Move what is not stored of a fenced channel to a new channel
#[derive(Args, Debug)]
#[command(after_help = "\
The new channel has a capability of its own, which readers must be given. It begins with the first byte that is not
stored in the old one and goes on in the same order. What was stored stays in the old channel, which remains fenced;
a few boxes that had left before the fence may be found in both.

Examples:
  pigeonfs move notes notes-2 && pigeonfs share notes-2
  pigeonfs forget notes           once nobody needs the old one")]
pub(super) struct Typed {
    /// The fenced channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// A free name
    #[arg(value_parser = name)]
    new: ChannelName,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let (name, new) = (typed.name.to_string(), typed.new.to_string());
    let Response::Moved { boxes, bytes, launched_boxes } =
        context.ask(Request::Move { name: name.clone(), new: new.clone() }).await?
    else {
        return Err(misunderstood());
    };
    if context.json {
        return output::json(&json!({
            "name": name,
            "new": new,
            "boxes": boxes,
            "bytes": bytes,
            "launched_boxes": launched_boxes,
        }));
    }
    output::line(&format!(
        "{boxes} boxes ({}) go on in {new:?}; {launched_boxes} of them may be in {name:?} too",
        output::size(bytes)
    ))
}
