//! A drop that is joined when what was sent first has expired: what still lives is found, and what is gone is told.

use std::io::Write;
use std::process::Stdio;

use crate::common::{Kill, Work, bytes, eventually, no_fuse, run};
use serde_json::Value;

/// So many bytes of stdin make one part of a chain.
const PART_BYTES: usize = 1 << 20;

fn status(work: &Work, state: &str) -> Value {
    serde_json::from_slice(&work.verb(state, &["status", "--json", "box"]).ok().stdout).expect("JSON")
}

#[test]
fn a_reader_that_joins_when_the_first_files_have_expired_gets_the_later_ones_and_is_told_what_is_gone() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let send = |arguments: &[&str]| {
        let mut command = work.command();
        command.arg("send").args(arguments).args(["--to", "box"]).args(daemon).arg("--state").arg(work.path("w"));
        command.current_dir(work.path(""));
        command
    };
    for (name, size) in [("early", 3000), ("later ü", 20_000), ("third", 0)] {
        std::fs::write(work.path(name), bytes(size, 1)).expect("written");
    }
    run(&mut send(&["early"]), b"").ok();
    // A stream whose sender is slow: its first part is two weeks older than the others.
    let mut slow = send(&["-", "--name", "stream.bin"]);
    let slow = slow.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary");
    let mut slow = Kill(slow);
    let mut stdin = slow.0.stdin.take().expect("piped");
    stdin.write_all(&bytes(PART_BYTES + 1000, 2)).expect("a pipe");
    let gone = eventually("early and the first part are stored", || {
        let status = status(&work, "w");
        (status["files"]["complete"] == 2 && status["files"]["pending"] == 0).then(|| status["boxes"].clone())
    });
    work.verb("net", &["localnet", "ctl", "clock", "+14d"]).ok();
    stdin.write_all(&bytes(PART_BYTES, 3)).expect("a pipe");
    drop(stdin);
    let sent = eventually("the stream is sent", || slow.0.try_wait().expect("our child"));
    assert!(sent.success(), "{sent}");
    run(&mut send(&["later ü", "third"]), b"").ok();

    // Who joins now sees what one sees to whom nobody has written, and is told what else it may be.
    let read_cap = work.verb("w", &["share", "box"]).ok().stdout;
    for state in ["r", "alone"] {
        work.verb_with(state, &["add", "--drop", "box"], &read_cap).ok();
    }
    work.verb("alone", &[&["receive", "box", "--timeout", "3"], &daemon[..]].concat())
        .failed(3, &["the time is up", "pigeonfs skip --search box"]);
    let reader = work.mount("mnt", "r", &daemon);
    let listed = || {
        let entries = std::fs::read_dir(reader.file("box")).expect("listed");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let told = || std::fs::read_to_string(reader.file(".pigeonfs/box/status")).expect("a status");
    eventually("the network's word", || told().contains("pigeonfs skip --search box").then_some(()));
    assert!(work.verb("r", &["status", "box"]).ok().text().contains("pigeonfs skip --search box"));
    assert!(listed().is_empty(), "{:?}", listed());

    let found = work.verb("r", &["skip", "--search", "box"]).ok().text();
    assert!(found.contains(&format!("{gone} boxes are lost")), "{found}");
    assert!(told().contains("boxes are gone from the network"), "{}", told());
    work.verb("r", &["receive", "box"]).failed(1, &["has lost boxes", "pigeonfs skip"]);
    work.verb("r", &["skip", "box"]).ok();
    eventually("the files that live", || (listed() == ["later ü", "third"]).then_some(()));
    for name in ["later ü", "third"] {
        let arrived = std::fs::read(reader.file("box").join(name)).expect("the file");
        assert!(arrived == std::fs::read(work.path(name)).expect("written"), "{name}: {} bytes", arrived.len());
    }
    // What is gone has a place; and of the stream, what is here makes no file.
    for words in ["1 broken", "from box 0 on: box 0 is missing", "stream.bin: parts of it are missing"] {
        assert!(told().contains(words), "{words:?} is not in {}", told());
    }
}
