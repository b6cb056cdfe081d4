//! Fenced channels: what another writer wrote is adopted, or what is not stored moves to another channel. Killed at any
//! commit, an adoption is begun or done, never between.

use std::path::Path;

use proptest::prelude::*;

use super::super::*;
use super::crash::{DIR, child, open, was_killed};
use super::{Home, bytes, name, network};
use crate::bacap::WriteCap;

const SEED: [u8; 32] = [1; 32];

/// What there is of one box of ours: its bytes, and how far it is.
type Own = (Vec<u8>, BoxState);

/// A fenced channel `notes` with these boxes: each is sealed by itself, but for an open last one.
fn fenced(store: &Store, boxes: &[Own]) -> ChannelId {
    let id = store.create_stream(name("notes"), WriteCap::from_seed(&SEED)).wait().unwrap();
    for (payload, state) in boxes {
        store.append(id, payload.clone(), None).wait().unwrap();
        if *state != BoxState::Open {
            store.seal_tail(id).wait().unwrap();
        }
    }
    store.bind_network(id, network()).wait().unwrap();
    let at = |least: BoxState| -> Vec<BoxSeq> {
        let seqs = (0..).zip(boxes).filter(|(_, (_, state))| *state >= least).map(|(seq, _)| BoxSeq(seq));
        seqs.collect()
    };
    store.launch(id, 0, at(BoxState::Launched), network()).wait().unwrap();
    store.confirm(id, at(BoxState::Couriered), BoxState::Couriered).wait().unwrap();
    store.confirm(id, at(BoxState::Stored), BoxState::Stored).wait().unwrap();
    store.fence(id, "another writer was there".to_owned()).wait().unwrap();
    id
}

/// What an adoption must make of them.
fn adopted(boxes: &[Own], first: usize, findings: &[Finding]) -> Vec<Own> {
    let launched_end = boxes.iter().rposition(|(_, state)| *state >= BoxState::Launched).map_or(0, |at| at + 1);
    let last = findings.iter().rposition(|found| *found != Finding::Nothing).map_or(0, |at| first + at + 1);
    let end = launched_end.max(last).max(first);
    let mut expected = boxes[..first].to_vec();
    let mut behind = Vec::new();
    for at in first..end {
        match (&findings[at - first], boxes.get(at)) {
            (Finding::Foreign(bytes), own) if own.is_none_or(|own| own.1 != BoxState::Stored) => {
                expected.push((bytes.clone(), BoxState::Stored));
                behind.extend(own.cloned());
            }
            (Finding::Tombstone, own) if own.is_none_or(|own| own.1 != BoxState::Stored) => {
                expected.push((Vec::new(), BoxState::Tombstone));
                behind.extend(own.cloned());
            }
            (Finding::Ours, Some(own)) => expected.push((own.0.clone(), BoxState::Stored)),
            (_, Some(own)) => expected.push(own.clone()),
            (found, None) => panic!("{found:?} at {at}"),
        }
    }
    behind.extend(boxes.iter().skip(end).cloned());
    let again = |(bytes, state): Own| (bytes, if state == BoxState::Open { state } else { BoxState::Sealed });
    expected.extend(behind.into_iter().map(again));
    expected
}

/// The store holds exactly these boxes, at the indices of its capability, with all counters right.
fn compare(store: &Store, id: ChannelId, cap: &WriteCap, expected: &[Own], offset: u64) {
    let told = store.channel(id).unwrap().unwrap();
    let all: Vec<u8> = expected.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    assert_eq!((told.size, told.boxes), (all.len() as u64, expected.len() as u64));
    assert!(store.read(id, offset, MAX_READ_BYTES).unwrap() == all[usize::try_from(offset).unwrap()..]);
    let is_stored = |one: &&Own| matches!(one.1, BoxState::Stored | BoxState::Tombstone);
    let stored = expected.iter().filter(is_stored).count() as u64;
    let prefix = expected.iter().take_while(is_stored).count();
    let stored_bytes: usize = expected[..prefix].iter().map(|(bytes, _)| bytes.len()).sum();
    assert_eq!(
        (told.stored_boxes, told.first_unstored.0, told.stored_bytes),
        (stored, prefix as u64, stored_bytes as u64)
    );
    let tail = expected.last().filter(|(_, state)| *state == BoxState::Open).map_or(0, |(bytes, _)| bytes.len());
    assert_eq!(told.tail_bytes, tail as u64);
    let outgoing: Vec<_> = store.outgoing(id, BoxSeq(0), 1000).unwrap();
    let mut wanted = Vec::new();
    for (seq, (payload, state)) in (0_u64..).zip(expected) {
        if (BoxState::Sealed..=BoxState::Couriered).contains(state) {
            let index = cap.index().advance_to(cap.index().counter() + seq).unwrap();
            wanted.push(OutBox { seq: BoxSeq(seq), index, payload: payload.clone(), state: *state });
        }
    }
    assert_eq!(outgoing, wanted);
    let usage = store.usage().unwrap();
    let spooled: u64 = store.channels(None, 100).unwrap().iter().map(|one| one.size - one.stored_bytes).sum();
    assert_eq!(usage.spool_bytes, spooled);
}

