//! What `SECURITY.md` claims: each threat has a test that exists, or a limit that is stated. And `doctor`, which looks at the
//! rest.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Kill, Work, eventually, run};

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
    for run in shown {
        for text in [run.text(), run.stderr.clone()] {
            assert!(text.chars().all(|c| c == '\n' || is_seen(c)), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{text}");
        }
    }
    let names: Vec<_> =
        std::fs::read_dir(work.path("in")).expect("there").map(|entry| entry.expect("one").file_name()).collect();
    assert!(names.iter().all(|name| name.to_str().expect("text").chars().all(is_seen)), "{names:?}");
}
