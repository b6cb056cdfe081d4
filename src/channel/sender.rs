//! The sender: takes one channel's sealed boxes through *launched* to *stored*.
//!
//! The order of things is the law: a box is asked for with [`SenderAction::Fetch`], its launch is committed with
//! [`SenderAction::Launch`], and only the shell's [`SenderEvent::Launched`] lets [`SenderAction::Send`] out. Every box
//! goes out strict, so [`Outcome::Stored`] is a replica's own word. Until a first box of this life was confirmed,
//! one box goes alone: a state that was restored from a backup then meets what its other life wrote, and stops
//! there. A box whose index holds other contents is read back, and only other plaintext fences the channel.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Time;
#[cfg(test)]
use super::bugs::{Bug, has};
use crate::store::BoxSeq;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(60);

/// What came of one strict write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A replica holds these bytes.
    Stored,
    /// The index holds other contents (code 10).
    Occupied,
    /// No answer, or one that a later try may better; the bytes go again, in a fresh envelope.
    Again,
    /// No try can succeed.
    Hopeless,
}

/// What an occupied index turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Our own bytes, or our own tombstone.
    Ours,
    /// Bytes of another writer.
    Foreign,
    /// It could not be read this time.
    Unknown,
}

/// What the shell tells the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// The store has, or may have, boxes that are not stored yet.
    Queued,
    /// Answers [`SenderAction::Fetch`]: the next boxes in order, each with whether it was launched in an earlier life.
    Fetched {
        /// Ascending, from where the fetch said.
        boxes: Vec<(BoxSeq, bool)>,
    },
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
    /// Make a fresh envelope and send it strict.
    Send {
        /// Which box.
        seq: BoxSeq,
    },
    /// Read what the index holds and compare.
    ReadBack {
        /// Which box.
        seq: BoxSeq,
    },
    /// Commit that a replica holds the box.
    Confirm {
        /// Which box.
        seq: BoxSeq,
    },
    /// Stop the channel: its index holds another writer's bytes, or no write can succeed.
    Fence {
        /// Which box met it.
        seq: BoxSeq,
        /// Whether foreign bytes are the reason.
        foreign: bool,
    },
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
}

/// The sender of one channel. See the module's head.
#[derive(Debug)]
pub struct Sender {
    window_boxes: usize,
    online: bool,
    /// Nothing is launched before this time.
    not_before: Time,
    /// No box of this life was confirmed yet, so one goes alone.
    probation: bool,
    fenced: bool,
    fetching: bool,
    /// The store may hold boxes at the cursor or past it.
    more: bool,
    cursor: BoxSeq,
    /// Boxes between fetch and confirmation; at most two windows.
    in_hand: BTreeMap<BoxSeq, InHand>,
    launches_failed: u32,
    launch_again_at: Option<Time>,
    /// Fetched and not launched: waiting for [`Self::not_before`], for the network or for the first confirmation.
    waiting: VecDeque<BoxSeq>,
}

impl Sender {
    /// A sender whose first unconfirmed box is at `cursor` or later, and which launches nothing before `not_before`.
    pub fn new(cursor: BoxSeq, not_before: Time) -> Self {
        Self {
            window_boxes: 1,
            online: false,
            not_before,
            probation: true,
            fenced: false,
            fetching: false,
            more: true,
            cursor,
            in_hand: BTreeMap::new(),
            launches_failed: 0,
            launch_again_at: None,
            waiting: VecDeque::new(),
        }
    }

    /// How many boxes may be under way at once, from now on.
    pub fn set_window(&mut self, boxes: usize) {
        self.window_boxes = boxes.max(1);
    }

    /// Whether nothing is in hand and nothing is known to be queued: the sender may be dropped.
    pub fn is_idle(&self) -> bool {
        !self.more && !self.fetching && self.in_hand.is_empty() && self.waiting.is_empty()
    }

