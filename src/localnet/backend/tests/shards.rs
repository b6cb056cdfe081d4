//! The two holders of a box: how a box gets to both, what comes of two writers, and the time that it all takes.

use super::*;

/// Who has which content of a box.
fn rows(world: &mut World, box_id: &BoxId) -> Vec<(SealedBox, u8)> {
    let rows = world.backend.store.find(box_id, 0).expect("memory");
    rows.into_iter().map(|row| (row.sealed, row.holders.bits())).collect()
}

#[test]
fn a_box_that_one_holder_takes_comes_to_the_other_one_as_the_same_row() {
    let world = World::new(&Profile::docker());
    let sealed = world.sealed(0, "one");
    let [first, second] = world.holders(&sealed.box_id);
    for (holder, alone) in [(first, 1), (second, 2)] {
        let mut world = World::new(&Profile::docker());
        let write = world.query(Inner::Write(sealed.clone()), [holder, 99]);
        world.send(&write);
        while rows(&mut world, &sealed.box_id).is_empty() {
            let due = world.backend.next_deadline().expect("it is on its way");
            world.pass(due - world.now);
        }
        assert_eq!(rows(&mut world, &sealed.box_id), [(sealed.clone(), alone)]);
        assert_eq!(world.backend.census().replications, 1);
        world.pass(MINUTE);
        assert_eq!(rows(&mut world, &sealed.box_id), [(sealed.clone(), 3)]);
        assert_eq!((world.backend.next_deadline(), world.backend.census().replications), (None, 0));
    }
}

#[test]
fn two_writers_at_one_index_may_leave_the_holders_with_different_boxes_for_ever() {
    let mut world = World::new(&Profile { replication_delay: MINUTE * 30, ..Profile::docker() });
    let (ours, theirs) = (world.sealed(0, "ours"), world.sealed(0, "theirs"));
    let holders = world.holders(&ours.box_id);
    let writes = [&ours, &theirs].into_iter().zip(holders);
    let queries: Vec<_> = writes.map(|(sealed, to)| world.query(Inner::Write(sealed.clone()), [to, 99])).collect();
    queries.iter().for_each(|query| drop(world.send(query)));
    world.pass(MINUTE / 2);
    for query in &queries {
        assert_eq!(world.send(query), coded(SUCCESS), "each of them was stored");
    }
    world.pass(MINUTE * 600);
    assert_eq!(world.backend.census().replications, 0);
    let mut kept = rows(&mut world, &ours.box_id);
    kept.sort_by_key(|(_, holders)| *holders);
    assert_eq!(kept, [(ours.clone(), 1), (theirs.clone(), 2)]);
    for (sealed, to) in [&ours, &theirs].into_iter().zip(holders) {
        let read = world.query(Inner::Read(ours.box_id), [to, 99]);
        assert_eq!(world.verdict(&read), found(sealed));
    }
    let tombstone = world.tombstone(0);
    assert_eq!(world.write(&tombstone), coded(SUCCESS));
    world.pass(MINUTE * 600);
    assert_eq!(rows(&mut world, &ours.box_id), [(tombstone, 3)], "a tombstone ends it");
}

#[test]
fn a_foreign_box_is_at_both_holders_and_refuses_ours() {
    let mut world = World::new(&Profile::docker());
    let (ours, theirs) = (world.sealed(0, "ours"), world.sealed(0, "theirs"));
    world.backend.plant(T0, &theirs);
    assert_eq!(rows(&mut world, &ours.box_id), [(theirs.clone(), 3)]);
    assert_eq!(world.write(&ours), coded(BOX_ALREADY_EXISTS));
    assert_eq!(world.write(&theirs), coded(SUCCESS), "the same bytes are no conflict");
}

