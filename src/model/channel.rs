//! A channel and its boxes: identifiers, roles, states.

use std::fmt;
use std::time::SystemTime;

use super::{ChannelName, Misfit, NetworkId};
use crate::bacap::{BoxIndex, ReadCap, TextNetwork, WriteCap};

/// What a box takes before the network was asked: M of Katzenpost's default geometry (`pigeonhole-internals.md` §2.3).
pub const PROVISIONAL_MAX_PLAINTEXT: u32 = 1549;
/// Most boxes past the end of what is known of a channel that an index is derived for or an arrival is kept for.
pub const MAX_AHEAD_BOXES: u64 = 4096;

/// A channel's number in this state directory: never used again, and the same under every name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub i64);

impl fmt::Display for ChannelId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Which box of a channel, counted from 0 at the index that the capability starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxSeq(pub u64);

impl fmt::Display for BoxSeq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Which capability is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The write capability.
    Writer,
    /// The read capability.
    Reader,
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Bytes, one after another.
    #[default]
    Stream,
    /// Whole files.
    Drop {
        /// Writer: whether what was sent may be deleted again.
        allow_delete: bool,
    },
}

impl Content {
    /// Whether it is a drop.
    pub fn is_drop(self) -> bool {
        matches!(self, Self::Drop { .. })
    }
}

/// Whose word lets a writer's channel go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// A replica's: two packets a box at least.
    #[default]
    Stored,
    /// A courier's, which may still lose it: one packet a box, and a confirmation later, in idle slots.
    Couriered,
}

/// How far a box is on its way. The first five are a writer's and follow one another; the others are a reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BoxState {
    /// The tail: takes more bytes.
    Open,
    /// Its bytes and its index are fixed.
    Sealed,
    /// A packet may have left.
    Launched,
    /// A courier acknowledged it; it may still be lost.
    Couriered,
    /// A replica confirmed it.
    Stored,
    /// Its bytes are here.
    Received,
    /// Its writer has deleted it.
    Tombstone,
}

impl BoxState {
    /// The number in the database. Within a role, a higher one is never followed by a lower one.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Sealed => 1,
            Self::Launched => 2,
            Self::Couriered => 3,
            Self::Stored => 4,
            Self::Received => 12,
            Self::Tombstone => 13,
        }
    }

    pub(crate) const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Open,
            1 => Self::Sealed,
            2 => Self::Launched,
            3 => Self::Couriered,
            4 => Self::Stored,
            12 => Self::Received,
            13 => Self::Tombstone,
            _ => return None,
        })
    }
}

/// Everything about a channel but its boxes and its capability. Read from one row: it costs the same for any length.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Its number.
    pub id: ChannelId,
    /// Its name.
    pub name: ChannelName,
    /// Which capability is held.
    pub role: Role,
    /// What it carries.
    pub content: Content,
    /// Reader of a drop: the boxes before this one were made into records.
    pub assembled: BoxSeq,
    /// Reader of a drop: what came before it belongs to no record, so a header is looked for.
    pub astray: bool,
    /// Bytes accepted (writer), or arrived without a gap (reader).
    pub size: u64,
    /// Writer: bytes from the start, without a gap, that replicas have confirmed.
    pub stored_bytes: u64,
    /// Writer: how many boxes there are. Reader: one past the last box that has arrived, gaps counted.
    pub boxes: u64,
    /// Writer: boxes that replicas have confirmed, those past a gap included.
    pub stored_boxes: u64,
    /// Writer: the first box that no replica has confirmed.
    pub first_unstored: BoxSeq,
    /// Writer: boxes that a courier has and no replica has confirmed.
    pub couriered_boxes: u64,
    /// Writer: their bytes.
    pub couriered_bytes: u64,
    /// Writer: whose word lets the next box go.
    pub durability: Durability,
    /// Writer: bytes in the open tail box; 0 where there is none.
    pub tail_bytes: u64,
    /// Writer: how often the boxes that were not launched were thrown away or packed anew.
    pub rewrites: u64,
    /// When it was made or added here.
    pub created: SystemTime,
    /// When its size changed, or what a person set.
    pub modified: SystemTime,
    /// What a person set, at first `created`.
    pub accessed: SystemTime,
    /// When anything of it changed that `stat(2)` shows.
    pub changed: SystemTime,
    /// Permission bits that were taken from those of its role.
    pub dropped_mode: u32,
    /// The user and the group that it belongs to, where those are not of who mounts.
    pub owner: Option<(u32, u32)>,
    /// Writer: whether a packet may have left, ever.
    pub launched: bool,
    /// Writer: one past the last box of which a packet may have left.
    pub launched_end: BoxSeq,
    /// Whether a capability of it was shown, ever.
    pub shown: bool,
    /// Writer: whether the write capability was shown, or came from elsewhere. Else this is its only copy.
    pub cap_elsewhere: bool,
    /// Why it has failed, for good but where `unfit` says more.
    pub fence: Option<String>,
    /// Writer: the fence goes when a network is there whose boxes take so many bytes: that is the longest box that was
    /// launched and is not stored.
    pub unfit: Option<usize>,
    /// Reader: the first box that has not arrived.
    pub frontier: BoxSeq,
    /// Reader: when the network said of the frontier itself that it is not there yet.
    pub verdict: Option<SystemTime>,
    /// Reader: a box past the frontier has arrived.
    pub later_known: bool,
    /// Reader: what is missing before this box can no longer come.
    pub lost_end: BoxSeq,
    /// Reader: boxes before the frontier that were given up.
    pub skipped_boxes: u64,
    /// Reader: the last verdict before one that came too late to be believed. Until a search has told whether the frontier
    /// was written and has expired, the end is not known.
    pub stale_since: Option<SystemTime>,
    /// Reader: the network's replica epoch at that verdict.
    pub stale_epoch: Option<u64>,
    /// Reader: when the first search of the newest day with one began.
    pub searched: Option<SystemTime>,
    /// Reader: reads that all searches since then may have asked for.
    pub search_probes: u32,
    /// Bytes at its beginning that were dropped to make room.
    pub dropped_bytes: u64,
    /// Bytes of it that are here, a reader's past the frontier too.
    pub held_bytes: u64,
    /// Reader: the cache is full, so nothing more is fetched for it. See [`Limits`](super::Limits).
    pub paused: bool,
    /// Most plaintext bytes of a box.
    pub max_plaintext: usize,
    /// The network that it belongs to.
    pub network: Option<NetworkId>,
    /// Reader: what it carries is what a person said; its first box is to tell.
    pub kind_is_told: bool,
    /// The network that its capability's text names.
    pub text_network: TextNetwork,
    /// Another network than the one of its text is refused, even where only the authorities have changed.
    pub strict_network: bool,
    /// Writer: an invitation is open, with whose reply its indices move. Nothing of it leaves before.
    pub invited: bool,
    /// Writer: until when what expires is sent again. Reader: until when its writer does so.
    pub kept_until: Option<SystemTime>,
}

