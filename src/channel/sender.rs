//! The sender: takes one channel's sealed boxes through *launched* to *stored*.
//!
//! The order of things is the law: a box is asked for with [`SenderAction::Fetch`], its launch is committed with
//! [`SenderAction::Launch`], and only after the shell's [`SenderEvent::Launched`] is it ready to be sent. When it is sent
//! says the [`Scheduler`](super::Scheduler), which takes it with [`Sender::take_write`].
//!
//! With [`Durability::Stored`] every box goes out strict, so that [`Outcome::Stored`] is a replica's own word. With
//! [`Durability::Couriered`] a courier's word lets the next one go, and the box is confirmed later: the same bytes at the
//! same index, strict. No more than [`MAX_UNCONFIRMED`] boxes, and none for longer than [`UNCONFIRMED_FOR`], are left so;
//! then confirmations go first.
//!
//! The first box that is launched after the store was opened goes alone and strict, whenever it was sealed: a state that
//! was restored from a backup then meets what its other life wrote, and stops there. A box whose index holds other contents
//! is read back, and is ours only if the plaintext there is ours: other bytes and tombstones fence the channel.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Time;
#[cfg(test)]
use super::bugs::{Bug, has};
use crate::model::{BoxSeq, Durability};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(60);
/// Boxes that a courier has and no replica confirmed; with more, nothing new is sent.
pub const MAX_UNCONFIRMED: usize = 4096;
/// How long a box may be left unconfirmed before its confirmation goes first.
pub const UNCONFIRMED_FOR: Duration = Duration::from_secs(24 * 3600);
/// A channel with no more boxes than these has a short message to send, and not a backlog.
const SHORT_BOXES: usize = 2;

/// What came of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Strict: a replica holds these bytes.
    Stored,
    /// Not strict: a courier has them.
    Couriered,
    /// The index holds other contents (code 10).
    Occupied,
    /// No answer, or one that a later try may better; the bytes go again, in a fresh envelope.
    Again,
    /// The envelope is of another epoch, and no replica saw it; a fresh one goes at once, the first time.
    Stale,
}

/// What an occupied index turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Our own bytes.
    Ours,
    /// What another holder of the write capability put there.
    Foreign(Foreign),
    /// It could not be read this time.
    Unknown,
}

/// What another holder of the write capability put where a box of ours belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Other bytes.
    Bytes,
    /// A tombstone: our bytes are not there, and nobody can put them there any more.
    Tombstone,
}

/// How far a box is that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Its launch is not committed.
    Sealed,
    /// It was launched, in this life or an earlier one.
    Launched,
    /// A courier has it; no replica confirmed it.
    Couriered {
        /// Since when.
        since: Time,
    },
}

/// What the shell tells the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// The store has, or may have, boxes that are not stored yet.
    Queued,
    /// Answers [`SenderAction::Fetch`]: the next boxes in order.
    Fetched {
        /// Ascending, from where the fetch said; fewer than its limit only where there are no more.
        boxes: Vec<(BoxSeq, Fetched)>,
    },
    /// The boxes could not be looked up; that is tried again later.
    FetchFailed,
    /// The launch of these boxes is committed.
    Launched {
        /// As in [`SenderAction::Launch`].
        boxes: Vec<BoxSeq>,
    },
    /// The launch could not be committed; it is tried again later.
    LaunchFailed {
        /// As in [`SenderAction::Launch`].
        boxes: Vec<BoxSeq>,
    },
    /// One write has ended.
    Ended {
        /// Which box.
        seq: BoxSeq,
        /// How.
        outcome: Outcome,
    },
    /// An occupied index was read.
    WasRead {
        /// Which box.
        seq: BoxSeq,
        /// What it holds.
        found: ReadBack,
    },
    /// What was under way for a box is done by another daemon of the network: at once, and strict where it is a write, as
    /// the first one may have done it.
    Moved {
        /// Which box.
        seq: BoxSeq,
    },
    /// The network became reachable, or ceased to be.
    Online(bool),
    /// Nothing but time.
    Tick,
}

