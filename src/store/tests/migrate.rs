//! A state that an earlier version left is taken over with all that is in it.

use std::fs;
use std::path::PathBuf;

use super::super::migrations::MIGRATIONS;
use super::super::*;
use super::{Home, LIMITS, RESERVE_BYTES, bytes, name, network};
use crate::bacap::WriteCap;

fn kept(schema: usize) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata/schemas", &format!("{schema}.db")].iter().collect()
}

/// What lies in each of the kept databases: a stream with stored, launched and open boxes, a channel that is read with
/// a box past its frontier, and a drop with a file that waits.
fn fill(store: &Store) {
    let notes = store.create_stream(name("notes"), WriteCap::from_seed(&[1; 32])).wait().unwrap();
    store.set_max_plaintext(notes, 100).wait().unwrap();
    store.append(notes, bytes(250, 0), None).wait().unwrap();
    assert_eq!(store.bind_network(notes, network()).wait(), Ok(Binding::Bound));
    store.launch(notes, 0, vec![BoxSeq(0), BoxSeq(1)], network()).wait().unwrap();
    store.confirm(notes, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    let news = store.add_reader(name("news"), WriteCap::from_seed(&[2; 32]).read_cap().clone()).wait().unwrap();
    let arrived = |seq, len| (BoxSeq(seq), Arrival::Message(bytes(len, 3)));
    store.received(news, vec![arrived(0, 70), arrived(2, 30)]).wait().unwrap();
    store.create(name("photos"), WriteCap::from_seed(&[3; 32]), Content::Drop { allow_delete: false }).wait().unwrap();
}

#[test]
fn a_state_of_each_released_schema_is_taken_over_whole() {
    // The newest schema is released with the version that is built now.
    for schema in 1..MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        fs::copy(kept(schema), state.database()).expect("a database of each released schema is kept");
        holds_what_was_filled_in(&Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap());
    }
}

#[test]
fn a_state_of_this_version_holds_what_the_kept_ones_hold() {
    let home = Home::new();
    fill(&home.store);
    holds_what_was_filled_in(&home.reopened().store);
}

/// Makes the file for the newest schema, once, when it is released: `cargo test keep_the_newest_schema -- --ignored`.
#[test]
#[ignore = "writes into testdata"]
fn keep_the_newest_schema() {
    let home = Home::new();
    fill(&home.store);
    home.store.close();
    fs::create_dir_all(kept(0).parent().unwrap()).unwrap();
    fs::copy(home.state.database(), kept(MIGRATIONS.len())).unwrap();
}

fn holds_what_was_filled_in(store: &Store) {
    let usage = store.usage().unwrap();
    assert_eq!((usage.spool_bytes, usage.sent_bytes, usage.cache_bytes), (150, 100, 100));
    let notes = store.by_name(&name("notes")).unwrap().unwrap();
    assert_eq!((notes.size, notes.stored_bytes, notes.tail_bytes, notes.dropped_bytes), (250, 100, 50, 0));
    assert_eq!(store.read(notes.id, 0, 999).unwrap(), bytes(250, 0));
    let news = store.by_name(&name("news")).unwrap().unwrap();
    assert_eq!((news.size, news.held_bytes, news.later_known), (70, 100, true));
    assert!(store.by_name(&name("photos")).unwrap().unwrap().content.is_drop());

    // And it goes on from there.
    store.append(notes.id, bytes(60, 5), None).wait().unwrap();
    store.confirm(notes.id, vec![BoxSeq(1)], BoxState::Stored).wait().unwrap();
    store.received(news.id, vec![(BoxSeq(1), Arrival::Message(bytes(20, 6)))]).wait().unwrap();
    assert_eq!(store.read(news.id, 0, 999).unwrap(), [bytes(70, 3), bytes(20, 6), bytes(30, 3)].concat());
    assert_eq!(store.trim(notes.id, 100).wait(), Ok(100));
    let usage = store.usage().unwrap();
    assert_eq!((usage.spool_bytes, usage.sent_bytes, usage.cache_bytes), (110, 100, 120));
}
