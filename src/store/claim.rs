//! Who decides about a write that is interrupted: the writer thread, or the interrupt. One compare-and-swap says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const OPEN: u8 = 0;
const TAKEN: u8 = 1;
const INTERRUPTED: u8 = 2;

/// The two-party claim on one append. Whoever is first decides; a retry can then not double the bytes.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<AtomicU8>);

impl Claim {
    /// A claim that nobody has.
    pub fn new() -> Self {
        Self::default()
    }

    /// The writer thread's side, before it applies: whether the append goes on. Asking again gives the same answer.
    pub fn take_for_commit(&self) -> bool {
        self.settle(TAKEN)
    }

    /// The interrupt's side: whether the append will never happen.
    pub fn interrupt(&self) -> bool {
        self.settle(INTERRUPTED)
    }

    fn settle(&self, side: u8) -> bool {
        match self.0.compare_exchange(OPEN, side, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(winner) => winner == side,
        }
    }
}
