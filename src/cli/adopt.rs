//! `pigeonfs adopt`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::progress::beside;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{Link, Request, Response};
use crate::store::ChannelName;

/// Take another writer's boxes into a fenced channel, and go on behind them
#[derive(Args, Debug)]
#[command(after_help = "\
A channel is fenced when the network holds, at an index of ours, bytes that we did not write: somebody else writes with
the same capability, or this state was restored from a backup. adopt asks the network what stands at each index, from
the first that is not stored on. Then the channel is rewritten, in one step: what the other writer wrote is part of it,
and our bytes that met it go behind it. This is the one case in which bytes change their place; what is stored of ours
stays where it is, and nothing is lost. What was learned is kept: after an interruption, or a crash, it goes on.

If the other writer goes on writing, it will be met again. `pigeonfs move` goes on in a channel of our own instead.

Examples:
  pigeonfs status notes           why it is fenced
  pigeonfs adopt notes && pigeonfs wait notes")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Give up after TIME, with exit code 3; it can be called again [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Adopt { name: typed.name.to_string(), timeout_ms: typed.timeout.map(milliseconds) };
    let answer = context.with_state(typed.daemon.meant()?, async |link: &Link| {
        Ok(beside(context, typed.name.as_str(), None, link.request(request)).await?)
    });
    let Response::Adopted { foreign_boxes, foreign_bytes, replanned_boxes, replanned_bytes } = answer.await? else {
        return Err(misunderstood());
    };
    if context.json {
        return output::json(&json!({
            "name": typed.name.as_str(),
            "foreign_boxes": foreign_boxes,
            "foreign_bytes": foreign_bytes,
            "replanned_boxes": replanned_boxes,
            "replanned_bytes": replanned_bytes,
        }));
    }
    if foreign_boxes == 0 {
        return output::line("nothing of another writer was found; the fence is lifted");
    }
    output::line(&format!(
        "{foreign_boxes} boxes of another writer ({}) are part of it now; {replanned_boxes} of ours ({}) go behind them",
        output::size(foreign_bytes),
        output::size(replanned_bytes)
    ))
}
