//! The kernel's requests, as calls of the file system; each is answered exactly once.
//!
//! What only looks is answered on the thread that took the request. What commits runs on the runtime; a write is handed
//! to the store before its request's thread goes on, so that writes keep their order. What waits is ended by a deadline
//! or by a signal to its caller.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::attr::{attr, file_type, time};
use super::interrupt::interrupted;
use super::waiting::{answer, look};
use crate::fs::{Attributes, Change, Fs, FsError, Node, Opened, Rename};
use crate::store::Claim;

/// Sizes and times change behind the kernel's back.
const TTL: Duration = Duration::ZERO;
/// The least that the kernel can count, a tick of its clock: a stat(2) looks a name up and then asks for what it was
/// just told. So it is not asked.
const TTL_OF_LOOKUP: Duration = Duration::from_nanos(1);

type Listing = Vec<(Node, String)>;

pub(super) struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    /// What each open directory listed when it was opened.
    listings: Mutex<HashMap<u64, Listing>>,
    last_listing: std::sync::atomic::AtomicU64,
    /// The polls that wait, one for each open file: the kernel keeps no more of them either.
    polls: Mutex<HashMap<u64, AbortHandle>>,
}

impl Adapter {
    pub(super) fn new(fs: Arc<Fs>, runtime: Handle) -> Self {
        Self {
            fs,
            runtime,
            listings: Mutex::default(),
            last_listing: std::sync::atomic::AtomicU64::new(0),
            polls: Mutex::default(),
        }
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

impl Adapter {
    fn polls(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why something that is no stream cannot be made or removed.
    fn refusal(&self, operation: &'static str, parent: INodeNo, what: &str) -> Errno {
        let error = node(parent).map_or_else(|error| error, |parent| self.fs.refuse(parent, what));
        errno(operation, &error)
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

fn entry(reply: ReplyEntry, result: Result<Attributes, Errno>) {
    match result {
        Ok(attributes) => reply.entry_with_ttls(&TTL_OF_LOOKUP, &TTL, &attr(&attributes), Generation(0)),
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
        let found = node(parent).and_then(|parent| self.fs.find(parent, name));
        entry(reply, found.map_err(|error| errno("lookup", &error)));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match node(inode).and_then(|node| self.fs.attributes(node, handle.map(|handle| handle.0))) {
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
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        let work = move |fs: &Fs| {
            let opened = fs.create(node(parent)?, &name, mode & !umask, flags)?;
            Ok((opened, fs.attributes(opened.node, Some(opened.handle))?))
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
            let look = move |fs: &Fs| fs.read(handle.0, offset, size as usize);
            match answer(&fs, caller, look).await {
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
            match fs.wrote(handle.0, result) {
                Ok(bytes) => reply.written(u32::try_from(bytes).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno("write", &error)),
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

    fn fsync(&self, request: &Request, _inode: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let (fs, caller) = (Arc::clone(&self.fs), request.pid());
        self.runtime.spawn(async move {
            let result = match look(&fs, move |fs| fs.sync(handle.0)).await {
                Ok(Some(barrier)) => answer(&fs, caller, move |fs| fs.reached(&barrier)).await.map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            empty(reply, result.map_err(|error| errno("fsync", &error)));
        });
    }

    /// Names are on the disk when they are made.
    fn fsyncdir(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    // Room cannot be had before there are bytes.
    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    // The kernel asks once, and then copies by reading and writing.
    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = match (u64::try_from(offset), whence) {
            (Ok(offset), libc::SEEK_DATA | libc::SEEK_HOLE) => {
                self.fs.seek(handle.0, offset, whence == libc::SEEK_HOLE)
            }
            (Err(_), _) => Err(FsError::quiet(libc::ENXIO, "it is before the beginning")),
            _ => Err(FsError::quiet(libc::EINVAL, "the kernel knows the others itself")),
        };
        match found {
            Ok(offset) => reply.offset(i64::try_from(offset).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno("lseek", &error)),
        }
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
        if let Some(poll) = self.polls().remove(&handle.0) {
            poll.abort();
        }
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
        let how = match flags {
            flags if flags.is_empty() => Rename::Replace,
            RenameFlags::RENAME_NOREPLACE => Rename::NoReplace,
            RenameFlags::RENAME_EXCHANGE => Rename::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (name, new_name): (OsString, OsString) = (name.to_owned(), new_name.to_owned());
        let work = move |fs: &Fs| fs.rename((node(parent)?, &name), (node(new_parent)?, &new_name), how);
        self.commit("rename", work, |result| empty(reply, result));
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(reply, Err(self.refusal("mkdir", parent, "directories")));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        empty(reply, Err(self.refusal("rmdir", parent, "directories")));
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, _name: &OsStr, _to: &std::path::Path, reply: ReplyEntry) {
        entry(reply, Err(self.refusal("symlink", parent, "links")));
    }

    fn link(&self, _request: &Request, _inode: INodeNo, parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        entry(reply, Err(self.refusal("link", parent, "links")));
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, Err(self.refusal("mknod", parent, "special files")));
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        // Names take no room that anybody counts; a small number would make installers refuse to write.
        const FILES: u64 = u32::MAX as u64;
        match self.fs.capacity() {
            Ok(capacity) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK);
                let free = blocks(capacity.free_bytes);
                reply.statfs(blocks(capacity.total_bytes), free, free, FILES, FILES, BLOCK, 255, BLOCK);
            }
            Err(error) => reply.error(errno("statfs", &error)),
        }
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
        let changes = self.fs.owner().store().changes();
        // Room in the spool is made by any channel. Watched before it is looked at, so that no change falls between.
        let mut watch = changes.watch_all();
        let readiness = match self.fs.readiness(handle.0) {
            Ok(readiness) => readiness,
            Err(error) => return reply.error(errno("poll", &error)),
        };
        let ready = move |readable, writable| {
            let mut ready = PollEvents::empty();
            ready.set(PollEvents::POLLIN | PollEvents::POLLRDNORM, readable);
            ready.set(PollEvents::POLLOUT | PollEvents::POLLWRNORM, writable);
            ready & events
        };
        let now = ready(readiness.readable, readiness.writable);
        if let (true, Some(channel), true) =
            (flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY), readiness.channel, now.is_empty())
        {
            if ready(false, true).is_empty() {
                watch = changes.watch(channel);
            }
            let fs = Arc::clone(&self.fs);
            let wait = self.runtime.spawn(async move {
                // Until the file is closed or has something to say; the kernel then asks again.
                loop {
                    match look(&fs, move |fs| fs.readiness(handle.0)).await {
                        Ok(found) if ready(found.readable, found.writable).is_empty() => {}
                        _ => break,
                    }
                    if watch.changed().await.is_err() {
                        return;
                    }
                }
                if let Err(error) = notifier.notify() {
                    debug!(%error, "a poll could not be woken");
                }
            });
            if let Some(older) = self.polls().insert(handle.0, wait.abort_handle()) {
                older.abort();
            }
        }
        reply.poll(now);
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(reply, size, node(inode).and_then(|node| self.fs.attribute(node, name)));
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, node(inode).and_then(|node| self.fs.attribute_names(node)));
    }

    // Attributes are read, never set; what copies files takes this for an answer, and goes on.
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
        reply.error(Errno::EOPNOTSUPP);
    }

    fn removexattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

/// The protocol of both: no room asks for the size, too little is ERANGE.
fn xattr(reply: ReplyXattr, size: u32, found: Result<Vec<u8>, FsError>) {
    match found {
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno("xattr", &error)),
    }
}
