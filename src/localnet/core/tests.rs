use super::super::backend::Memory;
use super::super::document::Identity;
use super::super::envelope;
use super::super::faults::Faults;
use super::super::profile::Profile;
use super::super::replica::replica_epoch;
use super::super::wire::ReadWith;
use super::*;
use crate::bacap::{BoxIndex, WriteCap};

const KEY: [u8; 32] = [5; 32];
const M: usize = 100;
/// Some Friday.
const T0: Duration = Duration::from_secs(1_795_800_000);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

type Told = (Conn, Reply);

/// What clients are told.
fn told(actions: Vec<Action>) -> Vec<Told> {
    let told = |action| if let Action::Tell(conn, reply) = action { Some((conn, reply)) } else { None };
    actions.into_iter().filter_map(told).collect()
}

/// A client at connection 1 of a core in memory.
struct World {
    core: Core<Memory>,
    now: Duration,
    cap: WriteCap,
    serial: u8,
}

impl World {
    fn new() -> Self {
        let identity = Identity { envelope_key: KEY, authority_key: [6; 32], courier_key: [7; 32] };
        let backend = Backend::new(Memory::default(), M, &Profile::instant(), &identity, 1);
        let setup = Setup {
            profile: Profile::instant(),
            faults: Faults::default(),
            grace: Duration::from_secs(600),
            couriers: vec![identity.courier_hash()],
            echoes: Vec::new(),
            seed: 1,
        };
        let core = Core::new(backend, setup);
        let mut world = Self { core, now: T0, cap: WriteCap::from_seed(&[1; 32]), serial: 0 };
        world.core.handle(T0, Event::Connected(1));
        world
    }

    fn ask(&mut self, ask: Request) -> Vec<Told> {
        told(self.core.handle(self.now, Event::Request(1, ask)))
    }

    fn start(&mut self, inner: Inner, read: Option<&BoxIndex>, no_retry: bool, strict: bool) -> Request {
        self.serial += 1;
        let made = envelope::make(&KEY, replica_epoch(self.now), &inner, M);
        let read = read.map(|index| Box::new(ReadWith::new(self.cap.read_cap().clone(), index.clone())));
        Request::Start(Box::new(Started {
            query_id: [self.serial; ID_BYTES],
            hash: made.hash,
            query: envelope::open(&KEY, &made.ciphertext),
            authentic: true,
            read,
            no_retry,
            strict,
        }))
    }

    fn write(&mut self, text: &[u8], strict: bool) -> u8 {
        let sealed = self.cap.seal(self.cap.index(), text, M).expect("it fits");
        let ask = self.start(Inner::Write(sealed), None, false, strict);
        code(&self.ask(ask))
    }

    fn read_ask(&mut self, no_retry: bool) -> Request {
        let index = self.cap.index().clone();
        let inner = Inner::Read(self.cap.read_cap().box_id(&index));
        self.start(inner, Some(&index), no_retry, false)
    }
}

fn code(told: &[Told]) -> u8 {
    match told {
        [(1, Reply::Ended { code, .. })] => *code,
        [(1, Reply::Box { read, sealed, .. })] => read.open(sealed).0,
        _ => panic!("one end was expected, not {}", told.len()),
    }
}

#[test]
fn a_box_is_written_once_and_only_a_strict_writer_learns_of_a_conflict() {
    let mut world = World::new();
    assert_eq!(world.write(b"one", true), 0);
    assert_eq!(world.write(b"one", true), 0, "the same bytes");
    assert_eq!(world.write(b"two", true), replica::BOX_ALREADY_EXISTS);
    assert_eq!(world.write(b"two", false), 0, "a courier's word is no replica's");
    let ask = world.read_ask(true);
    match &world.ask(ask)[..] {
        [(1, Reply::Box { read, sealed, .. })] => assert_eq!(read.open(sealed), (0, Some(b"one".to_vec()))),
        _ => panic!("a box"),
    }
}

