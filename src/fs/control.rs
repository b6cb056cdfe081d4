//! What the control directory says: the owner's status, for programs and for persons.

use std::fmt::Write as _;

use super::{Fs, FsError, Node, Report};
use crate::engine::status::{ChannelStatus, RoleStatus, unix_seconds};
use crate::model::{AT_HOME, is_rsync_temporary};
use crate::store::{Channel, ChannelId, Role};
use crate::text::{shown, shown_json};
use crate::units::{show_date as utc, show_span as span};

impl Fs {
    /// The contents of a report, now. None where they come only with the read: of `wait`.
    pub(super) fn report(&self, node: Node) -> Result<Option<Vec<u8>>, FsError> {
        let json = |result: Result<String, serde_json::Error>| {
            let text = result.map_err(|error| FsError::new(libc::EIO, error.to_string()))?;
            Ok(Some((shown_json(&text).into_owned() + "\n").into_bytes()))
        };
        match node {
            Node::Status => json(serde_json::to_string_pretty(&self.owner.engine().status()?)),
            Node::Report(id, Report::Status) => {
                let channel = self.channel(id)?;
                let status = self.owner.engine().channel_status(&channel);
                let mut text = for_a_person(&status, self.standing(&channel));
                if channel.content.is_drop() {
                    for (key, value) in self.dropped_lines(&channel)? {
                        let _ = writeln!(text, "{key:<10} {}", one_line(&value));
                    }
                }
                Ok(Some(text.into_bytes()))
            }
            Node::Report(id, Report::StatusJson) => {
                json(serde_json::to_string_pretty(&self.owner.engine().channel_status(&self.channel(id)?)))
            }
            Node::Report(id, Report::Errors) => Ok(Some(self.errors(&self.channel(id)?).into_bytes())),
            Node::Report(id, Report::ReadCapability) => Ok(Some(self.read_capability(&self.channel(id)?)?)),
            Node::Report(id, Report::Wait) => self.channel(id).map(|_| None),
            _ => Err(FsError::quiet(libc::EISDIR, "it is a directory")),
        }
    }

    fn errors(&self, channel: &Channel) -> String {
        let mut text = String::new();
        for (at, note) in self.owner.engine().notes(channel.id) {
            let _ = writeln!(text, "{} {}", utc(unix_seconds(at)), one_line(&note));
        }
        if let Some(reason) = &channel.fence {
            let _ = writeln!(text, "fenced: {}", one_line(reason));
        }
        text
    }

    /// Whoever reads it may have given it away: from then on nothing can be taken back.
    fn read_capability(&self, channel: &Channel) -> Result<Vec<u8>, FsError> {
        if channel.role == Role::Writer && !channel.shown {
            self.options.check_changes_allowed()?;
        }
        let text = self.owner.store().reveal(channel.id, false).wait()?;
        Ok(format!("{}\n", *text).into_bytes())
    }

    /// Notes a refusal where a person looks for it, in the errors of the channel.
    pub(super) fn refused(&self, channel: &Channel, errno: i32, text: impl AsRef<str>) -> FsError {
        let error = FsError::new(errno, format!("{}: {}", channel.name, text.as_ref()));
        self.owner.engine().note(channel.id, text.as_ref());
        error
    }

    /// The channel's own trouble, else nothing: for what it is told of a change.
    pub(super) fn told(&self, channel: &Channel, error: crate::store::StoreError) -> FsError {
        let error = FsError::from(error);
        if error.worth_telling {
            self.owner.engine().note(channel.id, &error.message);
        }
        error
    }

    pub(super) fn channel(&self, id: ChannelId) -> Result<Channel, FsError> {
        self.owner.store().channel(id)?.ok_or_else(super::removed)
    }
}

/// What a read of `wait` says at its end.
pub(super) fn outcome(channel: &Channel) -> String {
    match channel.role {
        Role::Writer => format!("stored {} bytes\n", channel.stored_bytes),
        Role::Reader => format!("up to date at {} bytes\n", channel.size),
    }
}

