//! The vocabulary of channels: identifiers, names, roles, limits and states that all modules of the mount's side share.
//!
//! No I/O enters here: no SQL, no files, no clock and no network.

mod channel;
mod finding;
mod history;
mod limits;
mod name;
mod network;
mod record;

pub use channel::{
    AT_HOME, Appended, Arrival, BoxSeq, BoxState, Capability, Channel, ChannelId, Content, Durability, Frontier,
    MAX_AHEAD_BOXES, OutBox, PROVISIONAL_MAX_PLAINTEXT, Role, Skipped,
};
pub use finding::Finding;
pub use history::{HISTORY_MINUTES, HistoryPoint};
pub use limits::{Limits, Usage};
pub use name::{ChannelName, MAX_NAME_BYTES, NameError, is_rsync_temporary};
pub use network::{Binding, Misfit, NetworkId};
pub use record::{RecordId, RecordState};
