//! The state on disk: SQLite, one writer with group commit. The only room of the mount's side that writes SQL.
//!
//! A [`StateDir`] is the lock: one process owns a state directory, and only it opens the [`Store`]. Whatever changes
//! something is handed to one writer thread and gives a [`Commit`], which is done when its transaction is on the
//! disk. Queries are synchronous and go over a few read connections. What the laws forbid (another payload at an
//! index that was launched, a state that goes back) the schema's own triggers refuse.

mod append;
mod changes;
mod channel;
mod claim;
mod error;
mod query;
mod reader;
mod schema;
mod state_dir;
mod writer;

pub use changes::Changes;
pub use channel::{
    Appended, Arrival, Binding, BoxSeq, BoxState, Capability, Channel, ChannelId, ChannelName, Frontier, NameError,
    NetworkId, OutBox, Role,
};
pub use claim::Claim;
pub use error::{StateError, StoreError};
pub use state_dir::StateDir;
pub use writer::{Commit, Store};

/// How much a state may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes accepted and not yet stored by replicas, over all channels.
    pub spool_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spool_bytes: 4 << 30 }
    }
}

#[cfg(test)]
mod tests;
