//! How far a verb is: a line on a terminal that is drawn anew, one line a minute where stderr is no terminal, and JSON lines
//! for programs. What is shown was measured: the time left is told only once the network's pace is known.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::context::Context;
use super::{Stop, output};
use crate::engine::control::{Request, Response, look};
use crate::engine::status::{ChannelStatus, DaemonStatus, LinkStatus, RoleStatus};
use crate::text::{shown, shown_json};
use crate::units::{show_size, show_span};

/// JSON tells of progress at most so often.
const BEAT: Duration = Duration::from_secs(1);
/// The line on a terminal is drawn at most so often.
const REDRAW: Duration = Duration::from_millis(200);
/// Where no terminal is, a line is written so often, and the first after so long.
const PLAIN_BEAT: Duration = Duration::from_secs(60);
const PLAIN_FIRST: Duration = Duration::from_secs(2);
/// A pace that was measured over a shorter time is not told.
const SHORTEST_MEASURE: Duration = Duration::from_secs(5);
/// The pace is that of the newest measurements, over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// Nothing has moved for so long: then the pace says nothing about the time left.
const STANDSTILL: Duration = Duration::from_secs(45);

/// Measures a pace: what was done by when.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// From the first growth on: what comes before it is the time of a round trip and no pace.
    samples: std::collections::VecDeque<(Instant, u64)>,
    grown: Option<Instant>,
    done: Option<u64>,
}

impl Meter {
    /// So much is done now.
    pub(super) fn measure(&mut self, now: Instant, done: u64) {
        match self.done.replace(done) {
            Some(before) if done > before => {
                self.grown = Some(now);
                self.samples.push_back((now, done));
                while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
                    self.samples.pop_front();
                }
            }
            // Another file, or another count.
            Some(before) if done < before => *self = Self { done: Some(done), ..Self::default() },
            _ => {}
        }
    }

    /// Bytes a second, once that is known.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        let ((from, before), grown) = (self.samples.front()?, self.grown?);
        let enough = grown.duration_since(*from) >= SHORTEST_MEASURE && self.samples.len() >= 3;
        if !enough || now.duration_since(grown) > STANDSTILL {
            return None;
        }
        let (last, done) = self.samples.back()?;
        // Up to the last growth, or up to now where the next one is overdue.
        let beats = u32::try_from(self.samples.len() - 1).unwrap_or(u32::MAX);
        let mean = last.duration_since(*from) / beats;
        let overdue = now.duration_since(*last).saturating_sub(mean * 3);
        let span = last.duration_since(*from) + overdue;
        Some((done - before) as f64 / span.as_secs_f64()).filter(|rate| *rate > 0.0)
    }

    /// The time until so much more is done, once the pace is known.
    pub(super) fn left(&self, now: Instant, more: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(more as f64 / self.rate(now)?).ok()
    }
}

/// Where a verb tells how far it is.
pub(super) struct Progress {
    mode: Mode,
    /// Whether stdout carries files: then nothing else is written to it.
    stdout_is_taken: bool,
    began: Instant,
    told: Option<Instant>,
    on_screen: bool,
    meter: Meter,
    state: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Terminal,
    Plain,
    Json,
}

/// What there is to tell.
#[derive(Clone, Debug, Default, PartialEq)]
struct Standing {
    what: String,
    done: u64,
    total: Option<u64>,
    waits_for: Option<String>,
}

impl Progress {
    /// A line where stderr is a terminal that can move its cursor, and no JSON was asked for.
    pub(super) fn new(json: bool, stdout_is_taken: bool) -> Self {
        let can_redraw = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let mode = match (json, std::io::stderr().is_terminal() && can_redraw) {
            (true, _) => Mode::Json,
            (_, true) => Mode::Terminal,
            _ => Mode::Plain,
        };
        let (began, told) = (Instant::now(), None);
        Self {
            mode,
            stdout_is_taken,
            began,
            told,
            on_screen: false,
            meter: Meter::default(),
            state: Standing::default(),
        }
    }

    /// What it waits for, where the pace is not its own: "replicas", "the sender".
    pub(super) fn waits_for(&mut self, what: Option<String>) {
        self.state.waits_for = what;
    }

    /// How far `what` is, in bytes of all that is ahead.
    pub(super) fn at(&mut self, what: &str, done: u64, total: u64) -> Result<(), Stop> {
        self.show(what, done, Some(total))
    }

