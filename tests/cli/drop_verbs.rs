//! `pigeonfs send` and `pigeonfs receive`: whole files from one state to another, with no mount.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use crate::common::{Kill, Localnet, Run, Work, bytes, eventually, no_fuse, run};
use rustix::process::Signal;
use serde_json::Value;

struct World {
    work: Work,
    localnet: Localnet,
}

impl World {
    fn new() -> Self {
        let work = Work::new();
        let localnet = work.localnet("net");
        Self { work, localnet }
    }

    fn send(&self, arguments: &[&str], stdin: &[u8]) -> Run {
        run(self.verb("alice", "send", arguments).arg("--json").current_dir(self.work.path("")), stdin)
    }

    fn receive(&self, arguments: &[&str]) -> Run {
        run(self.verb("bob", "receive", arguments).arg("--json").current_dir(self.work.path("")), b"")
    }

    fn verb(&self, state: &str, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.work.command();
        command.arg(verb).args(arguments).args(["--config", self.localnet.config(), "--state"]);
        command.arg(self.work.path(state));
        command
    }

    /// A drop that alice writes and bob reads.
    fn drop(&self, name: &str) {
        self.work.verb("alice", &["new", "--drop", name]).ok();
        let capability = self.work.verb("alice", &["share", name]).ok().stdout;
        self.work.verb_with("bob", &["add", "--drop", name], &capability).ok();
    }

    fn write(&self, name: &str, data: &[u8]) {
        let path = self.work.path(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, data).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let path = self.work.path(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Starts a verb that is read from while it runs. It ends by itself where nothing else ends it.
    fn start(&self, state: &str, verb: &str, arguments: &[&str]) -> Running {
        let mut command = self.verb(state, verb, &[arguments, &["--json", "--timeout", "200"]].concat());
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Kill(command.current_dir(self.work.path("")).spawn().expect("the binary"));
        let lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
        Running { child, lines }
    }

    /// Changes what the network does wrong.
    fn network(&self, fault: &str) {
        self.work.verb("net", &["localnet", "ctl", "faults", "set", fault]).ok();
    }

    fn status(&self, state: &str, name: &str) -> Value {
        serde_json::from_slice(&self.work.verb(state, &["status", "--json", name]).ok().stdout).expect("JSON")
    }
}

/// A verb that runs, and what it tells.
struct Running {
    child: Kill,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next that it tells.
    fn tells(&mut self) -> Value {
        let line = self.lines.next().expect("it tells something").expect("a pipe");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Ends it with a signal, and says with which code it ended.
    fn signalled(mut self, signal: Signal) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child.0), signal).expect("our child");
        self.child.0.wait().expect("our child").code()
    }
}

