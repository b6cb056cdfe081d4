//! SIGKILL at random instants, round after round: of a mount that writes, of one that reads, of the network between them, which
//! loses, doubles, delays and refuses on top of it. Then both sides are compared: nothing lost, doubled or reordered.
//!
//! Some rounds in a test run; `PIGEONFS_ROUNDS` makes it longer, as `scripts/torture kills` does with 200. `PIGEONFS_SEED` is
//! printed and decides when whom it hits; what the machine does in between no seed decides.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Localnet, Mount, Work, eventually, no_fuse};
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: u64 = 5;
/// Streams from Alice to Bob, and from Bob to Alice.
const STREAMS: usize = 2;
/// So much is written to each stream in a round at most, so that the network can follow.
const ROUND_BYTES: u64 = 12_000;
/// A network like the measured one, two hundred times as fast, on which everything goes wrong now and then.
const NETWORK: [&str; 18] = [
    "--profile",
    "docker",
    "--time-scale",
    "200",
    "--loss",
    "0.05",
    "--reply-loss",
    "0.05",
    "--duplication",
    "0.05",
    "--delay",
    "0.05",
    "--delay-ms",
    "300",
    "--false-not-found",
    "0.1",
    "--ack-then-lost",
    "0.05",
];

/// The byte that stands at this offset of a stream: wherever bytes are missing, doubled or exchanged, others stand there.
fn pattern(stream: usize, offset: u64) -> u8 {
    let word =
        (offset / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (word ^ (word >> 29)).to_le_bytes()[usize::try_from(offset % 8).expect("small")]
}

fn piece(stream: usize, from: u64, count: u64) -> Vec<u8> {
    (from..from + count).map(|offset| pattern(stream, offset)).collect()
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One side: its mount, what it writes, and what it has seen.
struct Side {
    name: &'static str,
    state: &'static str,
    mount: Option<Mount>,
    writes: Vec<Stream>,
    reads: Vec<Stream>,
}

struct Stream {
    number: usize,
    /// Acknowledged bytes, or bytes that were read.
    bytes: AtomicU64,
}

fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

impl Side {
    fn new(name: &'static str, state: &'static str, writes: [usize; STREAMS], reads: [usize; STREAMS]) -> Self {
        let stream = |number| Stream { number, bytes: AtomicU64::new(0) };
        Self { name, state, mount: None, writes: writes.map(stream).into(), reads: reads.map(stream).into() }
    }

    fn mount(&mut self, work: &Work, config: &str) {
        if self.mount.is_none() {
            self.mount = Some(work.mount(self.name, self.state, &["--config", config]));
        }
    }

    fn path(&self) -> &Path {
        &self.mount.as_ref().expect("mounted").path
    }

    fn pid(&self) -> Pid {
        let pid = self.mount.as_ref().expect("mounted").pid();
        Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
    }

    /// What was acknowledged, and what was read before, is there, and nothing else.
    fn check(&self) {
        for stream in &self.writes {
            let there = fs::read(self.path().join(name(stream.number))).expect("read back");
            let (size, known) = (there.len() as u64, stream.bytes.load(Ordering::SeqCst));
            assert!(size >= known, "{} of {known} acknowledged bytes of {} are there", size, stream.number);
            assert!(there == piece(stream.number, 0, size), "{} was altered", stream.number);
            stream.bytes.store(size, Ordering::SeqCst);
        }
        for stream in &self.reads {
            let size = fs::metadata(self.path().join(name(stream.number))).expect("there").len();
            let known = stream.bytes.load(Ordering::SeqCst);
            assert!(size >= known, "{size} of {known} bytes of {} that were read are there", stream.number);
        }
    }
}

/// Appends until told to stop, or until the mount is gone.
fn append(path: &Path, stream: &Stream, until: u64, dice: &mut Dice, stop: &AtomicBool) {
    let Ok(mut file) = OpenOptions::new().append(true).open(path) else { return };
    while !stop.load(Ordering::SeqCst) {
        let at = stream.bytes.load(Ordering::SeqCst);
        if at < until {
            let bytes = piece(stream.number, at, 1 + dice.below(4000));
            // All of it or none: an append is one request up to its size.
            if !matches!(file.write(&bytes), Ok(count) if count == bytes.len()) {
                return;
            }
            stream.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            if dice.below(4) == 0 && file.sync_data().is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(dice.below(30)));
    }
}

/// Reads from the start until told to stop, or until the mount is gone: what is there is what was written.
fn look(path: &Path, stream: &Stream, dice: &mut Dice, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        // A frontier without a verdict lets a reader wait; so it takes what stat shows, which never waits.
        let Ok(size) = fs::metadata(path).map(|metadata| metadata.len()) else { return };
        let mut bytes = vec![0; usize::try_from(size).expect("small")];
        let Ok(file) = fs::File::open(path) else { return };
        if std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).is_err() {
            return;
        }
        assert!(bytes == piece(stream.number, 0, size), "{} of {size} bytes reads otherwise", stream.number);
        stream.bytes.fetch_max(size, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(dice.below(60)));
    }
}