    /// The same where the end is not known.
    pub(super) fn show(&mut self, what: &str, done: u64, total: Option<u64>) -> Result<(), Stop> {
        let now = Instant::now();
        self.meter.measure(now, done);
        self.state = Standing { what: what.to_owned(), done, total, waits_for: self.state.waits_for.take() };
        let since = self.told.unwrap_or(self.began);
        let due = match (self.mode, self.told) {
            (Mode::Terminal, _) => now.duration_since(since) >= REDRAW,
            (Mode::Json, None) => true,
            (Mode::Json, _) => now.duration_since(since) >= BEAT,
            (Mode::Plain, None) => now.duration_since(since) >= PLAIN_FIRST,
            (Mode::Plain, _) => now.duration_since(since) >= PLAIN_BEAT,
        };
        if !due {
            return Ok(());
        }
        self.told = Some(now);
        match self.mode {
            Mode::Json => self.line(&self.event(now)),
            Mode::Plain => stderr(&format!("{}\n", self.text(now, usize::MAX, false))),
            Mode::Terminal => {
                self.on_screen = true;
                // One column stays free: a full line wraps on some terminals.
                stderr(&format!("\r{}\x1b[K", self.text(now, columns().saturating_sub(1), is_utf8())))
            }
        }
    }

    fn event(&self, now: Instant) -> Value {
        let Standing { what, done, total, waits_for } = &self.state;
        let left = total.and_then(|total| self.meter.left(now, total.saturating_sub(*done)));
        json!({ "event": "progress", "file": what, "done": done, "size": total,
                "bytes_per_second": self.meter.rate(now).map(f64::round),
                "left_ms": left.map(super::milliseconds), "waits_for": waits_for })
    }

    /// The line, in at most so many columns. What matters least goes first where it does not fit.
    fn text(&self, now: Instant, columns: usize, utf8: bool) -> String {
        let Standing { what, done, total, waits_for } = &self.state;
        let what = shown(what);
        let amount = match total {
            Some(total) => format!("{} of {}", show_size(*done), show_size(*total)),
            None => show_size(*done),
        };
        let left = match (total, total.and_then(|total| self.meter.left(now, total.saturating_sub(*done)))) {
            (Some(total), _) if done >= total => None,
            (Some(_), None) => Some("time left: estimating".to_owned()),
            (_, Some(left)) => Some(format!("{} left", rounded(left))),
            (None, None) => None,
        };
        let rate = self.meter.rate(now).map(|rate| format!("{}/s", show_size(rate as u64)));
        let waits = waits_for.as_ref().map(|what| format!("waits for {what}"));
        let spent = Some(format!("{} so far", rounded(now.duration_since(self.began))));
        let bar = total.filter(|_| columns != usize::MAX).map(|total| bar(*done, total, utf8));
        // In the order of the line; the second says how early it is left out.
        let mut parts = vec![(bar, 1), (Some(amount), 6), (rate, 3), (left, 5), (spent, 2), (waits, 4)];
        let width = |parts: &[(Option<String>, u8)]| {
            parts.iter().filter_map(|(part, _)| part.as_ref()).map(|part| part.width() + 2).sum::<usize>()
        };
        let least = what.width().min(12);
        while width(&parts) + least > columns {
            let Some(out) = parts.iter_mut().filter(|(part, _)| part.is_some()).min_by_key(|(_, rank)| *rank) else {
                break;
            };
            out.0 = None;
        }
        let room = columns.saturating_sub(width(&parts));
        let mut text = cut(&what, room, utf8);
        for part in parts.into_iter().filter_map(|(part, _)| part) {
            text.push_str("  ");
            text.push_str(&part);
        }
        cut(&text, columns, utf8)
    }

    /// Something came to its end: `text` for a person, `event` for programs.
    pub(super) fn tell(&mut self, text: &str, event: &Value) -> Result<(), Stop> {
        match self.mode {
            Mode::Json => self.line(event),
            _ if text.is_empty() => Ok(()),
            _ => {
                self.end();
                match self.stdout_is_taken {
                    true => stderr(&format!("{}\n", shown(text))),
                    false => output::line(text),
                }
            }
        }
    }