fn events(run: &Run, event: &str) -> Vec<Value> {
    let lines = run.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    lines.into_iter().filter(|line| line["event"] == event).collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn files_and_trees_are_sent_and_received_once() {
    let world = World::new();
    world.drop("box");
    world.write("a file ü.txt", b"hello");
    world.write("empty", b"");
    world.write("tree/one/deep.bin", &bytes(40_000, 1));
    world.write("tree/two", b"two");
    std::fs::create_dir_all(world.work.path("tree/nothing/here")).expect("made");
    std::fs::create_dir(world.work.path("in")).expect("made");
    world.send(&["tree", "--to", "box"], b"").failed(2, &["tree is a directory", "-r"]);
    world.send(&["missing", "--to", "box"], b"").failed(1, &["missing cannot be read"]);
    let sent = world.send(&["a file ü.txt", "empty", "-r", "tree", "--to", "box", "--with-mtime"], b"").ok();
    let stored = events(&sent, "stored");
    assert_eq!(stored.len(), 5, "{}", sent.text());
    assert!(stored.iter().all(|line| line.get("index").is_none()), "it is a secret: {}", sent.text());
    assert_eq!(names(&world.work.path("alice/drops/incoming")), Vec::<String>::new());

    let received = world.receive(&["box", "-o", "in"]).ok();
    assert_eq!(events(&received, "received").len(), 5, "{}", received.text());
    assert_eq!(world.read("in/a file ü.txt"), b"hello");
    assert_eq!(world.read("in/empty"), b"");
    assert!(world.read("in/tree/one/deep.bin") == bytes(40_000, 1));
    assert_eq!(world.read("in/tree/two"), b"two");
    assert_eq!(names(&world.work.path("in/tree/nothing/here")), Vec::<String>::new());
    let modified = |name: &str| std::fs::metadata(world.work.path(name)).expect("there").modified().expect("a time");
    let apart = modified("tree/two").duration_since(modified("in/tree/two")).expect("not later");
    assert!(apart.as_secs() == 0, "whole seconds are kept");

    // Once is once, and nothing is overwritten.
    let again = world.receive(&["box", "-o", "in"]).ok();
    assert_eq!(events(&again, "received").len(), 0, "{}", again.text());
    world.write("a file ü.txt", b"other bytes");
    world.send(&["a file ü.txt", "--to", "box"], b"").ok();
    world.receive(&["box", "-d", "in"]).ok();
    assert_eq!(world.read("in/a file ü.txt"), b"hello");
    assert_eq!(world.read("in/a file ü~1.txt"), b"other bytes");
    let status = world.status("bob", "box");
    assert_eq!((&status["kind"], &status["files"]["complete"]), (&"drop".into(), &6.into()));
    let text = world.work.verb("bob", &["status", "box"]).ok().text();
    assert!(text.contains("6 complete"), "{text}");
    assert!(world.work.verb("alice", &["list"]).ok().text().contains("box/"));
}

#[test]
fn stdin_of_unknown_length_arrives_whole_or_stays_incomplete() {
    let world = World::new();
    world.drop("box");
    let data = bytes(1_200_000, 3);
    world.send(&["-", "--to", "box"], b"x").failed(2, &["--name"]);
    let sent = world.send(&["-", "--name", "stream.bin", "--to", "box"], &data).ok();
    assert_eq!(events(&sent, "stored").len(), 2, "{}", sent.text());
    world.send(&["-", "--name", "short", "--to", "box"], b"one box").ok();
    let received = world.receive(&["box", "-o", "-"]).ok();
    assert!(received.stdout == [&data[..], b"one box"].concat(), "{} bytes", received.stdout.len());

    // Cut off after its first part: no file comes of it, and that is said.
    let mut command = world.verb("alice", "send", &["-", "--json", "--name", "cut.bin", "--to", "box"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary");
    let mut child = Kill(child);
    let mut stdin = child.0.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, &bytes(1_100_000, 4)).expect("a pipe");
    let staged = world.work.path("alice/drops/incoming");
    eventually("the first part", || (!names(&staged).is_empty()).then_some(()));
    eventually("its acceptance", || {
        let out = child.0.stdout.as_mut().expect("piped");
        let mut line = [0; 4096];
        let count = std::io::Read::read(out, &mut line).expect("a pipe");
        String::from_utf8_lossy(&line[..count]).contains("accepted").then_some(())
    });
    child.0.kill().expect("our child");
    child.0.wait().expect("our child");
    drop(stdin);
    run(&mut world.verb("alice", "wait", &["box"]), b"").ok();
    eventually("the part that was sent", || {
        world.receive(&["box", "-o", ".", "--timeout", "4"]).failed(3, &["the time is up"]);
        let status = world.status("bob", "box");
        (status["files"]["open_chains"][0]["name"] == "cut.bin").then_some(())
    });
    assert!(!world.work.path("cut.bin").exists());
    assert!(world.work.verb("bob", &["status", "box"]).ok().text().contains("parts of it are missing"));
}

#[test]
fn either_verb_goes_on_where_it_was_killed() {
    let world = World::new();
    world.drop("box");
    let data = bytes(600_000, 5);
    world.write("big", &data);
    world.write("small", b"small");
    // Nothing comes back, so that nothing is stored before the verb is killed.
    world.network("loss=1");
    for signal in [Signal::INT, Signal::KILL] {
        let mut running = world.start("alice", "send", &["big", "small", "--to", "box"]);
        for file in ["big", "small"] {
            let told = running.tells();
            assert_eq!((&told["event"], &told["file"]), (&"accepted".into(), &file.into()), "{told}");
        }
        assert_eq!(running.signalled(signal), if signal == Signal::INT { Some(130) } else { None });
    }
    world.network("loss=0");
    // The same command again goes on with the same files, and sends nothing twice.
    let sent = world.send(&["big", "small", "--to", "box"], b"").ok();
    assert_eq!(events(&sent, "stored").len(), 2, "{}", sent.text());
    std::fs::create_dir(world.work.path("in")).expect("made");
    for signal in [Signal::INT, Signal::KILL] {
        let mut running = world.start("bob", "receive", &["box", "-o", "in"]);
        // Of the file that is arriving, or of one that has; nothing, where all had come before the last signal did.
        drop(running.lines.next());
        running.signalled(signal);
    }
    world.receive(&["box", "-o", "in"]).ok();
    assert!(world.read("in/big") == data);
    assert_eq!(world.read("in/small"), b"small");
    assert_eq!(names(&world.work.path("in")), ["big", "small"], "no part of a file is left");
    let status = world.status("bob", "box");
    assert_eq!(status["files"]["complete"], 2, "nothing was sent twice: {status}");
}

#[test]
fn capabilities_of_strangers_come_from_files_and_never_from_arguments() {
    let world = World::new();
    world.work.verb("alice", &["new", "--drop", "box"]).ok();
    let write_cap = world.work.verb("alice", &["share", "--write", "box"]).ok().text();
    let read_cap = world.work.verb("alice", &["share", "box"]).ok().text();
    world.write("write.cap", write_cap.as_bytes());
    world.write("read.cap", read_cap.as_bytes());
    world.write("a", b"from a stranger");
    let typed = world.send(&["-f", "a", "-w", write_cap.trim(), "--to", "x"], b"").failed(2, &["--write-cap-file"]);
    assert!(!typed.stderr.contains(write_cap.trim()), "it is not repeated");
    let typed = world.receive(&["x", "-r", read_cap.trim()]).failed(2, &["--read-cap-file"]);
    assert!(!typed.stderr.contains(read_cap.trim()), "it is not repeated");

    let mut command = world.verb(
        "carol",
        "send",
        &["--json", "-f", "a", "--no-copy", "--write-cap-file", "write.cap", "--zstd", "--show-index"],
    );
    let sent = run(command.current_dir(world.work.path("")), b"").ok();
    let index = events(&sent, "stored")[0]["index"].as_str().expect("an index").to_owned();
    std::fs::create_dir(world.work.path("in")).expect("made");
    let typed = world.receive(&["x", "--read-cap-file", "read.cap", "-i", &index]).failed(2, &["--index-file"]);
    assert!(!typed.stderr.contains(&index[..40]), "it is not repeated");
    let typed = world.send(&["a", "--write-cap-file", "write.cap", "-i", &index], b"").failed(2, &["--index-file"]);
    assert!(!typed.stderr.contains(&index[..40]), "it is not repeated");
    world.write("index", index.as_bytes());
    let receive = ["friend", "--read-cap-file", "read.cap", "--index-file", "index", "-o", "in"];
    world.receive(&receive).ok();
    assert_eq!(world.read("in/a"), b"from a stranger", "it is unpacked");
    world.receive(&receive).ok();
    assert_eq!(names(&world.work.path("in")), ["a"]);
    let mode = std::fs::metadata(world.work.path("in/a")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is private, and no program: {mode:o}");

    let stream =
        world.work.verb_with("bob", &["append", "log", "--no-wait", "--config", world.localnet.config()], b"x");
    stream.ok();
    world.receive(&["log", "-o", "in"]).failed(1, &["is a stream"]);
    let mut to_stream = world.verb("bob", "send", &["a", "--to", "log"]);
    run(to_stream.current_dir(world.work.path("")), b"").failed(1, &["is a stream"]);
    world.work.verb_with("alice", &["append", "box", "--no-wait"], b"x").failed(1, &["is a drop"]);
}

/// A name that a sender chose is a file of the person's only where nothing on the machine acts on it.
#[test]
fn what_a_stranger_sends_is_planted_nowhere() {
    let world = World::new();
    world.drop("box");
    for name in ["tree/.ssh/authorized_keys", "tree/.bash_profile", "tree/-rf", "tree/mine/evil", "tree/link/evil"] {
        world.write(name, name.as_bytes());
    }
    let mode = |name: &str| std::fs::metadata(world.work.path(name)).expect(name).permissions().mode() & 0o7777;
    for (name, mode) in [("tree/.bash_profile", 0o777), ("tree/-rf", 0o444), ("tree/mine/evil", 0o600)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.work.path(name), mode).expect("ours");
    }
    let entries: Vec<_> = names(&world.work.path("tree")).iter().map(|name| format!("./tree/{name}")).collect();
    let files: Vec<&str> = entries.iter().map(String::as_str).collect();
    world.send(&[&files[..], &["-r", "--with-mode", "--to", "box"]].concat(), b"").ok();

    // The person has a directory and a link of the names that the sender guessed.
    for directory in ["in/mine", "elsewhere"] {
        std::fs::create_dir_all(world.work.path(directory)).expect("made");
    }
    std::os::unix::fs::symlink(world.work.path("elsewhere"), world.work.path("in/link")).expect("made");
    let mut receive = Command::new("sh");
    receive.args(["-c", "umask 027; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_pigeonfs"), "receive", "box", "-o", "in"]);
    receive.args(["--config", world.localnet.config(), "--state"]).arg(world.work.path("bob"));
    run(receive.current_dir(world.work.path("")), b"").ok();
    let found = names(&world.work.path("in"));
    assert_eq!(found, ["_bash_profile", "_rf", "_ssh", "link", "link~1", "mine", "mine~1"]);
    assert_eq!(names(&world.work.path("in/mine")), Vec::<String>::new());
    assert_eq!(names(&world.work.path("elsewhere")), Vec::<String>::new());
    assert_eq!(world.read("in/_ssh/authorized_keys"), b"tree/.ssh/authorized_keys");
    assert_eq!((mode("in/_bash_profile"), mode("in/_rf"), mode("in/mine~1/evil")), (0o640, 0o440, 0o600));
    assert_eq!(mode("in/mine~1"), 0o700);

    // A later run enters what an earlier one made, and the person may say that all is to be as it was sent.
    let capability = world.work.verb("alice", &["share", "box"]).ok().stdout;
    world.work.verb_with("carol", &["add", "--drop", "box"], &capability).ok();
    let carol =
        |arguments: &[&str]| run(world.verb("carol", "receive", arguments).current_dir(world.work.path("")), b"");
    carol(&["box", "--dotfiles", "--keep-mode"]).ok();
    assert_eq!(names(&world.work.path("box")), [".bash_profile", ".ssh", "_rf", "link", "mine"]);
    assert_eq!((mode("box"), mode("box/.bash_profile"), mode("box/_rf")), (0o700, 0o777, 0o444));
    world.write("tree/mine/more", b"more");
    world.send(&["tree/mine", "-r", "--to", "box"], b"").ok();
    carol(&["box"]).ok();
    assert_eq!(names(&world.work.path("box/mine")), ["evil", "more"]);
    assert_eq!(names(&world.work.path("box")).len(), 5, "no second directory");
}

#[test]
fn files_go_only_where_they_are_wanted() {
    let world = World::new();
    world.drop("box");
    world.write("a", b"a");
    world.send(&["a", "--to", "box"], b"").ok();
    std::fs::create_dir(world.work.path("box")).expect("made");
    world.receive(&["box"]).failed(2, &["./box is there already", "-o DIR"]);
    std::fs::remove_dir(world.work.path("box")).expect("empty");
    std::os::unix::fs::symlink(world.work.path("bob"), world.work.path("box")).expect("made");
    world.receive(&["box"]).failed(2, &["./box is there already"]);
    std::fs::remove_file(world.work.path("box")).expect("ours");
    world.receive(&["box", "-o", "absent"]).failed(2, &["absent", "of your own that is there"]);
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir(world.work.path("foreign")).expect("made");
        std::os::unix::fs::chown(world.work.path("foreign"), Some(4242), None).expect("root");
        world.receive(&["box", "-o", "foreign"]).failed(2, &["it belongs to another user"]);
    }
    world.receive(&["box"]).ok();
    assert_eq!(names(&world.work.path("box")), ["a"]);
}

