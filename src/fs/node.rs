//! What there is in a mount, its numbers and its attributes.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Options;
use crate::store::{Channel, ChannelId, Role};

/// Inode numbers of channels begin here; each channel has four.
const CHANNELS: u64 = 16;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The mount's own directory.
    Root,
    /// `.pigeonfs`.
    Control,
    /// `.pigeonfs/status.json`.
    Status,
    /// A channel.
    Channel(ChannelId),
    /// `.pigeonfs/NAME`.
    ChannelControl(ChannelId),
    /// `.pigeonfs/NAME/status`.
    ChannelStatus(ChannelId),
    /// `.pigeonfs/NAME/status.json`.
    ChannelStatusJson(ChannelId),
}

impl Node {
    /// Its inode number, the same for the life of the channel.
    pub fn inode(self) -> u64 {
        let channel = |id: ChannelId, part: u64| CHANNELS + 4 * u64::try_from(id.0).unwrap_or(0) + part;
        match self {
            Self::Root => 1,
            Self::Control => 2,
            Self::Status => 3,
            Self::Channel(id) => channel(id, 0),
            Self::ChannelControl(id) => channel(id, 1),
            Self::ChannelStatus(id) => channel(id, 2),
            Self::ChannelStatusJson(id) => channel(id, 3),
        }
    }

    /// What an inode number stands for.
    pub fn from_inode(inode: u64) -> Option<Self> {
        let id = || ChannelId(i64::try_from((inode - CHANNELS) / 4).unwrap_or(i64::MAX));
        match inode {
            1 => Some(Self::Root),
            2 => Some(Self::Control),
            3 => Some(Self::Status),
            0..CHANNELS => None,
            _ => Some(match inode % 4 {
                0 => Self::Channel(id()),
                1 => Self::ChannelControl(id()),
                2 => Self::ChannelStatus(id()),
                _ => Self::ChannelStatusJson(id()),
            }),
        }
    }

    /// Whether it is a directory.
    pub fn kind(self) -> Kind {
        match self {
            Self::Root | Self::Control | Self::ChannelControl(_) => Kind::Directory,
            _ => Kind::File,
        }
    }
}

/// What kind of thing a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// What `stat(2)` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is of.
    pub node: Node,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner: who mounted.
    pub uid: u32,
    /// Group: of who mounted.
    pub gid: u32,
    /// The best size of a write, in bytes: a box.
    pub block: u32,
    /// Access time.
    pub accessed: SystemTime,
    /// Time of the last growth.
    pub modified: SystemTime,
    /// When it was made here.
    pub created: SystemTime,
}

impl Attributes {
    fn new(node: Node, size: u64, mode: u32, options: &Options) -> Self {
        Self {
            node,
            size,
            mode: mode & !options.umask,
            uid: options.uid,
            gid: options.gid,
            block: 4096,
            accessed: UNIX_EPOCH,
            modified: UNIX_EPOCH,
            created: UNIX_EPOCH,
        }
    }

    pub(super) fn directory(node: Node, options: &Options) -> Self {
        let mode = if node == Node::Root { 0o777 } else { 0o555 };
        let now = SystemTime::now();
        Self { accessed: now, modified: now, created: now, ..Self::new(node, 0, mode, options) }
    }

    pub(super) fn of_report(node: Node, size: u64, options: &Options) -> Self {
        let now = SystemTime::now();
        Self { accessed: now, modified: now, created: now, ..Self::new(node, size, 0o444, options) }
    }

    pub(super) fn of_channel(channel: &Channel, options: &Options) -> Self {
        let mode = full_mode(channel.role) & !channel.dropped_mode;
        Self {
            block: u32::try_from(channel.max_plaintext).unwrap_or(4096),
            accessed: channel.accessed,
            modified: channel.modified,
            created: channel.created,
            ..Self::new(Node::Channel(channel.id), channel.size, mode, options)
        }
    }
}

/// The permission bits of a channel from which nothing was dropped, before the mount's own mask.
fn full_mode(role: Role) -> u32 {
    match role {
        Role::Writer => 0o666,
        Role::Reader => 0o444,
    }
}
