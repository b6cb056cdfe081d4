//! The verbs that need no network: what they print, in words and in JSON, and how they fail.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{Work, run};
use serde_json::Value;

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

#[test]
fn channels_are_made_listed_renamed_and_forgotten() {
    let work = Work::new();
    work.verb("s", &["list"]).failed(1, &["there is no state in", "hint: correct --state"]);
    assert_eq!(work.verb("s", &["new", "notes"]).ok().text(), "");
    assert_eq!(json(&work.verb("s", &["new", "log", "--json"]).ok().stdout)["role"], "writer");
    let list = work.verb("s", &["list"]).ok().text();
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "ACCESS", "SIZE", "STATE"]);
    assert_eq!(rows[1], ["log", "write", "0", "B", "empty"]);
    work.verb("s", &["rename", "log", "old log"]).ok();
    let list = json(&work.verb("s", &["list", "--json"]).ok().stdout);
    assert_eq!(list["version"], 1);
    let names: Vec<_> = list["channels"].as_array().expect("a list").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["notes", "old log"]);
    for key in
        ["role", "kind", "size", "stored_bytes", "boxes", "stored_boxes", "launched", "shared", "fenced", "error"]
    {
        assert!(list["channels"][0].get(key).is_some(), "{key} is part of the schema");
    }
    work.verb("s", &["forget", "old log"]).ok();
    work.verb("s", &["status", "old log"]).failed(1, &["error: there is no channel named \"old log\"", "hint: "]);
    let status = json(&work.verb("s", &["status", "--json"]).ok().stdout);
    assert_eq!(status["daemon"]["link"], "no-daemon");
    assert_eq!(status["spool_bytes"], 0);
    assert!(work.verb("s", &["status", "notes"]).ok().text().contains("still be taken back"));
}

#[test]
fn capabilities_go_out_on_stdout_alone_and_come_in_by_stdin_or_file() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    let read = work.verb("a", &["share", "notes"]).ok();
    assert_eq!((read.stdout.len(), read.stderr.as_str()), (247, ""), "142 bytes in 246 letters, and a newline");
    let write = work.verb("a", &["share", "--write", "notes"]).ok();
    assert_eq!(write.stdout.len(), 299);
    let told = json(&work.verb("a", &["share", "notes", "--json"]).ok().stdout);
    assert_eq!((told["kind"].as_str(), told["capability"].as_str()), (Some("read"), Some(read.text().trim())));

    let padded = format!("\n  {}\r\n\n", read.text().trim());
    assert_eq!(json(&work.verb_with("b", &["add", "in", "--json"], padded.as_bytes()).ok().stdout)["role"], "reader");
    work.verb_with("b", &["add", "again"], padded.as_bytes()).failed(6, &["is held already, by the channel \"in\""]);
    work.verb_with("b", &["add", "in"], &write.stdout).failed(6, &["named \"in\" already"]);
    work.verb("b", &["share", "--write", "in"]).failed(5, &["only the read capability"]);
    work.verb_with("b", &["append", "in", "--no-wait"], b"x")
        .failed(5, &["only the read capability of this channel is held"]);
    let file = work.path("cap");
    std::fs::write(&file, &write.stdout).expect("written");
    let added = work.verb("c", &["add", "mine", "--json", "--file", file.to_str().expect("text")]).ok();
    assert_eq!(json(&added.stdout)["role"], "writer");
}

#[test]
fn bad_and_swapped_capabilities_are_told_apart_and_not_repeated() {
    let work = Work::new();
    work.verb("a", &["new", "one"]).ok();
    let write = work.verb("a", &["share", "--write", "one"]).ok().text();
    let mut damaged = write.trim().to_owned().into_bytes();
    damaged[99] = if damaged[99] == b'q' { b'p' } else { b'q' };
    for (text, told) in [
        ("", "there was no text"),
        ("not a capability at all", "nor base64"),
        ("aGVsbG8=", "it has 5 bytes, and a read capability has 136"),
        (std::str::from_utf8(&damaged).expect("ASCII"), "its letter 100 of 298 is wrong"),
    ] {
        let run = work.verb_with("b", &["add", "x"], text.as_bytes()).failed(2, &[told, "hint: "]);
        assert!(text.len() < 10 || !run.stderr.contains(text), "a capability is not repeated: {}", run.stderr);
    }
    work.verb("b", &["list"]).failed(1, &["there is no state in"]);
}

#[test]
fn what_cannot_be_meant_is_code_2() {
    let work = Work::new();
    for arguments in [
        &["nonsense"][..],
        &["new"],
        &["new", "a/b"],
        &["new", ".."],
        &["new", ".pigeonfs"],
        &["wait", "x", "--timeout", "soon"],
        &["mount", "--localnet", "--daemon", "@x", "/nowhere"],
        &["list", "-q", "-v"],
        &["list", "--log", "pigeonfs=loud=er"],
    ] {
        let run = work.verb("s", arguments).failed(2, &["error"]);
        assert!(run.stdout.is_empty(), "{arguments:?}");
    }
    let failure = work.verb("s", &["status", "nobody", "--json"]).failed(1, &[]);
    let told = json(failure.stderr.as_bytes());
    assert_eq!(told["error"]["kind"], "failed");
    assert!(told["error"]["hint"].is_string());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let work = Work::new();
    work.verb("s", &["new", "big"]).ok();
    work.verb_with("s", &["append", "--no-wait", "big"], &vec![b'x'; 2 << 20]).ok();
    let mut child = work
        .command()
        .args(["read", "big", "--state"])
        .arg(work.path("s"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("our child");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn the_default_state_is_where_xdg_says() {
    let work = Work::new();
    run(work.command().args(["new", "x"]), b"").ok();
    assert!(work.path(".local/state/pigeonfs/control.sock").parent().expect("a parent").is_dir());
    run(work.command().args(["new", "x"]).env("XDG_STATE_HOME", work.path("xdg")), b"").ok();
    assert!(work.path("xdg/pigeonfs").is_dir());
}

#[test]
fn files_are_for_their_owner_alone_whatever_the_umask() {
    let work = Work::new();
    let state = work.path("s");
    let script = "umask 000; exec \"$0\" append --localnet x --state \"$1\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pigeonfs")).arg(&state).env("HOME", work.path("home"));
    run(&mut command, b"bytes").ok();
    let mut unseen = vec![state];
    let mut files = 0;
    while let Some(path) = unseen.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("there");
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            unseen.extend(std::fs::read_dir(&path).expect("ours").map(|entry| entry.expect("an entry").path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            files += 1;
        }
    }
    assert!(files >= 4, "only {files} files were looked at");
}
