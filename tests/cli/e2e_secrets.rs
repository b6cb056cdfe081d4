//! Capabilities stay where they belong: in none of the process tables, logs, core dumps and error texts.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::common::{Work, eventually, no_fuse};
use base64::Engine as _;

/// The forms in which a capability would be recognised: base64, hex, the bytes as Rust prints them.
fn forms(capability: &str) -> Vec<Vec<u8>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(capability.trim()).expect("base64");
    // The root key and the start of the index are enough to recognise it by; a part of it counts as well.
    let parts = [&bytes[..24], &bytes[32..56], &bytes[bytes.len() - 24..]];
    let mut forms = vec![capability.trim().as_bytes()[..32].to_vec(), bytes[..24].to_vec()];
    for part in parts {
        forms.push(hex::encode(part).into_bytes());
        forms.push(hex::encode_upper(part).into_bytes());
        let listed = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        forms.push(listed.into_bytes());
    }
    forms
}

fn holds(text: &[u8], form: &[u8]) -> bool {
    text.windows(form.len()).any(|window| window == form)
}

#[test]
fn no_capability_is_logged_or_visible_at_any_level() {
    if no_fuse() {
        return;
    }
    // Frames of a WebSocket go through a library that would log them, and does not even where it is named.
    let levels = ["trace", "debug,tungstenite=trace,tokio_tungstenite=trace,tungstenite::protocol=trace"];
    for level in levels {
        for transport in ["unix", "tcp", "ws"] {
            no_capability_is_logged(level, transport);
        }
    }
}

fn no_capability_is_logged(level: &'static str, transport: &str) {
    let mut work = Work::new();
    work.log = level;
    let network = work.localnet_at("net", &["ws://127.0.0.1:0"]);
    let websocket = network.addresses.iter().find(|address| address.starts_with("ws://")).expect("asked for");
    let daemon = match transport {
        "unix" => ["--config", network.config()],
        "tcp" => ["--config", network.tcp_config()],
        _ => ["--daemon", websocket],
    };
    let alice = work.mount("alice", "a", &daemon);
    let bob = work.mount("bob", "b", &daemon);
    fs::write(alice.file("notes"), b"some bytes").expect("written");
    let shared = work.verb("a", &["share", "notes", "--raw"]).ok();
    let write = work.verb("a", &["share", "notes", "--write", "--raw"]).ok();
    let added = work.verb_with("b", &["add", "notes"], &shared.stdout).ok();
    let forms: Vec<_> = [shared.text(), write.text()].iter().flat_map(|capability| forms(capability)).collect();
    let waited = work.verb("b", &["wait", "notes", "--bytes", "10", "--timeout", "240"]).ok();
    let twice = work.verb_with("b", &["add", "twice"], &shared.stdout).failed(6, &["held already"]);

    for pid in [alice.pid(), bob.pid(), network.pid()] {
        for file in ["cmdline", "environ"] {
            // A process that is not dumpable shows its environment to root alone, and some systems to nobody.
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!forms.iter().any(|form| holds(&text, form)), "/proc/{pid}/{file}");
        }
    }
    alice.signal(rustix::process::Signal::TERM);
    bob.signal(rustix::process::Signal::TERM);
    network.kill();
    let mut logs: Vec<_> =
        ["alice", "bob", "net"].map(|name| fs::read(work.path(&format!("{name}.log"))).expect("a log")).into();
    assert!(
        logs[..2].iter().any(|log| holds(log, b"TRACE") || holds(log, b"DEBUG")),
        "the logs are of the highest level"
    );
    logs.extend([shared, write, added, waited, twice].map(|run| run.stderr.into_bytes()));
    for log in logs {
        let found = forms.iter().find(|form| holds(&log, form));
        assert!(found.is_none(), "a capability is in a log:\n{}", String::from_utf8_lossy(&log));
    }
}

#[test]
fn an_abort_leaves_no_core() {
    let work = Work::new();
    let directory = work.path("cwd");
    fs::create_dir(&directory).expect("made");
    let ready = work.path("ready");
    let mut child = crate::common::Kill(
        work.command()
            .args(["localnet", "--listen", "127.0.0.1:0", "--state"])
            .arg(work.path("net"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&ready).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary"),
    );
    eventually("the localnet", || fs::read_to_string(&ready).expect("a file").contains("listening").then_some(()));
    let pid = child.0.id();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "soft and hard: {core}");
    // The files of a process that is not dumpable belong to root, and its memory cannot be looked into by others.
    let dumpable = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/environ")).expect("there"));
    assert_eq!(dumpable, 0);

    rustix::process::kill_process(rustix::process::Pid::from_child(&child.0), rustix::process::Signal::ABORT)
        .expect("our child");
    let status = child.0.wait().expect("our child");
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    assert_eq!(fs::read_dir(&directory).expect("there").count(), 0, "nothing was left");
}
