//! Drops in real mounts: two of them over one localnet, with the tools that people put files somewhere with.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Kill, bytes, eventually, no_fuse};
use pigeonfs::bacap::{ReadCap, WriteCap};
use pigeonfs::engine::{Daemon, Owner, OwnerKind};
use pigeonfs::fs::{Fs, Options};
use pigeonfs::localnet::{Localnet, Options as NetworkOptions};
use pigeonfs::mount::{MountOptions, Session};
use pigeonfs::store::{Capability, ChannelName, Content, DropRecord, RecordState};
use pigeonfs::thin::{Client, ClientOptions, ReadOutcome};
use tempfile::TempDir;

/// A file is sent when it has rested so long.
const REST: Duration = Duration::from_millis(300);

pub(crate) struct World {
    runtime: tokio::runtime::Runtime,
    network: Localnet,
    root: TempDir,
}

/// A mount of a state of its own. It is unmounted when it goes, also when a test fails.
pub(crate) struct Side {
    path: PathBuf,
    owner: Arc<Owner>,
    session: Session,
    runtime: tokio::runtime::Handle,
}

impl World {
    pub(crate) fn new() -> Option<Self> {
        if no_fuse() {
            return None;
        }
        let root = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let network = runtime.block_on(Localnet::start(NetworkOptions::new(root.path().join("net"))));
        Some(Self { runtime, network: network.expect("a network"), root })
    }

    pub(crate) fn side(&self, name: &str) -> Side {
        let path = self.root.path().join(name);
        if !path.is_dir() {
            fs::create_dir(&path).expect("a mount point");
        }
        let _guard = self.runtime.enter();
        let state = self.root.path().join(format!("{name}.state"));
        let owner = Owner::open(&state, Daemon::Fixed(self.network.config()), OwnerKind::Mount).expect("a state");
        let fs = Arc::new(Fs::new(Arc::clone(&owner), Options { rest: REST, ..Options::default() }));
        let runtime = self.runtime.handle().clone();
        let session = Session::start(&path, fs, runtime.clone(), &MountOptions::default()).expect("mounted");
        Side { path, owner, session, runtime }
    }

    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Side {
    fn sh(&self, script: &str) -> (bool, String) {
        let output = Command::new("bash").args(["-c", script]).current_dir(&self.path).output().expect("a shell");
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told)
    }

    #[track_caller]
    pub(crate) fn ok(&self, script: &str) -> String {
        let (ok, told) = self.sh(script);
        assert!(ok, "{script:?} failed: {told}");
        told
    }

    #[track_caller]
    pub(crate) fn fails(&self, script: &str, words: &str) {
        let (ok, told) = self.sh(script);
        assert!(!ok && told.contains(words), "{script:?} said {told:?}, and {words:?} was expected");
    }

    pub(crate) fn read_cap(&self, drop: &str) -> ReadCap {
        let store = self.owner.store();
        let id = store.by_name(&ChannelName::parse(drop).expect("a name")).expect("asked").expect("there").id;
        match store.cap(id).expect("asked") {
            Capability::Write(cap) => cap.read_cap().clone(),
            Capability::Read(_) => panic!("it is written there"),
        }
    }

    /// A drop whose files can be deleted from the network.
    fn make_deletable(&self, name: &str) {
        let content = Content::Drop { allow_delete: true };
        let cap = WriteCap::from_seed(&[8; 32]);
        self.owner.store().create(ChannelName::parse(name).expect("a name"), cap, content).wait().expect("made");
    }

    fn records(&self, drop: &str) -> Vec<DropRecord> {
        let store = self.owner.store();
        let id = store.by_name(&ChannelName::parse(drop).expect("a name")).expect("asked").expect("there").id;
        store.records(id, None, 100).expect("records")
    }

    pub(crate) fn add(&self, name: &str, cap: ReadCap) {
        let content = Content::Drop { allow_delete: false };
        self.owner.store().add(ChannelName::parse(name).expect("a name"), cap, content).wait().expect("added");
    }

