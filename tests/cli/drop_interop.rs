//! Files between upstream's pigeonhole-cp, unmodified, and ours: our verbs, and our mount. `scripts/test` installs it; a bare
//! `cargo test` skips these.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::common::{Localnet, Mount, Run, Work, bytes, eventually, no_fuse, run, skip};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pigeonfs::bacap::{BoxIndex, ReadCap};
use pigeonfs::drop::Header;
use serde_json::Value;

/// The longest plaintext of a box.
const BOX_BYTES: usize = 1549;

struct World {
    work: Work,
    localnet: Localnet,
    program: OsString,
}

/// A channel that their `genkey` made.
struct Keys {
    read_cap: String,
    write_cap: String,
    index: String,
}

impl Keys {
    /// Of what `genkey` prints.
    fn of(printed: &str) -> Self {
        let value = |head: &str| {
            let mut lines = printed.lines().skip_while(|line| !line.starts_with(head));
            lines.nth(1).unwrap_or_else(|| panic!("no {head:?} in {printed:?}")).to_owned()
        };
        let (read_cap, write_cap) = (value("Read Capability"), value("Write Capability"));
        Self { read_cap, write_cap, index: value("First Index") }
    }
}

impl World {
    fn new() -> Option<Self> {
        let Some(program) = std::env::var_os("PIGEONFS_TEST_PIGEONHOLE_CP") else {
            skip("$PIGEONFS_TEST_PIGEONHOLE_CP is not set; scripts/test sets it");
            return None;
        };
        let work = Work::new();
        let localnet = work.localnet("net");
        Some(Self { work, localnet, program })
    }

    fn theirs(&self, verb: &str, arguments: &[&str]) -> Run {
        let config = self.localnet.tcp_config();
        run(Command::new(&self.program).args([verb, "-c", config]).args(arguments), b"").ok()
    }

    fn ours(&self, state: &str, arguments: &[&str]) -> Run {
        let mut command = self.work.command();
        command.args(arguments).args(["--config", self.localnet.config(), "--state"]).arg(self.work.path(state));
        run(command.current_dir(self.work.path("")), b"")
    }

    fn directory(&self, name: &str) -> String {
        let path = self.work.path(name);
        std::fs::create_dir_all(&path).expect("made");
        path.to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, data: &[u8]) -> String {
        let path = self.work.path(name);
        std::fs::write(&path, data).expect("written");
        path.to_str().expect("text").to_owned()
    }

    fn keys(&self) -> Keys {
        Keys::of(&self.theirs("genkey", &[]).text())
    }

    /// They send a file from an index on, box by box or by a courier's copy command. What they say of it.
    fn they_send(&self, keys: &Keys, index: &str, file: &str, by_boxes: bool) -> String {
        let mut arguments = vec!["-w", &keys.write_cap, "-i", index, "-f", file];
        arguments.extend(by_boxes.then_some("--no-copy"));
        let sent = self.theirs("send", &arguments);
        sent.text() + &sent.stderr
    }

