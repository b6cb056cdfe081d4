//! What goes wrong on one machine, with the real binary: a copy that is cut off and repeated, a network and a reader that
//! are killed in one transfer, and a disk that is full. Nothing that was accepted is lost.

#![allow(clippy::print_stderr)] // A skipped test says why.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// A directory with a network and mounts in it. Processes are killed and mounts cleared when it goes, also on failure.
struct World {
    root: TempDir,
    network: Option<Child>,
    mounts: Vec<(String, Child)>,
}

impl World {
    fn new() -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            assert!(std::env::var_os("PIGEONFS_TEST_ALL").is_none(), "/dev/fuse cannot be opened here");
            eprintln!("skipped: /dev/fuse cannot be opened here");
            return None;
        }
        let mut world = Self { root: tempfile::tempdir().expect("a directory"), network: None, mounts: Vec::new() };
        world.start_network();
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn pigeonfs(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
        command.current_dir(self.root.path()).stdin(Stdio::null()).env_remove("PIGEONFS_LOG");
        command
    }

    fn start_network(&mut self) {
        let mut network = self
            .pigeonfs()
            .args(["localnet", "--listen", "127.0.0.1:0", "--state", "net"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut ready = [0; 10];
        network.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("it says where it listens");
        assert_eq!(&ready, b"listening ");
        self.network = Some(network);
    }

    fn kill_network(&mut self) {
        let mut network = self.network.take().expect("running");
        network.kill().expect("killed");
        network.wait().expect("waited");
    }

    /// Mounts the state `name` at the directory of the same name.
    fn mount(&mut self, name: &str) -> PathBuf {
        self.mounts.retain(|(mounted, _)| mounted != name);
        let at = self.path(name);
        std::fs::create_dir_all(&at).ok();
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).expect("a log");
        let state = self.path(&format!("{name}-state"));
        let mount = self
            .pigeonfs()
            .args(["mount", "--config", "net/thinclient.toml", "--state"])
            .args([&state, &at])
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        self.mounts.push((name.to_owned(), mount));
        wait_for("the mount", || at.join(".pigeonfs/status.json").exists());
        at
    }

    fn kill_mount(&mut self, name: &str) {
        let at = self.mounts.iter().position(|(mounted, _)| mounted == name).expect("mounted");
        let (_, mount) = &mut self.mounts[at];
        mount.kill().expect("killed");
        mount.wait().expect("waited");
    }

    fn verb(&self, state: &str, arguments: &[&str], stdin: &[u8]) -> (bool, Vec<u8>, String) {
        let mut child = self
            .pigeonfs()
            .arg(arguments[0])
            .arg("--state")
            .arg(self.path(&format!("{state}-state")))
            .args(&arguments[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("piped").write_all(stdin).expect("written");
        let output = child.wait_with_output().expect("waited");
        (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn ok(&self, state: &str, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        let (success, out, err) = self.verb(state, arguments, stdin);
        assert!(success, "{arguments:?} on {state}: {err}\n{}", self.logs());
        out
    }

    fn share(&self, from: &str, to: &str, name: &str) {
        let cap = self.ok(from, &["share", name], b"");
        self.ok(to, &["add", name], &cap);
    }

    fn arrived(&self, state: &str, name: &str, bytes: usize) {
        self.ok(state, &["wait", name, "--bytes", &bytes.to_string(), "--timeout", "120"], b"");
    }

    fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in std::fs::read_dir(self.root.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(10).collect();
                logs.extend(tail.into_iter().rev().map(|line| format!("{line}\n")));
            }
        }
        logs
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (name, mut mount) in std::mem::take(&mut self.mounts) {
            let _ = mount.kill();
            let _ = mount.wait();
            let _ = pigeonfs::mount::unmount(&self.path(&name), true);
        }
        if let Some(mut network) = self.network.take() {
            let _ = network.kill();
            let _ = network.wait();
        }
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn size(path: &Path) -> usize {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len() as usize)
}

#[test]
fn an_interrupted_copy_can_be_repeated_until_something_has_left() {
    let Some(mut world) = World::new() else { return };
    // With the network away nothing leaves, however long it takes.
    world.kill_network();
    let bytes = pattern(2 * MIB);
    let alice = world.mount("alice");
    std::fs::write(alice.join("file"), &bytes[..MIB]).expect("the first half");
    world.kill_mount("alice");
    let alice = world.mount("alice");
    std::fs::write(alice.join("file"), &bytes).expect("written anew");
    world.start_network();
    let bob = world.mount("bob");
    world.share("alice", "bob", "file");
    world.arrived("bob", "file", bytes.len());
    assert!(std::fs::read(bob.join("file")).expect("read") == bytes, "other bytes");
}

#[test]
fn a_network_and_a_reader_that_are_killed_in_the_middle_cost_nothing_but_time() {
    let Some(mut world) = World::new() else { return };
    let bytes = pattern(5 * MIB);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    std::fs::write(alice.join("big"), &bytes).expect("accepted");
    world.share("alice", "bob", "big");
    wait_for("a part to arrive", || size(&bob.join("big")) > MIB / 2);
    world.kill_network();
    world.start_network();
    wait_for("more to arrive", || size(&bob.join("big")) > 2 * MIB);
    world.kill_mount("bob");
    let bob = world.mount("bob");
    world.arrived("bob", "big", bytes.len());
    assert!(std::fs::read(bob.join("big")).expect("read") == bytes, "other bytes");
    world.ok("alice", &["wait", "big", "--timeout", "120"], b"");
}

#[test]
fn a_full_disk_is_told_to_the_writer_and_loses_nothing_that_was_accepted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root mounts the small disk that this needs");
        return;
    }
    let Some(mut world) = World::new() else { return };
    let disk = SmallDisk::new(&world.path("alice-state"), 40);
    let alice = world.mount("alice");
    let bytes = pattern(60 * MIB);
    let mut file = File::options().append(true).create(true).open(alice.join("big")).expect("opened");
    let mut accepted = 0;
    let refused = loop {
        match file.write(&bytes[accepted..(accepted + 256 * 1024).min(bytes.len())]) {
            Ok(count) => accepted += count,
            Err(error) => break error,
        }
        assert!(accepted < bytes.len(), "60 MiB went onto a disk of 40");
    };
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{refused}");
    drop(file);
    // Confirmations go on, on the reserve; and the reader gets every byte that was accepted.
    world.ok("alice", &["wait", "big", "--timeout", "120"], b"");
    let bob = world.mount("bob");
    world.share("alice", "bob", "big");
    world.arrived("bob", "big", accepted);
    let arrived = std::fs::read(bob.join("big")).expect("read");
    assert!(arrived == bytes[..accepted], "{} bytes arrived of {accepted} accepted", arrived.len());
    world.kill_mount("alice");
    drop(disk);
}

/// A tmpfs that goes with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: &Path, mib: usize) -> Self {
        std::fs::create_dir(at).expect("a mount point");
        let options = std::ffi::CString::new(format!("size={mib}m,mode=700")).expect("no NUL");
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .expect("root mounts a tmpfs");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
