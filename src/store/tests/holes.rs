//! Boxes that do not come: late, lost after the weeks that replicas keep anything, and skipped by a person.

use std::collections::BTreeMap;
use std::time::SystemTime;

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::*;
use super::{Home, bytes, name};
use crate::bacap::WriteCap;

fn payload(seq: u64) -> Vec<u8> {
    let at = usize::try_from(seq).unwrap();
    bytes(1 + at * 7 % 40, at)
}

fn message(seq: u64) -> (BoxSeq, Arrival) {
    (BoxSeq(seq), Arrival::Message(payload(seq)))
}

fn reader(home: &Home) -> (ChannelId, WriteCap) {
    let cap = WriteCap::from_seed(&[5; 32]);
    (home.store.add_reader(name("news"), cap.read_cap().clone()).wait().unwrap(), cap)
}

fn in_epoch(home: &Home, epoch: u64) {
    home.store.set_replica_epoch(Some(epoch)).wait().unwrap();
}

#[test]
fn what_is_missing_is_late_and_lost_only_when_it_is_older_than_the_retention() {
    let home = Home::new();
    let (id, _) = reader(&home);
    in_epoch(&home, 494);
    home.store.received(id, vec![message(0), message(1), message(4), message(6)]).wait().unwrap();
    let hole = home.store.hole(id).unwrap().expect("2 and 3 are missing");
    assert_eq!((hole.first, hole.end, hole.boxes(), hole.lost), (BoxSeq(2), BoxSeq(4), 2, false));
    assert!(hole.since.is_some_and(|since| since <= SystemTime::now()));

    in_epoch(&home, 495);
    home.store.received(id, vec![(BoxSeq(2), Arrival::NotYet)]).wait().unwrap();
    assert!(!home.store.channel(id).unwrap().unwrap().is_lost(), "what was written in the epoch before lives");
    // A box that was seen since is not what its age is counted from.
    home.store.received(id, vec![message(9)]).wait().unwrap();
    in_epoch(&home, 496);
    assert!(!home.store.channel(id).unwrap().unwrap().is_lost(), "nobody has asked for it since");
    home.store.received(id, vec![(BoxSeq(2), Arrival::NotYet)]).wait().unwrap();
    let told = home.store.channel(id).unwrap().unwrap();
    assert!(told.is_lost() && told.lost_end == BoxSeq(6) && !told.end_is_known());
    assert!(home.store.hole(id).unwrap().unwrap().lost);

    // Each call gives up one hole: this one, then one that is lost with it, then one that is only late.
    let first = home.store.skip(id).wait().unwrap();
    assert_eq!((first.first, first.boxes, first.bytes), (BoxSeq(2), 2, payload(4).len() as u64));
    assert!(home.store.channel(id).unwrap().unwrap().is_lost(), "5 is as old");
    assert_eq!(home.store.skip(id).wait().unwrap().first, BoxSeq(5));
    let told = home.store.channel(id).unwrap().unwrap();
    assert!(!told.is_lost() && told.later_known, "7 and 8 may still come");
    assert_eq!(home.store.skip(id).wait().unwrap().boxes, 2);
    let told = home.store.channel(id).unwrap().unwrap();
    assert_eq!((told.frontier, told.skipped_boxes, told.later_known), (BoxSeq(10), 5, false));
    let expected = [0, 1, 4, 6, 9].map(payload).concat();
    assert_eq!(home.store.read(id, 0, 999).unwrap(), expected);
    assert_eq!(home.store.skip(id).wait(), Err(StoreError::NoHole { name: "news".to_owned() }));
}

#[test]
fn a_lost_box_that_comes_after_all_is_kept_and_a_skipped_one_is_not() {
    let home = Home::new();
    let (id, cap) = reader(&home);
    in_epoch(&home, 494);
    home.store.received(id, vec![message(1), message(3)]).wait().unwrap();
    in_epoch(&home, 496);
    home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    assert!(home.store.channel(id).unwrap().unwrap().is_lost());
    home.store.received(id, vec![message(0)]).wait().unwrap();
    assert_eq!(home.store.read(id, 0, 999).unwrap(), [payload(0), payload(1)].concat());
    home.store.skip(id).wait().unwrap();
    home.store.received(id, vec![message(2), (BoxSeq(2), Arrival::Tombstone)]).wait().unwrap();
    let home = home.reopened();
    assert_eq!(home.store.read(id, 0, 999).unwrap(), [0, 1, 3].map(payload).concat());
    let next = cap.index().advance_to(cap.index().counter() + 4).unwrap();
    assert_eq!(home.store.index_of(id, BoxSeq(4)).unwrap(), next, "it goes on with the right index");
    let writer = home.writer("notes", 1);
    assert_eq!(home.store.skip(writer).wait(), Err(StoreError::NotAReader));
}

