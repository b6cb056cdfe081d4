//! What becomes of operations: their ends, cancels, copies and messages.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::localnet::copy_stream::Encoder;
use crate::localnet::envelope;
use crate::localnet::wire::INTERNAL_ERROR;

/// Starts an operation and waits for its end.
fn run(world: &mut World, started: Started) -> Reply {
    let query_id = started.query_id;
    world.ask(1, start(started));
    let reply = world.reply();
    assert_eq!(ended(&reply).0, query_id);
    reply
}

#[test]
fn operations_end_with_the_codes_of_the_protocol() {
    for profile in [Profile::instant(), Profile::docker()] {
        let mut world = World::new(profile);
        let mut write = |number, text, strict| {
            let started = world.write(number, text, strict);
            code(&run(&mut world, started))
        };
        assert_eq!(write(1, 1, true), 0);
        assert_eq!(write(1, 1, true), 0, "the same bytes");
        assert_eq!(write(1, 2, true), replica::BOX_ALREADY_EXISTS);
        assert_eq!(write(1, 2, false), 0, "a courier's word is no replica's");
        let read = world.read(1, true);
        match run(&mut world, read) {
            Reply::Box { sealed: found, .. } => assert_eq!(found, sealed(1, 1)),
            other => panic!("a box was expected: {}", name(&other)),
        }
        let read = world.read(2, true);
        assert_eq!(code(&run(&mut world, read)), replica::BOX_ID_NOT_FOUND);
        let forged = Started { authentic: false, ..world.write(3, 1, true) };
        assert_eq!(code(&run(&mut world, forged)), replica::INVALID_SIGNATURE);
        let foreign = Started { query: None, ..world.write(3, 1, false) };
        assert_eq!(code(&run(&mut world, foreign)), 31);
        let tombstone = SealedBox { payload: Vec::new(), ..sealed(1, 1) };
        let tombstone = Started { strict: true, ..world.started(Inner::Write(tombstone), None) };
        assert_eq!(code(&run(&mut world, tombstone)), 0);
        let read = world.read(1, false);
        assert!(matches!(run(&mut world, read), Reply::Box { sealed, .. } if sealed.payload.is_empty()));
        let mut stale = world.write(4, 1, false);
        stale.query.as_mut().expect("a query").epoch -= 2;
        assert_eq!(code(&run(&mut world, stale)), 32);
        world.end();
    }
}

#[test]
fn an_instant_network_does_everything_in_the_event_that_asked_for_it() {
    let mut world = World::new(Profile::instant());
    let write = world.write(1, 1, true);
    world.ask(1, start(write));
    let read = world.read(1, true);
    world.ask(1, start(read));
    assert_eq!((world.drain().len(), world.now), (2, T0));
    let stats = world.core.stats(world.now);
    assert_eq!((stats.packets.strict_write, stats.packets.read, stats.ended.read), (2, 2, 1));
    world.end();
}

/// A read that goes on until its box is there, in an instant network: it sees a box that is written soon after it began.
/// One that is written later it does not see, as its envelope's answer is in the courier's cache.
#[test]
fn an_instant_network_answers_an_old_read_from_its_couriers_caches() {
    let mut world = World::new(Profile::instant());
    let read = world.read(1, false);
    world.ask(1, start(read));
    world.plant(1);
    assert_eq!(code(&world.reply()), 0);
    let read = world.read(2, false);
    world.ask(1, start(read));
    world.pass(60 * SECOND);
    world.plant(2);
    world.pass(3600 * SECOND);
    assert!(world.told.is_empty(), "it waits, for ever");
    let packets = world.core.counted.packets.read;
    assert!(packets < 1000, "it asks now and then, and not all the time: {packets}");
    let fresh = world.read(2, true);
    world.ask(1, start(fresh));
    assert_eq!(code(&world.reply()), 0);
    world.end();
}

