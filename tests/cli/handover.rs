//! Capabilities from hand to hand: their texts go out and come in, and what is wrong with one is said before anything is
//! stored.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{Kill, Localnet, Work, eventually, run};
use pigeonfs::bacap::{CapText, Capability, TextKind, TextNetwork};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

fn status(work: &Work, state: &str, name: &str) -> Value {
    serde_json::from_slice(&work.verb(state, &["status", "--json", name]).ok().stdout).expect("JSON")
}

fn text(work: &Work, state: &str, name: &str) -> CapText {
    match Capability::parse(&work.verb(state, &["share", name]).ok().stdout).expect("a capability") {
        Capability::Text(text) => text,
        Capability::Raw(_) => panic!("a text"),
    }
}

/// A command on a terminal of its own, and what appears there.
struct Terminal {
    child: Kill,
    master: File,
    seen: Vec<u8>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let path = ptsname(&master, Vec::new()).expect("a name");
        let end = || File::options().read(true).write(true).open(path.to_str().expect("text")).expect("a terminal");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the binary");
        // It keeps the terminal open.
        drop(command);
        Self { child: Kill(child), master: master.into(), seen: Vec::new() }
    }

    fn wait_for(&mut self, words: &str) {
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&self.seen).contains(words) {
            let count = self.master.read(&mut buffer).expect("it is still there");
            self.seen.extend(&buffer[..count]);
        }
    }

    /// All that appeared, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut buffer = [0; 1024];
        // The other end closes with the child.
        while let Ok(count) = self.master.read(&mut buffer) {
            self.seen.extend(&buffer[..count]);
        }
        let status = eventually("the end", || self.child.0.try_wait().expect("our child"));
        (String::from_utf8_lossy(&self.seen).into_owned(), status.code())
    }
}

#[test]
fn all_forms_of_a_capability_are_taken() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    work.verb("a", &["new", "--drop", "box"]).ok();
    let line = work.verb("a", &["share", "notes"]).ok().text();
    assert!(line.starts_with("pigeon-read1") && line.len() == 247, "{} letters", line.len());
    let raw = work.verb("a", &["share", "--raw", "notes"]).ok().text();
    assert_eq!(raw.len(), 185);
    let wrapped = format!("> {}\r\n> {}\r\n", &line[..100], line[100..].trim());
    let forms = [
        line.clone(),
        line.to_ascii_uppercase(),
        format!("\"{}\"", line.trim()),
        wrapped,
        raw.clone(),
        format!("'{}\r\n{}'\r\n", &raw[..76], raw[76..].trim()),
    ];
    for (at, form) in forms.iter().enumerate() {
        let state = format!("reader-{at}");
        work.verb_with(&state, &["add", "notes"], form.as_bytes()).ok();
        assert_eq!(status(&work, &state, "notes")["kind"], "stream");
        assert_eq!(work.verb(&state, &["share", "--raw", "notes"]).ok().text(), raw, "the same capability, {at}");
    }
    let drop = work.verb("a", &["share", "box"]).ok().text();
    work.verb_with("b", &["add", "--drop", "box"], drop.as_bytes()).ok();
    assert_eq!(text(&work, "b", "box").kind, TextKind::Drop, "what was told is told on");
    work.verb_with("c", &["add", "--drop", "box", "--kept-until", "2099-01-01"], drop.as_bytes()).ok();
    assert!(text(&work, "c", "box").kept_until.is_some());
}

#[test]
fn what_is_wrong_with_a_text_is_said_and_nothing_is_stored() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    work.verb("a", &["new", "--drop", "box"]).ok();
    let line = work.verb("a", &["share", "notes"]).ok().text().trim().to_owned();
    let drop = work.verb("a", &["share", "box"]).ok().text();
    let letter = if &line[80..81] == "q" { "p" } else { "q" };
    let wrong = format!("{}{letter}{}", &line[..80], &line[81..]);
    let add = |arguments: &[&str], text: &str, told: &[&str]| {
        let run = work.verb_with("b", &[&["add", "x"], arguments].concat(), text.as_bytes()).failed(2, told);
        assert!(!run.stderr.contains(&text.trim()[30..50]), "it is not repeated: {}", run.stderr);
    };
    add(&[], &wrong, &["its letter 81 of 246 is wrong", "hint: "]);
    add(&[], &line[..200], &["it has 200 letters", "a part of it is missing"]);
    add(&[], &drop, &["the capability of a drop", "a stream is wanted", "add --drop"]);
    add(&["--drop"], &line, &["the capability of a stream", "a drop is wanted"]);
    std::fs::write(work.path("stream.cap"), &line).expect("written");
    let file = work.path("stream.cap");
    work.verb("b", &["receive", "x", "--read-cap-file", file.to_str().expect("text")])
        .failed(2, &["the capability of a stream", "a drop is wanted"]);
    work.verb_with("b", &["add", "x", "--kept-until", "soon"], line.as_bytes()).failed(2, &["is not a date"]);
    assert!(!work.path("b/state.db").exists() || work.verb("b", &["list"]).ok().text().is_empty());
}

