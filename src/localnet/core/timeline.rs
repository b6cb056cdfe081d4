//! What is planned, in the order of its time.
//!
//! Steps are kept in time that never jumps; the network's wall clock is an offset to it, so that a jump of the clock
//! neither hurries nor delays what was planned.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a planned step is withdrawn by.
pub(super) type StepKey = (Duration, u64);

pub(super) struct Timeline<T> {
    now: Duration,
    /// What the wall clock is ahead of `now`; negative where it is behind.
    ahead_ns: i128,
    steps: BTreeMap<StepKey, T>,
    /// Steps without a delay: they need no place in the order.
    at_once: VecDeque<T>,
    serial: u64,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self { now: Duration::ZERO, ahead_ns: 0, steps: BTreeMap::new(), at_once: VecDeque::new(), serial: 0 }
    }
}

impl<T> Timeline<T> {
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The network's wall clock.
    pub(super) fn wall(&self) -> Duration {
        self.wall_at(self.now)
    }

    /// Lets the time be `wall`, if it is not past that.
    pub(super) fn reach(&mut self, wall: Duration) {
        self.now = self.now.max(shifted(wall, -self.ahead_ns));
    }

    /// The wall clock was at `from` and is at `to`.
    pub(super) fn jump(&mut self, from: Duration, to: Duration) {
        self.ahead_ns += nanos(to) - nanos(from);
    }

    /// When the next step is due, by the wall clock.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if !self.at_once.is_empty() {
            return Some(self.wall());
        }
        self.steps.first_key_value().map(|(&(at, _), _)| self.wall_at(at))
    }

    /// Plans a step that nobody will withdraw.
    pub(super) fn after(&mut self, delay: Duration, step: T) {
        if delay.is_zero() {
            self.at_once.push_back(step);
        } else {
            self.plan(self.now + delay, step);
        }
    }

    /// Plans a step that can be withdrawn.
    pub(super) fn plan(&mut self, at: Duration, step: T) -> StepKey {
        self.serial += 1;
        let key = (at.max(self.now), self.serial);
        self.steps.insert(key, step);
        key
    }

    pub(super) fn withdraw(&mut self, key: StepKey) -> Option<T> {
        self.steps.remove(&key)
    }

    /// Of the steps without a delay, the first.
    pub(super) fn pop_now(&mut self) -> Option<T> {
        self.at_once.pop_front()
    }

    /// The next step, whose time it then is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ((at, _), step) = self.steps.pop_first()?;
        self.now = self.now.max(at);
        Some(step)
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len() + self.at_once.len()
    }

    fn wall_at(&self, at: Duration) -> Duration {
        shifted(at, self.ahead_ns)
    }
}

fn nanos(at: Duration) -> i128 {
    i128::try_from(at.as_nanos()).unwrap_or(i128::MAX)
}

/// Never before the Unix epoch.
fn shifted(at: Duration, by_ns: i128) -> Duration {
    match u64::try_from(by_ns.unsigned_abs()).map(Duration::from_nanos) {
        Ok(by) if by_ns < 0 => at.saturating_sub(by),
        Ok(by) => at.saturating_add(by),
        Err(_) => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_moves_no_step() {
        let (seconds, mut timeline) = (Duration::from_secs, Timeline::default());
        timeline.reach(seconds(1000));
        timeline.plan(seconds(1060), "in a minute");
        timeline.jump(seconds(1000), seconds(400));
        assert_eq!((timeline.wall(), timeline.next_deadline()), (seconds(400), Some(seconds(460))));
        timeline.jump(seconds(400), seconds(9000));
        assert_eq!((timeline.wall(), timeline.next_deadline()), (seconds(9000), Some(seconds(9060))));
        assert_eq!((timeline.pop(), timeline.wall()), (Some("in a minute"), seconds(9060)));
        timeline.reach(seconds(1));
        assert_eq!(timeline.wall(), seconds(9060), "time does not run back");
    }

    #[test]
    fn what_is_withdrawn_does_not_happen() {
        let mut timeline = Timeline::default();
        let first = timeline.plan(Duration::from_secs(1), 1);
        timeline.plan(Duration::from_secs(2), 2);
        timeline.after(Duration::ZERO, 0);
        assert_eq!((timeline.withdraw(first), timeline.withdraw(first)), (Some(1), None));
        assert_eq!(
            (timeline.pop_now(), timeline.pop_now(), timeline.pop(), timeline.pop()),
            (Some(0), None, Some(2), None)
        );
        assert_eq!(timeline.len(), 0);
    }
}
