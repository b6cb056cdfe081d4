//! The network is the one that was modelled and measured (`network-performance.md` A.3, A.7, A.10): closed loops of many
//! operations, in virtual time, against exact mean value analysis and the figures of the live network.

use super::*;

const OPERATIONS: usize = 1000;

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Write,
    Strict,
    Read,
}

impl Work {
    fn packets(self) -> f64 {
        if self == Self::Write { 1.0 } else { 2.0 }
    }
}

struct Run {
    /// Boxes a second.
    rate: f64,
    /// Sorted, in seconds.
    latencies: Vec<f64>,
    /// Packets per operation.
    k: f64,
}

impl Run {
    fn mean(&self) -> f64 {
        self.latencies.iter().sum::<f64>() / self.latencies.len() as f64
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.latencies[self.latencies.len() * percent / 100]
    }
}

/// A client that keeps `window` operations under way.
fn closed_loop(profile: Profile, work: Work, window: usize, operations: usize) -> Run {
    let mut world = World::with(profile, Faults::default(), 7);
    let mut begun = Vec::new();
    let mut begin = |world: &mut World| {
        let number = world.serial + 1;
        if work == Work::Read {
            world.plant(number);
        }
        let started = match work {
            Work::Read => world.read(number, true),
            Work::Write | Work::Strict => world.write(number, 1, work == Work::Strict),
        };
        begun.push(world.now);
        world.ask(1, start(started));
    };
    for _ in 0..window {
        begin(&mut world);
    }
    let (mut latencies, mut numbers) = (Vec::new(), Vec::new());
    while latencies.len() < operations {
        assert!(world.step(Duration::MAX), "the loop goes on");
        for (at, _, reply) in std::mem::take(&mut world.told) {
            let (query_id, code) = ended(&reply);
            assert_eq!(code, 0);
            numbers.push((at, u64::from_be_bytes(query_id[..8].try_into().expect("eight bytes"))));
            latencies.push(at);
            begin(&mut world);
        }
    }
    let rate = operations as f64 / (world.now - T0).as_secs_f64();
    let mut latencies: Vec<_> =
        numbers.iter().map(|&(at, number)| (at - begun[number as usize - 1]).as_secs_f64()).collect();
    latencies.sort_by(f64::total_cmp);
    let stats = world.core.stats(world.now);
    let count = |of: PerKind| match work {
        Work::Write => of.write,
        Work::Strict => of.strict_write,
        Work::Read => of.read,
    };
    assert_eq!((stats.lost, stats.resent), (0, 0));
    Run { rate, latencies, k: count(stats.packets) as f64 / count(stats.ended) as f64 }
}

/// Exact mean value analysis: the rate of packets of `window` operations between one exponential server of mean
/// `service` and a delay of `think` seconds.
fn packets_per_second(window: usize, service: f64, think: f64) -> f64 {
    let (mut rate, mut waiting) = (0.0, 0.0);
    for operations in 1..=window {
        let response = service * (1.0 + waiting);
        rate = operations as f64 / (think + response);
        waiting = rate * response;
    }
    rate
}

/// R: seven hops, and what the network takes.
fn round_trip(profile: &Profile) -> f64 {
    (profile.hop * 7 + profile.network).as_secs_f64()
}

fn within(percent: f64, found: f64, expected: f64, what: &str) {
    let off = (found / expected - 1.0).abs() * 100.0;
    assert!(off <= percent, "{what}: {found:.3} where {expected:.3} was expected, {off:.1} % off");
}

#[test]
fn windowed_work_has_the_rates_and_latencies_of_the_model() {
    for profile in [Profile::docker(), Profile::namenlos()] {
        for work in [Work::Write, Work::Strict, Work::Read] {
            for window in [1, 4, 8, 12] {
                let what = format!("{}, k = {}, a window of {window}", profile.name, work.packets());
                let rate =
                    packets_per_second(window, profile.tick.as_secs_f64(), round_trip(&profile)) / work.packets();
                let run = closed_loop(profile.clone(), work, window, OPERATIONS);
                within(10.0, run.rate, rate, &format!("boxes a second, {what}"));
                within(10.0, run.mean(), window as f64 / rate, &format!("seconds an operation, {what}"));
                within(5.0, run.k, work.packets(), &format!("packets an operation, {what}"));
            }
        }
    }
}

#[test]
fn an_idle_daemon_takes_as_long_as_the_model_says() {
    let alone = |profile| Profile { network: Duration::ZERO, ..profile };
    let run = closed_loop(alone(Profile::docker()), Work::Write, 1, 4 * OPERATIONS);
    for (percent, seconds) in [(50, 2.3), (95, 4.6), (99, 6.2)] {
        within(10.0, run.percentile(percent), seconds, &format!("a write, p{percent}"));
    }
    let run = closed_loop(alone(Profile::docker()), Work::Read, 1, 4 * OPERATIONS);
    for (percent, seconds) in [(50, 4.8), (95, 8.0), (99, 9.9)] {
        within(10.0, run.percentile(percent), seconds, &format!("a read, p{percent}"));
    }
    let namenlos = Profile { network: Duration::from_millis(400), ..Profile::namenlos() };
    within(10.0, closed_loop(namenlos.clone(), Work::Write, 1, OPERATIONS).mean(), 8.4, "a write, namenlos");
    within(10.0, closed_loop(namenlos, Work::Read, 1, OPERATIONS).mean(), 17.0, "a read, namenlos");
}

/// One operation after the other, as upstream's tool works, on the networks that were run.
#[test]
fn stop_and_wait_is_as_fast_as_on_the_live_networks() {
    let live = [
        (Profile::docker(), Work::Write, 0.39),
        (Profile::docker(), Work::Strict, 0.21),
        (Profile::docker(), Work::Read, 0.19),
        (Profile::namenlos(), Work::Write, 0.12),
        (Profile::namenlos(), Work::Read, 0.071),
    ];
    for (profile, work, rate) in live {
        // They ran on loopback; the profiles' own network takes a little.
        for network in [Duration::ZERO, profile.network] {
            let what = format!("{}, k = {}, network {network:?}", profile.name, work.packets());
            let run = closed_loop(Profile { network, ..profile.clone() }, work, 1, OPERATIONS);
            within(15.0, run.rate, rate, &what);
        }
    }
}

#[test]
fn a_scaled_network_is_the_same_network() {
    let slow = closed_loop(Profile::docker(), Work::Strict, 4, OPERATIONS);
    let fast = closed_loop(Profile::docker().scaled(50.0), Work::Strict, 4, OPERATIONS);
    within(1.0, fast.rate / 50.0, slow.rate, "boxes a second");
    within(1.0, fast.percentile(95) * 50.0, slow.percentile(95), "the slowest");
}

/// What an encrypt costs is time that the connection does not work in.
#[test]
fn an_encrypt_that_costs_more_than_a_tick_sets_the_pace() {
    let mut world = World::new(Profile { encrypt: Duration::from_millis(1500), ..Profile::docker() });
    let (mut done, begun, cost) = (0, world.now, world.core.profile.encrypt);
    world.ask(1, local(cost));
    world.ask(1, local(cost));
    while done < 200 {
        assert!(world.step(Duration::MAX));
        for (_, reply) in world.drain() {
            match reply {
                Reply::Local(_) => {
                    let write = world.write(world.serial, 1, false);
                    world.ask(1, start(write));
                    world.ask(1, local(cost));
                }
                other => done += u32::from(code(&other) == 0),
            }
        }
    }
    within(5.0, f64::from(done) / (world.now - begun).as_secs_f64(), 1.0 / 1.5, "writes a second");
}
