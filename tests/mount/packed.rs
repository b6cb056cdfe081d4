//! Compressed files in drops: they are unpacked as they are read, and take no room while they are.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Kill, Work, bytes, eventually, no_fuse, run};
use rustix::process::{Pid, Signal, kill_process};

/// A file of zeros took all of its channel's cache when somebody looked at its first line, and nothing more was fetched.
#[test]
fn looking_at_a_compressed_file_takes_no_room_and_holds_nothing_up() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let config = ["--config", network.config()];
    let writer = work.mount("w", "ws", &config);
    let limits = ["--cache-channel-limit", "300000", "--cache-limit", "400000"];
    let reader = work.mount("r", "rs", &[&config[..], &limits].concat());
    fs::create_dir(writer.file("box")).expect("a drop");
    let capability = work.verb("ws", &["share", "box"]).ok().stdout;
    work.verb_with("rs", &["add", "--drop", "box"], &capability).ok();

    // Zeros but for the ends, and a long one.
    let mut whole = bytes(1000, 1);
    whole.resize(20 << 20, 0);
    whole.extend(bytes(1000, 2));
    fs::write(work.path("zeros"), &whole).expect("written");
    let endless = fs::File::create(work.path("endless")).expect("made");
    endless.set_len(150 << 20).expect("a hole");
    for name in ["zeros", "endless"] {
        let path = work.path(name);
        work.verb("ws", &["send", "--zstd", path.to_str().expect("text"), "--to", "box"]).ok();
    }
    let zeros = reader.file("box/zeros");
    eventually("both arrive", || (zeros.exists() && reader.file("box/endless").exists()).then_some(()));
    assert_eq!(fs::metadata(&zeros).expect("there").len(), whole.len() as u64);

    // Somebody is at work on a long one meanwhile, and can be stopped in the middle.
    let tail = Command::new("tail").args(["-c", "10"]).arg(reader.file("box/endless")).stdout(Stdio::null()).spawn();
    let mut tail = Kill(tail.expect("tail"));

    let script = r#"
        head -c 1000 r/box/zeros | cmp - <(head -c 1000 zeros)
        tail -c 1000 r/box/zeros | cmp - <(tail -c 1000 zeros)
        cmp r/box/zeros zeros
        for n in 1 2 3 4 5 6; do cmp -i $((n * 3000000)) r/box/zeros zeros & done; wait
        head -c 1 r/box/endless | cmp -n 1 - /dev/zero
    "#;
    run(Command::new("bash").args(["-euc", script]).current_dir(work.path("")), b"").ok();
    let state = || {
        let status = fs::read_to_string(reader.file(".pigeonfs/box/status")).expect("read");
        assert!(!status.contains("cache is full"), "{status}");
        status
    };
    state();
    fs::write(writer.file("box/later"), bytes(20_000, 3)).expect("written");
    eventually("what comes later arrives", || fs::read(reader.file("box/later")).ok());
    state();

    kill_process(Pid::from_child(&tail.0), Signal::TERM).expect("our child");
    eventually("the end of tail", || tail.0.try_wait().expect("our child"));

    // What was trimmed is gone, unpacked or not.
    work.verb("rs", &["trim", "box"]).ok();
    let error = run(Command::new("head").args(["-c", "1000"]).arg(&zeros), b"");
    assert_ne!(error.code, Some(0), "{}", error.text());
}