/// With `--zstd auto` a text travels compressed, and what would get no shorter goes as it is: what is compressed already, what
/// only begins like a text, and what fits into a box anyway.
#[test]
fn only_what_gets_shorter_is_compressed_where_that_is_left_to_us() {
    let world = World::new();
    world.drop("box");
    let text = b"one line of a log, and the next is like it\n".repeat(2000);
    let noise = bytes(100_000, 3);
    let files = [
        ("text", text.clone(), true),
        ("noise", noise.clone(), false),
        // 64 KiB are tried; the rest is what it costs.
        ("archive", [&vec![b' '; 1000][..], &noise].concat(), false),
        ("page", b"short words, short words, short words\n".repeat(30), false),
        ("empty", Vec::new(), false),
    ];
    for (name, content, _) in &files {
        world.write(name, content);
    }
    let paths: Vec<_> = files.iter().map(|(name, ..)| *name).collect();
    // A word behind the option is that; anything else is a file.
    let sent = world.send(&[&["--to", "box", "--zstd", "auto"][..], &paths].concat(), b"").ok();
    world.send(&["--to", "box", "--zstd", "page", "--name", "always"], b"").ok();
    world.send(&["page", "--to", "box", "--zstd=never", "--name", "never"], b"").ok();
    let boxes = |run: &Run| -> Vec<(String, u64)> {
        let told = |line: &Value| Some((line["file"].as_str()?.to_owned(), line["boxes"].as_u64()?));
        events(run, "stored").iter().map(|line| told(line).expect("a name and boxes")).collect()
    };
    let found = boxes(&sent);
    for (name, content, packed) in &files {
        let plain = content.len() as u64 / 1600;
        let (_, boxes) = found.iter().find(|(file, _)| file == name).expect("sent");
        assert_eq!(*boxes < plain, *packed, "{name}: {boxes} boxes, {} bytes", content.len());
    }
    world.send(&["--to", "box", "--zstd"], b"").failed(2, &["which files"]);
    world.send(&["-", "--name", "x", "--to", "box", "--zstd", "auto"], b"").failed(2, &["stdin"]);
    world.receive(&["box"]).ok();
    for (name, content, _) in &files {
        assert!(std::fs::read(world.work.path(&format!("box/{name}"))).expect("here") == *content, "{name}");
    }
}

