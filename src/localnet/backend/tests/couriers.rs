//! The courier's cache, its window of epochs, and the faults that strike at it and behind it.

use super::*;
use crate::localnet::replica::{INVALID_SIGNATURE, STORAGE_FULL};

const AGE: Duration = CACHE_AGE;
const TERMS: Terms = Terms { age: AGE, patience: PATIENCE, redispatches: REDISPATCHES, kind: false };

fn kind() -> Profile {
    Profile { kind_reads: true, ..Profile::instant() }
}

#[test]
fn an_envelope_is_acknowledged_first_and_answered_when_it_is_asked_for_again() {
    let mut world = World::new(&Profile::docker());
    let sealed = world.sealed(0, "one");
    let write = world.query(Inner::Write(sealed.clone()), [0, 1]);
    assert_eq!(world.send(&write), CourierAnswer::Ack);
    assert_eq!(world.send(&write), CourierAnswer::Ack, "nobody has answered yet");
    world.pass(MINUTE / 2);
    assert_eq!(world.send(&write), coded(SUCCESS));
    let read = world.read_query(sealed.box_id);
    assert_eq!(world.send(&read), CourierAnswer::Ack, "never a box at the first time");
    world.pass(MINUTE / 2);
    assert_eq!(world.send(&read), found(&sealed));
    assert_eq!(world.send(&read), found(&sealed), "as often as it is asked for");
}

#[test]
fn each_courier_has_a_cache_of_its_own() {
    let mut world = World::new(&Profile::docker());
    let read = world.read_query(BoxId([3; 32]));
    assert_eq!(world.verdict(&read), coded(BOX_ID_NOT_FOUND));
    assert_eq!(world.backend.envelope(world.now, 1, &read, true), CourierAnswer::Ack);
    assert_eq!(world.backend.census().cached, 2);
}

#[test]
fn envelopes_of_the_epochs_beside_the_current_one_are_taken_and_others_are_not() {
    let mut world = World::new(&Profile::docker());
    let now = replica_epoch(T0);
    for (epoch, taken) in [(now - 2, false), (now - 1, true), (now, true), (now + 1, true), (now + 2, false)] {
        let query = Query { epoch, ..world.read_query(BoxId([3; 32])) };
        let expected = if taken { CourierAnswer::Ack } else { CourierAnswer::Error(COURIER_INVALID_EPOCH) };
        assert_eq!(world.send(&query), expected, "{epoch} in {now}");
    }
}

#[test]
fn a_reply_index_beyond_the_two_is_wrong_once_there_is_something_to_choose_from() {
    let mut world = World::new(&Profile::docker());
    let query = Query { reply_index: 2, ..world.read_query(BoxId([3; 32])) };
    assert_eq!(world.send(&query), CourierAnswer::Ack);
    assert_eq!(world.send(&query), CourierAnswer::Error(COURIER_INVALID_ENVELOPE));
}

/// A box that is written after the first look is not seen before the cache has forgotten that look: the courier asks five
/// times more, and then stands by what it knows.
#[test]
fn a_not_found_is_asked_about_five_times_more_and_then_stands_until_it_is_forgotten() {
    let mut world = World::new(&Profile::docker());
    let sealed = world.sealed(0, "late");
    let read = world.read_query(sealed.box_id);
    world.send(&read);
    for _ in 0..5 {
        world.pass(MINUTE / 4);
        assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND));
        assert_eq!(world.backend.census().dispatches, 2, "both intermediaries are asked again");
    }
    assert_eq!(world.write(&sealed), coded(SUCCESS));
    assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND), "it is there, and nobody looks");
    assert_eq!(world.backend.census().dispatches, 0);
    world.now = T0 + 2 * AGE;
    assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND), "nothing else came by that would make it forget");
    let other = world.read_query(BoxId([4; 32]));
    world.send(&other);
    assert_eq!(world.verdict(&read), found(&sealed));
}