fn own(at: usize, state: BoxState) -> Own {
    (bytes(10 + at, at), state)
}

fn foreign(at: usize) -> Finding {
    Finding::Foreign(bytes(30 + at, 100 + at))
}

/// Two stored, one launched and met, one stored past it, one launched and not met, one couriered and there, two that
/// were never launched, and an open tail. The other writer went on past our launches.
fn story() -> (Vec<Own>, Vec<Finding>) {
    use BoxState::{Couriered, Launched, Open, Sealed, Stored};
    let states = [Stored, Stored, Launched, Stored, Launched, Couriered, Sealed, Sealed, Open];
    let boxes = states.into_iter().enumerate().map(|(at, state)| own(at, state)).collect();
    let findings = vec![foreign(2), Finding::Ours, Finding::Nothing, Finding::Ours, foreign(6), Finding::Nothing];
    (boxes, findings)
}

#[test]
fn what_another_writer_wrote_is_taken_in_and_ours_goes_behind_it() {
    let home = Home::new();
    let (boxes, findings) = story();
    let cap = WriteCap::from_seed(&SEED);
    let id = fenced(&home.store, &boxes);
    let store = &home.store;
    assert_eq!(store.adoptions().unwrap(), []);
    store.adopt(id).wait().unwrap();
    assert_eq!(store.adoptions().unwrap(), [id]);
    assert_eq!(store.set_max_plaintext(id, 100).wait(), Err(StoreError::BeingAdopted { name: "notes".to_owned() }));
    assert!(
        matches!(store.append(id, vec![1], None).wait(), Err(StoreError::Fenced { .. })),
        "fenced until it is over"
    );
    let first = store.adoption(id).unwrap().unwrap();
    assert_eq!((first.first, first.next, first.launched_end), (BoxSeq(2), BoxSeq(2), BoxSeq(6)));
    store.found(id, BoxSeq(2), findings[..3].to_vec()).wait().unwrap();
    assert!(matches!(store.finish_adoption(id).wait(), Err(StoreError::NoBox { .. })), "not all is known");
    assert!(store.found(id, BoxSeq(6), vec![foreign(6)]).wait().is_err(), "one is left out");

    // Again from the beginning, as after a crash: what is known is passed over.
    store.adopt(id).wait().unwrap();
    assert_eq!(store.adoption(id).unwrap().unwrap().next, BoxSeq(5));
    store.found(id, BoxSeq(2), findings.clone()).wait().unwrap();
    let came = store.finish_adoption(id).wait().unwrap();
    let lens = |at: &[usize], base: usize| at.iter().map(|at| (base + at) as u64).sum::<u64>();
    let expected = Adopted {
        foreign_boxes: 2,
        foreign_bytes: lens(&[2, 6], 30),
        replanned_boxes: 2,
        replanned_bytes: lens(&[2, 6], 10),
    };
    assert_eq!(came, expected);
    compare(store, id, &cap, &adopted(&boxes, 2, &findings), 0);
    let told = store.channel(id).unwrap().unwrap();
    assert_eq!((told.fence, told.rewrites), (None, 1));
    assert_eq!(store.adoption(id).unwrap().unwrap().adopted, Some(expected));
    assert_eq!(store.adopt(id).wait(), Err(StoreError::NotFenced { name: "notes".to_owned() }));
    assert_eq!(store.finish_adoption(id).wait(), Err(StoreError::NotAdopting));

    // And it goes on: the rewritten boxes are launched, the law of their bytes holds again.
    let home = home.reopened();
    let store = &home.store;
    store.append(id, b"and on".to_vec(), None).wait().unwrap();
    store.launch(id, 1, vec![BoxSeq(7), BoxSeq(8)], network()).wait().unwrap();
    store.confirm(id, vec![BoxSeq(4), BoxSeq(7)], BoxState::Stored).wait().unwrap();
    store.fence(id, "again".to_owned()).wait().unwrap();
    store.close();
    let db = rusqlite::Connection::open(home.state.database()).unwrap();
    for sql in [
        "UPDATE box SET seq = 99 WHERE seq = 2",
        "DELETE FROM box WHERE seq = 2",
        "INSERT INTO box (chain, seq, state, index104, offset, payload) SELECT chain, 77, 4, index104, 0, x'01' FROM box",
        "UPDATE channel SET launched_end = 0, stored_boxes = 0",
    ] {
        assert!(db.execute_batch(sql).is_err(), "{sql}");
    }
}

