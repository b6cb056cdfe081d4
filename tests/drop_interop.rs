//! Files between upstream's pigeonhole-cp, unmodified, and ours. `scripts/test` installs it; a bare `cargo test` skips these.

mod common;

use std::ffi::OsString;
use std::process::Command;

use common::{Localnet, Run, Work, bytes, run, skip};
use serde_json::Value;

struct World {
    work: Work,
    localnet: Localnet,
    program: OsString,
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

    /// They send, we receive.
    fn inward(&self, tag: &str, name: &str, data: &[u8], by_boxes: bool) {
        let keys = self.theirs("genkey", &[]).text();
        let value = |head: &str| {
            let mut lines = keys.lines().skip_while(|line| !line.starts_with(head));
            lines.nth(1).unwrap_or_else(|| panic!("no {head:?} in {keys:?}")).to_owned()
        };
        let (read_cap, write_cap) = (value("Read Capability"), value("Write Capability"));
        let index = value("First Index");
        self.directory(&format!("{tag}.from"));
        let file = self.write(&format!("{tag}.from/{name}"), data);
        let mut arguments = vec!["-w", &write_cap, "-i", &index, "-f", &file];
        arguments.extend(by_boxes.then_some("--no-copy"));
        self.theirs("send", &arguments);
        let cap = self.write(&format!("{tag}.cap"), read_cap.as_bytes());
        let to = self.directory(&format!("{tag}.in"));
        let received = self.ours(tag, &["receive", "x", "--read-cap-file", &cap, "-i", &index, "-o", &to]).ok();
        let arrived = std::fs::read(self.work.path(&format!("{tag}.in/{name}"))).expect("the file");
        assert!(arrived == data, "{tag}: {} bytes, {}", arrived.len(), received.text());
    }
}

#[test]
fn what_pigeonhole_cp_sends_is_received() {
    let Some(world) = World::new() else { return };
    // It sleeps two seconds whenever it starts: side by side they sleep together.
    std::thread::scope(|scope| {
        let world = &world;
        // A header is 22 bytes and the name: `one box` fills a box by itself, and `even` ends with one.
        for (tag, name, size) in [
            ("empty", "nothing", 0),
            ("one", "a b.txt", 1549 - 24),
            ("even", "ü ö", 3 * 1549 - 22),
            ("big", "big", 200_000),
        ] {
            for by_boxes in [true, false] {
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
        ("third", bytes(1549 * 2 - 93, 3)),
        ("a hundred boxes.bin", bytes(150_000, 4)),
    ];
    let mut arguments = vec!["send", "--to", "box"];
    for (name, data) in &files {
        world.write(name, data);
        arguments.push(name);
    }
    for alone in [false, true] {
        let state = if alone { "alone" } else { "plain" };
        let allow: &[&str] = if alone { &["--allow-delete"] } else { &[] };
        world.work.verb(state, &[&["new", "--drop", "box"], allow].concat()).ok();
        let sent = world.ours(state, &arguments).ok().text();
        let read_cap = world.work.verb(state, &["share", "box"]).ok().text();
        let stored: Vec<Value> = sent.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let stored: Vec<_> = stored.iter().filter(|line| line["event"] == "stored").collect();
        assert_eq!(stored.len(), files.len(), "{sent}");
        std::thread::scope(|scope| {
            for (line, (name, data)) in stored.iter().zip(&files) {
                let (world, read_cap) = (&world, read_cap.trim());
                scope.spawn(move || {
                    let to = world.directory(&format!("{state}-{name}"));
                    let index = line["index"].as_str().expect("an index");
                    world.theirs("receive", &["-r", read_cap, "-i", index, "-d", &to]);
                    let arrived = std::fs::read(std::path::Path::new(&to).join(name)).expect("the file");
                    assert!(arrived == *data, "{name}: {} bytes", arrived.len());
                });
            }
        });
    }
}
