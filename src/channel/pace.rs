//! What the network's parameters mean for windows, deadlines and back-off (`network-performance.md` A.6–A.9).

use std::time::Duration;

/// The longest back-off between probes, and the shortest that its growth may be capped to.
const PROBE_CAP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Most operations that are unanswered on one connection: the daemon's queue holds no more (A.6).
const WINDOW_CAP: usize = 16;
/// Operations beyond those that are on their way, at least: they wait for a tick.
const MARGIN: usize = 4;
/// Round trip that is assumed until one was measured or the PKI document told.
const UNKNOWN_ROUND_TRIP: f64 = 2.0;
/// Weight of a measurement that had the connection to itself, and of one beside others.
const GAIN: (f64, f64) = (0.15, 0.05);
/// How much each measurement beside others draws back to what is known without them.
const DRAW: f64 = 0.01;
/// No measured round trip is shorter, or so many times as long as the model's.
const ROUND_TRIP: (f64, f64) = (0.000_1, 4.0);
/// Connections that make envelopes, at most.
const CRYPTO_CAP: usize = 6;

/// The network's pace, as the PKI document and our own measurements tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    packets_per_second: f64,
    /// Seconds, as all that follows.
    model: f64,
    /// What operations that had the connection to themselves took; the model's until there was one.
    alone: f64,
    measured: bool,
    round_trip: f64,
    encrypt: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(1.0, UNKNOWN_ROUND_TRIP)
    }
}

impl Pace {
    fn new(packets_per_second: f64, model: f64) -> Self {
        Self { packets_per_second, model, alone: model, measured: false, round_trip: model, encrypt: 0.0 }
    }

    /// From the PKI document: `lambda_p` and `mu` in events per millisecond, the number of mix layers.
    /// R = (2 · layers + 1)/μ + 0.4 s (A.3).
    pub fn from_document(lambda_p: f64, mu: f64, layers: usize) -> Self {
        let hops = f64::from(u32::try_from(2 * layers + 1).unwrap_or(7));
        let model = if mu > 0.0 && mu.is_finite() { (hops / mu / 1000.0 + 0.4).min(600.0) } else { UNKNOWN_ROUND_TRIP };
        let packets_per_second = if lambda_p > 0.0 && lambda_p.is_finite() { lambda_p * 1000.0 } else { 1.0 };
        Self::new(packets_per_second, model)
    }

    /// Learns from an operation that took `elapsed` and `packets` packets, each of them a round trip and a wait for
    /// the daemon's tick. `beside` is how many operations were under way when it began, itself among them.
    ///
    /// Where they fill the network, an operation takes `beside`/λ a packet, however long the round trip is (A.7): only
    /// what is beyond that tells anything about it, and a window of operations each of which takes longer than that does
    /// not fill the network and grows. One by itself tells the round trip.
    pub fn measure(&mut self, elapsed: Duration, packets: u32, beside: usize) {
        let tick = 1.0 / self.packets_per_second;
        let sample = elapsed.as_secs_f64() / f64::from(packets.max(1));
        let beside = f64::from(u32::try_from(beside).unwrap_or(u32::MAX));
        let bounds = (ROUND_TRIP.0, (ROUND_TRIP.1 * self.model).max(UNKNOWN_ROUND_TRIP));
        if beside <= 1.5 {
            let sample = (sample - tick).max(sample / 2.0).min(2.0 * self.alone);
            // One sample varies by a third; a document that is wrong is so by more.
            let wrong = !std::mem::replace(&mut self.measured, true) && sample < self.alone / 4.0;
            let gain = if wrong { 1.0 } else { GAIN.0 };
            let change = (sample - self.alone) * gain;
            self.alone = (self.alone + change).clamp(bounds.0, bounds.1);
            self.round_trip += change;
        } else {
            let expected = (self.round_trip + tick).max(beside * tick);
            // A lost packet waits for its repetition: no single sample tells more than another round trip.
            let error = (sample - expected).clamp(-self.round_trip, self.round_trip);
            self.round_trip += error * GAIN.1 + (self.alone - self.round_trip) * DRAW;
        }
        self.round_trip = self.round_trip.clamp(bounds.0, bounds.1);
    }