#[test]
fn kills_at_random_instants_lose_double_and_reorder_nothing() {
    if no_fuse() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("PIGEONFS_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("PIGEONFS_SEED").unwrap_or(0x5eed);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut work = Work::new();
    work.log = "warn";
    let start_network = |work: &Work| work.localnet_with("net", &[], &NETWORK);
    let mut network = Some(start_network(&work));
    let config = network.as_ref().map(Localnet::config).expect("started").to_owned();
    let mut sides = [Side::new("alice", "alice-state", [0, 1], [2, 3]), Side::new("bob", "bob-state", [2, 3], [0, 1])];
    for (from, to) in [(0, 1), (1, 0)] {
        for stream in sides[from].writes.iter().map(|stream| name(stream.number)) {
            work.verb(sides[from].state, &["new", &stream]).ok();
            work.share(sides[from].state, sides[to].state, &stream);
        }
    }

    for round in 0..rounds {
        sides.iter_mut().for_each(|side| side.mount(&work, &config));
        sides.iter().for_each(Side::check);
        let stop = AtomicBool::new(false);
        let (victims, after) = (1 + dice.below(7), Duration::from_millis(20 + dice.below(1000)));
        std::thread::scope(|scope| {
            let stop = &stop;
            for side in &sides {
                for stream in &side.writes {
                    let (path, mut dice) = (side.path().join(name(stream.number)), Dice(seed + 2 * round + 1));
                    scope.spawn(move || append(&path, stream, (round + 1) * ROUND_BYTES, &mut dice, stop));
                }
                for stream in &side.reads {
                    let (path, mut dice) = (side.path().join(name(stream.number)), Dice(seed + 2 * round + 1));
                    scope.spawn(move || look(&path, stream, &mut dice, stop));
                }
            }
            std::thread::sleep(after);
            for (place, side) in sides.iter().enumerate() {
                if victims & 1 << place != 0 {
                    kill_process(side.pid(), Signal::KILL).expect("our child");
                }
            }
            if victims & 4 != 0 {
                network.take().expect("running").kill();
            }
            stop.store(true, Ordering::SeqCst);
        });
        for (place, side) in sides.iter_mut().enumerate() {
            if victims & 1 << place != 0 {
                side.mount.take().expect("mounted").kill();
            }
        }
        if network.is_none() {
            network = Some(start_network(&work));
        }
    }

    sides.iter_mut().for_each(|side| side.mount(&work, &config));
    sides.iter().for_each(Side::check);
    for (from, to) in [(0, 1), (1, 0)] {
        for stream in &sides[from].writes {
            let (name, written) = (name(stream.number), stream.bytes.load(Ordering::SeqCst));
            let written_text = written.to_string();
            work.verb(sides[from].state, &["wait", "--timeout", "240", &name]).ok();
            work.verb(sides[to].state, &["wait", "--timeout", "240", "--bytes", &written_text, &name]).ok();
            let arrived = eventually("the end of the stream", || {
                let arrived = fs::read(sides[to].path().join(&name)).ok()?;
                (arrived.len() as u64 >= written).then_some(arrived)
            });
            assert!(
                arrived == piece(stream.number, 0, written),
                "{name}: {} of {written} bytes arrived",
                arrived.len()
            );
        }
    }
}
