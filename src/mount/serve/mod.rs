//! The kernel's requests, as calls of the file system; each is answered exactly once.
//!
//! What only looks is answered on the thread that took the request. What commits runs on the runtime; a write is handed
//! to the store before its request's thread goes on, so that writes keep their order. What waits is ended by a deadline
//! or by a signal to its caller.

mod directories;
mod files;
mod names;
mod polls;

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::interrupt::{Caller, Interrupts};
use super::kernel::{Buffer, Device, Operation, Reply, Request, Room};
use crate::fs::{Fs, FsError, Node};
use directories::Listings;
use polls::Polls;

/// What serves a mount. Its threads share it.
pub(super) struct Server {
    fs: Arc<Fs>,
    runtime: Handle,
    device: Arc<Device>,
    interrupts: Interrupts,
    listings: Listings,
    polls: Polls,
}

impl Server {
    pub(super) fn new(fs: Arc<Fs>, runtime: Handle, device: Device) -> Self {
        Self {
            fs,
            runtime,
            device: Arc::new(device),
            interrupts: Interrupts::default(),
            listings: Listings::default(),
            polls: Polls::default(),
        }
    }

    /// Serves until the mount ends. Several threads may.
    pub(super) fn run(&self) -> io::Result<()> {
        let mut buffer = Buffer::new();
        while let Some(request) = self.device.next(&mut buffer)? {
            self.serve(request);
        }
        Ok(())
    }

    fn serve(&self, request: Request<'_>) {
        match request.operation {
            // Neither takes an answer; numbers of files are not kept.
            Operation::Interrupt { unique } => return self.interrupts.interrupt(unique),
            Operation::Forget => return,
            _ => {}
        }
        let Request { unique, inode, thread, operation } = request;
        let reply = Reply::new(&self.device, unique);
        let Ok(node) = node(inode) else { return reply.error(libc::ENOENT) };
        let caller = || self.interrupts.caller(unique, thread);
        match operation {
            Operation::Lookup { name } => self.lookup(node, name, reply),
            Operation::GetAttr { handle } => self.attributes(node, handle, reply),
            Operation::SetAttr(change) => self.change(node, change, reply),
            Operation::Open { flags } => self.open(node, flags, reply),
            Operation::Create { name, mode, umask, flags } => self.create(node, name, mode & !umask, flags, reply),
            Operation::Read { handle, offset, size } => self.read(caller(), handle, offset, size, reply),
            Operation::Write { handle, offset, data } => self.write(caller(), handle, offset, data, reply),
            Operation::Seek { handle, offset, whence } => self.seek(handle, offset, whence, reply),
            Operation::Flush { handle } => self.flush(thread, handle, reply),
            Operation::Fsync { handle } => self.fsync(caller(), handle, reply),
            Operation::Release { handle } => self.release(handle, reply),
            Operation::Poll { handle, wake, flags, events } => self.poll(handle, wake, flags, events, reply),
            Operation::OpenDir => self.open_directory(node, reply),
            Operation::ReadDir { handle, offset, size } => self.listings.read(handle, offset, size, reply),
            Operation::ReleaseDir { handle } => self.listings.release(handle, reply),
            // Names are on the disk when they are made.
            Operation::FsyncDir => reply.done(),
            Operation::Unlink { name } => self.unlink(node, name, reply),
            Operation::Rename { name, to, new_name, flags } => self.rename((node, name), (to, new_name), flags, reply),
            Operation::MakeDir { name, .. } => self.make_directory(node, name, reply),
            Operation::RemoveDir { name } => self.remove_directory(node, name, reply),
            Operation::Symlink => self.refuse("symlink", node, "links", reply),
            Operation::Link => self.refuse("link", node, "links", reply),
            Operation::MakeNode => self.refuse("mknod", node, "special files", reply),
            Operation::StatFs => self.room(reply),
            Operation::GetXattr { name, size } => xattr(reply, size, self.fs.attribute(node, name)),
            Operation::ListXattr { size } => xattr(reply, size, self.fs.attribute_names(node)),
            // Attributes are read, never set; what copies files takes this for an answer, and goes on. Nor can room be
            // had before there are bytes.
            Operation::ChangeXattr | Operation::Allocate => reply.error(libc::EOPNOTSUPP),
            Operation::Destroy => reply.done(),
            // The kernel asks once, and then does without: it copies by reading and writing, keeps locks by itself.
            Operation::Init(_) | Operation::Interrupt { .. } | Operation::Forget | Operation::Other { .. } => {
                debug!(?operation, "a request that is not served");
                reply.error(libc::ENOSYS);
            }
        }
    }

    /// Runs what commits off the thread that takes requests, then answers.
    fn commit<T: Send + 'static>(
        &self,
        operation: &'static str,
        reply: Reply,
        work: impl FnOnce(&Fs) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Reply, T) + Send + 'static,
    ) {
        let fs = Arc::clone(&self.fs);
        self.runtime.spawn_blocking(move || match work(&fs) {
            Ok(done) => answer(reply, done),
            Err(error) => fail(operation, reply, &error),
        });
    }

    fn room(&self, reply: Reply) {
        const BLOCK: u32 = 4096;
        // Names take no room that anybody counts; a small number would make installers refuse to write.
        const FILES: u64 = u32::MAX as u64;
        match self.fs.capacity() {
            Ok(capacity) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK);
                let (blocks, free_blocks) = (blocks(capacity.total_bytes), blocks(capacity.free_bytes));
                reply.room(&Room { block: BLOCK, blocks, free_blocks, files: FILES, name_bytes: 255 });
            }
            Err(error) => fail("statfs", reply, &error),
        }
    }
}

/// The one place where a failure becomes an errno and, where it is worth telling, a line of the log.
fn fail(operation: &'static str, reply: Reply, error: &FsError) {
    if error.worth_telling {
        warn!(operation, "{error}");
    } else {
        debug!(operation, "{error}");
    }
    reply.error(error.errno);
}

fn node(inode: u64) -> Result<Node, FsError> {
    Node::from_inode(inode).ok_or_else(|| FsError::quiet(libc::ENOENT, "there is no such file"))
}

/// The protocol of both: no room asks for the size, too little is ERANGE.
fn xattr(reply: Reply, size: u32, found: Result<Vec<u8>, FsError>) {
    match found {
        Ok(bytes) if size == 0 => reply.length(bytes.len() as u64),
        Ok(bytes) if bytes.len() as u64 > u64::from(size) => reply.error(libc::ERANGE),
        Ok(bytes) => reply.bytes(&bytes),
        Err(error) => fail("xattr", reply, &error),
    }
}
