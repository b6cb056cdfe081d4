//! Drops: records accepted, filled, packed anew, taken back; and records made of boxes that arrived.

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::*;
use super::{Home, LIMITS, bytes, name, network};
use crate::bacap::WriteCap;
use crate::drop::{Assembler, Cutter, Header, Input, Part, SyncKey, Total};

pub(super) const M: usize = 400;

fn key(seed: u8) -> SyncKey {
    SyncKey::of(WriteCap::from_seed(&[seed; 32]).read_cap())
}

fn header(name: &str, body: &[u8]) -> Header {
    let digest = Some(*blake3::hash(body).as_bytes());
    Header { name: name.to_owned(), size: body.len() as u64, digest, ..Header::default() }
}

impl Home {
    pub(super) fn drop(&self, text: &str, seed: u8, allow_delete: bool) -> ChannelId {
        let content = Content::Drop { allow_delete };
        let id = self.store.create(name(text), WriteCap::from_seed(&[seed; 32]), content).wait().unwrap();
        self.store.set_max_plaintext(id, M).wait().unwrap();
        id
    }

    pub(super) fn accept(&self, id: ChannelId, file: &str, body: &[u8]) -> RecordId {
        let new = NewRecord { header: header(file, body), staging: Some(format!("staged/{file}")), modified: None };
        self.store.accept(id, new).wait().unwrap()
    }

    pub(super) fn get(&self, id: ChannelId, record: RecordId) -> DropRecord {
        self.store.drop_record(id, record).unwrap().expect("the record")
    }

    /// Fills up to `boxes` boxes of the oldest record. False: there is none.
    pub(super) fn fill(&self, id: ChannelId, seed: u8, boxes: usize, body_of: impl Fn(&str) -> Vec<u8>) -> bool {
        let Some(record) = self.store.unfilled(id, None).unwrap() else { return false };
        let channel = self.store.channel(id).unwrap().unwrap();
        let first = record.first.map_or(channel.boxes, |first| first.0);
        let base = WriteCap::from_seed(&[seed; 32]).index().counter();
        let m = channel.max_plaintext;
        let cutter = Cutter::new(&record.header.clone().unwrap(), base + first, m, false, key(seed)).unwrap();
        let all = [cutter.head(), &body_of(&record.name)].concat();
        let position = record.head_bytes + record.taken;
        let ahead = &all[usize::try_from(position).unwrap()..];
        let cut = cutter.cut(position, base + channel.boxes, ahead);
        let slice = DropSlice {
            record: record.id,
            rewrites: channel.rewrites,
            max_plaintext: m,
            head_bytes: cutter.head().len() as u64,
            position,
            boxes: cut.into_iter().take(boxes).map(<[u8]>::to_vec).collect(),
        };
        self.store.fill(id, slice).wait().unwrap();
        true
    }

    pub(super) fn launch(&self, id: ChannelId, boxes: std::ops::Range<u64>, stored: bool) {
        let boxes: Vec<_> = boxes.map(BoxSeq).collect();
        self.store.bind_network(id, network()).wait().unwrap();
        let rewrites = self.store.channel(id).unwrap().unwrap().rewrites;
        self.store.launch(id, rewrites, boxes.clone(), network()).wait().unwrap();
        if stored {
            self.store.confirm(id, boxes, BoxState::Stored).wait().unwrap();
        }
    }

    /// The counts that the store keeps, which are those of a walk over all records.
    fn counts(&self, id: ChannelId) -> DropCounts {
        let kept = self.store.drop_counts(id).unwrap();
        let mut counts = DropCounts::default();
        for record in self.store.records(id, None, 1000).unwrap() {
            let is_part = record.part.is_some_and(|(_, part)| part > 0) && record.state.code() >= 10;
            match record.state {
                RecordState::Filled if record.stored => counts.complete += 1,
                RecordState::Waiting | RecordState::Filling | RecordState::Filled => counts.pending += 1,
                RecordState::Complete if is_part => {}
                RecordState::Complete => counts.complete += 1,
                RecordState::Incomplete => counts.incomplete += 1,
                RecordState::Deleting | RecordState::Deleted => counts.deleted += 1,
                RecordState::BrokenOff | RecordState::Broken => counts.broken += 1,
            }
        }
        assert_eq!(kept, counts);
        kept
    }

    fn spool(&self) -> u64 {
        self.store.usage().unwrap().spool_bytes
    }
}