    /// They receive what begins at an index, into a directory of its own.
    fn they_receive(&self, read_cap: &str, index: &str, directory: &str, name: &str) -> Vec<u8> {
        let to = self.directory(directory);
        self.theirs("receive", &["-r", read_cap, "-i", index, "-d", &to]);
        let path = Path::new(&to).join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// They send, we receive.
    fn inward(&self, tag: &str, name: &str, data: &[u8], by_boxes: bool) {
        let keys = self.keys();
        self.directory(&format!("{tag}.from"));
        let file = self.write(&format!("{tag}.from/{name}"), data);
        self.they_send(&keys, &keys.index, &file, by_boxes);
        let cap = self.write(&format!("{tag}.cap"), keys.read_cap.as_bytes());
        let index = self.write(&format!("{tag}.index"), keys.index.as_bytes());
        let to = self.directory(&format!("{tag}.in"));
        let received =
            self.ours(tag, &["receive", "x", "--read-cap-file", &cap, "--index-file", &index, "-o", &to]).ok();
        let arrived = std::fs::read(self.work.path(&format!("{tag}.in/{name}"))).expect("the file");
        assert!(arrived == data, "{tag}: {} bytes, {}", arrived.len(), received.text());
    }

    /// A drop that we read, in a state that a mount may own.
    fn add(&self, state: &str, name: &str, keys: &Keys) {
        self.work.verb_with(state, &["add", "--drop", name], keys.read_cap.as_bytes()).ok();
    }

    fn mount(&self, name: &str, state: &str) -> Option<Mount> {
        let arguments = ["--config", self.localnet.config(), "--settle-ms", "200"];
        (!no_fuse()).then(|| self.work.mount(name, state, &arguments))
    }
}

/// Until a file is there; then it is whole.
fn arrives(path: &Path, data: &[u8]) {
    let arrived = eventually(&format!("{} arrives", path.display()), || std::fs::read(path).ok());
    assert!(arrived == data, "{}: {} bytes", path.display(), arrived.len());
}

/// What they send: tags, names and sizes, among them one that fills a box and one that ends with a box.
fn cases(by_boxes: bool) -> [(&'static str, &'static str, usize); 4] {
    // A copy command takes four bytes of each box.
    let full = if by_boxes { BOX_BYTES } else { BOX_BYTES - 4 };
    [
        ("empty", "nothing at all", 0),
        ("one", "a b.txt", full - their_head("a b.txt")),
        ("even", "ü ö", 3 * full - their_head("ü ö")),
        ("big", "日本語.bin", 100_000),
    ]
}

/// The length of their header of a file of 256 to 65,535 bytes.
fn their_head(name: &str) -> usize {
    15 + name.len()
}

/// An index so many boxes further on.
fn further(index: &BoxIndex, boxes: u64) -> BoxIndex {
    index.advance_to(index.counter() + boxes).expect("an index")
}

#[test]
fn what_pigeonhole_cp_sends_is_received() {
    let Some(world) = World::new() else { return };
    // It sleeps two seconds whenever it starts: side by side they sleep together.
    std::thread::scope(|scope| {
        let world = &world;
        for by_boxes in [true, false] {
            for (tag, name, size) in cases(by_boxes) {
                let tag = format!("{tag}-{by_boxes}");
                scope.spawn(move || world.inward(&tag, name, &bytes(size, 1), by_boxes));
            }
        }
    });
}

#[test]
fn what_we_send_pigeonhole_cp_receives_each_by_its_index() {
    let Some(world) = World::new() else { return };
    let files = [
        ("first file.txt", bytes(1000, 1)),
        ("größe null", Vec::new()),
        ("third", bytes(BOX_BYTES * 2 - 93, 3)),
        ("a hundred boxes.bin", bytes(150_000, 4)),
    ];
    let mut arguments = vec!["send", "--json", "--show-index", "--to", "box"];
    for (name, data) in &files {
        world.write(name, data);
        arguments.push(name);
    }
    for alone in [false, true] {
        let state = if alone { "alone" } else { "plain" };
        let allow: &[&str] = if alone { &["--allow-delete"] } else { &[] };
        world.work.verb(state, &[&["new", "--drop", "box"], allow].concat()).ok();
        let sent = world.ours(state, &arguments).ok().text();
        let read_cap = world.work.verb(state, &["share", "--raw", "box"]).ok().text();
        let stored: Vec<Value> = sent.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let stored: Vec<_> = stored.iter().filter(|line| line["event"] == "stored").collect();
        assert_eq!(stored.len(), files.len(), "{sent}");
        std::thread::scope(|scope| {
            for (line, (name, data)) in stored.iter().zip(&files) {
                let (world, read_cap) = (&world, read_cap.trim());
                scope.spawn(move || {
                    let index = line["index"].as_str().expect("an index");
                    let arrived = world.they_receive(read_cap, index, &format!("{state}-{name}"), name);
                    assert!(arrived == *data, "{name}: {} bytes", arrived.len());
                });
            }
        });
    }
}

#[test]
fn what_pigeonhole_cp_sends_appears_in_a_mount() {
    let Some(world) = World::new() else { return };
    let Some(mount) = world.mount("mnt", "reader") else { return };
    std::thread::scope(|scope| {
        let (world, mount) = (&world, &mount);
        for by_boxes in [true, false] {
            for (tag, name, size) in cases(by_boxes) {
                scope.spawn(move || {
                    let (drop, data) = (format!("{tag}-{by_boxes}"), bytes(size, 1));
                    let keys = world.keys();
                    world.directory(&drop);
                    let file = world.write(&format!("{drop}/{name}"), &data);
                    // Some are read from before anything was written, and some are joined late.
                    if by_boxes {
                        world.add("reader", &drop, &keys);
                    }
                    world.they_send(&keys, &keys.index, &file, by_boxes);
                    if !by_boxes {
                        world.add("reader", &drop, &keys);
                    }
                    arrives(&mount.file(&drop).join(name), &data);
                });
            }
        }
        // Their records tell nothing but a name and a size: each is found where the one before it ended.
        scope.spawn(move || {
            let keys = world.keys();
            world.add("reader", "row", &keys);
            let read_cap = ReadCap::from_base64(&keys.read_cap).expect("a capability");
            let mut index = read_cap.index().clone();
            let files = [("first", 3 * BOX_BYTES - their_head("first")), ("second one", 0), ("third ß", 20_000)];
            for (seed, (name, size)) in (7..).zip(files) {
                let file = world.write(name, &bytes(size, seed));
                let told = world.they_send(&keys, &STANDARD.encode(index.as_bytes()), &file, true);
                let boxes = told.split(" in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
                let boxes = boxes.unwrap_or_else(|| panic!("no number of boxes in {told:?}"));
                assert!(name != "first" || boxes == 3, "it fills its boxes: {told:?}");
                index = further(&index, boxes);
            }
            for (seed, (name, size)) in (7..).zip(files) {
                arrives(&mount.file("row").join(name), &bytes(size, seed));
            }
        });
    });
    for drop in std::fs::read_dir(&mount.path).expect("a directory") {
        let path = drop.expect("a drop").path();
        let count = std::fs::read_dir(&path).expect("a directory").count();
        assert_eq!(count, if path.ends_with("row") { 3 } else { 1 }, "{}", path.display());
    }
}

#[test]
fn what_is_copied_into_a_mount_pigeonhole_cp_receives() {
    let Some(world) = World::new() else { return };
    // Ends with its second box, header and all.
    let even = Header {
        name: "third".to_owned(),
        size: 3000,
        digest: Some([0; 32]),
        sync: Some([0; 16]),
        ..Header::default()
    };
    let even = 2 * BOX_BYTES - even.encode(BOX_BYTES).expect("a header").len();
    let files = [
        ("first file.txt", bytes(1000, 1)),
        ("größe null", Vec::new()),
        ("third", bytes(even, 3)),
        ("ein Bild.bin", bytes(30_000, 4)),
    ];
    world.work.verb("writer", &["new", "--drop", "plain"]).ok();
    // Headers have boxes of their own here.
    world.work.verb("writer", &["new", "--drop", "alone", "--allow-delete"]).ok();
    let Some(mount) = world.mount("mnt", "writer") else { return };
    world.directory("from");
    std::thread::scope(|scope| {
        for drop in ["plain", "alone"] {
            let read_cap = world.work.verb("writer", &["share", "--raw", drop]).ok().text().trim().to_owned();
            let first = ReadCap::from_base64(&read_cap).expect("a capability").index().clone();
            let mut begins = vec![0];
            for (name, data) in &files {
                let file = world.write(&format!("from/{name}"), data);
                run(Command::new("cp").arg(file).arg(mount.file(drop).join(name)), b"").ok();
                // It is all at the replicas: what comes next begins in the next box.
                std::fs::read(mount.file(&format!(".pigeonfs/{drop}/wait"))).expect("all is stored");
                let status = world.work.verb("writer", &["status", "--json", drop]).ok().stdout;
                let status: Value = serde_json::from_slice(&status).expect("JSON");
                begins.push(status["boxes"].as_u64().expect("a number"));
            }
            assert_eq!(begins[3] - begins[2], if drop == "plain" { 2 } else { 3 }, "the third file fills its boxes");
            for (begin, (name, data)) in begins.into_iter().zip(&files) {
                let (world, read_cap, index) = (&world, read_cap.clone(), further(&first, begin));
                scope.spawn(move || {
                    let index = STANDARD.encode(index.as_bytes());
                    let arrived = world.they_receive(&read_cap, &index, &format!("{drop}-{name}"), name);
                    assert!(arrived == *data, "{drop}/{name}: {} bytes", arrived.len());
                });
            }
        }
    });
}

/// Our program under upstream's name.
struct CopyTool<'a> {
    world: &'a World,
    link: std::path::PathBuf,
}

impl<'a> CopyTool<'a> {
    fn new(world: &'a World) -> Self {
        let link = world.work.path("pigeonhole-cp");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pigeonfs"), &link).expect("a link");
        Self { world, link }
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.link);
        command.args([verb, "-c", self.world.localnet.tcp_config()]).args(arguments);
        command.env("HOME", self.world.work.path("")).env_remove("XDG_STATE_HOME").env_remove("PIGEONFS_LOG");
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Run {
        run(&mut self.command(verb, arguments), b"")
    }

