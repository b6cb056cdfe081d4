//! What the store knows of a channel, and the types that name its parts.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use crate::bacap::{BoxIndex, ReadCap, WriteCap};

/// A channel, as long as this state has it. Never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub i64);

/// The number of a box in its channel, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxSeq(pub u64);

/// A name that a channel may have: UTF-8, 1 to 255 bytes, no slash and no control character, and no name that the
/// mount keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(String);

/// Why text is no name for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("a name cannot be empty")]
    Empty,
    /// More than a file system carries.
    #[error("a name has at most 255 bytes")]
    TooLong,
    /// Not text.
    #[error("a name must be UTF-8")]
    NotUtf8,
    /// It would end in another directory, or in a terminal's control.
    #[error("a name cannot hold a slash or a control character")]
    Character,
    /// `.`, `..` and the control directory.
    #[error("the names `.`, `..` and `.pigeonfs` are taken")]
    Reserved,
}

impl ChannelName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Err(NameError::Empty),
            "." | ".." | ".pigeonfs" => Err(NameError::Reserved),
            _ if text.len() > 255 => Err(NameError::TooLong),
            _ if text.chars().any(|c| c == '/' || c.is_control()) => Err(NameError::Character),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// Reads a name from what a file system gives.
    pub fn from_os(text: &std::ffi::OsStr) -> Result<Self, NameError> {
        Self::parse(text.to_str().ok_or(NameError::NotUtf8)?)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Which capability of a channel we hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The write capability.
    Writer,
    /// A read capability.
    Reader,
}

/// A capability, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To write.
    Write(WriteCap),
    /// To read.
    Read(ReadCap),
}

/// Where a box stands. A writer's boxes go from `Open` to `Stored`; a reader's start at `Received`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BoxState {
    /// The tail: it takes more bytes.
    Open = 0,
    /// Bytes and index are fixed.
    Sealed = 1,
    /// A packet may have left.
    Launched = 2,
    /// A courier acknowledged it; it may still be lost.
    Couriered = 3,
    /// A replica confirmed it.
    Stored = 4,
    /// It has arrived.
    Received = 5,
    /// Its writer deleted it; it reads as no bytes.
    Tombstone = 6,
}

impl BoxState {
    pub(super) fn from_row(state: u8) -> Option<Self> {
        [Self::Open, Self::Sealed, Self::Launched, Self::Couriered, Self::Stored, Self::Received, Self::Tombstone]
            .into_iter()
            .find(|known| *known as u8 == state)
    }
}

/// One channel, as of one moment.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Which.
    pub id: ChannelId,
    /// Its name here.
    pub name: ChannelName,
    /// What we hold of it.
    pub role: Role,
    /// Writer: bytes accepted. Reader: bytes that have arrived without a gap.
    pub size: u64,
    /// Writer: bytes that replicas hold, without a gap.
    pub stored_bytes: u64,
    /// Writer: boxes, the open tail included.
    pub boxes: u64,
    /// Writer: boxes that replicas hold.
    pub stored_boxes: u64,
    /// Writer: the first box that is not stored.
    pub first_unstored: BoxSeq,
    /// Writer: bytes in the open tail; 0 where there is none.
    pub tail_bytes: u64,
    /// Writer: how often the boxes that were not launched were thrown away or packed anew.
    pub rewrites: u64,
    /// Whether a packet may have left.
    pub launched: bool,
    /// Whether a capability was given out.
    pub shown: bool,
    /// Why it is stopped.
    pub fence: Option<String>,
    /// Reader: the first box that has not arrived.
    pub frontier: BoxSeq,
    /// Reader: when the box at the frontier was last found to be *not there yet*.
    pub verdict: Option<SystemTime>,
    /// Reader: a box past the frontier has arrived.
    pub later_known: bool,
    /// M: most bytes that a new box takes.
    pub max_plaintext: usize,
    /// The network that it belongs to, once it was used.
    pub network: Option<NetworkId>,
    /// When it was made or added here.
    pub created: SystemTime,
    /// When it last grew, or what `utimens` said since.
    pub modified: SystemTime,
    /// What `utimens` said, else when it was made.
    pub accessed: SystemTime,
    /// Permission bits that were dropped from the role's own.
    pub dropped_mode: u32,
}

/// A box that is not stored yet.
#[derive(Clone, Debug)]
pub struct OutBox {
    /// Which.
    pub seq: BoxSeq,
    /// Its index, fixed with its bytes.
    pub index: BoxIndex,
    /// Its bytes: never empty.
    pub payload: Vec<u8>,
    /// `Sealed`, `Launched` or `Couriered`.
    pub state: BoxState,
}

/// Where an append went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where its first byte is.
    pub offset: u64,
    /// The stream's size after it.
    pub size: u64,
}

/// What a read of a box found.
#[derive(Clone, PartialEq, Eq)]
pub enum Arrival {
    /// Its bytes.
    Message(Vec<u8>),
    /// Its writer deleted it.
    Tombstone,
    /// It is not there yet.
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

/// Where a reader stands after a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontier {
    /// The first box that has not arrived.
    pub seq: BoxSeq,
    /// Bytes before it.
    pub size: u64,
}

/// What came of binding a channel to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It had none, and has this one now.
    Bound,
    /// It is this one's already.
    Matches,
    /// It is another one's.
    Refused,
}

/// A network: the identity keys' hashes of its directory authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkId(BTreeSet<[u8; 32]>);

impl NetworkId {
    /// From the hashes, in any order.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Whether `present` is the same network: more than half of our keys are among its own.
    pub fn is_same_network_as(&self, present: &Self) -> bool {
        let known = self.0.intersection(&present.0).count();
        self.0 == present.0 || 2 * known > self.0.len()
    }

    pub(super) fn to_blob(&self) -> Vec<u8> {
        self.0.iter().flatten().copied().collect()
    }

    pub(super) fn from_blob(blob: &[u8]) -> Self {
        Self::new(blob.as_chunks::<32>().0.iter().copied())
    }
}
