//! Who decides about an append whose caller was interrupted: the caller or the writer thread, never both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const OPEN: u8 = 0;
const COMMITTING: u8 = 1;
const INTERRUPTED: u8 = 2;

/// One compare-and-swap between an interrupt's EINTR and the append.
///
/// Whoever comes first wins for good. If the interrupt wins, nothing is appended and the commit resolves to
/// [`StoreError::Interrupted`](super::StoreError::Interrupted); if the writer wins, the bytes are appended and the
/// caller must report that. So a retry after EINTR cannot double bytes.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<AtomicU8>);

impl Claim {
    /// A claim that nobody has taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// The writer thread is about to apply the append. False: the interrupt was first.
    pub fn take_for_commit(&self) -> bool {
        self.take(COMMITTING)
    }

    /// The caller's wait was interrupted. True: the append will not happen. False: it happens, or has happened.
    pub fn interrupt(&self) -> bool {
        self.take(INTERRUPTED)
    }

    fn take(&self, by: u8) -> bool {
        self.0.compare_exchange(OPEN, by, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wins_and_only_once() {
        let claim = Claim::new();
        assert!(claim.interrupt());
        assert!(!claim.take_for_commit());
        assert!(!claim.interrupt());

        let claim = Claim::new();
        assert!(claim.take_for_commit());
        assert!(!claim.interrupt());
    }
}
