//! The delivery engine in a world of its own: virtual time, localnet's core in memory, and everything that goes wrong.
//!
//! Processes write and read streams, or send and receive the files of drops, through the machine that ships ([`crate::channel::Delivery`]) and the store that ships:
//! `process` is a second shell around both, which carries out and decides nothing, and `line` does what the thin client does,
//! without a runtime; a crash leaves what was committed; `plan` draws what goes wrong; `oracle` says what must hold. One seed
//! is one run, and the same seed is the same run. Deliberate bugs ([`crate::channel::bugs`]) show that a broken engine does
//! not pass.
//!
//! `PIGEONFS_SEED=N cargo test --lib simulation::` runs one seed and tells it; `PIGEONFS_SEEDS=N` runs so many;
//! `scripts/torture simulation` runs 100,000.

mod adopting;
mod boxes;
mod daemons;
mod drops;
mod line;
mod oracle;
mod plan;
mod process;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::oracle::BOUND;
use self::plan::Plan;
use self::world::World;
use crate::channel::Time;
use crate::channel::bugs::{self, Bug};

/// Runs in every test run.
const SEEDS: u64 = 1000;
/// Longer than the daemon keeps a session, and than any operation lives.
const REST: Time = Time::from_secs(1200);
/// Within which each deliberate bug is to be found.
const BUG_SEEDS: u64 = 2000;
/// Steps that no run needs.
const STEPS: u64 = 5_000_000;

/// How a run ended, if it ended well.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    digest: u64,
    steps: u64,
    /// What happened in it, and how often.
    seen: Seen,
}

type Seen = BTreeMap<&'static str, u64>;

/// What must occur in a thousand runs: a world in which nothing goes wrong shows nothing.
const EVENTS: [&str; 37] = [
    "adoptions",
    "boxes that a courier has",
    "boxes that a replica has",
    "boxes that were not there",
    "boxes that were skipped",
    "changes of durability",
    "crashes",
    "daemons of another network beside ours",
    "daemons that died",
    "daemons that lagged",
    "documents",
    "failures of the disk",
    "files that have come",
    "files that were sent",
    "files that were taken back",
    "foreign boxes",
    "foreign tombstones",
    "operations on another network",
    "operations on the second connection",
    "operations that another daemon took over",
    "operations that took too long",
    "other networks",
    "places that others deleted",
    "places that were taken",
    "places that were taken by others",
    "reads of the store that failed",
    "records that failed",
    "restored states",
    "runs that were mended",
    "stale envelopes",
    "states that were copied",
    "streams that were adopted",
    "streams that were forgotten",
    "streams that were renamed",
    "streams that were trimmed",
    "streams that were unlinked",
    "wrong clocks",
];

fn run(plan: Plan, aloud: bool) -> Result<Ended, String> {
    live(&mut World::new(plan, aloud))
}

/// The run of a plan to its end.
fn live(world: &mut World) -> Result<Ended, String> {
    let trouble = world.now + world.plan.trouble;
    while world.now < trouble && world.step() {
        world.check()?;
    }
    world.mend();
    let until = world.now + BOUND;
    while !world.delivered() {
        let goes_on = world.step();
        world.check()?;
        if !goes_on || world.now > until || world.steps > STEPS {
            return Err(format!("it stands still: {}", world.undelivered().unwrap_or_default()));
        }
    }
    world.check_replicas()?;
    world.check_leftovers()?;
    if world.plan.rests {
        // The sessions of lives that are over are forgotten meanwhile.
        let until = world.now + REST;
        while world.now < until && world.step() {
            world.check()?;
        }
        world.check_rest()?;
    }
    Ok(Ended { digest: world.digest, steps: world.steps, seen: std::mem::take(&mut world.seen) })
}

/// A failing run with as little in it as still fails: the parts that were left out, how it ends, and its last lines.
fn shortest(seed: u64, error: String) -> (Vec<usize>, String, String) {
    let plan = |parts: &[usize]| parts.iter().try_fold(Plan::of(seed), |plan, &part| plan.without(part));
    let (mut parts, mut error) = (Vec::new(), error);
    for part in 0.. {
        parts.push(part);
        let Some(less) = plan(&parts) else { break };
        match run(less, false) {
            Err(other) => error = other,
            Ok(_) => drop(parts.pop()),
        }
    }
    parts.pop();
    let mut world = World::new(plan(&parts).expect("it was run"), false);
    world.history = Some(VecDeque::new());
    let _ = live(&mut world);
    let lines: Vec<_> = world.history.take().unwrap_or_default().into();
    (parts, error, lines.join("\n"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {text:?}")))
}

/// The first of the seeds that ends badly, and how; the runs share the machine's cores.
fn first_failure(seeds: u64, bug: Option<Bug>) -> Result<Seen, (u64, String)> {
    let all = Mutex::new(Seen::new());
    let (next, found) = (AtomicU64::new(0), AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while !found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            match bugs::with(bug, || run(Plan::of(seed), false)) {
                Ok(ended) => {
                    let mut all = all.lock().expect("no panic");
                    ended.seen.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
                }
                Err(error) => {
                    found.store(true, Ordering::Relaxed);
                    return Some((seed, error));
                }
            }
        }
        None
    };
    let failure = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).min()
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(all.into_inner().expect("no panic")),
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_goes_wrong() {
    if let Some(seed) = number("PIGEONFS_SEED") {
        let ended = run(Plan::of(seed), true);
        assert!(ended.is_ok(), "{ended:?}");
        return;
    }
    let seeds = number("PIGEONFS_SEEDS").unwrap_or(SEEDS);
    let seen = match first_failure(seeds, None) {
        Ok(seen) => seen,
        Err((seed, error)) => {
            let (parts, error, history) = shortest(seed, error);
            panic!("seed {seed}, without parts {parts:?}:\n{history}\n{error}\nPIGEONFS_SEED={seed} tells all of it");
        }
    };
    #[allow(clippy::print_stderr)] // Shown to the person who asks for the output.
    for (what, times) in &seen {
        eprintln!("{times:>9} {what}");
    }
    if seeds >= SEEDS {
        let missing: Vec<_> = EVENTS.iter().filter(|what| !seen.contains_key(**what)).collect();
        assert!(missing.is_empty(), "{missing:?} did not occur");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(Plan::of(seed), false), run(Plan::of(seed), false), "seed {seed}");
    }
}

#[test]
fn each_deliberate_bug_is_found() {
    for bug in [
        Bug::SkipIntentCommit,
        Bug::CourierIsReplica,
        Bug::DropConfirmation,
        Bug::TimeoutIsSuccess,
        Bug::NotFoundIsEnd,
        Bug::LoseWakeUp,
        Bug::ForgetWithDaemon,
    ] {
        assert!(first_failure(BUG_SEEDS, Some(bug)).is_err(), "{bug:?} is not found within {BUG_SEEDS} seeds");
    }
}

#[test]
fn real_boxes_fare_as_stand_ins_do() {
    for seed in 0..10 {
        let ended = run(Plan::of(seed).with_real_boxes(), false);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}

#[test]
fn a_day_of_jumps_and_restarts_ends_with_everything_delivered() {
    for seed in 0..3 {
        let ended = run(Plan::day(seed), false);
        assert!(ended.is_ok(), "seed {seed}: {ended:?}");
    }
}
