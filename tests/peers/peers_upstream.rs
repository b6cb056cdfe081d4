//! Upstream's own clients, unmodified, against our localnet. `scripts/test` installs them; a bare `cargo test` skips them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Kill, Localnet, Work, bytes, run, skip};

fn peer(variable: &str) -> Option<OsString> {
    let peer = std::env::var_os(variable);
    if peer.is_none() {
        skip(&format!("${variable} is not set; scripts/test sets it"));
    }
    peer
}

/// The line after the one that starts so.
fn value(text: &str, head: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(head));
    lines.nth(1).unwrap_or_else(|| panic!("no {head:?} in {text:?}")).to_owned()
}

/// A localnet that listens on all transports that upstream's clients have, with a configuration for each.
struct Transports {
    work: Work,
    localnet: Localnet,
    abstract_config: PathBuf,
}

impl Transports {
    fn new() -> Self {
        let work = Work::new();
        let unique = work.path("").file_name().expect("a name").to_string_lossy().replace('.', "");
        let name = format!("@pigeonfs-peers-{unique}");
        let localnet = work.localnet_at("net", &[&name]);
        let abstract_config = work.path("abstract.toml");
        std::fs::write(&abstract_config, format!("[Dial.Unix]\nAddress = \"{name}\"\n")).expect("written");
        Self { work, localnet, abstract_config }
    }

