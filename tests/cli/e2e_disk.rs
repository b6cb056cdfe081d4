//! A disk that fails under a mount, and a state that is taken from under it: every door says so, and what was accepted
//! is there afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Mount, Run, Work, bytes, eventually, no_fuse};

/// A disk whose files fail when the test says so.
struct FailingDisk {
    library: PathBuf,
    rules: PathBuf,
}

impl FailingDisk {
    /// The same compiler that builds SQLite builds what stands between the mount and the kernel.
    fn new(work: &Work) -> Self {
        let (library, rules) = (work.path("failing.so"), work.path("failing"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/failing.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]);
        assert!(compiler.status().expect("a C compiler").success());
        fs::write(&rules, "").expect("written");
        Self { library, rules }
    }

    fn fail(&self, rules: &str) {
        fs::write(&self.rules, rules).expect("written");
    }

    fn mount(&self, work: &Work, arguments: &[&str]) -> Mount {
        let variables = [("LD_PRELOAD", self.library.as_os_str()), ("FAILING_FILES", self.rules.as_os_str())];
        work.mount_with("m", "s", arguments, &variables)
    }
}

fn append(mount: &Mount, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(mount.file("notes"))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.expect_err("it failed").raw_os_error()
}

/// What every door says while nothing can be written.
fn all_doors_say_so(work: &Work, mount: &Mount, why: &str) {
    work.verb("s", &["status"]).failed(1, &["cannot be written", why]);
    work.verb("s", &["status", "notes"]).failed(1, &["cannot be written", why]);
    work.verb("s", &["list"]).failed(1, &["cannot be written"]);
    let json = work.verb("s", &["status", "--json"]).failed(1, &[]);
    assert!(String::from_utf8_lossy(&json.stdout).contains("\"state_error\""), "it is told in JSON too");
    work.verb("s", &["wait", "notes"]).failed(1, &["cannot be written"]);
    work.verb("s", &["new", "other"]).failed(1, &["cannot be written"]);
    work.verb_with("s", &["append", "notes"], b"more").failed(1, &["cannot be written"]);
    assert_eq!(errno(append(mount, b"more")), Some(libc::EIO));
    let file = OpenOptions::new().append(true).open(mount.file("notes")).expect("opened");
    assert_eq!(errno(file.sync_all()), Some(libc::EIO), "an fsync with nothing to write");
    assert_eq!(errno(fs::create_dir(mount.file("drop"))), Some(libc::EIO));
    assert_eq!(errno(fs::read(mount.file(".pigeonfs/notes/wait"))), Some(libc::EIO));
}

fn status(work: &Work) -> Run {
    work.verb("s", &["status"])
}

/// One failed sync of the log, and the mount took nothing more, while the status said that all was well.
#[test]
fn a_disk_that_fails_for_a_while_is_told_of_at_every_door_and_goes_on_when_it_can() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let net = work.localnet("net");
    let disk = FailingDisk::new(&work);
    let mount = disk.mount(&work, &["--config", net.config()]);
    fs::write(mount.file("notes"), bytes(2000, 1)).expect("written");
    work.verb("s", &["wait", "notes"]).ok();
    for failing in ["sync pigeonfs.db-wal", "write pigeonfs.db-wal", "sync pigeonfs.db"] {
        disk.fail(failing);
        let refused = errno(append(&mount, b"perhaps"));
        assert_eq!(refused, Some(libc::EIO), "{failing}");
        all_doors_say_so(&work, &mount, "disk I/O error");
        disk.fail("");
        eventually("the store recovers", || (status(&work).code == Some(0)).then_some(()));
        append(&mount, b"certainly").expect("appended");
        work.verb("s", &["wait", "notes"]).ok();
    }
    // Whether what was answered with EIO is there is open; nothing else is missing, doubled or torn.
    let read = fs::read(mount.file("notes")).expect("read");
    let tail = String::from_utf8(read[2000..].to_vec()).expect("text");
    assert_eq!(read[..2000], bytes(2000, 1));
    assert_eq!(tail.matches("certainly").count(), 3, "{tail}");
    assert!(tail.replace("certainly", "").replace("perhaps", "").is_empty(), "{tail}");
    work.share("s", "r", "notes");
    let there = work.verb("r", &["read", "notes", "--config", net.config()]).ok();
    assert!(there.stdout == read, "the reader has other bytes");
    mount.signal(rustix::process::Signal::TERM);
}

#[test]
fn a_mount_that_ends_on_a_failing_disk_says_so_with_its_exit_code() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let disk = FailingDisk::new(&work);
    let mount = disk.mount(&work, &["--daemon", "unix:///nowhere"]);
    fs::write(mount.file("notes"), bytes(2000, 1)).expect("written");
    disk.fail("sync pigeonfs.db\nwrite pigeonfs.db");
    assert_eq!(errno(append(&mount, b"perhaps")), Some(libc::EIO));
    all_doors_say_so(&work, &mount, "disk I/O error");
    work.verb("s", &["umount", mount.path.to_str().expect("text")]).failed(1, &["cannot be written"]);
    assert_eq!(mount.ended_with(), Some(1));
    let there = work.verb("s", &["read", "notes"]).ok();
    assert!(there.stdout.starts_with(&bytes(2000, 1)));
}

#[test]
fn a_database_that_is_taken_from_under_a_mount_is_noticed() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &["--daemon", "unix:///nowhere"]);
    fs::write(mount.file("notes"), b"kept").expect("written");
    let (there, gone) = (work.path("s/pigeonfs.db"), work.path("gone.db"));
    fs::rename(&there, &gone).expect("moved");
    // Nobody writes: it is noticed all the same.
    eventually("the status says so", || status(&work).stderr.contains("removed or replaced").then_some(()));
    all_doors_say_so(&work, &mount, "removed or replaced");
    fs::write(&there, b"").expect("another file in its place");
    all_doors_say_so(&work, &mount, "removed or replaced");
    fs::rename(&gone, &there).expect("moved back");
    eventually("it goes on", || (status(&work).code == Some(0)).then_some(()));
    append(&mount, b" and more").expect("appended");
    assert_eq!(fs::read(mount.file("notes")).expect("read"), b"kept and more");

    fs::remove_dir_all(work.path("s")).expect("removed");
    assert_eq!(errno(append(&mount, b"lost")), Some(libc::EIO), "before anything is accepted");
    work.verb("m", &["umount", mount.path.to_str().expect("text")]).failed(1, &["cannot be written"]);
    assert_eq!(mount.ended_with(), Some(1));
    assert!(!work.path("s").exists(), "nothing was made anew");
}
