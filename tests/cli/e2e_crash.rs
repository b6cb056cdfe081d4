//! SIGKILL in the middle: of the writing mount, of the network, of the reader. What was acknowledged is there, once.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Mount, Work, bytes, eventually, no_fuse};

const SIZE: usize = 5 << 20;
const PIECE: usize = 64 << 10;

/// Writes `data` into a new stream as `cp` does, until an error comes; counts what was acknowledged.
fn copy(mount: &Mount, data: &[u8], acknowledged: &AtomicUsize) {
    let mut file = OpenOptions::new().create(true).append(true).open(mount.file("big")).expect("a stream");
    for piece in data.chunks(PIECE) {
        if file.write_all(piece).is_err() {
            return;
        }
        acknowledged.fetch_add(piece.len(), Ordering::SeqCst);
    }
}

fn size_of(work: &Work, state: &str) -> u64 {
    let status = work.verb(state, &["status", "big", "--json"]).ok();
    serde_json::from_slice::<serde_json::Value>(&status.stdout).expect("JSON")["size"].as_u64().expect("a size")
}

/// The reader has got exactly these bytes, and nothing follows.
fn arrives(work: &Work, config: &str, expected: &[u8]) {
    let daemon = ["--config", config];
    let count = expected.len().to_string();
    work.verb("bob-state", &[&["wait", "--timeout", "240", "--bytes", &count, "big"][..], &daemon].concat()).ok();
    let arrived = work.verb("bob-state", &[&["read", "big"][..], &daemon].concat()).ok().stdout;
    assert!(arrived == expected, "{} bytes arrived, {} were expected", arrived.len(), expected.len());
}

#[test]
fn the_writing_mount_is_killed() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let data = bytes(SIZE, 11);
    let acknowledged = AtomicUsize::new(0);
    let alice = work.mount("alice", "alice-state", &daemon);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| copy(&alice, &data, &acknowledged));
        eventually("the middle", || (acknowledged.load(Ordering::SeqCst) >= SIZE / 3).then_some(()));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(alice.pid()).expect("a pid")).expect("a pid"),
            rustix::process::Signal::KILL,
        )
        .expect("our child");
        writer.join().expect("no panic");
    });
    alice.kill();
    let acknowledged = acknowledged.load(Ordering::SeqCst);

    // The next mount meets the dead one, clears it, and goes on.
    let alice = work.mount("alice", "alice-state", &daemon);
    let there = std::fs::read(alice.file("big")).expect("read back");
    assert!(there.len() >= acknowledged, "{acknowledged} bytes were acknowledged, {} are there", there.len());
    assert!(data.starts_with(&there), "what is there is a prefix");
    work.share("alice-state", "bob-state", "big");
    let mut file = OpenOptions::new().append(true).open(alice.file("big")).expect("the stream");
    file.write_all(b"and on").expect("appended");
    drop(file);
    work.verb("alice-state", &["wait", "--timeout", "240", "big"]).ok();
    arrives(&work, network.config(), &[&there[..], b"and on"].concat());
}

#[test]
fn the_network_is_killed_and_started_again() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let config = network.config().to_owned();
    let data = bytes(SIZE, 12);
    let alice = work.mount("alice", "alice-state", &["--config", &config]);
    let bob = work.mount("bob", "bob-state", &["--config", &config]);
    copy(&alice, &data, &AtomicUsize::new(0));
    work.share("alice-state", "bob-state", "big");
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", "200000", "big"]).ok();
    network.kill();
    let network = work.localnet("net");
    work.verb("alice-state", &["wait", "--timeout", "240", "big"]).ok();
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", &SIZE.to_string(), "big"]).ok();
    assert!(std::fs::read(bob.file("big")).expect("read") == data, "other bytes");
    drop(bob);
    arrives(&work, network.config(), &data);
}

#[test]
fn the_reading_mount_is_killed() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let data = bytes(SIZE, 13);
    let alice = work.mount("alice", "alice-state", &daemon);
    copy(&alice, &data, &AtomicUsize::new(0));
    let bob = work.mount("bob", "bob-state", &daemon);
    work.share("alice-state", "bob-state", "big");
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", "100000", "big"]).ok();
    bob.kill();
    let bob = work.mount("bob", "bob-state", &daemon);
    assert!(size_of(&work, "bob-state") >= 100_000, "what had arrived is still there");
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", &SIZE.to_string(), "big"]).ok();
    assert!(std::fs::read(bob.file("big")).expect("read") == data, "other bytes");
}

#[test]
fn a_copy_that_was_cut_off_is_repeated_under_its_name() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    // With nobody at the address nothing leaves, however long it takes.
    let nobody = format!("unix://{}", work.path("nobody.sock").display());
    let data = bytes(SIZE / 4, 14);
    let alice = work.mount("alice", "alice-state", &["--daemon", &nobody]);
    std::fs::write(alice.file("big"), &data[..data.len() / 2]).expect("the first half");
    alice.kill();
    let alice = work.mount("alice", "alice-state", &["--daemon", &nobody]);
    std::fs::write(alice.file("big"), &data).expect("emptied and written anew");
    alice.signal(rustix::process::Signal::TERM);
    let network = work.localnet("net");
    let _alice = work.mount("alice", "alice-state", &["--config", network.config()]);
    work.share("alice-state", "bob-state", "big");
    arrives(&work, network.config(), &data);
}