    /// Something that a person wants to know now, and a program does not.
    pub(super) fn note(&mut self, text: &str) {
        if self.mode != Mode::Json {
            self.end();
            let _ = stderr(&format!("{}\n", shown(text)));
        }
    }

    /// Takes the line away.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.on_screen) {
            let _ = stderr("\r\x1b[K");
        }
    }

    fn line(&self, value: &Value) -> Result<(), Stop> {
        match self.stdout_is_taken {
            true => stderr(&format!("{}\n", shown_json(&value.to_string()))),
            false => output::json(value),
        }
    }
}

impl Drop for Progress {
    /// A verb that is interrupted leaves no half of a line.
    fn drop(&mut self) {
        self.end();
    }
}

/// Does something that takes its time, and shows beside it how the channel stands. Nothing is shown with --json.
pub(super) async fn beside<T>(context: &Context, name: &str, bytes: Option<u64>, act: impl Future<Output = T>) -> T {
    let mut act = pin!(act);
    if context.json {
        return act.await;
    }
    let mut progress = Progress::new(false, true);
    let (sender, mut statuses) = mpsc::channel(1);
    let watch = tokio::spawn(watch(context.state.clone(), name.to_owned(), sender));
    let result = loop {
        tokio::select! {
            result = &mut act => break result,
            Some((channel, waits)) = statuses.recv() => {
                let channel: ChannelStatus = channel;
                progress.waits_for(waits);
                let (done, total) = match channel.role {
                    RoleStatus::Writer => (channel.stored_bytes, Some(channel.size)),
                    RoleStatus::Reader => (channel.size, bytes),
                };
                // A terminal that went away is no reason to stop.
                let _ = progress.show(name, done, total);
            }
        }
    };
    watch.abort();
    progress.end();
    result
}

/// Looks at a channel and at the daemon through the state's owner, beside whatever else is asked of it.
async fn watch(state: std::path::PathBuf, name: String, statuses: mpsc::Sender<(ChannelStatus, Option<String>)>) {
    let mut beat = interval_at(Instant::now() + BEAT / 2, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut daemon, mut none_since) = (0_u32, None, None);
    loop {
        beat.tick().await;
        if count.is_multiple_of(5)
            && let Some(Response::Status(status)) = look(&state, &Request::Status { name: None }).await
        {
            daemon = Some(status.daemon);
        }
        count = count.wrapping_add(1);
        let Some(Response::Channel(channel)) = look(&state, &Request::Status { name: Some(name.clone()) }).await else {
            continue;
        };
        let waits = daemon.as_ref().and_then(|daemon| without_daemon(daemon, &mut none_since));
        let waits = waits.or_else(|| Some(bound_of(&channel).to_owned()));
        if statuses.send((channel, waits)).await.is_err() {
            return;
        }
    }
}

/// What is said while there is no daemon, or no network behind it.
pub(super) fn without_daemon(daemon: &DaemonStatus, none_since: &mut Option<Instant>) -> Option<String> {
    match daemon.link {
        LinkStatus::Connected => {
            *none_since = None;
            None
        }
        LinkStatus::NoConsensus => Some("the daemon, which waits for the network".to_owned()),
        LinkStatus::NoDaemon | LinkStatus::Refused => {
            let since = *none_since.get_or_insert_with(Instant::now);
            Some(format!("a daemon (none for {})", rounded(since.elapsed())))
        }
    }
}

/// On whom the channel's progress depends.
pub(super) fn bound_of(channel: &ChannelStatus) -> &'static str {
    match channel.role {
        RoleStatus::Writer => "replicas",
        RoleStatus::Reader if channel.waiting_for_late_box => "a late box",
        RoleStatus::Reader if channel.not_there_yet_at.is_some() => "the sender",
        RoleStatus::Reader => "replicas",
    }
}

/// Never fails: whoever cannot be told is told by the result.
fn stderr(text: &str) -> Result<(), Stop> {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    Ok(())
}

/// The width of the terminal that shows progress; 80 where there is none.
pub(super) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| usize::from(size.ws_col));
    size.filter(|columns| *columns > 0).unwrap_or(80)
}

