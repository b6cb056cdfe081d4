//! `pigeonfs keep`

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response};
use crate::engine::status::unix_seconds;
use crate::store::ChannelName;
use crate::units::{show_date as utc, show_span as span};

/// Keep a channel readable for longer than the network keeps anything
#[derive(Args, Debug)]
#[command(after_help = "\
Replicas forget a box 7 to 14 days after it came. While a mount or `pigeonfs keep --run` lives, what has expired of a kept
channel is sent again, oldest first: the same bytes at the same place. Nothing is asked for before it can have expired.
Boxes of one week expire at the same moment, so for a while a reader finds a part of them missing: the gap is printed. A
reader who knows waits for them: share the channel after keep, or give readers the date for `add --kept-until`.

What is no longer held here (`mount --keep-sent`) cannot be sent again; how much that is is printed first.

Examples:
  pigeonfs keep backup --for 90d
  pigeonfs keep backup --for 90d --dry-run     what it takes, and nothing else
  pigeonfs keep --run                          without a mount: stay and keep what is to be kept")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name, required_unless_present = "run", conflicts_with = "run")]
    name: Option<ChannelName>,
    /// How long from now on, as 90d or 12h
    #[arg(long = "for", value_name = "SPAN", value_parser = seconds, required_unless_present = "run", conflicts_with = "run")]
    time: Option<Duration>,
    /// The share of the network's pace that sending again may take, above 0 and up to 1 [default: 0.25]
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "run")]
    keep_share: Option<f64>,
    /// Say what it takes, and change nothing
    #[arg(long, conflicts_with = "run")]
    dry_run: bool,
    /// Stay, and keep all channels that are to be kept
    #[arg(long)]
    run: bool,
    /// With --run: end after this time, with exit code 3 [default: never]
    #[arg(long, value_name = "S", value_parser = seconds, requires = "run")]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| format!("{text:?} is not a share; shares are numbers above 0 and up to 1, such as 0.25"))
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let (Some(name), Some(time)) = (&typed.name, typed.time) else {
        let request = Request::KeepRun { timeout_ms: typed.timeout.map(milliseconds) };
        let daemon = typed.daemon.meant()?;
        context.with_state(daemon, async |link: &mut Link| Ok(link.request(request).await?)).await?;
        return Ok(());
    };
    let until = SystemTime::now().checked_add(time).map(unix_seconds).ok_or_else(|| {
        Failure::new(FailureKind::Usage, "--for reaches past the end of time; take a shorter span, such as 90d")
    })?;
    let request =
        Request::Keep { name: name.to_string(), until: (!typed.dry_run).then_some(until), share: typed.keep_share };
    let Response::Kept { boxes, dropped_boxes, expired_boxes, packets_per_two_weeks, gap_s, first_expires_at, sending } =
        context.ask(request).await?
    else {
        return Err(misunderstood());
    };
    if context.json {
        return output::json(&json!({
            "name": name.as_str(),
            "kept_until": until,
            "dry_run": typed.dry_run,
            "boxes": boxes,
            "not_held_boxes": dropped_boxes,
            "expired_boxes": expired_boxes,
            "packets_per_two_weeks": packets_per_two_weeks,
            "gap_s": gap_s,
            "first_expires_at": first_expires_at,
        }));
    }
    let verb = if typed.dry_run { "would be kept" } else { "is kept" };
    let mut rows = vec![
        [verb.to_owned(), format!("until {}", utc(until))],
        ["boxes".to_owned(), format!("{boxes}; at most {packets_per_two_weeks} packets in two weeks")],
        ["gap".to_owned(), format!("up to {} after boxes of a week have expired", span(gap_s.saturating_mul(1000)))],
    ];
    if let Some(at) = first_expires_at {
        rows.push(["expires".to_owned(), format!("the oldest, from {} on", utc(at))]);
    }
    if expired_boxes > 0 {
        rows.push(["expired".to_owned(), format!("{expired_boxes} boxes, to be sent again")]);
    }
    if dropped_boxes > 0 {
        let text = format!("{dropped_boxes} boxes at its beginning: what expires of them is gone for good");
        rows.push(["not held".to_owned(), text]);
    }
    if !sending && !typed.dry_run {
        rows.push(["nothing runs".to_owned(), "mount this state, or run `pigeonfs keep --run`".to_owned()]);
    }
    output::table(&rows)
}
