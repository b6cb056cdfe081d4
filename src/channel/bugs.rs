//! Deliberate bugs, compiled for tests alone and off unless one is turned on, so that the simulation of the delivery engine
//! ([`crate::engine`]) can be seen to find them. Each stands where the decision stands that it spoils.

use std::cell::Cell;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Packets of a box leave while its launch is still being committed.
    SkipIntentCommit,
    /// A courier's word passes for a replica's.
    CourierIsReplica,
    /// What a replica confirmed is not kept.
    DropConfirmation,
    /// A write that timed out passes for stored.
    TimeoutIsSuccess,
    /// Where a box was not found once, nobody looks again.
    NotFoundIsEnd,
    /// Time that a retry waits for comes, and nobody is woken.
    LoseWakeUp,
    /// What a daemon had under way that died is done by no other.
    ForgetWithDaemon,
}

thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether this bug is turned on in the present thread.
pub(crate) fn has(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// Runs something with a bug turned on.
pub(crate) fn with<T>(bug: Option<Bug>, run: impl FnOnce() -> T) -> T {
    let before = BUG.replace(bug);
    let result = run();
    BUG.set(before);
    result
}
