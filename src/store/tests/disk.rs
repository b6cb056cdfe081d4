//! The state directory on a real disk: who may read it, who owns it, what an older program says of it, and a full one.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use super::super::*;
use super::{Home, LIMITS, RESERVE_BYTES, bytes, name, network};

const UMASK_DIR: &str = "PIGEONFS_TEST_UMASK_DIR";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Run by the test below in a process of its own, because a umask belongs to a process.
#[test]
fn under_any_umask_child() {
    let Some(dir) = std::env::var_os(UMASK_DIR).map(PathBuf::from) else { return };
    for (at, umask) in [0o000, 0o022, 0o777].into_iter().enumerate() {
        rustix::process::umask(Mode::from_raw_mode(umask));
        let path = dir.join(format!("deep-{at}/state"));
        // The directories above are made by the same rule, so with this umask we could not enter them if not root.
        if umask == 0o777 {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
        }
        let state = StateDir::lock(&path).unwrap();
        let store = Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap();
        let cap = crate::bacap::WriteCap::from_seed(&[1; 32]);
        let id = store.create_stream(name("notes"), cap).wait().unwrap();
        store.append(id, vec![1; 5000], None).wait().unwrap();
        assert_eq!(store.read(id, 0, 1).unwrap(), [1]);
        assert_eq!(mode(&path), 0o700);
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 5, "lock, reserve, database, log, shared memory: {files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{file:?} under umask {umask:03o}");
        }
    }
}

#[test]
fn files_are_private_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::disk::under_any_umask_child", "--nocapture"])
        .env(UMASK_DIR, dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

#[test]
fn a_directory_that_was_there_is_made_private_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, mode| {
        let path = dir.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let empty = make("empty", 0o755);
    drop(StateDir::lock(&empty).unwrap());
    assert_eq!(mode(&empty), 0o700);

    let furnished = make("furnished", 0o755);
    fs::write(furnished.join("thinclient.toml"), "").unwrap();
    drop(StateDir::take(&furnished, Making::Always).unwrap());
    assert_eq!(mode(&furnished), 0o755, "it holds other things: its owner decides");
    assert_eq!(mode(&furnished.join("lock")), 0o600);

    let shared = make("shared", 0o1777);
    fs::write(shared.join("theirs"), "").unwrap();
    let error = StateDir::take(&shared, Making::Always).unwrap_err();
    assert!(matches!(error, StateError::Exposed { .. }), "{error}");
    assert_eq!(mode(&shared), 0o1777);
}

#[test]
fn one_process_owns_a_state_directory() {
    let home = Home::new();
    let error = StateDir::lock(home.dir.path()).unwrap_err();
    let StateError::Busy { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains("in use"), "{error}");
    // The store holds on to the lock, whoever else lets go.
    let Home { store, state, dir } = home;
    drop(state);
    assert!(StateDir::lock(dir.path()).is_err());
    store.close();
    StateDir::lock(dir.path()).unwrap();
}

#[test]
fn what_is_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = StateDir::lock(&path).unwrap_err();
        assert!(matches!(error, StateError::NotADirectory { .. }), "{error:?}");
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let home = Home::new();
    home.writer("notes", 1);
    home.store.close();
    let path = home.state.database();
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 77).unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let Err(error) = Store::open(&home.state, LIMITS) else { panic!("it was opened") };
    assert!(matches!(error, StoreError::NewerSchema { found: 77, .. }), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
    assert!(fs::read(&path).unwrap() == before, "it was changed");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let home = Home::new();
    home.store.close();
    fs::write(home.state.database(), b"these are 40 bytes that are no database\n".repeat(200)).unwrap();
    let Err(error) = Store::open(&home.state, LIMITS) else { panic!("it was opened") };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// A small file system of our own, gone with this value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mounted(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={mebibytes}m,mode=700")).unwrap();
        match rustix::mount::mount("pigeonfs-test", dir.path(), "tmpfs", MountFlags::empty(), size.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: a tmpfs cannot be mounted here ({error}); run as root to try a full disk");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Leaves no byte free. Emptying the file makes room again.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for len in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; len]).is_ok() {}
        }
        path
    }
}

/// Removing would make no room as long as a process that another test is starting has the file open.
fn empty(path: &Path) {
    fs::File::create(path).unwrap();
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH) {
            eprintln!("the test's tmpfs stays mounted: {error}");
        }
    }
}

