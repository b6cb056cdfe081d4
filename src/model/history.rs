//! What has gone over the network lately, minute by minute.

use serde::{Deserialize, Serialize};

/// How many minutes are kept: two days.
pub const HISTORY_MINUTES: u64 = 2 * 24 * 60;

/// What one minute has brought, over all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPoint {
    /// Which minute, counted from 1970.
    pub minute: u64,
    /// Boxes of ours that replicas have confirmed.
    pub stored_boxes: u64,
    /// Bytes in them.
    pub stored_bytes: u64,
    /// Boxes of others that have arrived.
    pub arrived_boxes: u64,
    /// Bytes in them.
    pub arrived_bytes: u64,
    /// Bytes that were accepted and not stored yet, at the end of the minute.
    pub spool_bytes: u64,
}

impl HistoryPoint {
    /// Whether anything has gone or come.
    pub(crate) fn moved(&self) -> bool {
        self.stored_boxes + self.stored_bytes + self.arrived_boxes + self.arrived_bytes > 0
    }
}
