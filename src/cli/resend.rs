//! `pigeonfs resend`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::verify::answered;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response};
use crate::store::ChannelName;

/// Send again what the network has forgotten of a channel that is written here
#[derive(Args, Debug)]
#[command(after_help = "\
Asks for each box, and sends what is gone: the same bytes at the same place, so that readers find it again. What is no
longer held here cannot be sent (`mount --keep-sent`), nor can what somebody else wrote.

Examples:
  pigeonfs resend backup
  pigeonfs resend backup --from 1048576     what holds byte 1,048,576, and what is behind it")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Begin at the box that holds this byte
    #[arg(long, value_name = "BYTE", default_value_t = 0)]
    from: u64,
    /// Give up after S seconds, with exit code 3; it can be called again [default: never]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let name = typed.name.to_string();
    let timeout_ms = typed.timeout.map(milliseconds);
    let request = Request::Verify { name: name.clone(), sample: None, repair: Some(typed.from), timeout_ms };
    let answer = context.with_state(typed.daemon.meant()?, async |link: &Link| Ok(link.request(request).await?));
    let Response::Verified { there, gone, sent_again, not_held, unanswered, .. } = answer.await? else {
        return Err(misunderstood());
    };
    if context.json {
        output::json(&json!({
            "name": name, "there": there, "sent_again": sent_again, "not_held": not_held, "gone": gone,
            "unanswered": unanswered,
        }))?;
    } else {
        output::line(&format!("{sent_again} boxes were sent again, {there} were there"))?;
    }
    if gone == 0 {
        return answered(&name, unanswered);
    }
    let (text, hint) = if not_held > 0 {
        (
            format!("{gone} boxes of {name:?} are still gone; the bytes of {not_held} of them are no longer held here"),
            "`pigeonfs mount --keep-sent SIZE` says how much of what was sent is kept; what is gone cannot be repaired",
        )
    } else {
        (format!("{gone} boxes of {name:?} are still gone: they could not be sent"), "run the same command again")
    };
    Err(Failure::new(FailureKind::Failed, text).hint(hint).into())
}
