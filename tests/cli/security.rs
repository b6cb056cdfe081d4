//! What `SECURITY.md` claims: each threat has a test that exists, or a limit that is stated. And `doctor`, which looks at the
//! rest.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Kill, Run, Work, eventually, no_fuse, run};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The names of all tests of this package.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|directory| sources(&root.join(directory), &mut files));
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = function.and_then(|rest| rest.split(['(', '<']).next()) {
                if is_test || text.contains("proptest!") {
                    names.insert(name.to_owned());
                }
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn each_threat_has_a_test_that_exists_or_a_stated_limit() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).expect("SECURITY.md");
    let tests = tests();
    for number in 1..=33 {
        let head = format!("| T{number} |");
        let row = text.lines().find(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("no row of T{number}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (named, limit) = (cells[3], cells[4]);
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || !limit.is_empty(), "T{number} has neither a test nor a limit");
        for name in named {
            assert!(tests.contains(name), "T{number}: there is no test {name}");
        }
    }
}

#[test]
fn doctor_says_what_to_do_and_makes_nothing() {
    let work = Work::new();
    let network = work.localnet("net");
    let doctor = |state: &str, arguments: &[&str]| work.verb(state, &[&["doctor", "--json"], arguments].concat());
    let checks = |stdout: &[u8]| serde_json::from_slice::<Value>(stdout).expect("JSON")["checks"].clone();
    let status = |checks: &Value, name: &str| {
        let found = checks.as_array().expect("a list").iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {checks}"))["status"].clone()
    };
    let absent = doctor("absent", &["--config", network.config()]);
    assert_eq!((status(&checks(&absent.stdout), "state"), absent.code), ("do".into(), Some(1)));
    assert!(!work.path("absent").exists(), "nothing is made");

    work.verb("alice", &["new", "notes"]).ok();
    let found = doctor("alice", &["--config", network.config()]);
    let found = checks(&found.stdout);
    for (name, standing) in
        [("state", "ok"), ("files", "ok"), ("core dumps", "ok"), ("daemon", "ok"), ("network", "ok"), ("clock", "ok")]
    {
        assert_eq!(status(&found, name), standing, "{name}: {found}");
    }
    for name in
        ["fuse", "fusermount3", "user_allow_other", "swap", "at rest", "space", "indexers", "sandbox", "capabilities"]
    {
        status(&found, name);
    }
    // A capability that lies around in the person's home is seen, and its file is left as it is.
    let capability = work.verb("alice", &["share", "notes"]).ok().stdout;
    std::fs::write(work.path("notes.cap"), capability).expect("written");
    std::fs::set_permissions(work.path("notes.cap"), std::fs::Permissions::from_mode(0o644)).expect("ours");
    let found = doctor("alice", &["--config", network.config()]).failed(1, &["to do"]);
    assert_eq!(status(&checks(&found.stdout), "capabilities"), "do");
    let nobody = doctor("alice", &["--daemon", "/nowhere/kpclientd.sock"]);
    assert_eq!(status(&checks(&nobody.stdout), "daemon"), "do");
    let text = work.verb("alice", &["doctor", "--config", network.config()]);
    assert!(text.text().lines().any(|line| line.starts_with("do ") && line.contains("notes.cap")), "{}", text.text());
}

/// A daemon gets every capability and every byte, so whoever took its address first got them.
#[test]
fn a_socket_of_another_user_is_given_nothing() {
    let work = Work::new();
    work.verb("alice", &["new", "notes"]).ok();
    let append = |arguments: &[&str]| work.verb_with("alice", &[&["append", "notes"], arguments].concat(), b"x");
    append(&["--daemon", "tcp://192.0.2.1:1"]).failed(2, &["on another machine", "--allow-remote-daemon"]);
    append(&["--daemon", "ws://daemon.example:1"]).failed(2, &["on another machine"]);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Another user listens at the name that is usual, and in a directory of theirs.
    let theirs = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(theirs.path(), Some(4242), Some(4242)).expect("root");
    let binary = theirs.path().join("pigeonfs");
    std::fs::copy(env!("CARGO_BIN_EXE_pigeonfs"), &binary).expect("copied");
    let name = format!("@pigeonfs-test-{}", std::process::id());
    let mut command = std::process::Command::new(&binary);
    command.args(["localnet", "--listen", &name, "--state"]).arg(theirs.path().join("net"));
    command.env("HOME", theirs.path()).current_dir(theirs.path()).uid(4242).gid(4242);
    let _listener = Kill(command.stdout(std::process::Stdio::null()).spawn().expect("the binary"));
    let socket = theirs.path().join("net/kpclientd.sock");
    eventually("their sockets", || socket.exists().then_some(()));
    for address in [name.as_str(), socket.to_str().expect("text")] {
        let refused = append(&["--daemon", address, "--timeout", "5"]);
        assert_ne!(refused.code, Some(0), "{address}");
        assert!(refused.stderr.contains("belongs to user 4242"), "{}", refused.stderr);
        append(&["--daemon", address, "--daemon-user", "4242"]).ok();
    }
    // The runtime directory of another user, as `sudo -E` and `su` leave it in the environment.
    let runtime = theirs.path().join("run");
    std::fs::create_dir_all(runtime.join("katzenpost")).expect("made");
    std::os::unix::fs::symlink(&socket, runtime.join("katzenpost/kpclientd.sock")).expect("made");
    let mut command = work.command();
    command.env("XDG_RUNTIME_DIR", &runtime).args(["append", "notes", "--timeout", "15", "--state"]);
    run(command.arg(work.path("alice")), b"x").failed(4, &["another user's process listens there"]);
}