#[test]
fn a_read_that_waits_is_woken_by_the_write_of_its_box() {
    let mut world = World::new();
    let ask = world.read_ask(true);
    assert_eq!(code(&world.ask(ask)), replica::BOX_ID_NOT_FOUND);
    let ask = world.read_ask(false);
    assert!(world.ask(ask).is_empty(), "it waits");
    let sealed = world.cap.seal(world.cap.index(), b"late", M).expect("it fits");
    let ask = world.start(Inner::Write(sealed), None, false, true);
    let told = world.ask(ask);
    assert_eq!(told.len(), 2, "the write's end and the read's");
    assert!(world.core.ops.is_empty() && world.core.parked.is_empty() && world.core.by_hash.is_empty());
}

#[test]
fn a_cancel_is_answered_after_the_operation_s_own_end() {
    let mut world = World::new();
    let ask = world.read_ask(false);
    let Request::Start(started) = &ask else { unreachable!() };
    let (hash, query_id) = (started.hash, started.query_id);
    world.ask(ask);
    let told = world.ask(Request::Cancel { query_id: [99; ID_BYTES], hash });
    assert!(
        matches!(told[..], [(1, Reply::Ended { query_id: id, code: CANCELLED, courier: Some(0) }), (1, Reply::Cancelled { .. })] if id == query_id)
    );
    let again = world.ask(Request::Cancel { query_id: [99; ID_BYTES], hash });
    assert!(matches!(again[..], [(1, Reply::Cancelled { .. })]), "what is over is cancelled in silence");
    assert!(world.core.parked.is_empty());
}

#[test]
fn a_stale_envelope_and_a_box_of_two_epochs_ago_are_refused_and_gone() {
    let mut world = World::new();
    let sealed = world.cap.seal(world.cap.index(), b"old", M).expect("it fits");
    let stale = world.start(Inner::Write(sealed), None, false, true);
    assert_eq!(world.write(b"old", true), 0);
    world.now += WEEK;
    let ask = world.read_ask(true);
    assert_eq!(code(&world.ask(ask)), 0, "the next epoch");
    world.now += WEEK;
    let ask = world.read_ask(true);
    assert_eq!(code(&world.ask(ask)), replica::BOX_ID_NOT_FOUND, "the one after");
    assert_eq!(code(&world.ask(stale)), THIN_INVALID_EPOCH);
    assert_eq!(world.write(b"new", true), 0, "its place is free");
}

#[test]
fn a_session_comes_back_with_what_came_while_it_was_away() {
    let mut world = World::new();
    let token = [7; ID_BYTES];
    let fresh = world.ask(Request::Token(token));
    assert!(matches!(fresh[..], [(1, Reply::Token { resumed: false, .. })]));
    let ask = world.read_ask(false);
    world.ask(ask);
    world.core.handle(T0, Event::Disconnected(1));
    world.core.handle(T0, Event::Connected(2));
    let sealed = world.cap.seal(world.cap.index(), b"meanwhile", M).expect("it fits");
    let write = world.start(Inner::Write(sealed), None, false, true);
    assert_eq!(told(world.core.handle(T0, Event::Request(2, write))).len(), 1, "only the writer is there to hear");
    world.core.handle(T0, Event::Connected(3));
    let back = told(world.core.handle(T0, Event::Request(3, Request::Token(token))));
    assert!(matches!(back[..], [(3, Reply::Token { resumed: true, .. }), (3, Reply::Box { .. })]));
}

#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    let mut world = World::new();
    world.ask(Request::Token([7; ID_BYTES]));
    let ask = world.read_ask(false);
    world.ask(ask);
    world.core.handle(T0, Event::Disconnected(1));
    assert_eq!(world.core.next_deadline(), Some(T0 + Duration::from_secs(600)));
    world.core.handle(T0 + Duration::from_secs(600), Event::Tick);
    world.core.handle(T0, Event::Connected(2));
    let ask = world.read_ask(false);
    world.core.handle(T0, Event::Request(2, ask));
    world.core.handle(T0, Event::Disconnected(2));
    let core = &world.core;
    assert!(core.ops.is_empty() && core.parked.is_empty() && core.sessions.is_empty() && core.tokens.is_empty());
    assert!(core.conns.is_empty() && core.by_hash.is_empty() && core.steps.is_empty());
}