    fn configs(&self) -> [(&'static str, &str); 3] {
        let by_name = self.abstract_config.to_str().expect("text");
        [("tcp", self.localnet.tcp_config()), ("unix", self.localnet.config()), ("abstract", by_name)]
    }

    /// What the programs that call the whole API take: CONFIG PIGEONFS DIRECTORY.
    fn arguments(&self, config: &str) -> [OsString; 3] {
        [config.into(), env!("CARGO_BIN_EXE_pigeonfs").into(), self.work.path("net").into()]
    }

    fn ctl(&self, words: &[&str]) {
        run(self.work.command().args(["localnet", "ctl", "--state"]).arg(self.work.path("net")).args(words), b"").ok();
    }
}

/// Sends a file by a copy command, as it does unless told otherwise, or box by box, and receives it.
fn copy(work: &Work, program: &OsString, config: &str, name: &str, data: &[u8], by_boxes: bool) {
    let source = work.path(name);
    std::fs::write(&source, data).expect("written");
    let arrived = work.path(&format!("{name}.arrived"));
    std::fs::create_dir(&arrived).expect("a directory");
    let keys = run(Command::new(program).args(["genkey", "-c", config]), b"").ok().text();
    let (read_cap, write_cap) = (value(&keys, "Read Capability"), value(&keys, "Write Capability"));
    let index = value(&keys, "First Index");
    let send = ["send", "-c", config, "-w", &write_cap, "-i", &index, "-f"];
    let no_copy = by_boxes.then_some("--no-copy");
    run(Command::new(program).args(send).arg(&source).args(no_copy), b"").ok();
    let receive = ["receive", "-c", config, "-r", &read_cap, "-i", &index, "-d"];
    run(Command::new(program).args(receive).arg(&arrived), b"").ok();
    let received = std::fs::read(arrived.join(Path::new(name))).expect("the file");
    assert!(received == data, "{} bytes were sent, {} other ones arrived", data.len(), received.len());

    // Its capability is one of ours: what it holds comes out as a file.
    let state = format!("{name}.state");
    work.verb_with(&state, &["add", "--drop", name], read_cap.as_bytes()).ok();
    let file = work.verb(&state, &["receive", name, "-o", "-", "--config", config]).ok().stdout;
    assert!(file == data, "{} bytes were sent, {} other ones came out", data.len(), file.len());
}

#[test]
fn pigeonhole_cp_sends_and_receives_files() {
    let Some(program) = peer("PIGEONFS_TEST_PIGEONHOLE_CP") else { return };
    let network = Transports::new();
    let [tcp, unix, by_name] = network.configs().map(|(_, config)| config);
    let (large, small) = (bytes(20_000, 1), bytes(1549, 2));
    // It sleeps two seconds whenever it starts: side by side they sleep together.
    std::thread::scope(|scope| {
        let copy = |config, name, data, by_boxes| {
            let (work, program) = (&network.work, &program);
            scope.spawn(move || copy(work, program, config, name, data, by_boxes));
        };
        copy(tcp, "tcp-boxes", &large, true);
        copy(tcp, "tcp-copied", &large, false);
        copy(unix, "unix-boxes", &small, true);
        copy(unix, "unix-copied", &small, false);
        copy(by_name, "abstract-boxes", b"", true);
        copy(by_name, "abstract-copied", &small, false);
    });
}

/// Upstream's client invites, and accepts: what it gives is a bare capability, as it knows nothing of ours.
#[test]
fn the_python_client_is_the_other_side_of_a_first_contact() {
    let Some(python) = peer("PIGEONFS_TEST_PYTHON") else { return };
    let network = Transports::new();
    let (work, config) = (&network.work, network.localnet.config());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/contact.py");
    let start = |role: &str| {
        let mut command = Command::new(&python);
        command.arg(script).args([network.localnet.tcp_config(), role]);
        Kill(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python"))
    };
    let verb =
        |words: &[&str], stdin: &[u8]| work.verb_with("ours", &[words, &["--config", config]].concat(), stdin).ok();

    let mut theirs = start("join");
    let mut said = BufReader::new(theirs.0.stdout.take().expect("piped"));
    let mut code = String::new();
    said.read_line(&mut code).expect("a code");
    verb(&["accept", "--as", "upstream", "--give", "mine"], code.as_bytes());
    verb(&["append", "mine"], b"greetings from us");
    verb(&["wait", "upstream", "--bytes", "23"], b"");
    assert_eq!(verb(&["read", "upstream"], b"").stdout, b"greetings from upstream");
    let mut line = String::new();
    said.read_line(&mut line).expect("a greeting");
    assert_eq!(line, "greetings from us\n");

    let mut theirs = start("induct");
    work.verb_with("ours", &["append", "--no-wait", "for-them"], b"greetings from us").ok();
    let code = verb(&["invite", "for-them", "--name", "Us", "--as", "them", "--no-wait"], b"").stdout;
    theirs.0.stdin.take().expect("piped").write_all(&code).expect("a pipe");
    verb(&["invite", "--again", "for-them"], b"");
    verb(&["wait", "for-them"], b"");
    let mut line = String::new();
    BufReader::new(theirs.0.stdout.take().expect("piped")).read_line(&mut line).expect("a greeting");
    assert_eq!(line, "Us greetings from us\n");
    verb(&["wait", "them", "--bytes", "23"], b"");
    assert_eq!(verb(&["read", "them"], b"").stdout, b"greetings from upstream");
}

#[test]
fn the_python_client_can_use_its_whole_api() {
    let Some(python) = peer("PIGEONFS_TEST_PYTHON") else { return };
    let network = Transports::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/whole_api.py");
    for (transport, config) in network.configs() {
        let ran = run(Command::new(&python).arg(script).args(network.arguments(config)), b"");
        assert!(ran.code == Some(0), "{transport}: {}{}", ran.text(), ran.stderr);
        assert!(ran.text().ends_with("whole API exercised\n"), "{transport}: {}", ran.text());
    }
}

#[test]
fn the_rust_client_can_use_its_whole_api() {
    let Some(program) = peer("PIGEONFS_TEST_RUST_PEER") else { return };
    let network = Transports::new();
    for (transport, config) in network.configs() {
        let database = network.work.path(&format!("{transport}.sqlite"));
        let ran = run(Command::new(&program).args(network.arguments(config)).arg(database), b"");
        assert!(ran.code == Some(0), "{transport}: {}{}", ran.text(), ran.stderr);
        assert!(ran.text().ends_with("whole API exercised\n"), "{transport}: {}", ran.text());
    }
}

/// Documents and statuses may come between any two frames of a handshake. The clients give up after sixteen others.
#[test]
fn events_between_the_frames_of_a_handshake_break_no_client() {
    let (Some(python), Some(program)) = (peer("PIGEONFS_TEST_PYTHON"), peer("PIGEONFS_TEST_PIGEONHOLE_CP")) else {
        return;
    };
    let network = Transports::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/handshakes.py");
    std::thread::scope(|scope| {
        let connect = |command: &mut Command| {
            let ran = run(command, b"");
            assert!(ran.code == Some(0), "{}{}", ran.text(), ran.stderr);
        };
        let configs = network.configs().map(|(_, config)| config);
        let peers = [
            scope.spawn(move || connect(Command::new(&python).arg(script).args(configs))),
            scope.spawn(move || connect(Command::new(&program).args(["genkey", "-c", configs[0]]))),
        ];
        while peers.iter().any(|peer| !peer.is_finished()) {
            network.ctl(&["epoch"]);
            network.ctl(&["link", "down"]);
            network.ctl(&["epoch"]);
            network.ctl(&["link", "up"]);
        }
    });
}
