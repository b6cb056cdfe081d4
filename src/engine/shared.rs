//! What the driver knows and others may look at: the daemon's state, the next probes, the newest trouble.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::status::{DaemonStatus, LinkStatus};
use crate::channel::{Delivery, JointPace, OTHER_NETWORK, Pace};
use crate::store::{Channel, ChannelId, Durability, MAX_NOTES, NetworkId, Role, Store};

/// The longest note, in characters.
const MAX_NOTE: usize = 400;
/// Over how long a channel's rate is averaged, in seconds.
const RATE_OVER: f64 = 60.0;
/// What goes wrong again and again is written to the disk so often at most.
const NOTE_AGAIN: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    /// By their numbers.
    daemons: Vec<DaemonStatus>,
    network: Option<NetworkId>,
    next_probe: HashMap<ChannelId, Instant>,
    trouble: HashMap<ChannelId, String>,
    notes: HashMap<ChannelId, VecDeque<(SystemTime, String)>>,
    /// Of all daemons together, and of each.
    pace: JointPace,
    paces: Vec<Pace>,
    /// Packets that the writers have still to send.
    backlog: HashMap<ChannelId, u64>,
    rates: HashMap<ChannelId, Rate>,
    follows: HashMap<ChannelId, Instant>,
    /// Reads of the search that is under way, and how many it may take.
    search: Option<(ChannelId, (u32, u32))>,
    /// Parts of the engine that have ended abnormally and are not started again yet.
    down: BTreeMap<&'static str, String>,
}

/// Boxes a second, as of a time; it fades while none follow.
#[derive(Clone, Copy)]
struct Rate {
    boxes_per_second: f64,
    at: Instant,
}

impl Rate {
    fn at(self, now: Instant) -> f64 {
        self.boxes_per_second * (-now.saturating_duration_since(self.at).as_secs_f64() / RATE_OVER).exp()
    }
}

pub(super) struct Shared {
    seen: Mutex<Seen>,
    /// Keeps the notes for the next mount.
    store: Store,
}

