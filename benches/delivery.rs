//! The delivery engine on localnet, beside upstream's `pigeonhole-cp` on the same network in the same run. Prints a table;
//! judges nothing.
//!
//! `scripts/bench delivery` runs it: `-- --runs N` so often (the median of the rates counts), `--boxes N` boxes a row,
//! `--scale X` times as fast as the networks are, `--profile NAME` one network alone, `--encrypt-ms N` with envelopes that
//! cost so much of the network's own time, `--daemons 1,2,4` with so many daemons of the network (nothing else is measured
//! then but these rows). `$PIGEONFS_TEST_PIGEONHOLE_CP` is upstream's program; without it its rows are left
//! out.
//!
//! * Rates are in the network's own time: measured, and divided by the scale. λ is a box a second there.
//! * Ticks: of those that passed from the acceptance of the boxes until no more than a window were left, the part that carried
//!   a packet of ours, as the daemon counts them; and k, the packets that an operation of the row took.
//! * Latency: of a message of one box, strict, alone and beside a strict backlog, from its acceptance to a replica's word.
//! * Several daemons: the same rows with each number of them, as many boxes for each daemon; the last columns are the rate by that
//!   of one daemon times their number, and by λ times their number over k. Then one of the most that were asked for is killed in the
//!   middle of a strict backlog.
//! * `instant`: a file copied into a mount, until it is stored; and read at another mount.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // A table is what it is for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pigeonfs::channel::Linger;
use pigeonfs::engine::Daemon;
use pigeonfs::engine::control::{Link, Opening, Request, Response, Secret};
use pigeonfs::engine::status::{ChannelStatus, DurabilityStatus};
use pigeonfs::store::{Choices, Content};
use pigeonfs::thin::Config;
use serde_json::Value;

/// Plaintext of a box.
const BOX: usize = 1549;
/// Messages that a latency is taken of.
const MESSAGES: usize = 30;
/// What is copied through the mounts.
const INSTANT_BOXES: usize = 10_000;

