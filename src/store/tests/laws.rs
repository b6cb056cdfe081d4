//! The schema refuses what must never happen, whoever asks: here by plain SQL, past all the code of the store.

use rusqlite::Connection;

use super::super::*;
use super::{Home, bytes, name, network};
use crate::bacap::WriteCap;

/// A store with a channel whose boxes are stored, launched, sealed and open, in this order, and one that we read.
fn furnished() -> Home {
    let home = Home::new();
    let store = &home.store;
    home.writer("empty", 2);
    let id = home.writer("notes", 1);
    store.append(id, bytes(3 * 1549 + 10, 1), None).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    store.launch(id, 0, vec![BoxSeq(0), BoxSeq(1)], network()).wait().unwrap();
    store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    let reader = store.add_reader(name("news"), WriteCap::from_seed(&[9; 32]).read_cap().clone()).wait().unwrap();
    store
        .received(reader, vec![(BoxSeq(0), Arrival::Message(vec![1])), (BoxSeq(2), Arrival::Tombstone)])
        .wait()
        .unwrap();
    home
}

fn refused(db: &Connection, sql: &str) -> String {
    match db.execute_batch(sql) {
        Ok(()) => panic!("{sql} was carried out"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn no_sql_breaks_a_law() {
    let home = furnished();
    home.store.close();
    let db = Connection::open(home.state.database()).unwrap();
    db.execute_batch("INSERT INTO chain (id) VALUES (99)").unwrap();
    // The chains of `empty`, `notes` and `news` were made in this order.
    let (notes, news) = ("chain = 2", "chain = 3");
    let laws = [
        ("bound for ever", format!("UPDATE box SET payload = x'00' WHERE {notes} AND seq = 0")),
        ("bound for ever", format!("UPDATE box SET payload = x'00' WHERE {notes} AND seq = 1")),
        ("bound for ever", format!("UPDATE box SET payload = x'00' WHERE {notes} AND seq = 2")),
        ("bound for ever", format!("UPDATE box SET payload = x'00', state = 1 WHERE {notes} AND seq = 3")),
        ("bound for ever", format!("UPDATE box SET index104 = zeroblob(104) WHERE {notes} AND seq = 1")),
        ("bound for ever", format!("UPDATE box SET seq = 77 WHERE {notes} AND seq = 1")),
        ("bound for ever", format!("UPDATE box SET chain = 3 WHERE {notes} AND seq = 2")),
        ("bound for ever", format!("UPDATE box SET payload = x'02' WHERE {news} AND seq = 0")),
        ("never changes", format!("UPDATE box SET offset = 5 WHERE {notes} AND seq = 1")),
        ("never changes", format!("UPDATE box SET offset = NULL WHERE {news} AND seq = 0")),
        ("one by one", format!("UPDATE box SET state = 1 WHERE {notes} AND seq = 1")),
        ("one by one", format!("UPDATE box SET state = 3 WHERE {notes} AND seq = 0")),
        ("one by one", format!("UPDATE box SET state = 3 WHERE {notes} AND seq = 2")),
        ("one by one", format!("UPDATE box SET state = 2 WHERE {notes} AND seq = 3")),
        ("one by one", format!("UPDATE box SET state = 13 WHERE {news} AND seq = 0")),
        ("stays until", format!("DELETE FROM box WHERE {notes} AND seq = 0")),
        ("stays until", format!("DELETE FROM box WHERE {notes} AND seq = 1")),
        ("stays until", format!("DELETE FROM box WHERE {news} AND seq = 2")),
        ("begins open or sealed", insert("empty", 0, 2, 0)),
        ("follows the sealed one", insert("notes", 4, 1, 4657)),
        ("follows the sealed one", insert("notes", 9, 1, 4657)),
        ("UNIQUE", insert("notes", 2, 1, 3098)),
        ("first box begins", insert("empty", 0, 0, 1)),
        ("CHECK", "UPDATE box SET payload = x'', state = 0 WHERE seq = 3".to_owned()),
        ("never changes", "UPDATE channel SET cap = zeroblob(168) WHERE name = 'notes'".to_owned()),
        ("never changes", "UPDATE channel SET role = 1 WHERE name = 'notes'".to_owned()),
        ("never taken back", "UPDATE channel SET launched = 0 WHERE name = 'notes'".to_owned()),
        ("stays with its network", "UPDATE channel SET network = NULL WHERE name = 'notes'".to_owned()),
        ("stays so", "UPDATE channel SET stored_bytes = 0 WHERE name = 'notes'".to_owned()),
        ("stays so", "UPDATE channel SET frontier = 0 WHERE name = 'news'".to_owned()),
        ("only by forgetting", "UPDATE chain SET abandoned = 1 WHERE id = 2".to_owned()),
        ("only by forgetting", "UPDATE chain SET abandoned = 1 WHERE id = 3".to_owned()),
        ("by abandoning", "DELETE FROM channel WHERE name = 'notes'".to_owned()),
        ("leaves its boxes", "UPDATE channel SET chain = 99 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET size = 1 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET dropped_boxes = 2 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET dropped_bytes = 1550 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET dropped_boxes = 1 WHERE name = 'news'".to_owned()),
        ("CHECK", "UPDATE channel SET swept_boxes = 1 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET boxes = 1 WHERE name = 'notes'".to_owned()),
        ("CHECK", "UPDATE channel SET launched = 1 WHERE name = 'news'".to_owned()),
    ];
    for (law, sql) in laws {
        let error = refused(&db, &sql);
        assert!(error.contains(law), "{sql}\n  was refused for another reason: {error}");
    }
}

fn insert(channel: &str, seq: u64, state: u8, offset: u64) -> String {
    format!(
        "INSERT INTO box (chain, seq, state, index104, offset, payload)
         SELECT chain, {seq}, {state}, zeroblob(104), {offset}, x'07' FROM channel WHERE name = '{channel}'"
    )
}

#[test]
fn an_abandoned_chain_takes_no_boxes() {
    let home = furnished();
    home.store.close();
    let db = Connection::open(home.state.database()).unwrap();
    db.execute_batch("INSERT INTO chain (id) VALUES (99)").unwrap();
    let sql =
        "INSERT INTO box (chain, seq, state, index104, offset, payload) VALUES (99, 0, 0, zeroblob(104), 0, x'07')";
    assert!(refused(&db, sql).contains("belongs to a channel"));
}