/// A full disk made `receive` call a file broken, and count it as brought out: it never came again.
#[test]
fn what_could_not_be_written_comes_with_the_next_run() {
    if no_fuse() {
        return;
    }
    let world = World::new();
    world.drop("box");
    world.write("big", &bytes(300_000, 1));
    world.write("zeros", &vec![0; 3 << 20]);
    world.write("small", b"small");
    world.send(&["big", "--to", "box"], b"").ok();
    world.send(&["zeros", "--zstd", "--to", "box"], b"").ok();
    world.send(&["small", "--to", "box"], b"").ok();
    std::fs::create_dir(world.work.path("in")).expect("made");
    // The mount owns the state, so that the limit below hits only what is received.
    let config = ["--config", world.localnet.config()];
    let mount = world.work.mount("m", "bob", &[&config[..], &["--cache-limit", "2M"]].concat());
    let mut limited = Command::new("bash");
    limited.args([
        "-c",
        "trap '' XFSZ; ulimit -f 100; exec \"$@\"",
        "bash",
        env!("CARGO_BIN_EXE_pigeonfs"),
        "receive",
        "--json",
    ]);
    limited.args(["box", "-o", "in", "--state"]).arg(world.work.path("bob"));
    let failed = run(limited.current_dir(world.work.path("")), b"");
    let kept: Vec<_> = events(&failed, "kept").iter().map(|line| line["file"].clone()).collect();
    assert_eq!(kept, ["big", "zeros"], "{}", failed.text());
    assert!(events(&failed, "broken").is_empty(), "{}", failed.text());
    failed.failed(1, &["2 files could not be written here", "run the same command again"]);
    assert_eq!(names(&world.work.path("in")), ["small"], "nothing is left of the others");
    mount.signal(Signal::TERM);
    let mount = world.work.mount("m", "bob", &[&config[..], &["--cache-limit", "1G"]].concat());
    world.receive(&["box", "-o", "in"]).ok();
    assert!(world.read("in/big") == bytes(300_000, 1) && world.read("in/zeros") == vec![0; 3 << 20]);
    mount.signal(Signal::TERM);
}