#[test]
fn the_cache_answers_and_asks_again_by_what_it_knows() {
    let terms = TERMS;
    let hash = [9; 32];
    let sealed = World::new(&Profile::docker()).sealed(0, "here");
    let error = |code| (code, None);
    let here = || (SUCCESS, Some(sealed.clone()));
    // What came from which intermediary, in order; what is answered; whether the replicas are asked again.
    type Row<'a> = (&'a [(usize, Reply)], CourierAnswer, bool);
    let table: [Row<'_>; 10] = [
        (&[], CourierAnswer::Ack, false),
        (&[(0, error(BOX_ID_NOT_FOUND))], coded(BOX_ID_NOT_FOUND), true),
        (&[(1, here())], found(&sealed), false),
        // The first one's not-found is served although the second one has the box, and nobody asks again.
        (&[(0, error(BOX_ID_NOT_FOUND)), (1, here())], coded(BOX_ID_NOT_FOUND), false),
        (&[(0, error(BOX_ID_NOT_FOUND)), (0, here())], found(&sealed), false),
        (&[(0, here()), (0, error(BOX_ID_NOT_FOUND))], found(&sealed), false),
        // These come without a body, and there is nothing to serve.
        (&[(0, error(7)), (1, error(8))], CourierAnswer::Ack, true),
        (&[(0, error(9)), (1, error(BOX_ALREADY_EXISTS))], coded(BOX_ALREADY_EXISTS), true),
        (&[(0, error(STORAGE_FULL)), (0, error(BOX_ALREADY_EXISTS))], coded(BOX_ALREADY_EXISTS), true),
        (&[(0, error(7)), (1, here())], found(&sealed), false),
    ];
    for (row, (replies, answer, again)) in table.into_iter().enumerate() {
        let mut cache = Cache::default();
        assert_eq!(cache.look(T0, &hash, terms), Look::Miss);
        replies.iter().for_each(|(index, reply)| cache.reply(&hash, *index, reply.clone()));
        assert_eq!(cache.answer(&hash, 0), answer, "row {row}");
        assert_eq!(cache.look(T0 + MINUTE / 4, &hash, terms), Look::Hit { again }, "row {row}");
    }
}

#[test]
fn an_envelope_without_an_answer_is_sent_again_each_thirty_seconds() {
    let terms = TERMS;
    let mut cache = Cache::default();
    let mut again = |seconds| cache.look(T0 + Duration::from_secs(seconds), &[9; 32], terms);
    assert_eq!(again(0), Look::Miss);
    for (seconds, expected) in [(29, false), (30, true), (31, false), (59, false), (60, true), (90, true), (120, true)]
    {
        assert_eq!(again(seconds), Look::Hit { again: expected }, "{seconds} s");
    }
    assert_eq!(again(150), Look::Hit { again: true }, "the fifth time");
    assert_eq!(again(300), Look::Hit { again: false }, "it is old, and nothing new came by");
    assert_eq!(cache.look(T0 + AGE, &[8; 32], terms), Look::Miss);
    assert_eq!(cache.look(T0 + AGE, &[9; 32], terms), Look::Miss);
}

#[test]
fn a_cache_keeps_so_many_envelopes_and_so_many_bytes() {
    let terms = TERMS;
    let hash = |number: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        hash
    };
    let mut cache = Cache::default();
    for number in 0..10_000 {
        assert_eq!(cache.look(T0, &hash(number), terms), Look::Miss);
        cache.forget(&hash(number));
        assert_eq!(cache.look(T0, &hash(number), terms), Look::Miss);
    }
    assert!(cache.len() <= courier::ENTRIES, "{}", cache.len());
    let large = SealedBox { box_id: BoxId([1; 32]), payload: vec![0; 1 << 20], signature: [0; 64] };
    for number in 9_000..10_000 {
        cache.look(T0, &hash(number), terms);
        cache.reply(&hash(number), 0, (SUCCESS, Some(large.clone())));
    }
    assert_eq!(cache.len(), 4, "four boxes of a mebibyte");
    assert_eq!(cache.look(T0, &hash(9_999), terms), Look::Hit { again: false }, "the newest are kept");
    cache.prune(T0 + AGE, terms);
    assert_eq!(cache.len(), 0);
}

#[test]
fn what_is_acknowledged_and_then_lost_is_nowhere() {
    let mut world = World::new(&Profile::docker());
    world.backend.set_faults(&Faults { ack_then_lost: 1.0, ..Faults::default() });
    let sealed = world.sealed(0, "lost");
    let write = world.query(Inner::Write(sealed.clone()), [0, 1]);
    assert_eq!(world.verdict(&write), CourierAnswer::Ack);
    assert_eq!(world.backend.census(), BackendCensus::default());
    world.backend.set_faults(&Faults::default());
    assert_eq!(world.read(sealed.box_id), coded(BOX_ID_NOT_FOUND));
    assert_eq!(world.verdict(&write), coded(SUCCESS), "the same envelope once more");
}

#[test]
fn faults_refuse_what_they_are_for_and_nothing_else() {
    let mut world = World::new(&Profile::docker());
    let (first, second) = (world.sealed(0, "one"), world.sealed(1, "two"));
    assert_eq!(world.write(&first), coded(SUCCESS));

    world.backend.set_faults(&Faults { stale_epoch: 1.0, ..Faults::default() });
    assert_eq!(world.read(first.box_id), CourierAnswer::Error(COURIER_INVALID_EPOCH));

    world.backend.set_faults(&Faults { false_not_found: 1.0, ..Faults::default() });
    assert_eq!(world.read(first.box_id), coded(BOX_ID_NOT_FOUND));

    world.backend.set_faults(&Faults { storage_full: true, ..Faults::default() });
    assert_eq!(world.write(&second), coded(STORAGE_FULL));
    assert_eq!(world.write(&first), coded(STORAGE_FULL), "before anybody looks what is there");
    let tombstone = world.tombstone(2);
    assert_eq!(world.write(&tombstone), coded(SUCCESS));

    world.backend.set_faults(&Faults::default());
    assert_eq!(world.read(first.box_id), found(&first));
    assert_eq!(world.read(second.box_id), coded(BOX_ID_NOT_FOUND));
    assert_eq!(world.read(tombstone.box_id), found(&tombstone));
}