#[test]
fn a_fence_whose_cause_is_gone_is_lifted_with_nothing_changed() {
    let home = Home::new();
    let boxes = [own(0, BoxState::Stored), own(1, BoxState::Launched), own(2, BoxState::Sealed)];
    let id = fenced(&home.store, &boxes);
    home.store.adopt(id).wait().unwrap();
    let nothing = vec![Finding::Nothing, Finding::Nothing];
    home.store.found(id, BoxSeq(1), nothing).wait().unwrap();
    assert_eq!(home.store.finish_adoption(id).wait(), Ok(Adopted::default()));
    compare(&home.store, id, &WriteCap::from_seed(&SEED), &boxes, 0);
}

#[test]
fn what_is_not_stored_moves_and_what_was_stored_stays() {
    for trimmed in [false, true] {
        let home = Home::new();
        let (boxes, findings) = story();
        let id = fenced(&home.store, &boxes);
        let store = &home.store;
        if trimmed {
            store.trim(id, 0).wait().unwrap();
        }
        let cap = WriteCap::from_seed(&[2; 32]);
        assert_eq!(
            store.move_unsent(id, name("notes"), cap.clone()).wait(),
            Err(StoreError::NameTaken { name: "notes".to_owned() })
        );
        let moved = store.move_unsent(id, name("notes-2"), cap.clone()).wait().unwrap();
        let moved_bytes: usize = boxes[2..].iter().map(|(bytes, _)| bytes.len()).sum();
        assert_eq!((moved.boxes, moved.bytes, moved.launched_boxes), (7, moved_bytes as u64, 4));
        let again =
            |(bytes, state): &Own| (bytes.clone(), if *state == BoxState::Open { *state } else { BoxState::Sealed });
        compare(store, moved.to, &cap, &boxes[2..].iter().map(again).collect::<Vec<_>>(), 0);
        let told = store.channel(id).unwrap().unwrap();
        // Where all that was stored is dropped, the first box that was not stays too: a channel keeps its last.
        assert_eq!(told.boxes, if trimmed { 3 } else { 2 });
        assert_eq!((told.stored_bytes, told.stored_boxes), (21, 2));
        assert!(
            told.fence.is_some_and(|fence| fence.contains("another writer was there") && fence.contains("\"notes-2\""))
        );
        if !trimmed {
            compare(store, id, &WriteCap::from_seed(&SEED), &boxes[..2], 0);
        }
        assert_eq!(store.adopt(id).wait(), Err(StoreError::Moved { name: "notes".to_owned() }));
        let once = store.move_unsent(id, name("x"), WriteCap::from_seed(&[3; 32])).wait();
        assert_eq!(once, Err(StoreError::Moved { name: "notes".to_owned() }));
        assert_eq!(
            store.move_unsent(moved.to, name("x"), WriteCap::from_seed(&[3; 32])).wait(),
            Err(StoreError::NotFenced { name: "notes-2".to_owned() })
        );
        assert!(store.found(id, BoxSeq(2), findings).wait().is_err());
        store.forget(name("notes")).wait().unwrap();
        let home = home.reopened();
        home.store.append(moved.to, b"more".to_vec(), None).wait().unwrap();
    }
}

#[test]
fn boxes_are_packed_anew_behind_one_that_was_dropped() {
    let home = Home::new();
    let id = home.writer("notes", 1);
    let store = &home.store;
    store.append(id, bytes(2 * 1549, 1), None).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    store.launch(id, 0, vec![BoxSeq(0)], network()).wait().unwrap();
    store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    assert_eq!(store.trim(id, 0).wait(), Ok(1549));
    let home = home.reopened();
    home.store.set_max_plaintext(id, 1000).wait().unwrap();
    assert!(home.store.read(id, 1549, 4000).unwrap() == bytes(2 * 1549, 1)[1549..]);
}

