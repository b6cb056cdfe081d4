//! What there is in a mount, its numbers and its attributes.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{EntryId, Options};
use crate::store::{Channel, ChannelId, Role};

/// Inode numbers of what is in drops begin here, directories apart from files.
const DROPPED: u64 = 1 << 62;
const DROPPED_DIRECTORIES: u64 = 1 << 61;
/// Inode numbers of channels begin here; each channel has [`PARTS`].
const CHANNELS: u64 = 16;
/// A channel, its control directory, what is in that, and the channel as a drop.
const PARTS: u64 = 8;
/// What programs gather before they write. Each write is a commit, so small ones cost most; and the kernel knows only
/// powers of two, which a box is not.
const BLOCK_BYTES: u32 = 64 << 10;
/// What the text of a read capability takes: 184 characters and the end of the line.
pub(super) const CAPABILITY_BYTES: u64 = 185;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The mount's own directory.
    Root,
    /// `.pigeonfs`.
    Control,
    /// `.pigeonfs/status.json`.
    Status,
    /// A stream.
    Channel(ChannelId),
    /// A drop.
    Drop(ChannelId),
    /// A directory in a drop.
    DropDirectory(EntryId),
    /// A file in a drop.
    DropFile(EntryId),
    /// `.pigeonfs/NAME`.
    ChannelControl(ChannelId),
    /// A file in there.
    Report(ChannelId, Report),
}

/// A file of `.pigeonfs/NAME/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// `status`: a few lines for a person.
    Status,
    /// `status.json`: the same for a program.
    StatusJson,
    /// `errors`: what went wrong, newest last.
    Errors,
    /// `read-capability`: reading it shows it, and from then on the stream can only grow.
    ReadCapability,
    /// `wait`: a read of it ends when all that was accepted is stored, or when the reader is up to date.
    Wait,
}

impl Report {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Status, Self::StatusJson, Self::Errors, Self::ReadCapability, Self::Wait];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::StatusJson => "status.json",
            Self::Errors => "errors",
            Self::ReadCapability => "read-capability",
            Self::Wait => "wait",
        }
    }

    /// Whether its directory lists it. Those whose reading does something are found by name only, so that nobody who
    /// searches all files shows a capability or waits for the network.
    pub fn is_listed(self) -> bool {
        !matches!(self, Self::ReadCapability | Self::Wait)
    }
}

impl Node {
    /// Its inode number, the same for the life of the channel.
    pub fn inode(self) -> u64 {
        let channel = |id: ChannelId, part: u64| CHANNELS + PARTS * u64::try_from(id.0).unwrap_or(0) + part;
        match self {
            Self::Root => 1,
            Self::Control => 2,
            Self::Status => 3,
            Self::Channel(id) => channel(id, 0),
            Self::ChannelControl(id) => channel(id, 1),
            Self::Report(id, report) => channel(id, 2 + report as u64),
            Self::Drop(id) => channel(id, PARTS - 1),
            Self::DropFile(entry) => DROPPED | entry.0,
            Self::DropDirectory(entry) => DROPPED | DROPPED_DIRECTORIES | entry.0,
        }
    }

    /// What an inode number stands for.
    pub fn from_inode(inode: u64) -> Option<Self> {
        let id = || ChannelId(i64::try_from((inode - CHANNELS) / PARTS).unwrap_or(i64::MAX));
        match inode {
            1 => Some(Self::Root),
            2 => Some(Self::Control),
            3 => Some(Self::Status),
            0..CHANNELS => None,
            DROPPED.. => {
                let entry = EntryId(inode & (DROPPED_DIRECTORIES - 1));
                match inode & !(DROPPED_DIRECTORIES - 1) {
                    DROPPED => Some(Self::DropFile(entry)),
                    _ if inode >> 63 == 0 => Some(Self::DropDirectory(entry)),
                    _ => None,
                }
            }
            _ => match (inode - CHANNELS) % PARTS {
                0 => Some(Self::Channel(id())),
                1 => Some(Self::ChannelControl(id())),
                7 => Some(Self::Drop(id())),
                part => {
                    let report = Report::ALL.get(usize::try_from(part - 2).ok()?)?;
                    Some(Self::Report(id(), *report))
                }
            },
        }
    }

    /// What a channel is in the root.
    pub(super) fn of_channel(channel: &Channel) -> Self {
        if channel.content.is_drop() { Self::Drop(channel.id) } else { Self::Channel(channel.id) }
    }

    /// Whether it is a drop, or in one.
    pub fn is_in_drop(self) -> bool {
        matches!(self, Self::Drop(_) | Self::DropDirectory(_) | Self::DropFile(_))
    }

