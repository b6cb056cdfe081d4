//! Killed at any commit point, the store holds all that was acknowledged, and nothing by halves.
//!
//! The test runs itself again as a child, which kills itself with SIGKILL at its N-th commit point, or is killed by the
//! parent in the middle of many requests. The parent then opens what the child left.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::{Pid, Signal};

use super::super::*;
use super::model::{Model, Op, op};
use super::{LIMITS, RESERVE_BYTES, name};
use crate::bacap::WriteCap;

/// Where the writer thread can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Point {
    /// All is done but the COMMIT.
    Applied,
    /// After the COMMIT, before anybody knows.
    Committed,
    /// After the answers.
    Settled,
}

pub(super) const DIR: &str = "PIGEONFS_TEST_CRASH_DIR";
const SEED: &str = "PIGEONFS_TEST_CRASH_SEED";
const AT: &str = "PIGEONFS_TEST_CRASH_AT";

/// Passed by the writer thread.
pub(in crate::store) fn point(_: Point) {
    static LETHAL: OnceLock<Option<u64>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let lethal = LETHAL.get_or_init(|| std::env::var(AT).ok().map(|at| at.parse().unwrap()));
    if lethal.is_some_and(|lethal| PASSED.fetch_add(1, Ordering::Relaxed) + 1 == lethal) {
        kill(Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap());
    }
}

fn kill(pid: Pid) {
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

pub(super) fn open(dir: &Path) -> Store {
    let state = StateDir::lock(&dir.join("state")).unwrap();
    Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap()
}

pub(super) fn child(test: &str, dir: &Path, seed: u8, at: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DIR, dir).env(SEED, seed.to_string());
    if let Some(at) = at {
        command.env(AT, at.to_string());
    }
    command.stdout(Stdio::null()).spawn().unwrap()
}

pub(super) fn was_killed(status: ExitStatus) -> bool {
    assert!(status.success() || status.signal() == Some(9), "the child failed in another way: {status}");
    !status.success()
}

/// The same requests in the child and in the parent.
fn ops(seed: u8) -> Vec<Op> {
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &[seed.max(1); 16]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let drawn = proptest::collection::vec(op(), 60).new_tree(&mut runner).unwrap().current();
    [Op::Create(0), Op::Create(1), Op::Bind(0)].into_iter().chain(drawn).collect()
}

#[test]
fn one_request_after_another_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let ops = ops(std::env::var(SEED).unwrap().parse().unwrap());
    let mut store = open(dir);
    let mut model = Model::default();
    let mut acknowledged = File::create(dir.join("acknowledged")).unwrap();
    for op in &ops {
        assert_eq!(model.request(&store, op).is_ok(), model.apply(op), "{op:?}");
        if let Op::Reopen = op {
            store.close();
            store = open(dir);
        }
        acknowledged.write_all(b".").unwrap();
    }
    store.close();
}

#[test]
fn killed_at_the_nth_commit_point_all_that_was_acknowledged_is_there() {
    let mut kills = 0;
    for seed in 1..=3 {
        let ops = ops(seed);
        for at in [1, 2, 3, 4, 6, 9, 14, 22, 35, 50, 71, 98, 130] {
            let dir = tempfile::tempdir().unwrap();
            let status =
                child("store::tests::crash::one_request_after_another_child", dir.path(), seed, Some(at)).wait();
            kills += u32::from(was_killed(status.unwrap()));
            let acknowledged = fs::read(dir.path().join("acknowledged")).map_or(0, |dots| dots.len());
            let store = open(dir.path());
            let mut model = Model::default();
            for op in &ops[..acknowledged] {
                model.apply(op);
            }
            // The request that was under way is there whole or not at all.
            let Err(without) = model.compare(&store) else { continue };
            let next = &ops[acknowledged];
            model.apply(next);
            if let Err(with) = model.compare(&store) {
                panic!("seed {seed}, point {at}, request {acknowledged}: without {next:?}: {without}; with it: {with}");
            }
        }
    }
    assert!(kills > 20, "only {kills} of the children came to their point");
}

/// Records of this length say who wrote them, and which they are.
const RECORD: usize = 500;
const THREADS: usize = 4;

fn record(writer: usize, at: usize) -> Vec<u8> {
    let mut record = format!("{writer} {at:08} ").into_bytes();
    record.resize(RECORD, b'a' + u8::try_from((writer + at) % 26).unwrap());
    record
}

#[test]
fn many_requests_at_once_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let store = open(dir);
    let id = store.create_stream(name("log"), WriteCap::from_seed(&[1; 32])).wait().unwrap();
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let store = store.clone();
            let mut acknowledged = File::create(dir.join(format!("acknowledged-{writer}"))).unwrap();
            scope.spawn(move || {
                for batch in 0.. {
                    let commits: Vec<_> =
                        (0..5).map(|at| store.append(id, record(writer, batch * 5 + at), None)).collect();
                    for commit in commits {
                        commit.wait().unwrap();
                        acknowledged.write_all(b".").unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn killed_in_the_middle_of_many_requests_each_is_there_once_whole_and_in_order() {
    for enough in [1, 60, 333, 900] {
        let dir = tempfile::tempdir().unwrap();
        let count = |writer| {
            fs::metadata(dir.path().join(format!("acknowledged-{writer}")))
                .map_or(0, |found| usize::try_from(found.len()).unwrap())
        };
        let mut child = child("store::tests::crash::many_requests_at_once_child", dir.path(), 0, None);
        while (0..THREADS).map(count).sum::<usize>() < enough {
            assert!(child.try_wait().unwrap().is_none(), "the child ended early");
            thread::yield_now();
        }
        child.kill().unwrap();
        assert!(was_killed(child.wait().unwrap()));
        let store = open(dir.path());
        let channel = store.by_name(&name("log")).unwrap().unwrap();
        let mut all = Vec::new();
        while (all.len() as u64) < channel.size {
            all.extend(store.read(channel.id, all.len() as u64, MAX_READ_BYTES).unwrap());
        }
        assert_eq!(all.len() % RECORD, 0, "a record by halves");
        let mut found = [0; THREADS];
        for bytes in all.chunks(RECORD) {
            let writer = usize::from(bytes[0] - b'0');
            assert!(bytes == record(writer, found[writer]), "not the next record of writer {writer}");
            found[writer] += 1;
        }
        for (writer, found) in found.into_iter().enumerate() {
            assert!(found >= count(writer), "writer {writer}: {found} records, {} acknowledged", count(writer));
        }
    }
}