fn state() -> impl Strategy<Value = BoxState> {
    use BoxState::{Couriered, Launched, Stored};
    prop_oneof![2 => Just(Launched), 1 => Just(Couriered), 2 => Just(Stored)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_at_the_indices_nothing_of_ours_is_lost_and_nothing_launched_moves_unless_it_was_met(
        sent in proptest::collection::vec(state(), 0..7),
        sealed in 0..4_usize,
        open: bool,
        found in proptest::collection::vec(0..4_u8, 7),
        further in proptest::collection::vec(any::<bool>(), 0..4),
        reopen: bool,
    ) {
        let mut home = Home::new();
        let launched = sent.len();
        let states = sent.into_iter().chain(vec![BoxState::Sealed; sealed]).chain(open.then_some(BoxState::Open));
        let boxes: Vec<Own> = states.enumerate().map(|(at, state)| own(at, state)).collect();
        let id = fenced(&home.store, &boxes);
        let first = boxes.iter().take_while(|(_, state)| *state == BoxState::Stored).count();
        home.store.adopt(id).wait().unwrap();
        let mut findings: Vec<_> = (first..launched)
            .map(|at| match (boxes[at].1, found[at]) {
                (BoxState::Stored, _) | (_, 0) => Finding::Ours,
                (_, 1) => Finding::Nothing,
                (_, 2) if at % 2 == 0 => Finding::Tombstone,
                _ => foreign(at),
            })
            .collect();
        let beyond = |(at, deleted)| if deleted { Finding::Tombstone } else { foreign(launched + at) };
        findings.extend(further.into_iter().enumerate().map(beyond));
        findings.push(Finding::Nothing);
        for (at, one) in (first as u64..).zip(&findings) {
            home.store.found(id, BoxSeq(at), vec![one.clone()]).wait().unwrap();
        }
        if reopen {
            home = home.reopened();
        }
        home.store.finish_adoption(id).wait().unwrap();
        let mut expected = adopted(&boxes, first, &findings);
        compare(&home.store, id, &WriteCap::from_seed(&SEED), &expected, 0);

        // And all of it can be delivered from there.
        home.store.append(id, b"the end".to_vec(), None).wait().unwrap();
        home.store.seal_tail(id).wait().unwrap();
        match expected.last_mut() {
            Some((tail, open @ BoxState::Open)) => {
                tail.extend_from_slice(b"the end");
                *open = BoxState::Sealed;
            }
            _ => expected.push((b"the end".to_vec(), BoxState::Sealed)),
        }
        let left: Vec<_> = home.store.outgoing(id, BoxSeq(0), 99).unwrap().into_iter().map(|out| out.seq).collect();
        home.store.launch(id, 1, left.clone(), network()).wait().unwrap();
        home.store.confirm(id, left, BoxState::Stored).wait().unwrap();
        for (_, state) in expected.iter_mut().filter(|(_, state)| *state < BoxState::Stored) {
            *state = BoxState::Stored;
        }
        compare(&home.store, id, &WriteCap::from_seed(&SEED), &expected, 0);
    }
}

fn adopt_in(dir: &Path) {
    let store = open(dir);
    let id = store.by_name(&name("notes")).unwrap().unwrap().id;
    let (_, findings) = story();
    store.adopt(id).wait().unwrap();
    for (at, one) in (2..).zip(findings) {
        store.found(id, BoxSeq(at), vec![one]).wait().unwrap();
    }
    store.finish_adoption(id).wait().unwrap();
    store.close();
}

#[test]
fn an_adoption_child() {
    if let Some(dir) = std::env::var_os(DIR) {
        adopt_in(Path::new(&dir));
    }
}

#[test]
fn killed_at_any_commit_an_adoption_goes_on_and_comes_to_the_same() {
    let (boxes, findings) = story();
    let cap = WriteCap::from_seed(&SEED);
    let mut kills = 0;
    for at in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let id = fenced(&store, &boxes);
        store.close();
        drop(store);
        let status = child("store::tests::recovery::an_adoption_child", dir.path(), 0, Some(at)).wait().unwrap();
        let killed = was_killed(status);
        kills += u32::from(killed);
        let store = open(dir.path());
        if store.channel(id).unwrap().unwrap().fence.is_some() {
            compare(&store, id, &cap, &boxes, 0);
            store.close();
            drop(store);
            adopt_in(dir.path());
        } else {
            store.close();
            drop(store);
        }
        let store = open(dir.path());
        compare(&store, id, &cap, &adopted(&boxes, 2, &findings), 0);
        store.close();
        if !killed {
            break;
        }
    }
    assert!(kills >= 16, "eight requests, each with two points before it is answered: {kills}");
}
