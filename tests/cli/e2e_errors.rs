//! The errors of the main path: each says what happened, with what, and what to do, and ends with its own code.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::common::{Work, bytes, eventually, is_mounted, no_fuse, run, skip};

#[test]
fn there_is_no_daemon() {
    let work = Work::new();
    work.verb("s", &["new", "x"]).ok();
    work.verb_with("s", &["append", "x", "--no-wait"], b"bytes").ok();
    let socket = work.path("nobody.sock");
    let address = format!("unix://{}", socket.display());
    work.verb("s", &["wait", "x", "--timeout", "1", "--daemon", &address])
        .failed(4, &["nobody.sock", "0 of 5 bytes of \"x\" are stored", "hint: nothing is lost"]);
    work.verb("s", &["wait", "x", "--timeout", "1"]).failed(4, &["no daemon was found", "thinclient.toml"]);
    work.verb("s", &["wait", "x", "--config", "/nowhere/thinclient.toml"])
        .failed(2, &["/nowhere/thinclient.toml cannot be read"]);
    work.verb("s", &["wait", "x", "--daemon", "nonsense"]).failed(2, &["\"nonsense\" is no address"]);
}

#[test]
fn what_answers_is_no_daemon() {
    let work = Work::new();
    work.verb("s", &["new", "x"]).ok();
    work.verb_with("s", &["append", "x", "--no-wait"], b"bytes").ok();
    let words = [
        ("random bytes", bytes(4096, 5), "3"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "3"),
        // Longer than a daemon may take for its greeting.
        ("silence", Vec::new(), "8"),
    ];
    for (what, words, timeout) in words {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let words = words.clone();
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.write_all(&words);
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        let run = work.verb("s", &["wait", "x", "--timeout", timeout, "--daemon", &address]);
        assert!(run.code == Some(4) || run.code == Some(5), "{what}: {:?} {}", run.code, run.stderr);
        assert!(run.stderr.contains("0 of 5 bytes"), "{what}: {}", run.stderr);
        assert!(run.stderr.contains(address.trim_start_matches("tcp://")), "{what}: {}", run.stderr);
    }
}

#[test]
fn a_channel_belongs_to_another_network() {
    let work = Work::new();
    let (ours, other) = (work.localnet("ours"), work.localnet("other"));
    work.verb("s", &["new", "x"]).ok();
    work.verb_with("s", &["append", "x", "--config", ours.config()], b"bytes").ok();
    work.verb_with("s", &["append", "x", "--config", ours.config(), "--no-wait"], b"more").ok();
    work.verb("s", &["wait", "x", "--timeout", "60", "--config", other.config()])
        .failed(5, &["belongs to another network", "nothing was sent"]);
    work.verb("s", &["wait", "x", "--timeout", "60", "--config", ours.config()]).ok();
}

#[test]
fn a_state_cannot_be_used() {
    let work = Work::new();
    work.verb("s", &["new", "x"]).ok();
    let database = rusqlite::Connection::open(work.path("s/pigeonfs.db")).expect("the database");
    database.pragma_update(None, "user_version", 999).expect("set");
    drop(database);
    work.verb("s", &["list"]).failed(1, &["pigeonfs.db", "newer version", "schema 999"]);

    fs::write(work.path("file"), b"").expect("written");
    work.verb("file", &["list"]).failed(1, &["file", "not a directory"]);
    if rustix::process::geteuid().is_root() {
        // Nothing stops root but a file system that takes nothing.
        symlink("/proc/self", work.path("proc")).expect("linked");
        work.verb("proc/state", &["list"]).failed(1, &["proc/state"]);
    } else {
        fs::create_dir(work.path("closed")).expect("made");
        fs::set_permissions(work.path("closed"), fs::Permissions::from_mode(0o500)).expect("closed");
        work.verb("closed/state", &["list"]).failed(1, &["not writable", "--state"]);
    }
}

#[test]
fn a_mount_cannot_be_made() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("mnt", "s", &["--localnet"]);
    let at = |state: &str, name: &str| {
        let point = work.path(name);
        run(work.command().args(["mount", "--localnet", "--state"]).arg(work.path(state)).arg(point), b"")
    };
    fs::create_dir(work.path("other")).expect("made");
    at("s", "other").failed(6, &["is mounted at", "by process", "pigeonfs umount"]);
    at("t", "mnt").failed(6, &["is a mount of pigeonfs already"]);
    at("t", "missing").failed(2, &["missing does not exist", "mkdir"]);
    fs::write(work.path("other/file"), b"").expect("written");
    at("t", "other").failed(2, &["other is not empty"]);
    at("t", "other/file").failed(2, &["is not a directory"]);
    let unmount = |name: &str| run(work.command().arg("umount").arg(work.path(name)), b"");
    unmount("other").failed(1, &["is not a mount of pigeonfs"]);
    let open = fs::File::create(mount.file("x")).expect("a stream");
    unmount("mnt").failed(6, &["is in use", "--lazy"]);
    drop(open);
    let mut mount = mount;
    // The kernel tells of a close a moment after it.
    eventually("an unmount", || (unmount("mnt").code == Some(0)).then_some(()));
    mount.wait();
    at("t", "other/file").failed(2, &["is not a directory"]);
}

#[test]
fn the_disk_is_full() {
    if no_fuse() || (!rustix::process::geteuid().is_root() && skip("a small tmpfs needs root")) {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let disk = work.path("disk");
    fs::create_dir(&disk).expect("made");
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&disk), b"");
    if mounted.code != Some(0) && skip(&format!("no tmpfs: {}", mounted.stderr)) {
        return;
    }
    let _unmount = Unmount(disk);
    // No daemon yet: nothing leaves, so the disk fills.
    let nobody = format!("unix://{}", work.path("nobody.sock").display());
    let mount = work.mount("mnt", "disk/s", &["--daemon", &nobody]);
    let data = bytes(32 << 20, 9);
    let mut file = fs::OpenOptions::new().create(true).append(true).open(mount.file("big")).expect("a stream");
    let mut accepted = 0;
    let error = loop {
        match file.write(&data[accepted..(accepted + (128 << 10)).min(data.len())]) {
            Ok(count) => accepted += count,
            Err(error) => break error,
        }
        assert!(accepted < data.len(), "a disk of 24 MiB took 32 MiB");
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    assert!(accepted > 1 << 20, "only {accepted} bytes were accepted");
    drop(file);
    assert!(fs::read(mount.file("big")).expect("read back") == data[..accepted], "what was accepted is there");
    mount.signal(rustix::process::Signal::TERM);

    // What was accepted arrives; the reserve keeps the confirmations working.
    let mount = work.mount("mnt", "disk/s", &["--config", network.config()]);
    work.verb("disk/s", &["wait", "big", "--timeout", "200"]).ok();
    work.share("disk/s", "reader", "big");
    let arrived = work.verb("reader", &["read", "big", "--timeout", "200", "--config", network.config()]).ok().stdout;
    assert!(arrived == data[..accepted], "{} of {accepted} bytes arrived", arrived.len());
    mount.signal(rustix::process::Signal::INT);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
}
