//! `pigeonfs status`

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::time::sleep;

use super::context::{Context, misunderstood};
use super::history::{self, DAY_MINUTES};
use super::list::how_to_begin;
use super::output::{self, size};
use super::signals::Signals;
use super::{Stop, name};
use crate::engine::control::{Failure, Request, Response};
use crate::engine::status::{
    ChannelStatus, ContactStage, ContactStatus, DaemonStatus, DurabilityStatus, LinkStatus, RecordStatus, RoleStatus,
    Status, unix_seconds,
};
use crate::store::{ChannelName, StoreError};
use crate::text::shown;
use crate::units::{show_date as utc, show_span as span};

/// Show how the daemon, the spool and the channels stand
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pigeonfs status               everything
  pigeonfs status notes         one channel
  pigeonfs status --watch       everything, again and again
  pigeonfs status --history     what the last day has brought
  pigeonfs status --json | jq .spool_bytes")]
pub(super) struct Typed {
    /// The channel; without it, everything
    #[arg(value_parser = name)]
    name: Option<ChannelName>,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Show what has gone over the network in the last 24 hours, as a chart
    #[arg(long, conflicts_with_all = ["name", "watch"])]
    history: bool,
}

/// How long `--watch` shows the same.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    if typed.history {
        let Response::History(history) = context.ask(Request::History { minutes: DAY_MINUTES }).await? else {
            return Err(misunderstood());
        };
        return if context.json { output::json(&history) } else { history::show(&history) };
    }
    let name = typed.name.map(|name| name.to_string());
    if !typed.watch {
        return once(context, name).await;
    }
    let signals = Signals::take()?;
    let redraws = std::io::stdout().is_terminal() && !context.json;
    loop {
        if redraws {
            // From the upper left corner on, with all below it cleared.
            output::bytes(b"\x1b[H\x1b[2J")?;
        }
        if !context.json {
            output::line(&format!("{}, every 2 s; Ctrl-C ends it", utc(unix_seconds(SystemTime::now()))))?;
        }
        once(context, name.clone()).await?;
        if !redraws && !context.json {
            output::line("")?;
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = signals.came() => return Err(context.interrupted()),
        }
    }
}

async fn once(context: &Context, name: Option<String>) -> Result<(), Stop> {
    let answer = context.ask(Request::Status { name }).await?;
    let trouble = match &answer {
        Response::Status(status) => status.state_error.clone(),
        Response::Channel(channel) => channel.state_error.clone(),
        _ => return Err(misunderstood()),
    };
    show(context, answer)?;
    // What is shown is what is known; that it may not last is a failure.
    trouble.map_or(Ok(()), |reason| Err(Failure::from(StoreError::Unavailable { reason }).into()))
}

fn show(context: &Context, answer: Response) -> Result<(), Stop> {
    match answer {
        Response::Status(status) if context.json => output::json(&status),
        Response::Channel(channel) if context.json => output::json(&channel),
        Response::Status(status) => {
            let mut rows = vec![["state".to_owned(), context.state.display().to_string()]];
            rows.extend(daemons(&status).into_iter().map(|text| ["daemon".to_owned(), text]));
            rows.push(["spool".to_owned(), format!("{} accepted and not yet stored", size(status.spool_bytes))]);
            output::table(&rows)?;
            if status.channels.is_empty() && status.contacts.is_empty() {
                how_to_begin();
                return Ok(());
            }
            output::line("")?;
            table_of(&status.channels)?;
            contacts(&status.contacts)
        }
        Response::Channel(channel) => output::table(&details(&channel)),
        _ => Err(misunderstood()),
    }
}

