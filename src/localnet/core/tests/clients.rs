//! Sessions: who comes back finds what was meant for it, and who is gone leaves nothing.

use super::*;

const TOKEN: [u8; ID_BYTES] = [7; ID_BYTES];

fn names(replies: &[(Conn, Reply)]) -> Vec<String> {
    replies.iter().map(|(conn, reply)| format!("{conn}: {}", name(reply))).collect()
}

/// A client that has registered, at connection 1.
fn registered(profile: Profile) -> World {
    let mut world = World::new(profile);
    world.ask(1, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["1: token false"]);
    world
}

#[test]
fn what_ended_while_a_client_was_away_follows_its_token() {
    let mut world = registered(Profile::docker());
    let write = world.write(1, 1, false);
    world.ask(1, start(write));
    while world.core.counted.packets.write == 0 {
        world.step(Duration::MAX);
    }
    world.event(Event::Disconnected(1));
    world.pass(60 * SECOND);
    assert!(world.told.is_empty() && world.core.census().away == 1);
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    let told = world.drain();
    assert!(matches!(told[..], [(2, Reply::Token { resumed: true, .. }), (2, Reply::Ended { code: 0, .. })]));
    assert!(world.core.census().away == 0);
    world.end();
}

/// Upstream's daemon loses such an operation; here it waits for its client and goes on.
#[test]
fn what_was_to_be_sent_again_is_sent_when_the_client_is_back() {
    let mut world = registered(Profile::docker());
    let write = world.write(1, 1, true);
    world.ask(1, start(write));
    while world.core.counted.packets.strict_write == 0 {
        world.step(Duration::MAX);
    }
    world.event(Event::Disconnected(1));
    world.pass(300 * SECOND);
    assert_eq!(world.core.counted.packets.strict_write, 1, "nothing is sent for a client that is away");
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    let told = world.replies(2);
    assert!(matches!(told[..], [(2, Reply::Token { resumed: true, .. }), (2, Reply::Ended { code: 0, .. })]));
    world.end();
}

#[test]
fn what_was_never_sent_is_lost_with_its_connection() {
    let mut world = registered(Profile::docker());
    world.control(Control::Link(false));
    let write = world.write(1, 1, false);
    world.ask(1, start(write));
    world.event(Event::Disconnected(1));
    world.control(Control::Link(true));
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    world.pass(300 * SECOND);
    assert_eq!((world.core.counted.packets.write, world.core.census().operations), (0, 0));
    world.end();
}

#[test]
fn a_thousand_replies_wait_and_no_more() {
    let far = Profile { tick: Duration::from_millis(1), hop: 10 * SECOND, ..Profile::docker() };
    let mut world = registered(far);
    for number in 0..1100 {
        let write = world.write(number, 1, false);
        world.ask(1, start(write));
    }
    while world.core.counted.packets.write < 1100 {
        world.step(Duration::MAX);
    }
    world.drain();
    world.event(Event::Disconnected(1));
    world.pass(500 * SECOND);
    assert_eq!((world.core.census().away, world.core.census().operations), (1000, 0));
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    assert_eq!(world.drain().len(), 1001);
    world.end();
}

#[test]
fn a_session_outlives_its_connection_by_the_grace_period_and_not_longer() {
    let mut world = registered(Profile::docker());
    world.event(Event::Disconnected(1));
    assert_eq!(world.core.next_deadline(), Some(T0 + GRACE));
    world.pass(GRACE - SECOND);
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["2: token true"]);
    world.event(Event::Disconnected(2));
    world.pass(GRACE);
    assert!(world.core.census().is_empty());
    world.event(Event::Connected(3, 0));
    world.ask(3, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["3: token false"]);
    world.end();
}

#[test]
fn of_too_many_clients_that_are_away_the_longest_is_given_up() {
    use super::super::session::AWAY;
    let mut world = World::new(Profile::docker());
    for conn in 2..=AWAY as u64 + 3 {
        world.event(Event::Connected(conn, 0));
        world.ask(conn, Request::Token(id(conn)));
        world.event(Event::Disconnected(conn));
        world.now += Duration::from_millis(1);
    }
    assert_eq!(world.core.census().sessions, AWAY + 1);
    world.drain();
    for (token, known) in [(2, false), (3, false), (5, true)] {
        let conn = 10_000 + token;
        world.event(Event::Connected(conn, 0));
        world.ask(conn, Request::Token(id(token)));
        assert_eq!(names(&world.drain()), [format!("{conn}: token {known}")]);
        world.event(Event::Closed(conn));
    }
    world.pass(GRACE);
    world.end();
}

#[test]
fn a_client_that_says_goodbye_or_never_had_a_token_leaves_nothing() {
    let mut world = registered(Profile::docker());
    world.event(Event::Connected(2, 0));
    for conn in [1, 2] {
        for number in 0..10 {
            let read = world.read(number, false);
            world.ask(conn, start(read));
        }
    }
    world.pass(60 * SECOND);
    world.event(Event::Closed(1));
    world.event(Event::Disconnected(2));
    let census = world.core.census();
    assert_eq!((census.sessions, census.tokens, census.operations, census.rotation), (0, 0, 0, 0));
    world.event(Event::Connected(3, 0));
    world.ask(3, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["3: token false"]);
    world.end();
}

