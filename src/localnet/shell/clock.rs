//! The network's time: the machine's clock or tokio's, and what a jump adds to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A wall clock that others than the machine's owner may set. It runs at the pace of [`Instant`], so that it stands
/// still where tokio's time does. Clones show the same time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    started: Instant,
    /// What it showed then, since the Unix epoch.
    shown: Duration,
    follows_machine: bool,
    moved: Arc<Moved>,
}

/// In milliseconds.
#[derive(Debug, Default)]
struct Moved {
    /// By what the machine's clock was set.
    with_machine: AtomicI64,
    by_us: AtomicI64,
}

/// The clock was set: no time passed between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Clock {
    /// The machine's wall clock.
    pub(super) fn of_machine() -> Self {
        Self { follows_machine: true, ..Self::starting_at(machine()) }
    }

    /// A clock that shows `shown` now and follows tokio's time, paused or not.
    pub(super) fn starting_at(shown: Duration) -> Self {
        Self { started: Instant::now(), shown, follows_machine: false, moved: Arc::default() }
    }

    /// The time since the Unix epoch.
    pub(super) fn now(&self) -> Duration {
        moved(self.unmoved(), self.moved_ms())
    }

    /// Without what [`Self::jump`] has added.
    fn unmoved(&self) -> Duration {
        moved(self.shown + self.started.elapsed(), self.moved.with_machine.load(Ordering::Relaxed))
    }

    /// Moves it by so many milliseconds, back if they are negative. A jump that would leave what can be told is cut
    /// short.
    pub(super) fn jump(&self, by_ms: i64) -> Jump {
        let from = self.now();
        let earliest = -i64::try_from(self.unmoved().as_millis()).unwrap_or(i64::MAX);
        let to_ms = self.moved_ms().saturating_add(by_ms).clamp(earliest, LATEST_MS);
        self.moved.by_us.store(to_ms, Ordering::Relaxed);
        Jump { from, to: self.now() }
    }

    /// What [`Self::jump`] has added up to, in milliseconds.
    pub(super) fn moved_ms(&self) -> i64 {
        self.moved.by_us.load(Ordering::Relaxed)
    }

    /// Follows the machine's clock where that was set, or where the machine slept: what this one was moved by.
    pub(super) fn follow_machine(&self) -> Option<Jump> {
        if !self.follows_machine {
            return None;
        }
        let (ours, machine) = (self.unmoved(), machine());
        if ours.abs_diff(machine) < TOLERATED {
            return None;
        }
        let from = self.now();
        let apart = i64::try_from(ours.abs_diff(machine).as_millis()).unwrap_or(i64::MAX);
        self.moved.with_machine.fetch_add(if machine < ours { -apart } else { apart }, Ordering::Relaxed);
        Some(Jump { from, to: self.now() })
    }
}

/// How far the machine's clock may be from ours before that counts as a jump: slewing is none.
const TOLERATED: Duration = Duration::from_secs(2);
/// A thousand years: nothing that is computed from such a time overflows.
const LATEST_MS: i64 = 1000 * 365 * 24 * 3600 * 1000;

fn machine() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn moved(time: Duration, by_ms: i64) -> Duration {
    let by = Duration::from_millis(by_ms.unsigned_abs());
    if by_ms < 0 { time.saturating_sub(by) } else { time + by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_runs_with_tokio_s_time_and_jumps_both_ways() {
        let clock = Clock::starting_at(Duration::from_secs(1_000_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), Duration::from_secs(1_000_005));
        let jump = clock.jump(8 * 24 * 3600 * 1000);
        assert_eq!((jump.from, jump.to), (Duration::from_secs(1_000_005), Duration::from_secs(1_691_205)));
        assert_eq!(clock.jump(-clock.moved_ms()).to, Duration::from_secs(1_000_005));
        assert_eq!(clock.jump(i64::MIN).to, Duration::ZERO);
        clock.jump(i64::MAX);
        clock.jump(i64::MAX);
        assert!(clock.now() < Duration::from_secs(2000 * 366 * 24 * 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn the_machine_s_clock_is_followed_where_it_was_set() {
        let clock = Clock::of_machine();
        assert_eq!(clock.follow_machine(), None);
        // Tokio's time goes on, and the machine's does not: from here, the machine was set back.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let jump = clock.follow_machine().expect("an hour apart");
        assert!(jump.from - jump.to > Duration::from_secs(3590), "{jump:?}");
        assert_eq!(clock.follow_machine(), None);
        assert_eq!(Clock::starting_at(Duration::ZERO).follow_machine(), None);
    }
}
