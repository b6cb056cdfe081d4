//! When a file that was written into a drop is one to be sent: a machine without a clock and without a disk.
//!
//! A file rests from its last close or rename on. When it has rested long enough it is *due*: its bytes are read, and it
//! is handed over, if nothing has touched it meanwhile. A file of which something shows that it is not whole
//! (its writer was killed, a write was refused) is *unfinished* and never due, until somebody else writes it anew.

use std::time::{Duration, Instant};

/// Why a file is not sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Fault {
    /// A signal ended a program that was writing it.
    Killed,
    /// A write to it was refused, or could not be made safe: bytes of it are missing.
    Refused,
    /// The program that closed it cannot be seen, so that nobody knows whether it had finished.
    Unseen,
    /// It was not closed in order when the mount ended, or the machine.
    Interrupted,
}

impl Fault {
    /// What is said of it to a person.
    pub(in crate::fs) fn reason(self) -> &'static str {
        match self {
            Self::Killed => "the program that wrote it was killed",
            Self::Refused => "a write to it was refused",
            Self::Unseen => "the program that wrote it cannot be seen from here",
            Self::Interrupted => "it was being written when the mount ended",
        }
    }
}

/// A file that is not handed over yet.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    /// Open descriptions that may write.
    writers: u32,
    /// Nothing is to be sent until it is written anew.
    fault: Option<Fault>,
    /// How many faults there were. Who opened the file before the last of them cannot make it whole.
    faults: u32,
    /// Whether a program that cannot be seen has closed it since its last writer left.
    unseen: bool,
    /// Whether the kernel has written what was left in a map, since a program that can be seen has closed the file.
    mapped: bool,
    /// Whether fsync has succeeded since its last change.
    synced: bool,
    /// When it was closed or renamed last.
    since: Instant,
    /// Counts what would make a digest that is being made worthless.
    touched: u64,
    /// Counts changes of its bytes.
    changes: u64,
}

/// What a file was when its bytes began to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round(u64);

/// What a file was when it was opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening(u32);

/// What a file was when it began to be made safe on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syncing(u64);

impl Settling {
    /// It was just made. `open`: for writing, too.
    pub(super) fn created(open: bool, now: Instant) -> Self {
        let writers = u32::from(open);
        Self {
            writers,
            fault: None,
            faults: 0,
            unseen: false,
            mapped: false,
            synced: false,
            since: now,
            touched: 0,
            changes: 0,
        }
    }

    /// It lay there when this mount began. `finished`: its last writer had closed it in order.
    pub(super) fn found(finished: bool, now: Instant) -> Self {
        let fault = (!finished).then_some(Fault::Interrupted);
        Self { fault, ..Self::created(false, now) }
    }

    /// It was opened for writing.
    pub(super) fn opened(&mut self) -> Opening {
        self.writers += 1;
        self.touched += 1;
        self.opening()
    }

    /// What it is for who makes it.
    pub(super) fn opening(&self) -> Opening {
        Opening(self.faults)
    }

    /// Bytes were written, or its length was changed.
    pub(super) fn changed(&mut self) {
        self.synced = false;
        self.touched += 1;
        self.changes += 1;
    }

    /// It is written anew from its beginning, by who opened it then. What an earlier writer left undone counts no more.
    pub(super) fn written_anew(&mut self, opening: Opening) {
        if opening == self.opening() {
            self.fault = None;
        }
    }

    /// It was emptied, by name or as it was opened.
    pub(super) fn emptied(&mut self) {
        self.changed();
        self.fault = None;
        self.unseen = false;
        self.mapped = false;
    }

    /// Bytes of a map were written. Nobody says by whom, and who closed the file before may have gone on.
    pub(super) fn written_from_map(&mut self) {
        self.mapped = true;
    }

    /// A program that runs has closed it: what it left in a map before was written by then.
    pub(super) fn closed_in_order(&mut self) {
        self.mapped = false;
    }

    /// Something shows that it is not what its writer wanted it to be.
    pub(super) fn failed(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.faults += 1;
        self.touched += 1;
    }

    /// Somebody who cannot be seen has closed it.
    pub(super) fn closed_unseen(&mut self) {
        self.unseen = true;
    }

    /// It begins to be made safe on the disk.
    pub(super) fn syncing(&self) -> Syncing {
        Syncing(self.changes)
    }

    /// It was made safe on the disk, as it was then.
    pub(super) fn synced(&mut self, syncing: Syncing) {
        self.synced |= syncing == self.syncing();
    }

    /// One of its writers has closed it for good. Says whether that was the last.
    pub(super) fn closed(&mut self, now: Instant) -> bool {
        self.writers = self.writers.saturating_sub(1);
        if self.writers > 0 {
            return false;
        }
        let is_unseen = std::mem::take(&mut self.unseen) | std::mem::take(&mut self.mapped);
        if is_unseen && !self.synced && self.fault.is_none() {
            self.failed(Fault::Unseen);
        }
        self.moved(now);
        true
    }

    /// A person says that it is whole.
    pub(super) fn finished(&mut self, now: Instant) {
        self.fault = None;
        self.moved(now);
    }

    /// It was renamed, or is to rest anew.
    pub(super) fn moved(&mut self, now: Instant) {
        self.since = now;
        self.touched += 1;
    }

    /// Whether somebody may be writing it.
    pub(super) fn is_open(&self) -> bool {
        self.writers > 0
    }

