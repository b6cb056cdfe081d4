//! When idle channels are probed (`network-performance.md` A.9).
//!
//! Each channel that is read rests here between two bursts, as one entry: exponentially distributed pauses whose mean
//! grows while nothing comes. What is due waits for one of the permissions that a Poisson process gives out, for all
//! channels together a set share of the network's pace; they are spent in rounds, each a random permutation of the
//! channels, so that no probe tells which channel it is of by what came before it. Channels in which something arrived
//! lately have rounds of their own and shorter pauses: of four permissions three are theirs first, and what either kind
//! does not use is the other's. A channel that a person follows, or has just added, needs no permission.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

#[cfg(test)]
use super::bugs::{Bug, has};
use super::{JointPace, Time};
use crate::model::ChannelId;

/// The share of the traffic that probes of idle channels may take, where nobody chose another.
pub const PROBE_SHARE: f64 = 0.1;
/// Packets that a probe takes (A.9), those of the ones that look past the frontier shared out.
const PACKETS: f64 = 2.0 * (1.0 + super::scheduler::LOOK_PAST);
/// Permissions that are kept while nothing needs one.
const KEPT: u32 = 4;
const GROWTH: f64 = 1.7;
/// How long a channel counts as busy after something arrived in it, in longest pauses: half an hour on a network like
/// upstream's docker.
const BUSY: u32 = 25;
/// The longest pause of a busy channel is this part of the longest of all: some ten round trips.
const BUSY_CAP: u32 = 4;
/// The share of the permissions that is offered to busy channels first.
const BUSY_SHARE: f64 = 0.75;

/// Whose rounds a channel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Something arrived lately.
    Busy,
    Quiet,
}

#[derive(Debug)]
struct Idle {
    pause: Duration,
    place: Place,
    /// The last round in which it was probed, and of which kind that was.
    round: (Kind, u64),
    follow_until: Time,
    busy_until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Waits for its time.
    Due(Time),
    /// Waits for a permission, as a busy channel or another one: its place in the permutations.
    Ready(Kind, u64, u64),
    /// Goes next, without one.
    Prompt(u64),
    /// Its receiver is at work.
    Out,
}

impl Kind {
    fn other(self) -> Self {
        match self {
            Self::Busy => Self::Quiet,
            Self::Quiet => Self::Busy,
        }
    }
}

/// The schedule of all channels that are read. See the module's head.
#[derive(Debug)]
pub struct Probes {
    share: f64,
    permissions_per_second: f64,
    floor: Duration,
    cap: Duration,
    idle: HashMap<ChannelId, Idle>,
    due: BTreeSet<(Time, ChannelId)>,
    /// By kind.
    ready: [BTreeSet<(u64, u64, ChannelId)>; 2],
    prompt: BTreeSet<(u64, ChannelId)>,
    /// The rounds of each kind.
    round: [u64; 2],
    permissions: u32,
    next_permission: Time,
}

impl Probes {
    /// A schedule of nothing. `share` is the part of the network's pace that idle channels may take together.
    pub fn new(share: f64, pace: impl Into<JointPace>) -> Self {
        let mut probes = Self {
            share,
            permissions_per_second: 0.0,
            floor: Duration::ZERO,
            cap: Duration::ZERO,
            idle: HashMap::new(),
            due: BTreeSet::new(),
            ready: [BTreeSet::new(), BTreeSet::new()],
            prompt: BTreeSet::new(),
            round: [1; 2],
            permissions: KEPT,
            next_permission: Time::ZERO,
        };
        probes.set_pace(pace);
        probes
    }

    /// Follows the network's pace from now on.
    pub fn set_pace(&mut self, pace: impl Into<JointPace>) {
        let pace = pace.into();
        self.permissions_per_second = (self.share * pace.packets_per_second() / PACKETS).max(1e-6);
        self.floor = pace.probe_floor();
        self.cap = pace.probe_cap();
    }