/// What the sender wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderAction {
    /// Look up at most `limit` boxes that are not stored, from `from` on.
    Fetch {
        /// First sequence number to look at.
        from: BoxSeq,
        /// Most boxes.
        limit: usize,
    },
    /// Commit that packets of these boxes may leave.
    Launch {
        /// Ascending.
        boxes: Vec<BoxSeq>,
    },
    /// Commit that a replica holds the box.
    Confirm {
        /// Which box.
        seq: BoxSeq,
    },
    /// Commit that a courier has the box.
    Courier {
        /// Which box.
        seq: BoxSeq,
    },
    /// A box that was launched in this life is confirmed: a later sender of this life need not go alone again.
    Trust,
    /// Stop the channel: the box's index holds what another writer put there.
    Fence {
        /// Which box met it.
        seq: BoxSeq,
        /// What it met.
        foreign: Foreign,
    },
}

/// What is to be done with a box over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Write it.
    Write {
        /// Until a replica's word, rather than a courier's.
        strict: bool,
    },
    /// Read what its index holds, to compare.
    ReadBack,
    /// Read it, once.
    Read,
}

impl Operation {
    /// Packets that it takes at least (A.2).
    pub fn packets(self) -> u32 {
        if self == (Self::Write { strict: false }) { 1 } else { 2 }
    }
}

/// What a sender would have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Something that does not wait for an idle slot.
    pub write: bool,
    /// That it is all of a short message.
    pub short: bool,
    /// A confirmation, in an idle slot.
    pub confirm: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its launch is being committed.
    Launching,
    /// Launched; may be sent once there is room, and not before the time.
    Ready { not_before: Time },
    /// A write is under way.
    Sent,
    /// A read of its index is under way.
    Reading,
    /// The index is occupied and could not be read yet.
    ReadLater { not_before: Time },
}

#[derive(Clone, Copy, Debug)]
struct InHand {
    phase: Phase,
    tries: u32,
    /// When it came into its map.
    since: Time,
    /// Only a replica's word counts for it, whatever the channel's durability.
    strict: bool,
}

impl InHand {
    fn ready(since: Time, not_before: Time) -> Self {
        Self { phase: Phase::Ready { not_before }, tries: 0, since, strict: false }
    }

    fn due(&self) -> Option<Time> {
        match self.phase {
            #[cfg(test)]
            Phase::Ready { .. } if self.tries > 0 && has(Bug::LoseWakeUp) => None,
            Phase::Ready { not_before } | Phase::ReadLater { not_before } => Some(not_before),
            _ => None,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Sent | Phase::Reading)
    }
}

/// The sender of one channel. See the module's head.
#[derive(Debug)]
pub struct Sender {
    window_boxes: usize,
    durability: Durability,
    online: bool,
    /// Nothing is launched before this time.
    not_before: Time,
    /// The first box that may have been launched in this life; none of those is confirmed yet. `None`: one is.
    untrusted_from: Option<BoxSeq>,
    fenced: bool,
    /// The limit of the fetch that is under way.
    fetching: Option<usize>,
    fetches_failed: u32,
    fetch_again_at: Option<Time>,
    /// The store may hold boxes at the cursor or past it.
    more: bool,
    cursor: BoxSeq,
    /// Boxes between fetch and a first word of the network; at most two windows.
    in_hand: BTreeMap<BoxSeq, InHand>,
    /// Boxes that a courier has; at most [`MAX_UNCONFIRMED`] and a window.
    unconfirmed: BTreeMap<BoxSeq, InHand>,
    launches_failed: u32,
    launch_again_at: Option<Time>,
    /// Fetched and not launched: waiting for [`Self::not_before`], for the network or for the first confirmation.
    waiting: VecDeque<BoxSeq>,
}

impl Sender {
    /// A sender whose first unconfirmed box is at `cursor` or later, and which launches nothing before `not_before`.
    /// `untrusted_from` is the first box that was not launched when the store was opened; `None` once one of those was
    /// confirmed.
    pub fn new(cursor: BoxSeq, not_before: Time, untrusted_from: Option<BoxSeq>, durability: Durability) -> Self {
        Self {
            window_boxes: 1,
            durability,
            online: false,
            not_before,
            untrusted_from,
            fenced: false,
            fetching: None,
            fetches_failed: 0,
            fetch_again_at: None,
            more: true,
            cursor,
            in_hand: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            launches_failed: 0,
            launch_again_at: None,
            waiting: VecDeque::new(),
        }
    }

