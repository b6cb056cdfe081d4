//! Copy commands, from their first contact to what is left of them.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::localnet::copy_stream::Encoder;
use crate::localnet::envelope;
use crate::localnet::replica::{INVALID_EPOCH, STORAGE_FULL};

/// M: an envelope is 451 bytes longer, and takes several boxes of the stream.
const POLL: Duration = Duration::from_secs(5);

/// A writer's temporary stream.
struct Stream {
    cap: WriteCap,
    /// Without the type of query before them, as the stream has them.
    envelopes: Vec<Vec<u8>>,
}

impl Stream {
    /// Envelopes for the boxes, in their order.
    fn of(world: &World, boxes: &[SealedBox]) -> Self {
        let mut dice = StdRng::seed_from_u64(1);
        let envelope = |sealed: &SealedBox| {
            let inner = Inner::Write(sealed.clone());
            let made = envelope::make(&identity().envelope_key, replica_epoch(world.now), [0, 1], &inner, M, &mut dice);
            made.ciphertext[1..].to_vec()
        };
        Self { cap: WriteCap::from_seed(&[77; 32]), envelopes: boxes.iter().map(envelope).collect() }
    }

    /// The boxes of the stream.
    fn boxes(&self) -> Vec<SealedBox> {
        let mut encoder = Encoder::new(M, true, &[]);
        let mut elements: Vec<_> = self.envelopes.iter().flat_map(|envelope| encoder.push(envelope)).collect();
        elements.extend(encoder.flush(true));
        let mut index = self.cap.index().clone();
        let seal = |element: &Vec<u8>| {
            let sealed = self.cap.seal(&index, element, M).expect("it fits");
            index = index.next().expect("far from the end");
            sealed
        };
        elements.iter().map(seal).collect()
    }

    fn upload(&self, world: &mut World) {
        for sealed in self.boxes() {
            world.backend.plant(world.now, &sealed);
        }
    }
}

impl World {
    /// Polls the command at a courier until it has ended, and says how it ended and how long it took.
    fn copy(&mut self, courier: usize, cap: &WriteCap) -> (CopyAnswer, Duration) {
        let since = self.now;
        let mut answer = self.backend.copy(self.now, courier, cap);
        assert_eq!(answer, CopyAnswer::InProgress, "what is asked for the first time is always in progress");
        while answer == CopyAnswer::InProgress {
            assert!(self.now < since + MINUTE * 60, "it ends");
            self.pass(POLL);
            answer = self.backend.copy(self.now, courier, cap);
        }
        (answer, self.now - since)
    }
}

fn boxes(world: &World, count: u64) -> Vec<SealedBox> {
    (0..count).map(|number| world.sealed(number, &format!("box {number}"))).collect()
}

#[test]
fn a_copy_writes_what_its_stream_holds_and_leaves_the_stream_as_it_is() {
    let mut world = World::new(&Profile::docker());
    let boxes = boxes(&world, 3);
    let stream = Stream::of(&world, &boxes);
    stream.upload(&mut world);
    assert_eq!(world.copy(0, &stream.cap).0, CopyAnswer::Succeeded);
    for sealed in boxes.iter().chain(&stream.boxes()) {
        assert_eq!(world.read(sealed.box_id), found(sealed));
    }
    assert_eq!((world.backend.census().copies, world.backend.census().copy_results), (0, 1));
}

