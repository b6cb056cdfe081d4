//! The kernel's requests, as calls of the file system; each is answered exactly once.
//!
//! What only looks is answered on the thread that took the request. What commits runs on the runtime; a write is handed
//! to the store before its request's thread goes on, so that writes keep their order. What waits is ended by a deadline
//! or by a signal to its caller.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::interrupt::interrupted;
use crate::fs::{Attributes, Change, Fs, FsError, Kind, Node, Opened, Read};
use crate::store::Claim;

/// Sizes and times change behind the kernel's back.
const TTL: Duration = Duration::ZERO;

type Listing = Vec<(Node, String)>;

pub(super) struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    /// What each open directory listed when it was opened.
    listings: Mutex<HashMap<u64, Listing>>,
    last_listing: std::sync::atomic::AtomicU64,
}

impl Adapter {
    pub(super) fn new(fs: Arc<Fs>, runtime: Handle) -> Self {
        Self { fs, runtime, listings: Mutex::default(), last_listing: std::sync::atomic::AtomicU64::new(0) }
    }

    /// Runs what commits off the thread that takes requests, then answers.
    fn commit<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Fs) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let fs = Arc::clone(&self.fs);
        self.runtime.spawn_blocking(move || answer(work(&fs).map_err(|error| errno(operation, &error))));
    }
}

/// The one place where a failure becomes an errno and, where it is worth telling, a line of the log.
fn errno(operation: &'static str, error: &FsError) -> Errno {
    if error.worth_telling {
        warn!(operation, "{error}");
    } else {
        debug!(operation, "{error}");
    }
    Errno::from_i32(error.errno)
}

fn node(inode: INodeNo) -> Result<Node, FsError> {
    Node::from_inode(inode.0).ok_or_else(|| FsError::quiet(libc::ENOENT, "there is no such file"))
}

fn attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.node.inode()),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.modified,
        crtime: attributes.created,
        kind: file_type(attributes.node),
        perm: u16::try_from(attributes.mode).unwrap_or(0),
        nlink: if attributes.node.kind() == Kind::Directory { 2 } else { 1 },
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: attributes.block,
        flags: 0,
    }
}

