//! Sixty-four threads at once on one mount, with a network beneath that is killed and started anew, and callers that are
//! interrupted in their waits. Then: no wrong byte, no hang, and no more memory or descriptors than before.
//!
//! Some seconds long; `PIGEONFS_LOAD_SECONDS` makes it longer, as `scripts/torture fs` does.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Kill, Mount, Work, eventually, no_fuse};
use rustix::process::{Pid, Signal, kill_process};

/// Streams with one writer each.
const STREAMS: usize = 16;
/// Writers of one stream together.
const TOGETHER: usize = 8;
/// No stream grows beyond this, however long it all takes.
const LONGEST: u64 = 400_000;

/// The byte that stands at this offset of a stream.
fn pattern(stream: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ (stream as u64).wrapping_mul(97)) as u8
}

fn piece(stream: usize, from: u64, count: u64) -> Vec<u8> {
    (from..from + count).map(|offset| pattern(stream, offset)).collect()
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn a_crowd_over_a_failing_network_meets_no_wrong_byte_and_no_hang() {
    if no_fuse() {
        return;
    }
    let seconds = std::env::var("PIGEONFS_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut work = Work::new();
    work.log = "warn";
    let mut net = Some(work.localnet("net"));
    let config = net.as_ref().expect("started").config().to_owned();
    let mount = work.mount("m", "s", &["--config", &config]);
    work.verb("other", &["new", "unknown"]).ok();
    let capability = work.verb("other", &["share", "unknown"]).ok().stdout;

    let stop = AtomicBool::new(false);
    let grown: Vec<AtomicU64> = (0..STREAMS).map(|_| AtomicU64::new(0)).collect();
    let operations = AtomicU64::new(0);
    (0..STREAMS).for_each(|n| drop(File::create(mount.file(&name(n))).expect("made")));
    drop(File::create(mount.file("together")).expect("made"));
    let mut before = None;
    std::thread::scope(|scope| {
        let (stop, grown, operations, mount, work) = (&stop, &grown, &operations, &mount, &work);
        let crowd = move |seed: usize, mut act: Box<dyn FnMut(&mut Dice) + Send>| {
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9 + seed as u64);
                while !stop.load(Ordering::Relaxed) {
                    act(&mut dice);
                    operations.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        for n in 0..STREAMS {
            let mut file = OpenOptions::new().append(true).open(mount.file(&name(n))).expect("opened");
            crowd(n, Box::new(move |dice| append(&mut file, n, &grown[n], dice)));
            crowd(100 + n, Box::new(move |dice| look(&mount.path, grown, dice)));
        }
        for writer in 0..TOGETHER {
            let (path, mut line) = (mount.file("together"), 0);
            crowd(
                200 + writer,
                Box::new(move |dice| {
                    if line < 400 {
                        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
                        file.write_all(format!("{writer} {line}\n").as_bytes()).expect("written");
                        line += 1;
                    }
                    std::thread::sleep(Duration::from_millis(dice.below(20)));
                }),
            );
            crowd(300 + writer, Box::new(move |dice| metadata(&mount.path, dice)));
            crowd(400 + writer, Box::new(move |_| listing(&mount.path)));
        }
        // Its frontier is unknown while there is no network; whoever reads it waits, and is interrupted.
        work.verb_with("s", &["add", "unknown"], &capability).ok();
        for waiter in 0..8 {
            crowd(500 + waiter, Box::new(move |dice| interrupted(&mount.file("unknown"), dice)));
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1200));
            before.get_or_insert_with(|| footprint(mount));
            net.take().expect("running").kill();
            std::thread::sleep(Duration::from_millis(300));
            net = Some(work.localnet("net"));
        }
        stop.store(true, Ordering::Relaxed);
    });

    for (n, grown) in grown.iter().enumerate() {
        let read = fs::read(mount.file(&name(n))).expect("read back");
        assert_eq!(read.len() as u64, grown.load(Ordering::Relaxed), "stream {n}");
        assert!(read == piece(n, 0, read.len() as u64), "stream {n} was altered");
    }
    let together = fs::read_to_string(mount.file("together")).expect("read back");
    for writer in 0..TOGETHER {
        let own = |line: &&str| line.split(' ').next() == Some(&writer.to_string());
        for (n, line) in together.lines().filter(own).enumerate() {
            assert_eq!(line, format!("{writer} {n}"), "whole, once and in order");
        }
    }
    let (memory, files) = footprint(&mount);
    let (memory_before, files_before) = before.expect("looked at");
    assert!(files <= files_before + 16, "{files_before} descriptors have become {files}");
    assert!(memory <= memory_before + (160 << 10), "{memory_before} KiB have become {memory}");
    assert!(operations.load(Ordering::Relaxed) > 64, "it was a crowd");

    // And all of it is on the other side.
    work.verb("s", &["wait", "--timeout", "200", "together"]).ok();
    work.verb("s", &["wait", "--timeout", "200", &name(0)]).ok();
    let bob = work.mount("bob", "bob-state", &["--config", &config]);
    for name in ["together".to_owned(), name(0)] {
        work.share("s", "bob-state", &name);
        let size = fs::metadata(mount.file(&name)).expect("there").len();
        work.verb("bob-state", &["wait", "--timeout", "200", "--bytes", &size.to_string(), &name]).ok();
        assert!(fs::read(bob.file(&name)).expect("read") == fs::read(mount.file(&name)).expect("read"), "{name}");
    }
}

fn name(stream: usize) -> String {
    format!("stream-{stream:02}")
}

fn append(file: &mut File, stream: usize, grown: &AtomicU64, dice: &mut Dice) {
    let at = grown.load(Ordering::Relaxed);
    if at < LONGEST {
        let count = 1 + dice.below(6000);
        file.write_all(&piece(stream, at, count)).expect("written");
        grown.store(at + count, Ordering::Release);
        if dice.below(16) == 0 {
            file.sync_data().expect("synced");
        }
    }
    std::thread::sleep(Duration::from_millis(dice.below(40)));
}

/// Reads somewhere, and at the end: what was there before must be there, and be what was written.
fn look(mount: &Path, grown: &[AtomicU64], dice: &mut Dice) {
    let stream = usize::try_from(dice.below(STREAMS as u64)).expect("small");
    let there = grown[stream].load(Ordering::Acquire);
    let file = File::open(mount.join(name(stream))).expect("opened");
    let from = dice.below(there + 1);
    let mut bytes = vec![0; 1 + usize::try_from(dice.below(20_000)).expect("small")];
    let count = file.read_at(&mut bytes, from).expect("read") as u64;
    assert!(count >= (there - from).min(bytes.len() as u64), "{count} bytes at {from} of {there}");
    assert!(bytes[..usize::try_from(count).expect("small")] == piece(stream, from, count), "stream {stream} at {from}");
}

fn metadata(mount: &Path, dice: &mut Dice) {
    let stream = usize::try_from(dice.below(STREAMS as u64)).expect("small");
    let path = mount.join(name(stream));
    let before = fs::metadata(&path).expect("there").len();
    let after = File::open(&path).expect("opened").metadata().expect("there").len();
    assert!(after >= before, "it only grows");
    assert!(fs::metadata(mount.join("none")).is_err());
    fs::read_to_string(mount.join(".pigeonfs").join(name(stream)).join("status")).expect("a status");
    rustix::fs::statvfs(mount).expect("a file system");
}

fn listing(mount: &Path) {
    let names = fs::read_dir(mount).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    assert!(names.count() >= STREAMS);
    std::thread::sleep(Duration::from_millis(5));
}

/// A `cat` that may have to wait, and is told to end after a while. It ends, whatever it was told.
fn interrupted(file: &Path, dice: &mut Dice) {
    let child = Command::new("cat").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cat");
    let mut child = Kill(child);
    std::thread::sleep(Duration::from_millis(dice.below(300)));
    let signal = [Signal::INT, Signal::TERM, Signal::KILL, Signal::HUP][usize::try_from(dice.below(4)).expect("small")];
    let _ = kill_process(Pid::from_child(&child.0), signal);
    eventually("the end of cat", || child.0.try_wait().expect("our child"));
}

/// Resident memory in KiB, and open descriptors, of the mount.
fn footprint(mount: &Mount) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let memory = line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    (memory, fs::read_dir(format!("/proc/{}/fd", mount.pid())).expect("it runs").count())
}
