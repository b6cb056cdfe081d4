//! fuser's calls. Nothing is decided here: each becomes one of the server's, in the words of `fs`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::reply::unsupported;
use super::{About, MAX_BACKGROUND, OLDEST, Server, node};
use crate::fs::{Change, Credentials};

/// Answers ENOENT where a number stands for nothing.
macro_rules! known {
    ($inode:expr, $reply:expr) => {
        match node($inode) {
            Ok(node) => node,
            Err(error) => return $reply.error(error.errno),
        }
    };
}

impl Filesystem for Server {
    fn destroy(&mut self) {
        self.refusals.tell_counts();
    }

    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // O_TRUNC then comes with open, where it can be decided; else it would come as a change of no handle's.
        if config.kernel_abi() < OLDEST || config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC).is_err() {
            return Err(unsupported(format!("this kernel's FUSE is too old: {}", config.kernel_abi())));
        }
        // Look-ups of one directory side by side.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let most = self.relay.largest_data();
        // Each says what it would have taken instead; all that they can refuse is more than that.
        let _ = config.set_max_write(most);
        let _ = config.set_max_readahead(most);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let reply = self.reply(request, reply);
        self.lookup(known!(parent, reply), name, reply);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let reply = self.reply(request, reply);
        self.attributes(known!(inode, reply), handle.map(|handle| handle.0), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let reply = self.reply(request, reply);
        let change = Change { size, mode, uid, gid, accessed: accessed.map(time), modified: modified.map(time) };
        self.change(known!(inode, reply), handle.map(|handle| handle.0), change, reply);
    }

    fn readlink(&self, request: &Request, _: INodeNo, reply: ReplyData) {
        // There are no links.
        self.reply(request, reply).error(libc::EINVAL);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let reply = self.reply(request, reply);
        self.make_node(known!(parent, reply), name, mode & !umask, by(request), reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let reply = self.reply(request, reply);
        self.make_directory(known!(parent, reply), name, mode & !umask, by(request), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let reply = self.reply(request, reply);
        self.unlink(known!(parent, reply), name, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let reply = self.reply(request, reply);
        self.remove_directory(known!(parent, reply), name, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, _: &Path, reply: ReplyEntry) {
        let reply = self.reply(request, reply);
        self.refuse("symlink", known!(parent, reply), name, "links", reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let reply = self.reply(request, reply);
        let (old, new) = (known!(parent, reply), known!(new_parent, reply));
        self.rename((old, name), (new, new_name), flags.bits(), reply);
    }

    fn link(&self, request: &Request, _: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let reply = self.reply(request, reply);
        self.refuse("link", known!(parent, reply), name, "links", reply);
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let reply = self.reply(request, reply);
        self.open(known!(inode, reply), flags.0, reply);
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read(self.caller(request), handle.0, offset, size, self.reply(request, reply));
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.write(self.caller(request), handle.0, offset, data, self.reply(request, reply));
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.flush(request.pid(), handle.0, self.reply(request, reply));
    }

    fn release(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.release(handle.0, self.reply(request, reply));
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.fsync(self.caller(request), handle.0, by(request), self.reply(request, reply));
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let reply = self.reply(request, reply);
        self.open_directory(known!(inode, reply), reply);
    }

    fn readdir(&self, request: &Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.listings.read(handle.0, offset, self.reply(request, reply));
    }

    fn releasedir(&self, request: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.release(handle.0, self.reply(request, reply));
    }

    fn fsyncdir(&self, request: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Names are on the disk when they are made.
        self.reply(request, reply).done();
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.room(self.reply(request, reply));
    }

    // Attributes are read, never set; what copies files takes this for an answer, and goes on.
    fn setxattr(&self, request: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        self.reply(request, reply).error(libc::EOPNOTSUPP);
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let reply = self.reply(request, reply);
        let node = known!(inode, reply);
        match self.fs.attribute(node, name) {
            Ok(value) => reply.value(size, &value),
            Err(error) => self.fail("getxattr", About::node(node), reply, &error),
        }
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let reply = self.reply(request, reply);
        let node = known!(inode, reply);
        match self.fs.attribute_names(node) {
            Ok(names) => reply.value(size, &names),
            Err(error) => self.fail("listxattr", About::node(node), reply, &error),
        }
    }

    fn removexattr(&self, request: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        self.reply(request, reply).error(libc::EOPNOTSUPP);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let reply = self.reply(request, reply);
        self.create(known!(parent, reply), name, mode & !umask, flags, by(request), reply);
    }

    // The kernel then answers by itself.
    fn ioctl(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.reply(request, reply).error(libc::ENOSYS);
    }

    fn poll(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        wake: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let wake = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then_some(wake);
        self.poll(handle.0, wake, events, self.reply(request, reply));
    }

    // No room can be had before there are bytes.
    fn fallocate(&self, request: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        self.reply(request, reply).error(libc::EOPNOTSUPP);
    }

    fn lseek(&self, request: &Request, _: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.seek(handle.0, offset, whence, self.reply(request, reply));
    }

    // The kernel asks once, and then copies by reading and writing.
    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.reply(request, reply).error(libc::ENOSYS);
    }
}

fn by(request: &Request) -> Credentials {
    Credentials { uid: request.uid(), gid: request.gid() }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}
