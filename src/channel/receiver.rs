//! The receiver: asks for the boxes of one channel at and past its frontier.
//!
//! At rest it probes the frontier alone, on its own schedule: exponentially distributed pauses whose mean grows
//! while nothing comes. A hit opens a window that doubles with each box that arrives, until an index is *not there
//! yet*. A box that is missing before a known later one is asked for again, with growing pauses. A verdict belongs
//! to one index: it reaches the store when the frontier is at that index, and stands until the index has its box.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[cfg(test)]
use super::bugs::{Bug, has};
use super::{Pace, Time};
use crate::store::BoxSeq;

const HOLE_FIRST: Duration = Duration::from_secs(10);
const GROWTH: f64 = 1.7;

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
    /// The network became reachable, or ceased to be.
    Online(bool),
    /// Nothing but time.
    Tick,
}

/// What the receiver wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverAction {
    /// Read this box once, in a fresh envelope, with no retry by the daemon.
    Ask {
        /// Which box.
        seq: BoxSeq,
    },
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
}

/// The receiver of one channel. See the module's head.
#[derive(Debug)]
pub struct Receiver {
    window_boxes: usize,
    probe_floor: Duration,
    probe_cap: Duration,
    online: bool,
    /// The first box that has not arrived.
    frontier: BoxSeq,
    /// Boxes past the frontier that have arrived.
    arrived: BTreeSet<BoxSeq>,
    asked: BTreeSet<BoxSeq>,
    /// The answers of this burst that said *not there yet*.
    missing: BTreeSet<BoxSeq>,
    holes: BTreeMap<BoxSeq, Hole>,
    /// The open window; one at rest.
    opened: usize,
    pause: Duration,
    probe_at: Time,
}

impl Receiver {
    /// A receiver at `frontier` that first probes at `probe_at`; `arrived` are the boxes that the store already
    /// has past it (at most a window, as nothing further is ever asked for).
    pub fn new(frontier: BoxSeq, arrived: impl IntoIterator<Item = BoxSeq>, probe_at: Time, pace: &Pace) -> Self {
        let mut receiver = Self {
            window_boxes: 1,
            probe_floor: pace.probe_floor(),
            probe_cap: pace.probe_cap(),
            online: false,
            frontier,
            arrived: arrived.into_iter().collect(),
            asked: BTreeSet::new(),
            missing: BTreeSet::new(),
            holes: BTreeMap::new(),
            opened: 1,
            pause: pace.probe_floor(),
            probe_at,
        };
        receiver.set_pace(pace);
        receiver
    }

    /// The first box that has not arrived.
    pub fn frontier(&self) -> BoxSeq {
        self.frontier
    }

    /// Follows the network's pace from now on.
    pub fn set_pace(&mut self, pace: &Pace) {
        self.window_boxes = pace.window_boxes();
        self.probe_floor = pace.probe_floor();
        self.probe_cap = pace.probe_cap();
        self.pause = self.pause.clamp(self.probe_floor, self.probe_cap);
    }

    /// When the next probe is due, for the status.
    pub fn next_probe(&self) -> Option<Time> {
        self.asked.is_empty().then_some(self.probe_at)
    }

    /// When [`ReceiverEvent::Tick`] is due, if time alone can move anything.
    pub fn next_timeout(&self) -> Option<Time> {
        if !self.online || !self.asked.is_empty() {
            return None;
        }
        #[cfg(test)]
        if has(Bug::NotFoundIsEnd) && self.missing.contains(&self.frontier) {
            return None;
        }
        let holes = self.holes.values().map(|hole| hole.again_at);
        holes.chain(std::iter::once(self.probe_at)).min()
    }

    /// Takes an event in and says what is to be done. `chance` is a number in 0..1 that the shell drew for this
    /// call; it scatters the next probe.
    pub fn handle(&mut self, now: Time, chance: f64, event: ReceiverEvent) -> Vec<ReceiverAction> {
        let mut actions = Vec::new();
        match event {
            ReceiverEvent::Answered { seq, answer } => self.answered(now, seq, answer, &mut actions),
            ReceiverEvent::Online(online) => self.online = online,
            ReceiverEvent::Tick => {}
        }
        if !self.online {
            return actions;
        }
        self.ask_holes(now, &mut actions);
        if self.opened > 1 {
            self.ask_window(&mut actions);
        }
        if self.asked.is_empty() {
            match event {
                ReceiverEvent::Answered { .. } => self.rest(now, chance),
                _ if self.probe_at <= now => {
                    self.missing.retain(|seq| self.holes.contains_key(seq));
                    self.request(self.frontier, &mut actions);
                }
                _ => {}
            }
        }
        actions
    }

