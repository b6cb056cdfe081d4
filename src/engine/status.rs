//! The state of everything, as the status verb and the control directory show it. Names and numbers, no secrets.

use serde::{Deserialize, Serialize};

/// Version of the schema below; it grows when a field changes its meaning or goes.
pub const STATUS_VERSION: u32 = 1;

/// Everything that one owner knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_VERSION`].
    pub version: u32,
    /// The daemon and the network behind it.
    pub daemon: DaemonStatus,
    /// Bytes accepted and not yet stored by replicas, over all channels.
    pub spool_bytes: u64,
    /// More are not accepted.
    #[serde(default)]
    pub spool_limit: u64,
    /// Bytes that have arrived and are kept, over all channels.
    #[serde(default)]
    pub cache_bytes: u64,
    /// While there are more, no channel is read.
    #[serde(default)]
    pub cache_limit: u64,
    /// Bytes that are stored and kept for reading back, over all channels.
    #[serde(default)]
    pub sent_bytes: u64,
    /// The oldest of more are dropped.
    #[serde(default)]
    pub sent_limit: u64,
    /// All channels by name.
    pub channels: Vec<ChannelStatus>,
}

/// How the daemon stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkStatus {
    /// No daemon answers at the address, or none was configured.
    #[default]
    NoDaemon,
    /// What answers is no daemon, or one that we refuse.
    Refused,
    /// The daemon has no gateway or no PKI document yet.
    NoConsensus,
    /// The network can be used.
    Connected,
}

/// The daemon and the network behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// How it stands.
    pub link: LinkStatus,
    /// Where it is.
    pub address: Option<String>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// Whether the network is an embedded one, which gives no anonymity.
    pub localnet: bool,
    /// Longest plaintext of a box, in bytes.
    pub max_plaintext: Option<u64>,
    /// Boxes that one channel keeps under way.
    pub window_boxes: Option<u64>,
    /// Round trip, measured or modelled, in milliseconds.
    pub round_trip_ms: Option<u64>,
}

/// What we may do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleStatus {
    /// We hold the write capability.
    Writer,
    /// We hold a read capability.
    Reader,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Its name here.
    pub name: String,
    /// What we may do.
    pub role: RoleStatus,
    /// What it is in the mount: `stream`.
    pub kind: String,
    /// Writer: bytes accepted. Reader: bytes arrived, without a gap.
    pub size: u64,
    /// Writer: bytes that replicas hold, without a gap. Reader: as `size`.
    pub stored_bytes: u64,
    /// Writer: boxes filled or begun. Reader: boxes arrived, without a gap but for those that were skipped.
    pub boxes: u64,
    /// Writer: boxes that replicas hold. Reader: as `boxes`.
    pub stored_boxes: u64,
    /// Whether a packet may have left: from then on nothing can be taken back.
    pub launched: bool,
    /// Whether a capability was given out.
    pub shared: bool,
    /// Reader: Unix seconds of the newest answer that the frontier is not there yet.
    pub not_there_yet_at: Option<u64>,
    /// Reader: a later box is known, so the one at the frontier is late.
    pub waiting_for_late_box: bool,
    /// Reader: boxes that are missing at the frontier, before one that is here.
    #[serde(default)]
    pub missing_boxes: u64,
    /// Reader: Unix seconds of when a box behind those that are missing was first seen.
    #[serde(default)]
    pub missing_since: Option<u64>,
    /// Reader: what is missing is older than the network keeps anything; reading on gives an error until it is skipped.
    #[serde(default)]
    pub lost: bool,
    /// Reader: boxes that were given up by `pigeonfs skip`.
    #[serde(default)]
    pub skipped_boxes: u64,
    /// Bytes at its beginning that were dropped to make room.
    #[serde(default)]
    pub dropped_bytes: u64,
    /// Reader: the cache is full, so nothing more is fetched.
    #[serde(default)]
    pub paused: bool,
    /// Reader: milliseconds until the next probe.
    pub next_probe_ms: Option<u64>,
    /// Why the channel is stopped for good, until a verb says what to do.
    pub fenced: Option<String>,
    /// A fenced channel that is being adopted: how many indices were looked at.
    #[serde(default)]
    pub adopting: Option<u64>,
    /// The newest trouble.
    pub error: Option<String>,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds of the last growth.
    pub modified: u64,
}

impl ChannelStatus {
    /// Writer: bytes accepted that no replica confirmed yet.
    pub fn queued_bytes(&self) -> u64 {
        self.size.saturating_sub(self.stored_bytes)
    }
}
