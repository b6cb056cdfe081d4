//! What the driver knows and others may look at: the daemon's state, the next probes, the newest trouble.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::status::DaemonStatus;
use crate::store::{Channel, ChannelId, NetworkId};

/// Notes that are kept of one channel.
const MAX_NOTES: usize = 32;
/// The longest note, in characters.
const MAX_NOTE: usize = 400;

/// Why a channel of another network is refused.
pub(super) fn other_network() -> String {
    "the channel belongs to another network than the one behind this daemon. Use the daemon of its own network \
     (--config or --daemon); nothing was sent"
        .to_owned()
}

#[derive(Default)]
struct Seen {
    daemon: DaemonStatus,
    network: Option<NetworkId>,
    next_probe: HashMap<ChannelId, Instant>,
    trouble: HashMap<ChannelId, String>,
    notes: HashMap<ChannelId, VecDeque<(SystemTime, String)>>,
}

#[derive(Default)]
pub(super) struct Shared(Mutex<Seen>);

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn see(&self, daemon: DaemonStatus) {
        self.seen().daemon = daemon;
    }

    pub(super) fn daemon(&self) -> DaemonStatus {
        self.seen().daemon.clone()
    }

    pub(super) fn set_network(&self, network: NetworkId) {
        self.seen().network = Some(network);
    }

    /// Whether the channel is bound to another network than the newest that was seen.
    pub(super) fn refuses(&self, channel: &Channel) -> bool {
        match (&self.seen().network, &channel.network) {
            (Some(present), Some(bound)) => !bound.is_same_network_as(present),
            _ => false,
        }
    }

    pub(super) fn next_probe(&self, id: ChannelId, at: Option<Instant>) {
        match at {
            Some(at) => self.seen().next_probe.insert(id, at),
            None => self.seen().next_probe.remove(&id),
        };
    }

    pub(super) fn next_probe_of(&self, id: ChannelId) -> Option<Instant> {
        self.seen().next_probe.get(&id).copied()
    }

    pub(super) fn trouble(&self, id: ChannelId, trouble: Option<String>) {
        if let Some(trouble) = &trouble {
            self.note(id, trouble);
        }
        match trouble {
            Some(trouble) => self.seen().trouble.insert(id, trouble),
            None => self.seen().trouble.remove(&id),
        };
    }

    pub(super) fn trouble_of(&self, id: ChannelId) -> Option<String> {
        self.seen().trouble.get(&id).cloned()
    }

    /// Keeps what went wrong. The same again, with nothing else in between, only has a new time.
    pub(super) fn note(&self, id: ChannelId, text: &str) {
        let mut seen = self.seen();
        let notes = seen.notes.entry(id).or_default();
        let text: String = text.chars().take(MAX_NOTE).collect();
        if notes.back().is_some_and(|(_, last)| *last == text) {
            notes.pop_back();
        } else if notes.len() == MAX_NOTES {
            notes.pop_front();
        }
        notes.push_back((SystemTime::now(), text));
    }

    pub(super) fn notes_of(&self, id: ChannelId) -> Vec<(SystemTime, String)> {
        self.seen().notes.get(&id).map(|notes| notes.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn forget(&self, id: ChannelId) {
        let mut seen = self.seen();
        seen.next_probe.remove(&id);
        seen.trouble.remove(&id);
        seen.notes.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_notes_are_kept_and_a_repetition_is_one() {
        let shared = Shared::default();
        let id = ChannelId(1);
        for at in 0..100 {
            shared.note(id, &format!("number {}", at / 2));
        }
        shared.trouble(id, Some("x".repeat(1000)));
        let texts: Vec<_> = shared.notes_of(id).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts.len(), MAX_NOTES);
        assert_eq!(texts[..2], ["number 19", "number 20"]);
        assert_eq!(texts[MAX_NOTES - 1].len(), MAX_NOTE);
        shared.forget(id);
        assert_eq!(shared.notes_of(id), []);
    }
}
