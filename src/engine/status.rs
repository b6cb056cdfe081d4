//! The state of everything, as the status verb and the control directory show it. Names and numbers, no secrets.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::HistoryPoint;

/// Version of the schema below; it grows when a field changes its meaning or goes.
pub const STATUS_VERSION: u32 = 1;

/// Everything that one owner knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_VERSION`].
    pub version: u32,
    /// Why the state itself cannot be written: while it is so, nothing is accepted and nothing is sent.
    #[serde(default)]
    pub state_error: Option<String>,
    /// The daemon and the network behind it.
    pub daemon: DaemonStatus,
    /// Each of them, where there are several: then [`daemon`](Self::daemon) is of all together, with the address of the
    /// first that is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daemons: Vec<DaemonStatus>,
    /// What of the engine does not run though it should.
    #[serde(default)]
    pub engine_error: Option<String>,
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
    /// Invitations and accepted codes that are not done.
    #[serde(default)]
    pub contacts: Vec<ContactStatus>,
}

/// What has gone over the network lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// [`STATUS_VERSION`].
    pub version: u32,
    /// The minute that it is, counted from 1970.
    pub now: u64,
    /// How many minutes up to that one this tells of.
    pub minutes: u64,
    /// Those in which something has gone or come, in their order.
    pub points: Vec<HistoryPoint>,
}

/// How an invitation, or a code that was accepted, stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContactStatus {
    /// It is an invitation; otherwise a code of somebody else.
    pub invites: bool,
    /// Our channel.
    pub ours: String,
    /// The name of the other side's channel here, once it is known.
    pub theirs: Option<String>,
    /// What the inviter calls itself, once it is known. Anybody can give any name.
    pub display_name: Option<String>,
    /// How far it has come.
    pub stage: ContactStage,
    /// What went wrong last, or what is waited for.
    pub trouble: Option<String>,
}

/// How far an invitation or a code has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContactStage {
    /// The voucher is being made, and put where the other side looks for it.
    Preparing,
    /// The other side is waited for.
    Waiting,
    /// The reply is on its way.
    Answering,
    /// Both sides have a channel of each other's.
    Done,
    /// Nothing comes of it.
    Failed,
}

impl ContactStage {
    /// Whether both sides have a channel of each other's.
    pub fn is_done(self) -> bool {
        self == Self::Done
    }
}

/// How the daemon stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// What it is in the mount: `stream` or `drop`.
    pub kind: String,
    /// Writer: bytes accepted. Reader: bytes arrived, without a gap.
    pub size: u64,
    /// Writer: bytes that replicas hold, without a gap. Reader: as `size`.
    pub stored_bytes: u64,
    /// Writer: boxes filled or begun. Reader: boxes arrived, without a gap but for those that were skipped.
    pub boxes: u64,
    /// Writer: boxes that replicas hold. Reader: as `boxes`.
    pub stored_boxes: u64,
    /// Writer: bytes that neither a courier nor a replica has.
    #[serde(default)]
    pub queued_bytes: u64,
    /// Writer: boxes of them.
    #[serde(default)]
    pub queued_boxes: u64,
    /// Writer: bytes that a courier has and no replica has confirmed.
    #[serde(default)]
    pub couriered_bytes: u64,
    /// Writer: boxes of them.
    #[serde(default)]
    pub couriered_boxes: u64,
    /// Writer: whose word lets the next box go, `stored` or `couriered`.
    #[serde(default)]
    pub durability: Option<DurabilityStatus>,
    /// Boxes a minute that were confirmed, or arrived, lately.
    #[serde(default)]
    pub boxes_per_minute: f64,
    /// Writer: milliseconds until all that was accepted is stored, as the network's pace goes.
    #[serde(default)]
    pub eta_ms: Option<u64>,
    /// Writer: milliseconds that the oldest box waits for a replica: since it was sealed, or since a courier has it.
    #[serde(default)]
    pub oldest_unstored_ms: Option<u64>,
    /// Writer: Unix seconds from which on replicas may have dropped the oldest box that is kept here.
    #[serde(default)]
    pub oldest_expires_at: Option<u64>,
    /// Writer: an invitation with it is open. Nothing of it leaves before that is answered.
    #[serde(default)]
    pub invited: bool,
    /// Reader: what it carries is not known for sure before its first box has come.
    #[serde(default)]
    pub kind_is_told: bool,
    /// Reader: Unix seconds until when what was not fetched yet can be had, at least. `None`: not known, as the network was
    /// not asked yet.
    #[serde(default)]
    pub unfetched_until: Option<u64>,
    /// Unix seconds until when the channel is kept on the network. Writer: by us. Reader: by its writer; until then what is not
    /// found is late, and neither the end nor lost.
    #[serde(default)]
    pub kept_until: Option<u64>,
    /// Writer, of a channel that is kept: boxes that have expired and were not sent again yet.
    #[serde(default)]
    pub expired_boxes: u64,
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
    /// Reader: it was away for so long that what comes next may have expired; a search is to tell.
    #[serde(default)]
    pub stale: bool,
    /// Reader: reads that the search has taken so far, while it is under way.
    #[serde(default)]
    pub search_probes: Option<u32>,
    /// Reader: boxes that were given up by `pigeonfs skip`.
    #[serde(default)]
    pub skipped_boxes: u64,
    /// Reader: milliseconds for which it is still probed often.
    #[serde(default)]
    pub followed_ms: Option<u64>,
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
    /// Writer: whether the write capability is here only, as far as is known: forgotten, it is gone.
    #[serde(default)]
    pub only_copy: bool,
    /// Why the state itself cannot be written, as in [`Status::state_error`].
    #[serde(default)]
    pub state_error: Option<String>,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds of the last growth.
    pub modified: u64,
    /// Of a drop: how its files stand.
    #[serde(default)]
    pub files: Option<Box<FilesStatus>>,
}

