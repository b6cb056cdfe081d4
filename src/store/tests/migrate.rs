//! A state that an earlier version left is taken over with all that is in it.

use rusqlite::{Connection, params};

use super::super::migrations::{MIGRATIONS, migrate};
use super::super::*;
use super::{LIMITS, RESERVE_BYTES, bytes, network};
use crate::bacap::WriteCap;

/// What a version that knew only the first schema may have left: a stream with stored, launched and open boxes, and a
/// channel that is read, with a box past its frontier.
fn first_schema(state: &StateDir) {
    let mut db = Connection::open(state.database()).unwrap();
    migrate(&mut db, &MIGRATIONS[..1]).unwrap();
    let (writer, reader) = (WriteCap::from_seed(&[1; 32]), WriteCap::from_seed(&[2; 32]));
    db.execute("INSERT INTO network (id, keys) VALUES (1, ?1)", [network().to_bytes()]).unwrap();
    db.execute_batch("INSERT INTO chain (id) VALUES (1), (2)").unwrap();
    let mut index = writer.index().clone();
    for _ in 0..3 {
        index = index.next().unwrap();
    }
    db.execute(
        "INSERT INTO channel (id, name, role, cap, chain, next_index, network, max_plaintext, created, modified,
                              accessed, launched, size, boxes, tail_bytes, launched_end, stored_boxes, first_unstored,
                              stored_bytes)
         VALUES (1, 'notes', 0, ?1, 1, ?2, 1, 100, 1000, 5000, 1000, 1, 250, 3, 50, 2, 1, 1, 100)",
        params![&writer.to_bytes()[..], index.as_bytes()],
    )
    .unwrap();
    let frontier = reader.index().next().unwrap();
    db.execute(
        "INSERT INTO channel (id, name, role, cap, chain, next_index, max_plaintext, created, modified, accessed,
                              size, boxes, frontier)
         VALUES (2, 'news', 1, ?1, 2, ?2, 100, 2000, 3000, 2000, 70, 3, 1)",
        params![&reader.read_cap().to_bytes()[..], frontier.as_bytes()],
    )
    .unwrap();
    let boxes =
        [(1, 0, 1, Some(0), bytes(100, 0)), (1, 1, 1, Some(100), bytes(100, 1)), (1, 2, 0, Some(200), bytes(50, 2))];
    let arrived = [(2, 0, 12, Some(0), bytes(70, 3)), (2, 2, 12, None, bytes(30, 4))];
    for (chain, seq, state, offset, payload) in boxes.into_iter().chain(arrived) {
        let mut index = if chain == 1 { writer.index().clone() } else { reader.index().clone() };
        for _ in 0..seq {
            index = index.next().unwrap();
        }
        db.execute(
            "INSERT INTO box (chain, seq, state, index104, offset, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![chain, seq, state, index.as_bytes(), offset, payload],
        )
        .unwrap();
    }
    for (seq, state) in [(0, 2), (0, 3), (0, 4), (1, 2)] {
        db.execute("UPDATE box SET state = ?2 WHERE chain = 1 AND seq = ?1", [seq, state]).unwrap();
    }
    db.execute_batch("UPDATE spool SET bytes = 150").unwrap();
}

#[test]
fn a_state_of_the_first_schema_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::lock(dir.path()).unwrap();
    first_schema(&state);
    let store = Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.spool_bytes, usage.sent_bytes, usage.cache_bytes), (150, 100, 100));
    let (notes, news) = (ChannelId(1), ChannelId(2));
    let told = store.channel(notes).unwrap().unwrap();
    assert_eq!((told.size, told.stored_bytes, told.tail_bytes, told.dropped_bytes), (250, 100, 50, 0));
    assert_eq!(told.changed, told.modified);
    assert_eq!(store.read(notes, 0, 999).unwrap(), [bytes(100, 0), bytes(100, 1), bytes(50, 2)].concat());
    let told = store.channel(news).unwrap().unwrap();
    assert_eq!((told.size, told.held_bytes, told.later_known), (70, 100, true));

    // And it goes on from there.
    store.append(notes, bytes(60, 5), None).wait().unwrap();
    store.confirm(notes, vec![BoxSeq(1)], BoxState::Stored).wait().unwrap();
    store.received(news, vec![(BoxSeq(1), Arrival::Message(bytes(20, 6)))]).wait().unwrap();
    assert_eq!(store.read(news, 0, 999).unwrap(), [bytes(70, 3), bytes(20, 6), bytes(30, 4)].concat());
    assert_eq!(store.trim(notes, 100).wait(), Ok(100));
    let usage = store.usage().unwrap();
    assert_eq!((usage.spool_bytes, usage.sent_bytes, usage.cache_bytes), (110, 100, 120));
}
