//! The gallop: looks for the living boxes of a channel whose frontier may have expired.
//!
//! Replicas forget a box after a week or two. A reader that was away for longer finds nothing at its frontier, and cannot
//! tell whether nothing was written, or whether what was is gone and the writer is far ahead. The boxes that live are a run
//! somewhere past the frontier, no further than the writer could come meanwhile. It is looked for at strides of 1,024,
//! which become longer the further away they are and then halve, so that the run is found if it is as long as a quarter of
//! its distance, or as the stride that is reached where it lies. Then the gap before it is halved until its first box is
//! known.
//!
//! No index is given up that was not missing in two reads, each in a fresh envelope. All reads together are bounded, and
//! each waits for its turn: a search takes hours on a real network, and is hidden among the probes of idle channels.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Answer, Time};

/// Reads of one search, at most; and of all searches of a channel in a day.
pub const SEARCH_PROBES: u32 = 256;
/// With fewer a search is not begun.
pub const LEAST_PROBES: u32 = 64;
/// The first stride, in boxes.
const STRIDE: u64 = 1024;
/// Reads that must find an index missing.
const NOT_FOUNDS: u32 = 2;
/// Reads that are kept for halving the gap before what was found: twice for each of 18 halves, and one to find it.
const NARROWING: u32 = 37;
/// Strides are a quarter longer each time, once half of the first round is spent.
const LONGER: u64 = 4;

/// What the shell tells the gallop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GallopEvent {
    /// The read that was asked for has ended.
    Answered(Answer),
    /// Nothing but time.
    Tick,
}

/// What the gallop wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GallopAction {
    /// Read the box this far past the frontier once, in a fresh envelope.
    Ask {
        /// In boxes, from 1 on.
        offset: u64,
    },
    /// The search is over.
    Ended {
        /// The first box that lives, as far as could be learned: it has arrived.
        living: Option<u64>,
    },
}

/// The search of one channel. See the module's head.
#[derive(Debug)]
pub struct Gallop {
    /// The mean pause between two reads.
    pause: Duration,
    next_at: Time,
    budget: u32,
    spent: u32,
    asked: bool,
    ended: bool,
    /// What is looked at now, and how often it was missing; 0 where there is nothing to look at.
    at: u64,
    not_founds: u32,
    plan: VecDeque<u64>,
    /// Offsets that are believed to be gone or never written; the frontier is 0.
    dead: Vec<u64>,
    /// The lowest that has arrived.
    living: Option<u64>,
}

impl Gallop {
    /// A search over `span` boxes past the frontier, with at most `budget` reads, one in `pause` on average.
    pub fn new(now: Time, span: u64, budget: u32, pause: Duration) -> Self {
        let budget = budget.min(SEARCH_PROBES);
        let positions = budget.saturating_sub(NARROWING) / NOT_FOUNDS;
        let mut plan = plan(span, positions as usize);
        let at = plan.pop_front().unwrap_or_default();
        Self {
            pause,
            next_at: now,
            budget,
            spent: 0,
            asked: false,
            ended: false,
            at,
            not_founds: 0,
            plan,
            dead: vec![0],
            living: None,
        }
    }

    /// The search as it was when its reads so far had come to these answers, over the same span and with the same budget.
    pub fn resumed(now: Time, span: u64, budget: u32, pause: Duration, answers: &[Answer]) -> Self {
        let mut gallop = Self::new(now, span, budget, pause);
        for &answer in answers {
            if gallop.at == 0 || gallop.spent >= gallop.budget {
                break;
            }
            gallop.spent += 1;
            gallop.answered(answer);
        }
        gallop
    }

    /// Reads that were asked for so far.
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// When [`GallopEvent::Tick`] is due, if time alone can move anything.
    pub fn next_timeout(&self) -> Option<Time> {
        (!self.asked && !self.ended).then_some(self.next_at)
    }

    /// Takes an event in and says what is to be done. `chance` is a number in 0..1 that the shell drew for this call; it
    /// scatters the next read.
    pub fn handle(&mut self, now: Time, chance: f64, event: GallopEvent) -> Option<GallopAction> {
        if let (GallopEvent::Answered(answer), true) = (event, self.asked) {
            self.asked = false;
            // Exponentially distributed, cut at three means so that no pause is without end.
            let scatter = (-(1.0 - chance.clamp(0.0, 0.999)).ln()).min(3.0);
            self.next_at = now + self.pause.mul_f64(scatter);
            if !self.answered(answer) {
                self.ended = true;
                return Some(GallopAction::Ended { living: self.living });
            }
        }
        if self.ended || self.asked || now < self.next_at {
            return None;
        }
        if self.spent >= self.budget || self.at == 0 {
            self.ended = true;
            return Some(GallopAction::Ended { living: self.living });
        }
        self.spent += 1;
        self.asked = true;
        Some(GallopAction::Ask { offset: self.at })
    }

