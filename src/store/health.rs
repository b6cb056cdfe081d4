//! Whether the disk below still takes what the store writes. One place, which every door asks: see
//! [`Store::trouble`](super::Store::trouble).

use std::sync::{PoisonError, RwLock};

use super::StoreError;

/// Clear, or what failed.
#[derive(Debug, Default)]
pub(super) struct Health(RwLock<Option<String>>);

impl Health {
    pub(super) fn trouble(&self) -> Option<String> {
        // Nothing panics while it is held.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, trouble: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// What is said to a request while there is trouble.
    pub(super) fn refusal(&self) -> StoreError {
        StoreError::Unavailable { reason: self.trouble().unwrap_or_default() }
    }
}
