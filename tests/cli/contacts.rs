//! Two people who share 44 characters come to have a channel of each other's, whatever is killed meanwhile; and a code that is
//! wrong, used or taken back is told as such.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::{Kill, Localnet, Run, Work, bytes, eventually};

/// A verb with a daemon, in the background.
fn start(work: &Work, network: &Localnet, state: &str, verb: &[&str], stdin: &str) -> Child {
    let mut command = work.command();
    command.args(verb).args(["--config", network.config(), "--state"]).arg(work.path(state));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("a pipe");
    child
}

/// An invitation that waits, and its code.
fn invite(work: &Work, network: &Localnet, verb: &[&str]) -> (Kill, String) {
    let mut child = start(work, network, "alice", verb, "");
    let mut code = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut code).expect("a pipe");
    assert_eq!(code.len(), 45, "{code:?}");
    (Kill(child), code)
}

fn with(work: &Work, network: &Localnet, state: &str, verb: &[&str], stdin: &str) -> Run {
    work.verb_with(state, &[verb, &["--config", network.config()]].concat(), stdin.as_bytes())
}

fn ends_well(mut child: Kill) {
    let status = eventually("the end of a verb", || child.0.try_wait().expect("our child"));
    assert!(status.success(), "{status}");
}

fn list(work: &Work, state: &str) -> Value {
    serde_json::from_slice(&work.verb(state, &["list", "--json"]).ok().stdout).expect("JSON")
}

#[test]
fn a_code_gives_both_sides_a_channel_of_the_other() {
    let work = Work::new();
    let network = work.localnet("net");
    // What was written before is sent once the other side has answered, and not before.
    let before = bytes(4000, 1);
    work.verb_with("alice", &["append", "for-bob", "--no-wait"], &before).ok();
    let (inviting, code) = invite(&work, &network, &["invite", "for-bob", "--name", "Alice"]);
    assert!(STANDARD.decode(code.trim()).is_ok_and(|bytes| bytes.len() == 32));
    let accepting = ["accept", "--as", "from-alice", "--give", "photos", "--drop"];
    with(&work, &network, "bob", &accepting, &code).ok();
    ends_well(inviting);
    assert!(list(&work, "alice")["contacts"].as_array().is_some_and(Vec::is_empty));

    with(&work, &network, "alice", &["append", "for-bob"], "hello").ok();
    let size = (before.len() + 5).to_string();
    with(&work, &network, "bob", &["wait", "from-alice", "--bytes", &size], "").ok();
    let read = with(&work, &network, "bob", &["read", "from-alice"], "").ok().stdout;
    assert!(read == [&before[..], b"hello"].concat(), "{} bytes", read.len());
    // The name and the kind are those that Bob's side has told.
    std::fs::write(work.path("cat.jpg"), "meow").expect("written");
    let file = work.path("cat.jpg");
    with(&work, &network, "bob", &["send", file.to_str().expect("text"), "--to", "photos"], "").ok();
    let into = work.path("in");
    std::fs::create_dir(&into).expect("a directory");
    let into = into.to_str().expect("text");
    with(&work, &network, "alice", &["receive", "photos", "-o", into], "").ok();
    assert_eq!(std::fs::read(work.path("in/cat.jpg")).expect("received"), b"meow");

    // A code that was used is worth nothing, also to who used it.
    let accepting = ["accept", "--as", "from-alice", "--give", "mine", "--timeout", "20"];
    with(&work, &network, "carol", &accepting, &code).failed(5, &["used already"]);
    with(&work, &network, "bob", &["accept", "--as", "other", "--give", "mine"], &code).failed(6, &["held already"]);
    with(&work, &network, "alice", &["invite", "for-bob"], "").failed(2, &["invited with already", "pigeonfs share"]);
    work.verb("alice", &["share", "for-bob"]).ok();
}

#[test]
fn a_code_that_is_wrong_is_told_before_anything_is_stored() {
    let work = Work::new();
    let network = work.localnet("net");
    for (wrong, told) in [("hello", "5 characters"), (&*"!".repeat(44), "not base64"), ("", "0 characters")] {
        with(&work, &network, "bob", &["accept", "--as", "alice", "--give", "mine"], wrong)
            .failed(2, &[told, "hint: "]);
    }
    assert!(!work.path("bob").exists());
    let mistyped = STANDARD.encode([7; 32]);
    let accepting = ["accept", "--as", "alice", "--give", "mine", "--timeout", "1"];
    with(&work, &network, "bob", &accepting, &mistyped)
        .failed(3, &["nothing there: mistyped, not written yet, or older than the network keeps"]);
    assert_eq!(list(&work, "bob")["contacts"][0]["stage"], "waiting");
    // It is typed again, as it should be.
    let (inviting, code) = invite(&work, &network, &["invite", "for-bob"]);
    with(&work, &network, "bob", &["accept", "--as", "alice", "--give", "mine"], &code).ok();
    ends_well(inviting);
    with(&work, &network, "bob", &["accept", "--as", "mine", "--give", "mine"], &mistyped)
        .failed(2, &["the same channel"]);
    work.verb("bob", &["accept", "--cancel", "--as", "alice"]).failed(5, &["has left"]);
}

