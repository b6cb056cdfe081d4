//! Capabilities stay where they belong: in none of the process tables, logs, core dumps and error texts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Run, Work, eventually, no_fuse, run};
use base64::Engine as _;

/// The forms in which a capability would be recognised: its texts, base64 at each of its three shifts, hex, the bytes as
/// they are (as in CBOR) and as Rust prints them. A part of the root key or of the index counts as well.
fn forms(capability: &str) -> Vec<Vec<u8>> {
    let capability = capability.trim();
    let mut forms = vec![capability.as_bytes()[..32].to_vec()];
    if capability.starts_with("pigeon-") {
        // The head is the same for all.
        forms = vec![capability.as_bytes()[24..].to_vec(), capability.to_ascii_uppercase().into_bytes()[24..].to_vec()];
        return forms;
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(capability).expect("base64");
    // 136 or 168 bytes: the root key, at a writer also its public half, and the index.
    for part in [&bytes[..24], &bytes[32..56], &bytes[bytes.len() - 24..]] {
        forms.push(part.to_vec());
        forms.push(hex::encode(part).into_bytes());
        forms.push(hex::encode_upper(part).into_bytes());
        forms.push(part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes());
        forms.extend((0..3).map(|shift| engine.encode(&part[shift..shift + 21]).into_bytes()));
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
        for transport in ["unix", "abstract", "tcp", "ws"] {
            no_capability_is_logged(level, transport);
        }
    }
}

fn no_capability_is_logged(level: &'static str, transport: &str) {
    let mut work = Work::new();
    work.log = level;
    // A name that no other test of this machine has.
    let name = format!("@pigeonfs-test-secrets-{}", std::process::id());
    let network = work.localnet_at("net", &["ws://127.0.0.1:0", &name]);
    let websocket = network.addresses.iter().find(|address| address.starts_with("ws://")).expect("asked for");
    let daemon = match transport {
        "unix" => ["--config", network.config()],
        "abstract" => ["--daemon", &name],
        "tcp" => ["--config", network.tcp_config()],
        _ => ["--daemon", websocket],
    };
    let alice = work.mount("alice", "a", &daemon);
    let bob = work.mount("bob", "b", &daemon);
    fs::write(alice.file("notes"), b"some bytes").expect("written");
    let shared = work.verb("a", &["share", "notes", "--raw"]).ok();
    let write = work.verb("a", &["share", "notes", "--write", "--raw"]).ok();
    let added = work.verb_with("b", &["add", "notes"], &shared.stdout).ok();
    let texts =
        [&["share", "notes"][..], &["share", "notes", "--write"]].map(|words| work.verb("a", words).ok().text());
    let raw = [shared.text(), write.text()];
    let forms: Vec<_> = raw.iter().chain(&texts).flat_map(|capability| forms(capability)).collect();
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
        logs[..2].iter().any(|log| holds(log, b"trace: ") || holds(log, b"debug: ")),
        "the logs are of the highest level"
    );
    logs.extend([shared, write, added, waited, twice].map(|run| run.stderr.into_bytes()));
    for log in logs {
        let found = forms.iter().find(|form| holds(&log, form));
        assert!(found.is_none(), "a capability is in a log:\n{}", String::from_utf8_lossy(&log));
    }
}