#[test]
fn where_reads_are_kind_a_write_wakes_them() {
    let mut world = World::new(Profile { kind_reads: true, ..Profile::instant() });
    let read = world.read(2, false);
    world.ask(1, start(read));
    world.pass(3600 * SECOND);
    assert!(world.told.is_empty() && world.core.census().parked == 1, "it waits");
    let write = world.write(2, 1, false);
    world.ask(1, start(write));
    assert_eq!(world.drain().len(), 2, "the write's end, and the read's that it woke");
    assert_eq!(world.core.census().steps, 0);
    world.end();
}

#[test]
fn a_network_of_instant_packets_and_slow_replicas_does_not_spin() {
    let mut world = World::new(Profile { replica_delay: SECOND, ..Profile::instant() });
    let write = world.write(1, 1, true);
    world.ask(1, start(write));
    assert_eq!(code(&world.reply()), 0);
    assert!(world.core.counted.packets.strict_write < 2000);
    let read = world.read(2, false);
    world.ask(1, start(read));
    world.pass(10 * SECOND);
    assert!(world.core.counted.packets.read < 2000);
    world.end();
}

#[test]
fn a_read_without_an_end_of_its_own_polls_until_its_box_is_there() {
    let mut world = World::new(Profile::docker());
    let read = world.read(1, false);
    world.ask(1, start(read));
    world.pass(10 * SECOND);
    assert!(world.told.is_empty());
    world.plant(1);
    assert_eq!(code(&world.reply()), 0);
    assert!(world.core.counted.packets.read >= 3);
    world.end();
}

#[test]
fn a_client_that_starts_without_end_is_refused_in_the_end() {
    use super::super::operation::OPERATIONS;
    let mut world = World::new(Profile::instant());
    for _ in 0..OPERATIONS {
        let read = world.read(1, false);
        world.ask(1, start(read));
    }
    assert!(world.told.is_empty() && world.core.census().operations == OPERATIONS);
    let read = world.read(1, false);
    world.ask(1, start(read));
    assert!(matches!(world.reply(), Reply::Ended { code: INTERNAL_ERROR, courier: None, .. }));
    world.event(Event::Closed(1));
    assert!(world.core.census().is_empty());
}

fn cancel(world: &mut World, conn: Conn, hash: [u8; 32]) -> Vec<String> {
    world.drain();
    world.ask(conn, Request::Cancel { query_id: id(99), hash });
    world.drain().iter().map(|(to, reply)| format!("{to}: {}", name(reply))).collect()
}

#[test]
fn a_cancel_ends_what_was_sent_and_the_packet_still_lands() {
    let mut world = World::new(Profile::docker());
    let write = world.write(1, 1, true);
    let hash = write.hash;
    world.ask(1, start(write));
    while world.core.counted.packets.strict_write == 0 {
        world.step(Duration::MAX);
    }
    let told = cancel(&mut world, 1, hash);
    assert!(told.len() == 2 && told[0].starts_with(&format!("1: ended 1 {CANCELLED}")), "{told:?}");
    assert_eq!(told[1], "1: cancelled");
    world.pass(60 * SECOND);
    assert!(world.told.is_empty());
    assert_eq!(cancel(&mut world, 1, hash), ["1: cancelled"], "what is over is cancelled in silence");
    let read = world.read(1, true);
    assert_eq!(code(&run(&mut world, read)), 0, "nothing recalls a packet");
    world.end();
}

/// The hazard that clients must live with: success is said, and the operation starts later.
#[test]
fn a_cancel_does_not_find_what_was_not_sent_yet() {
    let mut world = World::new(Profile::docker());
    world.control(Control::Link(false));
    let write = world.write(1, 1, false);
    let hash = write.hash;
    world.ask(1, start(write));
    assert_eq!(cancel(&mut world, 1, hash), ["1: cancelled"]);
    world.control(Control::Link(true));
    world.drain();
    assert_eq!(code(&world.reply()), 0);
    world.end();
}

