//! Killed at any commit point, the store holds all that was acknowledged, and nothing by halves.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where the writer thread can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Point {
    Applied,
    Committed,
    Settled,
}

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Passed by the writer thread.
pub(in crate::store) fn point(_: Point) {
    PASSED.fetch_add(1, Ordering::Relaxed);
}