    /// Takes a channel in. Without `prompt` its first probe comes at some time within the longest pause, so that a start
    /// with many channels is no burst.
    pub fn insert(&mut self, now: Time, channel: ChannelId, prompt: bool, dice: &mut StdRng) {
        let at = now + self.cap.mul_f64(dice.random());
        let (pause, place) = (self.floor, Place::Due(at));
        let idle = Idle { pause, place, round: (Kind::Quiet, 0), follow_until: Time::ZERO, busy_until: Time::ZERO };
        self.remove(channel);
        self.idle.insert(channel, idle);
        self.due.insert((at, channel));
        if prompt {
            self.prompt(channel, dice);
        }
    }

    /// Forgets a channel.
    pub fn remove(&mut self, channel: ChannelId) {
        if let Some(idle) = self.idle.remove(&channel) {
            self.leave(channel, idle.place);
        }
    }

    /// Whether the channel is known.
    pub fn contains(&self, channel: ChannelId) -> bool {
        self.idle.contains_key(&channel)
    }

    /// Has a channel that rests probed at once.
    pub fn prompt(&mut self, channel: ChannelId, dice: &mut StdRng) {
        if self.idle.get(&channel).is_some_and(|idle| idle.place != Place::Out) {
            self.put(channel, Place::Prompt(dice.random()));
        }
    }

    /// Has a channel probed at the shortest pause, and without permissions, until a time.
    pub fn follow(&mut self, channel: ChannelId, until: Time, dice: &mut StdRng) {
        if let Some(idle) = self.idle.get_mut(&channel) {
            idle.follow_until = until;
            self.prompt(channel, dice);
        }
    }

    /// Until when a channel is followed.
    pub fn follows(&self, channel: ChannelId) -> Option<Time> {
        self.idle.get(&channel).map(|idle| idle.follow_until).filter(|until| !until.is_zero())
    }

    /// The receiver of a channel has come to rest; `hit` says whether anything had arrived.
    pub fn rest(&mut self, now: Time, channel: ChannelId, hit: bool, dice: &mut StdRng) {
        let Some(idle) = self.idle.get_mut(&channel) else { return };
        if hit || now < idle.follow_until {
            idle.pause = self.floor;
        }
        if hit {
            idle.busy_until = now + self.cap * BUSY;
        }
        let cap = if now < idle.busy_until { (self.cap / BUSY_CAP).max(self.floor) } else { self.cap };
        let at = now + scattered(idle.pause, dice);
        #[cfg(test)]
        if has(Bug::NotFoundIsEnd) && !hit {
            return;
        }
        idle.pause = idle.pause.mul_f64(GROWTH).clamp(self.floor, cap);
        self.put(channel, Place::Due(at));
    }

    /// The next channel to be probed now; its receiver is at work until it [rests](Self::rest).
    pub fn take(&mut self, now: Time, dice: &mut StdRng) -> Option<ChannelId> {
        while let Some(&(at, channel)) = self.due.first()
            && at <= now
        {
            let idle = &self.idle[&channel];
            let kind = if now < idle.busy_until { Kind::Busy } else { Kind::Quiet };
            let place = if now < idle.follow_until {
                Place::Prompt(dice.random())
            } else {
                let round = self.round[kind as usize];
                // Rounds of the other kind say nothing here.
                let own = if idle.round.0 == kind { idle.round.1 + 1 } else { 0 };
                Place::Ready(kind, round.max(own), dice.random())
            };
            self.put(channel, place);
        }
        if let Some(&(_, channel)) = self.prompt.first() {
            self.put(channel, Place::Out);
            return Some(channel);
        }
        if self.ready.iter().all(BTreeSet::is_empty) {
            return None;
        }
        while self.permissions < KEPT && self.next_permission <= now {
            self.permissions += 1;
            self.next_permission += self.until_next(dice);
        }
        if self.permissions == 0 {
            return None;
        }
        if self.permissions == KEPT {
            self.next_permission = now + self.until_next(dice);
        }
        self.permissions -= 1;
        let first = if dice.random_bool(BUSY_SHARE) { Kind::Busy } else { Kind::Quiet };
        let kind = if self.ready[first as usize].is_empty() { first.other() } else { first };
        let &(round, _, channel) = self.ready[kind as usize].first()?;
        self.round[kind as usize] = round;
        if let Some(idle) = self.idle.get_mut(&channel) {
            idle.round = (kind, round);
        }
        self.put(channel, Place::Out);
        Some(channel)
    }

