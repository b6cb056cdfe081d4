//! The mount beside what it is built on, in one run on one disk: appends beside a raw SQLite loop with the same
//! durability, reads beside a plain scan of the same rows, metadata beside bindfs; then how soon an interrupt ends a
//! wait, and how much memory the mount has taken. There is no network: what is measured is this machine's side.
//!
//! `scripts/bench fs` runs it. The disk is that of the build directory; a tmpfs is refused.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{command, memory, run_command};
use rusqlite::Connection;

/// Plaintext of a box, as on the networks that there are.
const BOX: usize = 1549;
const CHANNELS: usize = 10_000;
/// Files of a drop.
const FILES: usize = 20_000;
const MIB: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        // This program again, as one of several that write at once.
        Some("append-file") => return append_file(Path::new(&arguments[2]), arguments[3].parse().unwrap()),
        Some("append-rows") => return append_rows(Path::new(&arguments[2]), arguments[3].parse().unwrap()),
        _ => {}
    }
    let dir = tempfile::Builder::new().prefix("bench-fs").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kind = run("stat", &["-f", "-c", "%T", dir.path().to_str().unwrap()]);
    assert_ne!(kind.trim(), "tmpfs", "a disk is wanted: give another CARGO_TARGET_DIR");
    println!("disk: {}  cores: {}", kind.trim(), std::thread::available_parallelism().unwrap());
    println!("{:<34} {:>12} {:>22} {:>7}  goal", "", "mount", "beside it", "ratio");

    let mount = Mount::start(dir.path());
    let idle = memory(mount.child.id());
    let raw = dir.path().join("raw.db");
    appends(&mount, &raw, "append, 4 kB a write", 4096, 2000);
    appends(&mount, &raw, "append, 1 MiB a write", MIB, 64);
    reads(&mount, &raw, "read again, 64 MiB", 64 * MIB);
    many_writers(&mount, dir.path());
    metadata(&mount, dir.path());
    let mount = drop_of_many(mount, dir.path());
    io_uring(&mount);
    interrupts(&mount, dir.path());
    let (now, most) = memory(mount.child.id());
    line("memory, idle and in the end", &format!("{} MiB", idle.0 / 1024), &format!("{} MiB", now / 1024), None, "");
    line("memory, at most", &format!("{} MiB", most / 1024), "", None, "");
}

/// One line of the table. A ratio comes with whether it meets its goal.
fn line(what: &str, ours: &str, beside: &str, ratio: Option<(f64, bool)>, goal: &str) {
    let ratio = ratio.map_or_else(String::new, |(ratio, met)| format!("{ratio:>6.2}{}", if met { " " } else { "!" }));
    println!("{what:<34} {ours:>12} {beside:>22} {ratio:>7}  {goal}");
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / MIB as f64 / time.as_secs_f64()
}

fn appends(mount: &Mount, raw: &Path, what: &str, size: usize, count: usize) {
    let bytes = vec![0x5a; size];
    // In turns, so that both see the same disk.
    let rounds = 4;
    let mut file = OpenOptions::new().append(true).create(true).open(mount.file(&format!("append-{size}"))).unwrap();
    let mut connection = open(raw);
    connection.execute_batch("DELETE FROM box").unwrap();
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        ours += timed(|| (0..count / rounds).for_each(|_| file.write_all(&bytes).unwrap()));
        theirs += timed(|| (0..count / rounds).for_each(|_| insert(&mut connection, &bytes)));
    }
    let (ours, theirs) = (rate(size * count, ours), rate(size * count, theirs));
    let ratio = ours / theirs;
    line(
        what,
        &format!("{ours:.1} MiB/s"),
        &format!("SQLite {theirs:.1} MiB/s"),
        Some((ratio, ratio >= 0.4)),
        ">= 0.40",
    );
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS box (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
        )
        .unwrap();
    connection
}

