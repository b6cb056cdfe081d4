//! When a file that was written into a drop is one to be sent: a machine without a clock and without a disk.
//!
//! A file rests from its last close or rename on. When it has rested long enough it is *due*: its bytes are read, and it
//! is handed over, if nothing has touched it meanwhile. A file whose writer died is *unfinished* and never due, until
//! somebody writes it anew and closes it.

use std::time::{Duration, Instant};

/// A file that is not handed over yet.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    /// Open descriptions that may write.
    writers: u32,
    /// Whether bytes were written or cut off since it was closed last.
    changed: bool,
    /// Whether one of its writers died since.
    killed: bool,
    /// Nothing is to be sent: a writer died, or nobody knows.
    unfinished: bool,
    /// When it was closed or renamed last.
    since: Instant,
    /// Counts what would make a digest that is being made worthless.
    touched: u64,
}

/// What a file was when its bytes began to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round(u64);

impl Settling {
    /// It was just made, and is open for writing.
    pub(super) fn created(now: Instant) -> Self {
        Self { writers: 1, changed: true, killed: false, unfinished: false, since: now, touched: 0 }
    }

    /// It lay there when this mount began. `finished`: its last writer had closed it in order.
    pub(super) fn found(finished: bool, now: Instant) -> Self {
        Self { writers: 0, changed: false, killed: false, unfinished: !finished, since: now, touched: 0 }
    }

    /// It was opened for writing.
    pub(super) fn opened(&mut self) {
        self.writers += 1;
        self.touched += 1;
    }

    /// Bytes were written, or its length was changed.
    pub(super) fn changed(&mut self) {
        self.changed = true;
        self.touched += 1;
    }

    /// It was emptied: what a writer left that died before is gone.
    pub(super) fn emptied(&mut self) {
        self.changed();
        self.killed = false;
    }

    /// One of its writers died of a signal.
    pub(super) fn killed(&mut self) {
        self.killed = true;
        self.touched += 1;
    }

    /// One of its writers has closed it for good. Says whether that was the last.
    pub(super) fn closed(&mut self, now: Instant) -> bool {
        self.writers = self.writers.saturating_sub(1);
        if self.writers > 0 {
            return false;
        }
        if self.killed {
            self.unfinished = true;
        } else if self.changed {
            self.unfinished = false;
        }
        (self.killed, self.changed) = (false, false);
        self.moved(now);
        true
    }

    /// It was renamed; or its length was changed by name, or it is to rest anew.
    pub(super) fn moved(&mut self, now: Instant) {
        self.since = now;
        self.touched += 1;
    }

    /// Its length was changed by name, with nobody writing.
    pub(super) fn resized(&mut self, size: u64, now: Instant) {
        if size == 0 {
            self.emptied();
        } else {
            self.changed();
        }
        if self.writers == 0 {
            if size == 0 {
                self.unfinished = false;
            }
            self.changed = false;
            self.moved(now);
        }
    }

    /// Whether somebody may be writing it.
    pub(super) fn is_open(&self) -> bool {
        self.writers > 0
    }

    /// Whether it is never sent as it is.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// When it has rested for `rest`; `None`: never, as it is.
    pub(super) fn due(&self, rest: Duration) -> Option<Instant> {
        (self.writers == 0 && !self.unfinished).then_some(self.since + rest)
    }

    /// What it is now.
    pub(super) fn round(&self) -> Round {
        Round(self.touched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: Duration = Duration::from_secs(2);

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_copied_file_is_due_two_seconds_after_its_last_close() {
        let start = Instant::now();
        let mut file = Settling::created(start);
        file.changed();
        assert_eq!(file.due(REST), None, "it is open");
        assert!(file.closed(start + second(5)));
        assert_eq!(file.due(REST), Some(start + second(7)));
    }

    #[test]
    fn a_rename_begins_its_rest_anew() {
        let start = Instant::now();
        let mut file = Settling::created(start);
        file.closed(start);
        let round = file.round();
        file.moved(start + second(1));
        assert_eq!(file.due(REST), Some(start + second(3)));
        assert_ne!(file.round(), round, "a digest under way is for another name");
    }

    #[test]
    fn a_copy_that_was_killed_is_never_due_and_a_second_copy_is() {
        let start = Instant::now();
        let mut file = Settling::created(start);
        file.changed();
        file.killed();
        file.closed(start);
        assert!(file.is_unfinished());
        file.moved(start + second(9));
        assert_eq!(file.due(REST), None, "a new name does not make it whole");

        file.opened();
        file.closed(start + second(10));
        assert_eq!(file.due(REST), None, "nor does touch(1)");

        file.opened();
        file.emptied();
        file.changed();
        file.closed(start + second(20));
        assert_eq!(file.due(REST), Some(start + second(22)));
    }

    #[test]
    fn the_dead_ones_release_may_come_after_the_second_ones_open() {
        let start = Instant::now();
        let mut file = Settling::created(start);
        file.changed();
        file.killed();
        file.opened();
        file.emptied();
        file.changed();
        assert!(!file.closed(start), "the dead one's");
        assert!(file.closed(start + second(1)));
        assert_eq!(file.due(REST), Some(start + second(3)));
    }

    #[test]
    fn what_was_open_when_a_mount_died_is_unfinished_and_what_was_closed_is_not() {
        let start = Instant::now();
        assert_eq!(Settling::found(false, start).due(REST), None);
        assert_eq!(Settling::found(true, start).due(REST), Some(start + REST));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open,
        Write,
        Kill,
        Close,
        Rename,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![Just(Step::Open), Just(Step::Write), Just(Step::Kill), Just(Step::Close), Just(Step::Rename)];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Whatever happens: what is open is not due, what a kill has left is not due until it is written and closed
        /// anew, and whatever could alter the bytes or the name ends a round.
        #[test]
        fn nothing_is_due_that_a_writer_has_not_closed_in_order(steps in steps()) {
            let start = Instant::now();
            let mut file = Settling::created(start);
            let mut open = 1;
            let (mut killed, mut wrote, mut broken) = (false, true, false);
            for (at, step) in steps.into_iter().enumerate() {
                let now = start + second(at as u64);
                let round = file.round();
                match step {
                    Step::Open => {
                        open += 1;
                        file.opened();
                    }
                    Step::Write if open > 0 => {
                        wrote = true;
                        file.changed();
                    }
                    Step::Kill if open > 0 => {
                        killed = true;
                        file.killed();
                    }
                    Step::Close if open > 0 => {
                        open -= 1;
                        prop_assert_eq!(file.closed(now), open == 0);
                        if open == 0 {
                            broken = killed || (broken && !wrote);
                            (killed, wrote) = (false, false);
                        }
                    }
                    Step::Rename => file.moved(now),
                    _ => continue,
                }
                prop_assert!(open > 0 || file.round() != round);
                prop_assert_eq!(file.is_open(), open > 0);
                prop_assert_eq!(file.due(REST).is_some(), open == 0 && !broken);
            }
        }
    }
}
