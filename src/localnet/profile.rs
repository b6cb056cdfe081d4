//! What sets the pace of a network: rates, delays and costs, by name or number by number.
//!
//! The named profiles are the networks that were measured (`network-performance.md` A.1, A.10): X25519 in the envelopes, so
//! that an encrypt costs about a millisecond. Production's CTIDH costs about 1,500 ms an encrypt: say so by flag.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// What sets the pace of a localnet, in the network's own time.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name: `instant`, `docker`, `namenlos`.
    pub name: &'static str,
    /// Mean time between two packets of the daemon, 1/λP; zero: a packet leaves at once.
    pub tick: Duration,
    /// Mean delay of a hop, 1/μ; zero: none.
    pub hop: Duration,
    /// Mix layers. A packet has `layers + 1` delayed hops to the courier, and `layers` back.
    pub layers: usize,
    /// What a round trip takes besides the hops' delays.
    pub network: Duration,
    /// From a courier's dispatch to a replica's answer in its cache, mean.
    pub replica_delay: Duration,
    /// From a holder's write to its copy at the other holder, mean.
    pub replication_delay: Duration,
    /// What an encrypt costs the connection that asks for it.
    pub encrypt: Duration,
    /// What an operation waits beyond the expected round trip before it sends again.
    pub resend_after: Duration,
    /// Between two polls of a copy command.
    pub copy_poll: Duration,
    /// Length of a mixnet epoch. Replica epochs are weeks, whatever this is.
    pub epoch: Duration,
    /// Storage replicas, at least 2.
    pub replicas: usize,
    /// Service nodes with a courier, at least 1.
    pub couriers: usize,
    /// Whether a read that the daemon repeats in the same envelope sees what was written meanwhile, at once. Real couriers
    /// ask the replicas five times more and then answer from their caches for 5 minutes.
    pub kind_reads: bool,
    /// How many times as fast as upstream's constants say it runs: what a courier waits for is divided by it.
    pub scale: f64,
}

impl Profile {
    /// The names that [`Self::named`] knows.
    pub const NAMES: [&str; 3] = ["instant", "docker", "namenlos"];

    /// A profile by its name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "instant" => Some(Self::instant()),
            "docker" => Some(Self::docker()),
            "namenlos" => Some(Self::namenlos()),
            _ => None,
        }
    }

    /// Nothing waits.
    pub fn instant() -> Self {
        let zero = Duration::ZERO;
        Self {
            name: "instant",
            tick: zero,
            hop: zero,
            network: zero,
            replica_delay: zero,
            replication_delay: zero,
            encrypt: zero,
            // Between two polls a copy gets on by a slice; were it zero, nobody else would have a turn meanwhile.
            copy_poll: Duration::from_millis(1),
            epoch: Duration::from_secs(1200),
            ..Self::docker()
        }
    }

    /// Upstream's docker network: a packet a second, hops of 200 ms.
    pub fn docker() -> Self {
        Self {
            name: "docker",
            tick: Duration::from_secs(1),
            hop: Duration::from_millis(200),
            layers: 3,
            network: Duration::from_millis(100),
            replica_delay: Duration::from_millis(600),
            replication_delay: Duration::from_millis(300),
            encrypt: Duration::from_millis(1),
            resend_after: Duration::from_secs(20),
            copy_poll: Duration::from_secs(5),
            epoch: Duration::from_secs(120),
            replicas: 5,
            couriers: 3,
            kind_reads: false,
            scale: 1.0,
        }
    }

    /// A network like the public one: a packet a second, hops of a second.
    pub fn namenlos() -> Self {
        Self {
            name: "namenlos",
            hop: Duration::from_secs(1),
            replica_delay: Duration::from_millis(150),
            epoch: Duration::from_secs(1200),
            ..Self::docker()
        }
    }

    /// The same network, `scale` times as fast: every duration but the epochs' is divided by it.
    ///
    /// # Panics
    /// If `scale` is not a positive, finite number.
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        assert!(scale.is_finite() && scale > 0.0, "a time scale of {scale}");
        for duration in [
            &mut self.tick,
            &mut self.hop,
            &mut self.network,
            &mut self.replica_delay,
            &mut self.replication_delay,
            &mut self.encrypt,
            &mut self.resend_after,
            &mut self.copy_poll,
        ] {
            *duration = duration.div_f64(scale);
        }
        self.scale *= scale;
        self
    }

    /// λP as documents state it, events per millisecond: what a client computes its window from.
    pub fn lambda_p(&self) -> f64 {
        rate(self.tick, 1.0)
    }

    /// μ as documents state it, events per millisecond.
    pub fn mu(&self) -> f64 {
        rate(self.hop, 1000.0)
    }
}

/// Events per millisecond of a mean interval; what takes no time has the rate `at_once`.
fn rate(mean: Duration, at_once: f64) -> f64 {
    if mean.is_zero() { at_once } else { 1.0 / (mean.as_secs_f64() * 1000.0) }
}

/// A time until the next event of a Poisson process, drawn; a mean of zero draws nothing.
pub(super) fn exponential(dice: &mut StdRng, mean: Duration) -> Duration {
    if mean.is_zero() { mean } else { mean.mul_f64(-(1.0 - dice.random::<f64>()).ln()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_network_has_the_same_shape_and_other_rates() {
        let fast = Profile::docker().scaled(50.0);
        assert!((fast.lambda_p() - 0.05).abs() < 1e-12 && (fast.mu() - 0.25).abs() < 1e-12);
        assert_eq!((fast.tick, fast.resend_after), (Duration::from_millis(20), Duration::from_millis(400)));
        assert_eq!(fast.epoch, Profile::docker().epoch);
        for name in Profile::NAMES {
            assert_eq!(Profile::named(name).expect("known").name, name);
        }
    }
}