/// Why nothing of a channel is sent that is kept at home.
pub const AT_HOME: &str = "its name is one that rsync gives to what is not whole: rename it, and it is sent";

impl Channel {
    /// Whether it is kept at home: rsync has made it under a name of its own and renames it once it is whole. Nothing of it leaves
    /// before, so that an rsync that is interrupted can remove it. So is a channel whose invitation is open: its indices move.
    pub fn is_at_home(&self) -> bool {
        (self.name.is_temporary() || self.invited) && !self.launched
    }

    /// How `present` differs from the network that the channel belongs to by its capability's text, where that is a reason
    /// to refuse it. What a channel is bound to stands above its text.
    pub fn misfit(&self, present: &NetworkId) -> Option<Misfit> {
        let misfit = Misfit::of(self.text_network, present).filter(|_| self.network.is_none());
        misfit.filter(|misfit| self.strict_network || *misfit != Misfit::OtherHash)
    }

    /// Whether the channel belongs to another network than `present`: by what it is bound to, or by its text.
    pub fn is_foreign_to(&self, present: &NetworkId) -> bool {
        match &self.network {
            Some(bound) => !bound.is_same_network_as(present),
            None => self.misfit(present).is_some(),
        }
    }
}

/// What we hold of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To write, and so to read.
    Write(WriteCap),
    /// To read.
    Read(ReadCap),
}

/// A box on its way out.
#[derive(Clone, PartialEq, Eq)]
pub struct OutBox {
    /// Which.
    pub seq: BoxSeq,
    /// Where it goes, for ever.
    pub index: BoxIndex,
    /// Its plaintext.
    pub payload: Vec<u8>,
    /// [`BoxState::Sealed`], [`BoxState::Launched`] or [`BoxState::Couriered`].
    pub state: BoxState,
}

impl fmt::Debug for OutBox {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OutBox({} {:?}, {} bytes)", self.seq, self.state, self.payload.len())
    }
}

/// What the network said about one box of a reader's channel.
#[derive(Clone, PartialEq, Eq)]
pub enum Arrival {
    /// The box and its plaintext.
    Message(Vec<u8>),
    /// Its writer has deleted it.
    Tombstone,
    /// It is not there yet. Kept as a verdict where it is about the frontier.
    NotYet,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(out, "Message({} bytes)", bytes.len()),
            Self::Tombstone => out.write_str("Tombstone"),
            Self::NotYet => out.write_str("NotYet"),
        }
    }
}

/// Where a reader's channel stands after a batch of arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontier {
    /// The first box that has not arrived.
    pub seq: BoxSeq,
    /// Bytes before it.
    pub size: u64,
}

/// What was given up of a channel that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The first of the boxes.
    pub first: BoxSeq,
    /// How many.
    pub boxes: u64,
    /// Bytes behind them that are there to be read now.
    pub bytes: u64,
}

/// Where appended bytes begin, and the channel's size with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The size before.
    pub offset: u64,
    /// The size now.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_codes_are_read_back() {
        for code in -1..20 {
            if let Some(state) = BoxState::from_code(code) {
                assert_eq!(state.code(), code);
            }
        }
    }

    #[test]
    fn nothing_prints_plaintext() {
        assert_eq!(format!("{:?}", Arrival::Message(b"secret".to_vec())), "Message(6 bytes)");
    }
}