/// Started with `>&-`, as some init scripts do, everything that was printed vanished and counted as printed.
#[test]
fn a_verb_that_prints_to_nowhere_fails_and_does_nothing() {
    let world = World::new();
    world.drop("box");
    world.write("a", b"the file");
    world.send(&["a", "--to", "box"], b"").ok();
    let closed = |state: &str, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_pigeonfs")]).args(arguments).arg("--state");
        run(command.arg(world.work.path(state)).current_dir(world.work.path("")), b"")
    };
    let config = world.localnet.config();
    for arguments in [
        &["receive", "box", "-o", "-", "--config", config][..],
        &["receive", "box", "--config", config],
        &["send", "a", "--to", "box", "--config", config],
        &["read", "box", "--config", config],
        &["list"],
        &["status"],
        &["share", "box"],
        &["trim", "box"],
        &["new", "more", "--json"],
        &["wait", "box", "--json"],
        &["localnet"],
        &["localnet", "ctl", "stats"],
        &["--help"],
        &["list", "--help"],
        &["--version"],
    ] {
        closed("bob", arguments).failed(1, &["standard output is closed"]);
    }
    assert!(!world.work.path("box").exists());
    closed("bob", &["new", "more"]).ok();
    let full = |arguments: &str| {
        let line = format!("{} {arguments} > /dev/full", env!("CARGO_BIN_EXE_pigeonfs"));
        run(Command::new("sh").args(["-c", &line]).current_dir(world.work.path("")), b"")
    };
    for arguments in
        ["--help", "list --state bob", "status --state bob", &format!("receive box -o - --state bob --config {config}")]
    {
        full(arguments).failed(1, &["standard output cannot be written to"]);
    }
    assert_eq!(world.receive(&["box", "-o", "-"]).ok().stdout, b"the file");
}