    /// How many boxes may be launched and on their way, from now on.
    pub fn set_window(&mut self, boxes: usize) {
        self.window_boxes = boxes.max(1);
    }

    /// Whether nothing is in hand and nothing is known to be queued: the sender may be dropped.
    pub fn is_idle(&self) -> bool {
        !self.more
            && self.fetching.is_none()
            && self.in_hand.is_empty()
            && self.unconfirmed.is_empty()
            && self.waiting.is_empty()
    }

    /// What it would have sent now.
    pub fn wants(&self, now: Time) -> Wants {
        if self.fenced || !self.online {
            return Wants::default();
        }
        let unconfirmed = self.next_confirmation(now).is_some();
        let overdue = unconfirmed && self.is_overdue(now);
        let write = overdue || self.next_in_hand(now).is_some();
        // Until the next boxes are looked up it is not known how many there are.
        let known = !self.more && self.fetching.is_none();
        let short = known && self.in_hand.len() + self.waiting.len() <= SHORT_BOXES && !overdue;
        // A slot is idle when there is nothing new to come into it.
        let launching = |held: &InHand| held.phase == Phase::Launching;
        let idle = known && self.waiting.is_empty() && !self.in_hand.values().any(launching);
        Wants { write, short: write && short, confirm: unconfirmed && idle }
    }

    /// The next thing to send that does not wait for an idle slot; it is under way from now on.
    pub fn take_write(&mut self, now: Time) -> Option<(BoxSeq, Operation)> {
        if self.fenced || !self.online {
            return None;
        }
        if self.is_overdue(now)
            && let Some(taken) = self.take_confirmation(now)
        {
            return Some(taken);
        }
        let seq = self.next_in_hand(now)?;
        let strict = self.durability == Durability::Stored || self.untrusted_from.is_some_and(|from| seq >= from);
        Some((seq, begin(self.in_hand.get_mut(&seq)?, strict)))
    }

    /// The next confirmation; it is under way from now on.
    pub fn take_confirmation(&mut self, now: Time) -> Option<(BoxSeq, Operation)> {
        if self.fenced || !self.online {
            return None;
        }
        let seq = self.next_confirmation(now)?;
        Some((seq, begin(self.unconfirmed.get_mut(&seq)?, true)))
    }