/// A wall clock that was wrong for a moment made a late box lost for good: what counts is the network's own time, and the
/// network's own answer.
#[test]
fn what_was_called_lost_is_not_once_the_network_has_a_part_of_it() {
    let home = Home::new();
    let (id, _) = reader(&home);
    in_epoch(&home, 494);
    home.store.received(id, vec![message(3)]).wait().unwrap();
    in_epoch(&home, 600);
    home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    let told = |id| home.store.channel(id).unwrap().unwrap();
    assert!(told(id).is_lost());
    in_epoch(&home, 494);
    home.store.received(id, vec![message(1)]).wait().unwrap();
    assert!(!told(id).is_lost() && told(id).later_known, "late, as a part of it has come");
    home.store.received(id, vec![message(0), message(2)]).wait().unwrap();
    assert_eq!(told(id).frontier, BoxSeq(4));
}

#[test]
fn nothing_is_lost_while_the_network_does_not_tell_its_time() {
    let home = Home::new();
    let (id, _) = reader(&home);
    home.store.received(id, vec![message(3)]).wait().unwrap();
    home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    let is_lost = || home.store.channel(id).unwrap().unwrap().is_lost();
    in_epoch(&home, 600);
    home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    assert!(!is_lost(), "it was seen at an unknown time, which counts from now on");
    in_epoch(&home, 602);
    home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    assert!(is_lost());
}

#[test]
fn room_is_made_across_what_was_skipped() {
    let home = Home::new();
    let (id, _) = reader(&home);
    home.store.received(id, vec![message(0), message(1), message(5)]).wait().unwrap();
    home.store.skip(id).wait().unwrap();
    home.store.received(id, vec![message(9)]).wait().unwrap();
    let told = home.store.channel(id).unwrap().unwrap();
    assert_eq!((told.frontier, told.skipped_boxes), (BoxSeq(6), 3));
    let before = (payload(0).len() + payload(1).len()) as u64;
    assert_eq!(home.store.trim(id, 0).wait(), Ok(before), "the last box stays");
    home.store.skip(id).wait().unwrap();
    assert_eq!(home.store.trim(id, 0).wait(), Ok(payload(5).len() as u64));
    assert_eq!(home.store.read(id, before + payload(5).len() as u64, 99).unwrap(), payload(9));
}

#[test]
fn no_sql_takes_back_what_was_skipped() {
    let home = Home::new();
    let (id, _) = reader(&home);
    home.store.received(id, vec![message(1), message(3)]).wait().unwrap();
    home.store.skip(id).wait().unwrap();
    home.store.close();
    let db = Connection::open(home.state.database()).unwrap();
    let error = db.execute_batch("UPDATE channel SET skipped_boxes = 0").unwrap_err().to_string();
    assert!(error.contains("stays so"), "{error}");
    for sql in ["lost_end = 5", "skipped_boxes = 3"] {
        let error = db.execute_batch(&format!("UPDATE channel SET {sql}")).unwrap_err().to_string();
        assert!(error.contains("CHECK"), "{sql}: {error}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Vec<u64>),
    Skip,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(0..40_u64, 1..4).prop_map(Step::Arrive),
        3 => Just(Step::Skip),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_came_before_it_was_given_up(steps in proptest::collection::vec(step(), 1..40)) {
        let mut home = Home::new();
        let (id, cap) = reader(&home);
        let mut here: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let (mut frontier, mut skipped) = (0, 0);
        for step in steps {
            match step {
                Step::Arrive(seqs) => {
                    home.store.received(id, seqs.iter().copied().map(message).collect()).wait().unwrap();
                    here.extend(seqs.into_iter().filter(|seq| *seq >= frontier).map(|seq| (seq, payload(seq))));
                }
                Step::Skip => match here.range(frontier..).next() {
                    Some((&next, _)) => {
                        let told = home.store.skip(id).wait().unwrap();
                        prop_assert_eq!((told.first.0, told.boxes), (frontier, next - frontier));
                        skipped += next - frontier;
                        frontier = next;
                    }
                    None => {
                        let refused = matches!(home.store.skip(id).wait(), Err(StoreError::NoHole { .. }));
                        prop_assert!(refused, "nothing is missing");
                    }
                },
                Step::Reopen => home = home.reopened(),
            }
            while here.contains_key(&frontier) {
                frontier += 1;
            }
            let told = home.store.channel(id).unwrap().unwrap();
            let expected: Vec<u8> = here.range(..frontier).flat_map(|(_, bytes)| bytes.clone()).collect();
            prop_assert_eq!((told.frontier.0, told.skipped_boxes), (frontier, skipped));
            prop_assert_eq!(home.store.read(id, 0, 4096).unwrap(), expected);
            let hole = home.store.hole(id).unwrap().map(|hole| hole.end.0);
            prop_assert_eq!(hole, here.range(frontier..).next().map(|(next, _)| *next));
            for seq in [frontier, frontier + 3, frontier + 50] {
                let index = cap.index().advance_to(cap.index().counter() + seq).unwrap();
                prop_assert_eq!(home.store.index_of(id, BoxSeq(seq)).unwrap(), index);
            }
        }
    }
}
