//! `pigeonfs skip`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::progress::beside;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{Link, Request, Response};
use crate::store::ChannelName;

/// Give up boxes that are missing in a channel that is read here, and go on behind them
#[derive(Args, Debug)]
#[command(after_help = "\
A box that is missing before a later one is late: it is asked for again and again, and a read at that place waits. Once
it is older than the network keeps anything (two weeks, counted from when a later box was first seen) it is lost, and a
read gives `Input/output error`. In either case, skip goes on with the next box that is here; what it gives up reads as
no bytes, for ever, also if it should still come. Each call gives up one hole.

A reader that was away for more than a week cannot tell an end from boxes that have expired. It searches by itself, and
with --search at once: a day's searches take 256 reads at most, which takes hours on a real network, and goes on in a
mount after the verb has ended. It ends with the first box that still lives (what is before it is lost, and to be
skipped), or with nothing.

Examples:
  pigeonfs status news            is a box late, and since when
  pigeonfs skip news              go on behind it
  pigeonfs skip --search news     look for what still lives, far behind the last box")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Look for boxes that still live past the last one; nothing is given up
    #[arg(long)]
    search: bool,
    /// With --search: give up after TIME, with exit code 3 [default: never]
    #[arg(long, value_name = "TIME", requires = "search", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    if typed.search {
        return search(context, typed).await;
    }
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

async fn search(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Search { name: typed.name.to_string(), timeout_ms: typed.timeout.map(milliseconds) };
    let answer = context.with_state(typed.daemon.meant()?, async |link: &Link| {
        Ok(beside(context, typed.name.as_str(), None, link.request(request)).await?)
    });
    let Response::Searched { lost_boxes } = answer.await? else {
        return Err(misunderstood());
    };
    if context.json {
        return output::json(&json!({ "name": typed.name.as_str(), "lost_boxes": lost_boxes }));
    }
    match lost_boxes {
        Some(boxes) => output::line(&format!(
            "found: {boxes} boxes are lost, and what follows them lives; `pigeonfs skip` goes on there"
        )),
        None => output::line("nothing found: what is here is all that the network has"),
    }
}