    /// Learns from an encrypt that the daemon did by itself for `elapsed`.
    pub fn measure_encrypt(&mut self, elapsed: Duration) {
        let sample = elapsed.as_secs_f64();
        self.encrypt = if self.encrypt == 0.0 { sample } else { self.encrypt + (sample - self.encrypt) * GAIN.0 };
    }

    /// Whether both come from the same numbers of a document, whatever was measured since.
    pub fn is_of_same_document_as(&self, other: &Self) -> bool {
        (self.packets_per_second, self.model) == (other.packets_per_second, other.model)
    }

    /// λ: packets a second that the daemon can send.
    pub fn packets_per_second(&self) -> f64 {
        self.packets_per_second
    }

    /// R: the mixnet's round trip, measured where it was, else from the model.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.round_trip)
    }

    /// W = ceil(λR) + 4, at most 16 boxes (A.7); where more than four are on their way, as many again instead of the four.
    /// On a slow network four are too few by 3 of 100 ticks: what is on its way varies, and a commit is between an answer
    /// and the next packet. More than the scheduler's twelve are never unsent.
    pub fn window_boxes(&self) -> usize {
        let on_their_way = whole((self.packets_per_second * self.round_trip).ceil()).min(WINDOW_CAP);
        (on_their_way + on_their_way.max(MARGIN)).min(WINDOW_CAP)
    }

    /// What an encrypt takes the daemon; nothing until one was measured.
    pub fn encrypt(&self) -> Duration {
        Duration::from_secs_f64(self.encrypt)
    }

    /// Envelopes that are made ahead: what leaves during one encrypt, and four, as ticks come in clusters.
    pub fn reserve_boxes(&self) -> usize {
        whole((self.packets_per_second * self.encrypt).ceil()).min(WINDOW_CAP) + 4
    }

    /// Connections that it takes to make λ envelopes a second, with a quarter to spare (A.4).
    pub fn crypto_connections(&self) -> usize {
        whole((1.25 * self.packets_per_second * self.encrypt).ceil()).clamp(1, CRYPTO_CAP)
    }

    /// How long one operation may take before it is given up and made anew: 120 s + 10R.
    pub fn operation_deadline(&self) -> Duration {
        operation_deadline(self.round_trip())
    }

    /// The longest pause between two probes of an idle channel: clamp(40R, 1 s, 300 s).
    pub fn probe_cap(&self) -> Duration {
        probe_cap(self.round_trip())
    }

    /// The first pause after something arrived: two round trips, so that the schedule does not answer at once.
    pub fn probe_floor(&self) -> Duration {
        probe_floor(self.round_trip())
    }
}

/// The pace of the daemons of a network that are used together; of one, its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointPace {
    packets_per_second: f64,
    round_trip: Duration,
    window_boxes: usize,
    reserve_boxes: usize,
}

impl From<&Pace> for JointPace {
    fn from(pace: &Pace) -> Self {
        Self::of([pace])
    }
}

impl Default for JointPace {
    fn default() -> Self {
        Self::from(&Pace::default())
    }
}

impl JointPace {
    /// Of all of these, and they are one at least.
    pub fn of<'a>(paces: impl IntoIterator<Item = &'a Pace>) -> Self {
        let none = Self { packets_per_second: 0.0, round_trip: Duration::ZERO, window_boxes: 0, reserve_boxes: 0 };
        paces.into_iter().fold(none, |sum, pace| Self {
            packets_per_second: sum.packets_per_second + pace.packets_per_second,
            round_trip: sum.round_trip.max(pace.round_trip()),
            window_boxes: sum.window_boxes + pace.window_boxes(),
            reserve_boxes: sum.reserve_boxes + pace.reserve_boxes(),
        })
    }

    /// Packets a second that they can send together.
    pub fn packets_per_second(&self) -> f64 {
        self.packets_per_second
    }

    /// The longest of their round trips.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Operations that are unanswered at most, over all of them.
    pub fn window_boxes(&self) -> usize {
        self.window_boxes
    }

    /// Envelopes that are made ahead, over all of them.
    pub fn reserve_boxes(&self) -> usize {
        self.reserve_boxes
    }

    /// How long an operation by the slowest may take.
    pub fn operation_deadline(&self) -> Duration {
        operation_deadline(self.round_trip)
    }

    /// The longest pause between two probes of an idle channel, by the longest round trip.
    pub fn probe_cap(&self) -> Duration {
        probe_cap(self.round_trip)
    }

    /// The first pause after something arrived, by the longest round trip.
    pub fn probe_floor(&self) -> Duration {
        probe_floor(self.round_trip)
    }
}

