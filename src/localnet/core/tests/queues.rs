//! Order, back-pressure and turns: the worker of a connection, its queues, and the one sender for all.

use super::*;

#[test]
fn a_connection_s_local_requests_are_answered_in_their_order_and_take_their_time() {
    let mut world = World::new(Profile::docker());
    world.ask(1, local(SECOND));
    world.ask(1, local(Duration::ZERO));
    assert!(world.told.is_empty() && world.reads.is_empty());
    world.pass(SECOND);
    assert!(world.told.iter().all(|(at, ..)| *at == T0 + SECOND) && world.told.len() == 2);
    assert_eq!(world.reads, [1, 1]);
    world.event(Event::Connected(2, 0));
    world.ask(1, local(9 * SECOND));
    world.ask(2, local(SECOND));
    world.pass(SECOND);
    assert_eq!(world.told.last().map(|(_, conn, _)| *conn), Some(2), "another connection has its own worker");
    world.end();
}

#[test]
fn the_seventeenth_unsent_request_blocks_all_that_is_behind_it() {
    let mut world = World::new(Profile::docker());
    world.control(Control::Link(false));
    world.drain();
    for number in 0..17 {
        let write = world.write(number, 1, false);
        world.ask(1, start(write));
    }
    world.ask(1, local(Duration::ZERO));
    assert_eq!(world.reads.len(), 16, "the worker holds the seventeenth, and the local request is behind it");
    world.pass(3600 * SECOND);
    assert!(world.told.is_empty());
    let census = world.core.census();
    assert_eq!((census.outgoing, census.requests), (16, 2));
    world.control(Control::Link(true));
    world.drain();
    let answered = world.replies(18);
    assert!(matches!(answered[0].1, Reply::Local(_)), "a tick makes room, and the local request is answered at once");
    assert_eq!((world.reads.len(), world.core.counted.packets.write), (18, 17));
    world.end();
}

#[test]
fn a_blocked_connection_can_end_at_any_time() {
    for close in [Event::Closed(1), Event::Disconnected(1)] {
        let mut world = World::new(Profile::docker());
        world.control(Control::Consensus(false));
        for number in 0..20 {
            let write = world.write(number, 1, false);
            world.ask(1, start(write));
        }
        world.event(close);
        world.ask(1, local(Duration::ZERO));
        assert!(world.core.census().is_empty(), "{:?}", world.core.census());
        world.control(Control::Consensus(true));
        world.pass(60 * SECOND);
        assert_eq!(world.core.counted.packets, PerKind::default());
    }
}

#[test]
fn a_frame_that_asks_nothing_takes_a_place_and_a_tick() {
    let mut world = World::new(Profile::docker());
    world.ask(1, Request::Empty);
    assert_eq!((world.core.census().outgoing, &world.reads[..]), (1, &[1][..]));
    world.pass(60 * SECOND);
    let stats = world.core.stats(world.now);
    assert_eq!((stats.busy_ticks, stats.busy_ticks_sent, stats.ticks_sent), (1, 0, 0));
    assert!(world.told.is_empty());
    world.end();
}

#[test]
fn ticks_that_pass_idle_are_counted_and_need_no_timer() {
    let mut world = World::new(Profile::docker());
    assert_eq!(world.core.next_deadline(), None);
    world.pass(10_000 * SECOND);
    let ticks = world.core.stats(world.now).ticks;
    assert!((9700..10_300).contains(&ticks), "{ticks} ticks in 10,000 s");
    world.control(Control::Link(false));
    world.pass(10_000 * SECOND);
    assert_eq!(world.core.stats(world.now).ticks, ticks, "none while the link is down");
    world.control(Control::Link(true));
    world.control(Control::Consensus(false));
    let write = world.write(1, 1, false);
    world.ask(1, start(write));
    world.pass(10_000 * SECOND);
    assert_eq!(world.core.stats(world.now).ticks, ticks, "nor without a document");
    world.control(Control::Consensus(true));
    world.replies(4);
    assert_eq!(world.core.stats(world.now).busy_ticks_sent, 1);
    world.end();
}