impl Shared {
    pub(super) fn new(store: Store) -> Self {
        Self { seen: Mutex::default(), store }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn see(&self, daemons: Vec<DaemonStatus>) {
        self.seen().daemons = daemons;
    }

    /// A part of the engine has ended abnormally, and is down; or it is started again.
    pub(super) fn part_is_down(&self, part: &'static str, why: Option<&str>) {
        let mut seen = self.seen();
        match why {
            Some(why) => seen.down.insert(part, why.to_owned()),
            None => seen.down.remove(part),
        };
    }

    /// What of the engine does not run though it should, in words.
    pub(super) fn failure(&self) -> Option<String> {
        let seen = self.seen();
        let (part, why) = seen.down.first_key_value()?;
        Some(format!("{part} ended abnormally and is started again in a moment: {why}. Please report this"))
    }

    /// How the network stands by all daemons together: as by the first of those that are nearest to it.
    pub(super) fn daemon(&self) -> DaemonStatus {
        let seen = self.seen();
        let nearest = seen.daemons.iter().min_by_key(|daemon| Reverse(daemon.link));
        let mut daemon = nearest.cloned().unwrap_or_default();
        if daemon.max_plaintext.is_some() {
            daemon.window_boxes = Some(seen.pace.window_boxes() as u64);
            daemon.round_trip_ms = u64::try_from(seen.pace.round_trip().as_millis()).ok();
        }
        daemon
    }

    /// How each daemon stands, where there are several.
    pub(super) fn daemons(&self) -> Vec<DaemonStatus> {
        let seen = self.seen();
        if seen.daemons.len() < 2 {
            return Vec::new();
        }
        let mut daemons = seen.daemons.clone();
        for (daemon, pace) in daemons.iter_mut().zip(&seen.paces) {
            if daemon.max_plaintext.is_some() {
                daemon.window_boxes = Some(pace.window_boxes() as u64);
                daemon.round_trip_ms = u64::try_from(pace.round_trip().as_millis()).ok();
            }
        }
        daemons
    }

    pub(super) fn see_pace(&self, delivery: &Delivery) {
        let mut seen = self.seen();
        seen.pace = delivery.pace();
        if !seen.paces.iter().eq(delivery.paces()) {
            seen.paces = delivery.paces().cloned().collect();
        }
    }

    /// Takes note of what a channel has still to send.
    pub(super) fn see_channel(&self, channel: &Channel) {
        let left = if channel.role == Role::Writer && channel.fence.is_none() { packets_left(channel) } else { 0 };
        let mut seen = self.seen();
        if left == 0 {
            seen.backlog.remove(&channel.id);
        } else {
            seen.backlog.insert(channel.id, left);
        }
    }

    /// When all that a channel has queued will have left, as the network's pace goes: channels take turns, so that of
    /// each other one no more goes before it than it has itself.
    pub(super) fn time_left(&self, channel: &Channel) -> Option<Duration> {
        let own = packets_left(channel);
        let seen = self.seen();
        if own == 0 || !seen.daemons.iter().any(|daemon| daemon.link == LinkStatus::Connected) {
            return None;
        }
        let others = seen.backlog.iter().filter(|(id, _)| **id != channel.id).map(|(_, &left)| left.min(own));
        let packets = others.fold(own, u64::saturating_add);
        let packets = f64::from(u32::try_from(packets).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(packets / seen.pace.packets_per_second())
            .ok()
            .map(|time| time + seen.pace.round_trip())
    }

    /// A box of the channel was confirmed, or arrived.
    pub(super) fn count_box(&self, id: ChannelId) {
        let now = Instant::now();
        let mut seen = self.seen();
        let before = seen.rates.get(&id).map_or(0.0, |rate| rate.at(now));
        seen.rates.insert(id, Rate { boxes_per_second: before + 1.0 / RATE_OVER, at: now });
    }

    /// Boxes a second of a channel, over the last minute or so.
    pub(super) fn rate(&self, id: ChannelId) -> f64 {
        self.seen().rates.get(&id).map_or(0.0, |rate| rate.at(Instant::now()))
    }

    pub(super) fn follow(&self, id: ChannelId, until: Instant) {
        self.seen().follows.insert(id, until);
    }

    /// Until when a channel is followed.
    pub(super) fn follows(&self, id: ChannelId) -> Option<Instant> {
        self.seen().follows.get(&id).copied().filter(|until| *until > Instant::now())
    }

    pub(super) fn set_network(&self, network: NetworkId) {
        self.seen().network = Some(network);
    }

    pub(super) fn packets_per_second(&self) -> f64 {
        self.seen().pace.packets_per_second()
    }

    pub(super) fn network(&self) -> Option<NetworkId> {
        self.seen().network.clone()
    }

    /// Why the channel does not belong to the newest network that was seen: by what it is bound to, or by its text.
    pub(super) fn refusal(&self, channel: &Channel) -> Option<String> {
        let seen = self.seen();
        let present = seen.network.as_ref()?;
        let why = || channel.misfit(present).map_or_else(|| OTHER_NETWORK.to_owned(), |misfit| misfit.to_string());
        channel.is_foreign_to(present).then(why)
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

    /// How far the search of a channel has come; it is the only one.
    pub(super) fn searching(&self, id: ChannelId, progress: Option<(u32, u32)>) {
        self.seen().search = progress.map(|progress| (id, progress));
    }

    pub(super) fn search_of(&self, id: ChannelId) -> Option<(u32, u32)> {
        self.seen().search.filter(|(searched, _)| *searched == id).map(|(_, progress)| progress)
    }

    pub(super) fn trouble_of(&self, id: ChannelId) -> Option<String> {
        self.seen().trouble.get(&id).cloned()
    }

    /// Keeps what went wrong. The same again, with nothing else in between, only has a new time.
    pub(super) fn note(&self, id: ChannelId, text: &str) {
        let mut seen = self.seen();
        let notes = seen.notes.entry(id).or_insert_with(|| self.kept(id));
        let text: String = text.chars().take(MAX_NOTE).collect();
        let now = SystemTime::now();
        let mut is_news = true;
        match notes.back_mut() {
            Some((at, last)) if *last == text => {
                is_news = now.duration_since(*at).is_ok_and(|since| since >= NOTE_AGAIN);
                *at = now;
            }
            _ => {
                if notes.len() == MAX_NOTES {
                    notes.pop_front();
                }
                notes.push_back((now, text.clone()));
            }
        }
        drop(seen);
        if is_news {
            // Nobody waits for it, and one that cannot be kept is in the log.
            drop(self.store.note(id, text));
        }
    }

    fn kept(&self, id: ChannelId) -> VecDeque<(SystemTime, String)> {
        // One that cannot be read begins anew.
        self.store.notes(id).unwrap_or_default().into()
    }

    pub(super) fn notes_of(&self, id: ChannelId) -> Vec<(SystemTime, String)> {
        self.seen().notes.entry(id).or_insert_with(|| self.kept(id)).iter().cloned().collect()
    }

    pub(super) fn forget(&self, id: ChannelId) {
        let mut seen = self.seen();
        seen.next_probe.remove(&id);
        seen.trouble.remove(&id);
        seen.notes.remove(&id);
        seen.backlog.remove(&id);
        seen.rates.remove(&id);
        seen.follows.remove(&id);
    }
}

/// Packets that a writer's channel has still to send, confirmations among them.
fn packets_left(channel: &Channel) -> u64 {
    let unstored = channel.boxes.saturating_sub(channel.stored_boxes);
    let unsent = unstored.saturating_sub(channel.couriered_boxes);
    match channel.durability {
        Durability::Stored => unstored.saturating_mul(2),
        Durability::Couriered => unsent.saturating_add(unstored.saturating_mul(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bacap::WriteCap;
    use crate::store::{ChannelName, Limits, StateDir};

    #[test]
    fn the_newest_notes_are_kept_also_for_the_next_mount_and_a_repetition_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&StateDir::lock(dir.path()).unwrap(), Limits::default()).unwrap();
        let store = open();
        let name = ChannelName::parse("noted").unwrap();
        let id = store.create_stream(name.clone(), WriteCap::from_seed(&[1; 32])).wait().unwrap();
        let shared = Shared::new(store.clone());
        for at in 0..100 {
            shared.note(id, &format!("number {}", at / 2));
        }
        shared.trouble(id, Some("x".repeat(1000)));
        let texts: Vec<_> = shared.notes_of(id).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts.len(), MAX_NOTES);
        assert_eq!(texts[..2], ["number 19", "number 20"]);
        assert_eq!(texts[MAX_NOTES - 1].len(), MAX_NOTE);
        store.close();
        let store = open();
        let shared = Shared::new(store.clone());
        assert_eq!(shared.notes_of(id).into_iter().map(|(_, text)| text).collect::<Vec<_>>(), texts);
        store.forget(name).wait().unwrap();
        shared.forget(id);
        assert_eq!(shared.notes_of(id), []);
    }
}
