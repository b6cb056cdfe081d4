//! Power cuts and failing disks: the store on a disk in memory that loses what was not synced.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use simdisk::{Event, Fault, Image, Loss, Operation, SimDisk};
use tempfile::TempDir;

use super::super::clock::Clock;
use super::super::*;
use super::LIMITS;
use super::model::{Model, Op, op};
use crate::bacap::WriteCap;

/// A store on a disk in memory; only its lock is on a real one.
struct Simulated {
    disk: SimDisk,
    state: StateDir,
    _dir: TempDir,
}

impl Simulated {
    fn with(image: Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { disk: SimDisk::with(image), state: StateDir::lock(dir.path()).unwrap(), _dir: dir }
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open_on(self.disk.vfs(), &self.state, LIMITS, Clock::default())
    }
}

fn ops(seed: u8, count: usize) -> Vec<Op> {
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &[seed.max(1); 16]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let drawn = proptest::collection::vec(op(), count - 3).new_tree(&mut runner).unwrap().current();
    [Op::Create(0), Op::Create(1), Op::Bind(0)].into_iter().chain(drawn).collect()
}

/// What was done to a disk, and what had been acknowledged by then.
struct History {
    events: Vec<Event>,
    /// The length of the events at each acknowledgement, and what the store has to say from then on.
    acknowledged: Vec<(usize, Model)>,
}

fn recorded(ops: &[Op]) -> History {
    let home = Simulated::with(Image::default());
    home.disk.record();
    let mut store = home.open().unwrap();
    let mut model = Model::default();
    let mut acknowledged = vec![(home.disk.recorded(), model.clone())];
    for op in ops {
        assert_eq!(model.request(&store, op).is_ok(), model.apply(op), "{op:?}");
        acknowledged.push((home.disk.recorded(), model.clone()));
        model.compare(&store).unwrap_or_else(|difference| panic!("after {op:?}: {difference}"));
        if let Op::Reopen = op {
            store.close();
            store = home.open().unwrap();
        }
    }
    store.close();
    History { events: home.disk.history(), acknowledged }
}

/// At every sync of a history of 500 requests the power fails, and what was not synced is there, or not, or in parts:
/// what was acknowledged is there, and the request that was under way whole or not at all.
#[test]
fn a_power_cut_at_any_sync_takes_nothing_that_was_acknowledged() {
    let ops = ops(7, 560);
    assert!(ops.iter().any(|op| matches!(op, Op::SetMax(..))));
    assert!(ops.len() >= 500);
    let history = recorded(&ops);
    let mut image = Image::default();
    let mut cuts = 0;
    for (at, event) in history.events.iter().enumerate() {
        if let Event::Sync { .. } = event
            && at >= history.acknowledged[0].0
        {
            for loss in [Loss::None, Loss::All, Loss::Random(at as u64)] {
                check_cut(&history, &image.after_cut(loss), at, loss);
                cuts += 1;
            }
        }
        image.apply(event.clone());
    }
    eprintln!("{cuts} power cuts in {} events", history.events.len());
    assert!(cuts > 1000, "only {cuts} cuts");
}

fn check_cut(history: &History, left: &Image, at: usize, loss: Loss) {
    let home = Simulated::with(left.clone());
    let store = home.open().unwrap_or_else(|error| panic!("event {at}, {loss:?}: it does not open: {error}"));
    let done = history.acknowledged.partition_point(|(length, _)| *length <= at) - 1;
    let without = history.acknowledged[done].1.compare(&store);
    let Err(without) = without else { return store.close() };
    let Some((_, next)) = history.acknowledged.get(done + 1) else { panic!("event {at}, {loss:?}: {without}") };
    if let Err(with) = next.compare(&store) {
        panic!("event {at}, {loss:?}, request {done}: without it: {without}; with it: {with}");
    }
    store.close();
}

/// A sealed state, whose power fails at each of its syncs: what was acknowledged is there, and the disk says nothing of it.
#[test]
fn a_sealed_state_survives_power_cuts_and_its_disk_says_nothing() {
    let key = StateKey::random().unwrap();
    let sealed = |image| {
        let home = Simulated::with(image);
        let passphrase = Passphrase::new(zeroize::Zeroizing::new(b"one".to_vec())).unwrap();
        seal(&home.state, &passphrase).unwrap();
        home.state.unlock(key.clone());
        home
    };
    let home = sealed(Image::default());
    home.disk.record();
    let store = home.open().unwrap();
    let secret = b"0123456789abcdef";
    let id = store.create_stream(super::name("zugspitze"), WriteCap::from_seed(&[9; 32])).wait().unwrap();
    let mut acknowledged = vec![(home.disk.recorded(), 0)];
    for round in 1..=6_u64 {
        store.append(id, secret.repeat(100), None).wait().unwrap();
        acknowledged.push((home.disk.recorded(), round * 1600));
    }
    store.close();
    let (mut image, mut cuts) = (Image::default(), 0);
    for (at, event) in home.disk.history().into_iter().enumerate() {
        if matches!(event, Event::Sync { .. }) && at >= acknowledged[0].0 && at % 2 == 0 {
            let left = image.after_cut(Loss::Random(at as u64));
            for name in ["/pigeonfs.db", "/pigeonfs.db-wal"] {
                let bytes = left.file(name).cloned().unwrap_or_default();
                for told in [&b"zugspitze"[..], secret, b"SQLite format", b"CREATE TABLE"] {
                    assert!(!bytes.windows(told.len()).any(|window| window == told), "event {at}: in {name}");
                }
            }
            let size = acknowledged[acknowledged.partition_point(|(length, _)| *length <= at) - 1].1;
            let home = sealed(left);
            let store = home.open().unwrap();
            let found = store.by_name(&super::name("zugspitze")).unwrap().unwrap();
            assert!(found.size == size || found.size == size + 1600, "event {at}: {} of {size}", found.size);
            store.close();
            cuts += 1;
        }
        image.apply(event);
    }
    assert!(cuts > 3, "{cuts} cuts");
}

