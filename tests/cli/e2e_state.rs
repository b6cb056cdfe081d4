//! Whose a state is, where one is made, what is kept in it, and that a verb is done once, whoever owns the state.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Kill, Run, Work, bytes, eventually, no_fuse, run, skip};

/// Nobody who exists.
const STRANGER: u32 = 47_110;

fn entries(path: &std::path::Path) -> usize {
    fs::read_dir(path).expect("a directory").count()
}

/// A path that was mistyped became a state: a project directory got its files, and mode 0700 the second time.
#[test]
fn verbs_that_only_look_make_no_state() {
    let work = Work::new();
    let project = work.path("project");
    fs::create_dir(&project).expect("made");
    fs::write(project.join("main.c"), "int main;").expect("written");
    fs::set_permissions(&project, fs::Permissions::from_mode(0o755)).expect("set");
    fs::create_dir(work.path("empty")).expect("made");
    let verbs: &[&[&str]] = &[
        &["status"],
        &["list"],
        &["wait", "x"],
        &["read", "x"],
        &["share", "x"],
        &["forget", "x"],
        &["rename", "x", "y"],
        &["trim", "x", "--keep", "0"],
        &["skip", "x"],
        &["adopt", "x"],
        &["move", "x", "y"],
        &["follow", "x"],
        &["receive", "x"],
        &["wait", "x", "--localnet"],
    ];
    for state in ["absent/deep", "project", "empty"] {
        for verb in verbs {
            let told = work.verb(state, verb);
            assert_eq!(told.code, Some(1), "{verb:?} on {state}: {}", told.stderr);
            assert!(told.stderr.contains(state), "{verb:?}: {}", told.stderr);
        }
    }
    assert!(!work.path("absent").exists());
    assert_eq!((entries(&project), entries(&work.path("empty"))), (1, 0));
    for verb in [&["new", "x"][..], &["append", "x", "--no-wait"], &["append", "x", "--localnet"]] {
        work.verb("project", verb).failed(1, &["project", "main.c", "empty directory"]);
    }
    assert_eq!(entries(&project), 1);
    let mode = fs::metadata(&project).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o755);
    work.verb("absent/deep", &["new", "x"]).ok();
    work.verb("empty", &["new", "x"]).ok();
    work.verb("empty", &["status"]).ok();
}

#[test]
fn no_state_is_made_inside_a_mount() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &["--daemon", "unix:///nowhere"]);
    for state in ["m", "m/state"] {
        work.verb(state, &["new", "x"]).failed(1, &["inside a pigeonfs mount"]);
        assert_eq!(work.verb(state, &["status"]).code, Some(1));
    }
    assert_eq!(entries(&mount.path), 0, "it went to the network");
    mount.signal(Signal::TERM);
}

/// `mount --keep-sent 8GiB`, and afterwards a `list` dropped what was above 1 GiB.
#[test]
fn a_verb_that_owns_the_state_goes_by_what_the_last_mount_was_told() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let limits = ["--keep-sent", "8GiB", "--spool-limit", "5000", "--cache-limit", "3MiB"];
    let mount = work.mount("m", "s", &[&["--daemon", "unix:///nowhere"], &limits[..]].concat());
    fs::write(mount.file("notes"), bytes(4000, 1)).expect("written");
    mount.signal(Signal::TERM);
    let status = work.verb("s", &["status", "--json"]).ok().text();
    for told in ["\"sent_limit\":8589934592", "\"spool_limit\":5000", "\"cache_limit\":3145728"] {
        assert!(status.replace(": ", ":").contains(told), "{told} is not in {status}");
    }
    work.verb_with("s", &["append", "notes", "--no-wait"], &bytes(2000, 2)).failed(1, &["the limit is 5000"]);
}