/// Connections that each have enough to send get the same share, however much more one of them has.
#[test]
fn connections_take_turns() {
    let mut world = World::new(Profile::docker());
    let windows = [16, 6, 6];
    for (conn, window) in (1..).zip(windows) {
        if conn > 1 {
            world.event(Event::Connected(conn, 0));
        }
        for _ in 0..window {
            let write = world.write(world.serial, 1, false);
            world.ask(conn, start(write));
        }
    }
    let mut done = [0_usize; 3];
    while done.iter().sum::<usize>() < 900 {
        assert!(world.step(Duration::MAX));
        for (conn, reply) in world.drain() {
            assert_eq!(code(&reply), 0);
            done[usize::try_from(conn).expect("few") - 1] += 1;
            let write = world.write(world.serial, 1, false);
            world.ask(conn, start(write));
        }
    }
    assert!(done.iter().all(|done| (285..=315).contains(done)), "{done:?}");
    world.end();
}

/// `network-performance.md` A.8: what is sent again goes first, so that reads of missing boxes starve the writes of their
/// own connection.
#[test]
fn reads_that_poll_take_the_ticks_of_their_own_connection() {
    let writes_per_second = |profile: Profile, parked: u64| {
        let mut world = World::new(profile);
        for number in 0..parked {
            let read = world.read(1_000_000 + number, false);
            world.ask(1, start(read));
        }
        world.pass(60 * SECOND);
        for _ in 0..12 {
            let write = world.write(world.serial, 1, false);
            world.ask(1, start(write));
        }
        let (begun, mut done) = (world.now, 0);
        while world.now < begun + 2000 * SECOND {
            assert!(world.step(Duration::MAX));
            for _ in world.drain() {
                done += 1;
                let write = world.write(world.serial, 1, false);
                world.ask(1, start(write));
            }
        }
        f64::from(done) / (world.now - begun).as_secs_f64()
    };
    for (parked, expected) in [(0, 0.995), (1, 0.60), (2, 0.30), (4, 0.05), (8, 0.0)] {
        let found = writes_per_second(Profile::docker(), parked);
        assert!((found - expected).abs() < 0.05, "docker, {parked} reads: {found:.3} where {expected} was simulated");
    }
    for (parked, expected) in [(0, 0.96), (1, 0.86), (4, 0.54), (8, 0.20), (12, 0.03)] {
        let found = writes_per_second(Profile::namenlos(), parked);
        assert!((found - expected).abs() < 0.07, "namenlos, {parked} reads: {found:.3} where {expected} was simulated");
    }
}

#[test]
fn more_resends_than_the_queue_holds_wait_for_room_and_all_have_their_turn() {
    let mut world = World::new(Profile { hop: 20 * SECOND, ..Profile::docker() });
    for number in 0..40 {
        let write = world.write(number, 1, true);
        world.ask(1, start(write));
    }
    while world.core.census().outgoing > 0 {
        world.step(Duration::MAX);
    }
    // Answers still come, and nothing can be sent.
    world.control(Control::Consensus(false));
    world.pass(1000 * SECOND);
    let session = world.core.clients.sessions.values().next().expect("one session");
    let waiting = session.resends.len() + session.overflow.len();
    assert!(session.resends.len() == 8 && waiting >= 30, "{waiting} operations wait");
    let ticks = world.core.counted.ticks;
    world.control(Control::Consensus(true));
    let begun = world.now;
    while world.core.census().resends > 0 {
        world.step(Duration::MAX);
    }
    let (took, ticks) = ((world.now - begun).as_secs_f64(), world.core.counted.ticks - ticks);
    assert!(ticks as usize >= waiting && took < 2.0 * waiting as f64, "{waiting} in {ticks} ticks, {took} s");
    // All of them, and the document.
    assert_eq!(world.replies(41).len(), 41);
    world.end();
}