/// How the files of a drop stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesStatus {
    /// Writer: accepted, and not yet stored by replicas.
    pub pending: u64,
    /// Writer, in a mount: open, or just closed and to be sent.
    #[serde(default)]
    pub settling: u64,
    /// Writer, in a mount: never sent as they are, as their writer died or their names look temporary.
    #[serde(default)]
    pub unfinished: Vec<String>,
    /// Writer, in a mount: how many of those a person may release with `send --finish`.
    #[serde(default)]
    pub to_finish: u64,
    /// Writer: stored. Reader: complete; of a chain of parts, the file that they make.
    pub complete: u64,
    /// Reader: arriving, and chains whose parts are not all there.
    pub incomplete: u64,
    /// Reader: broken on their way, or not what they were said to be.
    pub broken: u64,
    /// Writer: deleted again, or to be.
    pub deleted: u64,
    /// Writer: the oldest that is not stored. Reader: the one that is arriving.
    pub current: Option<RecordStatus>,
    /// Reader: chains whose parts are not all there: the first few, as the first part that came.
    pub open_chains: Vec<RecordStatus>,
    /// Reader: the newest that are broken.
    pub newest_broken: Vec<RecordStatus>,
    /// Reader: nothing more is known to follow, and all that came was made into files.
    pub settled: bool,
}

/// A box index in base64. With one box of the network it gives the read capability, so it shows nothing of itself unless it
/// is asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndexText(pub String);

impl fmt::Debug for IndexText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("IndexText(..)")
    }
}

/// One file of a drop, or one part of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordStatus {
    /// Its number in this state; they grow.
    pub record: i64,
    /// What the file is called, as its sender says; empty: boxes that belong to no file.
    pub name: String,
    /// The directories that it is in, as its sender says.
    pub path: String,
    /// `waiting`, `sending`, `stored`, `deleting`, `deleted`; or `incomplete`, `complete`, `broken`.
    pub state: String,
    /// Whether it is an empty directory.
    pub directory: bool,
    /// Bytes of the file, once it is unpacked.
    pub size: u64,
    /// Bytes of it that travel.
    pub sent_size: u64,
    /// Writer: bytes of those that replicas hold. Reader: that have arrived.
    pub done: u64,
    /// Its first box, counted from 0.
    pub first_box: Option<u64>,
    /// The index of its first box in base64, for `pigeonhole-cp -i`; only where it was asked for one record.
    pub index: Option<IndexText>,
    /// How many boxes it takes, once that is known.
    pub boxes: Option<u64>,
    /// BLAKE3 of what travels, in hexadecimal.
    pub digest: Option<String>,
    /// Which part of a chain it is; 0: the file that the parts make.
    pub part: Option<u32>,
    /// Answers [`Accept`](super::control::Request::Accept): it was under way already.
    #[serde(default)]
    pub again: bool,
    /// Why it is broken.
    pub reason: Option<String>,
    /// Reader: whether `receive` has brought it out, or has told of it.
    pub delivered: bool,
    /// Permission bits, where its sender told them.
    pub mode: Option<u32>,
    /// When it was modified, in Unix seconds, where its sender told it.
    pub mtime: Option<i64>,
}

/// Whose word lets a writer's next box go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityStatus {
    /// A replica's.
    #[default]
    Stored,
    /// A courier's.
    Couriered,
}

impl ChannelStatus {
    /// Stands for how it stands: the same while nothing changes but what goes with time alone.
    pub(crate) fn mark(&self) -> u64 {
        let (boxes_per_minute, eta_ms, oldest_unstored_ms) = (0.0, None, None);
        let still = Self {
            boxes_per_minute,
            eta_ms,
            oldest_unstored_ms,
            next_probe_ms: None,
            followed_ms: self.followed_ms.map(|left| u64::from(left > 0)),
            not_there_yet_at: self.not_there_yet_at.map(|_| 0),
            unfetched_until: None,
            ..self.clone()
        };
        let text = serde_json::to_vec(&still).unwrap_or_default();
        let hash = blake3::hash(&text);
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
    }

    /// Writer: bytes accepted that no replica confirmed yet.
    pub fn unstored_bytes(&self) -> u64 {
        self.size.saturating_sub(self.stored_bytes)
    }

    /// Reader: for a person, what to do where not even a first box is there. Nobody has written one, or it has expired: a
    /// reader that was never here before cannot tell.
    #[cfg(feature = "mount")]
    pub(crate) fn beginning(&self) -> Option<String> {
        let nothing = self.role == RoleStatus::Reader && self.boxes == 0 && self.missing_boxes == 0;
        (nothing && !self.stale && self.not_there_yet_at.is_some()).then(|| {
            format!(
                "nothing is there yet, or what was sent has expired (after a week or two): `pigeonfs skip --search {}` \
                 looks for what still lives",
                self.name
            )
        })
    }
}

/// Whole seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