#[test]
fn a_result_stands_at_its_courier_for_thirty_minutes_and_another_one_copies_again() {
    let mut world = World::new(&Profile::docker());
    let stream = Stream::of(&world, &boxes(&world, 1));
    let other = world.sealed(0, "another one's");
    world.backend.plant(T0, &other);
    stream.upload(&mut world);
    let failed = CopyAnswer::Failed { code: BOX_ALREADY_EXISTS, envelope: 1 };
    assert_eq!(world.copy(0, &stream.cap).0, failed);
    let tombstone = world.tombstone(0);
    world.backend.plant(world.now, &tombstone);
    world.pass(MINUTE * 29);
    assert_eq!(world.backend.copy(world.now, 0, &stream.cap), failed, "whatever has changed meanwhile");
    assert_eq!(world.copy(1, &stream.cap).0, failed, "a courier of its own mind, and a tombstone is no empty place");
    world.pass(MINUTE);
    assert_eq!(world.copy(0, &stream.cap).0, failed, "it runs again");
    world.pass(MINUTE * 30);
    assert_eq!(world.backend.census(), BackendCensus::default());
}

#[test]
fn a_copy_that_fails_in_the_middle_has_written_what_came_before() {
    let mut world = World::new(&Profile::docker());
    let boxes = boxes(&world, 4);
    let foreign = world.sealed(2, "another one's");
    world.backend.plant(T0, &foreign);
    let stream = Stream::of(&world, &boxes);
    stream.upload(&mut world);
    assert_eq!(world.copy(0, &stream.cap).0, CopyAnswer::Failed { code: BOX_ALREADY_EXISTS, envelope: 3 });
    for sealed in [&boxes[0], &boxes[1], &foreign] {
        assert_eq!(world.read(sealed.box_id), found(sealed));
    }
    assert_eq!(world.read(boxes[3].box_id), coded(BOX_ID_NOT_FOUND));
}

#[test]
fn a_missing_stream_costs_ten_attempts_at_each_holder_and_a_tombstoned_one_none() {
    let mut world = World::new(&Profile::docker());
    let stream = Stream::of(&world, &boxes(&world, 2));
    let (answer, took) = world.copy(0, &stream.cap);
    assert_eq!(answer, CopyAnswer::Failed { code: BOX_ID_NOT_FOUND, envelope: 1 });
    // Pauses of 55.5 s at each of two holders, and twenty round trips of 0.4 s on the mean.
    assert!((Duration::from_secs(112)..Duration::from_secs(130)).contains(&took), "{took:?}");

    world.backend.plant(world.now, &stream.cap.tombstone(stream.cap.index()));
    let (answer, took) = world.copy(1, &stream.cap);
    assert_eq!(answer, CopyAnswer::Failed { code: TOMBSTONE, envelope: 1 });
    assert!(took <= POLL, "{took:?}");

    let mut scaled = World::new(&Profile::docker().scaled(50.0));
    let (_, took) = scaled.copy(0, &stream.cap);
    assert!(took <= POLL, "a faster network waits less: {took:?}");
}

#[test]
fn a_stream_that_arrives_while_it_is_read_is_waited_for() {
    let mut world = World::new(&Profile::docker());
    let boxes = boxes(&world, 2);
    let stream = Stream::of(&world, &boxes);
    assert_eq!(world.backend.copy(T0, 0, &stream.cap), CopyAnswer::InProgress);
    for sealed in stream.boxes() {
        world.pass(Duration::from_secs(20));
        world.backend.plant(world.now, &sealed);
    }
    world.pass(MINUTE);
    assert_eq!(world.backend.copy(world.now, 0, &stream.cap), CopyAnswer::Succeeded);
}

#[test]
fn what_is_no_copy_stream_fails_at_the_envelope_where_it_ends_to_be_one() {
    let mut world = World::new(&Profile::docker());
    let good = boxes(&world, 2);

    let mut foreign = Stream::of(&world, &good);
    foreign.envelopes[1][400] ^= 1;
    foreign.upload(&mut world);
    assert_eq!(world.copy(0, &foreign.cap).0, CopyAnswer::Failed { code: 0, envelope: 2 });

    let cap = WriteCap::from_seed(&[78; 32]);
    let garbage = cap.seal(cap.index(), &[1, 0xff, 0xff, 0xff, 0xff], M).expect("it fits");
    world.backend.plant(world.now, &garbage);
    assert_eq!(world.copy(0, &cap).0, CopyAnswer::Failed { code: 0, envelope: 1 });
}