#[test]
fn a_fault_s_rate_is_how_often_it_strikes() {
    let mut world = World::new(&Profile::docker());
    world.backend.set_faults(&Faults { stale_epoch: 0.25, ..Faults::default() });
    let refused = (0..2000).filter(|_| {
        let query = world.read_query(BoxId([3; 32]));
        world.backend.envelope(T0, 0, &query, true) != CourierAnswer::Ack
    });
    let refused = refused.count();
    assert!((425..575).contains(&refused), "{refused} of 2000");
}

#[test]
fn a_signature_that_does_not_verify_is_the_replicas_to_refuse() {
    let mut world = World::new(&Profile::docker());
    let sealed = world.sealed(0, "forged");
    let query = world.query(Inner::Write(sealed), [0, 1]);
    assert_eq!(world.backend.envelope(T0, 0, &query, false), CourierAnswer::Ack);
    world.pass(MINUTE / 2);
    assert_eq!(world.send(&query), coded(INVALID_SIGNATURE));
}

/// The profile `instant` has an answer at the second contact, and old answers as every other one.
#[test]
fn where_nothing_takes_time_a_not_found_stands_too() {
    let mut world = World::new(&Profile::instant());
    let sealed = world.sealed(0, "late");
    let read = world.read_query(sealed.box_id);
    assert_eq!(world.send(&read), CourierAnswer::Ack);
    for _ in 0..=5 {
        assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND));
    }
    assert_eq!(world.write(&sealed), coded(SUCCESS));
    assert!(world.backend.take_written().is_empty(), "nobody is told");
    assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND), "the same envelope");
    assert_eq!(world.read(sealed.box_id), found(&sealed), "a fresh one");
    world.now += AGE;
    let other = world.read_query(BoxId([4; 32]));
    world.send(&other);
    assert_eq!(world.verdict(&read), found(&sealed), "the old answer is forgotten");
}

/// What `--kind-reads` promises: no answer is an old one.
#[test]
fn where_reads_are_kind_a_poll_sees_what_is() {
    let mut world = World::new(&kind());
    let sealed = world.sealed(0, "one");
    let read = world.read_query(sealed.box_id);
    assert_eq!(world.send(&read), CourierAnswer::Ack);
    for _ in 0..20 {
        assert_eq!(world.send(&read), coded(BOX_ID_NOT_FOUND));
    }
    assert!(world.backend.take_written().is_empty());
    let write = world.query(Inner::Write(sealed.clone()), [2, 3]);
    assert_eq!(world.send(&write), CourierAnswer::Ack);
    assert_eq!(world.backend.take_written(), [sealed.box_id], "whoever waits for it may ask again");
    assert_eq!(world.send(&write), coded(SUCCESS));
    assert_eq!(world.send(&read), found(&sealed));
    assert_eq!(world.backend.next_deadline(), None);
}

#[test]
fn kind_reads_see_a_box_of_which_one_intermediary_has_heard() {
    let terms = Terms { redispatches: u32::MAX, kind: true, ..TERMS };
    let (mut cache, hash) = (Cache::default(), [9; 32]);
    cache.look(T0, &hash, terms);
    cache.reply(&hash, 0, (BOX_ID_NOT_FOUND, None));
    cache.reply(&hash, 1, (SUCCESS, None));
    assert_eq!(cache.look(T0, &hash, terms), Look::Hit { again: true });
}

#[test]
fn where_reads_are_kind_whoever_was_told_a_falsehood_is_told_to_ask_again() {
    let mut world = World::new(&kind());
    let sealed = world.sealed(0, "one");
    world.backend.plant(T0, &sealed);
    assert_eq!(world.backend.take_written(), [sealed.box_id]);
    world.backend.set_faults(&Faults { false_not_found: 1.0, ..Faults::default() });
    assert_eq!(world.read(sealed.box_id), coded(BOX_ID_NOT_FOUND));
    let due = world.backend.next_deadline().expect("a second look");
    world.backend.take_written();
    world.backend.set_faults(&Faults::default());
    world.backend.advance(due);
    assert_eq!(world.backend.take_written(), [sealed.box_id]);
}