/// The same capability, as if it had been made elsewhere.
fn of_network(work: &Work, state: &str, name: &str, network: TextNetwork) -> String {
    CapText { network, ..text(work, state, name) }.encode().to_string()
}

fn stored(work: &Work, network: &Localnet, state: &str, name: &str, bytes: &[u8]) {
    work.verb_with(state, &["append", name, "--config", network.config()], bytes).ok();
}

#[test]
fn a_text_of_another_network_is_refused_or_warned_of_before_it_is_stored() {
    if crate::common::no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    stored(&work, &network, "a", "notes", b"hello");
    let ours = text(&work, "a", "notes").network;
    let TextNetwork::Localnet([first, rest @ ..]) = ours else { panic!("bound to a localnet: {ours:?}") };
    let hash = [first ^ 1, rest[0], rest[1], rest[2]];
    let _mount = work.mount("mnt", "b", &["--config", network.config()]);
    let add = |name: &str, network: TextNetwork, further: &[&str]| {
        let text = of_network(&work, "a", "notes", network);
        work.verb_with("b", &[&["add", name], further].concat(), text.as_bytes())
    };
    add("x", TextNetwork::Real(hash), &[]).failed(5, &["is of a real network", "embedded one (localnet)", "hint: "]);
    add("x", TextNetwork::Localnet(hash), &["--strict-network"]).failed(5, &["other directory authorities"]);
    assert_eq!(work.verb("b", &["list"]).ok().text(), "", "nothing was stored");
    let warned = add("x", TextNetwork::Localnet(hash), &[]).ok();
    assert!(warned.stderr.contains("warning: ") && warned.stderr.contains("--strict-network"), "{}", warned.stderr);
    work.verb("b", &["wait", "x", "--bytes", "5", "--timeout", "200"]).ok();

    // Where nothing is connected it is found out when something is, and nothing is asked for.
    let real = of_network(&work, "a", "notes", TextNetwork::Real(hash));
    work.verb_with("c", &["add", "x"], real.as_bytes()).ok();
    work.verb("c", &["read", "x", "--config", network.config()]).failed(5, &["is of a real network"]);
}

#[test]
fn what_was_told_wrongly_of_a_raw_capability_is_found_out_at_the_first_box() {
    let work = Work::new();
    let network = work.localnet("net");
    stored(&work, &network, "a", "notes", b"hello, this is a stream\n");
    std::fs::write(work.path("file.txt"), b"a file").expect("written");
    let file = work.path("file.txt");
    work.verb("a", &["send", file.to_str().expect("text"), "--to", "box", "--config", network.config()]).ok();
    let raw = |name: &str| work.verb("a", &["share", "--raw", name]).ok().stdout;
    let daemon = ["--config", network.config()];

    work.verb_with("b", &["add", "--drop", "notes"], &raw("notes")).ok();
    work.verb("b", &[&["receive", "notes", "--timeout", "200"], &daemon[..]].concat()).failed(1, &["is a stream"]);
    assert_eq!(work.verb("b", &[&["read", "notes"], &daemon[..]].concat()).ok().text(), "hello, this is a stream\n");
    assert_eq!(status(&work, "b", "notes")["kind"], "stream");

    work.verb_with("b", &["add", "box"], &raw("box")).ok();
    work.verb("b", &[&["read", "box"], &daemon[..]].concat())
        .failed(1, &["was added as a stream, and its first box shows that it is a drop", "pigeonfs receive box"]);
    let into = work.path("in");
    std::fs::create_dir(&into).expect("made");
    let receive = ["receive", "box", "-o", into.to_str().expect("text"), "--timeout", "200"];
    work.verb("b", &[&receive[..], &daemon[..]].concat()).ok();
    assert_eq!(std::fs::read(into.join("file.txt")).expect("the file"), b"a file");
    assert_eq!(status(&work, "b", "box")["files"]["broken"], 0, "nothing is blamed on the sender");

    // What was told rightly stands.
    work.verb_with("c", &["add", "--drop", "box"], &raw("box")).ok();
    work.verb("c", &[&receive[..], &daemon[..]].concat()).ok();
}

