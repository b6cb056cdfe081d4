//! The way between the daemon and the services: how long packets take on it, and what becomes of them.
//!
//! All of the core's randomness is drawn here, from one seed. Nothing is planned here and no state of a client is known.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::localnet::faults::Faults;
use crate::localnet::profile::{Profile, exponential};

/// Above this mean a Poisson count is drawn as the normal that it is close to.
const MANY: f64 = 64.0;

/// The delays that the daemon draws for a packet and for the reply that its SURB will carry
/// (`network-performance.md` A.3).
#[derive(Clone, Copy)]
pub(super) struct RoundTrip {
    pub(super) forward: Duration,
    pub(super) back: Duration,
    /// What the daemon expects: one hop more, which the service's node skips.
    pub(super) expected: Duration,
}

/// When something arrives: not at all, once, or twice.
pub(super) type Arrivals = [Option<Duration>; 2];

/// What became of what was sent, since the start.
#[derive(Clone, Copy, Default)]
pub(super) struct Mishaps {
    pub(super) lost: u64,
    pub(super) replies_lost: u64,
    pub(super) duplicated: u64,
    pub(super) delayed: u64,
}

pub(super) struct Mixnet {
    hop: Duration,
    layers: u32,
    network: Duration,
    faults: Faults,
    dice: StdRng,
    /// Counts of idle ticks concern nobody but the statistics: who asks for them must not change what happens.
    idle_dice: StdRng,
    pub(super) mishaps: Mishaps,
}

impl Mixnet {
    pub(super) fn new(profile: &Profile, faults: Faults, seed: u64) -> Self {
        Self {
            hop: profile.hop,
            layers: u32::try_from(profile.layers).unwrap_or(u32::MAX),
            network: profile.network,
            faults,
            dice: StdRng::seed_from_u64(seed),
            idle_dice: StdRng::seed_from_u64(!seed),
            mishaps: Mishaps::default(),
        }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Whether a packet and its reply take no time at all.
    pub(super) fn is_instant(&self) -> bool {
        self.hop.is_zero() && self.network.is_zero()
    }

    pub(super) fn round_trip(&mut self) -> RoundTrip {
        let hops = |dice: &mut StdRng, count| (0..count).map(|_| exponential(dice, self.hop)).sum::<Duration>();
        let forward = hops(&mut self.dice, self.layers.saturating_add(1)) + self.network / 2;
        let back = hops(&mut self.dice, self.layers) + self.network / 2;
        let expected = forward + back + exponential(&mut self.dice, self.hop);
        RoundTrip { forward, back, expected }
    }

    /// A packet that takes `delay`, on its way to a service.
    pub(super) fn packet(&mut self, delay: Duration) -> Arrivals {
        if chance(&mut self.dice, self.faults.loss) {
            self.mishaps.lost += 1;
            return [None; 2];
        }
        self.arrivals(delay)
    }

    /// A reply that takes `delay`, on its way to the daemon.
    pub(super) fn reply(&mut self, delay: Duration) -> Arrivals {
        if chance(&mut self.dice, self.faults.reply_loss) {
            self.mishaps.replies_lost += 1;
            return [None; 2];
        }
        self.arrivals(delay)
    }

    fn arrivals(&mut self, delay: Duration) -> Arrivals {
        let first = self.held_up(delay);
        let second = chance(&mut self.dice, self.faults.duplication).then(|| {
            self.mishaps.duplicated += 1;
            self.held_up(delay)
        });
        [Some(first), second]
    }

    fn held_up(&mut self, delay: Duration) -> Duration {
        if chance(&mut self.dice, self.faults.delay) {
            self.mishaps.delayed += 1;
            return delay + self.faults.delay_for();
        }
        delay
    }

    /// The time from now to the next event of a Poisson process: it has no memory.
    pub(super) fn until_next(&mut self, mean: Duration) -> Duration {
        exponential(&mut self.dice, mean)
    }

    /// How often a Poisson process of that mean interval happened in `span`.
    pub(super) fn idle_ticks(&mut self, span: Duration, mean: Duration) -> u64 {
        if mean.is_zero() { 0 } else { poisson(&mut self.idle_dice, span.as_secs_f64() / mean.as_secs_f64()) }
    }

    pub(super) fn courier(&mut self, couriers: usize) -> usize {
        self.dice.random_range(0..couriers)
    }

    pub(super) fn id(&mut self) -> [u8; 16] {
        self.dice.random()
    }
}

/// What certainly happens, or never does, draws nothing: a fault that is off changes no run.
fn chance(dice: &mut StdRng, probability: f64) -> bool {
    probability > 0.0 && dice.random::<f64>() < probability
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count, rounded, of at least 0.
fn poisson(dice: &mut StdRng, mean: f64) -> u64 {
    if mean > MANY {
        let (radius, turn) = ((-2.0 * (1.0 - dice.random::<f64>()).ln()).sqrt(), dice.random::<f64>());
        return (mean + mean.sqrt() * radius * (std::f64::consts::TAU * turn).cos()).round().max(0.0) as u64;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
    loop {
        product *= dice.random::<f64>();
        if product <= limit {
            return count;
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_has_seven_hops_and_the_daemon_expects_eight() {
        let mut mixnet = Mixnet::new(&Profile::namenlos(), Faults::default(), 1);
        let trips: Vec<_> = (0..20_000).map(|_| mixnet.round_trip()).collect();
        let mean = |part: fn(&RoundTrip) -> Duration| trips.iter().map(part).sum::<Duration>().as_secs_f64() / 20_000.0;
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
        close(mean(|trip| trip.forward), 4.05);
        close(mean(|trip| trip.back), 3.05);
        close(mean(|trip| trip.expected), 8.1);
    }

    #[test]
    fn idle_ticks_are_counted_as_if_they_had_been_waited_for() {
        let mut mixnet = Mixnet::new(&Profile::docker(), Faults::default(), 1);
        for span in [0.5, 20.0, 500.0] {
            let counts: Vec<_> = (0..5000)
                .map(|_| mixnet.idle_ticks(Duration::from_secs_f64(span), Duration::from_secs(1)) as f64)
                .collect();
            let mean = counts.iter().sum::<f64>() / 5000.0;
            let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 5000.0;
            assert!((mean / span - 1.0).abs() < 0.05, "{mean} of {span}");
            assert!((variance / span - 1.0).abs() < 0.1, "a variance of {variance} at {span}");
        }
    }

    #[test]
    fn faults_take_their_share_of_what_is_sent() {
        let faults = Faults { loss: 0.1, duplication: 0.2, delay: 0.3, delay_ms: 5000, ..Faults::default() };
        let mut mixnet = Mixnet::new(&Profile::docker(), faults, 1);
        let arrivals: Vec<_> = (0..10_000).map(|_| mixnet.packet(Duration::from_secs(1))).collect();
        let share = |what: fn(&&Arrivals) -> bool| arrivals.iter().filter(what).count() as f64 / 10_000.0;
        assert!((share(|at| at[0].is_none()) - 0.1).abs() < 0.02);
        assert!((share(|at| at[1].is_some()) - 0.18).abs() < 0.02);
        assert!((share(|at| at[0] == Some(Duration::from_secs(6))) - 0.27).abs() < 0.02);
        assert_eq!(mixnet.mishaps.replies_lost, 0);
        assert!(mixnet.reply(Duration::ZERO)[0].is_some());
    }
}