/// The disk fails in all ways, for a moment or for a while. What is answered with an error may be there or not; nothing
/// else is, nothing that was acknowledged goes, and the store goes on by itself.
#[test]
fn a_disk_that_fails_loses_nothing_and_is_recovered_from() {
    let (mut failed, mut there, mut cuts) = (0, 0, 0);
    for seed in 1..=24 {
        let home = Simulated::with(Image::default());
        let mut store = home.open().unwrap();
        let mut model = Model::default();
        for (at, op) in ops(seed, 60).iter().enumerate() {
            if let Op::Reopen = op {
                continue;
            }
            let faulty = (usize::from(seed) * 31 + at * 17) % 5 == 0;
            if faulty {
                inject(&home.disk, usize::from(seed) + at);
            }
            let said = model.request(&store, op);
            home.disk.heal();
            let before = model.clone();
            let expected = model.apply(op);
            match said {
                Ok(()) => assert!(expected, "seed {seed}, {op:?}: it was done"),
                Err(
                    StoreError::Failed { .. }
                    | StoreError::Unavailable { .. }
                    | StoreError::Io { .. }
                    | StoreError::DiskFull,
                ) => {
                    assert!(faulty, "seed {seed}, {op:?}: it failed on a sound disk");
                    failed += 1;
                    recovered(&store);
                    if model.compare(&store).is_err() {
                        model = before;
                    } else {
                        there += 1;
                    }
                }
                Err(error) => assert!(!expected, "seed {seed}, {op:?}: {error}"),
            }
            recovered(&store);
            if let Err(difference) = model.compare(&store) {
                panic!("seed {seed}, after request {at}, {op:?}, faulty {faulty}: {difference}");
            }
            if at % 20 == 19 {
                // And what was told is on the disk.
                home.disk.cut(Loss::Random(at as u64));
                store.close();
                store = home.open().unwrap();
                cuts += 1;
                if let Err(difference) = model.compare(&store) {
                    panic!("seed {seed}, a cut after request {at}: {difference}");
                }
            }
        }
        store.close();
    }
    eprintln!("{failed} requests failed, {there} of them were there; {cuts} power cuts");
    assert!(failed > 30, "only {failed} requests met a fault");
}

fn inject(disk: &SimDisk, draw: usize) {
    let operation = [Operation::Sync, Operation::Write, Operation::Read, Operation::Sync][draw % 4];
    let file = ["pigeonfs.db-wal", "pigeonfs.db", "pigeonfs.db-wal"][draw % 3].to_owned();
    if draw % 7 == 6 {
        disk.limit(disk.image().bytes());
    } else {
        disk.fail(Fault { operation, file, times: [Some(1), Some(2), None][draw / 4 % 3] });
    }
}

/// Waits until the store says that all is well.
fn recovered(store: &Store) {
    for _ in 0..3000 {
        if store.trouble().is_none() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("still not recovered: {:?}", store.trouble());
}

#[test]
fn what_cannot_be_written_is_refused_and_told_until_it_can() {
    let home = Simulated::with(Image::default());
    let store = home.open().unwrap();
    let id = store.create_stream(super::name("notes"), crate::bacap::WriteCap::from_seed(&[1; 32])).wait().unwrap();
    store.append(id, vec![1; 3000], None).wait().unwrap();
    home.disk.fail(Fault { operation: Operation::Sync, file: String::new(), times: None });
    assert!(matches!(store.append(id, vec![2; 10], None).wait(), Err(StoreError::Failed { .. })));
    assert!(store.trouble().is_some());
    assert!(matches!(store.append(id, vec![2; 10], None).wait(), Err(StoreError::Unavailable { .. })));
    assert_eq!(store.read(id, 0, 9).unwrap(), [1; 9], "what is here can be read");
    home.disk.heal();
    recovered(&store);
    let size = store.append(id, vec![3; 10], None).wait().unwrap().size;
    assert!(size == 3010 || size == 3020, "{size}");
    store.close();
    assert_eq!(store.trouble(), None);
}
