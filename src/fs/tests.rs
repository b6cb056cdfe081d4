//! The file system without a mount: what its policy decides, against a store of its own.

use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::bacap::WriteCap;
use crate::channel::Linger;
use crate::engine::{Daemon, OwnerKind};
use crate::store::{Arrival, BoxSeq, BoxState, Claim, Limits, NetworkId};

/// Nobody whose permission bits would be in the way.
const US: Credentials = Credentials { uid: 0, gid: 0 };

struct Home {
    fs: Fs,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Home {
    fn new(options: Options, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let guard = runtime.enter();
        // There is no daemon, and no tail is sealed by itself.
        let daemon = Daemon::Discover(crate::thin::Discovery::default());
        let linger = Linger::with_pause(Duration::from_secs(3600));
        let owner = Owner::open_with(&dir.path().join("state"), daemon, OwnerKind::Mount, linger, limits).unwrap();
        drop(guard);
        Self { fs: Fs::new(owner, options), runtime, _dir: dir }
    }

    fn plain() -> Self {
        Self::new(Options::default(), Limits::default())
    }

    fn create(&self, name: &str, flags: i32) -> Result<Opened, FsError> {
        self.fs.create(Node::Root, OsStr::new(name), 0o666, flags | libc::O_CREAT, US)
    }

    fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<u64, FsError> {
        let commit = match self.fs.write(handle, offset, bytes, Claim::new())? {
            Taken::Commit(commit) => commit,
            Taken::Now(count) => return Ok(count),
        };
        self.fs.wrote(handle, commit.wait())
    }

    fn id(&self, name: &str) -> ChannelId {
        match self.fs.lookup(Node::Root, OsStr::new(name)) {
            Ok(Node::Channel(id)) => id,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Has all boxes of a stream leave, and a replica confirm them.
    fn deliver(&self, id: ChannelId) {
        let store = self.fs.owner().store();
        store.seal_tail(id).wait().unwrap();
        let channel = store.channel(id).unwrap().unwrap();
        let boxes: Vec<_> = (0..channel.boxes).map(BoxSeq).collect();
        store.bind_network(id, NetworkId::new([[7; 32]])).wait().unwrap();
        store.launch(id, channel.rewrites, boxes.clone(), NetworkId::new([[7; 32]])).wait().unwrap();
        store.confirm(id, boxes, BoxState::Stored).wait().unwrap();
    }

    fn reader(&self, name: &str) -> ChannelId {
        let cap = WriteCap::from_seed(&[9; 32]);
        self.fs.owner().store().add_reader(ChannelName::parse(name).unwrap(), cap.read_cap().clone()).wait().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.runtime.block_on(self.fs.owner().close());
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, FsError>) -> i32 {
    result.expect_err("refused").errno
}

#[test]
fn a_failure_of_the_channel_sticks_to_the_handle_that_met_it_and_its_close_says_so() {
    let home = Home::plain();
    let (met, idle) =
        (home.create("f", libc::O_WRONLY).unwrap().handle, home.create("f", libc::O_RDONLY).unwrap().handle);
    home.write(met, 0, b"abc").unwrap();
    assert_eq!(home.fs.flush(met), Ok(()));
    home.fs.owner().store().fence(home.id("f"), "foreign data".to_owned()).wait().unwrap();
    assert_eq!(errno(home.fs.flush(met)), libc::EIO, "what was written will not be delivered");
    assert_eq!(home.fs.flush(idle), Ok(()), "a reader's close is no place for it");
    assert_eq!(errno(home.write(met, 3, b"d")), libc::EIO);
    assert_eq!(errno(home.fs.sync(idle, US)), libc::EIO);
    assert_eq!(home.fs.read(idle, 0, 9), Ok(Answer::Now(b"abc".to_vec())), "it can still be read");
    let told = home.fs.report(Node::Report(home.id("f"), Report::Errors)).unwrap().unwrap();
    assert!(String::from_utf8(told).unwrap().ends_with("fenced: foreign data\n"));
}

#[test]
fn a_full_spool_fails_no_handle_for_good() {
    let home = Home::new(Options::default(), Limits { spool_bytes: 4, ..Limits::default() });
    let handle = home.create("f", libc::O_WRONLY).unwrap().handle;
    assert_eq!(errno(home.write(handle, 0, b"abcde")), libc::ENOSPC);
    assert_eq!(home.write(handle, 0, b"abcd"), Ok(4));
    assert_eq!(home.fs.capacity().unwrap(), Capacity { total_bytes: 4, free_bytes: 0 });
    assert!(!home.fs.readiness(handle).unwrap().writable);
    home.deliver(home.id("f"));
    assert!(home.fs.readiness(handle).unwrap().writable);
    assert_eq!(home.write(handle, 4, b"e"), Ok(1));
}

#[test]
fn whoever_empties_a_stream_moves_every_writer_to_its_beginning() {
    let home = Home::plain();
    let old = home.create("f", libc::O_WRONLY).unwrap().handle;
    home.write(old, 0, b"abc").unwrap();
    home.fs.flush(old).unwrap();
    let new = home.create("f", libc::O_WRONLY | libc::O_TRUNC).unwrap().handle;
    assert_eq!(errno(home.write(old, 3, b"d")), libc::ESPIPE, "its bytes are gone, so this is no end");
    assert_eq!(home.write(new, 0, b"xy"), Ok(2));
}

#[test]
fn a_writer_that_was_refused_has_emptied_nothing() {
    let home = Home::plain();
    let writing = home.create("f", libc::O_WRONLY).unwrap().handle;
    home.write(writing, 0, b"abc").unwrap();
    assert_eq!(errno(home.create("f", libc::O_WRONLY | libc::O_TRUNC)), libc::EBUSY);
    assert_eq!(home.fs.attributes(Node::Channel(home.id("f")), None).unwrap().size, 3);
    home.fs.release(writing);
    home.create("f", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(home.fs.attributes(Node::Channel(home.id("f")), None).unwrap().size, 0);
}

#[test]
fn a_wait_is_for_what_was_accepted_when_it_was_opened() {
    let home = Home::plain();
    let writing = home.create("f", libc::O_WRONLY | libc::O_APPEND).unwrap().handle;
    home.write(writing, 0, b"abc").unwrap();
    let id = home.id("f");
    let wait = home.fs.open(Node::Report(id, Report::Wait), libc::O_RDONLY).unwrap().handle;
    assert!(
        matches!(home.fs.read(wait, 0, 99), Ok(Answer::Later(pause)) if pause.patience == Duration::from_secs(100))
    );
    home.deliver(id);
    home.write(writing, 0, b"more").unwrap();
    assert_eq!(home.fs.read(wait, 0, 99), Ok(Answer::Now(b"stored 3 bytes\n".to_vec())));
    assert_eq!(home.fs.read(wait, 15, 99), Ok(Answer::Now(Vec::new())), "and then its end, whatever is written");
}

#[test]
fn an_fsync_for_replicas_ends_when_they_have_the_bytes() {
    let home = Home::new(Options { fsync: Fsync::Stored, ..Options::default() }, Limits::default());
    let handle = home.create("f", libc::O_WRONLY).unwrap().handle;
    home.write(handle, 0, b"abc").unwrap();
    let barrier = home.fs.sync(handle, US).unwrap().expect("to be waited for");
    assert!(matches!(home.fs.reached(&barrier), Ok(Answer::Later(_))));
    home.deliver(home.id("f"));
    assert!(matches!(home.fs.reached(&barrier), Ok(Answer::Now(_))));
    home.write(handle, 3, b"d").unwrap();
    assert!(matches!(home.fs.reached(&barrier), Ok(Answer::Now(_))), "later bytes are not its business");
}

#[test]
fn looking_at_everything_shows_no_capability_and_reading_it_does() {
    let home = Home::plain();
    home.create("f", libc::O_WRONLY).unwrap();
    let id = home.id("f");
    let shown = || home.fs.owner().store().channel(id).unwrap().unwrap().shown;
    let mut open = vec![Node::Root, Node::Control];
    while let Some(directory) = open.pop() {
        for (node, _) in home.fs.list(directory).unwrap().split_off(2) {
            home.fs.attributes(node, None).unwrap();
            home.fs.attribute_names(node).unwrap();
            match node.kind() {
                Kind::Directory => open.push(node),
                Kind::File => drop(home.fs.open(node, libc::O_RDONLY).unwrap()),
            }
        }
    }
    let capability = home.fs.lookup(Node::ChannelControl(id), OsStr::new("read-capability")).unwrap();
    assert_eq!(home.fs.attributes(capability, None).unwrap().size, node::CAPABILITY_BYTES);
    assert!(!shown());
    let opened = home.fs.open(capability, libc::O_RDONLY).unwrap();
    assert!(shown());
    let Answer::Now(text) = home.fs.read(opened.handle, 0, 999).unwrap() else { panic!("it is there") };
    assert_eq!(text.len() as u64, node::CAPABILITY_BYTES);
    assert_eq!(errno(home.fs.unlink(Node::Root, OsStr::new("f"))), libc::EPERM);
}

#[test]
fn a_writer_and_its_reader_have_one_fingerprint() {
    let home = Home::plain();
    let cap = WriteCap::from_seed(&[9; 32]);
    let store = home.fs.owner().store();
    let writer = store.create_stream(ChannelName::parse("ours").unwrap(), cap).wait().unwrap();
    let reader = home.reader("theirs");
    let print = |id| home.fs.attribute(Node::Channel(id), OsStr::new("user.pigeonhole.fingerprint")).unwrap();
    assert_eq!(print(writer), print(reader));
    assert_eq!(print(writer).len(), 16);
}

#[test]
fn a_read_wakes_with_the_box_and_with_the_verdict() {
    let home = Home::plain();
    let id = home.reader("news");
    let store = home.fs.owner().store();
    let handle = home.fs.open(Node::Channel(id), libc::O_RDONLY).unwrap().handle;
    let later = |answer| matches!(answer, Ok(Answer::Later(Pause { channel, .. })) if channel == id);
    assert!(later(home.fs.read(handle, 0, 9)));
    store.received(id, vec![(BoxSeq(0), Arrival::Message(b"abc".to_vec()))]).wait().unwrap();
    assert!(home.fs.readiness(handle).unwrap().readable);
    assert_eq!(home.fs.read(handle, 0, 9), Ok(Answer::Now(b"abc".to_vec())));
    assert!(!home.fs.readiness(handle).unwrap().readable);
    assert!(later(home.fs.read(handle, 3, 9)));
    store.received(id, vec![(BoxSeq(1), Arrival::NotYet)]).wait().unwrap();
    assert_eq!(home.fs.read(handle, 3, 9), Ok(Answer::Now(Vec::new())));
    home.fs.release(handle);
    assert_eq!(errno(home.fs.read(handle, 0, 9)), libc::EBADF);
}

/// What a program may do with one of two open files of a stream.
#[derive(Clone, Debug)]
enum Op {
    Write { by: usize, at: u64, len: usize },
    Close(usize),
    Open { by: usize, flags: i32 },
    Truncate(u64),
    Deliver,
}

fn op() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![Just(0), Just(libc::O_APPEND), Just(libc::O_TRUNC), Just(libc::O_APPEND | libc::O_TRUNC)];
    prop_oneof![
        6 => (0..2_usize, 0..12_u64, 1..4_usize).prop_map(|(by, at, len)| Op::Write { by, at, len }),
        2 => (0..2_usize).prop_map(Op::Close),
        3 => (0..2_usize, flags).prop_map(|(by, flags)| Op::Open { by, flags }),
        1 => (0..6_u64).prop_map(Op::Truncate),
        1 => Just(Op::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever programs do, the stream holds what was accepted in the order of acceptance; what has left stays; and a
    /// write that is refused has changed nothing.
    #[test]
    fn a_stream_holds_what_was_accepted(ops in proptest::collection::vec(op(), 1..40)) {
        let home = Home::plain();
        home.create("f", libc::O_RDONLY).unwrap();
        let node = Node::Channel(home.id("f"));
        let mut model: Vec<u8> = Vec::new();
        let mut left = false;
        let mut open: [Option<(u64, i32)>; 2] = [None; 2];
        for (at, op) in ops.into_iter().enumerate() {
            match op {
                Op::Write { by, at: offset, len } => {
                    let Some((handle, flags)) = open[by] else { continue };
                    let bytes = vec![b'a' + u8::try_from(at % 26).unwrap(); len];
                    if home.write(handle, offset, &bytes).is_ok() {
                        // What is passed over is zeros.
                        let end = usize::try_from(offset).unwrap();
                        if flags & libc::O_APPEND == 0 && end > model.len() {
                            model.resize(end, 0);
                        }
                        model.extend(bytes);
                    }
                }
                Op::Close(by) => if let Some((handle, _)) = open[by].take() {
                    prop_assert_eq!(home.fs.flush(handle), Ok(()));
                    home.fs.release(handle);
                },
                Op::Open { by, flags } => if open[by].is_none()
                    && let Ok(opened) = home.fs.open(node, libc::O_WRONLY | flags)
                {
                    open[by] = Some((opened.handle, flags));
                    if flags & libc::O_TRUNC != 0 {
                        prop_assert!(!left || model.is_empty());
                        model.clear();
                    }
                },
                Op::Truncate(size) => {
                    let done = home.fs.change(node, None, Change { size: Some(size), ..Change::default() });
                    let allowed = size == model.len() as u64 || (size == 0 && !left);
                    prop_assert_eq!(done.is_ok(), allowed);
                    if allowed { model.truncate(usize::try_from(size).unwrap()) }
                }
                Op::Deliver => if !model.is_empty() {
                    home.deliver(home.id("f"));
                    left = true;
                },
            }
            let reading = home.fs.open(node, libc::O_RDONLY).unwrap().handle;
            prop_assert_eq!(home.fs.read(reading, 0, 999), Ok(Answer::Now(model.clone())));
            home.fs.release(reading);
        }
    }
}

#[test]
fn a_stream_that_is_removed_or_replaced_goes_on_for_who_has_it_open() {
    let home = Home::plain();
    let node = |name: &str| Node::Channel(home.id(name));
    let handle = home.create("f", libc::O_RDWR).unwrap().handle;
    home.write(handle, 0, b"abc").unwrap();
    let removed = node("f");
    home.fs.unlink(Node::Root, OsStr::new("f")).unwrap();
    assert_eq!(home.write(handle, 3, b"def"), Ok(3));
    assert_eq!(home.fs.read(handle, 1, 9), Ok(Answer::Now(b"bcdef".to_vec())));
    let told = home.fs.attributes(removed, None).unwrap();
    assert_eq!((told.size, told.links), (6, 0));
    let cut = Change { size: Some(2), mode: Some(0o400), modified: Some(UNIX_EPOCH), ..Change::default() };
    let told = home.fs.change(removed, Some(handle), cut).unwrap();
    assert_eq!((told.size, told.mode, told.modified), (2, 0o400, UNIX_EPOCH));
    assert_eq!(home.fs.sync(handle, US), Ok(None));
    let again = home.fs.open(removed, libc::O_RDONLY).unwrap().handle;
    home.fs.release(handle);
    assert_eq!(home.fs.read(again, 0, 9), Ok(Answer::Now(b"ab".to_vec())));
    home.fs.release(again);
    assert_eq!(errno(home.fs.attributes(removed, None)), libc::ENOENT);
    assert_eq!(errno(home.fs.open(removed, libc::O_RDONLY)), libc::ENOENT);

    let reading = home.create("old", libc::O_RDWR).unwrap().handle;
    home.write(reading, 0, b"old").unwrap();
    let writing = home.create("new", libc::O_WRONLY).unwrap().handle;
    home.write(writing, 0, b"new").unwrap();
    let (old, new) = ((Node::Root, OsStr::new("old")), (Node::Root, OsStr::new("new")));
    home.fs.rename(new, old, Rename::Replace).unwrap();
    assert_eq!(home.fs.read(reading, 0, 9), Ok(Answer::Now(b"old".to_vec())));
    let replaced = home.create("old", libc::O_RDONLY).unwrap().handle;
    assert_eq!(home.fs.read(replaced, 0, 9), Ok(Answer::Now(b"new".to_vec())));
}

#[test]
fn a_hole_in_a_file_that_is_copied_becomes_zeros_up_to_a_bound() {
    let home = Home::plain();
    let handle = home.create("f", libc::O_WRONLY).unwrap().handle;
    assert_eq!(home.write(handle, 0, b"ab"), Ok(2));
    assert_eq!(home.write(handle, 5, b"cd"), Ok(2));
    let node = Node::Channel(home.id("f"));
    let longer = |size| home.fs.change(node, Some(handle), Change { size: Some(size), ..Change::default() });
    assert_eq!(longer(9).unwrap().size, 9);
    let reading = home.create("f", libc::O_RDONLY).unwrap().handle;
    assert_eq!(home.fs.read(reading, 0, 99), Ok(Answer::Now(b"ab\0\0\0cd\0\0".to_vec())));
    let far = home.write(handle, 1 << 40, b"x").expect_err("a hole of a terabyte");
    assert!(far.errno == libc::ESPIPE && far.message.contains("--sparse=never"), "{far:?}");
    assert_eq!(errno(longer(1 << 40)), libc::ESPIPE);
    assert_eq!(errno(home.write(handle, 3, b"x")), libc::ESPIPE, "nothing is overwritten");
    home.fs.release(handle);

    let later = home.create("f", libc::O_WRONLY).unwrap().handle;
    assert_eq!(errno(home.write(later, 99, b"x")), libc::ESPIPE, "it did not begin with an empty file");
}

/// Couriers see when a box leaves: who may only read a file must not decide it.
#[test]
fn who_may_only_read_puts_nothing_on_its_way() {
    let home = Home::new(Options { umask: 0o022, uid: 1000, gid: 1000, ..Options::default() }, Limits::default());
    let us = Credentials { uid: 1000, gid: 1000 };
    let made = home.fs.create(Node::Root, OsStr::new("f"), 0o666, libc::O_WRONLY, us).unwrap();
    home.write(made.handle, 0, b"abc").unwrap();
    let tail = || home.fs.owner().store().channel(home.id("f")).unwrap().unwrap().tail_bytes;
    let reading = home.create("f", libc::O_RDONLY).unwrap().handle;
    for stranger in [Credentials { uid: 1001, gid: 1001 }, Credentials { uid: 1001, gid: 1000 }] {
        assert_eq!(home.fs.sync(reading, stranger), Ok(None));
        assert_eq!(tail(), 3);
    }
    let wait = Node::Report(home.id("f"), Report::Wait);
    assert_eq!(home.fs.attributes(wait, None).unwrap().mode, 0o400, "others would seal it by reading this");
    home.fs.sync(reading, us).unwrap();
    assert_eq!(tail(), 0);
}

#[test]
fn what_another_user_makes_is_theirs() {
    let home = Home::plain();
    let by = Credentials { uid: 4321, gid: 1234 };
    let flags = libc::O_CREAT | libc::O_WRONLY;
    let opened = home.fs.create(Node::Root, OsStr::new("f"), 0o666, flags, by).unwrap();
    let told = home.fs.attributes(opened.node, None).unwrap();
    assert_eq!((told.uid, told.gid), (4321, 1234));
    home.fs.make_directory(Node::Root, OsStr::new("d"), 0o777, US).unwrap();
    let drop = home.fs.lookup(Node::Root, OsStr::new("d")).unwrap();
    let made = home.fs.make_directory(drop, OsStr::new("sub"), 0o777, by).unwrap();
    let opened = home.fs.create(made.node, OsStr::new("x"), 0o666, flags, by).unwrap();
    for node in [made.node, opened.node] {
        let told = home.fs.attributes(node, None).unwrap();
        assert_eq!((told.uid, told.gid), (4321, 1234), "{node:?}");
    }
}
