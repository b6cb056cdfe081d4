//! Two writers with one capability, as persons meet them: the second is fenced, and `adopt` or `move` is its way on.

use std::process::Stdio;

use crate::common::{Kill, Localnet, Work, bytes, eventually, no_fuse};

fn status(work: &Work, state: &str, name: &str) -> serde_json::Value {
    serde_json::from_slice(&work.verb(state, &["status", name, "--json"]).ok().stdout).expect("JSON")
}

/// All that a state has of the channel, once the network has said that nothing more is there.
fn read(work: &Work, network: &Localnet, state: &str, name: &str) -> Vec<u8> {
    work.verb(state, &["read", name, "--timeout", "200", "--config", network.config()]).ok().stdout
}

fn append(work: &Work, network: &Localnet, state: &str, name: &str, data: &[u8]) -> crate::common::Run {
    work.verb_with(state, &["append", name, "--config", network.config()], data)
}

fn ctl(work: &Work, arguments: &[&str]) {
    work.verb("net", &[&["localnet", "ctl"][..], arguments].concat()).ok();
}

/// Alice and Mallory hold the same write capability; Alice has written `first`, and Mallory then meets it.
fn fenced(work: &Work, network: &Localnet, first: &[u8], second: &[u8]) {
    work.verb("alice", &["new", "log"]).ok();
    let capability = work.verb("alice", &["share", "--write", "log"]).ok().stdout;
    work.verb_with("mallory", &["add", "log"], &capability).ok();
    append(work, network, "alice", "log", first).ok();
    append(work, network, "mallory", "log", second).failed(5, &["fenced", "another writer", "pigeonfs adopt NAME"]);
}

#[test]
fn a_fenced_writer_adopts_what_the_other_wrote_and_both_go_on() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let (first, second, third) = (bytes(5000, 1), bytes(3000, 2), bytes(100, 3));
    fenced(&work, &network, &first, &second);
    assert_eq!(work.verb("mallory", &["read", "log"]).ok().stdout, second, "what was accepted is still there");

    let told = work.verb("mallory", &[&["adopt", "log"][..], &daemon].concat()).ok().text();
    assert_eq!(told, "4 boxes of another writer (4.8 KiB) are part of it now; 2 of ours (2.9 KiB) go behind them\n");
    work.verb("mallory", &["adopt", "log"]).failed(5, &["is not fenced"]);
    work.verb("mallory", &[&["wait", "log"][..], &daemon].concat()).ok();
    let both = [&first[..], &second].concat();
    assert!(work.verb("mallory", &["read", "log"]).ok().stdout == both, "what readers see is what the writer has");

    // Now the first one is behind, and meets the second.
    append(&work, &network, "alice", "log", &third).failed(5, &["another writer"]);
    let told = work.verb("alice", &[&["adopt", "log", "--json"][..], &daemon].concat()).ok();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((&told["foreign_boxes"], &told["foreign_bytes"]), (&2.into(), &3000.into()));
    work.verb("alice", &[&["wait", "log"][..], &daemon].concat()).ok();
    work.share("alice", "bob", "log");
    assert!(read(&work, &network, "bob", "log") == [&both[..], &third].concat(), "each once, and whole");
}

#[test]
fn a_place_that_a_conflicting_writer_takes_is_adopted_too() {
    let work = Work::new();
    let network = work.localnet("net");
    append(&work, &network, "alice", "log", b"before ").ok();
    ctl(&work, &["faults", "set", "conflicting-writer=1"]);
    append(&work, &network, "alice", "log", b"ours").failed(5, &["another writer"]);
    ctl(&work, &["faults", "clear"]);
    let told = work.verb("alice", &["adopt", "log", "--config", network.config()]).ok().text();
    assert!(told.starts_with("1 boxes of another writer") && told.contains("1 of ours (4 B)"), "{told}");
    work.verb("alice", &["wait", "log", "--config", network.config()]).ok();
    work.share("alice", "bob", "log");
    let arrived = read(&work, &network, "bob", "log");
    assert!(arrived.starts_with(b"before ") && arrived.ends_with(b"ours"), "{arrived:?}");
    assert!(arrived == work.verb("alice", &["read", "log"]).ok().stdout);
}

#[test]
fn an_adoption_that_is_killed_goes_on_and_a_mount_ends_it_by_itself() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let (first, second) = (bytes(60 * 1549, 1), bytes(20 * 1549, 2));
    fenced(&work, &network, &first, &second);
    // Each read takes its time, so that there is a middle to be killed in.
    ctl(&work, &["faults", "set", "delay=1", "delay-ms=100"]);
    for round in 0..2 {
        let mut adopt = work.command();
        adopt.args(["adopt", "log", "--config", network.config(), "--state"]).arg(work.path("mallory"));
        let child = adopt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary");
        let child = Kill(child);
        let looked_at = eventually("some boxes were looked at", || {
            let status = work.verb("mallory", &["status", "log", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.ok().stdout).expect("JSON");
            assert!(status["fenced"].is_string(), "it ended before it was killed");
            status["adopting"].as_u64().filter(|boxes| *boxes > 8 * (round + 1))
        });
        drop(child);
        let left = status(&work, "mallory", "log");
        assert!(left["fenced"].is_string() && left["adopting"].as_u64() >= Some(looked_at), "{left}");
        assert_eq!(left["size"], second.len(), "nothing is changed before all is known");
    }
    work.verb("mallory", &["move", "log", "log-2"]).failed(5, &["is being adopted"]);
    ctl(&work, &["faults", "clear"]);
    let mount = work.mount("mnt", "mallory", &["--config", network.config()]);
    eventually("the fence is lifted", || status(&work, "mallory", "log")["fenced"].is_null().then_some(()));
    work.verb("mallory", &["wait", "--timeout", "240", "log"]).ok();
    let both = [&first[..], &second].concat();
    assert!(std::fs::read(mount.file("log")).expect("readable") == both);
    let errors = std::fs::read_to_string(mount.file(".pigeonfs/log/errors")).expect("errors");
    assert!(
        errors.contains("60 boxes") && errors.contains("of another writer are part of the channel now"),
        "{errors}"
    );
    work.share("mallory", "bob", "log");
    assert!(read(&work, &network, "bob", "log") == both, "each once, whole, in this order");
    mount.signal(rustix::process::Signal::INT);
}

#[test]
fn what_is_not_stored_moves_to_a_channel_of_ones_own() {
    let work = Work::new();
    let network = work.localnet("net");
    let (first, second) = (bytes(5000, 1), bytes(3000, 2));
    fenced(&work, &network, &first, &second);
    work.verb("mallory", &["move", "log", "log"]).failed(6, &["there is a channel named \"log\" already"]);
    let told = work.verb("mallory", &["move", "log", "log-2"]).ok().text();
    assert_eq!(told, "2 boxes (2.9 KiB) go on in \"log-2\"; 1 of them may be in \"log\" too\n");
    work.verb("mallory", &["adopt", "log", "--config", network.config()]).failed(5, &["was moved to another channel"]);
    let old = status(&work, "mallory", "log");
    assert!(old["size"] == 0 && old["fenced"].as_str().expect("fenced").contains("moved to \"log-2\""), "{old}");
    work.verb("mallory", &["wait", "log-2", "--config", network.config()]).ok();
    work.share("mallory", "bob", "log-2");
    assert!(read(&work, &network, "bob", "log-2") == second);
    work.verb("mallory", &["move", "log-2", "log-3"]).failed(5, &["is not fenced"]);
    work.verb("alice", &["move", "log", "x"]).failed(5, &["is not fenced"]);
}