    /// Takes an event in and says what is to be done.
    pub fn handle(&mut self, now: Time, event: SenderEvent) -> Vec<SenderAction> {
        let mut actions = Vec::new();
        match event {
            SenderEvent::Queued => self.more = true,
            SenderEvent::Fetched { boxes } => self.fetched(now, boxes),
            SenderEvent::FetchFailed => {
                self.fetching = None;
                self.more = true;
                self.fetch_again_at = Some(now + backoff(self.fetches_failed));
                self.fetches_failed = self.fetches_failed.saturating_add(1);
            }
            SenderEvent::Launched { boxes } => {
                self.launches_failed = 0;
                for seq in boxes {
                    self.set(seq, Phase::Ready { not_before: now });
                }
            }
            SenderEvent::LaunchFailed { boxes } => self.launch_failed(now, boxes),
            SenderEvent::Ended { seq, outcome } => self.ended(now, seq, outcome, &mut actions),
            SenderEvent::WasRead { seq, found } => self.was_read(now, seq, found, &mut actions),
            SenderEvent::Moved { seq } => self.moved(now, seq),
            SenderEvent::Online(online) => self.online = online,
            SenderEvent::Tick => {}
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When something is due by time alone; what is due already waits for the scheduler.
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        if self.fenced || !self.online {
            return None;
        }
        let send = self.in_hand.values().chain(self.unconfirmed.values()).filter_map(InHand::due);
        let overdue = self.unconfirmed.values().next().map(|held| held.since + UNCONFIRMED_FOR);
        let launch =
            (!self.waiting.is_empty()).then(|| self.launch_again_at.unwrap_or(self.not_before).max(self.not_before));
        send.chain(overdue).chain(launch).chain(self.fetch_again_at).filter(|&due| due > now).min()
    }

    /// Confirmations go first: there are too many, or one is too old.
    fn is_overdue(&self, now: Time) -> bool {
        self.unconfirmed.len() >= MAX_UNCONFIRMED
            || self.unconfirmed.values().next().is_some_and(|held| now >= held.since + UNCONFIRMED_FOR)
    }

    fn next_in_hand(&self, now: Time) -> Option<BoxSeq> {
        let under_way = self.in_hand.values().filter(|held| held.is_busy()).count();
        if self.durability == Durability::Couriered && self.unconfirmed.len() + under_way >= MAX_UNCONFIRMED {
            return None;
        }
        for (at, (&seq, held)) in self.in_hand.iter().enumerate() {
            // Alone: before all that follow, and after all before it.
            if self.untrusted_from.is_some_and(|from| seq >= from) && at > 0 {
                return None;
            }
            if held.due().is_some_and(|due| due <= now) {
                return Some(seq);
            }
        }
        None
    }

    fn next_confirmation(&self, now: Time) -> Option<BoxSeq> {
        self.unconfirmed.iter().find(|(_, held)| held.due().is_some_and(|due| due <= now)).map(|(&seq, _)| seq)
    }

    /// A window on its way and a window launched behind it: a launch commit then serves many boxes.
    fn room_to_launch(&self) -> usize {
        (2 * self.window_boxes).saturating_sub(self.in_hand.len())
    }

    fn fetched(&mut self, now: Time, boxes: Vec<(BoxSeq, Fetched)>) {
        let limit = self.fetching.take().unwrap_or(usize::MAX);
        self.fetches_failed = 0;
        self.more |= boxes.len() >= limit;
        for (seq, fetched) in boxes {
            assert!(seq >= self.cursor, "a fetch answers in order, from its cursor on");
            self.cursor = BoxSeq(seq.0 + 1);
            match fetched {
                Fetched::Sealed => self.waiting.push_back(seq),
                Fetched::Launched => drop(self.in_hand.insert(seq, InHand::ready(now, now))),
                Fetched::Couriered { since } => drop(self.unconfirmed.insert(seq, InHand::ready(since, now))),
            }
        }
    }

    fn launch_failed(&mut self, now: Time, boxes: Vec<BoxSeq>) {
        self.launch_again_at = Some(now + backoff(self.launches_failed));
        self.launches_failed = self.launches_failed.saturating_add(1);
        for seq in boxes.into_iter().rev() {
            if self.in_hand.remove(&seq).is_some() {
                self.waiting.push_front(seq);
            }
        }
    }

    fn ended(&mut self, now: Time, seq: BoxSeq, outcome: Outcome, actions: &mut Vec<SenderAction>) {
        match outcome {
            Outcome::Stored => self.confirm(seq, actions),
            Outcome::Couriered => {
                if self.in_hand.remove(&seq).is_some() {
                    self.unconfirmed.insert(seq, InHand::ready(now, now));
                    actions.push(SenderAction::Courier { seq });
                }
            }
            Outcome::Occupied => self.set(seq, Phase::ReadLater { not_before: now }),
            Outcome::Stale | Outcome::Again => {
                let tries = self.count_try(seq);
                let pause = if outcome == Outcome::Stale && tries == 0 { Duration::ZERO } else { backoff(tries) };
                self.set(seq, Phase::Ready { not_before: now + pause });
            }
        }
    }

    fn was_read(&mut self, now: Time, seq: BoxSeq, found: ReadBack, actions: &mut Vec<SenderAction>) {
        match found {
            ReadBack::Ours => self.confirm(seq, actions),
            ReadBack::Foreign(foreign) => self.fence(seq, foreign, actions),
            ReadBack::Unknown => {
                let tries = self.count_try(seq);
                self.set(seq, Phase::ReadLater { not_before: now + backoff(tries) });
            }
        }
    }

    fn moved(&mut self, now: Time, seq: BoxSeq) {
        let Some(held) = self.held(seq) else { return };
        held.strict = true;
        match held.phase {
            Phase::Sent => held.phase = Phase::Ready { not_before: now },
            Phase::Reading => held.phase = Phase::ReadLater { not_before: now },
            Phase::Launching | Phase::Ready { .. } | Phase::ReadLater { .. } => {}
        }
    }

    fn confirm(&mut self, seq: BoxSeq, actions: &mut Vec<SenderAction>) {
        if self.in_hand.remove(&seq).is_some() || self.unconfirmed.remove(&seq).is_some() {
            if self.untrusted_from.is_some_and(|from| seq >= from) {
                self.untrusted_from = None;
                actions.push(SenderAction::Trust);
            }
            #[cfg(test)]
            if has(Bug::DropConfirmation) {
                return;
            }
            actions.push(SenderAction::Confirm { seq });
        }
    }

    fn fence(&mut self, seq: BoxSeq, foreign: Foreign, actions: &mut Vec<SenderAction>) {
        self.fenced = true;
        self.in_hand.clear();
        self.unconfirmed.clear();
        self.waiting.clear();
        self.more = false;
        actions.push(SenderAction::Fence { seq, foreign });
    }

    /// Does all that the present state and time allow.
    fn advance(&mut self, now: Time, actions: &mut Vec<SenderAction>) {
        if self.fenced || !self.online {
            return;
        }
        self.launch(now, actions);
        let may_fetch = self.fetch_again_at.is_none_or(|at| at <= now);
        if self.more
            && may_fetch
            && self.fetching.is_none()
            && self.in_hand.len() + self.waiting.len() <= self.window_boxes
        {
            // One more than a short message has, so that a backlog is known for one.
            let limit = self.window_boxes.max(SHORT_BOXES + 1);
            self.fetching = Some(limit);
            self.fetch_again_at = None;
            self.more = false;
            actions.push(SenderAction::Fetch { from: self.cursor, limit });
        }
    }

    fn launch(&mut self, now: Time, actions: &mut Vec<SenderAction>) {
        if now < self.not_before || self.launch_again_at.is_some_and(|at| now < at) {
            return;
        }
        self.launch_again_at = None;
        let mut boxes = Vec::new();
        while let Some(&seq) = self.waiting.front()
            && self.room_to_launch() > 0
        {
            // Alone means alone: nothing is launched beside such a box that is not confirmed.
            if self.untrusted_from.is_some_and(|from| seq >= from) && !self.in_hand.is_empty() {
                break;
            }
            self.waiting.pop_front();
            self.in_hand.insert(seq, InHand { phase: Phase::Launching, tries: 0, since: now, strict: false });
            #[cfg(test)]
            if has(Bug::SkipIntentCommit) {
                self.set(seq, Phase::Ready { not_before: now });
            }
            boxes.push(seq);
        }
        if !boxes.is_empty() {
            actions.push(SenderAction::Launch { boxes });
        }
    }

    fn set(&mut self, seq: BoxSeq, phase: Phase) {
        if let Some(held) = self.held(seq) {
            held.phase = phase;
        }
    }

    fn held(&mut self, seq: BoxSeq) -> Option<&mut InHand> {
        self.in_hand.get_mut(&seq).or_else(|| self.unconfirmed.get_mut(&seq))
    }

    fn count_try(&mut self, seq: BoxSeq) -> u32 {
        self.held(seq).map_or(0, |held| {
            held.tries = held.tries.saturating_add(1);
            held.tries - 1
        })
    }
}

/// The box is under way: as a read where its index is known to be occupied, else as a write.
fn begin(held: &mut InHand, strict: bool) -> Operation {
    let (phase, operation) = match held.phase {
        Phase::ReadLater { .. } => (Phase::Reading, Operation::ReadBack),
        _ => (Phase::Sent, Operation::Write { strict: strict || held.strict }),
    };
    held.phase = phase;
    operation
}

fn backoff(tries: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << tries.min(7)).min(RETRY_CAP)
}

#[cfg(test)]
mod tests;