    pub(crate) fn state(&self, file: &str) -> Option<String> {
        let mut value = [0; 32];
        let count = rustix::fs::getxattr(self.path.join(file), "user.pigeonhole.state", &mut value[..]).ok()?;
        Some(String::from_utf8_lossy(&value[..count]).into_owned())
    }

    pub(crate) fn until_state(&self, file: &str, state: &str) {
        eventually(&format!("{file} is {state}"), || (self.state(file).as_deref() == Some(state)).then_some(()));
    }

    /// Until all that is in a drop is at the replicas.
    pub(crate) fn delivered(&self, drop: &str) {
        self.ok(&format!("cat .pigeonfs/{drop}/wait"));
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.session.unmount();
        self.runtime.block_on(self.owner.close());
    }
}

/// Until the tree that arrived is the one that was sent.
fn same(sent: &Path, arrived: &Path) {
    let mut last = String::new();
    eventually(&format!("{} arrives", sent.display()), || match crate::tree::difference(sent, arrived) {
        None => Some(()),
        Some(difference) => {
            last = difference;
            None
        }
    });
}

#[test]
fn trees_go_in_with_the_usual_tools_and_come_out_the_same() {
    let Some(world) = World::new() else { return };
    let (writer, reader) = (world.side("writer"), world.side("reader"));
    let source = world.source("source");
    crate::tree::make(&source, 60, 600_000, 1);
    let from = source.display();
    writer.ok("mkdir outbox");
    reader.add("inbox", writer.read_cap("outbox"));
    writer.ok(&format!("cp -r {from} outbox/cp"));
    writer.ok(&format!("rsync -r {from}/ outbox/rsync"));
    writer.ok(&format!("mkdir outbox/tar && tar c -C {from} . | tar x --no-same-owner -C outbox/tar"));
    writer.delivered("outbox");
    for tool in ["cp", "rsync", "tar"] {
        assert_eq!(crate::tree::difference(&source, &writer.path.join("outbox").join(tool)), None, "{tool} reads back");
        same(&source, &reader.path.join("inbox").join(tool));
    }
    for side in [&writer, &reader] {
        side.ok("ls -laR . >/dev/null && find . -type f | wc -l && du -a >/dev/null && df . >/dev/null");
    }
    assert_eq!(reader.ok("find inbox -name '.*.??????' -o -name '*~1*'"), "", "no temporary name was sent");
    // A reader that joins when all is there gets all of it.
    let late = world.side("late");
    late.add("inbox", writer.read_cap("outbox"));
    for tool in ["cp", "rsync", "tar"] {
        same(&source, &late.path.join("inbox").join(tool));
    }
    assert_eq!(reader.ok("grep -c '^files' .pigeonfs/inbox/status"), "1\n");
}

#[test]
fn editors_and_installers_leave_one_file_under_its_name() {
    let Some(world) = World::new() else { return };
    let (writer, reader) = (world.side("writer"), world.side("reader"));
    writer.ok("mkdir outbox");
    reader.add("inbox", writer.read_cap("outbox"));
    fs::write(world.source("moved"), "moved\n").expect("written");
    fs::write(world.source("installed"), "installed\n").expect("written");
    let root = world.root.path().display().to_string();
    writer.ok(&format!("mv {root}/moved outbox/ && test ! -e {root}/moved"));
    writer.ok(&format!("install -m 644 {root}/installed outbox/installed"));
    writer.ok("cd outbox && echo draft > edited && sed -i s/draft/final/ edited");
    writer.ok(
        "python3 - <<'END'\nimport os\nwith open('outbox/.save.tmp', 'w') as f:\n    f.write('saved'); f.flush(); os.fsync(f.fileno())\nos.replace('outbox/.save.tmp', 'outbox/saved')\nEND",
    );
    writer.ok("dd if=/dev/zero of=outbox/holes bs=1 count=1 seek=4999 2>/dev/null; truncate -s 6000 outbox/holes");
    writer.delivered("outbox");
    eventually("all files arrive", || (reader.ok("ls inbox | wc -l") == "5\n").then_some(()));
    assert_eq!(
        reader.ok("cd inbox && cat moved installed edited saved && wc -c < holes"),
        "moved\ninstalled\nfinal\nsaved6000\n"
    );
    writer.until_state("outbox/edited", "stored");
    for refused in
        ["echo x >> outbox/edited", "truncate -s 0 outbox/edited", "rm outbox/edited", "mv outbox/edited outbox/y"]
    {
        writer.fails(refused, "Operation not permitted");
    }
    for refused in ["echo x > inbox/new", "mkdir inbox/d", "rm -f inbox/moved", "mv inbox/moved inbox/y"] {
        reader.fails(refused, "Permission denied");
    }
    let map = "import mmap; f = open('inbox/holes', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(len(m), sum(m[:]))";
    assert_eq!(reader.ok(&format!("python3 -c \"{map}\"")), "6000 0\n");
}

