//! Random operations of three processes on a real mount, beside a model of what SEMANTICS.md says, while files are handed over and
//! delivered and somebody lists everything all the time. Writers are killed, the spool is full, the mount ends in order and is
//! killed, and is sealed or unsealed in between. After each round the tree that a reader has is compared.
//!
//! Each round is a directory of one drop. `PIGEONFS_TEST_SEEDS` says how many there are, and `PIGEONFS_TEST_SEED`
//! which ones.

mod reference;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{Mount, Work, bytes, eventually, no_fuse};
use reference::{Reference, Tally};
use rustix::process::Signal;
use worker::{Worker, sum};

/// For how long there are rounds, where nobody says how many.
const TIME: Duration = Duration::from_secs(15);
/// Operations in a round.
const OPERATIONS: u64 = 40;
/// Processes that work side by side.
const WORKERS: u64 = 3;
/// Streams that a reader has, too.
const LOGS: [&str; 2] = ["log0", "log1"];
/// Larger than the spool.
const TOO_LARGE: u64 = 3 << 20;
const OPTIONS: [&str; 6] = ["--settle-ms", "15", "--spool-limit", "2000000", "--linger-ms", "50"];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The mount that is written, with who works there.
struct World<'a> {
    work: &'a Work,
    config: &'a str,
    mount: Option<Mount>,
    workers: Vec<Worker>,
    /// How often it was mounted.
    mounts: u64,
    /// Nobody who looks is to wonder.
    is_down: Arc<AtomicBool>,
}

impl World<'_> {
    fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("mounted")
    }

    /// Ends the mount, in order or at once, and begins it anew.
    fn again(&mut self, in_order: bool) {
        self.is_down.store(true, Ordering::SeqCst);
        self.workers.clear();
        let mount = self.mount.take().expect("mounted");
        if in_order {
            mount.signal(Signal::TERM);
        } else {
            mount.kill();
        }
        self.start();
    }

    fn start(&mut self) {
        let key = self.work.path("key");
        let key = ["--key-file", key.to_str().expect("text")];
        let verb = match self.mounts % 4 {
            0 if self.mounts == 0 => Some(&["init", "--seal"][..]),
            0 => Some(&["seal"][..]),
            2 => Some(&["unseal"][..]),
            _ => None,
        };
        if let Some(verb) = verb {
            self.work.verb("ws", &[verb, &key].concat()).ok();
        }
        self.mounts += 1;
        self.mount = Some(self.work.mount("w", "ws", &[&["--config", self.config], &key, &OPTIONS[..]].concat()));
        let path = self.mount().path.clone();
        self.workers = (0..WORKERS).map(|_| Worker::start(&path)).collect();
        self.is_down.store(false, Ordering::SeqCst);
    }
}

#[test]
fn whatever_three_processes_do_a_reader_gets_what_the_model_says() {
    if no_fuse() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("PIGEONFS_TEST_SEEDS");
    let seed = number("PIGEONFS_TEST_SEED").unwrap_or(1);
    let mut work = Work::new();
    work.log = "error";
    let net = work.localnet("net");
    let reader = work.mount("r", "rs", &["--config", net.config()]);
    let is_down = Arc::new(AtomicBool::new(false));
    let mut world = World {
        work: &work,
        config: net.config(),
        mount: None,
        workers: Vec::new(),
        mounts: 0,
        is_down: Arc::clone(&is_down),
    };
    fs::write(work.path("key"), "a key").expect("written");
    world.start();
    fs::create_dir(world.mount().file("box")).expect("a drop");
    let mut logs = BTreeMap::new();
    for log in LOGS {
        fs::write(world.mount().file(log), "").expect("made");
        work.share("ws", "rs", log);
        logs.insert(log, Vec::new());
    }
    let capability = work.verb("ws", &["share", "box"]).ok().stdout;
    work.verb_with("rs", &["add", "--drop", "box"], &capability).ok();

    let stop = AtomicBool::new(false);
    let round = Mutex::new(String::from("r0"));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for (path, may_fail) in [(world.mount().file("box"), true), (reader.file("box"), false)] {
            let (stop, is_down, round) = (&stop, Arc::clone(&is_down), &round);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Whoever is listed to must get his turn, too.
                    std::thread::sleep(Duration::from_millis(2));
                    let now = path.join(&*round.lock().expect("no panic"));
                    if let Err(told) = look(&now, may_fail.then_some(&*is_down)) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{told}");
                    }
                }
            });
        }
        let began = Instant::now();
        let mut tally = Tally::default();
        let is_wanted = |n: u64| rounds.map_or(n == 0 || began.elapsed() < TIME, |rounds| n < rounds);
        for n in (0..).take_while(|&n| is_wanted(n)) {
            *round.lock().expect("no panic") = format!("r{n}");
            let mut random = Random((seed * 1_000_003 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let round = play(&mut world, n, &mut random, &mut logs);
            tally.rounds += 1;
            tally.delivered += round.delivered;
            tally.sealed += round.sealed;
            tally.full += round.full;
            tally.unfinished += round.unfinished;
            tally.unlinked += round.unlinked;
            compare(&reader, &logs);
            assert!(!stop.load(Ordering::Relaxed), "the lister has found something, in round {n}");
        }
        let passed = began.elapsed();
        eprintln!("{} rounds in {passed:?}: {tally:?}", tally.rounds);
        let Tally { rounds, delivered, sealed, full, unfinished, unlinked } = tally;
        let is_met = [delivered, sealed, full, unfinished, unlinked].iter().all(|&count| count > 0);
        assert!(is_met || rounds < 100, "something never came up: {tally:?}");
    });
}

