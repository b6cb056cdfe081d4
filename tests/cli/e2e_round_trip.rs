//! Bytes into one mount and out of another, through a localnet in a third process.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{Work, bytes, eventually, no_fuse, run};

#[test]
fn files_of_every_size_come_out_byte_for_byte() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let alice = work.mount("alice", "alice-state", &["--config", network.config()]);
    let bob = work.mount("bob", "bob-state", &["--config", network.tcp_config()]);
    let sizes = [0, 1, 1548, 1549, 1550, 1 << 20, 20 << 20];
    for size in sizes {
        let source = work.path(&format!("source-{size}"));
        fs::write(&source, bytes(size, size as u64 + 1)).expect("written");
        run(Command::new("cp").arg(&source).arg(alice.file(&format!("f{size}"))), b"").ok();
    }
    for size in sizes {
        let name = format!("f{size}");
        work.share("alice-state", "bob-state", &name);
        work.verb("alice-state", &["wait", "--timeout", "240", &name]).ok();
        work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", &size.to_string(), &name]).ok();
        let there = run(Command::new("cat").arg(bob.file(&name)), b"").ok();
        assert!(there.stdout == bytes(size, size as u64 + 1), "{name}: other bytes, {} of them", there.stdout.len());
        assert!(fs::read(alice.file(&name)).expect("read back") == there.stdout, "{name}: read back otherwise");
    }
}

#[test]
fn appends_of_four_processes_arrive_whole_and_in_the_order_of_acceptance() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let alice = work.mount("alice", "alice-state", &["--config", network.config()]);
    let _bob = work.mount("bob", "bob-state", &["--config", network.config()]);
    let log = alice.file("log");
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let script = format!("for i in $(seq 50); do echo \"writer {writer} line $i\" >> \"$0\"; done");
            Command::new("sh").arg("-c").arg(script).arg(&log).stdin(Stdio::null()).spawn().expect("a shell")
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().expect("a shell").success());
    }
    let accepted = fs::read_to_string(&log).expect("read back");
    for writer in 0..4 {
        let lines: Vec<_> = accepted.lines().filter(|line| line.starts_with(&format!("writer {writer} "))).collect();
        let expected: Vec<_> = (1..=50).map(|line| format!("writer {writer} line {line}")).collect();
        assert_eq!(lines, expected, "each once, whole, in order");
    }
    assert_eq!(accepted.lines().count(), 200);
    work.share("alice-state", "bob-state", "log");
    work.verb("alice-state", &["wait", "--timeout", "240", "log"]).ok();
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", &accepted.len().to_string(), "log"]).ok();
    let arrived = work.verb("bob-state", &["read", "log"]).ok();
    assert_eq!(arrived.text(), accepted);
}

#[test]
fn tail_and_read_follow_a_stream_that_grows() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let alice = work.mount("alice", "alice-state", &["--localnet"]);
    let config = work.path("alice-state/localnet/thinclient.toml");
    let bob = work.mount("bob", "bob-state", &["--config", config.to_str().expect("text")]);
    let mut log = OpenOptions::new().create(true).append(true).open(alice.file("log")).expect("a stream");
    writeln!(log, "first").expect("appended");
    work.share("alice-state", "bob-state", "log");
    work.verb("bob-state", &["wait", "--timeout", "240", "--bytes", "6", "log"]).ok();

    let follow = |mut command: Command, name: &str| {
        let out = work.path(name);
        command.stdin(Stdio::null()).stdout(fs::File::create(&out).expect("a file")).stderr(Stdio::null());
        (crate::common::Kill(command.spawn().expect("a follower")), out)
    };
    let mut tail = Command::new("tail");
    tail.args(["-n", "+1", "-f"]).arg(bob.file("log"));
    let mut read = work.command();
    read.args(["read", "--follow", "log", "--state"]).arg(work.path("bob-state"));
    let followers = [follow(tail, "tail.out"), follow(read, "read.out")];
    for line in ["second", "third"] {
        writeln!(log, "{line}").expect("appended");
    }
    for (_follower, out) in &followers {
        eventually("all three lines", || (fs::read(out).expect("a file") == b"first\nsecond\nthird\n").then_some(()));
    }
    let (mut follower, _) = followers.into_iter().nth(1).expect("two");
    let pid = rustix::process::Pid::from_child(&follower.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    assert_eq!(follower.0.wait().expect("our child").code(), Some(130), "interrupted");

    bob.signal(rustix::process::Signal::TERM);
    drop(log);
    let mut alice = alice;
    run(work.command().arg("umount").arg(&alice.path), b"").ok();
    alice.wait();
}

#[test]
fn append_and_read_do_the_same_without_a_mount() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    work.verb("a", &["new", "stream"]).ok();
    let sent = bytes(10_000, 3);
    work.verb_with("a", &[&["append", "stream"][..], &daemon].concat(), &sent).ok();
    work.share("a", "b", "stream");
    let arrived = work.verb("b", &[&["read", "stream"][..], &daemon].concat()).ok();
    assert!(arrived.stdout == sent, "{} bytes arrived", arrived.stdout.len());
    let more = work.verb_with("a", &[&["append", "stream", "--json"][..], &daemon].concat(), b"more").ok();
    let told: serde_json::Value = serde_json::from_slice(&more.stdout).expect("JSON");
    assert_eq!(told["size"], 10_004);
    assert_eq!(told["stored_bytes"], 10_004);
    work.verb("b", &[&["wait", "stream", "--bytes", "10004", "--timeout", "240"][..], &daemon].concat()).ok();
    let tail = work.verb("b", &[&["read", "stream", "--offset", "10000"][..], &daemon].concat()).ok();
    assert_eq!(tail.text(), "more");
}