    fn keys(&self) -> Keys {
        Keys::of(&self.run("genkey", &[]).ok().text())
    }

    /// What is kept of transfers that are under way.
    fn kept(&self) -> usize {
        let place = self.world.work.path(".local/state/pigeonhole-cp");
        std::fs::read_dir(place).map_or(0, Iterator::count)
    }
}

/// Both tools send what the other receives, box by box and by copy, and print the same lines.
#[test]
fn our_pigeonhole_cp_stands_in_for_theirs_in_both_directions() {
    let Some(world) = World::new() else { return };
    let ours = CopyTool::new(&world);
    for (at, by_boxes) in [true, false].into_iter().enumerate() {
        let data = bytes(10_000, at as u64 + 1);
        let file = world.write(&format!("sent-{at}"), &data);
        let keys = ours.keys();
        let mut arguments = vec!["-w", &keys.write_cap, "-i", &keys.index, "-f", &file];
        arguments.extend(by_boxes.then_some("--no-copy"));
        let sent = ours.run("send", &arguments).ok();
        let mode = if by_boxes { "direct" } else { "copy" };
        let line = sent.text();
        assert!(line.starts_with("sent 10000 bytes in "), "{line}");
        assert!(line.contains(&format!(" box(es) ({mode}) in ")) && line.trim_end().ends_with("KiB/s"), "{line}");
        let theirs = world.they_receive(&keys.read_cap, &keys.index, &format!("theirs-{at}"), &format!("sent-{at}"));
        assert!(theirs == data, "{mode}: they received {} bytes", theirs.len());

        let keys = world.keys();
        world.they_send(&keys, &keys.index, &file, by_boxes);
        let to = world.directory(&format!("ours-{at}"));
        let arguments = ["-r", &keys.read_cap, "-i", &keys.index, "-d", &to];
        let received = ours.run("receive", &arguments).ok().text();
        assert!(received.starts_with("received 10000 bytes in "), "{received}");
        assert!(received.trim_end().ends_with(&format!("-> {to}/sent-{at}")), "{received}");
        assert!(std::fs::read(format!("{to}/sent-{at}")).expect("the file") == data);
        // Never over a file that is there.
        ours.run("receive", &arguments).failed(1, &["cannot be written"]);
    }
    assert_eq!(ours.kept(), 2, "only the two transfers that failed are kept");
}

/// The capability is in the arguments of a process for no longer than that needs to replace itself; what was cut off goes on
/// and is not sent twice.
#[test]
fn our_pigeonhole_cp_hides_the_capability_and_goes_on_after_a_kill() {
    let Some(world) = World::new() else { return };
    let ours = CopyTool::new(&world);
    let keys = ours.keys();
    let to = world.directory("to");
    let receive = ["-r", &keys.read_cap, "-i", &keys.index, "-d", &to];
    let waiting = crate::common::Kill(ours.command("receive", &receive).spawn().expect("started"));
    let arguments = eventually("the arguments are taken away", || {
        let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", waiting.0.id())).expect("it runs");
        (!arguments.contains(&keys.read_cap)).then_some(arguments)
    });
    assert!(!arguments.contains(&keys.index), "{arguments}");
    eventually("the transfer is kept", || (ours.kept() == 1).then_some(()));
    drop(waiting);

    let data = bytes(30_000, 9);
    let file = world.write("cut", &data);
    let send = ["-w", &keys.write_cap, "-i", &keys.index, "-f", &file, "--no-copy"];
    let cut = crate::common::Kill(ours.command("send", &send).spawn().expect("started"));
    eventually("both are kept", || (ours.kept() == 2).then_some(()));
    drop(cut);
    ours.run("send", &send).ok();
    let received = ours.run("receive", &receive).ok();
    assert!(received.stderr.contains("warning: every user of this machine"), "{}", received.stderr);
    assert!(std::fs::read(format!("{to}/cut")).expect("the file") == data);
    assert_eq!(ours.kept(), 0);
}

/// What cannot be is refused as upstream's tool refuses it, and nothing secret comes back.
#[test]
fn our_pigeonhole_cp_refuses_with_upstreams_exit_codes() {
    let Some(world) = World::new() else { return };
    let ours = CopyTool::new(&world);
    let keys = ours.keys();
    let file = world.write("small", b"text");
    let to = world.directory("to");
    for (verb, arguments, code, told) in [
        ("send", vec!["-w", &keys.read_cap, "-i", &keys.index, "-f", &file], 1, "not a write capability"),
        ("send", vec!["-w", &keys.write_cap, "-i", "AAAA", "-f", &file], 1, "not a box index"),
        ("send", vec!["-w", &keys.write_cap, "-i", &keys.index, "-f", &to], 1, "must be a regular file"),
        ("receive", vec!["-r", &keys.read_cap, "-i", &keys.index, "-d", "/nowhere/at/all"], 1, "not a directory"),
        ("receive", vec!["-r", &keys.read_cap, "-d", &to], 2, "--index"),
    ] {
        let refused = ours.run(verb, &arguments).failed(code, &[told]);
        assert!(!refused.stderr.contains(&keys.read_cap), "{}", refused.stderr);
    }
}