#[test]
fn on_a_full_disk_nothing_accepted_is_lost_and_confirmations_are_kept() {
    let Some(disk) = SmallDisk::mounted(32) else { return };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let state = StateDir::lock(&disk.path()).unwrap();
    let store = Store::open_with(&state, LIMITS, 4 << 20).unwrap();
    let cap = crate::bacap::WriteCap::from_seed(&[1; 32]);
    let id = store.create_stream(name("notes"), cap.clone()).wait().unwrap();
    store.bind_network(id, network()).wait().unwrap();
    let mut accepted = Vec::new();
    loop {
        let more = bytes(200_000, accepted.len());
        match store.append(id, more.clone(), None).wait() {
            Ok(_) => accepted.extend(more),
            Err(error) => break assert_eq!(error, StoreError::DiskFull),
        }
        assert!(accepted.len() < 24 << 20, "the disk never became full");
    }
    let reserve = state.path().join("reserve");
    assert!(reserve.exists(), "an append never takes the reserve");
    disk.fill();

    // A reader in the middle of a question keeps the log from being started over: confirmations need fresh room.
    let other = Connection::open(state.database()).unwrap();
    let question = other.unchecked_transaction().unwrap();
    question.query_row("SELECT count(*) FROM channel", [], |_| Ok(())).unwrap();
    let mut confirmed = 0;
    while reserve.exists() {
        let seqs = vec![BoxSeq(confirmed)];
        store.launch(id, 0, seqs.clone(), network()).wait().unwrap();
        store.confirm(id, seqs, BoxState::Stored).wait().unwrap();
        confirmed += 1;
        assert!(confirmed < 3000, "the reserve was never needed");
    }
    eprintln!("the reserve was released by confirmation {confirmed}");
    for seq in confirmed..confirmed + 20 {
        store.launch(id, 0, vec![BoxSeq(seq)], network()).wait().unwrap();
        store.confirm(id, vec![BoxSeq(seq)], BoxState::Stored).wait().unwrap();
    }
    confirmed += 20;
    drop(question);
    drop(other);

    // What the reserve left must not be taken by a person's bytes.
    disk.fill();
    assert_eq!(store.append(id, vec![1], None).wait(), Err(StoreError::DiskFull));
    let refused = store.create_stream(name("more"), crate::bacap::WriteCap::from_seed(&[2; 32])).wait();
    assert_eq!(refused, Err(StoreError::DiskFull));
    let check = |store: &Store| {
        let told = store.channel(id).unwrap().unwrap();
        assert_eq!((told.size, told.first_unstored), (accepted.len() as u64, BoxSeq(confirmed)));
        let mut read = Vec::new();
        while read.len() < accepted.len() {
            read.extend(store.read(id, read.len() as u64, 1 << 20).unwrap());
        }
        assert!(read == accepted, "other bytes than those that were accepted");
    };
    check(&store);
    store.close();
    // With the reserve used up, others may leave too little even to open. Then this is said, and nothing is lost.
    if let Err(error) = Store::open_with(&state, LIMITS, 4 << 20) {
        assert_eq!(error, StoreError::DiskFull);
    }
    empty(&ballast);
    let store = Store::open_with(&state, LIMITS, 4 << 20).unwrap();
    check(&store);
    store.append(id, vec![1], None).wait().unwrap();
    assert!(reserve.exists(), "it is set aside again before anything is accepted");
}

#[test]
fn a_full_disk_is_opened_with_the_help_of_the_reserve() {
    let Some(disk) = SmallDisk::mounted(16) else { return };
    let state = StateDir::lock(&disk.path()).unwrap();
    let store = Store::open_with(&state, LIMITS, 2 << 20).unwrap();
    let id = store.create_stream(name("notes"), crate::bacap::WriteCap::from_seed(&[1; 32])).wait().unwrap();
    store.append(id, bytes(100_000, 1), None).wait().unwrap();
    store.close();
    let filler = disk.fill();
    let store = Store::open_with(&state, LIMITS, 2 << 20).unwrap();
    assert_eq!(store.read(id, 0, 200_000).unwrap(), bytes(100_000, 1));
    assert_eq!(store.append(id, vec![1], None).wait(), Err(StoreError::DiskFull));
    store.forget(name("notes")).wait().unwrap();
    assert_eq!(store.channels(None, 10).unwrap(), []);
    store.close();
    // With the reserve used up and the room taken by others, nothing can be done but to say so.
    disk.fill();
    assert!(matches!(Store::open_with(&state, LIMITS, 2 << 20), Err(StoreError::DiskFull)));
    empty(&filler);
    Store::open_with(&state, LIMITS, 2 << 20).unwrap();
}