#[test]
fn an_envelope_s_fate_is_its_replicas_to_say() {
    let mut world = World::new(&Profile::docker());
    let stale = Stream::of(&world, &boxes(&world, 1));
    world.now += WEEK * 2;
    stale.upload(&mut world);
    assert_eq!(world.copy(0, &stale.cap).0, CopyAnswer::Failed { code: INVALID_EPOCH, envelope: 1 });

    let mut full = World::new(&Profile::docker());
    let stream = Stream::of(&full, &boxes(&full, 1));
    stream.upload(&mut full);
    full.backend.set_faults(&Faults { storage_full: true, ..Faults::default() });
    assert_eq!(full.copy(0, &stream.cap).0, CopyAnswer::Failed { code: STORAGE_FULL, envelope: 1 });
}

#[test]
fn replicas_that_never_answer_are_asked_ten_times_a_minute_each() {
    let mut world = World::new(&Profile::docker());
    let mut stream = Stream::of(&world, &boxes(&world, 1));
    stream.envelopes[0][..2].copy_from_slice(&[98, 99]);
    stream.upload(&mut world);
    let (answer, took) = world.copy(0, &stream.cap);
    assert_eq!(answer, CopyAnswer::Failed { code: 0, envelope: 1 });
    assert!((Duration::from_secs(655)..Duration::from_secs(675)).contains(&took), "{took:?}");
    assert_eq!(world.backend.next_deadline(), None);
}

#[test]
fn no_more_copies_run_at_once_than_there_is_room_for() {
    let mut world = World::new(&Profile::docker());
    let caps: Vec<_> =
        (0..copy::RUNNING + 1).map(|n| WriteCap::from_seed(&[u8::try_from(n).expect("few"); 32])).collect();
    for cap in &caps {
        assert_eq!(world.backend.copy(T0, 0, cap), CopyAnswer::InProgress);
    }
    assert_eq!(world.backend.census().copies, copy::RUNNING);
    world.pass(MINUTE * 3);
    assert_eq!(world.backend.census().copies, 0);
    let late = &caps[copy::RUNNING];
    assert_eq!(world.copy(0, late).0, CopyAnswer::Failed { code: BOX_ID_NOT_FOUND, envelope: 1 });
}

/// Where nothing takes time a short copy has ended at the second contact, and a long one lets others have their turn.
#[test]
fn where_nothing_takes_time_a_copy_gets_on_in_slices() {
    let mut world = World::new(&Profile { kind_reads: true, ..Profile::instant() });
    let boxes = boxes(&world, 40);
    let short = Stream::of(&world, &boxes[..1]);
    short.upload(&mut world);
    world.backend.take_written();
    assert_eq!(world.backend.copy(T0, 0, &short.cap), CopyAnswer::InProgress);
    assert_eq!(world.backend.copy(T0, 0, &short.cap), CopyAnswer::Succeeded);
    assert_eq!(world.backend.take_written(), [boxes[0].box_id]);
    let missing = WriteCap::from_seed(&[79; 32]);
    world.backend.copy(T0, 0, &missing);
    assert_eq!(world.backend.copy(T0, 0, &missing), CopyAnswer::Failed { code: BOX_ID_NOT_FOUND, envelope: 1 });

    let long = Stream { cap: WriteCap::from_seed(&[80; 32]), ..Stream::of(&world, &boxes) };
    long.upload(&mut world);
    assert_eq!(world.backend.copy(T0, 0, &long.cap), CopyAnswer::InProgress);
    let mut slices = 1;
    while let Some(due) = world.backend.next_deadline() {
        assert!(due > world.now, "the others have their turn");
        world.pass(due - world.now);
        slices += 1;
    }
    assert!(slices > 2, "{slices} slices");
    assert_eq!(world.backend.copy(world.now, 0, &long.cap), CopyAnswer::Succeeded);
}
