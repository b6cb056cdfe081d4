//! A mount that uses several daemons of one network, as a person runs it.

use std::io::Write;

use serde_json::Value;

use crate::common::{Mount, Work, bytes, eventually, no_fuse, run};

const BOX: usize = 1549;

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// How the daemons stand, as the mount tells programs.
fn links(mount: &Mount) -> Vec<String> {
    let told = json(&std::fs::read(mount.file(".pigeonfs/status.json")).expect("a status"));
    let daemons = told["daemons"].as_array().cloned().unwrap_or_default();
    daemons.iter().map(|daemon| daemon["link"].as_str().expect("a link").to_owned()).collect()
}

/// Two daemons carry a copy into a mount. One of them crashes in the middle; every byte arrives, and the status tells of it.
#[test]
fn a_copy_goes_on_when_one_of_two_daemons_crashes() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet_with("net", &[], &["--daemons", "2", "--profile", "docker", "--time-scale", "40"]);
    let second = work.path("net/thinclient-2.toml");
    let two = ["--config", network.config(), "--config", second.to_str().expect("text")];
    let alice = work.mount("alice", "alice-state", &two);
    eventually("both daemons", || (links(&alice) == ["connected", "connected"]).then_some(()));
    let data = bytes(100 * BOX, 5);
    std::fs::write(alice.file("log"), &data).expect("accepted");
    let status = |of: &[&str]| json(&work.verb("alice-state", &[&["status", "--json"], of].concat()).ok().stdout);
    eventually("a third is stored", || (status(&["log"])["stored_boxes"].as_u64() >= Some(30)).then_some(()));
    let ctl = |words: &[&str]| work.verb("net", &[&["localnet", "ctl"], words].concat());
    ctl(&["stop", "2"]).ok();
    eventually("it is missed", || (links(&alice) == ["connected", "no-daemon"]).then_some(()));
    let text = work.verb("alice-state", &["status"]).ok().text();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("daemon")).collect();
    assert!(lines.len() == 2 && lines[0].contains("connected") && lines[1].contains("none"), "{text}");
    work.verb("alice-state", &["wait", "log", "--timeout", "120"]).ok();
    let mut more = std::fs::OpenOptions::new().append(true).open(alice.file("log")).expect("a stream");
    more.write_all(b"and more").expect("accepted");
    drop(more);
    ctl(&["start", "2"]).ok();
    eventually("it is back", || (links(&alice) == ["connected", "connected"]).then_some(()));
    work.verb("alice-state", &["wait", "log", "--timeout", "120"]).ok();
    work.share("alice-state", "bob-state", "log");
    let expected = [&data[..], b"and more"].concat();
    let read = work.verb("bob-state", &[&["read", "log", "--timeout", "120"][..], &two].concat()).ok().stdout;
    assert!(read == expected, "{} bytes arrived, {} were sent", read.len(), expected.len());
    assert!(alice.log().contains("thinclient-2") || alice.log().contains("kpclientd-2"), "the log names it");
    ctl(&["stop", "3"]).failed(5, &["there are 2 daemons"]);
    ctl(&["slow", "2", "0"]).failed(5, &["a number above 0"]);
}

/// One of two that were named is another network's: the mount works with the other, and says what is wrong.
#[test]
fn a_daemon_of_another_network_is_refused_in_words() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let (ours, other) = (work.localnet("ours"), work.localnet("other"));
    let alice = work.mount("alice", "alice-state", &["--config", ours.config(), "--config", other.config()]);
    eventually("it is refused", || (links(&alice) == ["connected", "refused"]).then_some(()));
    std::fs::write(alice.file("log"), b"by the first").expect("accepted");
    work.verb("alice-state", &["wait", "log"]).ok();
    let text = work.verb("alice-state", &["status"]).ok().text();
    assert!(text.contains("it is of another network than the first daemon, and is not used"), "{text}");
    assert!(alice.log().contains("it is of another network than the first daemon"), "{}", alice.log());
}

#[test]
fn what_cannot_be_meant_by_several_daemons_says_so() {
    let work = Work::new();
    let network = work.localnet("net");
    work.verb("s", &["new", "log"]).ok();
    let named = |times: usize| std::iter::repeat_n(["--config", network.config()], times).flatten();
    let append = |times: usize| {
        let words: Vec<_> = ["append", "log"].into_iter().chain(named(times)).collect();
        work.verb_with("s", &words, b"bytes")
    };
    append(1).ok();
    append(2).failed(2, &["names the daemon at unix://", "twice"]);
    append(9).failed(2, &["--config names 9 daemons, and no more than 8"]);
    work.verb("s", &["wait", "log", "--config", network.config(), "--config", "/nowhere/b.toml"])
        .failed(2, &["/nowhere/b.toml"]);
    // The check of an installation looks at each of them.
    let second = work.localnet("second");
    let found = work.verb("s", &["doctor", "--config", network.config(), "--config", second.config()]);
    let of_each = found.text().lines().filter(|line| line.contains("a process of user")).count();
    assert_eq!(of_each, 2, "{}", found.text());
}

/// The file names the daemons in a list; what is typed goes before it.
#[test]
fn the_configuration_file_has_a_list_of_daemons() {
    let work = Work::new();
    std::fs::create_dir_all(work.path(".config/pigeonfs")).expect("a directory");
    let configure = |text: &str| std::fs::write(work.path(".config/pigeonfs/config.toml"), text).expect("written");
    std::fs::create_dir(work.path("mnt")).expect("a directory");
    let mount = |words: &[&str]| {
        let mut command = work.command();
        run(command.arg("mount").args(words).arg(work.path("mnt")), b"")
    };
    configure("config = [\"/nowhere/a.toml\", \"/nowhere/b.toml\"]\n");
    mount(&[]).failed(2, &["/nowhere/a.toml"]);
    mount(&["--config", "/nowhere/c.toml"]).failed(2, &["/nowhere/c.toml"]);
    configure("config = [\"/nowhere/a.toml\", 7, true]\n");
    mount(&[]).failed(2, &["config takes a text or a number"]);
    configure("spool-limit = [\"1GiB\"]\n");
    mount(&[]).failed(2, &["spool-limit takes a text or a number"]);
    configure("config = \"/nowhere/d.toml\"\n");
    mount(&[]).failed(2, &["/nowhere/d.toml"]);
}