/// A verb that waited on its standard input kept the state from a mount.
#[test]
fn a_verb_that_waits_on_its_input_or_output_yields_to_a_mount() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let net = work.localnet("net");
    let verb = |arguments: &[&str]| {
        let mut command = work.command();
        command.args(arguments).args(["--config", net.config(), "--state"]).arg(work.path("s"));
        Kill(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary"))
    };
    let appended = |size: u64| {
        eventually("the bytes are appended", || {
            let status = work.verb("s", &["status", "log", "--json"]);
            status.text().replace(": ", ":").contains(&format!("\"size\":{size},")).then_some(())
        });
    };
    let mut appending = verb(&["append", "log"]);
    let mut input = appending.0.stdin.take().expect("piped");
    input.write_all(b"first ").expect("taken");
    eventually("the state is made", || work.path("s/pigeonfs.db").exists().then_some(()));
    appended(6);
    let mount = work.mount("m", "s", &["--config", net.config()]);
    input.write_all(b"second").expect("taken");
    drop(input);
    let ended = eventually("the end of append", || appending.0.try_wait().expect("our child"));
    assert!(ended.success());
    assert_eq!(fs::read(mount.file("log")).expect("read"), b"first second");
    work.verb_with("s", &["append", "log"], &bytes(3 << 20, 3)).ok();
    mount.signal(Signal::TERM);

    // Nobody reads what this one prints.
    let mut reading = verb(&["read", "log"]);
    eventually("it reads", || work.verb("s", &["status"]).code.filter(|code| *code == 0));
    let mount = work.mount("m", "s", &["--config", net.config()]);
    let mut printed = Vec::new();
    reading.0.stdout.take().expect("piped").read_to_end(&mut printed).expect("read");
    assert!(eventually("its end", || reading.0.try_wait().expect("our child")).success());
    assert_eq!(printed.len(), 12 + (3 << 20));
    mount.signal(Signal::TERM);
}

/// The owner dies between its commit and its answer, and the verb asks the next one.
#[test]
fn a_verb_whose_owner_dies_before_it_answers_is_done_once() {
    let work = Work::new();
    for verb in [
        &["new", "made"][..],
        &["rename", "old", "new"],
        &["forget", "--force", "gone"],
        &["append", "log", "--no-wait"],
    ] {
        for name in ["old", "gone", "log", "made", "new"] {
            let _ = work.verb("s", &["forget", "--force", name]);
            if name != "made" && name != "new" {
                work.verb("s", &["new", name]).ok();
            }
        }
        let told = asked_twice(&work, verb);
        assert_eq!(told.code, Some(0), "{verb:?}: {}", told.stderr);
    }
    let log = work.verb("s", &["status", "log", "--json"]).ok().text().replace(": ", ":");
    assert!(log.contains("\"size\":5,"), "appended twice: {log}");
}

/// Bytes of a channel; none where there is none.
fn size_of(work: &Work, name: &str) -> u64 {
    let status = work.verb("s", &["status", name, "--json"]);
    serde_json::from_slice::<serde_json::Value>(&status.stdout).map_or(0, |status| status["size"].as_u64().unwrap_or(0))
}

/// Runs a verb through a socket that hands its first request on and dies before it answers.
fn asked_twice(work: &Work, verb: &[&str]) -> Run {
    // The real owner: a verb that waits on its input, in a state that was moved aside for the moment.
    let (real, aside) = (work.path("s"), work.path("aside"));
    let before = size_of(work, "owner");
    let mut owner = work.command();
    owner.args(["append", "owner", "--no-wait", "--state"]).arg(&real);
    let mut owner = Kill(owner.stdin(Stdio::piped()).spawn().expect("the binary"));
    // It waits once it has taken what there is.
    owner.0.stdin.as_mut().expect("piped").write_all(b"x").expect("taken");
    eventually("it waits for more", || (size_of(work, "owner") > before).then_some(()));
    fs::rename(&real, &aside).expect("moved");
    fs::create_dir(&real).expect("made");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).expect("set");
    let lock = fs::File::create(real.join("lock")).expect("made");
    lock.try_lock().expect("ours");
    let listener = UnixListener::bind(real.join("control.sock")).expect("bound");
    std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            let mut command = work.command();
            command.args(verb).arg("--state").arg(&real);
            run(&mut command, if verb[0] == "append" { b"bytes" } else { b"" })
        });
        // Requests that change nothing pass; the first that changes something is carried out and not answered.
        let (mut client, _) = listener.accept().expect("the verb");
        let mut there = UnixStream::connect(aside.join("control.sock")).expect("the owner");
        let mut answered = 0;
        loop {
            let request = frame(&mut client);
            there.write_all(&request).expect("sent");
            let answer = frame(&mut there);
            let looks =
                [&b"status"[..], b"\x65bytes\x40"].iter().any(|it| request.windows(it.len()).any(|at| at == *it));
            if !looks {
                break;
            }
            client.write_all(&answer).expect("sent");
            answered += 1;
            assert!(answered < 10, "nothing that changes anything was asked");
        }
        drop(owner.0.stdin.take());
        eventually("the end of the owner", || owner.0.try_wait().expect("our child"));
        // The state comes back before the verb looks for its owner.
        fs::rename(&real, work.path("false")).expect("moved");
        fs::rename(&aside, &real).expect("moved");
        drop(client);
        let told = told.join().expect("no panic");
        drop(lock);
        fs::remove_dir_all(work.path("false")).expect("removed");
        told
    })
}