    /// Whether it is a directory.
    pub fn kind(self) -> Kind {
        match self {
            Self::Root | Self::Control | Self::ChannelControl(_) | Self::Drop(_) | Self::DropDirectory(_) => {
                Kind::Directory
            }
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
    /// Names that it has: 0 where it was removed and is still open.
    pub links: u32,
    /// Owner: who made it, or who mounted.
    pub uid: u32,
    /// Group: of who mounted.
    pub gid: u32,
    /// The best size of a write, in bytes.
    pub block: u32,
    /// Access time.
    pub accessed: SystemTime,
    /// Time of the last growth.
    pub modified: SystemTime,
    /// Time of the last change of anything here.
    pub changed: SystemTime,
    /// Bytes that are here.
    pub held: u64,
    /// When it was made here.
    pub created: SystemTime,
}

impl Attributes {
    fn new(node: Node, size: u64, mode: u32, options: &Options) -> Self {
        Self {
            node,
            size,
            mode: mode & !options.umask,
            links: if node.kind() == Kind::Directory { 2 } else { 1 },
            uid: options.uid,
            gid: options.gid,
            block: BLOCK_BYTES,
            accessed: UNIX_EPOCH,
            modified: UNIX_EPOCH,
            changed: UNIX_EPOCH,
            created: UNIX_EPOCH,
            held: size,
        }
    }

    fn at(self, time: SystemTime) -> Self {
        Self { accessed: time, modified: time, changed: time, created: time, ..self }
    }

    /// A directory, whose names changed at `listed`.
    pub(super) fn directory(node: Node, listed: SystemTime, options: &Options) -> Self {
        let mode = if node == Node::Root && !options.read_only { 0o777 } else { 0o555 };
        Self::new(node, 0, mode, options).at(listed)
    }

    /// A file on this machine's disk. Executable bits are never shown, as of streams.
    pub(super) fn of_file(node: Node, length: u64, found: &std::fs::Metadata, options: &Options) -> Self {
        let modified = found.modified().unwrap_or(UNIX_EPOCH);
        let mode = found.mode() & 0o666 & if options.read_only { !0o222 } else { !0 };
        let changed = u64::try_from(found.ctime()).unwrap_or_default();
        let nanos = u64::try_from(found.ctime_nsec()).unwrap_or_default();
        Self {
            accessed: found.accessed().unwrap_or(modified),
            modified,
            changed: UNIX_EPOCH + Duration::from_secs(changed) + Duration::from_nanos(nanos),
            created: found.created().unwrap_or(modified),
            held: found.blocks() * 512,
            ..Self::new(node, length, mode, options)
        }
    }

    /// A report, which is made when it is looked at. `writers` are the bits of the channel's stream: a read of `wait` puts
    /// its tail on its way, so it is for those who may write.
    pub(super) fn of_report(node: Node, size: u64, writers: u32, options: &Options) -> Self {
        let mode = match node {
            Node::Report(_, Report::ReadCapability) => 0o400,
            Node::Report(_, Report::Wait) => 0o400 | ((writers & 0o222) << 1),
            _ => 0o444,
        };
        Self::new(node, size, mode, options).at(SystemTime::now())
    }

    /// Something in a drop, or a drop.
    pub(super) fn of_dropped(node: Node, size: u64, writable: bool, modified: SystemTime, options: &Options) -> Self {
        let mode = match (node.kind(), writable) {
            (Kind::Directory, true) => 0o777,
            (Kind::Directory, false) => 0o555,
            (Kind::File, true) => 0o666,
            (Kind::File, false) => 0o444,
        };
        Self::new(node, size, mode, options).at(modified)
    }

    pub(super) fn of_channel(channel: &Channel, options: &Options) -> Self {
        let mode = full_mode(channel.role) & !channel.dropped_mode;
        let (uid, gid) = channel.owner.unwrap_or((options.uid, options.gid));
        Self {
            uid,
            gid,
            accessed: channel.accessed,
            modified: channel.modified,
            changed: channel.changed,
            created: channel.created,
            held: channel.held_bytes,
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Each node has a number of its own, which leads back to it.
        #[test]
        fn a_number_leads_back_to_its_node(id in 1..1_i64 << 40, part in 0..10_usize) {
            let entry = EntryId(id.unsigned_abs());
            let id = ChannelId(id);
            let node = match part {
                7 => Node::Drop(id),
                8 => Node::DropFile(entry),
                9 => Node::DropDirectory(entry),
                0 => Node::Channel(id),
                1 => Node::ChannelControl(id),
                part => Node::Report(id, Report::ALL[part - 2]),
            };
            proptest::prop_assert_eq!(Node::from_inode(node.inode()), Some(node));
        }

        #[test]
        fn no_number_stands_for_two(inode: u64) {
            if let Some(node) = Node::from_inode(inode) {
                proptest::prop_assert_eq!(node.inode(), inode);
            }
        }
    }
}
