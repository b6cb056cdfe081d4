//! What goes wrong, and that operations outlive it; and that the same seed goes wrong in the same way.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_lost_is_sent_again_when_its_answer_is_overdue() {
    for faults in [Faults { loss: 1.0, ..Faults::default() }, Faults { reply_loss: 1.0, ..Faults::default() }] {
        let mut world = World::with(Profile::docker(), faults, 3);
        let write = world.write(1, 1, false);
        world.ask(1, start(write));
        while world.core.counted.resent == 0 {
            assert!(world.step(Duration::MAX));
        }
        assert!(world.now > T0 + 20 * SECOND, "after {:?}", world.now - T0);
        world.faults(Faults::default());
        assert_eq!(code(&world.reply()), 0);
        assert_eq!(world.core.counted.packets.write, 2);
        let stats = world.core.stats(world.now);
        assert_eq!((stats.lost + stats.replies_lost, stats.resent), (1, 1));
        world.end();
    }
}

/// `network-performance.md` A.7: a lost packet costs its operation more than 20 seconds.
#[test]
fn loss_costs_what_was_simulated() {
    let simulated = [(1, 0.01, 0.366), (1, 0.05, 0.275), (6, 0.01, 0.99), (6, 0.05, 0.93)];
    for (window, loss, rate) in simulated {
        let mut world = World::with(Profile::docker(), Faults { loss, ..Faults::default() }, 5);
        for _ in 0..window {
            let write = world.write(world.serial, 1, false);
            world.ask(1, start(write));
        }
        let mut done = 0;
        while done < 3000 {
            assert!(world.step(Duration::MAX));
            for _ in world.drain() {
                done += 1;
                let write = world.write(world.serial, 1, false);
                world.ask(1, start(write));
            }
        }
        let found = f64::from(done) / (world.now - T0).as_secs_f64();
        assert!(
            (found / rate - 1.0).abs() < 0.1,
            "a window of {window}, {loss}: {found:.3} where {rate} was simulated"
        );
    }
}

#[test]
fn what_comes_twice_or_late_is_answered_once() {
    let faults = Faults { duplication: 1.0, delay: 0.5, delay_ms: 40_000, ..Faults::default() };
    let mut world = World::with(Profile::docker(), faults, 3);
    let mut ids = Vec::new();
    for number in 0..12 {
        let write = world.write(number, 1, number % 2 == 0);
        ids.push(write.query_id);
        world.ask(1, start(write));
    }
    let mut found: Vec<_> = world.replies(12).iter().map(|(_, reply)| ended(reply).0).collect();
    found.sort_unstable();
    assert_eq!(found, ids);
    world.pass(3600 * SECOND);
    assert!(world.told.is_empty(), "one reply each");
    assert!(world.core.stats(world.now).duplicated > 0 && world.core.counted.resent > 0);
    world.end();
}

#[test]
fn replies_do_not_find_a_daemon_that_has_another_link() {
    let mut world = World::new(Profile::namenlos());
    let write = world.write(1, 1, false);
    world.ask(1, start(write));
    while world.core.counted.packets.write == 0 {
        world.step(Duration::MAX);
    }
    world.control(Control::Link(false));
    world.control(Control::Link(true));
    world.drain();
    assert_eq!(code(&world.reply()), 0);
    assert_eq!((world.core.counted.replies_lost, world.core.counted.packets.write), (1, 2));
    world.end();
}

#[test]
fn a_jump_of_the_clock_makes_envelopes_stale_and_hurries_nothing() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    for (forward, code_then) in [(true, 32), (false, 32)] {
        let mut world = World::new(Profile::docker());
        let write = world.write(1, 1, false);
        world.ask(1, start(write));
        let deadline = world.core.next_deadline().expect("a tick");
        let from = world.now;
        let to = if forward { from + 2 * WEEK } else { from - 2 * WEEK };
        world.now = to;
        world.control(Control::Jumped { from, to });
        assert!(world.told.is_empty());
        let moved = world.core.next_deadline().map(|due| due - to);
        assert_eq!(moved, Some(deadline - from));
        assert_eq!(code(&world.reply()), code_then);
        assert!(world.now - to < 60 * SECOND);
    }
}

/// A step of a random life of a network.
#[derive(Clone, Debug)]
enum Happening {
    Write { conn: Conn, number: u64, strict: bool },
    Read { conn: Conn, number: u64, no_retry: bool },
    Cancel { conn: Conn, serial: u64 },
    Message { conn: Conn },
    Local { conn: Conn, millis: u64 },
    Empty { conn: Conn },
    Token { conn: Conn, token: u64 },
    Away { conn: Conn },
    Close { conn: Conn },
    Link(bool),
    Restart,
    Foreign { number: u64 },
    Faults(u8),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let conn = || 1..4_u64;
    prop_oneof![
        8 => (conn(), 0..10_u64, any::<bool>())
            .prop_map(|(conn, number, strict)| Happening::Write { conn, number, strict }),
        8 => (conn(), 0..10_u64, any::<bool>())
            .prop_map(|(conn, number, no_retry)| Happening::Read { conn, number, no_retry }),
        3 => (conn(), 1..40_u64).prop_map(|(conn, serial)| Happening::Cancel { conn, serial }),
        1 => conn().prop_map(|conn| Happening::Message { conn }),
        2 => (conn(), 0..3000_u64).prop_map(|(conn, millis)| Happening::Local { conn, millis }),
        1 => conn().prop_map(|conn| Happening::Empty { conn }),
        3 => (conn(), 0..3_u64).prop_map(|(conn, token)| Happening::Token { conn, token }),
        2 => conn().prop_map(|conn| Happening::Away { conn }),
        1 => conn().prop_map(|conn| Happening::Close { conn }),
        1 => any::<bool>().prop_map(Happening::Link),
        1 => Just(Happening::Restart),
        2 => (0..10_u64).prop_map(|number| Happening::Foreign { number }),
        1 => (0..4_u8).prop_map(Happening::Faults),
        10 => (0..20_000_u64).prop_map(Happening::Pass),
    ]
}

