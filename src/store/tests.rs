use std::time::Instant;

use super::*;
use crate::bacap::WriteCap;

fn open(dir: &std::path::Path) -> (StateDir, Store) {
    let state = StateDir::lock(dir).expect("a free directory");
    let store = Store::open(&state, Limits::default()).expect("opens");
    (state, store)
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a name")
}

fn stream(store: &Store, at: &str) -> ChannelId {
    store.create_stream(name(at), WriteCap::from_seed(&[at.len() as u8; 32])).wait().expect("a free name")
}

fn channel(store: &Store, id: ChannelId) -> Channel {
    store.channel(id).expect("looked up").expect("there")
}

#[test]
fn bytes_go_into_boxes_and_come_back_across_every_border() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_state, store) = open(dir.path());
    let id = stream(&store, "log");
    let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n * 7 >> 3) as u8).collect();
    for part in bytes.chunks(700) {
        store.append(id, part.to_vec(), None).wait().expect("accepted");
    }
    let told = channel(&store, id);
    assert_eq!((told.size, told.boxes, told.tail_bytes), (10_000, 7, 10_000 - 6 * 1549));
    for (offset, len) in [(0, 10_000), (1548, 3), (1549, 1549), (9_999, 5), (10_000, 5), (3, 0)] {
        let end = (offset + len).min(bytes.len());
        assert_eq!(store.read(id, offset as u64, len).expect("read"), bytes[offset..end], "{offset} {len}");
    }
    assert_eq!(store.outgoing(id, BoxSeq(0), 100).expect("boxes").len(), 6, "the tail is open");
    assert!(store.seal_tail(id).wait().expect("sealed"));
    assert_eq!(store.outgoing(id, BoxSeq(4), 100).expect("boxes").len(), 3);
}

#[test]
fn a_stream_can_be_taken_back_until_its_first_launch() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_state, store) = open(dir.path());
    let id = stream(&store, "log");
    store.append(id, b"one".to_vec(), None).wait().expect("accepted");
    store.truncate(id).wait().expect("nothing has left");
    assert_eq!(store.spool_bytes().expect("known"), 0);
    store.append(id, b"two".to_vec(), None).wait().expect("accepted");
    store.seal_tail(id).wait().expect("sealed");
    let stale = store.launch(id, 0, vec![BoxSeq(0)]).wait();
    assert!(matches!(stale, Err(StoreError::Rewritten)), "looked up before the truncate: {stale:?}");
    store.launch(id, channel(&store, id).rewrites, vec![BoxSeq(0)]).wait().expect("launched");
    for refused in [store.truncate(id).wait(), store.unlink(id).wait()] {
        assert!(matches!(refused, Err(StoreError::AlreadyLaunched { .. })), "{refused:?}");
    }
    store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().expect("confirmed");
    let told = channel(&store, id);
    assert_eq!((told.stored_bytes, told.stored_boxes, told.first_unstored), (3, 1, BoxSeq(1)));
}

#[test]
fn boxes_that_arrive_out_of_order_are_read_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_state, store) = open(dir.path());
    let cap = WriteCap::from_seed(&[1; 32]);
    let id = store.add_reader(name("news"), cap.read_cap().clone()).wait().expect("added");
    let message = |text: &str| Arrival::Message(text.as_bytes().to_vec());
    store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().expect("kept");
    assert!(channel(&store, id).verdict.is_some());
    store.received(id, vec![(BoxSeq(2), message("c"))]).wait().expect("kept");
    let told = channel(&store, id);
    assert!(told.later_known && told.size == 0);
    store.received(id, vec![(BoxSeq(1), Arrival::Tombstone), (BoxSeq(0), message("a"))]).wait().expect("kept");
    let told = channel(&store, id);
    assert_eq!((told.size, told.frontier, told.later_known, told.verdict), (2, BoxSeq(3), false, None));
    assert_eq!(store.read(id, 0, 10).expect("read"), b"ac");
    assert_eq!(store.read(id, 1, 10).expect("read"), b"c");
    let expected = cap.index().advance_to(cap.index().counter() + 5).expect("forward");
    assert_eq!(store.index_of(id, BoxSeq(5)).expect("derived"), expected);
}

#[test]
fn what_is_too_long_for_a_network_is_packed_anew_where_it_was_not_launched() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_state, store) = open(dir.path());
    let id = stream(&store, "log");
    let bytes: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
    store.append(id, bytes.clone(), None).wait().expect("accepted");
    store.set_max_plaintext(id, 1000).wait().expect("fitted");
    let told = channel(&store, id);
    assert_eq!((told.size, told.boxes, told.tail_bytes, told.rewrites), (5_000, 5, 0, 1));
    assert_eq!(store.read(id, 0, 5_000).expect("read"), bytes);
    let boxes = store.outgoing(id, BoxSeq(0), 10).expect("boxes");
    assert_eq!(boxes.iter().map(|out| out.payload.len()).collect::<Vec<_>>(), vec![1000; 5]);
}

#[test]
fn many_small_appends_are_fast_enough_to_notice_when_they_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_state, store) = open(dir.path());
    let id = stream(&store, "log");
    let start = Instant::now();
    let commits: Vec<_> = (0..500).map(|_| store.append(id, vec![7; 100], None)).collect();
    for commit in commits {
        commit.wait().expect("accepted");
    }
    eprintln!("500 appends of 100 bytes, pipelined: {:?}", start.elapsed());
    let start = Instant::now();
    store.append(id, vec![7; 1 << 20], None).wait().expect("accepted");
    eprintln!("one append of 1 MiB: {:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..50 {
        store.append(id, vec![7; 100], None).wait().expect("accepted");
    }
    eprintln!("50 appends, one by one: {:?}", start.elapsed());
    assert_eq!(channel(&store, id).size, 50_000 + (1 << 20) + 5_000);
}