fn for_a_person(status: &ChannelStatus, standing: &str) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<10} {}", one_line(&value));
    };
    let boxes = |count: u64| if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") };
    line("name", status.name.clone());
    line("state", standing.to_owned());
    match status.role {
        RoleStatus::Writer => {
            line("accepted", format!("{} bytes in {}", status.size, boxes(status.boxes)));
            line("stored", format!("{} bytes in {}", status.stored_bytes, boxes(status.stored_boxes)));
            line("queued", format!("{} bytes in {}", status.queued_bytes, boxes(status.queued_boxes)));
            if status.couriered_boxes > 0 {
                line("couriered", format!("{} bytes in {}", status.couriered_bytes, boxes(status.couriered_boxes)));
            }
            if let Some(age) = status.oldest_unstored_ms {
                line("oldest", format!("waits for {}", span(age)));
            }
            if let Some(left) = status.eta_ms {
                line("done", format!("in {}", span(left)));
            }
            if let Some(at) = status.oldest_expires_at {
                line("expires", format!("its oldest box, from {} on", utc(at)));
            }
            if status.invited {
                line("invited", "nothing of it leaves before the other side has answered".to_owned());
            } else {
                let may = if status.launched || status.shared { "only grow" } else { "still be taken back" };
                line("may", may.to_owned());
            }
            if let Some(until) = status.kept_until {
                line("kept", format!("until {}", utc(until)));
            }
            if status.expired_boxes > 0 {
                line("again", format!("{} have expired and are being sent again", boxes(status.expired_boxes)));
            }
            if !status.launched && is_rsync_temporary(&status.name) {
                line("held", AT_HOME.to_owned());
            }
        }
        RoleStatus::Reader => {
            line("arrived", format!("{} bytes in {}", status.size, boxes(status.boxes)));
            if let Some(at) = status.not_there_yet_at {
                line("as of", format!("{}: nothing more was there then", utc(at)));
            }
            if let Some(text) = status.beginning() {
                line("beginning", text);
            }
            if let Some(until) = status.kept_until {
                line("kept", format!("until {} by its writer: what is not found before is late", utc(until)));
            }
            if let Some(until) = status.unfetched_until {
                line("not fetched", format!("what is new can be had until {}, at least", utc(until)));
            }
            if let Some(left) = status.next_probe_ms {
                line("next probe", format!("in {}", span(left)));
            }
        }
    }
    if status.boxes_per_minute > 0.0 {
        line("rate", format!("{} boxes a minute", status.boxes_per_minute));
    }
    if status.dropped_bytes > 0 {
        line("dropped", format!("the first {} bytes, to make room", status.dropped_bytes));
    }
    if status.paused {
        line("paused", "the cache is full; `pigeonfs trim` makes room".to_owned());
    }
    if status.lost {
        let text = "boxes are gone from the network; reading on gives EIO until `pigeonfs skip` goes on behind them";
        line("lost", format!("{} {text}", status.missing_boxes));
    } else if status.waiting_for_late_box {
        line("late", format!("{} boxes before one that is here; they are asked for again", status.missing_boxes));
    }
    if status.stale {
        let reads = status.search_probes.map(|reads| format!("; the search has taken {reads} reads"));
        line("stale", format!("what comes next may have expired{}", reads.unwrap_or_default()));
    }
    if status.skipped_boxes > 0 {
        line("skipped", format!("{} boxes, which read as no bytes", status.skipped_boxes));
    }
    if let Some(reason) = &status.fenced {
        line("fenced", one_line(reason));
    }
    if let Some(boxes) = status.adopting {
        line("adopting", format!("{boxes} boxes were looked at"));
    }
    if let Some(error) = &status.error {
        line("error", one_line(error));
    }
    text
}

fn one_line(text: &str) -> String {
    shown(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}