/// A link that is swapped in after `send -r` has looked showed the reader a file that was never meant for them.
#[test]
fn links_that_are_swapped_in_while_it_sends_are_not_followed() {
    let world = World::new();
    world.drop("box");
    world.write("secret/file", b"SECRET");
    for count in 0..20 {
        world.write(&format!("tree/{count:03}/file"), b"harmless");
        world.write(&format!("tree/{count:03}.txt"), b"harmless");
    }
    let (tree, secret) = (world.work.path("tree"), world.work.path("secret"));
    let links = world.work.path("links");
    std::fs::create_dir(&links).expect("made");
    std::os::unix::fs::symlink(&secret, links.join("directory")).expect("made");
    std::os::unix::fs::symlink(secret.join("file"), links.join("file")).expect("made");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            // Each pair is exchanged twice: a look may see either, and what it sees may be the other by now.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for count in 0..20 {
                    for (link, name) in [("directory", format!("{count:03}")), ("file", format!("{count:03}.txt"))] {
                        for _ in 0..2 {
                            let (link, name) = (links.join(link), tree.join(&name));
                            renameat_with(CWD, link, CWD, name, RenameFlags::EXCHANGE).expect("exchanged");
                        }
                    }
                }
            }
        });
        let mut sent = Vec::new();
        for _ in 0..8 {
            // Some runs meet a link where a file was, and say so.
            sent.push(world.send(&["-r", "tree", "--to", "box", "--no-wait"], b"").code);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sent
    });
    world.send(&["-r", "tree", "--to", "box"], b"").ok();
    let received = world.receive(&["box", "-o", "-", "--quiet"]);
    let text = String::from_utf8_lossy(&received.stdout).into_owned();
    assert!(text.contains("harmless"), "{sent:?}");
    assert!(!text.contains("SECRET"), "{sent:?}");
}