#[test]
fn a_record_is_accepted_filled_stored_and_its_file_no_longer_needed() {
    let home = Home::new();
    let id = home.drop("box", 1, false);
    let body = bytes(1000, 3);
    let record = home.accept(id, "a", &body);
    assert_eq!(home.spool(), 1000, "accepted bytes count before they are in boxes");
    let told = home.get(id, record);
    assert_eq!((told.state, told.taken, told.first), (RecordState::Waiting, 0, None));
    assert!(home.fill(id, 1, 1, |_| body.clone()));
    let told = home.get(id, record);
    assert_eq!(
        (told.state, told.first, told.taken),
        (RecordState::Filling, Some(BoxSeq(0)), M as u64 - told.head_bytes)
    );
    let home = home.reopened();
    assert!(home.fill(id, 1, 99, |_| body.clone()));
    assert!(!home.fill(id, 1, 99, |_| body.clone()));
    let told = home.get(id, record);
    let boxes = home.store.channel(id).unwrap().unwrap().boxes;
    assert_eq!((told.state, told.end, told.taken), (RecordState::Filled, Some(BoxSeq(boxes)), 1000));
    assert_eq!(home.spool(), 1000 + told.head_bytes);
    assert_eq!(home.store.read(id, told.head_bytes, 9999).unwrap(), body);
    assert!(home.store.records_to_unstage().unwrap().is_empty());
    assert!(matches!(home.store.unstage(id, record).wait(), Err(StoreError::Law { .. })));
    home.launch(id, 0..boxes, true);
    assert_eq!(home.spool(), 0);
    let told = home.store.records_to_unstage().unwrap();
    assert_eq!((told.len(), told[0].stored), (1, true));
    home.store.unstage(id, record).wait().unwrap();
    assert_eq!(home.get(id, record).staging, None);
    assert_eq!(home.counts(id), DropCounts { complete: 1, ..DropCounts::default() });
    assert!(matches!(home.store.delete_record(id, record, false).wait(), Err(StoreError::RecordSent { .. })));
}

/// A file whose bytes are gone after a part of it was sent ends there; the next one begins right behind it.
#[test]
fn a_record_that_cannot_be_read_to_its_end_is_broken_off() {
    for allow_delete in [false, true] {
        let home = Home::new();
        let id = home.drop("box", 1, allow_delete);
        let body = |_: &str| bytes(1000, 1);
        let (a, b) = (home.accept(id, "a", &body("")), home.accept(id, "b", &body("")));
        let gone = || home.store.break_off(id, a, "gone".to_owned()).wait();
        assert!(home.fill(id, 1, 2, body));
        gone().unwrap();
        assert_eq!(home.get(id, a).state, RecordState::Waiting, "nothing of it was sent: it can be tried again");
        assert!(home.fill(id, 1, 2, body));
        home.launch(id, 0..1, false);
        gone().unwrap();
        let told = home.get(id, a);
        assert_eq!(
            (told.state, told.end, told.reason.as_deref()),
            (RecordState::BrokenOff, Some(BoxSeq(1)), Some("gone"))
        );
        assert_eq!(home.counts(id), DropCounts { pending: 1, broken: 1, ..DropCounts::default() });
        assert_eq!(home.spool(), told.head_bytes + told.taken + 1000, "what will never be sent takes no room");
        while home.fill(id, 1, 2, body) {}
        assert_eq!(home.get(id, b).first, Some(BoxSeq(1)));
        home.launch(id, 1..home.get(id, b).end.unwrap().0, true);
        home.store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
        assert_eq!(home.counts(id), DropCounts { complete: 1, broken: 1, ..DropCounts::default() });
        assert_eq!(home.spool(), 0);

        // A person is told of it until it is removed or sent again.
        let told = || home.store.broken_off(id, 9).unwrap().iter().map(|record| record.id).collect::<Vec<_>>();
        assert_eq!((told(), home.store.newest_broken(id, 9).unwrap().len()), (vec![a], 1));
        if allow_delete {
            home.store.delete_record(id, a, false).wait().unwrap();
            home.store.delete_record(id, a, true).wait().unwrap();
            assert_eq!(home.counts(id), DropCounts { complete: 1, deleted: 1, ..DropCounts::default() });
        } else {
            home.store.take_back(id, a).wait().unwrap();
        }
        assert_eq!((told(), home.store.newest_broken(id, 9).unwrap().len()), (vec![], 0));
    }
}

