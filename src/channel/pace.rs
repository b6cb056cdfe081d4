//! What the network's parameters mean for windows, deadlines and back-off (`network-performance.md` A.6–A.9).

use std::time::Duration;

/// The longest back-off between probes, and the shortest that its growth may be capped to.
const PROBE_CAP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Most boxes that one channel keeps under way, in either direction.
const WINDOW_CAP: usize = 16;
/// Round trip that is assumed until one was measured or the PKI document told.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_secs(2);
/// Weight of the newest measurement in the mean.
const GAIN: f64 = 0.2;

/// The network's pace, as the PKI document and our own measurements tell it.
#[derive(Clone, Debug)]
pub struct Pace {
    packets_per_second: f64,
    model: Duration,
    measured: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { packets_per_second: 1.0, model: UNKNOWN_ROUND_TRIP, measured: None }
    }
}

impl Pace {
    /// From the PKI document: `lambda_p` and `mu` in events per millisecond, the number of mix layers.
    /// R = (2 · layers + 1)/μ + 0.4 s (A.3).
    pub fn from_document(lambda_p: f64, mu: f64, layers: usize) -> Self {
        let hops = f64::from(u32::try_from(2 * layers + 1).unwrap_or(7));
        let model = if mu > 0.0 && mu.is_finite() {
            Duration::from_secs_f64((hops / mu / 1000.0 + 0.4).min(600.0))
        } else {
            UNKNOWN_ROUND_TRIP
        };
        let packets_per_second = if lambda_p > 0.0 && lambda_p.is_finite() { lambda_p * 1000.0 } else { 1.0 };
        Self { packets_per_second, model, measured: None }
    }

    /// Learns from an operation that took `elapsed` and `packets` packets, each of them a round trip.
    pub fn measure(&mut self, elapsed: Duration, packets: u32) {
        let sample = elapsed / packets.max(1);
        self.measured = Some(match self.measured {
            None => sample,
            // A wait in our own window is no round trip, so a shorter sample counts at once.
            Some(mean) if sample < mean => sample,
            Some(mean) => mean.mul_f64(1.0 - GAIN) + sample.mul_f64(GAIN),
        });
    }

    /// R: the mixnet's round trip, measured where it was, else from the model.
    pub fn round_trip(&self) -> Duration {
        self.measured.unwrap_or(self.model)
    }

    /// W = ceil(λR) + 4, at most 16 boxes (A.7).
    pub fn window_boxes(&self) -> usize {
        let in_flight = (self.packets_per_second * self.round_trip().as_secs_f64()).ceil();
        // A float that is beyond usize saturates, and the cap follows.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let in_flight = in_flight as usize;
        in_flight.saturating_add(4).min(WINDOW_CAP)
    }

    /// How long one operation may take before it is given up and made anew: 120 s + 10R.
    pub fn operation_deadline(&self) -> Duration {
        Duration::from_secs(120) + 10 * self.round_trip()
    }

    /// The longest pause between two probes of an idle channel: clamp(40R, 1 s, 300 s).
    pub fn probe_cap(&self) -> Duration {
        (40 * self.round_trip()).clamp(PROBE_CAP.0, PROBE_CAP.1)
    }

    /// The first pause after something arrived: two round trips, so that the schedule does not answer at once.
    pub fn probe_floor(&self) -> Duration {
        (2 * self.round_trip()).clamp(Duration::from_millis(50), self.probe_cap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_and_namenlos_get_the_windows_of_the_model() {
        let docker = Pace::from_document(0.001, 0.005, 3);
        assert_eq!(docker.window_boxes(), 6, "ceil(1 · 1.8) + 4");
        let namenlos = Pace::from_document(0.001, 0.001, 3);
        assert_eq!(namenlos.window_boxes(), 12, "ceil(1 · 7.4) + 4");
    }

    #[test]
    fn a_document_without_sense_falls_back_to_patience() {
        for (lambda, mu) in [(0.0, 0.0), (f64::NAN, f64::NAN), (-1.0, f64::INFINITY)] {
            let pace = Pace::from_document(lambda, mu, 3);
            assert!(pace.window_boxes() >= 4 && pace.round_trip() > Duration::ZERO, "{lambda} {mu}");
        }
    }

    #[test]
    fn a_fast_network_is_probed_each_second_and_a_slow_one_each_five_minutes() {
        let mut fast = Pace::default();
        fast.measure(Duration::from_millis(4), 2);
        assert_eq!(fast.probe_cap(), Duration::from_secs(1));
        let slow = Pace::from_document(0.001, 0.000_5, 3);
        assert_eq!(slow.probe_cap(), Duration::from_secs(300));
    }
}