    /// When there is something to take at the earliest.
    pub fn next_timeout(&self) -> Option<Time> {
        if !self.prompt.is_empty() {
            return Some(Time::ZERO);
        }
        let permitted = (!self.ready.iter().all(BTreeSet::is_empty)).then_some(if self.permissions > 0 {
            Time::ZERO
        } else {
            self.next_permission
        });
        self.due.first().map(|&(at, _)| at).into_iter().chain(permitted).min()
    }

    /// When a channel is expected to be probed next. `None` while its receiver is at work.
    pub fn next_probe(&self, now: Time, channel: ChannelId) -> Option<Time> {
        match self.idle.get(&channel)?.place {
            Place::Due(at) => Some(at.max(now)),
            Place::Prompt(_) => Some(now),
            // In the middle of those that wait with it.
            Place::Ready(kind, ..) => {
                let others = !self.ready[kind.other() as usize].is_empty();
                let share = match kind {
                    _ if !others => 1.0,
                    Kind::Busy => BUSY_SHARE,
                    Kind::Quiet => 1.0 - BUSY_SHARE,
                };
                let before = u32::try_from(self.ready[kind as usize].len() / 2).unwrap_or(u32::MAX);
                Some(now + Duration::from_secs_f64(f64::from(before) / (self.permissions_per_second * share)))
            }
            Place::Out => None,
        }
    }

    fn put(&mut self, channel: ChannelId, place: Place) {
        let Some(idle) = self.idle.get_mut(&channel) else { return };
        let old = std::mem::replace(&mut idle.place, place);
        self.leave(channel, old);
        match place {
            Place::Due(at) => drop(self.due.insert((at, channel))),
            Place::Ready(kind, round, key) => drop(self.ready[kind as usize].insert((round, key, channel))),
            Place::Prompt(key) => drop(self.prompt.insert((key, channel))),
            Place::Out => {}
        }
    }

    fn leave(&mut self, channel: ChannelId, place: Place) {
        match place {
            Place::Due(at) => drop(self.due.remove(&(at, channel))),
            Place::Ready(kind, round, key) => drop(self.ready[kind as usize].remove(&(round, key, channel))),
            Place::Prompt(key) => drop(self.prompt.remove(&(key, channel))),
            Place::Out => {}
        }
    }

    fn until_next(&self, dice: &mut StdRng) -> Duration {
        scattered(Duration::from_secs_f64(1.0 / self.permissions_per_second), dice)
    }
}