/// Upstream's tool takes any name without a slash; a stranger's file became a `.bash_profile` in the home directory.
#[test]
fn our_pigeonhole_cp_gives_a_file_a_harmless_name() {
    let world = World::new();
    let copy = |arguments: &[&str]| {
        let place = world.work.path("state");
        run(world.work.command().arg("cp-compat").args(arguments).env("XDG_STATE_HOME", place), b"")
    };
    let config = ["-c", world.localnet.config()];
    std::fs::create_dir(world.work.path("to")).expect("made");
    let to = world.work.path("to").to_str().expect("text").to_owned();
    for (name, harmless) in [(".bash_profile", "_bash_profile"), ("-rf", "_rf")] {
        world.write(name, b"text");
        let keys = copy(&[&["genkey"][..], &config].concat()).ok().text();
        let keys: Vec<&str> = keys.lines().filter(|line| line.len() > 100).collect();
        let [read, write, index] = keys[..] else { panic!("three keys: {keys:?}") };
        let file = world.work.path(name);
        let file = file.to_str().expect("text");
        copy(&[&["send", "-w", write, "-i", index, "-f", file, "--no-copy"][..], &config].concat()).ok();
        let told = copy(&[&["receive", "-r", read, "-i", index, "-d", &to][..], &config].concat()).ok().text();
        assert!(told.trim_end().ends_with(&format!("-> {to}/{harmless}")), "{told}");
        assert_eq!(world.read(&format!("to/{harmless}")), b"text");
    }
    assert_eq!(std::fs::read_dir(&to).expect("there").count(), 2);
    // What is kept of a transfer that is under way has the capability in it.
    if rustix::process::geteuid().is_root() {
        let kept = world.work.path("state/pigeonhole-cp");
        std::os::unix::fs::chown(&kept, Some(4242), None).expect("root");
        let keys = copy(&[&["genkey"][..], &config].concat()).ok().text();
        let keys: Vec<&str> = keys.lines().filter(|line| line.len() > 100).collect();
        let file = world.work.path("-rf");
        let send = ["send", "-w", keys[1], "-i", keys[2], "-f", file.to_str().expect("text")];
        for mode in [&["--no-copy"][..], &[]] {
            copy(&[&send[..], &config, mode].concat()).failed(1, &["belongs to user 4242"]);
        }
        assert_eq!(std::fs::read_dir(&kept).expect("there").count(), 0);
    }
}