#[test]
fn a_cancel_by_another_client_is_told_to_that_client() {
    let mut world = World::new(Profile::docker());
    world.event(Event::Connected(2, 0));
    let read = world.read(1, false);
    let hash = read.hash;
    world.ask(1, start(read));
    world.pass(20 * SECOND);
    let told = cancel(&mut world, 2, hash);
    assert!(told.len() == 2 && told[0].starts_with(&format!("2: ended 1 {CANCELLED}")), "{told:?}");
    assert_eq!(world.core.census().operations, 0);
    world.end();
}

#[test]
fn a_second_start_of_an_envelope_is_an_operation_of_its_own_and_hides_the_first_from_cancels() {
    let mut world = World::new(Profile::docker());
    let first = world.read(1, false);
    let second = Started { query_id: id(50), hash: first.hash, ..world.read(1, false) };
    let (hash, ids) = (first.hash, [first.query_id, second.query_id]);
    world.ask(1, start(first));
    world.ask(1, start(second));
    world.pass(20 * SECOND);
    assert!(cancel(&mut world, 1, hash)[0].contains(&format!("ended {} {CANCELLED}", ids[1][7])));
    assert_eq!(cancel(&mut world, 1, hash), ["1: cancelled"], "the first one is out of reach");
    world.plant(1);
    world.pass(300 * SECOND);
    world.pass_by();
    assert_eq!(ended(&world.reply()), (ids[0], 0), "and goes on");
    let writes = [world.write(2, 1, true), world.write(2, 1, true)];
    let mut ids: Vec<_> = writes.iter().map(|write| write.query_id).collect();
    for write in writes {
        world.ask(1, start(Started { hash: [77; 32], ..write }));
    }
    ids.sort_unstable();
    let mut found: Vec<_> = world.replies(2).iter().map(|(_, reply)| ended(reply).0).collect();
    found.sort_unstable();
    assert_eq!(found, ids);
    world.end();
}

#[test]
fn whatever_an_operation_waits_for_it_can_be_cancelled() {
    let mut world = World::new(Profile { hop: 20 * SECOND, ..Profile::docker() });
    let mut hashes = Vec::new();
    for number in 0..30 {
        let read = world.read(number, false);
        hashes.push(read.hash);
        world.ask(1, start(read));
        while world.core.census().outgoing > 0 {
            world.step(Duration::MAX);
        }
    }
    world.control(Control::Consensus(false));
    world.pass(600 * SECOND);
    assert!(world.core.census().operations == 30 && world.core.census().resends == 30);
    for hash in hashes {
        assert_eq!(cancel(&mut world, 1, hash).len(), 2);
    }
    let census = world.core.census();
    assert_eq!((census.operations, census.resends, census.cancellable, census.rotation), (0, 0, 0, 0));
    world.end();
}

fn copy(world: &mut World, courier: Option<[u8; 32]>) -> Request {
    let hash = envelope::hash256(&[&world.cap.to_bytes()[..]]);
    Request::Copy(Box::new(StartedCopy { query_id: id(70), hash, write_cap: world.cap.clone(), courier }))
}

/// Writes the temporary stream of a copy of two boxes.
fn plant_stream(world: &mut World, boxes: &[SealedBox]) {
    let mut encoder = Encoder::new(M, true, &[]);
    let (mut elements, mut dice) = (Vec::new(), StdRng::seed_from_u64(1));
    for sealed in boxes {
        let made =
            envelope::make(&[5; 32], replica_epoch(world.now), [0, 1], &Inner::Write(sealed.clone()), M, &mut dice);
        // The stream has envelopes without the type of query before them.
        elements.extend(encoder.push(&made.ciphertext[1..]));
    }
    elements.extend(encoder.flush(true));
    let mut index = world.cap.index().clone();
    for element in elements {
        let sealed = world.cap.seal(&index, &element, M).expect("an element fits a box");
        world.control(Control::Foreign(Box::new(sealed)));
        index = index.next().expect("a next one");
    }
}

