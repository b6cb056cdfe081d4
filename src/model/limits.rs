//! Limits of what a state may take of the disk, and what it takes.

use std::time::SystemTime;

/// What the store may take of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes accepted and not yet stored by replicas, over all channels. More are not accepted.
    pub spool_bytes: u64,
    /// Bytes that have arrived and are kept, over all channels that are read. While there are more, no channel is read.
    pub cache_bytes: u64,
    /// The same of one channel: its writer, who may be hostile, is not to take it all.
    pub cache_channel_bytes: u64,
    /// Bytes that replicas have confirmed and that are kept for reading back. The oldest of more are dropped.
    pub sent_bytes: u64,
}

/// What the store has taken, over all channels; each has its limit in [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes accepted and not yet stored by replicas.
    pub spool_bytes: u64,
    /// Bytes that have arrived and are kept.
    pub cache_bytes: u64,
    /// Bytes that replicas have confirmed and that are kept.
    pub sent_bytes: u64,
    /// When a channel was made, renamed or removed, the last time.
    pub listing_changed: SystemTime,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spool_bytes: 4 << 30, cache_bytes: 4 << 30, cache_channel_bytes: 1 << 30, sent_bytes: 1 << 30 }
    }
}
