//! The state on disk: SQLite, one writer with group commit. The only room of the mount's side that writes SQL.
//!
//! What enters here is what a channel is made of: names, capabilities, bytes, boxes and what became of them. What may
//! not enter: the network, the clock's meaning (lingers, back-off), errno and files.
//!
//! * [`StateDir`] is the hold on a state directory: one process at a time. [`PrivateDir`] opens what is in it, by
//!   descriptor.
//! * A state may be sealed: [`SealHeader`], [`Sealing`], [`StagedFile`].
//! * [`Store`] changes go through one thread: requests wait in a bounded queue, are applied in the order in which they
//!   were submitted, each in a savepoint of its own, and share one COMMIT with `synchronous=FULL`. A [`Commit`]
//!   resolves after that commit and never before: what it says survives a power cut.
//! * Queries are synchronous, see every commit that was acknowledged, and answer from counters and indices: none costs
//!   more for a long channel than for a short one. What a channel is, they answer from memory (`catalog.rs`).
//! * What must never happen to a box is forbidden by the schema itself (`schema.rs`), not by the callers' care.
//!
//! A channel's boxes hang on its *chain*. Emptying or forgetting a channel abandons the chain in one row; its boxes are
//! deleted afterwards in slices, so that neither a transaction nor a wait grows with the backlog.

mod append;
mod catalog;
mod changes;
mod channels;
mod choices;
mod claim;
mod clock;
mod commit;
mod contacts;
mod delivery;
mod drop_assembly;
mod drop_queries;
mod drops;
mod error;
mod handover;
mod health;
mod history;
mod holes;
mod inbox;
mod kept;
mod ledger;
mod log;
mod migrations;
mod nanos;
mod notes;
mod once;
mod open;
mod place;
mod private_dir;
mod queries;
mod queue;
mod readers;
mod reaper;
mod recovery;
mod repack;
mod requests;
mod reserve;
mod schema;
mod sealed;
mod search;
mod state_dir;
mod trim;
mod writer;

pub use crate::model::{
    Appended, Arrival, Binding, BoxSeq, BoxState, Capability, Channel, ChannelId, ChannelName, Content, Durability,
    Finding, Frontier, HISTORY_MINUTES, HistoryPoint, Limits, MAX_AHEAD_BOXES, MAX_NAME_BYTES, NameError, NetworkId,
    OutBox, PROVISIONAL_MAX_PLAINTEXT, RecordId, RecordState, Role, Skipped, Usage,
};
pub use changes::Changes;
pub use choices::Choices;
pub use claim::Claim;
#[cfg(test)]
pub(crate) use clock::Clock;
pub use commit::Commit;
pub use contacts::{Acceptance, AcceptanceStage, GivenChannel, Invitation, InvitationStage, Withdrawn};
pub use drop_assembly::{Assembled, Standing};
pub(crate) use drop_queries::DropBox;
pub use drops::{DropCounts, DropRecord, DropSlice, NewRecord};
pub use error::StoreError;
pub use handover::Taken;
pub use holes::{Hole, REPLICA_EPOCH, RETENTION};
pub use kept::{KeptBox, KeptCounts, replica_epoch_at, replica_epoch_begins};
pub use log::{LogLine, MAX_LOG_LINES};
pub use notes::MAX_NOTES;
pub use once::{Outcome, RequestId};
pub use open::Store;
pub use private_dir::{PrivateDir, PrivateDirError};
pub use queries::MAX_READ_BYTES;
pub use recovery::{Adopted, Adoption, Moved};
pub use sealed::{
    MAX_PASSPHRASE_BYTES, Passphrase, SealError, SealHeader, Sealing, Sequential, StagedFile, StateKey, seal, unseal,
};
pub use search::{SEARCH_WINDOW, Searched, Searching};
pub use state_dir::{Making, StateDir, StateError};

/// The version of the SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

#[cfg(test)]
mod tests;