#[test]
fn a_reader_from_here_sees_what_comes_from_now_on() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let send = |name: &str, text: &str| {
        std::fs::write(work.path(name), text).expect("written");
        let path = work.path(name);
        work.verb("a", &[&["send", path.to_str().expect("text"), "--to", "box"], &daemon[..]].concat()).ok();
    };
    stored(&work, &network, "a", "notes", b"before ");
    send("one.txt", "before");
    let notes = work.verb("a", &["share", "--from-here", "notes"]).ok().stdout;
    let files = work.verb("a", &["share", "--from-here", "box"]).ok().stdout;
    stored(&work, &network, "a", "notes", b"after");
    send("two.txt", "after");
    work.verb_with("b", &["add", "notes"], &notes).ok();
    work.verb_with("b", &["add", "--drop", "box"], &files).ok();
    assert_eq!(work.verb("b", &[&["read", "notes"], &daemon[..]].concat()).ok().text(), "after");
    let into = work.path("in");
    std::fs::create_dir(&into).expect("made");
    let receive = ["receive", "box", "-o", into.to_str().expect("text"), "--timeout", "200"];
    work.verb("b", &[&receive[..], &daemon[..]].concat()).ok();
    let arrived: Vec<_> =
        std::fs::read_dir(&into).expect("there").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(arrived, ["two.txt"]);
}

#[test]
fn share_says_who_else_can_see_the_capability() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    let share = |mode: u32, further: &[&str]| {
        let file = File::create(work.path("notes.cap")).expect("a file");
        file.set_permissions(PermissionsExt::from_mode(mode)).expect("set");
        let mut command = work.command();
        command.args(["share", "notes"]).args(further).arg("--state").arg(work.path("a"));
        let output = command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped()).output().expect("the binary");
        assert!(output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    for mode in [0o644, 0o640, 0o604] {
        assert!(share(mode, &[]).contains("warning: the file"), "{mode:o}");
    }
    assert_eq!(share(0o600, &[]), "");
    assert!(share(0o644, &["--raw"]).contains("chmod 600"));

    let mut command = work.command();
    command.args(["share", "notes", "--state"]).arg(work.path("a"));
    let (seen, code) = Terminal::start(command).end();
    assert_eq!(code, Some(0));
    assert!(seen.contains("this is the read capability of \"notes\"") && seen.contains("pigeon-read1"), "{seen}");
    let shown = work.verb("a", &["share", "--qr", "notes"]).ok().text();
    assert!(shown.lines().count() < 50 && shown.contains('█') && !shown.contains("pigeon"), "{shown}");
}

#[test]
fn add_on_a_terminal_shows_nothing_of_what_is_pasted() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    let line = work.verb("a", &["share", "notes"]).ok().text();
    // In one line, and as a mail program wraps it.
    for (state, pasted) in [("b", line.clone()), ("c", format!("{}\n{}", &line[..90], &line[90..]))] {
        let mut command = work.command();
        command.args(["add", "notes", "--state"]).arg(work.path(state));
        let mut terminal = Terminal::start(command);
        terminal.wait_for("it is not shown");
        terminal.master.write_all(pasted.as_bytes()).expect("pasted");
        let (seen, code) = terminal.end();
        assert_eq!(code, Some(0), "{seen}");
        assert!(!seen.contains("pigeon-read1") && !seen.contains(&line[40..60]), "{seen}");
        assert_eq!(status(&work, state, "notes")["role"], "reader");
    }
    let mut command = work.command();
    command.args(["add", "notes", "--state"]).arg(work.path("d"));
    let mut terminal = Terminal::start(command);
    terminal.wait_for("it is not shown");
    terminal.master.write_all(b"pigeon\x03").expect("typed");
    assert_eq!(terminal.end().1, Some(130), "Ctrl-C");
}

#[test]
fn a_capability_as_an_argument_of_any_verb_is_refused_and_not_printed() {
    let work = Work::new();
    work.verb("a", &["new", "notes"]).ok();
    let secrets = [
        &["share", "notes"][..],
        &["share", "--write", "notes"],
        &["share", "--raw", "notes"],
        &["share", "--raw", "--write", "notes"],
    ]
    .map(|arguments| work.verb("a", arguments).ok().text().trim().to_owned());
    for secret in &secrets {
        for arguments in [
            &["add", "x", secret][..],
            &["add", secret],
            &["share", secret],
            &["status", secret],
            &["mount", secret],
            &["localnet", "ctl", "clock", secret],
            &["nonsense", secret],
            &[secret],
            &["list", &format!("--state={secret}")],
            &["receive", "x", "-r", secret],
            &["wait", "x", "--timeout", secret],
            &["list", &secret[..110], "--json"],
        ] {
            let run = run(work.command().args(arguments), b"");
            assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
            let all = format!("{}{}", run.text(), run.stderr);
            assert!(!all.contains(&secret[20..40]), "{}", run.stderr);
        }
    }
    let long = "w".repeat(300);
    let run = run(work.command().args(["list", &long]), b"").failed(2, &["(300 characters)"]);
    assert!(!run.stderr.contains(&long));
}
