//! The answers to requests, in fuser's types. Each is given exactly once; one that is forgotten is EIO.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, PollEvents, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};
use tracing::warn;

use crate::fs::{Attributes, Kind, Node};
use crate::mount::relay::Relay;

/// Names, sizes and times change behind the kernel's back. This is the least that it can count, a tick of its clock: `ls -l` looks
/// at each file four times, and each time at all directories that lead to it. So it is asked once.
const A_TICK: Duration = Duration::from_nanos(1);
/// What a caller hears whose answer found no memory, where the answer cannot be given in another way.
const UNSENT: Result<&[u8], i32> = Err(libc::EIO);
/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);

/// The answer that a request waits for.
pub(super) struct Reply<R: Answer> {
    answer: Option<R>,
    unique: u64,
    relay: Arc<Relay>,
}

/// An answer of fuser's, as far as all are alike.
pub(super) trait Answer {
    /// Says that it failed.
    fn refuse(self, errno: Errno);
}

macro_rules! answers {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLseek,
    ReplyOpen,
    ReplyPoll,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

impl<R: Answer> Reply<R> {
    pub(super) fn new(relay: &Arc<Relay>, request: &Request, answer: R) -> Self {
        Self { answer: Some(answer), unique: request.unique().0, relay: Arc::clone(relay) }
    }

    /// It failed.
    pub(super) fn error(self, errno: i32) {
        self.give(Err(errno), |answer| answer.refuse(Errno::from_i32(errno)));
    }

    /// Gives the answer through fuser, or `instead` where fuser cannot send it. Says whether the caller has heard `give`'s.
    fn give(mut self, instead: Result<&[u8], i32>, give: impl FnOnce(R)) -> bool {
        self.answer.take().is_some_and(|answer| {
            give(answer);
            self.relay.settle(self.unique, instead)
        })
    }
}

impl<R: Answer> Drop for Reply<R> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            warn!("a request was left without an answer");
            answer.refuse(Errno::EIO);
            self.relay.settle(self.unique, Err(libc::EIO));
        }
    }
}

impl Reply<ReplyEmpty> {
    /// It is done, and there is nothing to say.
    pub(super) fn done(self) {
        self.give(Ok(&[]), ReplyEmpty::ok);
    }
}

impl Reply<ReplyData> {
    /// Bytes of a file.
    pub(super) fn bytes(mut self, bytes: &[u8]) {
        // To the caller; then to fuser, which wants an answer of its own.
        if let Some(answer) = self.answer.take() {
            self.relay.answer_past_fuser(self.unique, bytes);
            answer.refuse(Errno::EIO);
            self.relay.drain();
        }
    }
}

impl Reply<ReplyEntry> {
    /// What a name stands for.
    pub(super) fn entry(self, attributes: &Attributes) {
        let file = file(attributes);
        self.give(UNSENT, |answer| {
            answer.entry_with_ttls(&A_TICK, &A_TICK, &file, GENERATION);
        });
    }
}

impl Reply<ReplyAttr> {
    /// False: the caller was told that it failed.
    pub(super) fn attributes(self, attributes: &Attributes) -> bool {
        let file = file(attributes);
        self.give(UNSENT, |answer| answer.attr(&A_TICK, &file))
    }
}

impl Reply<ReplyOpen> {
    /// A file or directory is open. False: the caller was told that it failed, and nobody closes the handle.
    #[must_use]
    pub(super) fn opened(self, handle: u64, flags: FopenFlags) -> bool {
        self.give(UNSENT, |answer| answer.opened(FileHandle(handle), flags))
    }
}

impl Reply<ReplyCreate> {
    /// A file was made, and is open. False: the caller was told that it failed, and nobody closes the handle.
    #[must_use]
    pub(super) fn created(self, attributes: &Attributes, handle: u64, flags: FopenFlags) -> bool {
        let file = file(attributes);
        self.give(UNSENT, |answer| answer.created(&A_TICK, &file, GENERATION, FileHandle(handle), flags))
    }
}

impl Reply<ReplyWrite> {
    /// So many bytes were taken.
    pub(super) fn written(self, count: u64) {
        // A request has no more than the kernel can count.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // As in `struct fuse_write_out`. Whoever heard of an error would write the bytes once more.
        let written = [count.to_ne_bytes(), [0; 4]].concat();
        self.give(Ok(&written), |answer| answer.written(count));
    }
}

impl Reply<ReplyLseek> {
    pub(super) fn offset(self, offset: u64) {
        match i64::try_from(offset) {
            Ok(offset) => {
                self.give(UNSENT, |answer| answer.offset(offset));
            }
            Err(_) => self.error(libc::EOVERFLOW),
        }
    }
}

impl Reply<ReplyPoll> {
    /// What a poll finds.
    pub(super) fn events(self, events: PollEvents) {
        self.give(UNSENT, |answer| answer.poll(events));
    }
}

impl Reply<ReplyStatfs> {
    /// Room in blocks of so many bytes; names take none that anybody counts.
    pub(super) fn room(self, block: u32, blocks: u64, free_blocks: u64) {
        // A small number would make installers refuse to write.
        const FILES: u64 = u32::MAX as u64;
        const NAME_BYTES: u32 = 255;
        self.give(UNSENT, |answer| {
            answer.statfs(blocks, free_blocks, free_blocks, FILES, FILES, block, NAME_BYTES, block);
        });
    }
}

impl Reply<ReplyXattr> {
    /// The protocol of both kinds of question: no room asks for the size, too little is ERANGE.
    pub(super) fn value(self, room: u32, value: &[u8]) {
        match u32::try_from(value.len()) {
            Ok(size) if room == 0 => {
                self.give(UNSENT, |answer| answer.size(size));
            }
            Ok(size) if size <= room => {
                self.give(Ok(value), |answer| answer.data(value));
            }
            _ => self.error(libc::ERANGE),
        }
    }
}

impl Reply<ReplyDirectory> {
    /// Adds an entry; `next` is where the one after it is. False: there is no room for it.
    pub(super) fn add(&mut self, node: Node, next: u64, name: &str) -> bool {
        self.answer.as_mut().is_some_and(|answer| !answer.add(INodeNo(node.inode()), next, kind(node), name))
    }

    pub(super) fn send(self) {
        self.give(UNSENT, ReplyDirectory::ok);
    }
}

fn file(attributes: &Attributes) -> FileAttr {
    let kind = kind(attributes.node);
    FileAttr {
        ino: INodeNo(attributes.node.inode()),
        size: attributes.size,
        blocks: attributes.held.div_ceil(512),
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: attributes.created,
        kind,
        // Permission bits are twelve.
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: attributes.block,
        flags: 0,
    }
}

fn kind(node: Node) -> FileType {
    match node.kind() {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

/// The errno of a mount that cannot be served.
pub(super) fn unsupported(text: String) -> io::Error {
    warn!("{text}");
    io::Error::from_raw_os_error(libc::EPROTO)
}