#[test]
fn a_drop_takes_files_and_a_stream_takes_bytes() {
    let home = Home::with(Limits { spool_bytes: 1500, ..LIMITS });
    let (id, stream) = (home.drop("box", 1, false), home.writer("log", 2));
    assert!(matches!(home.store.append(id, vec![1], None).wait(), Err(StoreError::IsADrop { .. })));
    assert!(matches!(home.store.truncate(id).wait(), Err(StoreError::IsADrop { .. })));
    let new = NewRecord { header: header("a", b""), staging: None, modified: None };
    assert!(matches!(home.store.accept(stream, new).wait(), Err(StoreError::IsAStream { .. })));
    home.accept(id, "a", &bytes(1000, 1));
    let more = NewRecord { header: header("b", &bytes(1000, 1)), staging: Some("b".to_owned()), modified: None };
    assert_eq!(home.store.accept(id, more).wait(), Err(StoreError::SpoolFull { spooled: 1000, limit: 1500 }));
}

#[test]
fn what_no_packet_has_left_of_is_taken_back() {
    let home = Home::new();
    let id = home.drop("box", 1, true);
    let body = |_: &str| bytes(1000, 1);
    let (a, b, c) = (home.accept(id, "a", &body("")), home.accept(id, "b", &body("")), home.accept(id, "c", &body("")));
    while home.fill(id, 1, 2, body) {}
    home.counts(id);
    home.store.take_back(id, b).wait().unwrap();
    home.counts(id);
    assert_eq!(home.store.unfilled(id, None).unwrap().unwrap().id, a, "what was behind it is filled anew");
    assert_eq!(home.spool(), 2000);
    while home.fill(id, 1, 2, body) {}
    home.launch(id, 0..1, false);
    assert!(matches!(home.store.take_back(id, a).wait(), Err(StoreError::RecordSent { .. })));
    home.store.take_back(id, c).wait().unwrap();
    while home.fill(id, 1, 2, body) {}
    let told = home.get(id, a);
    assert_eq!(told.state, RecordState::Filled);
    home.launch(id, 1..told.end.unwrap().0, false);
    home.store.confirm(id, (0..told.end.unwrap().0).map(BoxSeq).collect(), BoxState::Stored).wait().unwrap();
    home.store.delete_record(id, a, false).wait().unwrap();
    assert_eq!(home.store.records_to_delete().unwrap().len(), 1);
    home.store.delete_record(id, a, true).wait().unwrap();
    assert_eq!(home.get(id, a).state, RecordState::Deleted);
    assert_eq!(home.counts(id), DropCounts { deleted: 1, ..DropCounts::default() });
    // Forgotten, its rows go in slices and its bytes no longer count.
    home.accept(id, "d", &body(""));
    home.store.forget(name("box")).wait().unwrap();
    let home = home.reopened();
    let gone = |_| home.spool() == 0;
    assert!((0..1000).map(|_| std::thread::sleep(std::time::Duration::from_millis(5))).any(gone));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However often the geometry changes, and wherever: what was launched stays, and a reader gets every file.
    #[test]
    fn records_outlive_changes_of_the_geometry(
        sizes in prop::collection::vec(0_usize..3000, 1..4),
        steps in prop::collection::vec((0_usize..6, 300_usize..900), 0..8),
        slice in 1_usize..5,
    ) {
        let home = Home::new();
        let id = home.drop("box", 1, false);
        for (at, &size) in sizes.iter().enumerate() {
            home.accept(id, &at.to_string(), &bytes(size, at));
        }
        let body = |name: &str| { let at: usize = name.parse().unwrap(); bytes(sizes[at], at) };
        let mut launched = 0;
        for (launches, m) in steps {
            home.fill(id, 1, slice, body);
            let boxes = home.store.channel(id).unwrap().unwrap().boxes;
            let end = boxes.min(launched + launches as u64);
            home.launch(id, launched..end, true);
            launched = end;
            home.store.set_max_plaintext(id, m).wait().unwrap();
        }
        while home.fill(id, 1, slice, body) {}
        let channel = home.store.channel(id).unwrap().unwrap();
        prop_assert_eq!(channel.fence, None);
        let base = WriteCap::from_seed(&[1; 32]).index().counter();
        let mut assembler = Assembler::new(key(1));
        let mut complete = 0;
        for seq in 0..channel.boxes {
            let record = home.store.read(id, 0, 1 << 20).unwrap();
            prop_assert_eq!(record.len() as u64, channel.size);
            let payload = payload(&home, id, seq);
            for event in assembler.feed(base + seq, Input::Box(&payload)) {
                match event {
                    crate::drop::Event::Complete { .. } => complete += 1,
                    crate::drop::Event::Started { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        prop_assert_eq!(complete, sizes.len());
    }
}

fn payload(home: &Home, id: ChannelId, seq: u64) -> Vec<u8> {
    home.store
        .readers()
        .ask(|db| {
            let sql = "SELECT payload FROM box JOIN channel USING (chain) WHERE channel.id = ?1 AND seq = ?2";
            Ok(db.query_row(sql, [id.0, i64::try_from(seq).unwrap()], |row| row.get(0))?)
        })
        .unwrap()
}

#[test]
fn boxes_are_made_into_records_once() {
    let home = Home::new();
    let cap = WriteCap::from_seed(&[9; 32]);
    let id =
        home.store.add(name("news"), cap.read_cap().clone(), Content::Drop { allow_delete: false }).wait().unwrap();
    let arrivals = vec![
        (BoxSeq(0), Arrival::Message(vec![1; 100])),
        (BoxSeq(1), Arrival::Tombstone),
        (BoxSeq(2), Arrival::Message(vec![2; 50])),
    ];
    home.store.received(id, arrivals).wait().unwrap();
    assert_eq!(home.store.drops_to_assemble().unwrap(), [id]);
    let boxes = home.store.drop_boxes(id, BoxSeq(0), 99, 1 << 20).unwrap();
    let expected = [DropBox::Bytes(vec![1; 100], 0), DropBox::Tombstone, DropBox::Bytes(vec![2; 50], 100)];
    assert!(boxes == expected);
    assert!(home.store.drop_boxes(id, BoxSeq(0), 99, 1).unwrap() == expected[..1]);
    let started =
        Standing::Started { first: BoxSeq(0), begin: 0, head_bytes: 20, header: Box::new(header("a", &[1; 200])) };
    let step = |from: u64, next: u64, standings: Vec<Standing>| Assembled {
        from: BoxSeq(from),
        next: BoxSeq(next),
        standings,
        taken: None,
        astray: false,
    };
    let begun = Assembled { taken: Some(80), ..step(0, 1, vec![started]) };
    home.store.assemble(id, begun.clone()).wait().unwrap();
    assert_eq!(home.store.assemble(id, begun).wait(), Err(StoreError::Rewritten));
    let arriving = home.store.arriving(id).unwrap().unwrap();
    assert_eq!((arriving.state, arriving.taken, arriving.size), (RecordState::Incomplete, 80, 200));
    let broken = Standing::Broken { reason: "box 1 was deleted".to_owned() };
    home.store.assemble(id, Assembled { astray: true, ..step(1, 2, vec![broken]) }).wait().unwrap();
    assert!(home.store.channel(id).unwrap().unwrap().astray);
    let told = home.get(id, arriving.id);
    assert_eq!((told.state, told.reason.as_deref()), (RecordState::Broken, Some("box 1 was deleted")));
    let astray = Standing::Astray { at: BoxSeq(2), reason: "nonsense".to_owned() };
    home.store.assemble(id, step(2, 3, vec![astray])).wait().unwrap();
    assert_eq!(home.store.drops_to_assemble().unwrap(), []);
    assert_eq!(home.counts(id), DropCounts { broken: 2, ..DropCounts::default() });

    let whole = Header {
        part: Some(Part { chain: [5; 16], number: 2, last: Some(Total { size: 9, digest: [3; 32] }) }),
        ..header("x.part-00002", b"abc")
    };
    home.store.join(id, whole.clone(), Ok(Vec::new())).wait().unwrap();
    home.store.join(id, whole, Ok(Vec::new())).wait().unwrap();
    let joined = home.store.records_named(id, "", "x").unwrap();
    assert_eq!((joined.len(), joined[0].size, joined[0].part), (1, 9, Some(([5; 16], 0))));
    // A part that arrives is deleted by its sender: with it go the parts before it, and no file that is whole.
    let of_chain =
        |chain, number| Header { part: Some(Part { chain: [chain; 16], number, last: None }), ..header("y.part", b"") };
    let seq = BoxSeq;
    let arrive = |at: u64, header: Header| Standing::Started {
        first: seq(at),
        begin: 150,
        head_bytes: 9,
        header: Box::new(header),
    };
    let whole = |at: u64| Standing::Complete { end: seq(at + 1), digest: *blake3::hash(b"").as_bytes() };
    let parts =
        vec![arrive(3, of_chain(5, 1)), whole(3), arrive(4, of_chain(6, 1)), whole(4), arrive(5, of_chain(6, 2))];
    home.store.received(id, (3..6).map(|at| (seq(at), Arrival::Message(vec![3; 9]))).collect()).wait().unwrap();
    home.store.assemble(id, step(3, 6, parts)).wait().unwrap();
    let rows = |chain: u8| home.store.parts(id, [chain; 16], 1, 99).unwrap().len();
    assert_eq!((rows(5), rows(6), home.store.arriving(id).unwrap().is_some()), (1, 1, true));
    home.store.received(id, vec![(seq(6), Arrival::Tombstone)]).wait().unwrap();
    home.store.assemble(id, step(6, 7, vec![Standing::Withdrawn])).wait().unwrap();
    assert_eq!((rows(5), rows(6), home.store.arriving(id).unwrap().is_some()), (1, 0, false));

    home.store.deliver(id, joined[0].id).wait().unwrap();
    assert_eq!(home.store.usage().unwrap().cache_bytes, 150 + 27);
    assert!(home.get(id, joined[0].id).delivered);
}

#[test]
fn no_sql_breaks_a_law_of_drops() {
    let home = Home::new();
    let id = home.drop("box", 1, false);
    home.drop("other", 2, false);
    home.writer("log", 3);
    let body = bytes(1000, 1);
    home.accept(id, "a", &body);
    home.accept(id, "b", &body);
    while home.fill(id, 1, 9, |_| body.clone()) {}
    home.launch(id, 0..1, false);
    home.accept(id, "c", &body);
    home.store.close();
    let db = Connection::open(home.state.database()).unwrap();
    let row = |state, chain| {
        format!(
            "INSERT INTO drop_record (chain, state, header, name, path, size, created) VALUES ({chain}, {state}, x'', '', '', 0, 0)"
        )
    };
    let laws = [
        ("what it was accepted", "UPDATE drop_record SET name = 'x' WHERE id = 3".to_owned()),
        ("what it was accepted", "UPDATE drop_record SET size = 7 WHERE id = 1".to_owned()),
        ("what it was accepted", "UPDATE drop_record SET digest = zeroblob(32) WHERE id = 1".to_owned()),
        ("stays at its boxes", "UPDATE drop_record SET first_seq = 7 WHERE id = 1".to_owned()),
        ("stays at its boxes", "UPDATE drop_record SET begin = 7 WHERE id = 1".to_owned()),
        ("goes forward", "UPDATE drop_record SET state = 3 WHERE id = 1".to_owned()),
        ("goes forward", "UPDATE drop_record SET state = 11 WHERE id = 1".to_owned()),
        ("kept until", "UPDATE drop_record SET staging = NULL WHERE id = 1".to_owned()),
        ("kept until", "UPDATE drop_record SET staging = NULL WHERE id = 3".to_owned()),
        ("stays until", "DELETE FROM drop_record WHERE id = 1".to_owned()),
        ("begins in a drop", row(0, 3)),
        ("begins in a drop", row(10, 1)),
        ("begins in a drop", row(2, 1)),
        ("CHECK", "UPDATE drop_record SET taken = 1 WHERE id = 3".to_owned()),
        ("CHECK", "UPDATE drop_record SET taken = 1001 WHERE id = 1".to_owned()),
        ("CHECK", "UPDATE drop_record SET state = 0 WHERE id = 2".to_owned()),
        ("CHECK", "UPDATE channel SET assembled = 1 WHERE name = 'other'".to_owned()),
        ("never changes", "UPDATE channel SET kind = 0 WHERE name = 'other'".to_owned()),
        (
            "sealed when it is made",
            "INSERT INTO box (chain, seq, state, index104, offset, payload) VALUES (2, 0, 0, zeroblob(104), 0, x'07')"
                .to_owned(),
        ),
    ];
    for (law, sql) in laws {
        let error = match db.execute_batch(&sql) {
            Ok(()) => panic!("{sql} was carried out"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(law), "{sql}\n  was refused for another reason: {error}");
    }
}
