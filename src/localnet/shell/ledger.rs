//! What the loop needs of a store besides its boxes: that what was told is kept.

use crate::localnet::backend::{BoxStore, Disk, Memory};

/// A store whose changes are kept group by group. Errors are said in words.
pub(super) trait Ledger: BoxStore {
    /// Whether anything was changed since the last commit: until then there is nothing that could be lost.
    fn is_changed(&self) -> bool;
    /// Keeps what was changed, all of it or nothing.
    fn commit(&mut self) -> Result<(), String>;
}

impl Ledger for Disk {
    fn is_changed(&self) -> bool {
        Self::is_changed(self)
    }

    fn commit(&mut self) -> Result<(), String> {
        Self::commit(self).map_err(|error| error.to_string())
    }
}

/// Nothing outlives the process, so nothing has to be kept.
impl Ledger for Memory {
    fn is_changed(&self) -> bool {
        false
    }

    fn commit(&mut self) -> Result<(), String> {
        Ok(())
    }
}