/// 120 s + 10R.
fn operation_deadline(round_trip: Duration) -> Duration {
    Duration::from_secs(120) + 10 * round_trip
}

/// clamp(40R, 1 s, 300 s).
fn probe_cap(round_trip: Duration) -> Duration {
    (40 * round_trip).clamp(PROBE_CAP.0, PROBE_CAP.1)
}

/// Two round trips, so that the schedule does not answer at once.
fn probe_floor(round_trip: Duration) -> Duration {
    (2 * round_trip).clamp(Duration::from_millis(50), probe_cap(round_trip))
}

/// A float that is beyond usize saturates; the callers cap it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_and_namenlos_get_the_windows_of_the_model() {
        let docker = Pace::from_document(0.001, 0.005, 3);
        assert_eq!(docker.window_boxes(), 6, "ceil(1 · 1.8) + 4");
        let namenlos = Pace::from_document(0.001, 0.001, 3);
        assert_eq!(namenlos.window_boxes(), 16, "ceil(1 · 7.4) twice");
    }

    #[test]
    fn a_document_without_sense_falls_back_to_patience() {
        let senseless = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for (lambda, mu) in senseless.into_iter().flat_map(|lambda| senseless.map(|mu| (lambda, mu))) {
            let pace = Pace::from_document(lambda, mu, 3);
            assert_eq!((pace.packets_per_second(), pace.round_trip()), (1.0, Duration::from_secs(2)), "{lambda} {mu}");
        }
    }

    #[test]
    fn a_fast_network_is_probed_each_second_and_a_slow_one_each_five_minutes() {
        let mut fast = Pace::default();
        fast.measure(Duration::from_millis(4), 2, 1);
        assert_eq!(fast.probe_cap(), Duration::from_secs(1));
        let slow = Pace::from_document(0.001, 0.000_5, 3);
        assert_eq!(slow.probe_cap(), Duration::from_secs(300));
    }

    /// What is measured on a network with four packets a second and a round trip of 1.8 s: seconds, packets, beside.
    fn after(measured: &[(f64, u32, usize)]) -> f64 {
        let mut pace = Pace::from_document(0.004, 0.005, 3);
        for &(seconds, packets, beside) in measured {
            pace.measure(Duration::from_secs_f64(seconds), packets, beside);
        }
        (pace.round_trip().as_secs_f64() * 1e6).round() / 1e6
    }

    #[test]
    fn an_operation_by_itself_tells_the_round_trip_less_the_wait_for_a_tick() {
        let as_told = (1.8 + 0.25, 1, 1);
        assert_eq!(after(&[]), 1.8, "(2 · 3 + 1) / 5 + 0.4");
        assert_eq!(after(&[as_told]), 1.8);
        assert_eq!(after(&[(2.0 * (1.8 + 0.25), 2, 1)]), 1.8, "two packets are two round trips");
        assert_eq!(after(&[as_told, (2.8 + 0.25, 1, 1)]), 1.95, "0.15 of the second that it took longer");
        let twice = [as_told, (2.8 + 0.25, 1, 1), (2.8 + 0.25, 1, 1)];
        assert_eq!(after(&twice), 2.0775, "and 0.15 of what is left of it the next time");
        assert_eq!(after(&[as_told, (60.0, 1, 1)]), 2.07, "no more than twice as long is believed of one");
        assert_eq!(after(&[as_told, (0.3, 1, 1)]), 1.5525, "nor less than half of what it took: 1.8 - 0.15 · 1.65");
        assert_eq!(after(&[(0.4, 1, 1)]), 0.2, "the first one corrects a document that is wrong by four times");
        assert_eq!(after(&[(0.7, 1, 1)]), 1.5975, "but not one that is wrong by less: 1.8 - 0.15 · 1.35");
        assert_eq!(after(&[as_told, (0.4, 1, 1)]), 1.56, "and later ones count as usual");
    }

    #[test]
    fn an_operation_beside_others_tells_what_the_network_does_not_explain() {
        assert_eq!(after(&[(2.05, 1, 8)]), 1.8, "eight of them take 8/4 s or a round trip and a tick");
        assert_eq!(after(&[(3.0, 1, 12)]), 1.8, "twelve of them take 12/4 s");
        assert_eq!(after(&[(4.0, 1, 12)]), 1.85, "0.05 of the second that is beyond");
        assert_eq!(after(&[(99.0, 1, 12)]), 1.89, "one round trip beyond is the most that one tells");
        assert_eq!(after(&[(0.1, 1, 12)]), 1.71, "or below");
        assert_eq!(after(&[(4.0, 1, 12), (3.0, 1, 12)]), 1.8495, "what is known without them draws it back by 0.01");
    }

    /// Operations in a closed loop of `window`, as A.7 says that they take: a fluid of one server and a delay.
    fn settled(mut pace: Pace, true_round_trip: f64) -> Pace {
        for _ in 0..2000 {
            let window = f64::from(u32::try_from(pace.window_boxes()).unwrap());
            let took = (window / pace.packets_per_second()).max(true_round_trip + 1.0 / pace.packets_per_second());
            pace.measure(Duration::from_secs_f64(2.0 * took), 2, pace.window_boxes());
        }
        pace
    }

    #[test]
    fn the_window_follows_a_network_that_is_slower_than_its_document_says() {
        let model = Pace::from_document(0.001, 0.005, 3);
        assert_eq!(settled(model.clone(), 1.8).window_boxes(), 6, "as the model has it");
        let slower = settled(model.clone(), 6.0).window_boxes();
        assert!((6..=11).contains(&slower), "{slower}: it fills six seconds");
        let slowest = settled(model.clone(), 60.0);
        assert!(slowest.round_trip() <= 4 * model.round_trip(), "four times the model is the end");
        assert_eq!(slowest.window_boxes(), 16, "and a connection holds no more");
    }

    #[test]
    fn an_encrypt_of_a_second_and_a_half_takes_two_connections() {
        let mut pace = Pace::from_document(0.001, 0.005, 3);
        assert_eq!((pace.crypto_connections(), pace.reserve_boxes()), (1, 4), "nothing was measured");
        pace.measure_encrypt(Duration::from_millis(1500));
        assert_eq!((pace.crypto_connections(), pace.reserve_boxes()), (2, 6));
        let mut quicker = Pace::from_document(0.002, 0.005, 3);
        assert_eq!(quicker.packets_per_second(), 2.0);
        quicker.measure_encrypt(Duration::from_millis(1500));
        assert_eq!((quicker.crypto_connections(), quicker.reserve_boxes()), (4, 7), "1.25 · 2 · 1.5, and 2 · 1.5 + 4");
    }

    #[test]
    fn an_encrypt_counts_for_0_15_once_one_was_measured() {
        let mut pace = Pace::default();
        assert_eq!(pace.encrypt(), Duration::ZERO, "nothing was measured");
        for (took, known) in [(100, 100), (200, 115), (15, 100)] {
            pace.measure_encrypt(Duration::from_millis(took));
            assert_eq!(pace.encrypt().as_micros(), 1000 * known, "after one of {took} ms");
        }
    }

    #[test]
    fn what_was_measured_does_not_make_it_another_document() {
        let document = Pace::from_document(0.001, 0.005, 3);
        let mut measured = document.clone();
        measured.measure(Duration::from_secs(9), 1, 1);
        assert!(measured != document && measured.is_of_same_document_as(&document));
        assert!(!measured.is_of_same_document_as(&Pace::from_document(0.002, 0.005, 3)), "another λ");
        assert!(!measured.is_of_same_document_as(&Pace::from_document(0.001, 0.004, 3)), "another R");
    }
}