#[test]
fn a_full_holder_stays_without_the_box_that_the_other_one_took() {
    let mut world = World::new(&Profile::docker());
    let sealed = world.sealed(0, "one");
    let [first, _] = world.holders(&sealed.box_id);
    let write = world.query(Inner::Write(sealed.clone()), [first, 99]);
    world.send(&write);
    while world.backend.census().replications == 0 {
        let due = world.backend.next_deadline().expect("it is on its way");
        world.pass(due - world.now);
    }
    world.backend.set_faults(&Faults { storage_full: true, ..Faults::default() });
    world.pass(MINUTE);
    assert_eq!(rows(&mut world, &sealed.box_id), [(sealed, 1)]);
    assert_eq!(world.backend.census().replications, 0, "it is not tried for ever");
}

#[test]
fn an_answer_takes_as_long_as_the_profile_says_on_the_mean_and_less_from_a_holder() {
    let profile = Profile::docker();
    let mean = |to_holders: bool| {
        let mut world = World::new(&profile);
        let runs = 3000;
        let mut total = Duration::ZERO;
        for number in 0..runs {
            let box_id = BoxId([u8::try_from(number % 251).expect("small"); 32]);
            let holders = world.holders(&box_id);
            let to = (0..5).find(|replica| holders.contains(replica) == to_holders).expect("five of them");
            let read = world.query(Inner::Read(box_id), [to, 99]);
            let sent = world.now;
            world.send(&read);
            while world.backend.census().dispatches > 0 {
                let due = world.backend.next_deadline().expect("under way");
                world.pass(due - world.now);
            }
            total += world.now - sent;
        }
        total.as_secs_f64() / f64::from(runs) / profile.replica_delay.as_secs_f64()
    };
    let (proxied, held) = (mean(false), mean(true));
    assert!((proxied - 1.0).abs() < 0.04, "{proxied} of the mean");
    assert!((held - 2.0 / 3.0).abs() < 0.04, "{held} of the mean");
}

#[test]
fn what_is_on_its_way_takes_as_long_when_the_clock_is_put_back_or_forward() {
    for to in [T0 - WEEK / 2, T0 + WEEK / 2, T0 + WEEK * 52] {
        let mut world = World::new(&Profile::docker());
        let read = world.read_query(BoxId([3; 32]));
        world.send(&read);
        let due = world.backend.next_deadline().expect("under way") - T0;
        world.backend.jumped(T0, to);
        assert_eq!(world.backend.next_deadline(), Some(to + due));
        world.now = to;
        world.pass(MINUTE / 2);
        assert_eq!(world.backend.census().dispatches, 0);
        world.pass(CACHE_AGE);
        let other = world.read_query(BoxId([4; 32]));
        world.send(&other);
        world.pass(MINUTE / 2);
        assert_eq!(world.backend.census(), BackendCensus { cached: 1, ..BackendCensus::default() });
    }
    let mut world = World::new(&Profile::docker());
    let read = world.read_query(BoxId([3; 32]));
    world.send(&read);
    let due = world.backend.next_deadline().expect("under way") - T0;
    world.backend.advance(T0 - MINUTE);
    assert_eq!(world.backend.next_deadline(), Some(T0 - MINUTE + due), "a clock that nobody said was put back");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let run = |seed| {
        let mut world = World::over(Memory::default(), &Profile::docker(), seed);
        world.backend.set_faults(&Faults { false_not_found: 0.3, ack_then_lost: 0.2, ..Faults::default() });
        let mut seen = Vec::new();
        let mut queries = Vec::new();
        for round in 0..40 {
            let sealed = world.sealed(round % 7, "same");
            queries.push(world.query(Inner::Write(sealed.clone()), [0, 1]));
            queries.push(world.query(Inner::Read(sealed.box_id), [2, 3]));
            let answers: Vec<_> =
                queries.iter().map(|query| world.backend.envelope(world.now, 0, query, true)).collect();
            seen.push((answers, world.backend.next_deadline(), world.backend.census()));
            world.pass(Duration::from_millis(200));
        }
        seen
    };
    assert!(run(1) == run(1) && run(1) != run(2));
}