/// A name from a stranger forged a row of the status, a line of the log and a hint.
#[test]
fn names_of_strangers_forge_nothing_that_is_shown() {
    let mut work = Work::new();
    work.log = "trace";
    let network = work.localnet("net");
    let hostile = "a\u{202e}gpj\nerror: forged\u{7}\u{1b}[2J\u{200b}.exe";
    work.verb("alice", &["new", "--drop", "box"]).ok();
    let capability = work.verb("alice", &["share", "box"]).ok().stdout;
    work.verb_with("bob", &["add", "--drop", "box"], &capability).ok();
    let config = ["--config", network.config()];
    let sent = work.verb_with("alice", &[&["send", "-", "--name", hostile, "--to", "box"], &config[..]].concat(), b"x");
    let mut shown = vec![sent.ok()];
    std::fs::create_dir(work.path("in")).expect("made");
    let to = work.path("in");
    let receive = ["receive", "box", "-o", to.to_str().expect("text")];
    shown.push(work.verb("bob", &[&receive[..], &config].concat()).ok());
    for arguments in [&["status", "box"][..], &["status"], &["list"], &["status", "--json"]] {
        shown.push(work.verb("bob", arguments));
        shown.push(work.verb("alice", arguments));
    }
    let is_seen = |c: char| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
    shown.iter().for_each(|run| shows_only_what_is_seen("a name", run));
    let names: Vec<_> =
        std::fs::read_dir(work.path("in")).expect("there").map(|entry| entry.expect("one").file_name()).collect();
    assert!(names.iter().all(|name| name.to_str().expect("text").chars().all(is_seen)), "{names:?}");
}

/// `pigeonfs forget "$NAME"` with a name from a stranger wrote on the terminal of whoever typed it.
#[test]
fn what_was_typed_forges_nothing_in_an_error() {
    const HOSTILE: &str = "/x\nerror: forged\u{1b}[2J\u{7}\u{202e}gpj\u{200b}";
    let work = Work::new();
    let option = format!("--{HOSTILE}");
    let value = format!("--time-scale={HOSTILE}");
    let fault = format!("{HOSTILE}=1");
    for words in [
        &[HOSTILE][..],
        &["forget", HOSTILE],
        &["forget", "a", HOSTILE],
        &["forget", "a", &option],
        &["help", HOSTILE],
        &["help", "mount", HOSTILE],
        &["wait", "a", "--timeout", HOSTILE],
        &["mount", "--localnet", &value, "m"],
        &["mount", "--profile", HOSTILE, "m"],
        &["mount", "--localnet", HOSTILE],
        &["mount", "--log-file", HOSTILE, "m"],
        &["umount", HOSTILE],
        &["status", "--state", HOSTILE],
        &["list", "--quiet", "--log", HOSTILE],
        &["localnet", "--listen", HOSTILE],
        &["localnet", "--state", "/proc/none", "--config-out", HOSTILE],
        &["localnet", "ctl", "faults", "set", &fault],
        &["localnet", "ctl", "stats", "--state", HOSTILE],
        &["send", HOSTILE, "--to", "a"],
        &["receive", "a", "-o", HOSTILE],
        &["read", "a", "--config", HOSTILE],
        &["read", "a", "--daemon", HOSTILE],
        &["add", "a", "--file", HOSTILE],
        &["cp-compat", "genkey", "-c", HOSTILE],
        &["doctor", "--config", HOSTILE],
    ] {
        for json in [false, true] {
            let mut command = work.command();
            command.args(words).args(json.then_some("--json")).env("PIGEONFS_STATE", work.path("s"));
            shows_only_what_is_seen(&format!("{words:?}"), &run(&mut command, b""));
        }
    }
    // The name under which the program was started.
    for words in [&["help"][..], &["wait"], &["wait", "--help"]] {
        shows_only_what_is_seen("its name", &run(work.command().arg0(HOSTILE).args(words), b""));
    }
}