/// A line for each channel.
pub(super) fn table_of(channels: &[ChannelStatus]) -> Result<(), Stop> {
    if channels.is_empty() {
        return Ok(());
    }
    let head = ["NAME", "ACCESS", "SIZE", "STATE"].map(str::to_owned);
    let rows = channels.iter().map(|channel| {
        let slash = if channel.files.is_some() { "/" } else { "" };
        [format!("{}{slash}", shown(&channel.name)), access(channel).to_owned(), size(channel.size), standing(channel)]
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// A line for each invitation, and for each code that was accepted, that is not done.
pub(super) fn contacts(contacts: &[ContactStatus]) -> Result<(), Stop> {
    for contact in contacts {
        let trouble = contact.trouble.as_deref().map(|text| format!(": {}", shown(text))).unwrap_or_default();
        let ours = shown(&contact.ours);
        let (theirs, display) = (contact.theirs.as_deref(), contact.display_name.as_deref());
        let text = match (contact.invites, contact.stage) {
            (true, ContactStage::Preparing) => format!("an invitation with {ours} is being made"),
            (true, ContactStage::Failed) => format!("the invitation with {ours} has failed"),
            (true, _) => format!("an invitation with {ours} waits for its answer"),
            (false, stage) => {
                let theirs = shown(theirs.unwrap_or_default());
                let from = display.map(|name| format!(" of {:?}", shown(name))).unwrap_or_default();
                let is = match stage {
                    ContactStage::Failed => "has failed",
                    ContactStage::Answering => "is being answered",
                    _ => "waits for what its inviter writes",
                };
                format!("the code{from} for {theirs} (giving {ours}) {is}")
            }
        };
        output::line(&format!("{text}{trouble}"))?;
    }
    Ok(())
}

/// A line for each daemon.
pub(super) fn daemons(status: &Status) -> Vec<String> {
    match &status.daemons[..] {
        [] => vec![daemon(&status.daemon)],
        several => several.iter().map(daemon).collect(),
    }
}

fn daemon(daemon: &DaemonStatus) -> String {
    let address = daemon.address.as_deref().map(|address| format!(" {address}")).unwrap_or_default();
    let link = match daemon.link {
        LinkStatus::NoDaemon => "none",
        LinkStatus::Refused => "refused",
        LinkStatus::NoConsensus => "waiting for the network",
        LinkStatus::Connected => "connected",
    };
    let mut text = format!("{link}{}", shown(&address));
    if let Some(error) = &daemon.error {
        text.push_str(&format!(": {}", shown(error)));
    }
    if daemon.localnet {
        text.push_str(" (an embedded network: no anonymity)");
    }
    text
}

pub(super) fn access(channel: &ChannelStatus) -> &'static str {
    match channel.role {
        RoleStatus::Writer => "write",
        RoleStatus::Reader => "read",
    }
}

/// How a channel stands, in a few words.
pub(super) fn standing(channel: &ChannelStatus) -> String {
    if let Some(reason) = &channel.fenced {
        let adopting = channel.adopting.map(|boxes| format!("being adopted ({boxes} boxes looked at); "));
        return format!("{}fenced: {}", adopting.unwrap_or_default(), shown(reason));
    }
    let mut text = match channel.role {
        RoleStatus::Writer if pending(channel) > 0 => {
            format!("{} files to send, {} queued", pending(channel), size(channel.unstored_bytes()))
        }
        RoleStatus::Writer if channel.invited => {
            format!("invited with: {} leave once that is answered", size(channel.unstored_bytes()))
        }
        RoleStatus::Writer if channel.size == 0 => "empty".to_owned(),
        RoleStatus::Writer if channel.unstored_bytes() == 0 => "stored".to_owned(),
        RoleStatus::Writer => {
            format!("{} stored, {} queued", size(channel.stored_bytes), size(channel.unstored_bytes()))
        }
        RoleStatus::Reader if channel.paused => "paused: the cache is full; `pigeonfs trim` makes room".to_owned(),
        RoleStatus::Reader if channel.lost => {
            format!("{} boxes are lost; `pigeonfs skip` goes on behind them", channel.missing_boxes)
        }
        RoleStatus::Reader if channel.waiting_for_late_box => "waits for a late box".to_owned(),
        RoleStatus::Reader if channel.stale => "away for too long: searches for what still lives".to_owned(),
        RoleStatus::Reader => match channel.not_there_yet_at {
            Some(at) => format!("up to date as of {}", utc(at)),
            None if channel.size == 0 => "not heard of yet".to_owned(),
            None => "catching up".to_owned(),
        },
    };
    if let Some(error) = &channel.error {
        text.push_str(&format!("; {}", shown(error)));
    }
    text
}

/// Files of a drop that is written here and that are not all stored.
fn pending(channel: &ChannelStatus) -> u64 {
    channel.files.as_ref().map_or(0, |files| files.pending)
}

/// How the files of a drop stand, a row each.
fn files_of(channel: &ChannelStatus, rows: &mut Vec<(&'static str, String)>) {
    let Some(files) = &channel.files else { return };
    let mut counts = match channel.role {
        RoleStatus::Writer => vec![
            (files.pending, "to send"),
            (files.complete, "stored"),
            (files.deleted, "deleted"),
            (files.broken, "broken off"),
        ],
        RoleStatus::Reader => {
            vec![(files.complete, "complete"), (files.incomplete, "incomplete"), (files.broken, "broken")]
        }
    };
    counts.retain(|(count, what)| *count > 0 || matches!(*what, "stored" | "complete"));
    let counts: Vec<_> = counts.into_iter().map(|(count, what)| format!("{count} {what}")).collect();
    rows.push(("files", counts.join(", ")));
    for file in &files.unfinished {
        rows.push(("unfinished", file.clone()));
    }
    if files.to_finish > 0 {
        let name = &channel.name;
        rows.push(("to finish", format!("{} files: `pigeonfs send --finish {name}/FILE`", files.to_finish)));
    }
    if let Some(file) = &files.current {
        let text = format!("{}: {} of {}", display(file), size(file.done), size(file.sent_size));
        rows.push((if channel.role == RoleStatus::Writer { "sending" } else { "incomplete" }, text));
    }
    for file in &files.open_chains {
        rows.push(("incomplete", format!("{}: parts of it are missing", display(file))));
    }
    for file in &files.newest_broken {
        let reason = file.reason.as_deref().unwrap_or_default();
        rows.push(("broken", format!("{}: {}", display(file), shown(reason))));
    }
}

/// A file of a drop as it is named to a person.
pub(super) fn display(file: &RecordStatus) -> String {
    match (file.name.is_empty(), file.path.is_empty()) {
        (true, _) => format!("from box {} on", file.first_box.unwrap_or_default()),
        (false, true) => shown(&file.name).into_owned(),
        (false, false) => format!("{}/{}", shown(&file.path), shown(&file.name)),
    }
}

fn details(channel: &ChannelStatus) -> Vec<[String; 2]> {
    let mut rows = vec![
        ("name", shown(&channel.name).into_owned()),
        ("access", format!("{} ({})", access(channel), shown(&channel.kind))),
        ("state", standing(channel)),
        ("size", format!("{} bytes", channel.size)),
    ];
    if channel.dropped_bytes > 0 {
        rows.push(("dropped", format!("the first {} bytes, to make room", channel.dropped_bytes)));
    }
    match channel.role {
        RoleStatus::Writer => {
            rows.push(("stored", format!("{} bytes", channel.stored_bytes)));
            rows.push(("boxes", format!("{} of {} stored", channel.stored_boxes, channel.boxes)));
            if channel.durability == Some(DurabilityStatus::Couriered) {
                let text = format!("{} bytes in {} boxes", channel.couriered_bytes, channel.couriered_boxes);
                rows.push(("couriered", text));
            }
            if channel.unstored_bytes() > 0 {
                rows.push(("queued", format!("{} bytes in {} boxes", channel.queued_bytes, channel.queued_boxes)));
            }
            if let Some(age) = channel.oldest_unstored_ms {
                rows.push(("oldest", format!("waits for {}", span(age))));
            }
            if let Some(left) = channel.eta_ms {
                rows.push(("done", format!("in {}", span(left))));
            }
            if let Some(at) = channel.oldest_expires_at {
                rows.push(("expires", format!("its oldest box, from {} on", utc(at))));
            }
            rows.push(("shared", if channel.shared { "yes" } else { "no" }.to_owned()));
            let may = if channel.invited {
                "leave once its invitation is answered"
            } else if channel.launched || channel.shared {
                "only be appended to"
            } else {
                "still be taken back"
            };
            rows.push(("may", may.to_owned()));
        }
        RoleStatus::Reader => {
            rows.push(("boxes", format!("{} arrived", channel.boxes)));
            if let Some(text) = channel.beginning() {
                rows.push(("beginning", shown(&text).into_owned()));
            }
            if channel.missing_boxes > 0 {
                let what = if channel.lost { "gone from the network" } else { "asked for again" };
                rows.push(("missing", format!("{} before one that is here: {what}", channel.missing_boxes)));
            }
            if channel.stale {
                let reads = channel.search_probes.map(|reads| format!(", {reads} reads so far"));
                rows.push(("search", format!("what comes next may have expired{}", reads.unwrap_or_default())));
            }
            if channel.skipped_boxes > 0 {
                rows.push(("skipped", format!("{} boxes, which read as no bytes", channel.skipped_boxes)));
            }
            if let Some(left_ms) = channel.next_probe_ms {
                rows.push(("next probe", format!("in {}", span(left_ms))));
            }
            if let Some(left_ms) = channel.followed_ms {
                rows.push(("followed", format!("for {}", span(left_ms))));
            }
        }
    }
    if let Some(until) = channel.kept_until {
        let by =
            if channel.role == RoleStatus::Writer { "" } else { " by its writer: what is not found before is late" };
        rows.push(("kept", format!("until {}{by}", utc(until))));
    }
    if let Some(until) = channel.unfetched_until {
        rows.push(("not fetched", format!("what is new can be had until {}, at least", utc(until))));
    }
    if channel.expired_boxes > 0 {
        rows.push(("sending again", format!("{} boxes that have expired", channel.expired_boxes)));
    }
    if channel.boxes_per_minute > 0.0 {
        rows.push(("rate", format!("{} boxes a minute", channel.boxes_per_minute)));
    }
    files_of(channel, &mut rows);
    rows.into_iter().map(|(key, value)| [key.to_owned(), value]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn channel(role: RoleStatus) -> ChannelStatus {
        named("log", role)
    }

    /// A channel of which nothing is known.
    pub(in crate::cli) fn named(name: &str, role: RoleStatus) -> ChannelStatus {
        ChannelStatus {
            name: name.to_owned(),
            role,
            kind: "stream".to_owned(),
            size: 0,
            stored_bytes: 0,
            boxes: 0,
            stored_boxes: 0,
            launched: false,
            shared: false,
            not_there_yet_at: None,
            waiting_for_late_box: false,
            missing_boxes: 0,
            missing_since: None,
            lost: false,
            stale: false,
            search_probes: None,
            skipped_boxes: 0,
            queued_bytes: 0,
            queued_boxes: 0,
            couriered_bytes: 0,
            couriered_boxes: 0,
            durability: None,
            boxes_per_minute: 0.0,
            eta_ms: None,
            oldest_unstored_ms: None,
            oldest_expires_at: None,
            invited: false,
            kind_is_told: false,
            unfetched_until: None,
            kept_until: None,
            expired_boxes: 0,
            followed_ms: None,
            dropped_bytes: 0,
            paused: false,
            next_probe_ms: None,
            fenced: None,
            adopting: None,
            error: None,
            state_error: None,
            only_copy: false,
            created: 0,
            modified: 0,
            files: None,
        }
    }

    #[test]
    fn a_channel_stands_in_words() {
        let writer = channel(RoleStatus::Writer);
        assert_eq!(standing(&writer), "empty");
        let queued = ChannelStatus { size: 3000, stored_bytes: 1549, ..writer.clone() };
        assert_eq!(standing(&queued), "1.5 KiB stored, 1.4 KiB queued");
        assert_eq!(standing(&ChannelStatus { size: 3, stored_bytes: 3, ..writer.clone() }), "stored");
        let fenced = ChannelStatus { fenced: Some("foreign data".to_owned()), ..queued };
        assert_eq!(standing(&fenced), "fenced: foreign data");
        let adopting = ChannelStatus { adopting: Some(4), ..fenced };
        assert_eq!(standing(&adopting), "being adopted (4 boxes looked at); fenced: foreign data");
        let reader = channel(RoleStatus::Reader);
        assert_eq!(standing(&reader), "not heard of yet");
        let late = ChannelStatus { waiting_for_late_box: true, missing_boxes: 2, ..reader.clone() };
        assert_eq!(standing(&late), "waits for a late box");
        let lost = ChannelStatus { lost: true, ..late };
        assert_eq!(standing(&lost), "2 boxes are lost; `pigeonfs skip` goes on behind them");
        let known = ChannelStatus { not_there_yet_at: Some(1), error: Some("no \x1b daemon".to_owned()), ..reader };
        assert_eq!(standing(&known), r"up to date as of 1970-01-01T00:00:01Z; no \u{1b} daemon");
    }
}