struct Asked {
    runs: usize,
    boxes: usize,
    scale: f64,
    profiles: Vec<String>,
    encrypt_ms: Option<u32>,
    daemons: Vec<usize>,
    peer: Option<PathBuf>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --all-targets` runs this too, and has no use for it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let value = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1).cloned();
    let number = |flag: &str| value(flag).map(|text| text.parse::<f64>().unwrap());
    let asked = Asked {
        runs: number("--runs").unwrap_or(3.0) as usize,
        boxes: number("--boxes").unwrap_or(300.0) as usize,
        scale: number("--scale").unwrap_or(50.0),
        profiles: value("--profile").map_or_else(|| vec!["docker".into(), "namenlos".into()], |name| vec![name]),
        encrypt_ms: number("--encrypt-ms").map(|ms| ms as u32),
        daemons: value("--daemons").map_or_else(Vec::new, |list| list.split(',').map(|n| n.parse().unwrap()).collect()),
        peer: std::env::var_os("PIGEONFS_TEST_PIGEONHOLE_CP").map(PathBuf::from),
    };
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        for profile in &asked.profiles {
            if asked.daemons.is_empty() {
                network(root.path(), profile, &asked).await;
            }
            let counts = if asked.daemons.is_empty() { &[1, 2, 4][..] } else { &asked.daemons };
            several(root.path(), profile, counts, &asked).await;
        }
    });
    if arguments.iter().any(|argument| argument == "--instant") {
        mounts(root.path());
    }
}

/// What one row came to in one run.
#[derive(Clone, Copy, Default)]
struct Sample {
    rate: f64,
    ticks: f64,
    k: f64,
}

async fn network(root: &Path, profile: &str, asked: &Asked) {
    println!("\n{profile}, {} times as fast, {} boxes a row, {} runs", asked.scale, asked.boxes, asked.runs);
    println!("{:<34} {:>8} {:>9} {:>7} {:>6} {:>8}", "", "boxes/s", "bytes/s", "ticks", "k", "upstream");
    let mut rows: [Vec<Sample>; 6] = Default::default();
    let mut latencies: [Vec<f64>; 2] = Default::default();
    for run in 0..asked.runs {
        let place = root.join(format!("{profile}-{run}"));
        let localnet = Localnet::start(&place.join("net"), profile, 1, asked);
        let mut alice = Side::open(&place.join("alice"), &localnet).await;
        let mut bob = Side::open(&place.join("bob"), &localnet).await;
        // The first box of a life goes alone: that is not what is measured.
        alice.write("warm", 1, DurabilityStatus::Stored, &localnet, asked).await;
        rows[0].push(alice.write("couriered", asked.boxes, DurabilityStatus::Couriered, &localnet, asked).await);
        alice.wait("couriered", None, DurabilityStatus::Stored).await;
        rows[1].push(alice.write("stored", asked.boxes, DurabilityStatus::Stored, &localnet, asked).await);
        rows[2].push(bob.read("stored", alice.share("stored").await, asked.boxes, &localnet, asked).await);
        latencies[0].extend(alice.messages("alone", asked).await);
        alice.append("bulk", asked.boxes * 4, DurabilityStatus::Stored).await;
        latencies[1].extend(alice.messages("beside", asked).await);
        alice.link.close().await;
        bob.link.close().await;
        if let Some(peer) = &asked.peer {
            let (sent, received) = upstream(peer, &place, &localnet, asked.boxes, true, asked.scale);
            rows[3].push(sent);
            rows[4].push(received);
            // As many boxes again, at a third of the pace: a third will do.
            rows[5].push(upstream(peer, &place, &localnet, asked.boxes / 3, false, asked.scale).0);
        }
    }
    let [couriered, stored, read, sent, received, copied] = rows.map(|row| median(&row));
    let line = |what: &str, row: Option<Sample>, beside: Option<Sample>| {
        let Some(row) = row else { return };
        let part = |number: f64| if number > 0.0 { format!("{number:.3}") } else { "-".to_owned() };
        let ratio = beside.map_or_else(|| "-".to_owned(), |beside| format!("{:.1} x", row.rate / beside.rate));
        let (bytes, ticks, k) = (row.rate * BOX as f64, part(row.ticks), part(row.k));
        println!("{what:<34} {:>8.3} {bytes:>9.0} {ticks:>7} {k:>6} {ratio:>8}", row.rate);
    };
    line("writes, couriered", couriered, sent);
    line("writes, stored", stored, sent);
    line("reads", read, received);
    line("pigeonhole-cp send --no-copy", sent, None);
    line("pigeonhole-cp receive", received, None);
    line("pigeonhole-cp send, by copy", copied, None);
    let [alone, beside] = latencies.map(|times| (part_of(&times, 0.5), part_of(&times, 0.95)));
    println!("{:<34} {:>6.1} s / {:.1} s", "a one-box message, p50 / p95", alone.0, alone.1);
    println!(
        "{:<34} {:>6.1} s / {:.1} s  ({:.2} x / {:.2} x)",
        "the same beside a backlog",
        beside.0,
        beside.1,
        beside.0 / alone.0,
        beside.1 / alone.1
    );
}

/// The rows with each number of daemons, and what a daemon costs that dies.
async fn several(root: &Path, profile: &str, counts: &[usize], asked: &Asked) {
    let Asked { scale, boxes, runs, .. } = asked;
    println!(
        "\n{profile} by several daemons, {scale} times as fast, {boxes} boxes for each of them a row, {runs} runs"
    );
    let (of_one, of_all) = ("of n x one", "of n x \u{3bb}/k");
    println!("{:<34} {:>8} {:>9} {:>7} {:>6} {of_one:>10} {of_all:>10}", "", "boxes/s", "bytes/s", "ticks", "k");
    let mut alone = [None; 3];
    for &daemons in counts {
        let mut rows: [Vec<Sample>; 3] = Default::default();
        for run in 0..*runs {
            let place = root.join(format!("{profile}-{daemons}-{run}"));
            let localnet = Localnet::start(&place.join("net"), profile, daemons, asked);
            let mut alice = Side::open(&place.join("alice"), &localnet).await;
            let mut bob = Side::open(&place.join("bob"), &localnet).await;
            let boxes = boxes * daemons;
            alice.write("warm", 1, DurabilityStatus::Stored, &localnet, asked).await;
            rows[0].push(alice.write("couriered", boxes, DurabilityStatus::Couriered, &localnet, asked).await);
            alice.wait("couriered", None, DurabilityStatus::Stored).await;
            rows[1].push(alice.write("stored", boxes, DurabilityStatus::Stored, &localnet, asked).await);
            rows[2].push(bob.read("stored", alice.share("stored").await, boxes, &localnet, asked).await);
            alice.link.close().await;
            bob.link.close().await;
        }
        let number = daemons as f64;
        for (at, what) in ["writes, couriered", "writes, stored", "reads"].into_iter().enumerate() {
            let row = median(&rows[at]).unwrap();
            let one = *alone[at].get_or_insert(row.rate / number);
            let (bytes, of_one, of_all) = (row.rate * BOX as f64, row.rate / number / one, row.rate * row.k / number);
            println!(
                "{:<34} {:>8.3} {bytes:>9.0} {:>7.3} {:>6.3} {of_one:>10.3} {of_all:>10.3}",
                format!("{what}, {daemons}"),
                row.rate,
                row.ticks,
                row.k
            );
        }
    }
    if let Some(&daemons) = counts.iter().max().filter(|daemons| **daemons > 1) {
        killed(&root.join(format!("{profile}-killed")), profile, daemons, asked).await;
    }
}

/// One daemon dies in the middle of a strict backlog.
async fn killed(place: &Path, profile: &str, daemons: usize, asked: &Asked) {
    let localnet = Localnet::start(&place.join("net"), profile, daemons, asked);
    let mut alice = Side::open(&place.join("alice"), &localnet).await;
    let mut bob = Side::open(&place.join("bob"), &localnet).await;
    alice.write("warm", 1, DurabilityStatus::Stored, &localnet, asked).await;
    let boxes = 2 * asked.boxes * daemons;
    alice.append("stored", boxes, DurabilityStatus::Stored).await;
    let (part, began) = (|part: f64| (boxes as f64 * part) as u64, Instant::now());
    let before = alice.rate("stored", part(0.05), part(0.45), asked).await;
    localnet.ctl(&["stop", &daemons.to_string()]);
    let after = alice.rate("stored", part(0.5), part(0.95), asked).await;
    alice.wait("stored", None, DurabilityStatus::Stored).await;
    let took = began.elapsed().as_secs_f64() * asked.scale;
    bob.add("stored", alice.share("stored").await).await;
    bob.wait("stored", Some((boxes * BOX) as u64), DurabilityStatus::Stored).await;
    let arrived = bob.bytes("stored").await;
    let whole = if arrived == vec![7; boxes * BOX] { "every byte arrived" } else { "BYTES ARE WRONG" };
    println!(
        "one of {daemons} killed: {before:.3} boxes/s before, {after:.3} after ({:.3}); {boxes} boxes in {took:.0} s, {whole}",
        after / before
    );
    alice.link.close().await;
    bob.link.close().await;
}

fn median(row: &[Sample]) -> Option<Sample> {
    let mut row = row.to_vec();
    row.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    row.get(row.len() / 2).copied()
}

fn part_of(times: &[f64], part: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * part).round() as usize]
}

/// One of the two ends: a state that this process owns.
struct Side {
    link: Link,
}

impl Side {
    async fn open(state: &Path, localnet: &Localnet) -> Self {
        let configs = (1..=localnet.daemons).map(|number| match number {
            1 => "thinclient.toml".to_owned(),
            _ => format!("thinclient-{number}.toml"),
        });
        let configs = configs.map(|name| Config::load(&localnet.state.join(name)).unwrap()).collect();
        let linger = Linger { after_last: Duration::ZERO, after_creation: Duration::ZERO, ..Linger::default() };
        let choices = Some(Choices { linger, ..Choices::default() });
        let opening = Opening { choices, ..Opening::new(state.to_owned(), Daemon::Several(configs)) };
        Self { link: Link::open(opening).await.unwrap() }
    }

    async fn append(&mut self, name: &str, boxes: usize, durability: DurabilityStatus) {
        self.link.request(Request::New { name: name.into(), durability, content: Content::Stream }).await.unwrap();
        let bytes = vec![7; boxes * BOX];
        for chunk in bytes.chunks(512 * BOX) {
            self.link
                .request(Request::Append { name: name.into(), bytes: chunk.to_vec(), making: false })
                .await
                .unwrap();
        }
    }

    async fn write(
        &mut self,
        name: &str,
        boxes: usize,
        durability: DurabilityStatus,
        localnet: &Localnet,
        asked: &Asked,
    ) -> Sample {
        let before = localnet.stats();
        let began = Instant::now();
        self.append(name, boxes, durability).await;
        let ticks = loop {
            let told = self.status(name).await;
            if told.boxes - told.stored_boxes - told.couriered_boxes <= 12 || told.boxes < 24 {
                break Ticks::since(&before, &localnet.stats());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        self.wait(name, None, durability).await;
        let took = began.elapsed().as_secs_f64() * asked.scale;
        Sample { rate: boxes as f64 / took, ticks: ticks.sent, k: ticks.k }
    }

    async fn read(
        &mut self,
        name: &str,
        capability: Secret,
        boxes: usize,
        localnet: &Localnet,
        asked: &Asked,
    ) -> Sample {
        let before = localnet.stats();
        let began = Instant::now();
        self.add(name, capability).await;
        self.wait(name, Some(((boxes - 12) * BOX) as u64), DurabilityStatus::Stored).await;
        let ticks = Ticks::since(&before, &localnet.stats());
        self.wait(name, Some((boxes * BOX) as u64), DurabilityStatus::Stored).await;
        let took = began.elapsed().as_secs_f64() * asked.scale;
        Sample { rate: boxes as f64 / took, ticks: ticks.sent, k: ticks.k }
    }

    async fn add(&mut self, name: &str, capability: Secret) {
        let add = Request::Add {
            name: name.into(),
            capability,
            content: Content::Stream,
            strict_network: false,
            kept_until: None,
        };
        self.link.request(add).await.unwrap();
    }

    /// All that has arrived.
    async fn bytes(&mut self, name: &str) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let offset = all.len() as u64;
            let read = Request::Read { name: name.into(), offset, follow_ms: 0, timeout_ms: 60_000 };
            match self.link.request(read).await.unwrap() {
                Response::Bytes { bytes, end: false } => all.extend(bytes),
                Response::Bytes { end: true, .. } => return all,
                other => panic!("bytes: {other:?}"),
            }
        }
    }

    /// Boxes a second that are stored, from one of them to another.
    async fn rate(&mut self, name: &str, from: u64, to: u64, asked: &Asked) -> f64 {
        let (first, began) = self.until(name, from).await;
        let (last, ended) = self.until(name, to).await;
        (last - first) as f64 / ((ended - began).as_secs_f64() * asked.scale)
    }

    async fn until(&mut self, name: &str, boxes: u64) -> (u64, Instant) {
        loop {
            let stored = self.status(name).await.stored_boxes;
            if stored >= boxes {
                return (stored, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How long messages of one box take, one after another, in seconds of the network.
    async fn messages(&mut self, name: &str, asked: &Asked) -> Vec<f64> {
        self.append(name, 1, DurabilityStatus::Stored).await;
        self.wait(name, None, DurabilityStatus::Stored).await;
        let mut times = Vec::new();
        for _ in 0..MESSAGES {
            let began = Instant::now();
            self.link.request(Request::Append { name: name.into(), bytes: vec![1; 100], making: false }).await.unwrap();
            self.wait(name, None, DurabilityStatus::Stored).await;
            times.push(began.elapsed().as_secs_f64() * asked.scale);
        }
        times
    }

    async fn wait(&mut self, name: &str, bytes: Option<u64>, level: DurabilityStatus) {
        self.link.request(Request::Wait { name: name.into(), bytes, timeout_ms: None, level }).await.unwrap();
    }

    async fn status(&mut self, name: &str) -> ChannelStatus {
        match self.link.request(Request::Status { name: Some(name.into()) }).await.unwrap() {
            Response::Channel(channel) => channel,
            other => panic!("a channel: {other:?}"),
        }
    }

    async fn share(&mut self, name: &str) -> Secret {
        match self.link.request(Request::Share { name: name.into(), write: false, from_here: false }).await.unwrap() {
            Response::Capability(text) => text,
            other => panic!("a capability: {other:?}"),
        }
    }
}

struct Ticks {
    sent: f64,
    k: f64,
}

impl Ticks {
    fn since(before: &Value, after: &Value) -> Self {
        let count = |stats: &Value, path: &[&str]| path.iter().fold(stats, |at, key| &at[*key]).as_f64().unwrap();
        let change = |path: &[&str]| count(after, path) - count(before, path);
        let kinds = ["write", "strict-write", "read"];
        let sum = |of: &str| kinds.iter().map(|kind| change(&[of, kind])).sum::<f64>();
        let under_way = count(after, &["operations"]) - count(before, &["operations"]);
        Self {
            sent: change(&["ticks-sent"]) / change(&["ticks"]).max(1.0),
            // What is half done has sent half.
            k: sum("packets") / (sum("ended") + under_way / 2.0).max(1.0),
        }
    }
}

/// A localnet in a process of its own, which ends with this.
struct Localnet {
    process: Child,
    state: PathBuf,
    daemons: usize,
}

impl Localnet {
    fn start(state: &Path, profile: &str, daemons: usize, asked: &Asked) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
        command.args([Path::new("localnet"), Path::new("--state"), state]);
        command.args(["--profile", profile, "--time-scale", &asked.scale.to_string()]);
        command.args(["--daemons", &daemons.to_string()]);
        if let Some(ms) = asked.encrypt_ms {
            command.args(["--encrypt-ms", &ms.to_string()]);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let localnet = Self { process, state: state.to_owned(), daemons };
        while std::os::unix::net::UnixStream::connect(state.join("kpclientd.sock")).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        localnet
    }

    fn stats(&self) -> Value {
        self.ctl(&["stats"])["stats"].clone()
    }

    fn ctl(&self, words: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
        command.args(["localnet", "ctl", "--json", "--state"]).arg(&self.state).args(words);
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a file of so many boxes with upstream's program, and receives it where that went box by box.
fn upstream(peer: &Path, place: &Path, net: &Localnet, boxes: usize, by_boxes: bool, scale: f64) -> (Sample, Sample) {
    let config = net.state.join("thinclient.toml");
    let run = |arguments: &[&str], paths: &[&Path]| {
        let mut command = Command::new(peer);
        command.args(&arguments[..1]).arg("-c").arg(&config).args(&arguments[1..]).args(paths);
        let began = Instant::now();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rate = boxes as f64 / (began.elapsed().as_secs_f64() * scale);
        (String::from_utf8(output.stdout).unwrap(), Sample { rate, ..Sample::default() })
    };
    let keys = run(&["genkey"], &[]).0;
    let value = |head: &str| keys.lines().skip_while(|line| !line.starts_with(head)).nth(1).unwrap().to_owned();
    let (read_cap, write_cap) = (value("Read Capability"), value("Write Capability"));
    let index = value("First Index");
    // Its header has a box of its own.
    let source = place.join(if by_boxes { "by-boxes" } else { "by-copy" });
    std::fs::write(&source, vec![7; (boxes - 1) * BOX]).unwrap();
    let mut arguments = vec!["send", "-w", &write_cap, "-i", &index];
    if by_boxes {
        arguments.push("--no-copy");
    }
    arguments.push("-f");
    let sent = run(&arguments, &[&source]).1;
    if !by_boxes {
        return (sent, Sample::default());
    }
    let arrived = place.join("arrived");
    std::fs::create_dir(&arrived).unwrap();
    (sent, run(&["receive", "-r", &read_cap, "-i", &index, "-d"], &[&arrived]).1)
}

/// A file through two mounts of a network that takes no time.
fn mounts(root: &Path) {
    let place = root.join("mounts");
    let pigeonfs = |state: &str, arguments: &[&str], stdin: &[u8]| {
        use std::io::Write as _;
        let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
        command.arg("--state").arg(place.join(state)).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let asked = Asked {
        runs: 1,
        boxes: 0,
        scale: 1.0,
        profiles: Vec::new(),
        encrypt_ms: None,
        daemons: Vec::new(),
        peer: None,
    };
    let localnet = Localnet::start(&place.join("net"), "instant", 1, &asked);
    let config = localnet.state.join("thinclient.toml");
    let config = config.to_str().unwrap();
    let points = ["alice", "bob"].map(|name| place.join(format!("{name}-files")));
    for (state, point) in ["alice", "bob"].iter().zip(&points) {
        std::fs::create_dir(point).unwrap();
        pigeonfs(state, &["mount", "--daemonize", "--config", config, point.to_str().unwrap()], b"");
    }
    // A new stream may be taken back for two seconds, and the first box of a life goes alone: that is not what is measured.
    std::fs::write(points[0].join("file"), vec![7; BOX]).unwrap();
    pigeonfs("alice", &["wait", "file"], b"");
    let began = Instant::now();
    let mut file = std::fs::OpenOptions::new().append(true).open(points[0].join("file")).unwrap();
    std::io::Write::write_all(&mut file, &vec![7; INSTANT_BOXES * BOX]).unwrap();
    drop(file);
    pigeonfs("alice", &["wait", "file"], b"");
    let wrote = began.elapsed();
    let capability = pigeonfs("alice", &["share", "file"], b"");
    let began = Instant::now();
    pigeonfs("bob", &["add", "file"], &capability);
    pigeonfs("bob", &["wait", "--bytes", &((INSTANT_BOXES + 1) * BOX).to_string(), "file"], b"");
    let read = began.elapsed();
    let rate = |time: Duration| INSTANT_BOXES as f64 / time.as_secs_f64();
    println!("\ninstant, through the mounts, {INSTANT_BOXES} boxes");
    println!("{:<34} {:>8.0} boxes/s", "write, until stored", rate(wrote));
    println!("{:<34} {:>8.0} boxes/s", "read, until arrived", rate(read));
    for (state, point) in ["alice", "bob"].iter().zip(&points) {
        pigeonfs(state, &["umount", point.to_str().unwrap()], b"");
    }
}