/// Ends the listers, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at all that there is: each name once, and none that nobody has given.
fn look(directory: &Path, is_down: Option<&AtomicBool>) -> Result<(), String> {
    let down = || is_down.is_some_and(|down| down.load(Ordering::SeqCst));
    let was_down = down();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let entries = match fs::read_dir(&next).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            // It was removed, has not arrived yet, or the mount is away.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(_) if was_down || down() => return Ok(()),
            Err(error) => return Err(format!("{}: {error}", next.display())),
        };
        let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) || names.iter().any(|name| name.contains('~')) {
            return Err(format!("{} lists {names:?}", next.display()));
        }
        // A name may go between.
        let is_directory = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|found| found.is_dir());
        open.extend(entries.iter().filter(|entry| is_directory(entry)).map(fs::DirEntry::path));
    }
    Ok(())
}

/// One round. What it leaves is at the replicas.
fn play(world: &mut World<'_>, n: u64, random: &mut Random, logs: &mut BTreeMap<&str, Vec<u8>>) -> Tally {
    let base = format!("box/r{n}");
    assert_eq!(world.workers[0].does(&format!("mkdir {base}")), Ok(0));
    let mut model = Reference::new(&world.mount().path, &base);
    for _ in 0..OPERATIONS {
        let worker = random.below(WORKERS) as usize;
        match random.below(300) {
            0 | 1 => {
                // Nothing is known of a close that comes with the death of the mount.
                model.await_closes();
                let in_order = random.below(2) == 0;
                if in_order {
                    model.close_all(&mut world.workers);
                    model.await_closes();
                }
                model.interrupted();
                world.again(in_order);
            }
            2..=5 => {
                model.killed(worker);
                let path = world.mount().path.clone();
                std::mem::replace(&mut world.workers[worker], Worker::start(&path)).kill();
            }
            6..=23 => {
                let (name, bytes) = logs.iter_mut().nth(random.below(LOGS.len() as u64) as usize).expect("one");
                let (length, seed) = (random.below(3000), random.below(1 << 20));
                match world.workers[worker].does(&format!("append {name} {length} {seed}")) {
                    Ok(count) => {
                        assert_eq!(count, length, "all of it, or nothing");
                        bytes.extend(crate::common::bytes(length as usize, seed));
                    }
                    Err(errno) => assert_eq!(errno, libc::ENOSPC),
                }
                assert_eq!(world.workers[worker].does(&format!("read {name}")), Ok(sum(bytes)));
            }
            24..=33 => stream(&mut world.workers, random, n),
            _ => model.step(&mut world.workers, worker, random),
        }
    }
    model.close_all(&mut world.workers);
    let expected = model.settle();
    // Until all of it is at the replicas, or the reason why not.
    fs::read(world.mount().file(".pigeonfs/box/wait")).expect("all is delivered");
    for name in LOGS {
        fs::read(world.mount().file(&format!(".pigeonfs/{name}/wait"))).expect("all is delivered");
    }
    let arrived = world.work.path("r").join(&base);
    let mut found = BTreeMap::new();
    let until = Instant::now() + crate::common::PATIENCE;
    while found != expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        found = tree(&arrived);
    }
    assert_eq!(found, expected, "the tree that arrived, and the model's, of round {n}");
    model.tally
}

/// A stream that is taken back before it has left.
fn stream(workers: &mut [Worker], random: &mut Random, n: u64) {
    let (one, other) = (random.below(WORKERS) as usize, random.below(WORKERS) as usize);
    let (length, seed) = (1 + random.below(4000), random.below(1 << 20));
    let (name, renamed) = (format!("stream{n}-{seed}"), format!("renamed{n}-{seed}"));
    let handle = format!("s{seed}");
    let began = Instant::now();
    let steps = [
        (one, format!("create {handle} {name}"), Ok(0)),
        (one, format!("write {handle} 0 {length} {seed}"), Ok(length)),
        (other, format!("read {name}"), Ok(sum(&bytes(length as usize, seed)))),
        (other, format!("rename {name} {renamed}"), Ok(0)),
        (other, format!("link {renamed} {name}"), Err(libc::EPERM)),
        (other, format!("stat {name}"), Err(libc::ENOENT)),
        (other, format!("cut {renamed} 0"), Ok(0)),
        (one, format!("size {handle}"), Ok(0)),
        (other, format!("append {renamed} 100 {seed}"), Ok(100)),
        (other, format!("unlink {renamed}"), Ok(0)),
        (one, format!("sum {handle}"), Ok(sum(&bytes(100, seed)))),
        (one, format!("close {handle}"), Ok(0)),
    ];
    for (worker, step, expected) in steps {
        let outcome = workers[worker].does(&step);
        // What is older may have left, on a slow machine.
        if began.elapsed() > Duration::from_millis(1500) || outcome == Err(libc::ENOSPC) {
            return;
        }
        assert_eq!(outcome, expected, "{step}");
    }
}

/// The files of a tree, by their names from there on, each with the sum of its bytes.
fn tree(directory: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below").to_string_lossy().into_owned();
                found.insert(name, sum(&fs::read(&path).expect("what has arrived can be read")));
            }
        }
    }
    found
}

fn compare(reader: &Mount, logs: &BTreeMap<&str, Vec<u8>>) {
    for (name, bytes) in logs {
        eventually(name, || (fs::read(reader.file(name)).ok()? == *bytes).then_some(()));
    }
}
