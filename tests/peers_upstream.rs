//! Upstream's own clients, unmodified, against our localnet. `scripts/test` installs them; a bare `cargo test` skips them.

mod common;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use common::{Work, bytes, run, skip};

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

fn copy(work: &Work, program: &OsString, config: &str, name: &str, data: &[u8]) {
    let source = work.path(name);
    std::fs::write(&source, data).expect("written");
    let arrived = work.path(&format!("{name}.arrived"));
    std::fs::create_dir(&arrived).expect("a directory");
    let keys = run(Command::new(program).args(["genkey", "-c", config]), b"").ok().text();
    let (read_cap, write_cap) = (value(&keys, "Read Capability"), value(&keys, "Write Capability"));
    let index = value(&keys, "First Index");
    let send = ["send", "-c", config, "-w", &write_cap, "-i", &index, "--no-copy", "-f"];
    run(Command::new(program).args(send).arg(&source), b"").ok();
    let receive = ["receive", "-c", config, "-r", &read_cap, "-i", &index, "-d"];
    run(Command::new(program).args(receive).arg(&arrived), b"").ok();
    let received = std::fs::read(arrived.join(Path::new(name))).expect("the file");
    assert!(received == data, "{} bytes were sent, {} other ones arrived", data.len(), received.len());

    // Its capability is one of ours: the stream holds its header and its bytes.
    work.verb_with("reader", &["add", name], read_cap.as_bytes()).ok();
    let stream = work.verb("reader", &["read", name, "--config", config]).ok().stdout;
    assert!(stream.ends_with(data) && stream.len() < data.len() + 300, "{} bytes in the stream", stream.len());
}

#[test]
fn pigeonhole_cp_sends_and_receives_files() {
    let Some(program) = peer("PIGEONFS_TEST_PIGEONHOLE_CP") else { return };
    let work = Work::new();
    let network = work.localnet("net");
    copy(&work, &program, network.tcp_config(), "over-tcp", &bytes(20_000, 1));
    copy(&work, &program, network.config(), "over-unix", &bytes(1549, 2));
    copy(&work, &program, network.config(), "empty", b"");
}

#[test]
fn the_python_client_makes_keys_writes_reads_and_steps_indices() {
    let Some(python) = peer("PIGEONFS_TEST_PYTHON") else { return };
    let work = Work::new();
    let network = work.localnet("net");
    for config in [network.tcp_config(), network.config()] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/roundtrip.py");
        let ran = run(Command::new(&python).arg(script).arg(config), b"").ok();
        assert!(ran.text().contains("two boxes written and read"), "{}", ran.stderr);
    }
}