/// Upstream's daemon lets the first connection's end take the second one with it.
#[test]
fn a_second_connection_takes_a_session_over() {
    let mut world = registered(Profile::docker());
    let write = world.write(1, 1, true);
    world.ask(1, start(write));
    world.pass(SECOND);
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    assert_eq!((names(&world.drain()), &world.hangups[..]), (vec!["2: token true".to_owned()], &[1][..]));
    world.event(Event::Disconnected(1));
    let write = world.write(2, 1, false);
    world.ask(2, start(write));
    assert!(world.replies(1).iter().all(|(conn, _)| *conn == 2));
    world.pass(2 * GRACE);
    assert_eq!(world.core.census().sessions, 1, "no timer of the first connection ends the second one's session");
    world.end();
}

/// Upstream's daemon drops the replies to what was asked before the token was worked on.
#[test]
fn what_was_started_before_the_token_belongs_to_the_session_that_comes_back() {
    let mut world = registered(Profile::docker());
    world.event(Event::Disconnected(1));
    world.event(Event::Connected(2, 0));
    let write = world.write(1, 1, true);
    world.ask(2, start(write));
    world.pass(3 * SECOND);
    world.ask(2, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["2: token true"]);
    world.event(Event::Disconnected(2));
    world.pass(30 * SECOND);
    world.event(Event::Connected(3, 0));
    world.ask(3, Request::Token(TOKEN));
    let told = world.replies(2);
    assert!(matches!(told[..], [(3, Reply::Token { resumed: true, .. }), (3, Reply::Ended { code: 0, .. })]));
    world.end();
}

#[test]
fn a_client_that_changes_its_token_is_known_by_the_new_one_only() {
    let mut world = registered(Profile::docker());
    world.ask(1, Request::Token([8; ID_BYTES]));
    assert_eq!(world.core.census().tokens, 1);
    world.event(Event::Disconnected(1));
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token([8; ID_BYTES]));
    assert_eq!(names(&world.drain()), ["1: token false", "2: token true"]);
    world.end();
}

#[test]
fn a_restart_forgets_the_clients_and_not_the_boxes() {
    let mut world = registered(Profile::docker());
    let write = world.write(1, 1, false);
    world.ask(1, start(write));
    world.replies(1);
    let read = world.read(9, false);
    world.ask(1, start(read));
    world.pass(30 * SECOND);
    world.control(Control::Restart);
    assert_eq!(world.hangups, [1]);
    world.pass(30 * SECOND);
    assert!(world.core.census().is_empty());
    world.event(Event::Connected(2, 0));
    world.ask(2, Request::Token(TOKEN));
    assert_eq!(names(&world.drain()), ["2: token false"]);
    let read = world.read(1, true);
    world.ask(2, start(read));
    assert_eq!(code(&world.reply()), 0);
    world.end();
}

#[test]
fn a_daemon_whose_boxes_could_not_be_kept_starts_anew() {
    let mut world = registered(Profile::docker());
    let write = world.write(1, 1, true);
    world.ask(1, start(write));
    world.pass(2 * SECOND);
    world.drain();
    world.core.rolled_back();
    assert_eq!((world.core.census().sessions, world.core.census().operations), (0, 0));
    world.ask(1, local(Duration::ZERO));
    assert!(world.hangups.is_empty() && world.drain().is_empty(), "its connections are the shell's to end");
    world.end();
}

#[test]
fn every_client_is_told_how_the_network_is_and_only_its_own_answers() {
    let mut world = World::new(Profile::docker());
    for conn in 2..=5 {
        world.event(Event::Connected(conn, 0));
    }
    let mut asked = std::collections::BTreeMap::new();
    for number in 0..20 {
        let (conn, write) = (1 + number % 5, world.write(number, 1, number % 2 == 0));
        asked.insert(write.query_id, conn);
        world.ask(conn, start(write));
    }
    let replies = world.replies(20);
    assert!(replies.len() == 20 && replies.iter().all(|(conn, reply)| asked[&ended(reply).0] == *conn));
    world.control(Control::Link(false));
    world.control(Control::Link(false));
    world.control(Control::Link(true));
    world.control(Control::Epoch);
    let told: Vec<_> = world.drain().iter().map(|(_, reply)| name(reply)).collect();
    assert_eq!(
        told.chunks(5).map(|chunk| chunk[4].as_str()).collect::<Vec<_>>(),
        ["status false", "status true", "document"]
    );
    world.end();
}

#[test]
fn a_day_of_clients_that_come_and_go_leaves_nothing() {
    let mut world = World::new(Profile::docker());
    for conn in 2..2000 {
        world.event(Event::Connected(conn, 0));
        let token = id(conn % 50);
        world.ask(conn, Request::Token(token));
        for number in 0..3 {
            let started = match number {
                0 => world.write(conn, 1, conn % 2 == 0),
                _ => world.read(conn + number, false),
            };
            world.ask(conn, start(started));
        }
        world.pass(43 * SECOND);
        let gone = if conn % 3 == 0 { Event::Closed(conn) } else { Event::Disconnected(conn) };
        world.event(gone);
        assert!(world.core.census().steps < 1000, "{:?}", world.core.census());
        world.drain();
    }
    world.pass(2 * GRACE);
    world.end();
}
