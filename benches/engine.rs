//! What the engine itself takes of a machine, with 10,000 channels and a million boxes in the store: how soon a mount is
//! there, its memory, its processor time for a box written and for a box read, and what 10,000 idle readers cost.
//!
//! `scripts/bench engine` runs it. The disk is that of the build directory; it takes some 6 GB there.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // A table is what it is for.

mod common;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{command, memory, run_command};
use pigeonfs::bacap::WriteCap;
use pigeonfs::store::{ChannelName, Content, Limits, StateDir, Store};

/// Plaintext of a box, as on the networks that there are.
const BOX: usize = 1549;
const CHANNELS: usize = 10_000;
const BOXES: usize = 1_000_000;
/// Of the boxes, so many are sent, and so many are received, while time is taken.
const MOVED: u64 = 20_000;
/// How long idle readers are watched.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --all-targets` runs this too, and has no use for it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let root = tempfile::Builder::new().prefix("bench-engine").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = |name: &str| root.path().join(name);
    println!("{CHANNELS} channels, all of them readers but one; {BOXES} boxes in the store\n");
    println!("{:<52} {:>12}  goal", "", "measured");

    fill(&place("alice"), BOXES);
    {
        let network = Localnet::start(&place("instant"), "instant");
        let mount = Mount::start(&place("alice"), &place("alice-files"), &network);
        line("mounted after", &format!("{:.0} ms", mount.ready.as_secs_f64() * 1e3), "<= 200 ms");
        let stored = |mount: &Mount| mount.status("backlog")["stored_boxes"].as_u64().unwrap();
        moved(&mount, "a box written", || stored(&mount));
        let capability = mount.verb(&["share", "backlog"], b"");
        drop(mount);

        fill(&place("bob"), 0);
        let mount = Mount::start(&place("bob"), &place("bob-files"), &network);
        mount.verb(&["add", "feed"], &capability);
        moved(&mount, "a box read", || mount.status("feed")["boxes"].as_u64().unwrap());
    }
    let network = Localnet::start(&place("docker"), "docker");
    fill(&place("carol"), 0);
    let mount = Mount::start(&place("carol"), &place("carol-files"), &network);
    let (began, before) = (Instant::now(), mount.processor());
    std::thread::sleep(IDLE);
    let share = (mount.processor() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    line("idle, one packet a second, of a core", &format!("{:.2} %", share * 100.0), "< 1 %");
}

fn line(what: &str, measured: &str, goal: &str) {
    println!("{what:<52} {measured:>12}  {goal}");
}

/// A state with all its channels, and so many boxes that wait to be sent.
fn fill(state: &Path, boxes: usize) {
    let dir = StateDir::lock(state).unwrap();
    let store = Store::open(&dir, Limits::default()).unwrap();
    let cap = |number: usize| WriteCap::from_seed(blake3::hash(&number.to_le_bytes()).as_bytes());
    let name = |text: String| ChannelName::parse(&text).unwrap();
    let added: Vec<_> = (1..CHANNELS)
        .map(|number| store.add(name(format!("reader-{number}")), cap(number).read_cap().clone(), Content::Stream))
        .collect();
    for added in added {
        added.wait().unwrap();
    }
    // Another one for each state: two that write one channel would meet.
    let key = blake3::hash(state.as_os_str().as_encoded_bytes());
    let backlog =
        store.create(name("backlog".into()), WriteCap::from_seed(key.as_bytes()), Content::Stream).wait().unwrap();
    let mut left = boxes;
    while left > 0 {
        let some = left.min(600);
        store.append(backlog, vec![7; some * BOX], None).wait().unwrap();
        left -= some;
    }
    store.close();
}

/// Waits until `MOVED` boxes more are there, and says what each has cost, and the memory.
fn moved(mount: &Mount, what: &str, count: impl Fn() -> u64) {
    let first = loop {
        let count = count();
        if count > 0 {
            break count;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (began, before) = (Instant::now(), mount.processor());
    let boxes = loop {
        let boxes = count() - first;
        if boxes >= MOVED {
            break boxes as f64;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let (taken, cost) = (began.elapsed(), mount.processor() - before);
    line(&format!("{what}: processor time"), &format!("{:.2} ms", cost.as_secs_f64() * 1e3 / boxes), "<= 2 ms");
    line(&format!("{what}: boxes a second"), &format!("{:.0}", boxes / taken.as_secs_f64()), "");
    line(&format!("{what}: memory, at most"), &format!("{} MiB", memory(mount.child.id()).1 / 1024), "<= 64 MiB");
}

struct Mount {
    child: Child,
    state: PathBuf,
    point: PathBuf,
    ready: Duration,
}

impl Mount {
    fn start(state: &Path, point: &Path, network: &Localnet) -> Self {
        fs::create_dir(point).unwrap();
        let mut command = command(state);
        command.args(["mount", "--json", "--config"]).arg(network.state.join("thinclient.toml")).arg(point);
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // What is mounted is told then, and not before.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self { child, state: state.to_owned(), point: point.to_owned(), ready: began.elapsed() }
    }

    fn verb(&self, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        run_command(command(&self.state).args(arguments), stdin)
    }

    fn status(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.verb(&["status", "--json", name], b"")).unwrap()
    }

    /// Processor time of the process so far.
    fn processor(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A localnet in a process of its own, which ends with this.
struct Localnet {
    process: Child,
    state: PathBuf,
}

impl Localnet {
    fn start(state: &Path, profile: &str) -> Self {
        let mut command = command(state);
        command.args(["localnet", "--profile", profile]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(state.join("kpclientd.sock")).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { process, state: state.to_owned() }
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