/// A frame of the control socket, with its length.
fn frame(stream: &mut UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).expect("a length");
    let length = u32::from_be_bytes(frame[..4].try_into().expect("four bytes")) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..]).expect("a body");
    frame
}

#[test]
fn a_false_owner_gets_nothing() {
    if !rustix::process::geteuid().is_root() && skip("not root") {
        return;
    }
    let work = Work::new();
    let capability = work.verb("other", &["new", "x"]).ok();
    drop(capability);
    let capability = work.verb("other", &["share", "--write", "x"]).ok().stdout;
    let state = work.path("s");
    fs::create_dir(&state).expect("made");
    let lock = fs::File::create(state.join("lock")).expect("made");
    lock.try_lock().expect("ours");
    let listener = UnixListener::bind(state.join("control.sock")).expect("bound");
    listener.set_nonblocking(true).expect("set");
    chown(&state, Some(STRANGER), None).expect("given away");
    work.verb_with("s", &["add", "x"], &capability).failed(1, &["belongs to user 47110"]);
    assert!(listener.accept().is_err(), "it was connected to");
    // Through a link of theirs, in a directory where anybody may put one.
    fs::set_permissions(work.path(""), fs::Permissions::from_mode(0o1777)).expect("set");
    work.verb("mine", &["new", "y"]).ok();
    symlink(work.path("mine"), work.path("link")).expect("made");
    std::os::unix::fs::lchown(work.path("link"), Some(STRANGER), None).expect("given away");
    work.verb("link", &["list"]).failed(1, &["belongs to user 47110"]);
}

/// Capability and contents stayed in the log of the database until the next clean end.
#[test]
fn what_is_forgotten_is_in_no_file_of_the_state() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &["--daemon", "unix:///nowhere"]);
    let secret = b"a sentence that nobody may find again";
    fs::write(mount.file("kept"), b"this stays").expect("written");
    fs::write(mount.file("notes"), secret.repeat(100)).expect("written");
    let capability = work.verb("s", &["share", "--write", "notes"]).ok();
    work.verb_with("other", &["add", "notes"], &capability.stdout).ok();
    let holds = |needle: &[u8]| {
        let files = fs::read_dir(work.path("s")).expect("a directory").flatten();
        let mut files = files.filter(|it| it.file_type().is_ok_and(|kind| kind.is_file()));
        files.any(|it| fs::read(it.path()).is_ok_and(|file| file.windows(needle.len()).any(|at| at == needle)))
    };
    assert!(holds(secret) && holds(b"this stays"), "the test looks in the wrong place");
    work.verb("s", &["forget", "notes"]).failed(5, &["not stored by the network yet", "--force"]);
    work.verb("s", &["forget", "--force", "notes"]).ok();
    eventually("it is gone", || (!holds(secret)).then_some(()));
    assert!(holds(b"this stays"));
    mount.signal(Signal::TERM);
}

#[test]
fn forgetting_says_what_is_lost_and_needs_force() {
    let work = Work::new();
    work.verb("s", &["new", "empty"]).ok();
    work.verb("s", &["forget", "empty"]).ok();
    work.verb("s", &["new", "log"]).ok();
    work.verb_with("s", &["append", "log", "--no-wait"], b"unsent").ok();
    work.verb("s", &["forget", "log"]).failed(5, &["6 B", "only copy of its write capability", "--force"]);
    let capability = work.verb("s", &["share", "--write", "log"]).ok().stdout;
    let told = work.verb("s", &["forget", "log"]).failed(5, &["6 B"]);
    assert!(!told.stderr.contains("only copy"), "{}", told.stderr);
    work.verb("s", &["forget", "--force", "log"]).ok();
    // A capability that came from elsewhere is elsewhere.
    work.verb_with("s", &["add", "log"], &capability).ok();
    work.verb("s", &["forget", "log"]).ok();
}
