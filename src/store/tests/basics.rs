//! Each request once, as its callers use it.

use super::super::*;
use super::{Home, bytes, name, network};
use crate::bacap::WriteCap;

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
    assert_eq!(store.launch(id, 0, all.clone(), network()).wait(), Ok(Binding::Bound), "bound with its first launch");
    assert_eq!(store.launch(id, 0, all.clone(), network()).wait(), Ok(Binding::Matches));
    let elsewhere = NetworkId::new([[9; 32]]);
    assert_eq!(store.launch(id, 0, all, elsewhere).wait(), Ok(Binding::Refused));
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

#[test]
fn names_and_capabilities_are_held_once() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("notes", 1);
    let cap = |seed: u8| WriteCap::from_seed(&[seed; 32]);
    let taken = StoreError::NameTaken { name: "notes".to_owned() };
    assert_eq!(store.create_stream(name("notes"), cap(2)).wait(), Err(taken.clone()));
    let known = StoreError::CapKnown { name: "notes".to_owned() };
    assert_eq!(store.create_stream(name("again"), cap(1)).wait(), Err(known.clone()));
    let later = cap(1).with_index(cap(1).index().next().unwrap());
    assert_eq!(store.create_stream(name("again"), later).wait(), Err(known), "the same root key");
    // Our own channel may be read as others read it.
    let reader = store.add_reader(name("seen"), cap(1).read_cap().clone()).wait().unwrap();
    let known = StoreError::CapKnown { name: "seen".to_owned() };
    assert_eq!(store.add_reader(name("again"), cap(1).read_cap().clone()).wait(), Err(known));
    assert_eq!(store.cap(reader).unwrap(), Capability::Read(cap(1).read_cap().clone()));

    assert_eq!(store.rename(name("seen"), name("notes")).wait(), Err(taken));
    assert_eq!(store.rename(name("absent"), name("new")).wait(), Err(StoreError::NoChannel));
    store.rename(name("notes"), name("notes")).wait().unwrap();
    store.rename(name("notes"), name("diary")).wait().unwrap();
    assert_eq!(store.by_name(&name("diary")).unwrap().unwrap().id, id);
    assert_eq!(store.by_name(&name("notes")).unwrap(), None);
    let page = store.channels(None, 1).unwrap();
    assert_eq!(page[0].name, name("diary"));
    assert_eq!(store.channels(Some(&page[0].name), 9).unwrap()[0].name, name("seen"));
}

#[test]
fn a_rename_replaces_only_what_could_be_unlinked() {
    let home = Home::new();
    let store = &home.store;
    let (new, old) = (home.writer("new", 1), home.writer("old", 2));
    store.append(old, bytes(100, 1), None).wait().unwrap();
    store.rename_over(name("new"), name("old")).wait().unwrap();
    assert_eq!(store.by_name(&name("old")).unwrap().unwrap().id, new);
    assert_eq!(store.channel(old).unwrap(), None);
    assert_eq!(store.spool_bytes().unwrap(), 0);

    let shown = home.writer("shown", 3);
    store.reveal(shown, false).wait().unwrap();
    let refused = StoreError::AlreadyLaunched { name: "shown".to_owned() };
    assert_eq!(store.rename_over(name("old"), name("shown")).wait(), Err(refused));
    assert_eq!(store.rename_over(name("absent"), name("old")).wait(), Err(StoreError::NoChannel));
    assert_eq!(store.channels(None, 9).unwrap().len(), 2);
    store.rename_over(name("old"), name("old")).wait().unwrap();
    assert!(store.channel(new).unwrap().is_some());
}

#[test]
fn a_capability_that_was_shown_is_never_taken_back() {
    let home = Home::new();
    let store = &home.store;
    let cap = WriteCap::from_seed(&[1; 32]);
    let id = home.writer("notes", 1);
    store.append(id, bytes(10, 1), None).wait().unwrap();
    assert_eq!(*store.reveal(id, false).wait().unwrap(), *cap.read_cap().to_base64());
    assert_eq!(*store.reveal(id, true).wait().unwrap(), *cap.to_base64());
    let refused = Err(StoreError::AlreadyLaunched { name: "notes".to_owned() });
    assert_eq!(store.truncate(id).wait(), refused);
    assert_eq!(store.unlink(id).wait(), refused);
    let empty = home.writer("empty", 2);
    store.reveal(empty, false).wait().unwrap();
    store.truncate(empty).wait().unwrap();
    let reader = store.add_reader(name("news"), cap.read_cap().clone()).wait().unwrap();
    assert_eq!(*store.reveal(reader, false).wait().unwrap(), *cap.read_cap().to_base64());
    assert_eq!(store.reveal(reader, true).wait(), Err(StoreError::ReadOnly));
}

#[test]
fn a_channel_stays_with_the_network_of_its_first_launch() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("notes", 1);
    store.append(id, bytes(2000, 1), None).wait().unwrap();
    let other = NetworkId::new([[7; 32], [8; 32], [9; 32]]);
    let bind = |network: &NetworkId| store.bind_network(id, network.clone()).wait();
    assert_eq!(bind(&other), Ok(Binding::Bound));
    assert_eq!(bind(&other), Ok(Binding::Matches));
    assert_eq!(bind(&network()), Ok(Binding::Bound), "nothing was launched there");
    store.launch(id, 0, vec![BoxSeq(0)], network()).wait().unwrap();
    assert_eq!(bind(&other), Ok(Binding::Refused));
    assert_eq!(bind(&NetworkId::new([])), Ok(Binding::Refused));
    assert_eq!(bind(&NetworkId::new([[1; 32], [3; 32], [4; 32]])), Ok(Binding::Matches), "two of three are known");
    assert_eq!(store.channel(id).unwrap().unwrap().network, Some(network()));
}

