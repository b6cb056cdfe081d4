//! What is kept is bounded: the cache pauses, sent plaintext goes oldest first, and a person can make room.

use std::thread;

use super::super::*;
use super::{Home, LIMITS, bytes, name, network};
use crate::bacap::WriteCap;

const M: usize = PROVISIONAL_MAX_PLAINTEXT as usize;

fn reader(store: &Store, text: &str, seed: u8) -> ChannelId {
    store.add_reader(name(text), WriteCap::from_seed(&[seed; 32]).read_cap().clone()).wait().unwrap()
}

fn arrive(store: &Store, id: ChannelId, seq: u64, len: usize) {
    let message = Arrival::Message(bytes(len, usize::try_from(seq).unwrap()));
    store.received(id, vec![(BoxSeq(seq), message)]).wait().unwrap();
}

/// Appends whole boxes and has them stored.
fn store_boxes(store: &Store, id: ChannelId, boxes: u64) {
    let from = store.channel(id).unwrap().unwrap().boxes;
    store.append(id, bytes(M * usize::try_from(boxes).unwrap(), 1), None).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    let seqs: Vec<_> = (from..from + boxes).map(BoxSeq).collect();
    store.launch(id, 0, seqs.clone(), network()).wait().unwrap();
    store.confirm(id, seqs, BoxState::Stored).wait().unwrap();
}

fn rows(store: &Store) -> i64 {
    store.readers().ask(|db| Ok(db.query_row("SELECT count(*) FROM box", [], |row| row.get(0))?)).unwrap()
}

#[test]
fn a_channel_that_fills_its_share_of_the_cache_is_paused_alone_until_it_is_trimmed() {
    let home = Home::with(Limits { cache_channel_bytes: 1000, cache_bytes: 5000, ..LIMITS });
    let store = &home.store;
    let (flood, quiet) = (reader(store, "flood", 1), reader(store, "quiet", 2));
    let paused = |id| store.channel(id).unwrap().unwrap().paused;
    arrive(store, flood, 0, 400);
    arrive(store, flood, 5, 500);
    assert!(!paused(flood));
    arrive(store, flood, 2, 100);
    assert!(paused(flood), "what is past the frontier takes room too");
    assert!(!paused(quiet));
    assert_eq!(store.trim(flood, 0).wait(), Ok(0), "the last box before the frontier stays, and what is past it");
    arrive(store, flood, 1, 300);
    assert_eq!(store.trim(flood, 400).wait(), Ok(400));
    let told = store.channel(flood).unwrap().unwrap();
    assert_eq!((told.size, told.dropped_bytes, told.held_bytes, told.paused), (800, 400, 900, false));
    assert_eq!(store.read(flood, 399, 9), Err(StoreError::Dropped { end: 400 }));
    assert_eq!(store.read(flood, 400, 300).unwrap(), bytes(300, 1));

    // All of them together have a limit too.
    for (seed, text) in (3..).zip(["a", "b", "c", "d", "e"]) {
        arrive(store, reader(store, text, seed), 0, 900);
    }
    assert!(paused(quiet), "{:?}", store.usage());
    store.forget(name("a")).wait().unwrap();
    assert!(!paused(quiet));
    assert_eq!(store.usage().unwrap().cache_bytes, 4 * 900 + 900);
}

#[test]
fn more_sent_plaintext_than_may_be_kept_goes_oldest_first() {
    let limit = 16 * M as u64;
    let home = Home::with(Limits { sent_bytes: limit, ..LIMITS });
    let store = &home.store;
    let (old, new) = (home.writer("old", 1), home.writer("new", 2));
    store_boxes(store, old, 10);
    store_boxes(store, new, 6);
    assert_eq!(store.usage().unwrap().sent_bytes, limit, "as much as may be");
    store_boxes(store, new, 1);
    // The writer thread drops while nothing else is asked of it.
    while store.usage().unwrap().sent_bytes > limit || rows(store) > 16 {
        thread::yield_now();
    }
    let told = |id| store.channel(id).unwrap().unwrap();
    assert_eq!((told(old).dropped_bytes, told(new).dropped_bytes), (2 * M as u64, 0), "one, and a sixteenth of slack");
    assert_eq!((told(old).size, told(old).stored_bytes, told(old).boxes), (10 * M as u64, 10 * M as u64, 10));
    assert_eq!(store.read(old, 0, 9), Err(StoreError::Dropped { end: 2 * M as u64 }));
    assert_eq!(store.read(old, 2 * M as u64, 9).unwrap(), bytes(M * 10, 1)[2 * M..2 * M + 9]);
    store_boxes(store, old, 1);
    let home = home.reopened();
    let told = home.store.channel(old).unwrap().unwrap();
    assert_eq!((told.dropped_bytes, told.boxes), (2 * M as u64, 11), "it goes on behind what is left");
}

#[test]
fn what_no_replica_has_is_never_dropped() {
    let home = Home::with(Limits { sent_bytes: 0, ..LIMITS });
    let store = &home.store;
    let id = home.writer("notes", 1);
    store_boxes(store, id, 3);
    store.append(id, bytes(5 * M, 2), None).wait().unwrap();
    store.trim(id, 0).wait().unwrap();
    let told = store.channel(id).unwrap().unwrap();
    assert_eq!((told.dropped_bytes, told.held_bytes), (3 * M as u64, 5 * M as u64));
    assert_eq!(store.read(id, 3 * M as u64, MAX_READ_BYTES).unwrap(), bytes(5 * M, 2));
    assert_eq!(store.trim(ChannelId(99), 0).wait(), Err(StoreError::NoChannel));
}

#[test]
fn a_listing_changes_with_its_names_and_two_names_change_places() {
    let home = Home::new();
    let store = &home.store;
    let (one, two) = (home.writer("one", 1), home.writer("two", 2));
    let made = store.usage().unwrap().listing_changed;
    store.append(one, vec![1], None).wait().unwrap();
    assert_eq!(store.usage().unwrap().listing_changed, made, "bytes are no names");
    store.exchange(name("one"), name("two")).wait().unwrap();
    store.exchange(name("one"), name("one")).wait().unwrap();
    assert_eq!(store.exchange(name("one"), name("absent")).wait(), Err(StoreError::NoChannel));
    assert_eq!(store.by_name(&name("one")).unwrap().unwrap().id, two);
    assert_eq!(store.by_name(&name("two")).unwrap().unwrap().id, one);
    let exchanged = store.usage().unwrap().listing_changed;
    assert!(exchanged > made);
    store.unlink(two).wait().unwrap();
    assert!(store.usage().unwrap().listing_changed > exchanged);
}
