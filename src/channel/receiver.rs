//! The receiver: asks for the boxes of one channel at and past its frontier.
//!
//! It is made when a probe of the channel is due, and may be dropped when it is [at rest](Receiver::is_at_rest) again: the
//! pauses between probes are the [`Probes`](super::Probes)'. A hit opens a window that doubles with each box that
//! arrives, until an index is *not there yet*. A box that is missing before a known later one is asked for again, with
//! growing pauses, while others follow up to two windows past it; once it was asked for three times in vain, and where it
//! is lost, they follow further, as they too would expire. When something is asked says the
//! [`Scheduler`](super::Scheduler), which takes it with [`Receiver::take`]. A verdict belongs to one index: it reaches the
//! store when the frontier is at that index, and stands until the index has its box.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{JointPace, Time};
use crate::model::{BoxSeq, MAX_AHEAD_BOXES};

const HOLE_FIRST: Duration = Duration::from_secs(10);
/// A box that is missing before a known later one is called so after this many more questions.
const HOLE_TRIES: u32 = 3;
/// How far past boxes that are called missing others are asked for; half of what the store keeps past a frontier.
const FAR_BOXES: u64 = MAX_AHEAD_BOXES / 2;

/// What one read, asked once, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A box, or a tombstone; the shell keeps its contents until they are recorded.
    Arrived,
    /// No replica that was asked has it.
    NotYet,
    /// No answer this time.
    Unknown,
}

/// What the shell tells the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// One read has ended.
    Answered {
        /// Which box.
        seq: BoxSeq,
        /// How.
        answer: Answer,
    },
    /// A read is done by another daemon of the network, at once.
    Moved {
        /// Which box.
        seq: BoxSeq,
    },
    /// The network became reachable, or ceased to be.
    Online(bool),
    /// Nothing but time.
    Tick,
}

/// What the receiver wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverAction {
    /// Commit what arrived for this box.
    Record {
        /// Which box.
        seq: BoxSeq,
    },
    /// Commit that the frontier, which is at this index, is not there yet.
    Verdict {
        /// The frontier.
        seq: BoxSeq,
    },
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    again_at: Time,
    pause: Duration,
    tries: u32,
}

/// The receiver of one channel. See the module's head.
#[derive(Debug)]
pub struct Receiver {
    window_boxes: usize,
    probe_cap: Duration,
    online: bool,
    /// The first box that has not arrived.
    frontier: BoxSeq,
    /// What is missing before this box is lost: of it only the frontier is asked for, once in each burst.
    lost_end: BoxSeq,
    /// Boxes past the frontier that have arrived.
    arrived: BTreeSet<BoxSeq>,
    asked: BTreeSet<BoxSeq>,
    /// The answers of this burst that said *not there yet*.
    missing: BTreeSet<BoxSeq>,
    /// Boxes that are missing before one that has arrived.
    holes: BTreeMap<BoxSeq, Hole>,
    /// The open window; one for a probe, none at rest.
    opened: usize,
    /// Whether anything has arrived.
    hit: bool,
}

impl Receiver {
    /// A receiver at `frontier` that probes; `arrived` are the boxes that the store already has past it, and what is
    /// missing before `lost_end` is lost. One that looks `past` asks for the box behind the frontier too: where the one at the frontier is lost, only that tells.
    pub fn new(
        frontier: BoxSeq,
        lost_end: BoxSeq,
        arrived: impl IntoIterator<Item = BoxSeq>,
        past: bool,
        now: Time,
        pace: impl Into<JointPace>,
    ) -> Self {
        let pace = pace.into();
        let mut receiver = Self {
            window_boxes: 1,
            probe_cap: pace.probe_cap(),
            online: false,
            frontier,
            lost_end,
            arrived: arrived.into_iter().collect(),
            asked: BTreeSet::new(),
            missing: BTreeSet::new(),
            holes: BTreeMap::new(),
            opened: if past { 2 } else { 1 },
            hit: false,
        };
        receiver.set_pace(pace);
        receiver.note_holes(now);
        receiver
    }

    /// The first box that has not arrived.
    pub fn frontier(&self) -> BoxSeq {
        self.frontier
    }

    /// Follows the network's pace from now on.
    pub fn set_pace(&mut self, pace: impl Into<JointPace>) {
        let pace = pace.into();
        // Those whose envelopes are being made among them.
        self.window_boxes = pace.window_boxes() + pace.reserve_boxes();
        self.probe_cap = pace.probe_cap();
    }

