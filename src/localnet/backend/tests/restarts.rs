//! What outlives the process: boxes, half-done replication, and databases of earlier versions.

use std::path::Path;

use rusqlite::Connection;

use super::*;

/// The schema of version 1, as it was released.
const VERSION_1: &str = "
CREATE TABLE identity (name TEXT PRIMARY KEY, key BLOB NOT NULL CHECK (length(key) = 32)) WITHOUT ROWID;
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE box (
    box_id BLOB NOT NULL UNIQUE CHECK (length(box_id) = 32),
    payload BLOB NOT NULL,
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    epoch INTEGER NOT NULL
);
CREATE INDEX box_by_epoch ON box (epoch);
PRAGMA user_version = 1;
";

fn open(path: &Path, profile: &Profile) -> World<Disk> {
    World::over(Disk::open(path).expect("a database"), profile, 1)
}

#[test]
fn a_box_is_there_after_a_restart_and_its_replication_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("localnet.db");
    let mut world = open(&path, &Profile::docker());
    let (both, one) = (world.sealed(0, "both"), world.sealed(1, "one"));
    assert_eq!(world.write(&both), coded(SUCCESS));
    world.pass(MINUTE);
    let [first, second] = world.holders(&one.box_id);
    let write = world.query(Inner::Write(one.clone()), [first, 99]);
    world.send(&write);
    while world.backend.census().replications == 0 {
        let due = world.backend.next_deadline().expect("it is on its way");
        world.pass(due - world.now);
    }
    world.backend.store().commit().expect("on the disk");
    drop(world);

    let mut world = open(&path, &Profile::docker());
    world.pass(Duration::ZERO);
    assert_eq!(world.backend.census().replications, 1);
    world.pass(MINUTE);
    let read = world.query(Inner::Read(one.box_id), [second, 99]);
    assert_eq!(world.verdict(&read), found(&one));
    assert_eq!(world.read(both.box_id), found(&both));
}

#[test]
fn what_was_not_committed_is_not_confirmed_by_a_courier_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = open(&directory.path().join("localnet.db"), &Profile::instant());
    let sealed = world.sealed(0, "one");
    let write = world.query(Inner::Write(sealed.clone()), [0, 1]);
    world.send(&write);
    assert_eq!(world.send(&write), coded(SUCCESS));
    world.backend.store().fail();
    assert!(world.backend.store().commit().is_err());
    world.backend.rolled_back();
    assert_eq!(world.send(&write), CourierAnswer::Ack, "as if it had never come");
    assert_eq!(world.send(&write), coded(SUCCESS));
    assert_eq!(world.read(sealed.box_id), found(&sealed));
}

#[test]
fn expired_boxes_go_in_small_batches_with_pauses() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = open(&directory.path().join("localnet.db"), &Profile::docker());
    let boxes = u32::try_from(EXPIRED_AT_ONCE).expect("small") * 2 + 10;
    let epoch = replica_epoch(T0);
    let sealed = |number: u32| {
        let mut box_id = BoxId([0; 32]);
        box_id.0[..4].copy_from_slice(&number.to_be_bytes());
        SealedBox { box_id, payload: vec![1; 10], signature: [2; 64] }
    };
    for number in 0..boxes {
        world.backend.store.insert(&sealed(number), epoch, Holders::BOTH);
    }
    let kept = |world: &mut World<Disk>| {
        (0..boxes)
            .filter(|number| !world.backend.store.find(&sealed(*number).box_id, 0).expect("read").is_empty())
            .count()
    };
    world.pass(WEEK);
    assert_eq!((kept(&mut world), world.backend.next_deadline()), (522, None), "one epoch more");
    world.pass(WEEK);
    assert_eq!(kept(&mut world), 522 - 256);
    assert_eq!(world.backend.next_deadline(), Some(world.now + EXPIRY_PAUSE));
    world.pass(EXPIRY_PAUSE);
    assert_eq!(kept(&mut world), 10);
    world.pass(EXPIRY_PAUSE);
    assert_eq!((kept(&mut world), world.backend.next_deadline()), (0, None));
}

#[test]
fn a_database_of_version_1_keeps_its_boxes_and_its_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("localnet.db");
    let world = World::new(&Profile::docker());
    let boxes = [world.sealed(0, "one"), world.sealed(1, "two"), world.tombstone(2)];
    let old = Connection::open(&path).expect("a file");
    old.execute_batch(VERSION_1).expect("the schema");
    let epoch = i64::try_from(replica_epoch(T0)).expect("small");
    for (age, sealed) in boxes.iter().enumerate() {
        let values =
            (sealed.box_id.0, &sealed.payload, sealed.signature, epoch - i64::try_from(age % 2).expect("small"));
        old.execute("INSERT INTO box VALUES (?, ?, ?, ?)", values).expect("a box");
    }
    for name in ["envelope", "authority", "courier"] {
        old.execute("INSERT INTO identity VALUES (?, ?)", (name, [5_u8; 32])).expect("a key");
    }
    old.execute("INSERT INTO setting VALUES ('max_plaintext', 77)", ()).expect("a setting");
    drop(old);

    for start in ["the one that changes it", "the one after"] {
        let disk = Disk::open(&path).expect(start);
        assert_eq!(disk.identity().expect("its keys").envelope_key, [5; 32]);
        assert_eq!(disk.max_plaintext(1549).expect("its M"), 77);
        drop(disk);
        let mut world = open(&path, &Profile::docker());
        for sealed in &boxes {
            let rows = world.backend.store.find(&sealed.box_id, 0).expect("read");
            assert_eq!(rows.iter().map(|row| row.holders.bits()).collect::<Vec<_>>(), [3]);
            assert_eq!(world.read(sealed.box_id), found(sealed));
        }
        world.pass(WEEK);
        assert_eq!(world.read(boxes[1].box_id), coded(BOX_ID_NOT_FOUND), "its epoch was kept");
        assert_eq!(world.read(boxes[0].box_id), found(&boxes[0]));
    }
}