fn file_type(node: Node) -> FileType {
    match node.kind() {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn entry(reply: ReplyEntry, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attr(&attributes), Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // O_TRUNC then comes with open, where it can be decided; without it, it would come as a change of no handle's.
        config
            .add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC)
            .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "this kernel's FUSE has no atomic O_TRUNC"))
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found =
            node(parent).and_then(|parent| self.fs.lookup(parent, name)).and_then(|node| self.fs.attributes(node));
        entry(reply, found.map_err(|error| errno("lookup", &error)));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match node(inode).and_then(|node| self.fs.attributes(node)) {
            Ok(attributes) => reply.attr(&TTL, &attr(&attributes)),
            Err(error) => reply.error(errno("getattr", &error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { size, mode, uid, gid, accessed: accessed.map(time), modified: modified.map(time) };
        self.commit(
            "setattr",
            move |fs| fs.change(node(inode)?, change),
            |result| match result {
                Ok(attributes) => reply.attr(&TTL, &attr(&attributes)),
                Err(error) => reply.error(error),
            },
        );
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.commit(
            "open",
            move |fs| fs.open(node(inode)?, flags.0),
            |result: Result<Opened, Errno>| match result {
                // Never the page cache: it would give zeros at the end of a file that grows behind its back.
                Ok(opened) => reply.opened(FileHandle(opened.handle), FopenFlags::FOPEN_DIRECT_IO),
                Err(error) => reply.error(error),
            },
        );
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        let work = move |fs: &Fs| {
            let opened = fs.create(node(parent)?, &name, flags)?;
            Ok((opened, fs.attributes(opened.node)?))
        };
        self.commit("create", work, |result| match result {
            Ok((opened, attributes)) => {
                let handle = FileHandle(opened.handle);
                reply.created(&TTL, &attr(&attributes), Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fs, caller) = (Arc::clone(&self.fs), request.pid());
        self.runtime.spawn(async move {
            match read(&fs, caller, handle.0, offset, size as usize).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno("read", &error)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let claim = Claim::new();
        let commit = match self.fs.write(handle.0, offset, data, claim.clone()) {
            Ok(commit) => commit,
            Err(error) => return reply.error(errno("write", &error)),
        };
        let (fs, caller) = (Arc::clone(&self.fs), request.pid());
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.runtime.spawn(async move {
            let mut commit = std::pin::pin!(commit);
            let result = tokio::select! {
                result = &mut commit => result,
                () = interrupted(caller) => {
                    // Whoever is first decides: bytes that are being taken are answered for, and no retry doubles them.
                    claim.interrupt();
                    commit.await
                }
            };
            match result {
                Ok(_) => {
                    fs.wrote(handle.0, u64::from(written));
                    reply.written(written);
                }
                Err(error) => reply.error(errno("write", &error.into())),
            }
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.fs.flush(handle.0).map_err(|error| errno("flush", &error)));
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.commit("fsync", move |fs| fs.sync(handle.0), |result| empty(reply, result));
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match node(inode).and_then(|node| self.fs.list(node)) {
            Ok(entries) => {
                let handle = self.last_listing.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                self.listings.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, entries);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(errno("opendir", &error)),
        }
    }

    fn readdir(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = listings.get(&handle.0) else { return reply.error(Errno::EBADF) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (node, name)) in entries.iter().enumerate().skip(from) {
            if reply.add(INodeNo(node.inode()), at as u64 + 1, file_type(*node), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.commit("unlink", move |fs| fs.unlink(node(parent)?, &name), |result| empty(reply, result));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (name, new_name): (OsString, OsString) = (name.to_owned(), new_name.to_owned());
        let work = move |fs: &Fs| fs.rename((node(parent)?, &name), (node(new_parent)?, &new_name), replace);
        self.commit("rename", work, |result| empty(reply, result));
    }

    fn mkdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        reply.error(errno("mkdir", &self.fs.refuse("directories")));
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn symlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _to: &std::path::Path, reply: ReplyEntry) {
        reply.error(errno("symlink", &self.fs.refuse("links")));
    }

    fn link(&self, _request: &Request, _inode: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(errno("link", &self.fs.refuse("links")));
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(errno("mknod", &self.fs.refuse("special files")));
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        // No number here is a promise; a small one would make installers refuse to write.
        const BLOCKS: u64 = u64::MAX / 1024 / BLOCK as u64;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }

    fn poll(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let (channel, readable, writable) = match self.fs.readiness(handle.0) {
            Ok(readiness) => readiness,
            Err(error) => return reply.error(errno("poll", &error)),
        };
        let mut ready = PollEvents::empty();
        ready.set(PollEvents::POLLIN, readable);
        ready.set(PollEvents::POLLOUT, writable);
        ready &= events;
        if let (true, Some(channel), true) =
            (flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY), channel, ready.is_empty())
        {
            let mut growth = self.fs.owner().store().changes().watch(channel);
            let fs = Arc::clone(&self.fs);
            self.runtime.spawn(async move {
                // Until the file is closed or has grown; the kernel then asks again.
                while let Ok((_, false, _)) = fs.readiness(handle.0) {
                    if growth.changed().await.is_err() {
                        return;
                    }
                }
                if let Err(error) = notifier.notify() {
                    debug!(%error, "a poll could not be woken");
                }
            });
        }
        reply.poll(ready);
    }

    // The kernel asks once and then no more.
    fn getxattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _inode: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

/// A read that waits where it must: until the channel changes, the deadline passes, or its caller is signalled.
async fn read(fs: &Arc<Fs>, caller: u32, handle: u64, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
    let deadline = Instant::now() + fs.options().read_timeout;
    let look = |fs: &Arc<Fs>| {
        let fs = Arc::clone(fs);
        tokio::task::spawn_blocking(move || fs.read(handle, offset, size))
    };
    let first = look(fs).await.map_err(|error| FsError::new(libc::EIO, error.to_string()))??;
    let channel = match first {
        Read::Data(bytes) => return Ok(bytes),
        Read::Wait(channel) => channel,
    };
    let mut growth = fs.owner().store().changes().watch(channel);
    let mut signal = std::pin::pin!(interrupted(caller));
    loop {
        // Looked at after the watch began, so that no growth falls between.
        match look(fs).await.map_err(|error| FsError::new(libc::EIO, error.to_string()))?? {
            Read::Data(bytes) => return Ok(bytes),
            Read::Wait(_) => {}
        }
        tokio::select! {
            _ = growth.changed() => {}
            () = &mut signal => return Err(FsError::quiet(libc::EINTR, "interrupted")),
            () = sleep_until(deadline) => {
                let text = "whether the channel goes on could not be learned in time; this is not its end";
                return Err(FsError::new(libc::ETIMEDOUT, text));
            }
        }
    }
}