    /// Why it is never sent as it is.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// When it has rested for `rest`; `None`: never, as it is.
    pub(super) fn due(&self, rest: Duration) -> Option<Instant> {
        (self.writers == 0 && self.fault.is_none()).then_some(self.since + rest)
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
        let mut file = Settling::created(true, start);
        file.changed();
        assert_eq!(file.due(REST), None, "it is open");
        assert!(file.closed(start + second(5)));
        assert_eq!(file.due(REST), Some(start + second(7)));
    }

    #[test]
    fn a_rename_begins_its_rest_anew() {
        let start = Instant::now();
        let mut file = Settling::created(true, start);
        file.closed(start);
        let round = file.round();
        file.moved(start + second(1));
        assert_eq!(file.due(REST), Some(start + second(3)));
        assert_ne!(file.round(), round, "a digest under way is for another name");
    }

    #[test]
    fn a_file_with_a_fault_is_due_only_once_it_is_written_anew() {
        for fault in [Fault::Killed, Fault::Refused] {
            let start = Instant::now();
            let mut file = Settling::created(true, start);
            let first = file.opening();
            file.changed();
            file.failed(fault);
            file.written_anew(first);
            file.closed(start);
            assert_eq!(file.fault(), Some(fault), "its own writer does not make it whole");
            file.moved(start + second(9));
            assert_eq!(file.due(REST), None, "nor does a new name");
            file.opened();
            file.closed(start + second(10));
            assert_eq!(file.due(REST), None, "nor touch(1)");
            file.opened();
            file.changed();
            file.closed(start + second(11));
            assert_eq!(file.due(REST), None, "nor what is appended to it");

            let mut emptied = file.clone();
            emptied.opened();
            emptied.emptied();
            emptied.closed(start + second(20));
            assert_eq!(emptied.due(REST), Some(start + second(22)));

            let second_writer = file.opened();
            file.changed();
            file.written_anew(second_writer);
            file.closed(start + second(30));
            assert_eq!(file.due(REST), Some(start + second(32)));
        }
    }

    #[test]
    fn a_file_that_an_unseen_program_closed_is_due_where_fsync_has_succeeded_since_its_last_change() {
        let start = Instant::now();
        let mut file = Settling::created(true, start);
        // A shell that redirects closes a second descriptor before anything is written.
        file.closed_unseen();
        file.changed();
        let syncing = file.syncing();
        file.synced(syncing);
        file.closed_unseen();
        file.closed(start);
        assert_eq!(file.due(REST), Some(start + REST));

        for written_after in [true, false] {
            let mut file = Settling::created(true, start);
            file.changed();
            let syncing = file.syncing();
            if written_after {
                file.changed();
                file.synced(syncing);
            }
            file.closed_unseen();
            file.closed(start);
            assert_eq!(file.fault(), Some(Fault::Unseen));
            file.finished(start + second(5));
            assert_eq!(file.due(REST), Some(start + second(7)), "a person has said that it is whole");
        }
    }

    #[test]
    fn what_is_written_through_a_map_after_the_last_close_is_due_only_where_it_was_made_safe() {
        let start = Instant::now();
        for (closes_afterwards, syncs) in [(false, false), (true, false), (false, true)] {
            let mut file = Settling::created(true, start);
            file.closed_in_order();
            file.changed();
            file.written_from_map();
            if syncs {
                let syncing = file.syncing();
                file.synced(syncing);
            }
            if closes_afterwards {
                file.closed_in_order();
            }
            file.closed(start);
            let expected = (!closes_afterwards && !syncs).then_some(Fault::Unseen);
            assert_eq!(file.fault(), expected);
        }
    }

    #[test]
    fn the_dead_ones_release_may_come_after_the_second_ones_open() {
        let start = Instant::now();
        let mut file = Settling::created(true, start);
        file.changed();
        file.failed(Fault::Killed);
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
        WriteAnew,
        Fail(bool),
        Close,
        Rename,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Open),
            Just(Step::Write),
            Just(Step::WriteAnew),
            any::<bool>().prop_map(Step::Fail),
            Just(Step::Close),
            Just(Step::Rename)
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Whatever happens: what is open is not due, what has a fault is not due until who opened it later has written
        /// it from its beginning, and whatever could alter the bytes or the name ends a round.
        #[test]
        fn nothing_is_due_that_a_writer_has_not_closed_in_order(steps in steps()) {
            let start = Instant::now();
            let mut file = Settling::created(true, start);
            let mut open = vec![(file.opening(), 0)];
            let (mut broken, mut failures) = (false, 0);
            for (at, step) in steps.into_iter().enumerate() {
                let now = start + second(at as u64);
                let round = file.round();
                match step {
                    Step::Open => open.push((file.opened(), failures)),
                    Step::Write if !open.is_empty() => file.changed(),
                    Step::WriteAnew if !open.is_empty() => {
                        let (opening, since) = open[at % open.len()];
                        file.changed();
                        file.written_anew(opening);
                        broken &= since != failures;
                    }
                    Step::Fail(killed) if !open.is_empty() => {
                        failures += 1;
                        broken = true;
                        file.failed(if killed { Fault::Killed } else { Fault::Refused });
                    }
                    Step::Close if !open.is_empty() => {
                        open.pop();
                        prop_assert_eq!(file.closed(now), open.is_empty());
                    }
                    Step::Rename => file.moved(now),
                    _ => continue,
                }
                prop_assert!(!open.is_empty() || file.round() != round);
                prop_assert_eq!(file.is_open(), !open.is_empty());
                prop_assert_eq!(file.due(REST).is_some(), open.is_empty() && !broken);
            }
        }
    }
}