#[test]
fn a_copy_is_polled_until_its_courier_is_done() {
    let other = WriteCap::from_seed(&[2; 32]);
    let first = other.seal(other.index(), b"first", M).expect("it fits");
    let second = other.index().next().expect("a next one");
    let second = other.seal(&second, b"second", M).expect("it fits");
    for profile in [Profile::instant(), Profile::docker()] {
        let mut world = World::new(profile);
        plant_stream(&mut world, &[first.clone(), second.clone()]);
        let request = copy(&mut world, Some([2; 32]));
        world.ask(1, request);
        assert_eq!(name(&world.reply()), "copy 0 0 0");
        let (took, packets) = (world.now - T0, world.core.counted.packets.copy);
        assert!(packets >= 2, "the first answer is that it is in progress");
        assert!(took >= world.core.profile.copy_poll && took < 120 * SECOND, "{took:?}");
        for sealed in [&first, &second] {
            let index = world.cap.index().clone();
            let read = Started { no_retry: true, ..world.started(Inner::Read(sealed.box_id), Some(&index)) };
            assert_eq!(code(&run(&mut world, read)), 0);
        }
        world.end();
    }
}

#[test]
fn a_copy_of_what_was_never_written_fails_after_two_minutes() {
    let mut world = World::new(Profile::docker());
    let request = copy(&mut world, None);
    world.ask(1, request);
    assert_eq!(name(&world.reply()), "copy 26 1 1");
    let took = (world.now - T0).as_secs();
    assert!((110..160).contains(&took), "after {took} s");
    world.end();
}

#[test]
fn a_copy_is_cancelled_by_the_hash_of_its_capability_and_a_courier_that_is_none_is_refused() {
    let mut world = World::new(Profile::docker());
    let request = copy(&mut world, None);
    let Request::Copy(started) = &request else { unreachable!() };
    let hash = started.hash;
    world.ask(1, request);
    world.pass(20 * SECOND);
    assert_eq!(cancel(&mut world, 1, hash), ["1: cancelled"], "it is no envelope");
    for expected in [&["copy 24 0 0", "copy cancelled"][..], &["copy cancelled"][..]] {
        world.ask(1, Request::CancelCopy { query_id: id(71), hash });
        assert_eq!(world.drain().iter().map(|(_, reply)| name(reply)).collect::<Vec<_>>(), expected);
    }
    let request = copy(&mut world, Some([99; 32]));
    world.ask(1, request);
    assert_eq!(name(&world.reply()), format!("copy {INTERNAL_ERROR} 0 0"));
    world.end();
}

fn message(node: [u8; 32], queue: &[u8], surb_id: Option<[u8; ID_BYTES]>) -> Request {
    let (destination, payload) = (Some(node), b"hello".to_vec());
    Request::Send(Box::new(Legacy { message_id: None, surb_id, destination, queue: queue.to_vec(), payload }))
}

#[test]
fn a_message_is_sent_once_and_echoed_once() {
    let mut world = World::new(Profile::docker());
    let surb_id = Some(id(1));
    world.ask(1, message(ECHO.0, ECHO.1, surb_id));
    let sent = world.reply();
    let Reply::Sent { sent_at, reply_eta, error: None, .. } = sent else { panic!("{}", name(&sent)) };
    assert_eq!(sent_at, world.now);
    assert_eq!(name(&world.reply()), "replied 5");
    assert!(world.now > sent_at && world.now <= sent_at + reply_eta);
    world.ask(1, message(ECHO.0, ECHO.1, None));
    world.ask(1, message([0; 32], b"courier", surb_id));
    assert_eq!(name(&world.reply()), "sent false");
    for (node, queue) in [(ECHO.0, &b"other"[..]), ([99; 32], ECHO.1)] {
        world.ask(1, message(node, queue, surb_id));
        assert_eq!(name(&world.reply()), "sent true");
    }
    world.faults(Faults { loss: 1.0, ..Faults::default() });
    world.ask(1, message(ECHO.0, ECHO.1, surb_id));
    assert_eq!(name(&world.reply()), "sent false");
    world.pass(600 * SECOND);
    assert!(world.told.is_empty(), "what is lost is silent");
    world.end();
}