#[test]
fn a_fence_stops_appends_and_launches_and_keeps_its_first_reason() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("notes", 1);
    store.append(id, bytes(2000, 1), None).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    store.launch(id, 0, vec![BoxSeq(0)], network()).wait().unwrap();
    store.fence(id, "first".to_owned()).wait().unwrap();
    store.fence(id, "second".to_owned()).wait().unwrap();
    let fenced = StoreError::Fenced { name: "notes".to_owned(), reason: "first".to_owned() };
    assert_eq!(store.append(id, vec![1], None).wait(), Err(fenced.clone()));
    store.seal_tail(id).wait().unwrap();
    assert_eq!(store.launch(id, 0, vec![BoxSeq(1)], network()).wait(), Err(fenced));
    store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    assert_eq!(store.read(id, 0, 9000).unwrap(), bytes(2000, 1), "the bytes stay");
}

#[test]
fn what_was_not_launched_is_packed_anew() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("notes", 1);
    let all = bytes(1549 * 3 + 700, 1);
    store.append(id, all.clone(), None).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    store.launch(id, 0, vec![BoxSeq(0)], network()).wait().unwrap();
    let lengths =
        || -> Vec<usize> { store.outgoing(id, BoxSeq(0), 99).unwrap().iter().map(|out| out.payload.len()).collect() };
    store.set_max_plaintext(id, 2000).wait().unwrap();
    assert_eq!(lengths(), [1549, 2000], "what was launched stays, and the rest is open");
    let told = store.channel(id).unwrap().unwrap();
    assert_eq!((told.tail_bytes, told.rewrites, told.max_plaintext), (3798 - 2000, 1, 2000));
    assert_eq!(store.launch(id, 0, vec![BoxSeq(1)], network()).wait(), Err(StoreError::Rewritten));
    store.seal_tail(id).wait().unwrap();
    assert_eq!(store.read(id, 0, 9000).unwrap(), all);
    store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    store.set_max_plaintext(id, 100).wait().unwrap();
    assert_eq!(store.channel(id).unwrap().unwrap().boxes, 1 + 38);
    store.append(id, bytes(50, 2), None).wait().unwrap();
    assert_eq!(store.read(id, 0, 9000).unwrap(), [all, bytes(50, 2)].concat());
    // Now one that was launched, is not confirmed, and does not fit.
    store.launch(id, 2, vec![BoxSeq(1)], network()).wait().unwrap();
    store.set_max_plaintext(id, 99).wait().unwrap();
    let told = store.channel(id).unwrap().unwrap();
    assert!(told.fence.unwrap().contains("99 bytes"));
    assert_eq!((told.max_plaintext, told.unfit), (100, Some(100)));
    // A network where it fits lifts the fence that only a smaller one had brought.
    store.set_max_plaintext(id, 98).wait().unwrap();
    assert_eq!(store.channel(id).unwrap().unwrap().unfit, Some(100));
    store.set_max_plaintext(id, 100).wait().unwrap();
    let told = store.channel(id).unwrap().unwrap();
    assert_eq!((told.fence, told.unfit), (None, None));
    assert!(store.append(id, vec![1], None).wait().is_ok());
    // A fence for another reason stays, also where a box did not fit before.
    store.set_max_plaintext(id, 49).wait().unwrap();
    assert_eq!(store.channel(id).unwrap().unwrap().unfit, Some(100));
    store.fence(id, "another writer was there".to_owned()).wait().unwrap();
    store.set_max_plaintext(id, 99).wait().unwrap();
    store.set_max_plaintext(id, 100).wait().unwrap();
    let told = store.channel(id).unwrap().unwrap();
    assert_eq!((told.fence.as_deref(), told.unfit), (Some("another writer was there"), None));
    assert_eq!(store.set_max_plaintext(id, 0).wait(), Err(StoreError::BadMaxPlaintext { bytes: 0 }));
}

#[test]
fn times_and_dropped_bits_are_kept() {
    use std::time::{Duration, UNIX_EPOCH};
    let home = Home::new();
    let id = home.writer("notes", 1);
    let (accessed, modified) = (UNIX_EPOCH + Duration::new(1_000_000_000, 5), UNIX_EPOCH - Duration::from_secs(60));
    home.store.set_attributes(id, Some(accessed), Some(modified), Some(0o200)).wait().unwrap();
    home.store.set_attributes(id, None, None, None).wait().unwrap();
    let home = home.reopened();
    let told = home.store.channel(id).unwrap().unwrap();
    assert_eq!((told.accessed, told.modified, told.dropped_mode), (accessed, modified, 0o200));
    home.store.append(id, vec![1], None).wait().unwrap();
    assert!(home.store.channel(id).unwrap().unwrap().modified > accessed);
    let gone = home.store.set_attributes(ChannelId(99), None, None, None).wait();
    assert_eq!(gone, Err(StoreError::NoChannel));
}