    /// Whether nothing is under way and nothing to come but the next probe.
    pub fn is_at_rest(&self) -> bool {
        self.opened == 0 && self.asked.is_empty() && self.holes.is_empty()
    }

    /// Whether anything has arrived since the receiver was made.
    pub fn has_hit(&self) -> bool {
        self.hit
    }

    /// When [`ReceiverEvent::Tick`] is due, if time alone can move anything.
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        if !self.online {
            return None;
        }
        self.holes.values().map(|hole| hole.again_at).filter(|&at| at > now).min()
    }

    /// Whether it would ask for something now.
    pub fn wants(&self, now: Time) -> bool {
        self.online && self.next(now).is_some()
    }

    /// The next box to read once, in a fresh envelope, with no retry by the daemon; it is under way from now on.
    pub fn take(&mut self, now: Time) -> Option<BoxSeq> {
        let seq = self.next(now).filter(|_| self.online)?;
        if let Some(hole) = self.holes.get_mut(&seq) {
            if hole.tries >= HOLE_TRIES {
                // It may never come; whether others do is to be known all the same.
                self.opened = self.opened.max(self.asked.len() + 2);
            }
            hole.tries = hole.tries.saturating_add(1);
            hole.again_at = now + hole.pause.min(self.probe_cap);
            hole.pause = (hole.pause * 2).min(self.probe_cap.max(HOLE_FIRST));
        }
        self.asked.insert(seq);
        Some(seq)
    }

    /// Takes an event in and says what is to be done.
    pub fn handle(&mut self, now: Time, event: ReceiverEvent) -> Vec<ReceiverAction> {
        let mut actions = Vec::new();
        match event {
            ReceiverEvent::Answered { seq, answer } => self.answered(now, seq, answer, &mut actions),
            ReceiverEvent::Moved { seq } => self.moved(now, seq),
            ReceiverEvent::Online(online) => self.online = online,
            ReceiverEvent::Tick => {}
        }
        actions
    }

    /// A hole that is due, or the first index of the open window that nothing is known of in this burst.
    fn next(&self, now: Time) -> Option<BoxSeq> {
        if self.asked.len() >= self.window_boxes {
            return None;
        }
        let due = self.holes.iter().find(|(seq, hole)| hole.again_at <= now && !self.asked.contains(seq));
        if let Some((&seq, _)) = due {
            return Some(seq);
        }
        if self.asked.len() >= self.opened {
            return None;
        }
        // What is called lost is so by what was known then: the network's own answer undoes it.
        let frontier = self.frontier;
        if self.lost_end > frontier && !self.asked.contains(&frontier) && !self.missing.contains(&frontier) {
            return Some(frontier);
        }
        let begin = self.frontier.max(self.lost_end);
        let past = self.arrived.last().map_or(begin, |last| BoxSeq(last.0 + 1).max(begin));
        let end = self.missing.range(past..).next().map_or(u64::MAX, |seq| seq.0);
        let called_missing = begin > self.frontier || !self.holes.is_empty();
        let far = called_missing && self.holes.values().all(|hole| hole.tries >= HOLE_TRIES);
        let reach = if far { FAR_BOXES } else { 2 * self.window_boxes as u64 };
        let end = end.min(begin.0 + reach);
        (past.0..end).map(BoxSeq).find(|seq| !self.asked.contains(seq))
    }

    fn answered(&mut self, now: Time, seq: BoxSeq, answer: Answer, actions: &mut Vec<ReceiverAction>) {
        if !self.asked.remove(&seq) {
            return;
        }
        match answer {
            Answer::Arrived => {
                self.missing.remove(&seq);
                self.holes.remove(&seq);
                self.hit = true;
                if seq < self.lost_end {
                    self.lost_end = self.frontier;
                }
                if seq >= self.frontier && self.arrived.insert(seq) {
                    actions.push(ReceiverAction::Record { seq });
                    self.opened = (self.opened.max(1) * 2).min(self.window_boxes);
                }
                let before = self.frontier;
                while self.arrived.remove(&self.frontier) {
                    self.frontier = BoxSeq(self.frontier.0 + 1);
                }
                if self.frontier != before && self.missing.contains(&self.frontier) {
                    actions.push(ReceiverAction::Verdict { seq: self.frontier });
                }
            }
            Answer::NotYet => {
                self.missing.insert(seq);
                if seq == self.frontier {
                    actions.push(ReceiverAction::Verdict { seq });
                }
            }
            // The burst ends here too: what could not be asked now is asked at the next probe.
            Answer::Unknown => self.opened = 0,
        }
        self.note_holes(now + HOLE_FIRST.min(self.probe_cap));
        if self.asked.is_empty() && self.next(now).is_none() {
            self.opened = 0;
            self.missing.retain(|seq| self.holes.contains_key(seq));
        }
    }

    /// Nothing was learned of the box: it is asked for as if it had not been.
    fn moved(&mut self, now: Time, seq: BoxSeq) {
        if !self.asked.remove(&seq) {
            return;
        }
        // Within what is open it is the next one anyway.
        if self.arrived.last().is_some_and(|last| seq < *last) && seq >= self.frontier.max(self.lost_end) {
            self.holes.entry(seq).or_insert(Hole { again_at: now, pause: HOLE_FIRST * 2, tries: 0 }).again_at = now;
        }
        if self.asked.is_empty() && self.next(now).is_none() {
            self.opened = 0;
            self.missing.retain(|seq| self.holes.contains_key(seq));
        }
    }

    /// Indices that are neither here nor asked for, below a box that has arrived.
    fn note_holes(&mut self, again_at: Time) {
        let Some(&last) = self.arrived.last() else { return };
        for seq in (self.frontier.max(self.lost_end).0..last.0).map(BoxSeq) {
            if !self.arrived.contains(&seq) && !self.asked.contains(&seq) {
                self.holes.entry(seq).or_insert(Hole { again_at, pause: HOLE_FIRST * 2, tries: 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Pace;

    const T0: Time = Duration::from_secs(100);

    fn fast() -> Pace {
        let mut pace = Pace::default();
        pace.measure(Duration::from_millis(10), 2, 1);
        pace
    }

    fn online(pace: &Pace) -> Receiver {
        let mut receiver = Receiver::new(BoxSeq(0), BoxSeq(0), [], false, T0, pace);
        assert_eq!(receiver.take(T0), None, "there is no network yet");
        receiver.handle(T0, ReceiverEvent::Online(true));
        assert_eq!(all(&mut receiver, T0), [BoxSeq(0)], "a probe is of the frontier alone");
        receiver
    }

    fn all(receiver: &mut Receiver, now: Time) -> Vec<BoxSeq> {
        std::iter::from_fn(|| receiver.take(now)).collect()
    }

    fn answered(seq: u64, answer: Answer) -> ReceiverEvent {
        ReceiverEvent::Answered { seq: BoxSeq(seq), answer }
    }

    #[test]
    fn a_missing_frontier_is_a_verdict_and_the_receiver_is_at_rest() {
        let mut receiver = online(&fast());
        let told = receiver.handle(T0, answered(0, Answer::NotYet));
        assert_eq!(told, [ReceiverAction::Verdict { seq: BoxSeq(0) }]);
        assert!(receiver.is_at_rest() && !receiver.has_hit() && !receiver.wants(T0), "{receiver:?}");
    }

    #[test]
    fn a_hit_opens_the_window_and_a_miss_closes_it() {
        let mut receiver = online(&fast());
        assert_eq!(receiver.handle(T0, answered(0, Answer::Arrived)), [ReceiverAction::Record { seq: BoxSeq(0) }]);
        assert_eq!(all(&mut receiver, T0), [BoxSeq(1), BoxSeq(2)]);
        let after = receiver.handle(T0, answered(2, Answer::NotYet));
        assert_eq!(after, [], "the verdict waits until the frontier is at its index");
        let last = receiver.handle(T0, answered(1, Answer::Arrived));
        assert_eq!(last, [ReceiverAction::Record { seq: BoxSeq(1) }, ReceiverAction::Verdict { seq: BoxSeq(2) }]);
        assert!(receiver.is_at_rest() && receiver.has_hit(), "{receiver:?}");
    }

    #[test]
    fn a_hole_is_asked_for_again_after_ten_twenty_and_forty_seconds_while_others_follow() {
        let pace = Pace::default();
        let mut receiver = online(&pace);
        receiver.handle(T0, answered(0, Answer::Arrived));
        assert_eq!(all(&mut receiver, T0), [BoxSeq(1), BoxSeq(2)]);
        receiver.handle(T0, answered(1, Answer::NotYet));
        receiver.handle(T0, answered(2, Answer::Arrived));
        assert_eq!(all(&mut receiver, T0), [3, 4, 5, 6].map(BoxSeq), "past the hole");
        for seq in 3..=6 {
            receiver.handle(T0, answered(seq, Answer::NotYet));
        }
        assert!(!receiver.is_at_rest(), "a hole is never given up");
        let mut now = T0;
        for pause in [10, 20, 40] {
            assert_eq!(receiver.next_timeout(now), Some(now + Duration::from_secs(pause)));
            now += Duration::from_secs(pause);
            assert_eq!(all(&mut receiver, now), [BoxSeq(1)]);
            assert_eq!(receiver.handle(now, answered(1, Answer::NotYet)), [ReceiverAction::Verdict { seq: BoxSeq(1) }]);
        }
        now = receiver.next_timeout(now).expect("planned");
        assert_eq!(all(&mut receiver, now), [BoxSeq(1), BoxSeq(3)], "it is called missing, and others are looked for");
        let filled = receiver.handle(now, answered(1, Answer::Arrived));
        assert_eq!(filled, [ReceiverAction::Record { seq: BoxSeq(1) }]);
        assert_eq!(all(&mut receiver, now), [4, 5, 6].map(BoxSeq), "2 was there already");
    }

    #[test]
    fn while_a_box_is_not_called_missing_others_are_read_two_windows_past_it() {
        for answer in [None, Some(Answer::NotYet)] {
            let mut receiver = online(&Pace::default());
            receiver.handle(T0, answered(0, Answer::Arrived));
            let mut asked = all(&mut receiver, T0);
            assert_eq!(asked.remove(0), BoxSeq(1));
            if let Some(answer) = answer {
                receiver.handle(T0, answered(1, answer));
            }
            let mut last = BoxSeq(0);
            while !asked.is_empty() {
                for seq in asked {
                    receiver.handle(T0, ReceiverEvent::Answered { seq, answer: Answer::Arrived });
                    last = last.max(seq);
                }
                asked = all(&mut receiver, T0);
            }
            assert_eq!(receiver.frontier(), BoxSeq(1), "{answer:?}");
            assert_eq!(receiver.window_boxes, 6 + 4, "those that are on their way, and those that are being made");
            assert_eq!(last, BoxSeq(2 * receiver.window_boxes as u64), "{answer:?}");
        }
    }

    #[test]
    fn behind_a_box_that_is_called_missing_and_behind_a_lost_one_the_reader_goes_on() {
        let pace = Pace::default();
        for lost in [false, true] {
            let lost_end = BoxSeq(if lost { 1_000_000 } else { 0 });
            let first = if lost { 1_000_000 } else { 1 };
            let mut receiver = Receiver::new(BoxSeq(0), lost_end, [BoxSeq(first)], false, T0, &pace);
            receiver.handle(T0, ReceiverEvent::Online(true));
            let (mut now, mut next) = (T0, first + 1);
            for step in 0..10_000 {
                let asked = all(&mut receiver, now);
                for seq in &asked {
                    let answer = if seq.0 == 0 { Answer::NotYet } else { Answer::Arrived };
                    next = next.max(seq.0 + 1);
                    receiver.handle(now, ReceiverEvent::Answered { seq: *seq, answer });
                }
                if lost {
                    assert!(asked.iter().all(|seq| *seq > lost_end || (seq.0 == 0 && step == 0)), "{asked:?}");
                }
                if asked.is_empty() {
                    match receiver.next_timeout(now).filter(|_| next < FAR_BOXES) {
                        Some(at) => now = at,
                        None => break,
                    }
                }
                assert!(step < 9_999, "it never comes to an end");
            }
            let begin = if lost { 1_000_000 } else { 0 };
            assert_eq!(next, begin + FAR_BOXES, "it is bounded");
            assert!(next - begin < MAX_AHEAD_BOXES, "and the store keeps them all");
        }
    }

    /// What a wrong clock had called lost was never asked for again.
    #[test]
    fn a_lost_box_that_the_network_has_after_all_undoes_the_loss() {
        let mut receiver = Receiver::new(BoxSeq(0), BoxSeq(3), [BoxSeq(3)], false, T0, &Pace::default());
        receiver.handle(T0, ReceiverEvent::Online(true));
        assert_eq!(all(&mut receiver, T0), [BoxSeq(0)], "once in each burst");
        assert_eq!(receiver.handle(T0, answered(0, Answer::Arrived)), [ReceiverAction::Record { seq: BoxSeq(0) }]);
        let later = receiver.next_timeout(T0).expect("what is missing is late again, and asked for");
        assert_eq!(all(&mut receiver, later)[..2], [BoxSeq(1), BoxSeq(2)]);
    }

    #[test]
    fn a_probe_that_looks_past_a_lost_frontier_finds_what_is_behind_it() {
        let mut receiver = Receiver::new(BoxSeq(7), BoxSeq(0), [], true, T0, &Pace::default());
        receiver.handle(T0, ReceiverEvent::Online(true));
        assert_eq!(all(&mut receiver, T0), [BoxSeq(7), BoxSeq(8)]);
        assert_eq!(receiver.handle(T0, answered(7, Answer::NotYet)), [ReceiverAction::Verdict { seq: BoxSeq(7) }]);
        assert_eq!(receiver.handle(T0, answered(8, Answer::Arrived)), [ReceiverAction::Record { seq: BoxSeq(8) }]);
        assert!(!receiver.is_at_rest() && all(&mut receiver, T0) == [9, 10, 11, 12].map(BoxSeq));
    }

    #[test]
    fn a_read_that_another_daemon_is_to_do_is_asked_for_at_once() {
        let mut receiver = online(&fast());
        receiver.handle(T0, ReceiverEvent::Moved { seq: BoxSeq(0) });
        assert!(!receiver.is_at_rest());
        assert_eq!(all(&mut receiver, T0), [BoxSeq(0)], "the probe");
        receiver.handle(T0, answered(0, Answer::Arrived));
        assert_eq!(all(&mut receiver, T0), [BoxSeq(1), BoxSeq(2)]);
        receiver.handle(T0, answered(2, Answer::Arrived));
        let asked = all(&mut receiver, T0);
        receiver.handle(T0, ReceiverEvent::Moved { seq: BoxSeq(1) });
        assert_eq!(all(&mut receiver, T0)[0], BoxSeq(1), "before one that has arrived, and not in ten seconds");
        assert_eq!(receiver.handle(T0, answered(1, Answer::Arrived)), [ReceiverAction::Record { seq: BoxSeq(1) }]);
        for seq in asked {
            receiver.handle(T0, ReceiverEvent::Answered { seq, answer: Answer::NotYet });
        }
        receiver.handle(T0, ReceiverEvent::Moved { seq: BoxSeq(1) });
        assert!(receiver.is_at_rest(), "what was answered is not asked for again: {receiver:?}");
    }

    proptest::proptest! {
        /// Boxes come and go missing in any order: each is recorded once, no verdict speaks of an index whose box
        /// is there, and in the end the frontier stands behind the last box with a verdict of its own.
        #[test]
        fn every_box_is_recorded_once(boxes in 0_u64..80, seed: u64) {
            use rand::{RngExt as _, SeedableRng as _};
            let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
            let pace = fast();
            let mut recorded = vec![0; boxes as usize];
            let (mut frontier, mut verdict, mut now) = (0, None, T0);
            for probe in 0..10_000 {
                proptest::prop_assert!(probe < 9_999, "the end was never reached");
                let mut receiver = Receiver::new(BoxSeq(frontier), BoxSeq(0), [], dice.random_bool(0.25), now, &pace);
                receiver.handle(now, ReceiverEvent::Online(true));
                let mut air: Vec<BoxSeq> = Vec::new();
                while !receiver.is_at_rest() {
                    air.extend(all(&mut receiver, now));
                    proptest::prop_assert!(air.len() <= receiver.window_boxes, "{} asked", air.len());
                    if air.is_empty() {
                        now = receiver.next_timeout(now).expect("not at rest, so something is planned");
                        receiver.handle(now, ReceiverEvent::Tick);
                        continue;
                    }
                    let seq = air.swap_remove(dice.random_range(0..air.len()));
                    let answer = match dice.random_range(0..10) {
                        0 => Answer::Unknown,
                        1 => Answer::NotYet,
                        _ if seq.0 < boxes => Answer::Arrived,
                        _ => Answer::NotYet,
                    };
                    for action in receiver.handle(now, ReceiverEvent::Answered { seq, answer }) {
                        match action {
                            ReceiverAction::Record { seq } => recorded[seq.0 as usize] += 1,
                            ReceiverAction::Verdict { seq } => {
                                proptest::prop_assert!(recorded.get(seq.0 as usize).is_none_or(|&count| count == 0));
                                verdict = Some(seq);
                            }
                        }
                    }
                    while recorded.get(frontier as usize).is_some_and(|&count| count > 0) { frontier += 1; }
                }
                if verdict == Some(BoxSeq(boxes)) { break; }
            }
            proptest::prop_assert_eq!(recorded, vec![1; boxes as usize]);
        }
    }
}