/// A listing at the wrong moment once gave a record a second name, and `rm` of that name deleted the real file: a record
/// that was stored before the answer to its hand-over came was taken for somebody else's.
#[test]
fn each_file_has_one_name_whoever_lists_while_it_is_sent() {
    let files = std::env::var("PIGEONFS_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let Some(world) = World::new() else { return };
    let (writer, reader) = (world.side("writer"), world.side("reader"));
    writer.ok("mkdir outbox outbox/d");
    reader.add("inbox", writer.read_cap("outbox"));
    let over = std::sync::atomic::AtomicBool::new(false);
    let names = |directory: PathBuf| -> Vec<String> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let check = |directory: PathBuf| {
        let mut listed = names(directory);
        let count = listed.len();
        listed.sort();
        listed.dedup();
        assert_eq!(count, listed.len(), "a name was listed twice");
        let strange: Vec<_> = listed.iter().filter(|name| name[1..].parse::<usize>().is_err()).collect();
        assert!(strange.is_empty(), "nobody made {strange:?}");
        count
    };
    // Also where something below fails.
    struct AtEnd<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for AtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _at_end = AtEnd(&over);
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                check(writer.path.join("outbox/d"));
                check(reader.path.join("inbox/d"));
            }
        });
        for number in 0..files {
            fs::write(writer.path.join(format!("outbox/d/f{number}")), format!("{number}\n")).expect("written");
        }
        // A read of `wait` has its patience, and there may be very many.
        eventually("all is delivered", || fs::read(writer.path.join(".pigeonfs/outbox/wait")).ok());
        eventually("all files arrive", || (check(reader.path.join("inbox/d")) == files).then_some(()));
    });
    assert_eq!(check(writer.path.join("outbox/d")), files);
    for number in (0..files).step_by(97) {
        let arrived = fs::read_to_string(reader.path.join(format!("inbox/d/f{number}"))).expect("it is there");
        assert_eq!(arrived, format!("{number}\n"));
    }
    assert_eq!(writer.records("outbox").len(), 100, "the first page of them");
}

/// A copy that has written some bytes and waits for more.
fn copy_halfway(world: &World, side: &Side, name: &str) -> (Kill, File) {
    let fifo = world.source(&format!("{name}.fifo"));
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    // Whoever starts the tests may have had signals ignored; cp would inherit that.
    let copy = Command::new("env")
        .args(["--default-signal", "cp"])
        .arg(&fifo)
        .arg(side.path.join("outbox").join(name))
        .stderr(Stdio::null())
        .spawn()
        .expect("cp");
    let copy = Kill(copy);
    let mut pipe = OpenOptions::new().write(true).open(&fifo).expect("cp reads it");
    pipe.write_all(&bytes(10_000, 3)).expect("taken");
    let target = side.path.join("outbox").join(name);
    eventually("bytes are written", || fs::metadata(&target).is_ok_and(|found| found.len() > 0).then_some(()));
    (copy, pipe)
}