    /// False: nothing is left to be looked at.
    fn answered(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Unknown => return true,
            Answer::NotYet if self.not_founds + 1 < NOT_FOUNDS => {
                self.not_founds += 1;
                return true;
            }
            Answer::NotYet => self.dead.push(self.at),
            Answer::Arrived => self.living = Some(self.at),
        }
        self.not_founds = 0;
        let next = match self.living {
            None => self.plan.pop_front(),
            Some(living) => {
                let dead = self.dead.iter().copied().filter(|&dead| dead < living).max().unwrap_or_default();
                (living - dead > 1).then_some(dead + (living - dead) / 2)
            }
        };
        self.at = next.unwrap_or_default();
        next.is_some()
    }
}

/// At most `positions` offsets within 1..=`span`, each once, in the order in which they are looked at.
fn plan(span: u64, positions: usize) -> VecDeque<u64> {
    let mut plan = VecDeque::with_capacity(positions);
    // Half of them for the first round: a stride apart, and further apart where the span is longer than that.
    let first_round = positions / 2;
    let (mut at, mut linear) = (STRIDE, first_round / 2);
    while at <= span && plan.len() < first_round {
        plan.push_back(at);
        linear = linear.saturating_sub(1);
        at += if linear > 0 { STRIDE } else { (at / LONGER).max(STRIDE) };
    }
    let rounds = STRIDE.ilog2();
    for round in 1..=rounds {
        let stride = STRIDE >> round;
        let left = positions - plan.len();
        let share = left / (rounds - round + 1) as usize;
        let offsets = (0..).map(|odd| stride * (2 * odd + 1)).take_while(|&at| at <= span);
        plan.extend(offsets.take(share));
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(20);
    const WEEKS: u64 = 14 * 24 * 3600;

    /// Plays a search against boxes of which those in `living` answer. The end, and the offsets that were asked for.
    fn search(
        span: u64,
        budget: u32,
        mut answer: impl FnMut(u64) -> Answer,
        mut chance: impl FnMut() -> f64,
    ) -> (Option<u64>, Vec<(Time, u64)>) {
        let mut gallop = Gallop::new(Time::ZERO, span, budget, PAUSE);
        let (mut now, mut asked, mut event) = (Time::ZERO, Vec::new(), GallopEvent::Tick);
        loop {
            match gallop.handle(now, chance(), event) {
                Some(GallopAction::Ask { offset }) => {
                    asked.push((now, offset));
                    event = GallopEvent::Answered(answer(offset));
                }
                Some(GallopAction::Ended { living }) => {
                    assert_eq!(gallop.next_timeout(), None, "it is over");
                    assert_eq!(gallop.spent() as usize, asked.len());
                    return (living, asked);
                }
                None => match gallop.next_timeout() {
                    Some(at) => (now, event) = (now.max(at), GallopEvent::Tick),
                    None => panic!("it neither asks, nor waits, nor has ended"),
                },
            }
        }
    }

    fn lives(run: std::ops::Range<u64>) -> impl FnMut(u64) -> Answer {
        move |at| if run.contains(&at) { Answer::Arrived } else { Answer::NotYet }
    }

    #[test]
    fn a_run_is_found_at_the_stride_and_its_first_box_by_halving() {
        let (living, asked) = search(WEEKS, SEARCH_PROBES, lives(3000..4100), || 0.5);
        assert_eq!(living, Some(3000));
        let offsets: Vec<_> = asked.iter().map(|(_, at)| *at).collect();
        assert_eq!(offsets[..7], [1024, 1024, 2048, 2048, 3072, 2560, 2560], "twice missing, then believed");
        assert!(offsets.len() < 25, "{offsets:?}");
    }

    #[test]
    fn nothing_is_found_within_the_budget_and_at_its_pace() {
        let (living, asked) = search(WEEKS, SEARCH_PROBES, lives(0..0), || 0.632);
        assert_eq!(living, None);
        assert!(asked.len() > 200 && asked.len() <= SEARCH_PROBES as usize, "{}", asked.len());
        let (last, _) = asked[asked.len() - 1];
        let mean = last / u32::try_from(asked.len() - 1).unwrap();
        assert!(mean > PAUSE.mul_f64(0.98) && mean < PAUSE.mul_f64(1.02), "{mean:?}");
    }

    #[test]
    fn a_span_of_a_few_boxes_is_looked_at_whole_and_one_of_none_ends_at_once() {
        for span in 1..90 {
            assert_eq!(search(span, SEARCH_PROBES, lives(span..span + 1), || 0.5).0, Some(span), "{span}");
        }
        assert_eq!(search(0, SEARCH_PROBES, lives(0..1), || 0.5), (None, Vec::new()));
    }

    #[test]
    fn while_a_read_is_unanswered_time_brings_nothing() {
        let mut gallop = Gallop::new(Time::ZERO, WEEKS, SEARCH_PROBES, PAUSE);
        assert_eq!(gallop.handle(Time::ZERO, 0.5, GallopEvent::Tick), Some(GallopAction::Ask { offset: STRIDE }));
        assert_eq!(gallop.next_timeout(), None);
        assert_eq!(gallop.handle(2 * PAUSE, 0.5, GallopEvent::Tick), None);
        assert_eq!(gallop.handle(2 * PAUSE, 0.5, GallopEvent::Answered(Answer::NotYet)), None, "it pauses first");
        assert_eq!(gallop.spent(), 1);
    }

    #[test]
    fn strides_are_even_at_first_and_then_a_part_of_the_way() {
        let plan: Vec<u64> = plan(1 << 40, 128).into_iter().take(64).collect();
        for (count, pair) in plan.windows(2).enumerate() {
            let stride = if count < 31 { STRIDE } else { (pair[0] / LONGER).max(STRIDE) };
            assert_eq!(pair[1] - pair[0], stride, "after {} strides", count + 1);
        }
        assert!(plan[63] > 100 * STRIDE, "{}", plan[63]);
    }

    proptest::proptest! {
        /// Wherever it is broken off: with the answers so far it goes on with the same questions, and asks none again.
        #[test]
        fn a_search_that_is_taken_up_again_asks_what_it_would_have_asked(
            span in 1..WEEKS, begin in 1..WEEKS, len in 1..100_000_u64, budget in 0..300_u32, cut in 0..260_usize
        ) {
            let (living, asked) = search(span, budget, lives(begin..begin + len), || 0.5);
            let answer = |at: u64| if (begin..begin + len).contains(&at) { Answer::Arrived } else { Answer::NotYet };
            let cut = cut.min(asked.len());
            let so_far: Vec<_> = asked[..cut].iter().map(|(_, at)| answer(*at)).collect();
            let mut gallop = Gallop::resumed(Time::ZERO, span, budget, PAUSE, &so_far);
            proptest::prop_assert_eq!(gallop.spent() as usize, cut);
            let (mut now, mut event, mut rest) = (Time::ZERO, GallopEvent::Tick, Vec::new());
            let ended = loop {
                match gallop.handle(now, 0.5, event) {
                    Some(GallopAction::Ask { offset }) => {
                        rest.push(offset);
                        event = GallopEvent::Answered(answer(offset));
                    }
                    Some(GallopAction::Ended { living }) => break living,
                    None => (now, event) = (gallop.next_timeout().expect("it waits"), GallopEvent::Tick),
                }
            };
            proptest::prop_assert_eq!(ended, living);
            proptest::prop_assert_eq!(rest, asked[cut..].iter().map(|(_, at)| *at).collect::<Vec<_>>());
        }

        #[test]
        fn no_offset_is_planned_twice_or_past_the_span(span in 0..2 * WEEKS, positions in 0..120_usize) {
            let plan = plan(span, positions);
            proptest::prop_assert!(plan.len() <= positions);
            proptest::prop_assert!(plan.iter().all(|at| (1..=span).contains(at)));
            let once: BTreeSet<_> = plan.iter().copied().collect();
            proptest::prop_assert_eq!(once.len(), plan.len());
        }

        /// A run that is as long as the first stride and as a quarter of its distance is found, to its first box.
        #[test]
        fn a_long_run_is_found_wherever_it_begins(begin in 1..WEEKS / 2, chance in 0.0..1.0_f64) {
            let end = (begin + 1024).max(begin + begin / 4 + 1);
            let (living, asked) = search(WEEKS, SEARCH_PROBES, lives(begin..end), || chance);
            proptest::prop_assert_eq!(living, Some(begin));
            proptest::prop_assert!(asked.len() <= SEARCH_PROBES as usize);
        }

        /// Whatever is answered: it ends within its budget, asks for one box at a time and only within the span, and what
        /// it ends with did arrive.
        #[test]
        fn it_ends_with_what_has_arrived_or_with_nothing(
            span in 1..WEEKS, begin in 1..WEEKS, len in 1..100_000_u64, budget in 0..300_u32, seed: u64
        ) {
            use rand::{RngExt as _, SeedableRng as _};
            let dice = std::cell::RefCell::new(rand::rngs::StdRng::seed_from_u64(seed));
            let mut arrived = BTreeSet::new();
            let run = begin..begin + len;
            let answer = |at| match dice.borrow_mut().random_range(0..10) {
                0 => Answer::Unknown,
                1 => Answer::NotYet,
                _ if run.contains(&at) => {
                    arrived.insert(at);
                    Answer::Arrived
                }
                _ => Answer::NotYet,
            };
            let (living, asked) = search(span, budget, answer, || dice.borrow_mut().random());
            proptest::prop_assert!(asked.len() <= budget.min(SEARCH_PROBES) as usize);
            proptest::prop_assert!(asked.iter().all(|(_, at)| (1..=span).contains(at)));
            proptest::prop_assert_eq!(living, arrived.first().copied());
        }
    }
}