    /// Takes an event in and says what is to be done.
    pub fn handle(&mut self, now: Time, event: SenderEvent) -> Vec<SenderAction> {
        let mut actions = Vec::new();
        match event {
            SenderEvent::Queued => self.more = true,
            SenderEvent::Fetched { boxes } => self.fetched(now, boxes),
            SenderEvent::Launched { boxes } => {
                self.launches_failed = 0;
                for seq in boxes {
                    self.set(seq, Phase::Ready { not_before: now });
                }
            }
            SenderEvent::LaunchFailed { boxes } => {
                for seq in boxes.into_iter().rev() {
                    self.in_hand.remove(&seq);
                    self.waiting.push_front(seq);
                }
                self.launch_again_at = Some(now + backoff(self.launches_failed));
                self.launches_failed = self.launches_failed.saturating_add(1);
            }
            SenderEvent::Ended { seq, outcome } => self.ended(now, seq, outcome, &mut actions),
            SenderEvent::WasRead { seq, found } => self.was_read(now, seq, found, &mut actions),
            SenderEvent::Online(online) => self.online = online,
            SenderEvent::Tick => {}
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When [`SenderEvent::Tick`] is due, if time alone can move anything.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.fenced || !self.online {
            return None;
        }
        let due = |held: &InHand| match held.phase {
            #[cfg(test)]
            Phase::Ready { .. } if has(Bug::LoseWakeUp) => None,
            Phase::Ready { not_before } | Phase::ReadLater { not_before } => Some(not_before),
            _ => None,
        };
        // Time alone moves only what there is room for; the rest moves when an answer makes room.
        let send = if self.room_to_send() == 0 {
            None
        } else if self.probation {
            self.in_hand.values().next().and_then(due)
        } else {
            self.in_hand.values().filter_map(due).min()
        };
        let launch = (!self.waiting.is_empty() && self.room_to_launch() > 0)
            .then(|| self.launch_again_at.unwrap_or(self.not_before).max(self.not_before));
        [send, launch].into_iter().flatten().min()
    }

    fn window(&self) -> usize {
        if self.probation { 1 } else { self.window_boxes }
    }

    fn room_to_send(&self) -> usize {
        let busy = |held: &&InHand| matches!(held.phase, Phase::Sent | Phase::Reading);
        self.window().saturating_sub(self.in_hand.values().filter(busy).count())
    }

    /// A window in the air and a window launched behind it: a launch commit then serves many boxes.
    fn room_to_launch(&self) -> usize {
        // Alone means alone: nothing is launched beside a box that is not confirmed.
        if self.probation {
            usize::from(self.in_hand.is_empty())
        } else {
            (2 * self.window_boxes).saturating_sub(self.in_hand.len())
        }
    }

    fn fetched(&mut self, now: Time, boxes: Vec<(BoxSeq, bool)>) {
        self.fetching = false;
        for (seq, launched) in boxes {
            assert!(seq >= self.cursor, "a fetch answers in order, from its cursor on");
            self.cursor = BoxSeq(seq.0 + 1);
            self.more = true;
            if launched {
                self.in_hand.insert(seq, InHand { phase: Phase::Ready { not_before: now }, tries: 0 });
            } else {
                self.waiting.push_back(seq);
            }
        }
    }

    fn ended(&mut self, now: Time, seq: BoxSeq, outcome: Outcome, actions: &mut Vec<SenderAction>) {
        match outcome {
            Outcome::Stored => self.confirm(seq, actions),
            Outcome::Occupied => {
                self.set(seq, Phase::Reading);
                actions.push(SenderAction::ReadBack { seq });
            }
            Outcome::Again => {
                let tries = self.count_try(seq);
                self.set(seq, Phase::Ready { not_before: now + backoff(tries) });
            }
            Outcome::Hopeless => self.fence(seq, false, actions),
        }
    }

    fn was_read(&mut self, now: Time, seq: BoxSeq, found: ReadBack, actions: &mut Vec<SenderAction>) {
        match found {
            ReadBack::Ours => self.confirm(seq, actions),
            ReadBack::Foreign => self.fence(seq, true, actions),
            ReadBack::Unknown => {
                let tries = self.count_try(seq);
                self.set(seq, Phase::ReadLater { not_before: now + backoff(tries) });
            }
        }
    }

    fn confirm(&mut self, seq: BoxSeq, actions: &mut Vec<SenderAction>) {
        if self.in_hand.remove(&seq).is_some() {
            self.probation = false;
            #[cfg(test)]
            if has(Bug::DropConfirmation) {
                return;
            }
            actions.push(SenderAction::Confirm { seq });
        }
    }

    fn fence(&mut self, seq: BoxSeq, foreign: bool, actions: &mut Vec<SenderAction>) {
        self.fenced = true;
        self.in_hand.clear();
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
        self.send(now, actions);
        if self.more && !self.fetching && self.in_hand.len() + self.waiting.len() <= self.window() {
            self.fetching = true;
            self.more = false;
            actions.push(SenderAction::Fetch { from: self.cursor, limit: self.window() });
        }
    }

    fn launch(&mut self, now: Time, actions: &mut Vec<SenderAction>) {
        if now < self.not_before || self.launch_again_at.is_some_and(|at| now < at) {
            return;
        }
        self.launch_again_at = None;
        let room = self.room_to_launch();
        let boxes: Vec<_> = self.waiting.drain(..room.min(self.waiting.len())).collect();
        if !boxes.is_empty() {
            for &seq in &boxes {
                self.in_hand.insert(seq, InHand { phase: Phase::Launching, tries: 0 });
                #[cfg(test)]
                if has(Bug::SkipIntentCommit) {
                    self.set(seq, Phase::Ready { not_before: now });
                }
            }
            actions.push(SenderAction::Launch { boxes });
        }
    }

    fn send(&mut self, now: Time, actions: &mut Vec<SenderAction>) {
        let mut room = self.room_to_send();
        for (&seq, held) in &mut self.in_hand {
            if room == 0 {
                break;
            }
            let (phase, action) = match held.phase {
                Phase::Ready { not_before } if not_before <= now => (Phase::Sent, SenderAction::Send { seq }),
                Phase::ReadLater { not_before } if not_before <= now => {
                    (Phase::Reading, SenderAction::ReadBack { seq })
                }
                // The first box of a life goes before all others, also while it waits for its next try.
                Phase::Ready { .. } | Phase::ReadLater { .. } if self.probation => break,
                _ => continue,
            };
            held.phase = phase;
            actions.push(action);
            room -= 1;
        }
    }

    fn set(&mut self, seq: BoxSeq, phase: Phase) {
        if let Some(held) = self.in_hand.get_mut(&seq) {
            held.phase = phase;
        }
    }

    fn count_try(&mut self, seq: BoxSeq) -> u32 {
        self.in_hand.get_mut(&seq).map_or(0, |held| {
            held.tries = held.tries.saturating_add(1);
            held.tries - 1
        })
    }
}

fn backoff(tries: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << tries.min(7)).min(RETRY_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Duration::from_secs(100);

    fn seqs(range: std::ops::Range<u64>) -> Vec<BoxSeq> {
        range.map(BoxSeq).collect()
    }

    fn fresh(range: std::ops::Range<u64>) -> SenderEvent {
        SenderEvent::Fetched { boxes: seqs(range).into_iter().map(|seq| (seq, false)).collect() }
    }

    /// A sender with a window of four whose first box is confirmed.
    fn trusted() -> Sender {
        let mut sender = Sender::new(BoxSeq(0), T0);
        sender.set_window(4);
        sender.handle(T0, SenderEvent::Online(true));
        sender.handle(T0, fresh(0..1));
        sender.handle(T0, SenderEvent::Launched { boxes: seqs(0..1) });
        sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(0), outcome: Outcome::Stored });
        sender
    }

    #[test]
    fn the_first_box_of_a_life_goes_alone_and_only_after_its_launch_is_committed() {
        let mut sender = Sender::new(BoxSeq(0), T0);
        sender.set_window(4);
        assert_eq!(sender.handle(T0, SenderEvent::Online(true)), [SenderAction::Fetch { from: BoxSeq(0), limit: 1 }]);
        let launched = sender.handle(T0, fresh(0..3));
        assert_eq!(launched, [SenderAction::Launch { boxes: seqs(0..1) }], "one of three, and no Send yet");
        let sent = sender.handle(T0, SenderEvent::Launched { boxes: seqs(0..1) });
        assert_eq!(sent, [SenderAction::Send { seq: BoxSeq(0) }]);
        let then = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(0), outcome: Outcome::Stored });
        assert_eq!(then[0], SenderAction::Confirm { seq: BoxSeq(0) });
        assert_eq!(then[1], SenderAction::Launch { boxes: seqs(1..3) }, "confirmed: the window opens");
    }

    #[test]
    fn what_an_earlier_life_launched_is_sent_again_without_another_launch() {
        let mut sender = Sender::new(BoxSeq(7), T0);
        sender.handle(T0, SenderEvent::Online(true));
        let actions = sender.handle(T0, SenderEvent::Fetched { boxes: vec![(BoxSeq(7), true), (BoxSeq(8), true)] });
        assert_eq!(actions, [SenderAction::Send { seq: BoxSeq(7) }], "the same bytes, alone at first");
    }

    #[test]
    fn nothing_is_launched_while_the_network_is_away_or_the_stream_is_too_young() {
        let mut sender = Sender::new(BoxSeq(0), T0 + Duration::from_secs(2));
        assert_eq!(sender.handle(T0, SenderEvent::Queued), [], "offline");
        sender.handle(T0, SenderEvent::Online(true));
        let early = sender.handle(T0, fresh(0..1));
        assert_eq!(early, [SenderAction::Fetch { from: BoxSeq(1), limit: 1 }], "two seconds to take a slip back");
        sender.handle(T0, fresh(1..1));
        assert_eq!(sender.next_timeout(), Some(T0 + Duration::from_secs(2)));
        let later = sender.handle(T0 + Duration::from_secs(2), SenderEvent::Tick);
        assert_eq!(later, [SenderAction::Launch { boxes: seqs(0..1) }]);
    }

    #[test]
    fn a_lost_answer_is_tried_again_later_with_the_same_index() {
        let mut sender = trusted();
        sender.handle(T0, fresh(1..2));
        sender.handle(T0, SenderEvent::Launched { boxes: seqs(1..2) });
        let actions = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Again });
        assert!(!actions.contains(&SenderAction::Send { seq: BoxSeq(1) }), "not at once: {actions:?}");
        let at = sender.next_timeout().expect("a retry is planned");
        assert!(sender.handle(at, SenderEvent::Tick).contains(&SenderAction::Send { seq: BoxSeq(1) }));
    }

    #[test]
    fn an_occupied_index_is_read_back_and_only_foreign_bytes_fence() {
        for (found, expected) in [
            (ReadBack::Ours, SenderAction::Confirm { seq: BoxSeq(1) }),
            (ReadBack::Foreign, SenderAction::Fence { seq: BoxSeq(1), foreign: true }),
        ] {
            let mut sender = trusted();
            sender.handle(T0, fresh(1..2));
            sender.handle(T0, SenderEvent::Launched { boxes: seqs(1..2) });
            let asked = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Occupied });
            assert_eq!(asked[0], SenderAction::ReadBack { seq: BoxSeq(1) });
            let judged = sender.handle(T0, SenderEvent::WasRead { seq: BoxSeq(1), found });
            assert!(judged.contains(&expected), "{found:?}: {judged:?}");
        }
    }

    #[test]
    fn a_fenced_sender_does_nothing_more() {
        let mut sender = trusted();
        sender.handle(T0, fresh(1..2));
        sender.handle(T0, SenderEvent::Launched { boxes: seqs(1..2) });
        sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Hopeless });
        assert_eq!(sender.handle(T0, SenderEvent::Queued), []);
        assert_eq!(sender.next_timeout(), None);
    }

    proptest::proptest! {
        /// Whatever fails in whatever order: a box is sent only after its launch, never more than the window is in
        /// the air, every box is confirmed exactly once, and the sender comes to rest.
        #[test]
        fn every_box_is_confirmed_once(boxes in 1_u64..60, window in 1_usize..8, seed: u64) {
            use rand::{RngExt as _, SeedableRng as _};
            let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
            let mut sender = Sender::new(BoxSeq(0), T0);
            sender.set_window(window);
            let mut now = T0;
            let mut inbox: Vec<SenderEvent> = vec![SenderEvent::Online(true)];
            let (mut launched, mut confirmed) = (vec![false; boxes as usize], vec![0; boxes as usize]);
            let mut in_air = 0_usize;
            for step in 0..100_000 {
                proptest::prop_assert!(step < 99_999, "the sender never came to rest");
                let event = if inbox.is_empty() {
                    if sender.is_idle() { break; }
                    match sender.next_timeout() { Some(at) => now = now.max(at), None => break }
                    SenderEvent::Tick
                } else {
                    let pick = dice.random_range(0..inbox.len());
                    inbox.swap_remove(pick)
                };
                if matches!(event, SenderEvent::Ended { .. } | SenderEvent::WasRead { .. }) { in_air -= 1; }
                for action in sender.handle(now, event) {
                    match action {
                        SenderAction::Fetch { from, limit } => {
                            let end = boxes.min(from.0 + limit as u64);
                            inbox.push(SenderEvent::Fetched {
                                boxes: (from.0..end).map(|seq| (BoxSeq(seq), launched[seq as usize])).collect(),
                            });
                        }
                        SenderAction::Launch { boxes } if dice.random_bool(0.1) =>
                            inbox.push(SenderEvent::LaunchFailed { boxes }),
                        SenderAction::Launch { boxes } => {
                            for seq in &boxes { launched[seq.0 as usize] = true; }
                            inbox.push(SenderEvent::Launched { boxes });
                        }
                        SenderAction::Send { seq } => {
                            proptest::prop_assert!(launched[seq.0 as usize], "{seq:?} was sent before its launch");
                            in_air += 1;
                            let outcome = match dice.random_range(0..10) {
                                0 => Outcome::Again,
                                1 => Outcome::Occupied,
                                _ => Outcome::Stored,
                            };
                            inbox.push(SenderEvent::Ended { seq, outcome });
                        }
                        SenderAction::ReadBack { seq } => {
                            in_air += 1;
                            let found = if dice.random_bool(0.3) { ReadBack::Unknown } else { ReadBack::Ours };
                            inbox.push(SenderEvent::WasRead { seq, found });
                        }
                        SenderAction::Confirm { seq } => confirmed[seq.0 as usize] += 1,
                        SenderAction::Fence { .. } => proptest::prop_assert!(false, "nothing was foreign"),
                    }
                    proptest::prop_assert!(in_air <= window, "{in_air} in the air, window {window}");
                }
            }
            proptest::prop_assert_eq!(confirmed, vec![1; boxes as usize]);
        }
    }
}
