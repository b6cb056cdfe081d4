//! Each request once, as its callers use it.

use super::super::*;
use super::{Home, bytes, name, network};

#[test]
fn appended_bytes_are_read_back_at_every_border() {
    let home = Home::new();
    let id = home.writer("notes", 1);
    let m = PROVISIONAL_MAX_PLAINTEXT as usize;
    let mut model: Vec<u8> = Vec::new();
    for len in [1, m - 2, 1, 1, m, 2 * m, 3 * m + 7, 0, 5] {
        let bytes = bytes(len, model.len());
        let appended = home.store.append(id, bytes.clone(), None).wait().unwrap();
        assert_eq!(appended, Appended { offset: model.len() as u64, size: (model.len() + len) as u64 });
        model.extend(bytes);
    }
    let channel = home.store.channel(id).unwrap().unwrap();
    assert_eq!(channel.size, model.len() as u64);
    assert_eq!(channel.boxes, (model.len() / m + 1) as u64);
    assert_eq!(channel.tail_bytes, (model.len() % m) as u64);
    for at in (0..model.len() + 3).step_by(97).chain([m - 1, m, m + 1, model.len() - 1]) {
        for len in [0, 1, 2, m, 4096] {
            let expected = &model[at.min(model.len())..(at + len).min(model.len())];
            assert_eq!(home.store.read(id, at as u64, len).unwrap(), expected, "{len} bytes at {at}");
        }
    }
    let home = home.reopened();
    assert_eq!(home.store.read(id, 0, MAX_READ_BYTES).unwrap(), model);
    assert_eq!(home.store.channel(id).unwrap().unwrap(), channel);
}

#[test]
fn a_box_goes_through_its_states() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("notes", 1);
    store.append(id, vec![7; 4000], None).wait().unwrap();
    assert_eq!(store.outgoing(id, BoxSeq(0), 10).unwrap().len(), 2);
    assert!(store.seal_tail(id).wait().unwrap());
    assert!(!store.seal_tail(id).wait().unwrap());
    let all = vec![BoxSeq(0), BoxSeq(1), BoxSeq(2)];
    assert_eq!(store.launch(id, 0, all.clone()).wait(), Err(StoreError::Unbound));
    assert_eq!(store.bind_network(id, network()).wait(), Ok(Binding::Bound));
    store.launch(id, 0, all.clone()).wait().unwrap();
    store.launch(id, 0, all).wait().unwrap();
    assert_eq!(store.truncate(id).wait(), Err(StoreError::AlreadyLaunched { name: "notes".to_owned() }));
    assert_eq!(store.unlink(id).wait(), Err(StoreError::AlreadyLaunched { name: "notes".to_owned() }));
    store.confirm(id, vec![BoxSeq(1)], BoxState::Stored).wait().unwrap();
    let channel = store.channel(id).unwrap().unwrap();
    assert_eq!(
        (channel.stored_bytes, channel.first_unstored, channel.stored_boxes),
        (0, BoxSeq(0), 1),
        "box 0 is missing"
    );
    store.confirm(id, vec![BoxSeq(0)], BoxState::Couriered).wait().unwrap();
    store.confirm(id, vec![BoxSeq(0), BoxSeq(1)], BoxState::Stored).wait().unwrap();
    let channel = store.channel(id).unwrap().unwrap();
    assert_eq!((channel.stored_bytes, channel.first_unstored, channel.stored_boxes), (3098, BoxSeq(2), 2));
    assert_eq!(store.spool_bytes().unwrap(), 902);
    store.forget(name("notes")).wait().unwrap();
    assert_eq!(store.spool_bytes().unwrap(), 0);
    assert!(store.channel(id).unwrap().is_none());
}