/// Exponentially distributed, cut at three means so that no pause is without end.
fn scattered(mean: Duration, dice: &mut StdRng) -> Duration {
    mean.mul_f64((-(1.0 - dice.random::<f64>()).ln()).min(3.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::channel::Pace;

    const HOUR: u64 = 3600;

    /// Everything that is probed within a time, when each probe takes none and finds nothing.
    fn idle_for(probes: &mut Probes, dice: &mut StdRng, seconds: u64) -> Vec<(Time, ChannelId)> {
        let mut seen = Vec::new();
        let mut now = Time::ZERO;
        loop {
            while let Some(channel) = probes.take(now, dice) {
                seen.push((now, channel));
                probes.rest(now, channel, false, dice);
            }
            match probes.next_timeout() {
                Some(at) if at <= Duration::from_secs(seconds) => now = now.max(at),
                _ => return seen,
            }
        }
    }

    fn docker() -> Pace {
        Pace::from_document(0.001, 0.005, 3)
    }

    fn resting(channels: i64, dice: &mut StdRng) -> Probes {
        let mut probes = Probes::new(PROBE_SHARE, &docker());
        for id in 0..channels {
            probes.insert(Time::ZERO, ChannelId(id), false, dice);
        }
        probes
    }

    #[test]
    fn the_pauses_of_one_channel_grow_to_the_cap() {
        let mut dice = StdRng::seed_from_u64(1);
        let mut pace = Pace::default();
        pace.measure(Duration::from_millis(10), 2, 1);
        // A share that never stands in the way.
        let mut probes = Probes::new(1e6, &pace);
        probes.insert(Time::ZERO, ChannelId(1), true, &mut dice);
        let seen = idle_for(&mut probes, &mut dice, 2000);
        assert_eq!(seen[0].0, Time::ZERO, "a channel that was just added is probed at once");
        let early: Vec<_> = seen.iter().take_while(|(at, _)| *at < Duration::from_secs(2)).collect();
        assert!((3..30).contains(&early.len()), "{} within two seconds", early.len());
        assert!((1800..2600).contains(&seen.len()), "{}: about one a second, as the pauses are cut", seen.len());
    }

    #[test]
    fn all_idle_channels_together_keep_to_their_share_and_each_has_its_turn() {
        let mut dice = StdRng::seed_from_u64(2);
        let mut probes = resting(1000, &mut dice);
        // 0.1 · 1 / 2.5 probes a second; the cut of the pauses makes it five in a hundred more.
        let seen = idle_for(&mut probes, &mut dice, 40 * HOUR);
        let expected = 40 * HOUR / 25;
        assert!((expected * 9 / 10..expected * 12 / 10).contains(&(seen.len() as u64)), "{} probes", seen.len());
        let mut turns: HashMap<_, u64> = HashMap::new();
        for (_, channel) in &seen {
            *turns.entry(*channel).or_default() += 1;
        }
        let rounds = seen.len() as u64 / 1000;
        assert!(turns.len() == 1000 && turns.values().all(|turns| turns.abs_diff(rounds) <= 1), "in rounds");
        let order = |round: usize| seen[round * 1000..][..50].iter().map(|(_, channel)| *channel).collect::<Vec<_>>();
        assert_ne!(order(0), order(1), "each round is another permutation");
    }

    #[test]
    fn what_idle_hours_did_not_use_is_four_probes_at_once_and_no_more() {
        let mut dice = StdRng::seed_from_u64(5);
        let mut probes = resting(100, &mut dice);
        let late = Duration::from_secs(10 * HOUR);
        for permitted in 1..=KEPT {
            assert!(probes.take(late, &mut dice).is_some(), "{permitted}");
            assert_eq!(probes.next_timeout() == Some(Time::ZERO), permitted < KEPT, "{permitted}: is there another?");
        }
        assert_eq!(probes.take(late, &mut dice), None);
        assert!(probes.next_timeout().is_some_and(|next| next > late));
        // 96 wait, and 0.1 · 1 / 2.5 a second may go.
        let expected = [None, Some(late + Duration::from_secs(48 * 25))];
        let told: Vec<_> = (0..100).map(|id| probes.next_probe(late, ChannelId(id))).collect();
        assert_eq!(expected.map(|time| told.iter().filter(|&&told| told == time).count()), [4, 96], "{told:?}");
    }

    #[test]
    fn a_followed_channel_goes_without_permission_until_its_time_is_over() {
        let mut dice = StdRng::seed_from_u64(3);
        let mut probes = Probes::new(PROBE_SHARE, &docker());
        probes.insert(Time::ZERO, ChannelId(1), false, &mut dice);
        probes.follow(ChannelId(1), Duration::from_secs(HOUR), &mut dice);
        let seen = idle_for(&mut probes, &mut dice, 3 * HOUR);
        let within = seen.iter().filter(|(at, _)| *at < Duration::from_secs(HOUR)).count();
        assert!((700..1500).contains(&within), "{within}: about one every two round trips");
        assert!((50..400).contains(&(seen.len() - within)), "{} in two hours after it", seen.len() - within);
    }

    #[test]
    fn a_channel_that_left_is_not_probed() {
        let mut dice = StdRng::seed_from_u64(4);
        let mut probes = Probes::new(PROBE_SHARE, &docker());
        probes.insert(Time::ZERO, ChannelId(1), true, &mut dice);
        probes.remove(ChannelId(1));
        assert_eq!((probes.take(Time::ZERO, &mut dice), probes.next_timeout()), (None, None));
        assert!(!probes.contains(ChannelId(1)) && probes.next_probe(Time::ZERO, ChannelId(1)).is_none());
    }

    /// Delays of news in seconds, from a message's arrival in the network to the probe that finds it: of one channel with a
    /// message each `every` on the average, beside others in which nothing happens.
    fn delays(others: i64, every: Duration, count: usize, seed: u64) -> Vec<f64> {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut probes = resting(others, &mut dice);
        let busy = ChannelId(others);
        probes.insert(Time::ZERO, busy, true, &mut dice);
        let probe = Duration::from_secs(5);
        let (mut now, mut delays, mut news) = (Time::ZERO, Vec::new(), Vec::new());
        let mut next = scattered(every, &mut dice);
        while delays.len() < count {
            while let Some(channel) = probes.take(now, &mut dice) {
                let hit = channel == busy && !news.is_empty();
                if hit {
                    delays.extend(news.drain(..).map(|at: Time| (now - at).as_secs_f64()));
                }
                probes.rest(now + probe, channel, hit, &mut dice);
            }
            now = probes.next_timeout().expect("there is always another").max(now).min(next);
            if now == next {
                news.push(now);
                next += scattered(every, &mut dice);
            }
        }
        delays.sort_by(f64::total_cmp);
        delays
    }

    /// Before busy channels had rounds of their own the median and the 95th percentile were 30 and 152 s for one channel
    /// alone, 109 and 317 s for one of nine, and 1227 and 3113 s for one of a hundred.
    #[test]
    fn news_of_a_busy_channel_come_soon_beside_idle_ones() {
        for (others, median, p95) in [(0, 25.0, 80.0), (8, 40.0, 130.0), (99, 45.0, 140.0)] {
            let delays = delays(others, Duration::from_secs(300), 2000, 6);
            let (half, most) = (delays[delays.len() / 2], delays[delays.len() * 19 / 20]);
            assert!(half < median && most < p95, "{others} others: median {half:.0} s, p95 {most:.0} s");
        }
    }

    #[test]
    fn a_busy_channel_takes_nothing_from_the_budget_and_leaves_the_others_their_turns() {
        let mut dice = StdRng::seed_from_u64(7);
        let mut probes = resting(9, &mut dice);
        let busy = ChannelId(0);
        let (mut now, mut turns) = (Time::ZERO, HashMap::<_, u64>::new());
        while now < Duration::from_secs(40 * HOUR) {
            while let Some(channel) = probes.take(now, &mut dice) {
                *turns.entry(channel).or_default() += 1;
                probes.rest(now, channel, channel == busy, &mut dice);
            }
            now = probes.next_timeout().expect("there is always another").max(now);
        }
        let all: u64 = turns.values().sum();
        assert!((40 * HOUR / 25 * 9 / 10..40 * HOUR / 25 * 12 / 10).contains(&all), "{all} probes, and not more");
        let others = all - turns[&busy];
        assert!((all * 20 / 100..all * 40 / 100).contains(&others), "{others} of {all} are of the quiet ones");
        assert!(
            turns.iter().filter(|(id, _)| **id != busy).all(|(_, turns)| turns.abs_diff(others / 8) <= 2),
            "{turns:?}"
        );
    }
}