    fn answered(&mut self, now: Time, seq: BoxSeq, answer: Answer, actions: &mut Vec<ReceiverAction>) {
        self.asked.remove(&seq);
        match answer {
            Answer::Arrived => {
                self.missing.remove(&seq);
                self.holes.remove(&seq);
                self.pause = self.probe_floor;
                if seq >= self.frontier && self.arrived.insert(seq) {
                    actions.push(ReceiverAction::Record { seq });
                    self.opened = (self.opened * 2).min(self.window_boxes);
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
            Answer::Unknown => self.opened = 1,
        }
        self.note_holes(now);
    }

    /// Indices that are missing below a box that has arrived.
    fn note_holes(&mut self, now: Time) {
        let Some(&last) = self.arrived.last() else { return };
        for &seq in self.missing.range(..last) {
            self.holes.entry(seq).or_insert(Hole { again_at: now + HOLE_FIRST.min(self.probe_cap), pause: HOLE_FIRST });
        }
    }

    fn ask_holes(&mut self, now: Time, actions: &mut Vec<ReceiverAction>) {
        let due: Vec<_> = self.holes.iter().filter(|(_, hole)| hole.again_at <= now).map(|(&seq, _)| seq).collect();
        for seq in due {
            if let Some(hole) = self.holes.get_mut(&seq) {
                hole.pause = (hole.pause * 2).min(self.probe_cap.max(HOLE_FIRST));
                hole.again_at = now + hole.pause.min(self.probe_cap);
            }
            self.request(seq, actions);
        }
    }

    /// Fills the open window, up to the first index that this burst found missing.
    fn ask_window(&mut self, actions: &mut Vec<ReceiverAction>) {
        let end = self.missing.first().copied().unwrap_or(BoxSeq(u64::MAX));
        let mut seq = self.frontier;
        while seq < end && self.asked.len() < self.opened && seq.0 < self.frontier.0 + 2 * self.window_boxes as u64 {
            if !self.arrived.contains(&seq) {
                self.request(seq, actions);
            }
            seq = BoxSeq(seq.0 + 1);
        }
    }

    fn request(&mut self, seq: BoxSeq, actions: &mut Vec<ReceiverAction>) {
        if self.asked.insert(seq) {
            actions.push(ReceiverAction::Ask { seq });
        }
    }

    /// Nothing is under way: close the window and plan the next probe.
    fn rest(&mut self, now: Time, chance: f64) {
        self.opened = 1;
        // Exponentially distributed, cut at three means so that no pause is without end.
        let scatter = (-(1.0 - chance.clamp(0.0, 0.999)).ln()).min(3.0);
        self.probe_at = now + self.pause.mul_f64(scatter);
        self.pause = self.pause.mul_f64(GROWTH).min(self.probe_cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Duration::from_secs(100);

    fn fast() -> Pace {
        let mut pace = Pace::default();
        pace.measure(Duration::from_millis(10), 2);
        pace
    }

    fn online(pace: &Pace) -> Receiver {
        let mut receiver = Receiver::new(BoxSeq(0), [], T0, pace);
        let first = receiver.handle(T0, 0.5, ReceiverEvent::Online(true));
        assert_eq!(first, [ReceiverAction::Ask { seq: BoxSeq(0) }], "a new channel is probed promptly");
        receiver
    }

    fn answered(seq: u64, answer: Answer) -> ReceiverEvent {
        ReceiverEvent::Answered { seq: BoxSeq(seq), answer }
    }

    #[test]
    fn a_missing_frontier_is_a_verdict_and_the_pauses_grow_to_the_cap() {
        let mut receiver = online(&fast());
        let mut now = T0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let told = receiver.handle(now, 0.632, answered(0, Answer::NotYet));
            assert_eq!(told, [ReceiverAction::Verdict { seq: BoxSeq(0) }]);
            let at = receiver.next_timeout().expect("the next probe is planned");
            pauses.push(at - now);
            now = at;
            assert_eq!(receiver.handle(now, 0.5, ReceiverEvent::Tick), [ReceiverAction::Ask { seq: BoxSeq(0) }]);
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert!(pauses[11] > Duration::from_millis(990) && pauses[11] < Duration::from_millis(1010), "{pauses:?}");
    }

    #[test]
    fn a_hit_opens_the_window_and_a_miss_closes_it() {
        let mut receiver = online(&fast());
        let two = receiver.handle(T0, 0.5, answered(0, Answer::Arrived));
        assert_eq!(two[0], ReceiverAction::Record { seq: BoxSeq(0) });
        assert_eq!(two[1..], [ReceiverAction::Ask { seq: BoxSeq(1) }, ReceiverAction::Ask { seq: BoxSeq(2) }]);
        let after = receiver.handle(T0, 0.5, answered(2, Answer::NotYet));
        assert_eq!(after, [], "the verdict waits until the frontier is at its index");
        let last = receiver.handle(T0, 0.5, answered(1, Answer::Arrived));
        assert_eq!(last, [ReceiverAction::Record { seq: BoxSeq(1) }, ReceiverAction::Verdict { seq: BoxSeq(2) }]);
        assert!(receiver.next_timeout().is_some_and(|at| at > T0), "at rest, with a probe planned");
    }

    #[test]
    fn a_hole_is_asked_for_again_and_filled() {
        let pace = Pace::default();
        let mut receiver = online(&pace);
        receiver.handle(T0, 0.5, answered(0, Answer::Arrived));
        receiver.handle(T0, 0.5, answered(1, Answer::NotYet));
        receiver.handle(T0, 0.5, answered(2, Answer::Arrived));
        let again = loop {
            let now = receiver.next_timeout().expect("a hole is never given up");
            let asked = receiver.handle(now, 0.5, ReceiverEvent::Tick);
            if asked.contains(&ReceiverAction::Ask { seq: BoxSeq(1) }) {
                break now;
            }
        };
        assert!(again - T0 <= Duration::from_secs(10));
        let filled = receiver.handle(again, 0.5, answered(1, Answer::Arrived));
        assert_eq!(filled[0], ReceiverAction::Record { seq: BoxSeq(1) });
        assert_eq!(filled[1], ReceiverAction::Ask { seq: BoxSeq(3) }, "2 was there already");
    }

    proptest::proptest! {
        /// Boxes come and go missing in any order: each is recorded once, no verdict speaks of an index whose box
        /// is there, and in the end the frontier stands behind the last box with a verdict of its own.
        #[test]
        fn every_box_is_recorded_once(boxes in 0_u64..80, seed: u64) {
            use rand::{RngExt as _, SeedableRng as _};
            let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
            let pace = fast();
            let mut receiver = Receiver::new(BoxSeq(0), [], T0, &pace);
            let mut now = T0;
            let mut air: Vec<BoxSeq> = Vec::new();
            let mut recorded = vec![0; boxes as usize];
            let mut verdict = None;
            let mut event = ReceiverEvent::Online(true);
            for step in 0..200_000 {
                proptest::prop_assert!(step < 199_999, "the end was never reached: {receiver:?}");
                for action in receiver.handle(now, dice.random(), event) {
                    match action {
                        ReceiverAction::Ask { seq } => air.push(seq),
                        ReceiverAction::Record { seq } => recorded[seq.0 as usize] += 1,
                        ReceiverAction::Verdict { seq } => {
                            proptest::prop_assert!(recorded.get(seq.0 as usize).is_none_or(|&count| count == 0));
                            verdict = Some(seq);
                        }
                    }
                }
                proptest::prop_assert!(air.len() <= receiver.window_boxes.max(2) * 2, "{} asked", air.len());
                if verdict == Some(BoxSeq(boxes)) && air.is_empty() { break; }
                event = if air.is_empty() {
                    now = now.max(receiver.next_timeout().expect("online and at rest: a probe is planned"));
                    ReceiverEvent::Tick
                } else {
                    let seq = air.swap_remove(dice.random_range(0..air.len()));
                    let answer = match dice.random_range(0..10) {
                        0 => Answer::Unknown,
                        1 => Answer::NotYet,
                        _ if seq.0 < boxes => Answer::Arrived,
                        _ => Answer::NotYet,
                    };
                    ReceiverEvent::Answered { seq, answer }
                };
            }
            proptest::prop_assert_eq!(recorded, vec![1; boxes as usize]);
        }
    }
}
