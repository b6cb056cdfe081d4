//! A channel that we read: boxes that arrive in any order, and what may be read of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{Home, bytes, name};
use crate::bacap::WriteCap;

fn message(seq: u64) -> Arrival {
    Arrival::Message(payload(seq).unwrap_or_default())
}

/// What the writer put into a box: every fifth is a tombstone, the others are of different lengths.
fn payload(seq: u64) -> Option<Vec<u8>> {
    let at = usize::try_from(seq).unwrap();
    (seq % 5 != 3).then(|| bytes(1 + at * 7 % 40, at))
}

fn arrival(seq: u64) -> Arrival {
    payload(seq).map_or(Arrival::Tombstone, Arrival::Message)
}

fn reader(home: &Home) -> (ChannelId, WriteCap) {
    let cap = WriteCap::from_seed(&[5; 32]);
    (home.store.add_reader(name("news"), cap.read_cap().clone()).wait().unwrap(), cap)
}

#[test]
fn a_verdict_belongs_to_the_frontier_and_goes_with_it() {
    let home = Home::new();
    let (id, _) = reader(&home);
    let store = &home.store;
    let told = || store.channel(id).unwrap().unwrap();
    assert_eq!(told().verdict, None);
    store.received(id, vec![(BoxSeq(3), Arrival::NotYet)]).wait().unwrap();
    assert_eq!(told().verdict, None, "about another box");
    store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    let first = told().verdict.expect("about the frontier");
    store.received(id, vec![(BoxSeq(2), message(2))]).wait().unwrap();
    assert!(told().later_known && told().verdict == Some(first) && told().size == 0);
    let frontier = store.received(id, vec![(BoxSeq(0), message(0))]).wait().unwrap();
    assert_eq!(frontier, Frontier { seq: BoxSeq(1), size: 1 });
    assert_eq!(told().verdict, None, "the frontier has moved");
    let batch = vec![(BoxSeq(3), Arrival::NotYet), (BoxSeq(1), message(1)), (BoxSeq(1), Arrival::NotYet)];
    assert_eq!(store.received(id, batch).wait().unwrap().seq, BoxSeq(3));
    assert!(told().verdict.is_some() && !told().later_known);
}

#[test]
fn the_first_that_arrives_stays() {
    let home = Home::new();
    let (id, _) = reader(&home);
    let store = &home.store;
    store.received(id, vec![(BoxSeq(0), message(0)), (BoxSeq(2), message(2))]).wait().unwrap();
    let again = [
        (BoxSeq(0), message(0)),
        (BoxSeq(0), Arrival::Message(b"other".to_vec())),
        (BoxSeq(0), Arrival::Tombstone),
        (BoxSeq(2), Arrival::Message(b"other".to_vec())),
    ];
    store.received(id, again.to_vec()).wait().unwrap();
    store.received(id, vec![(BoxSeq(1), message(1))]).wait().unwrap();
    let expected = [payload(0), payload(1), payload(2)].map(Option::unwrap).concat();
    assert_eq!(store.read(id, 0, 1000).unwrap(), expected);
}

#[test]
fn a_box_without_bytes_is_passed() {
    let home = Home::new();
    let (id, _) = reader(&home);
    let batch = vec![(BoxSeq(0), Arrival::Message(Vec::new())), (BoxSeq(1), Arrival::Message(b"x".to_vec()))];
    assert_eq!(home.store.received(id, batch).wait().unwrap(), Frontier { seq: BoxSeq(2), size: 1 });
    assert_eq!(home.store.read(id, 0, 9).unwrap(), b"x");
}

#[test]
fn what_is_too_far_ahead_is_refused_whole() {
    let home = Home::new();
    let (id, cap) = reader(&home);
    let far = BoxSeq(MAX_AHEAD_BOXES);
    let refused = home.store.received(id, vec![(BoxSeq(0), message(0)), (far, message(1))]).wait();
    assert_eq!(refused, Err(StoreError::TooFarAhead { seq: far, limit: MAX_AHEAD_BOXES }));
    assert_eq!(home.store.channel(id).unwrap().unwrap().frontier, BoxSeq(0));
    assert!(home.store.index_of(id, far).is_err());
    let last = BoxSeq(MAX_AHEAD_BOXES - 1);
    let expected = cap.index().advance_to(cap.index().counter() + last.0).unwrap();
    assert_eq!(home.store.index_of(id, last).unwrap(), expected);
    let writer = home.writer("notes", 1);
    assert_eq!(home.store.received(writer, vec![(BoxSeq(0), message(0))]).wait(), Err(StoreError::NotAReader));
    assert_eq!(home.store.append(id, vec![1], None).wait(), Err(StoreError::ReadOnly));
    assert_eq!(home.store.truncate(id).wait(), Err(StoreError::ReadOnly));
    assert_eq!(home.store.unlink(id).wait(), Err(StoreError::AlreadyLaunched { name: "news".to_owned() }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_arrival_reads_the_same(
        batches in proptest::collection::vec(proptest::collection::vec(0..24_u64, 1..5), 1..30),
        reopen_at in 0..30_usize,
    ) {
        let mut home = Home::new();
        let (id, cap) = reader(&home);
        let mut arrived = BTreeMap::new();
        for (at, batch) in batches.iter().enumerate() {
            if at == reopen_at {
                home = home.reopened();
            }
            let arrivals = batch.iter().map(|seq| (BoxSeq(*seq), arrival(*seq))).collect();
            let told = home.store.received(id, arrivals).wait().unwrap();
            arrived.extend(batch.iter().map(|seq| (*seq, payload(*seq).unwrap_or_default())));
            let frontier = (0..).find(|seq| !arrived.contains_key(seq)).unwrap();
            let expected: Vec<u8> = arrived.range(..frontier).flat_map(|(_, bytes)| bytes.clone()).collect();
            prop_assert_eq!(told, Frontier { seq: BoxSeq(frontier), size: expected.len() as u64 });
            let channel = home.store.channel(id).unwrap().unwrap();
            prop_assert_eq!(channel.frontier.0, frontier);
            prop_assert_eq!(channel.later_known, arrived.range(frontier..).next().is_some());
            let past: Vec<_> = arrived.range(frontier..).map(|(seq, _)| BoxSeq(*seq)).collect();
            prop_assert_eq!(home.store.arrived_past(id, channel.frontier).unwrap(), past);
            for offset in 0..=expected.len() {
                let some = home.store.read(id, offset as u64, 30).unwrap();
                prop_assert_eq!(&some[..], expected[offset..].chunks(30).next().unwrap_or_default());
            }
            for seq in [0, frontier, frontier + 3] {
                let index = cap.index().advance_to(cap.index().counter() + seq).unwrap();
                prop_assert_eq!(home.store.index_of(id, BoxSeq(seq)).unwrap(), index);
            }
        }
    }
}