#[test]
fn a_copy_that_is_killed_is_never_sent_and_a_second_one_is() {
    let Some(world) = World::new() else { return };
    let (writer, reader) = (world.side("writer"), world.side("reader"));
    writer.ok("mkdir outbox");
    reader.add("inbox", writer.read_cap("outbox"));
    for (name, signal) in [("kill", 9), ("term", 15), ("ctrl-c", 2)] {
        let (mut copy, pipe) = copy_halfway(&world, &writer, name);
        let pid = rustix::process::Pid::from_child(&copy.0);
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
        rustix::process::kill_process(pid, signal).expect("our child");
        assert_eq!(copy.0.wait().expect("our child").signal(), Some(signal.as_raw()));
        drop(pipe);
        writer.until_state(&format!("outbox/{name}"), "unfinished");
    }
    writer.ok("echo whole > outbox/whole");
    writer.until_state("outbox/whole", "stored");
    writer.fails("cat .pigeonfs/outbox/wait", "Input/output error");
    let status = writer.ok("cat .pigeonfs/outbox/status .pigeonfs/outbox/errors");
    for name in ["kill", "term", "ctrl-c"] {
        assert!(status.lines().any(|line| line.starts_with("unfinished") && line.contains(name)), "{status}");
    }
    eventually("the whole file arrives", || reader.path.join("inbox/whole").exists().then_some(()));
    assert_eq!(reader.ok("ls inbox"), "whole\n");

    fs::write(world.source("again"), bytes(30_000, 4)).expect("written");
    let again = world.source("again");
    for name in ["kill", "term", "ctrl-c"] {
        writer.ok(&format!("cp {} outbox/{name}", again.display()));
    }
    writer.delivered("outbox");
    for name in ["kill", "term", "ctrl-c"] {
        eventually(name, || reader.path.join("inbox").join(name).exists().then_some(()));
        reader.ok(&format!("cmp {} inbox/{name}", again.display()));
    }
}

#[test]
fn a_mount_that_ends_in_order_sends_what_was_closed_and_keeps_what_was_not() {
    let Some(world) = World::new() else { return };
    let writer = world.side("writer");
    writer.ok("mkdir outbox outbox/d && echo a > outbox/d/a && touch outbox/film.part outbox/.DS_Store");
    drop(writer);
    let writer = world.side("writer");
    assert_eq!(writer.ok("ls -A outbox outbox/d"), "outbox:\n.DS_Store\nd\nfilm.part\n\noutbox/d:\na\n");
    writer.until_state("outbox/d/a", "stored");
    assert_eq!(writer.state("outbox/film.part").as_deref(), Some("temporary"));
    assert_eq!(writer.state("outbox/.DS_Store").as_deref(), Some("local"));
    writer.ok("mv outbox/film.part outbox/film");
    writer.delivered("outbox");
    writer.ok("rm outbox/.DS_Store");
}

