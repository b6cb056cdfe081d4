//! Files that lose their name while somebody has them open, and what makes files without opening them.

use super::*;

#[test]
fn an_open_file_goes_on_when_its_name_is_gone() {
    let world = World::new();
    world.outbox();
    let handle = world.create("outbox/a").unwrap();
    let node = world.node("outbox/a");
    world.unlink("outbox/a").unwrap();
    world.fs().write_dropped(handle, 7, 0, b"abc").unwrap();
    for through in [None, Some(handle)] {
        let told = world.fs().attributes(node, through).unwrap();
        assert_eq!((told.size, told.links), (3, 0));
    }
    let change = Change { size: Some(2), mode: Some(0o400), ..Change::default() };
    let told = world.fs().change(node, Some(handle), change).unwrap();
    assert_eq!((told.size, told.mode), (2, 0o400));
    let again = world.fs().open(node, libc::O_RDWR).unwrap().handle;
    assert_eq!(world.fs().read(again, 0, 9), Ok(Answer::Now(b"ab".to_vec())));
    world.fs().sync(handle, us()).unwrap();
    world.fs().release(handle);
    assert_eq!(world.fs().attributes(node, None).unwrap().size, 2, "it is open once more");
    world.fs().release(again);
    assert_eq!(errno(world.fs().attributes(node, None)), libc::ENOENT);
    world.rest(60);
    assert_eq!(world.records(), []);
}

#[test]
fn a_file_that_is_replaced_or_taken_back_is_read_to_its_end() {
    let world = World::new();
    world.outbox();
    world.copy("outbox/a", b"old");
    let replaced = world.open("outbox/a", libc::O_RDONLY).unwrap();
    world.copy("outbox/b", b"new");
    world.rename("outbox/b", "outbox/a").unwrap();
    assert_eq!(world.fs().read(replaced, 0, 9), Ok(Answer::Now(b"old".to_vec())));
    assert_eq!(world.read("outbox/a"), b"new");
    world.rest(3);
    let sealed = world.open("outbox/a", libc::O_RDONLY).unwrap();
    let node = world.node("outbox/a");
    world.unlink("outbox/a").unwrap();
    assert_eq!(world.records(), []);
    assert_eq!(world.fs().read(sealed, 0, 9), Ok(Answer::Now(b"new".to_vec())));
    assert_eq!(world.fs().attributes(node, None).unwrap().size, 3);
    world.fs().release(replaced);
    world.fs().release(sealed);
    assert_eq!(errno(world.fs().attributes(node, None)), libc::ENOENT);
}

#[test]
fn mknod_makes_a_file_that_rests_as_others_do() {
    let world = World::new();
    let outbox = world.outbox();
    world.fs().make_file(outbox, OsStr::new("made"), 0o644, us()).unwrap();
    assert_eq!(errno(world.fs().make_file(outbox, OsStr::new("made"), 0o644, us())), libc::EEXIST);
    let handle = world.open("outbox/made", libc::O_WRONLY).unwrap();
    world.fs().write_dropped(handle, 7, 0, b"abc").unwrap();
    world.fs().release(handle);
    world.fs().make_file(outbox, OsStr::new("empty"), 0o644, us()).unwrap();
    world.rest(3);
    assert_eq!(world.records(), [record("", "made", 3), record("", "empty", 0)]);
}

#[test]
fn directories_keep_their_bits_and_times_until_the_mount_ends() {
    let world = World::new();
    world.outbox();
    world.mkdir("outbox/d").unwrap();
    let node = world.node("outbox/d");
    let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let change = Change { mode: Some(0o500), modified: Some(at), ..Change::default() };
    let told = world.fs().change(node, None, change).unwrap();
    assert_eq!((told.mode, told.modified), (0o500, at));
    assert!(told.changed > at, "that is a change of its own");
}
