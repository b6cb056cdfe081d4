//! Law 2: couriers and replicas do not see what a person does with files. The traffic is counted at the network.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;

use crate::common::{Mount, Work, eventually, no_fuse, run};

/// What a person and the programs around a person do. Each line must succeed.
const EVERYDAY: &str = r#"
set -e
ls -lR . ; ls -la box out ; ls -li news
cat news > "$T/news" ; cmp news "$T/news"
cat mine box/text out/sent > "$T/all"
find . -type f -newermt 2001-01-01 -size +0 -print
tail -n 1 news ; tail -c 10 box/text ; head -n 1 news ; head -c 100 box/text.zst | od -c
du -sh . ; df . ; stat news box box/text mine out ; file news box/text.zst mine
grep -c 1 news box/text ; wc -c news mine ; md5sum box/* out/*
python3 - <<'PYTHON'
import mmap, os, select
for path in ["news", "mine", "box/text", "box/text.zst", "out/sent", "box", "."]:
    os.listxattr(path); os.access(path, os.R_OK); os.access(path, os.W_OK); os.statvfs(path)
with open("news", "rb") as file:
    mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[-10:]
    os.pread(file.fileno(), 10, 0); os.lseek(file.fileno(), 0, os.SEEK_END)
    poll = select.poll(); poll.register(file, select.POLLIN); poll.poll(50)
with open("mine", "ab") as file:
    os.fsync(file.fileno())
PYTHON
cp -a news box "$T" ; tar cf "$T/all.tar" .
touch mine ; touch -c news 2> /dev/null || true
(echo x > news) 2> /dev/null && exit 1
(echo x > box/new) 2> /dev/null && exit 1
rm -f box/text 2> /dev/null && exit 1
cat nobody box/nobody 2> /dev/null && exit 1
cat .pigeonfs/status.json .pigeonfs/news/status .pigeonfs/box/status .pigeonfs/mine/status
sync -f .
# Long enough for what was asked for until now to be on its way.
timeout 3 tail -n 1 -f news || test $? = 124
"#;

/// What the network has counted. Asked over its socket: it is asked often.
fn stats(work: &Work) -> Value {
    let mut socket = UnixStream::connect(work.path("net/ctl.sock")).expect("a network");
    socket.write_all(b"{\"command\": \"stats\"}\n").expect("a network");
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).expect("an answer");
    serde_json::from_str::<Value>(&answer).expect("JSON")["stats"].clone()
}

/// All that leaves the daemon, or is to leave it.
fn traffic(work: &Work) -> String {
    let stats = stats(work);
    ["packets", "ended", "operations", "cancelled"].map(|what| format!("{what} {}", stats[what])).join(", ")
}

fn live(work: &Work, mount: &Mount) {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("bash");
    command.args(["-c", EVERYDAY]).current_dir(&mount.path).env("T", scratch.path());
    let run = run(&mut command, b"");
    assert_eq!(run.code, Some(0), "{}\n{}", run.text(), run.stderr);
    work.verb("bob", &["list"]).ok();
    work.verb("bob", &["status", "news"]).ok();
}

#[test]
fn what_a_person_does_with_a_mount_causes_no_traffic() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let network = work.localnet("net");
    let config = ["--config", network.config()];
    let with = |words: &[&str], stdin: &[u8], state: &str| {
        work.verb_with(state, &[words, &config].concat(), stdin).ok();
    };
    let text: String = (0..4000).map(|number| format!("{number}\n")).collect();
    let packed = zstd::encode_all(text.as_bytes(), 3).expect("packed");
    with(&["append", "news"], text.as_bytes(), "alice");
    work.verb("alice", &["new", "--drop", "box"]).ok();
    with(&["send", "-", "--name", "text", "--to", "box"], text.as_bytes(), "alice");
    with(&["send", "-", "--name", "text.zst", "--to", "box"], &packed, "alice");
    with(&["append", "mine"], b"some bytes", "bob");
    work.verb("bob", &["new", "--drop", "out"]).ok();
    with(&["send", "-", "--name", "sent", "--to", "out"], b"a file", "bob");
    work.share("alice", "bob", "news");
    let capability = work.verb("alice", &["share", "box"]).ok().stdout;
    work.verb_with("bob", &["add", "--drop", "box"], &capability).ok();
    with(&["wait", "news", "--bytes", &text.len().to_string()], b"", "bob");
    with(&["receive", "box", "-o", "-"], b"", "bob");

    network.kill();

    // On this network, idle channels pause for minutes, and the mount may take no part of the pace for them but the four
    // probes with which it begins. One of those may fall into the few seconds, but not each time.
    let network = work.localnet_with("net", &[], &["--profile", "docker"]);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let mount = work.mount("mnt", "bob", &["--probe-share", "0", "--config", network.config()]);
        eventually("the network", || mount.log().contains("connected to the network").then_some(()));
        let before = traffic(&work);
        live(&work, &mount);
        let after = traffic(&work);
        mount.signal(rustix::process::Signal::TERM);
        if before == after {
            return;
        }
        seen.push(format!("{before}\n{after}"));
    }
    panic!("the network saw it:\n{}", seen.join("\n"));
}
