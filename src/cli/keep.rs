//! `pigeonfs keep`

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;
use tracing::warn;

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
reader who knows waits for them: share the channel after keep, or give readers the date for `add --kept-until`. Such a
reader cannot tell the end of the channel from what is missing: a read there waits, and then says that the time is up, and
`receive` ends with its --timeout, or when it is interrupted.

What is no longer held here (`mount --keep-sent`) cannot be sent again; how much that is, is printed first. From then on
nothing of the channel is dropped here to make room.

Examples:
  pigeonfs keep backup --for 90d
  pigeonfs keep backup --for 90d --dry-run     what it takes, and nothing else
  pigeonfs keep --run                          without a mount: stay and keep what is to be kept")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name, required_unless_present = "run", conflicts_with = "run")]
    name: Option<ChannelName>,
    /// How long from now on, as 90d or 12h; 0 ends it
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
        context.with_state(daemon, async |link: &Link| Ok(link.request(request).await?)).await?;
        return Ok(());
    };
    let until = end_of(time)?;
    let plan = plan(context, name, typed.keep_share).await?;
    if !typed.dry_run {
        warn_of_missing(&plan);
        promise(context, name, until, typed.keep_share).await?;
    }
    if context.json {
        return output::json(&json!({
            "name": name.as_str(),
            "kept_until": until,
            "dry_run": typed.dry_run,
            "boxes": plan.boxes,
            "not_held_boxes": plan.dropped_boxes,
            "expired_boxes": plan.expired_boxes,
            "packets_per_two_weeks": plan.packets_per_two_weeks,
            "gap_s": plan.gap_s,
            "first_expires_at": plan.first_expires_at,
        }));
    }
    let verb = if typed.dry_run { "would be kept" } else { "is kept" };
    let mut rows = vec![
        [verb.to_owned(), format!("until {}", utc(until))],
        ["boxes".to_owned(), format!("{}; at most {} packets in two weeks", plan.boxes, plan.packets_per_two_weeks)],
        [
            "gap".to_owned(),
            format!("up to {} after boxes of a week have expired", span(plan.gap_s.saturating_mul(1000))),
        ],
    ];
    if let Some(at) = plan.first_expires_at {
        rows.push(["expires".to_owned(), format!("the oldest, from {} on", utc(at))]);
    }
    if plan.expired_boxes > 0 {
        rows.push(["expired".to_owned(), format!("{} boxes, to be sent again", plan.expired_boxes)]);
    }
    if plan.dropped_boxes > 0 {
        let text = format!("{} boxes at its beginning: what expires of them is gone for good", plan.dropped_boxes);
        rows.push(["not held".to_owned(), text]);
    }
    if !plan.sending && !typed.dry_run {
        rows.push(["nothing runs".to_owned(), "mount this state, or run `pigeonfs keep --run`".to_owned()]);
    }
    output::table(&rows)
}

/// What keeping a channel takes.
struct Plan {
    boxes: u64,
    dropped_boxes: u64,
    expired_boxes: u64,
    packets_per_two_weeks: u64,
    gap_s: u64,
    first_expires_at: Option<u64>,
    sending: bool,
}

/// When a time from now on ends, in Unix seconds.
pub(super) fn end_of(time: Duration) -> Result<u64, Failure> {
    let latest =
        || Failure::new(FailureKind::Usage, "this reaches past the end of time; take a shorter span, such as 90d");
    SystemTime::now().checked_add(time).map(unix_seconds).ok_or_else(latest)
}

async fn plan(context: &Context, name: &ChannelName, share: Option<f64>) -> Result<Plan, Stop> {
    match context.ask(Request::Keep { name: name.to_string(), until: None, share }).await? {
        Response::Kept {
            boxes,
            dropped_boxes,
            expired_boxes,
            packets_per_two_weeks,
            gap_s,
            first_expires_at,
            sending,
        } => Ok(Plan { boxes, dropped_boxes, expired_boxes, packets_per_two_weeks, gap_s, first_expires_at, sending }),
        _ => Err(misunderstood()),
    }
}

/// Said before anything is promised.
fn warn_of_missing(plan: &Plan) {
    if plan.dropped_boxes > 0 {
        let boxes = plan.dropped_boxes;
        warn!(
            "{boxes} boxes at its beginning are no longer held here: they can be read until they expire, and not be kept"
        );
    }
}

/// Has a channel kept.
pub(super) async fn promise(context: &Context, name: &ChannelName, until: u64, share: Option<f64>) -> Result<(), Stop> {
    context.ask(Request::Keep { name: name.to_string(), until: Some(until), share }).await?;
    Ok(())
}