#[test]
fn a_tree_that_was_sent_is_not_sent_again_by_rsync_at_a_later_mount() {
    let Some(world) = World::new() else { return };
    let source = world.source("tree");
    fs::create_dir_all(source.join("sub")).expect("made");
    for (name, mode) in [("a", 0o644), ("sub/b", 0o600), ("sub/c", 0o755)] {
        fs::write(source.join(name), name).expect("written");
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).expect("set");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(source.join(name)).and_then(|file| file.set_modified(long_ago)).expect("set");
    }
    let rsync = format!("rsync -rt {}/ outbox", source.display());
    let writer = world.side("writer");
    writer.ok(&format!("mkdir outbox && {rsync}"));
    writer.delivered("outbox");
    writer.ok(&rsync);
    drop(writer);
    let writer = world.side("writer");
    assert_eq!(writer.ok("stat -c %Y outbox/a outbox/sub/b").trim(), "1000000000\n1000000000");
    writer.ok(&rsync);
    let files = writer.records("outbox");
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn a_stored_file_is_removed_from_the_network_where_its_drop_allows_it_and_nowhere_else() {
    let Some(world) = World::new() else { return };
    let (writer, early) = (world.side("writer"), world.side("early"));
    writer.make_deletable("outbox");
    writer.ok("mkdir plain");
    for drop in ["outbox", "plain"] {
        early.add(drop, writer.read_cap(drop));
        writer
            .ok(&format!("head -c 10000 /dev/zero > {drop}/regretted && mkdir {drop}/d && echo kept > {drop}/d/kept"));
        writer.delivered(drop);
        eventually("all is there", || (early.ok(&format!("find {drop} -type f | wc -l")) == "2\n").then_some(()));
    }

    writer.fails("rm plain/regretted", "Operation not permitted");
    assert!(
        writer
            .ok("cat .pigeonfs/plain/errors")
            .contains("regretted was sent, and this drop was made without --allow-delete")
    );
    assert_eq!(writer.ok("wc -c < plain/regretted"), "10000\n");
    writer.until_state("plain/regretted", "stored");

    writer.ok("rm outbox/regretted");
    assert_eq!(writer.ok("find outbox -type f"), "outbox/d/kept\n");
    eventually("its boxes are deleted", || {
        writer.records("outbox").iter().any(|record| record.state == RecordState::Deleted).then_some(())
    });
    // A mount after this one does not show it either; and its name is free.
    drop(writer);
    let writer = world.side("writer");
    assert_eq!(writer.ok("find outbox -type f"), "outbox/d/kept\n");
    writer.ok("echo better > outbox/regretted");
    writer.delivered("outbox");

    // Its name is gone with its bytes: the header's box, which readers see first, is a tombstone too.
    let deleted = writer.records("outbox").into_iter().find(|record| record.state == RecordState::Deleted).expect("it");
    assert_eq!((deleted.name.as_str(), deleted.deleted_end), ("regretted", deleted.end));

    // Who comes now gets what was not deleted, and neither sees nor hears of what was.
    let late = world.side("late");
    for drop in ["outbox", "plain"] {
        late.add(drop, writer.read_cap(drop));
        eventually("all is there", || (late.ok(&format!("find {drop} -type f | wc -l")) == "2\n").then_some(()));
    }
    assert_eq!(late.ok("cat outbox/regretted outbox/d/kept && wc -c < plain/regretted"), "better\nkept\n10000\n");
    let told = late.ok("cat .pigeonfs/outbox/status .pigeonfs/outbox/errors");
    assert!(told.contains("2 complete, 0 broken") && !told.contains("deleted"), "{told}");
    let cap = writer.read_cap("outbox");
    let first = world.runtime.block_on(async {
        let client = Client::start(world.network.config(), ClientOptions::default());
        let read = client.read(&cap, cap.index(), client.deadline_for(1)).await;
        client.close().await;
        read
    });
    assert_eq!(first.expect("read"), ReadOutcome::Tombstone, "the box of the header");
    // `receive` and its exit code know of no trouble either.
    let (pigeonfs, state) = (env!("CARGO_BIN_EXE_pigeonfs"), world.source("receiver.state"));
    let (state, config) = (state.display(), world.source("net/thinclient.toml"));
    let add = format!("echo {} | {pigeonfs} add --drop --state {state} inbox", *cap.to_base64());
    let receive = format!("{pigeonfs} receive --state {state} --config {} inbox -o {state}", config.display());
    let told = writer.ok(&format!("{add} && {receive} 2>&1"));
    assert!(told.contains("2 files received") && !told.contains("broken") && !told.contains("sent again"), "{told}");
    assert_eq!(writer.ok(&format!("cat {state}/regretted {state}/d/kept")), "better\nkept\n");
    // What has arrived before is nobody's to take.
    assert_eq!(early.ok("wc -c < outbox/regretted"), "10000\n");
    eventually("the new one", || (early.sh("cat 'outbox/regretted~1'") == (true, "better\n".to_owned())).then_some(()));
}