/// What a person hands over by stdin or by a file is in the arguments and the environment of no process, that of a helper
/// included, and in no log.
#[test]
fn no_process_of_any_verb_shows_a_capability() {
    let mut work = Work::new();
    work.log = "trace";
    let network = work.localnet("net");
    let config = ["--config", network.config()];
    work.verb("a", &["new", "notes"]).ok();
    work.verb("a", &["new", "--drop", "box"]).ok();
    let given = ["notes", "box"].map(|name| work.verb("a", &["share", "--raw", name]).ok().text());
    let writes = ["notes", "box"].map(|name| work.verb("a", &["share", "--raw", "--write", name]).ok().text());
    let texts = ["notes", "box"].map(|name| work.verb("a", &["share", name]).ok().text());
    let code = work.verb("a", &[&["invite", "for-b", "--no-wait"][..], &config].concat()).ok().text();
    let mut forms: Vec<_> = [given, writes, texts.clone()].iter().flatten().flat_map(|text| forms(text)).collect();
    forms.push(code.trim().as_bytes().to_vec());
    for (name, text) in ["stream.cap", "drop.cap"].iter().zip(&texts) {
        fs::write(work.path(name), text).expect("written");
    }
    let path = |name: &str| work.path(name).to_str().expect("text").to_owned();
    let (stream, drop_cap, into) = (path("stream.cap"), path("drop.cap"), path("in"));
    fs::create_dir(&into).expect("made");

    let done = AtomicBool::new(false);
    let looked = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looked = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                looked.extend(look_at_processes(&forms));
                std::thread::sleep(Duration::from_millis(2));
            }
            looked
        });
        // The watcher ends with what it watches, also where that fails.
        let done = SetAtEnd(&done);
        let says_none = |words: &[&str], run: &Run| {
            assert!(!forms.iter().any(|form| holds(run.stderr.as_bytes(), form)), "{words:?}: {}", run.stderr);
        };
        let ask = |state: &str, words: &[&str], stdin: &[u8]| {
            says_none(words, &work.verb_with(state, words, stdin).ok());
        };
        let verb = |state: &str, words: &[&str], stdin: &[u8]| ask(state, &[words, &config].concat(), stdin);
        verb("a", &["append", "notes"], b"some bytes");
        verb("a", &["send", "-", "--name", "file", "--to", "box", "--show-index"], b"a file");
        ask("b", &["add", "notes"], texts[0].as_bytes());
        ask("c", &["add", "--file", &stream, "--json", "notes"], b"");
        verb("b", &["read", "notes"], b"");
        // Those that wait for the network, and those that have nothing to do here and refuse.
        verb("a", &["wait", "notes", "--timeout", "120"], b"");
        verb("a", &["verify", "notes"], b"");
        for (state, words) in [
            ("a", &["keep", "notes", "--for", "30d"][..]),
            ("a", &["resend", "notes"]),
            ("a", &["adopt", "notes"]),
            ("a", &["move", "notes", "moved"]),
            ("b", &["skip", "notes"]),
            ("b", &["follow", "notes", "--for", "1s"]),
        ] {
            let run = work.verb_with(state, &[words, &config].concat(), b"");
            says_none(words, &run);
            assert!(!forms.iter().any(|form| holds(&run.stdout, form)), "{words:?}: {}", run.text());
        }
        verb("d", &["receive", "box", "-o", &into, "--read-cap-file", &drop_cap], b"");
        for words in [
            &["list"][..],
            &["status", "notes"],
            &["share", "notes"],
            &["share", "notes", "--json"],
            &["share", "notes", "--qr"],
            &["rename", "notes", "noted"],
            &["trim", "noted"],
            &["forget", "noted", "--force"],
        ] {
            ask("b", words, b"");
        }
        let refused = ["accept", "--as", "from-a", "--give", "for-a", "--no-such"];
        says_none(&refused, &work.verb_with("b", &refused, code.as_bytes()));
        let accept = ["accept", "--as", "from-a", "--give", "for-a", "--timeout", "30"];
        says_none(&accept, &work.verb_with("b", &[&accept[..], &config].concat(), code.as_bytes()));
        let _ = work.verb("a", &[&["doctor"][..], &config].concat());
        if !no_fuse() {
            let point = work.path("mnt");
            fs::create_dir(&point).expect("made");
            let mut mount = work.command();
            mount.args(["mount", "--daemonize"]).args(config).arg("--state").arg(work.path("a")).arg(&point);
            run(&mut mount, b"").ok();
            ask("a", &["share", "notes"], b"");
            run(work.command().arg("umount").arg(&point), b"").ok();
        }
        drop(done);
        watcher.join().expect("no panic")
    });
    assert!(looked.len() > 10, "they were looked at: {looked:?}");
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks for a capability in what each process of this program shows of itself; which ones there are.
fn look_at_processes(forms: &[Vec<u8>]) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut looked = BTreeSet::new();
    for id in ids.filter(|id| *id != std::process::id()) {
        // One that has ended meanwhile shows nothing.
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if !holds(&command, b"pigeonfs") && !holds(&command, b"fusermount") {
            continue;
        }
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        for text in [&command, &environment] {
            let found = forms.iter().any(|form| holds(text, form));
            assert!(!found, "process {id} shows it: {}", String::from_utf8_lossy(&command));
        }
        looked.insert(id);
    }
    looked
}

/// A core that a debugger of root's takes of a mount, which nothing can forbid, has none of its memory.
#[test]
fn a_core_of_a_mount_holds_no_capability() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let mount = work.mount("mnt", "a", &["--config", network.config()]);
    fs::write(mount.file("notes"), b"what nobody is to read").expect("written");
    let raw = [&["share", "--raw", "notes"][..], &["share", "--raw", "--write", "notes"]];
    let mut forms: Vec<_> = raw.iter().flat_map(|words| forms(&work.verb("a", words).ok().text())).collect();
    forms.push(b"what nobody is to read".to_vec());
    for pid in [mount.pid(), network.pid()] {
        let filter = fs::read_to_string(format!("/proc/{pid}/coredump_filter")).expect("a process of ours");
        assert_eq!(u32::from_str_radix(filter.trim(), 16), Ok(0), "no kind of memory is put into a core");
    }
    let core = work.path("core");
    let taken = Command::new("gcore").arg("-o").arg(&core).arg(mount.pid().to_string()).output();
    let written = core.with_file_name(format!("core.{}", mount.pid()));
    // Only root has a debugger that can.
    if taken.is_ok() && written.exists() {
        let core = fs::read(&written).expect("a core");
        let found = forms.iter().find(|form| holds(&core, form));
        assert!(found.is_none(), "it is in the core: {:?}", found.map(|form| String::from_utf8_lossy(form)));
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