/// Whether the locale's characters are UTF-8.
pub(super) fn is_utf8() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn bar(done: u64, total: u64, utf8: bool) -> String {
    const CELLS: u64 = 20;
    let full = if total == 0 { 0 } else { u128::from(done.min(total)) * u128::from(CELLS) / u128::from(total) };
    let full = usize::try_from(full).unwrap_or_default();
    let (block, empty) = if utf8 { ("█", "░") } else { ("#", "-") };
    format!("[{}{}]", block.repeat(full), empty.repeat(CELLS as usize - full))
}

/// The text in at most so many columns.
fn cut(text: &str, columns: usize, utf8: bool) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mark = if utf8 { "…" } else { "..." };
    let room = columns.saturating_sub(mark.width());
    let mut width = 0;
    let kept = text.chars().take_while(|letter| {
        width += letter.width().unwrap_or(0);
        width <= room
    });
    let mut kept: String = kept.collect();
    if columns >= mark.width() {
        kept.push_str(mark);
    }
    kept
}

/// A span without more digits than are true.
fn rounded(span: Duration) -> String {
    match span.as_secs() {
        0..60 => format!("{} s", span.as_secs()),
        _ => show_span(span.as_secs() * 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(what: &str, done: u64, total: Option<u64>) -> Progress {
        let state = Standing { what: what.to_owned(), done, total, waits_for: Some("replicas".to_owned()) };
        let mut progress = Progress::new(false, true);
        (progress.mode, progress.state) = (Mode::Terminal, state);
        progress
    }

    /// Boxes of 1,549 bytes come in bursts, the first after a round trip. After 20 s the estimate is right within a fifth,
    /// and before it is known nothing is claimed.
    #[test]
    fn the_time_left_is_right_once_it_is_told() {
        let began = Instant::now();
        let (mut meter, total) = (Meter::default(), 1549 * 1000_u64);
        let pace = |seconds: f64| ((seconds - 8.0).max(0.0) * 5.0).min(1000.0) as u64 / 4 * 4 * 1549;
        for tick in 0..=800_u32 {
            let (seconds, now) = (f64::from(tick) / 4.0, began + Duration::from_millis(250) * tick);
            meter.measure(now, pace(seconds));
            let left = meter.left(now, total - pace(seconds));
            if seconds < 13.0 {
                assert_eq!(left, None, "at {seconds} s nothing is known");
            }
            if (20.0..180.0).contains(&seconds) {
                let (told, truth) = (left.expect("known").as_secs_f64(), 208.0 - seconds);
                assert!((told - truth).abs() <= truth * 0.2, "at {seconds} s: {told} s, and it takes {truth} s");
            }
        }
    }

    #[test]
    fn who_stands_still_has_no_time_left() {
        let began = Instant::now();
        let mut meter = Meter::default();
        for second in 0..30 {
            meter.measure(began + Duration::from_secs(second), second * 1000);
        }
        assert!(meter.rate(began + Duration::from_secs(30)).is_some());
        assert_eq!(meter.rate(began + Duration::from_secs(120)), None, "nothing came for 90 s");
        meter.measure(began + Duration::from_secs(121), 5);
        assert_eq!(meter.rate(began + Duration::from_secs(121)), None, "another file");
    }

    #[test]
    fn a_line_fits_into_any_terminal_whatever_the_name() {
        for name in
            ["report.pdf", "отчёт-за-год.pdf", "日本語の長いファイル名の報告書.pdf", "e\u{301}te\u{301}", "\x1b[2J"]
        {
            for columns in [10, 20, 39, 59, 79, 119] {
                for utf8 in [true, false] {
                    let text = progress(name, 1_500_000, Some(5_000_000)).text(Instant::now(), columns, utf8);
                    assert!(text.width() <= columns, "{columns}: {text:?} takes {}", text.width());
                    assert!(!text.contains('\x1b'), "{text:?}");
                    assert!(utf8 || !text.contains(['█', '░', '…']), "{text:?}");
                }
            }
        }
        let text = progress("report.pdf", 1_500_000, Some(5_000_000)).text(Instant::now(), 119, false);
        assert_eq!(
            text,
            "report.pdf  [######--------------]  1.4 MiB of 4.7 MiB  time left: estimating  0 s so far  waits for replicas"
        );
        let narrow = progress("report.pdf", 1_500_000, Some(5_000_000)).text(Instant::now(), 39, false);
        assert_eq!(narrow, "report.pdf  1.4 MiB of 4.7 MiB");
    }
}