/// Lives through it; connections that end are followed by new ones. What was done is written down.
fn live(profile: Profile, seed: u64, life: &[Happening]) -> (World, Vec<String>) {
    let mut world = World::with(profile, Faults::default(), seed);
    let mut conns = [1, 2, 3];
    let mut fresh = 3;
    world.event(Event::Connected(2, 0));
    world.event(Event::Connected(3, 0));
    for happening in life {
        let at = |conn: Conn| conns[usize::try_from(conn).expect("few") - 1];
        let mut over = None;
        match *happening {
            Happening::Write { conn, number, strict } => {
                let write = world.write(number, u8::try_from(conn).expect("few"), strict);
                world.ask(at(conn), start(write));
            }
            Happening::Read { conn, number, no_retry } => {
                let read = world.read(number, no_retry);
                world.ask(at(conn), start(read));
            }
            Happening::Cancel { conn, serial } => {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&serial.to_be_bytes());
                world.ask(at(conn), Request::Cancel { query_id: id(serial), hash });
            }
            Happening::Message { conn } => {
                let destination = Some(ECHO.0);
                let (queue, payload) = (ECHO.1.to_vec(), vec![1]);
                let legacy = Legacy { message_id: None, surb_id: Some(id(1)), destination, queue, payload };
                world.ask(at(conn), Request::Send(Box::new(legacy)));
            }
            Happening::Local { conn, millis } => world.ask(at(conn), local(Duration::from_millis(millis))),
            Happening::Empty { conn } => world.ask(at(conn), Request::Empty),
            Happening::Token { conn, token } => world.ask(at(conn), Request::Token(id(token))),
            Happening::Away { conn } => {
                world.event(Event::Disconnected(at(conn)));
                over = Some(conn);
            }
            Happening::Close { conn } => {
                world.event(Event::Closed(at(conn)));
                over = Some(conn);
            }
            Happening::Link(up) => world.control(Control::Link(up)),
            Happening::Restart => world.control(Control::Restart),
            Happening::Foreign { number } => world.plant(number),
            Happening::Faults(rate) => {
                let rate = f64::from(rate) / 10.0;
                let delays = Faults { delay: rate, delay_ms: 30_000, ..Faults::default() };
                world.faults(Faults { loss: rate, reply_loss: rate, duplication: rate, ..delays });
            }
            Happening::Pass(millis) => world.pass(Duration::from_millis(millis)),
        }
        let hung_up = std::mem::take(&mut world.hangups);
        for (place, conn) in conns.iter_mut().enumerate() {
            if over == Some(place as u64 + 1) || hung_up.contains(conn) {
                fresh += 1;
                *conn = fresh;
                world.event(Event::Connected(fresh, 0));
            }
        }
    }
    let mut log: Vec<_> = world.told.iter().map(|(at, conn, reply)| format!("{at:?} {conn} {}", name(reply))).collect();
    log.push(format!("{:?} {:?} {:?}", world.reads, world.core.stats(world.now), world.core.census()));
    (world, log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_seed_and_the_same_events_give_the_same_actions(
        life in prop::collection::vec(happening(), 1..120),
        seed: u64,
        instant: bool,
    ) {
        let profile = if instant { Profile::instant() } else { Profile::docker() };
        let (_, first) = live(profile.clone(), seed, &life);
        let (_, second) = live(profile, seed, &life);
        prop_assert_eq!(first, second);
    }

    /// Whatever happened: no operation has two ends, what can end does once nothing goes wrong any more, each request gives
    /// its place back once, and when everybody has gone nothing is left.
    #[test]
    fn every_operation_ends_once_and_nothing_is_left(
        life in prop::collection::vec(happening(), 1..120),
        seed: u64,
        instant: bool,
    ) {
        let profile = if instant { Profile::instant() } else { Profile::docker() };
        let (mut world, _) = live(profile, seed, &life);
        world.control(Control::Link(true));
        world.faults(Faults::default());
        // A courier keeps an answer for five minutes, and until it hears of something new; then it asks again.
        for number in 0..10 {
            world.plant(number);
        }
        world.pass(Duration::from_secs(600));
        world.pass_by();
        world.pass(Duration::from_secs(3000));
        let census = world.core.census();
        prop_assert_eq!((census.operations, census.outgoing, census.requests, census.resends), (0, 0, 0, 0));
        let connections: Vec<_> = world.core.clients.connections.keys().copied().collect();
        for conn in connections {
            let count = |of: &[Conn]| of.iter().filter(|other| **other == conn).count();
            prop_assert_eq!(count(&world.reads), count(&world.asked), "places given back");
        }
        let mut ends: Vec<_> = world.told.iter().filter_map(|(_, _, reply)| match reply {
            Reply::Ended { query_id, .. } | Reply::Box { query_id, .. } => Some(*query_id),
            _ => None,
        }).collect();
        let count = ends.len();
        ends.sort_unstable();
        ends.dedup();
        prop_assert_eq!(ends.len(), count, "an operation ended twice");
        world.end();
    }
}
