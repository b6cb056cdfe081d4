//! `pigeonfs verify`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response};
use crate::store::ChannelName;

/// Ask the network whether the boxes of a channel are still there
#[derive(Args, Debug)]
#[command(after_help = "\
Each box is asked for once, which takes two packets of the network's pace. Works for the writer and for any reader; what
is not stored yet, or has not arrived yet, is not asked for. Exit codes: 0 all that was asked for can be read, 1 something
is missing, 3 the time was up.

Examples:
  pigeonfs verify backup
  pigeonfs verify backup --sample 20      a look at some of them")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Ask for N boxes only, chosen at random
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
    /// Give up after S seconds, with exit code 3 [default: never]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let name = typed.name.to_string();
    let timeout_ms = typed.timeout.map(milliseconds);
    let request = Request::Verify { name: name.clone(), sample: typed.sample, repair: None, timeout_ms };
    let answer = context.with_state(typed.daemon.meant()?, async |link: &Link| Ok(link.request(request).await?));
    let Response::Verified { there, gone, first_gone, unanswered, not_asked, .. } = answer.await? else {
        return Err(misunderstood());
    };
    if context.json {
        output::json(&json!({
            "name": name, "there": there, "gone": gone, "first_gone": first_gone, "unanswered": unanswered,
            "not_asked": not_asked,
        }))?;
    } else {
        output::line(&format!("{there} boxes are there, {gone} are gone, {not_asked} were not asked for"))?;
    }
    if let Some(first) = first_gone {
        let text = format!("{gone} boxes of {name:?} are gone from the network, the first of them is box {first}");
        let failure = Failure::new(FailureKind::Failed, text);
        return Err(failure.hint("its writer can send them again: `pigeonfs resend NAME`").into());
    }
    answered(&name, unanswered)
}

/// Fails where no answer came for some boxes: nothing is known of them.
pub(super) fn answered(name: &str, unanswered: u64) -> Result<(), Stop> {
    if unanswered == 0 {
        return Ok(());
    }
    let text =
        format!("the network did not answer for {unanswered} boxes of {name:?}: whether they are there is not known");
    Err(Failure::new(FailureKind::Failed, text)
        .hint("try again later; `pigeonfs status` shows how the daemon stands")
        .into())
}