#[test]
fn an_invitation_can_be_cancelled_and_is_made_only_with_what_nobody_has_seen() {
    let work = Work::new();
    let network = work.localnet("net");
    with(&work, &network, "alice", &["append", "sent"], "hello").ok();
    work.verb("alice", &["new", "shared"]).ok();
    work.verb("alice", &["share", "shared"]).ok();
    for name in ["sent", "shared"] {
        with(&work, &network, "alice", &["invite", name], "").failed(2, &["sent or shared", "pigeonfs share"]);
    }
    let first = with(&work, &network, "alice", &["invite", "x", "--no-wait"], "").ok().text();
    with(&work, &network, "alice", &["invite", "x"], "")
        .failed(2, &["invited with already", "pigeonfs share", "--cancel"]);
    work.verb("alice", &["share", "x"]).failed(5, &["is invited with"]);
    with(
        &work,
        &network,
        "bob",
        &["accept", "--as", "y", "--give", "mine", "--timeout", "1"],
        &STANDARD.encode([1; 32]),
    )
    .failed(3, &["nothing there"]);
    let again = with(&work, &network, "alice", &["invite", "--again", "x", "--timeout", "1"], "");
    let printed = again.text();
    again.failed(3, &["has not answered yet"]);
    assert_eq!(printed, first, "it is the same code");
    with(&work, &network, "alice", &["append", "x", "--no-wait"], "hello").ok();
    work.verb("alice", &["invite", "--cancel", "x"])
        .failed(5, &["5 bytes that were not sent", "pigeonfs forget --force x"]);
    work.verb("alice", &["forget", "--force", "x"]).ok();
    with(&work, &network, "alice", &["invite", "x", "--no-wait"], "").ok();
    work.verb("alice", &["invite", "--cancel", "x"]).ok();
    let second = with(&work, &network, "alice", &["invite", "x", "--no-wait"], "").ok().text();
    assert_ne!(first, second);
    work.verb("alice", &["invite", "--cancel", "sent"]).failed(5, &["not invited with"]);
}

/// A code that was taken back could still be accepted, and gave a channel that nobody writes.
#[test]
fn a_code_that_was_taken_back_is_worth_nothing() {
    let work = Work::new();
    let network = work.localnet("net");
    let codes = ["x", "y"].map(|name| with(&work, &network, "alice", &["invite", name, "--no-wait"], "").ok().text());
    work.verb("alice", &["invite", "--cancel", "x"]).ok();
    work.verb("alice", &["forget", "--force", "y"]).ok();
    // Deleted from the network by whatever has a daemon next.
    let mut command = work.command();
    command.args(["invite", "z", "-v", "--config", network.config(), "--state"]).arg(work.path("alice"));
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut inviting = Kill(command.spawn().expect("the binary"));
    let told = BufReader::new(inviting.0.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    let gone = told.filter(|line| line.contains("a code that was taken back is deleted from the network"));
    assert_eq!(gone.take(2).count(), 2);
    for code in &codes {
        with(&work, &network, "bob", &["accept", "--as", "them", "--give", "mine"], code)
            .failed(5, &["was taken back"]);
    }
}

/// Packets are lost and come twice, boxes are not found that are there, and couriers forget what they took.
#[test]
fn a_contact_comes_about_on_a_bad_network() {
    let work = Work::new();
    let faults = ["--duplication", "0.5", "--false-not-found", "0.4", "--ack-then-lost", "0.4", "--stale-epoch", "0.2"];
    let network = work.localnet_with("net", &[], &faults);
    let (inviting, code) = invite(&work, &network, &["invite", "for-bob"]);
    with(&work, &network, "bob", &["accept", "--as", "from-alice", "--give", "for-alice"], &code).ok();
    ends_well(inviting);
}

/// Both sides are killed again and again, and the network with its daemon once.
#[test]
fn both_sides_go_on_after_they_were_killed() {
    let work = Work::new();
    let mut network = work.localnet("net");
    let (mut inviting, code) = invite(&work, &network, &["invite", "for-bob"]);
    let accept = ["accept", "--as", "from-alice", "--give", "for-alice"];
    let rounds: u64 = std::env::var("PIGEONFS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for round in 0..rounds {
        let mut accepting = Kill(start(&work, &network, "bob", &accept, &code));
        std::thread::sleep(Duration::from_millis(60 + 400 * round / rounds));
        for child in [&mut accepting, &mut inviting] {
            // It may have ended by itself.
            let _ = child.0.kill();
            child.0.wait().expect("our child");
        }
        if round == 0 {
            network.kill();
            network = work.localnet("net");
        }
        let done = list(&work, "alice")["contacts"].as_array().is_some_and(Vec::is_empty);
        if !done {
            inviting = Kill(start(&work, &network, "alice", &["invite", "--again", "for-bob"], ""));
        }
    }
    with(&work, &network, "bob", &accept, &code).ok();
    // Whoever owns a state sends what others write to it, while it runs.
    let _ = inviting.0.kill();
    inviting.0.wait().expect("our child");
    with(&work, &network, "alice", &["invite", "--again", "for-bob"], "").ok();
    for (from, to, ours, theirs) in
        [("alice", "bob", "for-bob", "from-alice"), ("bob", "alice", "for-alice", "for-alice")]
    {
        with(&work, &network, from, &["append", ours], "hello").ok();
        with(&work, &network, to, &["wait", theirs, "--bytes", "5"], "").ok();
        assert_eq!(with(&work, &network, to, &["read", theirs], "").ok().stdout, b"hello");
    }
}