/// One write: its boxes, in one transaction that is on the disk when it returns.
fn insert(connection: &mut Connection, bytes: &[u8]) {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    {
        let mut insert = transaction.prepare_cached("INSERT INTO box (payload) VALUES (?1)").unwrap();
        for piece in bytes.chunks(BOX) {
            insert.execute([piece]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn reads(mount: &Mount, raw: &Path, what: &str, size: usize) {
    let file = File::open(mount.file(&format!("append-{MIB}"))).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size as u64);
    let mut buffer = vec![0; MIB];
    let connection = open(raw);
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        ours = ours.min(timed(|| {
            for at in 0..size / MIB {
                file.read_exact_at(&mut buffer, (at * MIB) as u64).unwrap();
            }
        }));
        theirs = theirs.min(timed(|| {
            let mut scan = connection.prepare_cached("SELECT payload FROM box ORDER BY seq").unwrap();
            let mut rows = scan.query([]).unwrap();
            let mut at = 0;
            while let Some(row) = rows.next().unwrap() {
                let piece = row.get_ref(0).unwrap().as_blob().unwrap();
                let from = at % MIB;
                buffer[from..from + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            assert_eq!(at, size);
        }));
    }
    let (ours, theirs) = (rate(size, ours), rate(size, theirs));
    let ratio = ours / theirs;
    line(
        what,
        &format!("{ours:.0} MiB/s"),
        &format!("SQLite {theirs:.0} MiB/s"),
        Some((ratio, ratio >= 0.5)),
        ">= 0.50",
    );
}

fn many_writers(mount: &Mount, dir: &Path) {
    const WRITERS: usize = 8;
    const WRITES: usize = 200;
    let all = |verb: &str, path: &Path| {
        let start = || {
            let program = std::env::current_exe().unwrap();
            Command::new(program).arg(verb).arg(path).arg(WRITES.to_string()).spawn().unwrap()
        };
        timed(|| {
            let children: Vec<Child> = (0..WRITERS).map(|_| start()).collect();
            children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        })
    };
    let raw = dir.join("many.db");
    drop(open(&raw));
    let (ours, theirs) = (all("append-file", &mount.file("many")), all("append-rows", &raw));
    let per_second = |time: Duration| (WRITERS * WRITES) as f64 / time.as_secs_f64();
    let (ours, theirs) = (per_second(ours), per_second(theirs));
    line(
        "appends of 100 B, 8 processes",
        &format!("{ours:.0} /s"),
        &format!("SQLite {theirs:.0} /s"),
        Some((ours / theirs, true)),
        "",
    );
}

fn append_file(path: &Path, count: usize) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    (0..count).for_each(|_| file.write_all(&[b'x'; 100]).unwrap());
}

fn append_rows(path: &Path, count: usize) {
    let mut connection = open(path);
    (0..count).for_each(|_| insert(&mut connection, &[b'x'; 100]));
}

fn metadata(mount: &Mount, dir: &Path) {
    let (plain, bound) = (dir.join("plain"), dir.join("bound"));
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&bound).unwrap();
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("channel-{:05}", n * 7919 % CHANNELS)).collect();
    let made = timed(|| {
        std::thread::scope(|scope| {
            for names in names.chunks(CHANNELS / 16) {
                scope.spawn(move || names.iter().for_each(|name| drop(File::create(mount.file(name)).unwrap())));
            }
        });
    });
    names.iter().for_each(|name| drop(File::create(plain.join(name)).unwrap()));
    line("create, 16 threads", &format!("{:.0} /s", CHANNELS as f64 / made.as_secs_f64()), "", None, "");
    run("bindfs", &["-o", "fsname=bench", plain.to_str().unwrap(), bound.to_str().unwrap()]);
    let _unbind = Unmount(bound.clone());
    let stat = |root: &Path| {
        let pass = || timed(|| names.iter().for_each(|name| assert!(fs::metadata(root.join(name)).unwrap().is_file())));
        // What bindfs has the kernel keep is given a second to be forgotten.
        (0..3).map(|_| (std::thread::sleep(Duration::from_millis(1100)), pass()).1).min().unwrap()
    };
    let list = |root: &Path| {
        let pass = || timed(|| assert!(fs::read_dir(root).unwrap().filter(Result::is_ok).count() >= CHANNELS));
        (0..3).map(|_| pass()).min().unwrap()
    };
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / CHANNELS as f64;
    let (ours, theirs) = (micros(stat(mount.path())), micros(stat(&bound)));
    let ratio = ours / theirs;
    line(
        "stat, 10,000 channels, each",
        &format!("{ours:.1} us"),
        &format!("bindfs {theirs:.1} us"),
        Some((ratio, ratio <= 1.5)),
        "<= 1.50",
    );
    let (ours, theirs) = (list(mount.path()), list(&bound));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    line(
        "readdir, 10,000 channels",
        &format!("{:.1} ms", ours.as_secs_f64() * 1e3),
        &format!("bindfs {:.1} ms", theirs.as_secs_f64() * 1e3),
        Some((ratio, true)),
        "",
    );
}

/// What a drop costs with very many files in it. The mount is started anew in the middle.
fn drop_of_many(mount: Mount, dir: &Path) -> Mount {
    let (plain, bound) = (dir.join("plain-files"), dir.join("bound-files"));
    let name = |n: usize| format!("file-{n:06}");
    for directory in [&plain, &bound, &mount.file("drop")] {
        fs::create_dir(directory).unwrap();
    }
    let make = |directory: &Path, numbers: std::ops::Range<usize>| {
        timed(|| numbers.for_each(|n| fs::write(directory.join(name(n)), b"some bytes").unwrap()))
    };
    // Microseconds for one. Each file once within what the kernel keeps of it: a tick of its clock.
    let look = |directory: &Path, count: usize| {
        let pass = |first: usize| {
            std::thread::sleep(Duration::from_millis(20));
            timed(|| {
                for n in first..first + 100 {
                    assert!(fs::metadata(directory.join(name(n * 7919 % count))).unwrap().is_file());
                }
            })
        };
        (0..50).map(|n| pass(n * 100)).min().unwrap().as_secs_f64() * 1e4
    };
    make(&mount.file("drop"), 0..100);
    let few = look(&mount.file("drop"), 100);
    let made = (FILES - 100) as f64 / make(&mount.file("drop"), 100..FILES).as_secs_f64();
    line("files made in a drop", &format!("{made:.0} /s"), "", Some((made / 500.0, made >= 500.0)), ">= 500 /s");
    make(&plain, 0..FILES);
    let is_settled = || !fs::read_to_string(mount.file(".pigeonfs/drop/status")).unwrap().contains("settling");
    while !is_settled() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let many = look(&mount.file("drop"), FILES);
    let ratio = many / few;
    line(
        "lstat in a drop, 20,000 files",
        &format!("{many:.1} us"),
        &format!("100 files {few:.1} us"),
        Some((ratio, (0.8..=1.2).contains(&ratio))),
        "0.80 .. 1.20",
    );
    run("bindfs", &["-o", "fsname=bench", plain.to_str().unwrap(), bound.to_str().unwrap()]);
    let _unbind = Unmount(bound.clone());
    for (what, program) in [("ls -l of 20,000 files in a drop", "ls -l"), ("find of them", "find")] {
        let pass = |directory: &Path| {
            let script = format!("{program} {} > /dev/null", directory.display());
            (0..3).map(|_| timed(|| drop(run("sh", &["-c", &script])))).min().unwrap().as_secs_f64()
        };
        let (ours, theirs) = (pass(&mount.file("drop")), pass(&bound));
        let (ratio, beside) = (ours / theirs, format!("bindfs {:.0} ms", theirs * 1e3));
        line(what, &format!("{:.0} ms", ours * 1e3), &beside, Some((ratio, ratio <= 1.5)), "<= 1.50");
    }
    drop(mount);
    let mut mount = None;
    let started = timed(|| mount = Some(Mount::again(dir)));
    let mount = mount.unwrap();
    let listed = timed(|| assert_eq!(fs::read_dir(mount.file("drop")).unwrap().count(), FILES));
    line(
        "mount with them, and a listing",
        &format!("{:.0} ms", started.as_secs_f64() * 1e3),
        &format!("listed in {:.0} ms", listed.as_secs_f64() * 1e3),
        Some((started.as_secs_f64(), started <= Duration::from_secs(1))),
        "<= 1 s",
    );
    mount
}

/// Random writes in a drop, asked for in two ways. There is no goal: SEMANTICS.md says why io_uring waits.
fn io_uring(mount: &Mount) {
    fs::create_dir(mount.file("random")).unwrap();
    let rate = |engine: &str| {
        let directory = format!("--directory={}", mount.file("random").display());
        let arguments =
            ["--name=w", &directory, &format!("--ioengine={engine}"), "--rw=randwrite", "--bs=4k", "--size=16m"];
        let told = run(
            "fio",
            &[&arguments[..], &["--runtime=5", "--time_based", "--fallocate=none", "--output-format=terse"]].concat(),
        );
        // The IOPS of writes, as `fio --output-format=terse` version 3 has it.
        told.lines().last().and_then(|line| line.split(';').nth(48)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let (ours, theirs) = (rate("io_uring"), rate("libaio"));
    let beside = format!("libaio {theirs:.0} /s");
    line("io_uring, random writes in a drop", &format!("{ours:.0} /s"), &beside, Some((ours / theirs, true)), "");
}

fn interrupts(mount: &Mount, dir: &Path) {
    mount.reader(dir, "unknown");
    let file = mount.file("unknown");
    let mut times: Vec<Duration> = (0..100).map(|n| interrupt(&file, n)).collect();
    times.sort();
    let of = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let met = of(99) <= 200.0;
    line(
        "Ctrl-C ends a waiting read, p50, p99",
        &format!("{:.0} ms", of(50)),
        &format!("{:.0} ms", of(99)),
        Some((of(99) / 200.0, met)),
        "p99 <= 200 ms",
    );
    let longest = (0..10).map(|_| in_state_d(&file)).max().unwrap().as_secs_f64() * 1e3;
    line(
        "a handled signal, in state D at most",
        &format!("{longest:.0} ms"),
        "",
        Some((longest / 1000.0, longest < 1000.0)),
        "< 1000 ms",
    );
}

/// How long after its signal a `cat` that waits is gone. The signal comes at another time of its wait in each round.
fn interrupt(file: &Path, round: u64) -> Duration {
    // Whoever started this may ignore the signal, and what ignores it stays.
    let mut cat = Command::new("env");
    let mut cat = cat.args(["--default-signal=INT", "cat"]).arg(file).stdout(Stdio::null()).spawn().unwrap();
    wait_for_read(&cat);
    std::thread::sleep(Duration::from_millis(round * 7 % 300));
    let pid = rustix::process::Pid::from_child(&cat);
    timed(|| {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(!cat.wait().unwrap().success());
    })
}

/// How long a `dd` that waits, and is asked how far it has come, is in state D until it says so.
fn in_state_d(file: &Path) -> Duration {
    let mut dd = Command::new("dd");
    let mut dd = dd.arg(format!("if={}", file.display())).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_read(&dd);
    let mut said = dd.stderr.take().unwrap();
    let heard = std::thread::spawn(move || said.read_exact(&mut [0]));
    rustix::process::kill_process(rustix::process::Pid::from_child(&dd), rustix::process::Signal::USR1).unwrap();
    let (mut since, mut longest) = (None, Duration::ZERO);
    while !heard.is_finished() {
        let stat = fs::read_to_string(format!("/proc/{}/stat", dd.id())).unwrap();
        let is_d = stat.rsplit_once(") ").unwrap().1.starts_with('D');
        since = is_d.then(|| since.unwrap_or_else(Instant::now));
        longest = longest.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        std::thread::sleep(Duration::from_millis(1));
    }
    heard.join().unwrap().unwrap();
    dd.kill().unwrap();
    dd.wait().unwrap();
    longest
}

/// Until a program is in a call that reads, and waits there.
fn wait_for_read(child: &Child) {
    let process = format!("/proc/{}", child.id());
    let is_read = |call: String| call.starts_with(&format!("{} ", libc::SYS_read));
    let waits = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['S', 'D']));
    while !(fs::read_to_string(format!("{process}/syscall")).is_ok_and(is_read)
        && fs::read_to_string(format!("{process}/stat")).is_ok_and(waits))
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program itself, mounted, with no network to be had.
struct Mount {
    child: Child,
    path: Unmount,
    state: PathBuf,
}

impl Mount {
    fn start(dir: &Path) -> Self {
        fs::create_dir(dir.join("mnt")).unwrap();
        Self::again(dir)
    }

    /// Once more, with the state that is there.
    fn again(dir: &Path) -> Self {
        let (path, state) = (dir.join("mnt"), dir.join("state"));
        let mut child = command(&state);
        let child = child.arg("mount").arg("--json").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut mount = Self { child, path: Unmount(path), state };
        let mut ready = [0; 1];
        mount.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        mount
    }

    fn path(&self) -> &Path {
        &self.path.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.0.join(name)
    }

    /// A channel of which nothing is known: a read of it waits.
    fn reader(&self, dir: &Path, name: &str) {
        let other = dir.join("other");
        run_command(command(&other).args(["new", name]), b"");
        let capability = run_command(command(&other).args(["share", name]), b"");
        run_command(command(&self.state).args(["add", name]), &capability);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path.0).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place that is unmounted when it goes.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").args(["-uzq"]).arg(&self.0).status();
    }
}