#[track_caller]
fn shows_only_what_is_seen(what: &str, run: &Run) {
    for text in [run.text(), run.stderr.clone()] {
        let unseen =
            |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'));
        assert!(!text.contains(unseen), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{what}: {text}");
    }
}

/// A pipe that was cut looked like work that was done: `receive inbox | head -1` ended with 0.
#[test]
fn work_that_is_cut_short_by_whoever_reads_it_is_no_success() {
    let work = Work::new();
    let network = work.localnet("net");
    let config = ["--config", network.config()];
    work.verb("alice", &["new", "--drop", "box"]).ok();
    let capability = work.verb("alice", &["share", "box"]).ok().stdout;
    work.verb_with("bob", &["add", "--drop", "box"], &capability).ok();
    for name in ["one", "two", "three"] {
        let send = ["send", "-", "--name", name, "--to", "box", "--no-wait"];
        work.verb_with("alice", &[&send[..], &config].concat(), name.as_bytes()).ok();
    }
    work.verb("alice", &[&["wait", "box"][..], &config].concat()).ok();
    std::fs::create_dir(work.path("in")).expect("made");
    let into = work.path("in");
    let receive = [&["receive", "box", "-o", into.to_str().expect("text")][..], &config].concat();
    for (words, code) in [
        (&["list"][..], 0),
        (&["list", "--json"], 0),
        (&["status"], 0),
        (&["share", "box"], 0),
        (&["help"], 0),
        (&["help", "glossary"], 0),
        (&["doctor"], 141),
        (&receive, 141),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = work.command();
        command.args(words).arg("--state").arg(work.path("bob")).env("PIGEONFS_LOG", "error");
        let output = command.stdin(Stdio::null()).stdout(writer).output().expect("the binary");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), error.as_ref()), (Some(code), ""), "{words:?}");
    }
    let names = || std::fs::read_dir(work.path("in")).expect("there").count();
    assert_eq!(names(), 1, "the first was received, and nobody was there to read it");
    work.verb("bob", &receive).ok();
    assert_eq!(names(), 3);
}

/// A directory that was mistyped got the files of a network and lost its mode; one in a mount went to the network.
#[test]
fn a_network_is_made_only_where_nothing_else_is() {
    let work = Work::new();
    let localnet = |path: &Path| run(work.command().args(["localnet", "--state"]).arg(path), b"");
    let project = work.path("project");
    std::fs::create_dir(&project).expect("made");
    std::fs::write(project.join("main.c"), "int main;").expect("written");
    std::fs::set_permissions(&project, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let names = |path: &Path| std::fs::read_dir(path).expect("there").count();
    localnet(&project).failed(1, &["holds \"main.c\" and no network", "choose another --state"]);
    let mode = std::fs::metadata(&project).expect("there").permissions().mode() & 0o777;
    assert_eq!((names(&project), mode), (1, 0o755));
    work.verb("alice", &["new", "notes"]).ok();
    localnet(&work.path("alice")).failed(1, &["and no network"]);
    assert!(!work.path("alice/localnet.db").exists());
    localnet(&project.join("main.c")).failed(1, &["is not a directory"]);
    if rustix::process::geteuid().is_root() {
        let theirs = work.path("theirs");
        std::fs::create_dir(&theirs).expect("made");
        std::os::unix::fs::chown(&theirs, Some(4242), Some(4242)).expect("root");
        localnet(&theirs).failed(1, &["belongs to user 4242"]);
        assert_eq!(names(&theirs), 0);
    }
    // An empty directory will do, and the same again.
    std::fs::create_dir(work.path("net")).expect("made");
    work.localnet("net").kill();
    let network = work.localnet("net");
    if no_fuse() {
        return;
    }
    let mount = work.mount("mnt", "alice", &["--config", network.config()]);
    localnet(&mount.file("net")).failed(1, &["inside a pigeonfs mount"]);
    assert_eq!(names(&mount.path), 1, "only the notes");
}

/// `doctor` asked whose the daemon is by a connection that said nothing, which daemons log, and wait for.
#[test]
fn doctor_opens_one_connection_and_closes_it_in_order() {
    let work = Work::new();
    let path = work.path("kpclientd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    listener.set_nonblocking(true).expect("a socket");
    let mut doctor = work.command();
    doctor.args(["doctor", "--json", "--daemon"]).arg(&path).arg("--state").arg(work.path("s"));
    let mut doctor =
        Kill(doctor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary"));
    // What hangs up at once is no daemon.
    let mut connections = 0;
    eventually("the end of doctor", || {
        connections += usize::from(listener.accept().is_ok());
        doctor.0.try_wait().expect("our child")
    });
    assert_eq!(connections, 1);
}
