//! Drops without a mount and without a network: what their files become, and what a crash leaves.

use std::ffi::OsStr;
use std::path::Path;

use super::*;
use crate::channel::Linger;
use crate::engine::{Daemon, Owner, OwnerKind};
use crate::fs::{Answer, Change, Credentials, FsError, Node, Options, Rename};
use crate::store::{ChannelId, Limits, RecordState};

struct World {
    fs: Option<Fs>,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    limits: Limits,
    options: Options,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut world =
            Self { fs: None, runtime, dir: tempfile::tempdir().unwrap(), limits, options: Options::default() };
        world.start();
        world
    }

    fn start(&mut self) {
        let _guard = self.runtime.enter();
        let daemon = Daemon::Discover(crate::thin::Discovery::default());
        let linger = Linger::with_pause(Duration::from_secs(3600));
        let state = self.dir.path().join("state");
        let owner = Owner::open_with(&state, daemon, OwnerKind::Mount, linger, self.limits).unwrap();
        self.fs = Some(Fs::new(owner, self.options.clone()));
    }

    /// The process dies and comes again: nothing of its memory is left.
    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn stop(&mut self) {
        if let Some(fs) = self.fs.take() {
            self.runtime.block_on(fs.owner().close());
        }
    }

    fn fs(&self) -> &Fs {
        self.fs.as_ref().unwrap()
    }

    fn outbox(&self) -> Node {
        let attributes = self.fs().make_directory(Node::Root, OsStr::new("outbox"), 0o777, us()).unwrap();
        assert_eq!(attributes.mode, 0o700);
        attributes.node
    }

    fn drop_id(&self) -> ChannelId {
        match self.node("outbox") {
            Node::Drop(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn node(&self, path: &str) -> Node {
        self.find(path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn find(&self, path: &str) -> Result<Node, FsError> {
        path.split('/').try_fold(Node::Root, |at, name| self.fs().lookup(at, OsStr::new(name)))
    }

    /// The directory and the name in it.
    fn place<'a>(&self, path: &'a str) -> (Node, &'a OsStr) {
        let (directory, name) = path.rsplit_once('/').unwrap();
        (self.node(directory), OsStr::new(name))
    }

    fn create(&self, path: &str) -> Result<u64, FsError> {
        let (directory, name) = self.place(path);
        self.fs()
            .create(directory, name, 0o666, libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL, us())
            .map(|open| open.handle)
    }

    fn copy(&self, path: &str, bytes: &[u8]) {
        let handle = self.create(path).unwrap();
        assert_eq!(self.fs().write_dropped(handle, 7, 0, bytes).unwrap(), bytes.len() as u64);
        self.fs().flush(handle).unwrap();
        self.fs().release(handle);
    }

    /// As a second `cp` does.
    fn copy_over(&self, path: &str, bytes: &[u8]) {
        let handle = self.open(path, libc::O_WRONLY | libc::O_TRUNC).unwrap();
        self.fs().write_dropped(handle, 8, 0, bytes).unwrap();
        self.fs().release(handle);
    }

    fn open(&self, path: &str, flags: i32) -> Result<u64, FsError> {
        self.fs().open(self.node(path), flags).map(|open| open.handle)
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let handle = self.open(path, libc::O_RDONLY).unwrap();
        let Answer::Now(bytes) = self.fs().read(handle, 0, 1 << 20).unwrap() else { panic!("it waits") };
        self.fs().release(handle);
        bytes
    }

    fn state(&self, path: &str) -> String {
        let text = self.fs().attribute(self.node(path), OsStr::new("user.pigeonhole.state")).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// What the status says of files that are never sent as they are.
    fn told(&self) -> Vec<String> {
        let channel = self.fs().channel(self.drop_id()).unwrap();
        let lines = self.fs().dropped_lines(&channel).unwrap();
        lines.into_iter().filter(|(key, _)| *key == "unfinished").map(|(_, value)| value).collect()
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FsError> {
        self.fs().rename(self.place(from), self.place(to), Rename::Replace)
    }

    fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (directory, name) = self.place(path);
        self.fs().unlink(directory, name)
    }

    fn mkdir(&self, path: &str) -> Result<(), FsError> {
        let (directory, name) = self.place(path);
        self.fs().make_directory(directory, name, 0o777, us()).map(drop)
    }

    fn rmdir(&self, path: &str) -> Result<(), FsError> {
        let (directory, name) = self.place(path);
        self.fs().remove_directory(directory, name)
    }

    /// So much time passes for all that rests.
    fn rest(&self, seconds: u64) {
        self.fs().settle(Instant::now() + Duration::from_secs(seconds), REST).unwrap();
    }

    /// The names and sizes that the store has of the drop.
    fn records(&self) -> Vec<(String, String, u64)> {
        let records = self.fs().owner().store().records(self.drop_id(), None, 1000).unwrap();
        let kept = records.into_iter().filter(|record| record.state != RecordState::Deleted);
        kept.map(|record| (record.header.unwrap().path, record.name, record.size)).collect()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let listed = self.fs().list(self.node(path)).unwrap();
        listed.into_iter().map(|(_, name)| name).filter(|name| !name.starts_with('.')).collect()
    }
}

impl std::ops::Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Who mounts.
fn us() -> Credentials {
    let Options { uid, gid, .. } = Options::default();
    Credentials { uid, gid }
}

fn errno<T: std::fmt::Debug>(result: Result<T, FsError>) -> i32 {
    result.expect_err("refused").errno
}

fn record(path: &str, name: &str, size: u64) -> (String, String, u64) {
    (path.to_owned(), name.to_owned(), size)
}

#[test]
fn a_copied_file_is_sent_when_it_has_rested_and_is_then_what_it_is() {
    let world = World::new();
    world.outbox();
    world.copy("outbox/a", b"abc");
    world.rest(1);
    assert_eq!(world.records(), []);
    assert_eq!(world.state("outbox/a"), "settling");
    world.rest(3);
    assert_eq!(world.records(), [record("", "a", 3)]);
    assert_eq!(world.read("outbox/a"), b"abc");
    assert_eq!(world.state("outbox/a"), "waiting");
    assert_eq!(world.fs().attributes(world.node("outbox/a"), None).unwrap().mode, 0o400);
    for flags in [libc::O_WRONLY, libc::O_RDWR | libc::O_APPEND, libc::O_WRONLY | libc::O_TRUNC] {
        assert_eq!(errno(world.open("outbox/a", flags)), libc::EPERM);
    }
    let cut = Change { size: Some(0), ..Change::default() };
    assert_eq!(errno(world.fs().change(world.node("outbox/a"), None, cut)), libc::EPERM);
    assert_eq!(errno(world.rename("outbox/a", "outbox/b")), libc::EPERM);
    world.copy("outbox/b", b"new");
    assert_eq!(errno(world.rename("outbox/b", "outbox/a")), libc::EPERM);
}

#[test]
fn anything_may_be_written_anywhere_until_it_is_sent() {
    let world = World::new();
    world.outbox();
    let handle = world.create("outbox/a").unwrap();
    world.fs().write_dropped(handle, 7, 4, b"efgh").unwrap();
    world.fs().write_dropped(handle, 7, 0, b"abcd").unwrap();
    world.fs().write_dropped(handle, 7, 2, b"CD").unwrap();
    world.fs().sync(handle, us()).unwrap();
    world.rest(60);
    assert_eq!(world.records(), [], "fsync does not send, and what is open is not sent");
    let cut = Change { size: Some(6), ..Change::default() };
    assert_eq!(world.fs().change(world.node("outbox/a"), None, cut).unwrap().size, 6);
    world.fs().release(handle);
    assert_eq!(world.read("outbox/a"), b"abCDef");
    world.rest(3);
    assert_eq!(world.records(), [record("", "a", 6)]);
}

#[test]
fn what_is_saved_by_a_temporary_file_and_a_rename_is_sent_once_under_its_name() {
    let world = World::new();
    world.outbox();
    world.mkdir("outbox/d").unwrap();
    world.copy("outbox/d/.report.aB3xYz", b"first");
    world.copy("outbox/d/film.part", b"second");
    world.rest(60);
    assert_eq!(world.records(), [], "what looks temporary waits for its name");
    assert_eq!(world.state("outbox/d/film.part"), "temporary");
    let told = world.told();
    assert!(told.iter().any(|told| told.starts_with("d/film.part (its name looks temporary): rename it")), "{told:?}");
    world.rename("outbox/d/.report.aB3xYz", "outbox/d/report").unwrap();
    world.copy("outbox/film", b"older");
    world.rename("outbox/d/film.part", "outbox/film").unwrap();
    world.rest(3);
    let mut records = world.records();
    records.sort();
    assert_eq!(records, [record("", "film", 6), record("d", "report", 5)]);
    assert_eq!(world.names("outbox"), ["d", "film"]);
}

#[test]
fn desktops_files_stay_here() {
    let world = World::new();
    world.outbox();
    world.copy("outbox/.DS_Store", b"x");
    world.copy("outbox/notes~", b"x");
    world.mkdir("outbox/.Trash-1000").unwrap();
    world.rest(60);
    assert_eq!(world.records(), []);
    assert_eq!(world.state("outbox/notes~"), "local");
    assert!(world.fs().unsettled(world.drop_id()).unwrap().unfinished.is_empty(), "nobody waits for them");
}

#[test]
fn a_copy_that_was_killed_is_kept_and_told_and_a_second_one_replaces_it() {
    let world = World::new();
    world.outbox();
    let handle = world.create("outbox/a").unwrap();
    world.fs().write_dropped(handle, 7, 0, b"half").unwrap();
    assert_eq!(world.fs().dropped_writers(handle), Some(vec![7]));
    world.fs().killed(handle);
    world.fs().release(handle);
    world.rest(60);
    assert_eq!(world.records(), []);
    assert_eq!(world.state("outbox/a"), "unfinished");
    let told = world.fs().unsettled(world.drop_id()).unwrap();
    assert_eq!(told.unfinished, [("a".to_owned(), "the program that wrote it was killed")]);
    let told = world.told();
    assert!(told[0].starts_with("a (the program that wrote it was killed): write it anew, remove it"), "{told:?}");

    let handle = world.open("outbox/a", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    world.fs().write_dropped(handle, 8, 0, b"whole").unwrap();
    world.fs().release(handle);
    world.rest(3);
    assert_eq!(world.records(), [record("", "a", 5)]);
}

#[test]
fn a_crash_leaves_each_file_settled_or_unfinished_and_none_twice() {
    let mut world = World::new();
    world.outbox();
    world.copy("outbox/sent", b"1");
    world.rest(3);
    world.mkdir("outbox/d").unwrap();
    world.copy("outbox/d/closed", b"22");
    let open = world.create("outbox/d/open").unwrap();
    world.fs().write_dropped(open, 7, 0, b"333").unwrap();
    world.restart();
    world.rest(3);
    let mut records = world.records();
    records.sort();
    assert_eq!(records, [record("", "sent", 1), record("d", "closed", 2)]);
    assert_eq!(world.state("outbox/d/open"), "unfinished");
    assert_eq!(world.read("outbox/d/open"), b"333");
    assert_eq!(world.read("outbox/d/closed"), b"22");

    world.restart();
    world.rest(3);
    assert_eq!(world.records().len(), 2);
    assert_eq!(world.names("outbox/d"), ["closed", "open"]);
    world.unlink("outbox/d/open").unwrap();
    world.restart();
    assert_eq!(world.names("outbox/d"), ["closed"]);
}

/// The instants between the three steps of a hand-over: a second link, a row, and the first link gone.
#[test]
fn a_crash_in_the_middle_of_a_hand_over_loses_nothing_and_sends_nothing_twice() {
    let mut world = World::new();
    world.outbox();
    let id = world.drop_id();
    world.copy("outbox/linked", b"1");
    world.copy("outbox/rowed", b"22");
    let staging = staging::Staging::of(
        &world.fs().owner().engine().drops().directory().unwrap().join("mount"),
        id,
        world.fs().owner().store().sealing(),
    );
    let linked = staging.link(&["linked"]).unwrap();
    // As the engine makes it before it asks the store: the mark of a closed file goes with it.
    std::fs::set_permissions(linked, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let sent = staging.link(&["rowed"]).unwrap();
    let header = crate::drop::Header { name: "rowed".to_owned(), size: 2, ..crate::drop::Header::default() };
    world.fs().owner().engine().drops().accept(id, header, Some(&sent)).unwrap().wait().unwrap();
    world.restart();
    world.rest(3);
    let mut records = world.records();
    records.sort();
    assert_eq!(records, [record("", "linked", 1), record("", "rowed", 2)]);
    assert_eq!(world.names("outbox"), ["linked", "rowed"]);
    assert_eq!(world.read("outbox/linked"), b"1");
    assert_eq!(world.read("outbox/rowed"), b"22");
    assert_eq!(staging.found(true).unwrap(), [], "no file is left under its first name");
    assert_eq!(staging.links().unwrap().len(), 2);
}

#[test]
fn what_has_not_left_is_taken_back_and_its_name_is_free() {
    let mut world = World::new();
    world.outbox();
    world.copy("outbox/a", b"abc");
    world.rest(3);
    assert_eq!(world.records().len(), 1);
    world.unlink("outbox/a").unwrap();
    assert_eq!(world.records(), []);
    world.copy("outbox/a", b"other");
    world.rest(3);
    assert_eq!(world.records(), [record("", "a", 5)]);
    world.restart();
    assert_eq!(world.read("outbox/a"), b"other");
}

#[test]
fn an_empty_directory_is_sent_if_it_stays_empty() {
    let world = World::new();
    world.outbox();
    world.mkdir("outbox/empty").unwrap();
    world.mkdir("outbox/full").unwrap();
    world.mkdir("outbox/gone").unwrap();
    world.rmdir("outbox/gone").unwrap();
    world.copy("outbox/full/x", b"");
    world.rest(3);
    let mut records = world.records();
    records.sort();
    assert_eq!(records, [record("", "empty", 0), record("full", "x", 0)]);
    assert_eq!(errno(world.rmdir("outbox/full")), libc::ENOTEMPTY);
    world.rmdir("outbox/empty").unwrap();
    assert_eq!(world.records(), [record("full", "x", 0)], "it had not left");
    assert_eq!(errno(world.rename("outbox/full", "outbox/other")), libc::EPERM, "readers know of it");
}

#[test]
fn directories_that_nobody_knows_of_are_renamed_with_all_that_is_in_them() {
    let world = World::new();
    world.outbox();
    world.mkdir("outbox/a").unwrap();
    world.mkdir("outbox/a/b").unwrap();
    world.copy("outbox/a/b/x", b"abc");
    world.rename("outbox/a", "outbox/c").unwrap();
    assert_eq!(world.read("outbox/c/b/x"), b"abc");
    world.rest(3);
    assert_eq!(world.records(), [record("c/b", "x", 3)]);
    assert_eq!(errno(world.find("outbox/a").map(drop)), libc::ENOENT);
}

#[test]
fn a_drop_is_removed_while_nobody_can_know_of_it() {
    let world = World::new();
    world.outbox();
    let id = world.drop_id();
    world.copy("outbox/a", b"abc");
    let rmdir = || world.fs().remove_directory(Node::Root, OsStr::new("outbox"));
    assert_eq!(errno(rmdir()), libc::ENOTEMPTY);
    world.unlink("outbox/a").unwrap();
    let directory = world.fs().owner().engine().drops().directory().unwrap().join("mount").join(id.0.to_string());
    assert!(directory.exists());
    rmdir().unwrap();
    assert!(!directory.exists());
    world.outbox();
    world.fs().owner().store().reveal(world.drop_id(), false).wait().unwrap();
    assert_eq!(errno(rmdir()), libc::EPERM);
}

#[test]
fn names_that_cannot_be_told_are_refused() {
    use std::os::unix::ffi::OsStrExt;

    let world = World::new();
    let outbox = world.outbox();
    let create = |name: &OsStr| world.fs().create(outbox, name, 0o666, libc::O_CREAT | libc::O_WRONLY, us()).map(drop);
    assert_eq!(errno(create(OsStr::from_bytes(b"a\xff"))), libc::EILSEQ);
    assert_eq!(errno(create(OsStr::new(&"x".repeat(256)))), libc::ENAMETOOLONG);
    create(OsStr::new("a\nb c\u{e4}")).unwrap();
    let mut path = "outbox".to_owned();
    let refused = (0..10).find_map(|_| {
        let deeper = format!("{path}/{}", "d".repeat(200));
        let result = world.mkdir(&deeper);
        path = deeper;
        result.err()
    });
    assert_eq!(refused.map(|error| error.errno), Some(libc::ENAMETOOLONG));
    for what in ["links", "special files"] {
        assert_eq!(world.fs().refuse(outbox, what).errno, libc::EPERM);
    }
}

mod many;
mod unfinished;
mod unlinked;

mod as_a_directory {
    //! Names in a drop behave as those of any directory: the same steps are taken in one of the disk.

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Create(usize),
        Mkdir(usize),
        Unlink(usize),
        Rmdir(usize),
        Rename(usize, usize),
        Restart,
    }

    const PATHS: [&str; 6] = ["a", "b", "d", "d/a", "d/e", "d/e/x"];

    fn step() -> impl Strategy<Value = Step> {
        let path = 0..PATHS.len();
        prop_oneof![
            3 => path.clone().prop_map(Step::Create),
            3 => path.clone().prop_map(Step::Mkdir),
            1 => path.clone().prop_map(Step::Unlink),
            1 => path.clone().prop_map(Step::Rmdir),
            4 => (path.clone(), path).prop_map(|(from, to)| Step::Rename(from, to)),
            1 => Just(Step::Restart),
        ]
    }

    /// What the disk says, in the words of the mount. The kernel looks at these before it asks a mount for anything.
    fn disk(root: &Path, step: &Step) -> Result<(), i32> {
        let at = |path: &usize| root.join(PATHS[*path]);
        let result = match step {
            Step::Create(path) => std::fs::File::create_new(at(path)).map(drop),
            Step::Mkdir(path) => std::fs::create_dir(at(path)),
            Step::Unlink(path) => rustix::fs::unlink(at(path)).map_err(Into::into),
            Step::Rmdir(path) => std::fs::remove_dir(at(path)),
            Step::Rename(from, to) => std::fs::rename(at(from), at(to)),
            Step::Restart => Ok(()),
        };
        result.map_err(|error| error.raw_os_error().unwrap())
    }

    fn drop_does(world: &mut World, step: &Step) -> Result<(), i32> {
        let at = |path: &usize| format!("outbox/{}", PATHS[*path]);
        let result = match step {
            Step::Create(path) => world.create(&at(path)).map(|handle| world.fs().release(handle)),
            Step::Mkdir(path) => world.mkdir(&at(path)),
            Step::Unlink(path) => world.unlink(&at(path)),
            Step::Rmdir(path) => world.rmdir(&at(path)),
            Step::Rename(from, to) => world.rename(&at(from), &at(to)),
            Step::Restart => {
                world.restart();
                Ok(())
            }
        };
        result.map_err(|error| error.errno)
    }

    /// Whether the kernel would ask: it knows what is a directory, and what is in what.
    fn is_asked(root: &Path, step: &Step) -> bool {
        let parent = |path: &usize| root.join(PATHS[*path]).parent().is_some_and(Path::is_dir);
        match step {
            Step::Rename(from, to) => {
                let (old, new) = (root.join(PATHS[*from]), root.join(PATHS[*to]));
                let kinds = !new.exists() || old.is_dir() == new.is_dir();
                parent(from) && parent(to) && old.exists() && kinds && !new.starts_with(&old) && !old.starts_with(&new)
            }
            Step::Create(path) | Step::Mkdir(path) => parent(path),
            Step::Unlink(path) | Step::Rmdir(path) => root.join(PATHS[*path]).exists(),
            Step::Restart => true,
        }
    }

    fn listed(root: &Path, world: &World) -> (Vec<bool>, Vec<bool>) {
        let disk = PATHS.iter().map(|path| root.join(path).exists()).collect();
        let drop = PATHS.iter().map(|path| world.find(&format!("outbox/{path}")).is_ok()).collect();
        (disk, drop)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
        #[test]
        fn names_in_a_drop_are_those_of_a_directory(steps in prop::collection::vec(step(), 1..24)) {
            let root = tempfile::tempdir().unwrap();
            let mut world = World::new();
            world.outbox();
            for step in steps {
                if !is_asked(root.path(), &step) {
                    continue;
                }
                let expected = disk(root.path(), &step);
                prop_assert_eq!(drop_does(&mut world, &step), expected, "{:?}", step);
                let (disk, drop) = listed(root.path(), &world);
                prop_assert_eq!(drop, disk, "after {:?}", step);
            }
        }
    }
}

mod of_a_reader {
    use super::*;
    use crate::bacap::WriteCap;
    use crate::drop::{Header, Kind, SyncKey};
    use crate::store::{Arrival, BoxSeq, ChannelName, Content, NetworkId};

    /// Has these files arrive in a drop that is read.
    fn arrive(world: &World, headers: &[(Header, &[u8])]) -> ChannelId {
        let cap = WriteCap::from_seed(&[5; 32]);
        let store = world.fs().owner().store();
        let name = ChannelName::parse("inbox").unwrap();
        let content = Content::Drop { allow_delete: false };
        let id = store.add(name, cap.read_cap().clone(), content).wait().unwrap();
        store.bind_network(id, NetworkId::new([[7; 32]])).wait().unwrap();
        let key = SyncKey::of(cap.read_cap());
        let base = cap.read_cap().index().counter();
        let mut seq = 0;
        let mut arrivals = Vec::new();
        for (header, body) in headers {
            let header = Header {
                size: body.len() as u64,
                digest: Some(*blake3::hash(body).as_bytes()),
                sync: Some(key.at(base + seq)),
                ..header.clone()
            };
            let mut bytes = header.encode(1500).unwrap();
            bytes.extend_from_slice(body);
            for payload in bytes.chunks(1500) {
                arrivals.push((BoxSeq(seq), Arrival::Message(payload.to_vec())));
                seq += 1;
            }
        }
        arrivals.push((BoxSeq(seq), Arrival::NotYet));
        store.received(id, arrivals).wait().unwrap();
        id
    }

    fn file(path: &str, name: &str) -> Header {
        Header { path: path.to_owned(), name: name.to_owned(), ..Header::default() }
    }

    #[test]
    fn files_of_strangers_appear_under_names_that_lead_nowhere_and_none_replaces_another() {
        let world = World::new();
        let long = vec![9; 4000];
        arrive(
            &world,
            &[
                (file("../../etc", "passwd"), b"1"),
                (file("", "a.txt"), b"22"),
                (file("", "a.txt"), &long),
                (file("a.txt", "x"), b"4"),
                (Header { kind: Kind::EmptyDirectory, ..file("d", "empty") }, b""),
                (file("", ".."), b"5"),
            ],
        );
        // The engine makes boxes into records in its own time.
        let until = Instant::now() + Duration::from_secs(60);
        while world.find("inbox/__").is_err() {
            assert!(Instant::now() < until, "the files did not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(world.names("inbox"), ["__", "__~1", "a.txt", "a~1.txt", "a~2.txt", "d"].map(str::to_owned));
        assert_eq!(world.read("inbox/a.txt"), b"22");
        assert_eq!(world.read("inbox/a~1.txt"), long);
        assert_eq!(world.read("inbox/a~2.txt/x"), b"4");
        assert_eq!(world.names("inbox/d/empty"), Vec::<String>::new());
        assert_eq!(world.fs().attributes(world.node("inbox"), None).unwrap().mode, 0o500);
        assert_eq!(world.fs().attributes(world.node("inbox/a.txt"), None).unwrap().mode, 0o400);
        for (what, result) in [
            ("create", world.create("inbox/new").map(drop)),
            ("mkdir", world.mkdir("inbox/new")),
            ("unlink", world.unlink("inbox/a.txt")),
            ("rename", world.rename("inbox/a.txt", "inbox/b")),
            ("rmdir", world.rmdir("inbox/d/empty")),
            ("open", world.open("inbox/a.txt", libc::O_RDWR).map(drop)),
        ] {
            assert_eq!(errno(result), libc::EACCES, "{what}");
        }
    }

    const HOSTILE_NAMES: [&str; 14] = [
        "a.txt",
        ".bash_profile",
        "-rf",
        "..",
        ".",
        "",
        "a/../../b",
        "\u{202e}gpj.exe",
        "two\nlines\u{1b}[2J",
        "CON",
        ".pigeonfs",
        "\u{200b}",
        "a~1.txt",
        "\\\\server\\share",
    ];
    const HOSTILE_PATHS: [&str; 7] = ["", "../../etc", "/", ".ssh/./..", "-d/-e", "a.txt", "\u{7}/\u{feff}"];

    /// Every file and directory below, by its path, with its permission bits.
    fn walk(world: &World, at: Node, path: &str, found: &mut Vec<(String, Node, u32)>) {
        for (_, name) in world.fs().list(at).unwrap() {
            if matches!(name.as_str(), "." | "..") {
                continue;
            }
            assert!(!name.is_empty() && !name.contains(['/', '\\']) && name.len() <= 255, "{name:?}");
            assert!(
                !name.chars().any(char::is_control) && !name.contains(['\u{202e}', '\u{200b}', '\u{feff}']),
                "{name:?}"
            );
            let node = world.fs().lookup(at, OsStr::new(&name)).unwrap();
            let attributes = world.fs().attributes(node, None).unwrap();
            let path = format!("{path}/{name}");
            if matches!(node, Node::DropDirectory(_)) {
                walk(world, node, &path, found);
            }
            found.push((path, node, attributes.mode));
        }
    }

    /// Ten thousand names, paths and modes as strangers choose them: each is in its drop, under a name of its own, and
    /// nobody can run or change it.
    #[test]
    fn ten_thousand_hostile_records_lead_nowhere_in_a_mount() {
        const RECORDS: usize = 10_000;
        let world = World::new();
        let modes = [None, Some(0o777), Some(0o222), Some(0), Some(0o111)];
        let headers: Vec<_> = (0..RECORDS)
            .map(|number| {
                let header = file(HOSTILE_PATHS[number / 3 % 7], HOSTILE_NAMES[number % 14]);
                let kind = if number % 97 == 0 { Kind::EmptyDirectory } else { Kind::File };
                (Header { mode: modes[number % 5], kind, ..header }, number.to_le_bytes())
            })
            .collect();
        let borrowed: Vec<_> = headers
            .iter()
            .map(|(header, body)| (header.clone(), if header.kind == Kind::File { &body[..] } else { &[][..] }))
            .collect();
        let id = arrive(&world, &borrowed);
        let until = Instant::now() + Duration::from_secs(240);
        while world.fs().owner().store().drop_counts(id).unwrap().complete < RECORDS as u64 {
            assert!(Instant::now() < until, "the files did not come");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut found = Vec::new();
        walk(&world, world.node("inbox"), "", &mut found);
        let files: Vec<_> = found.iter().filter(|(_, node, _)| matches!(node, Node::DropFile(_))).collect();
        assert_eq!(files.len(), headers.iter().filter(|(header, _)| header.kind == Kind::File).count());
        let mut numbers = std::collections::BTreeSet::new();
        for (path, _, mode) in &files {
            assert_eq!(mode & 0o7377, 0, "{path}: {mode:o}");
            if numbers.len() < 500 {
                assert!(numbers.insert(world.read(&format!("inbox{path}"))), "{path} has the bytes of another file");
            }
        }
    }
}
