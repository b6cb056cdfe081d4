//! What is done through an open file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{FopenFlags, ReplyData, ReplyEmpty, ReplyLseek, ReplyOpen, ReplyWrite};

use super::{About, Caller, Reply, Server};
use crate::fs::{Answer, Credentials, Fs, FsError, Node, Taken};
use crate::mount::death::{Closing, closing, may_be_of};
use crate::mount::waiting::{answer, look};
use crate::store::Claim;

impl Server {
    pub(super) fn open(&self, node: Node, flags: i32, reply: Reply<ReplyOpen>) {
        let fs = Arc::clone(&self.fs);
        let opened = move |reply: Reply<ReplyOpen>, opened: crate::fs::Opened| {
            if !reply.opened(opened.handle, caching(opened.node)) {
                fs.release(opened.handle);
            }
        };
        self.commit("open", About::node(node), reply, move |fs| fs.open(node, flags), opened);
    }

    pub(super) fn read(&self, caller: Caller, handle: u64, offset: u64, size: u32, reply: Reply<ReplyData>) {
        if self.fs.is_packed(handle) {
            return self.unpack(caller, handle, offset, size, reply);
        }
        let look = move |fs: &Fs| fs.read(handle, offset, size as usize);
        if self.fs.only_looks(handle) {
            match look(&self.fs) {
                Ok(Answer::Now(bytes)) => return reply.bytes(&bytes),
                Ok(Answer::Later(_)) => {}
                Err(error) => return self.fail("read", About::Handle(handle), reply, &error),
            }
        }
        let (fs, refusals) = (Arc::clone(&self.fs), Arc::clone(&self.refusals));
        self.runtime.spawn(async move {
            match answer(&fs, &caller, handle, look).await {
                Ok(bytes) => reply.bytes(&bytes),
                Err(error) => refusals.refuse("read", &About::Handle(handle), reply, &error),
            }
        });
    }

    /// Reads a compressed file: on a thread that nobody else waits for, and until the caller is interrupted.
    fn unpack(&self, caller: Caller, handle: u64, offset: u64, size: u32, reply: Reply<ReplyData>) {
        let (fs, refusals) = (Arc::clone(&self.fs), Arc::clone(&self.refusals));
        self.runtime.spawn(async move {
            let stop = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&stop);
            let mut read = std::pin::pin!(look(&fs, move |fs| fs.unpack(handle, offset, size as usize, &told)));
            let mut wait = caller.waits();
            let result = tokio::select! {
                result = &mut read => result,
                () = wait.interrupted() => {
                    stop.store(true, Ordering::Relaxed);
                    read.await
                }
            };
            match result {
                Ok(bytes) => reply.bytes(&bytes),
                Err(error) => refusals.refuse("read", &About::Handle(handle), reply, &error),
            }
        });
    }

    pub(super) fn write(&self, caller: Caller, handle: u64, offset: u64, data: &[u8], reply: Reply<ReplyWrite>) {
        if self.fs.is_dropped(handle) {
            let (thread, data) = (caller.thread(), data.to_vec());
            let work = move |fs: &Fs| fs.write_dropped(handle, thread, offset, &data);
            return self.commit("write", About::Handle(handle), reply, work, Reply::written);
        }
        let claim = Claim::new();
        let commit = match self.fs.write(handle, offset, data, claim.clone()) {
            Ok(Taken::Commit(commit)) => commit,
            Ok(Taken::Now(count)) => return reply.written(count),
            Err(error) => return self.fail("write", About::Handle(handle), reply, &error),
        };
        let (fs, refusals) = (Arc::clone(&self.fs), Arc::clone(&self.refusals));
        self.runtime.spawn(async move {
            let mut commit = std::pin::pin!(commit);
            let mut wait = caller.waits();
            let result = tokio::select! {
                result = &mut commit => result,
                () = wait.interrupted() => {
                    // Whoever is first decides: bytes that are being taken are answered for, and no retry doubles them.
                    claim.interrupt();
                    commit.await
                }
            };
            match fs.wrote(handle, result) {
                Ok(bytes) => reply.written(bytes),
                Err(error) => refusals.refuse("write", &About::Handle(handle), reply, &error),
            }
        });
    }

    pub(super) fn flush(&self, thread: u32, handle: u64, reply: Reply<ReplyEmpty>) {
        if let Some(writers) = self.fs.dropped_writers(handle)
            && may_be_of(thread, &writers)
        {
            match closing(thread) {
                Closing::InOrder => self.fs.closed_in_order(handle),
                Closing::Killed => self.fs.killed(handle),
                Closing::Unseen => self.fs.closed_unseen(handle),
            }
        }
        match self.fs.flush(handle) {
            Ok(()) => reply.done(),
            Err(error) => self.fail("flush", About::Handle(handle), reply, &error),
        }
    }

    pub(super) fn fsync(&self, caller: Caller, handle: u64, by: Credentials, reply: Reply<ReplyEmpty>) {
        let (fs, refusals) = (Arc::clone(&self.fs), Arc::clone(&self.refusals));
        self.runtime.spawn(async move {
            let result = match look(&fs, move |fs| fs.sync(handle, by)).await {
                Ok(Some(barrier)) => answer(&fs, &caller, handle, move |fs| fs.reached(&barrier)).await.map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => reply.done(),
                Err(error) => refusals.refuse("fsync", &About::Handle(handle), reply, &error),
            }
        });
    }

    pub(super) fn seek(&self, handle: u64, offset: i64, whence: i32, reply: Reply<ReplyLseek>) {
        let found = match (u64::try_from(offset), whence) {
            (Ok(offset), libc::SEEK_DATA | libc::SEEK_HOLE) => self.fs.seek(handle, offset, whence == libc::SEEK_HOLE),
            (Err(_), _) => Err(FsError::quiet(libc::ENXIO, "it is before the beginning")),
            _ => Err(FsError::quiet(libc::EINVAL, "the kernel knows the others itself")),
        };
        match found {
            Ok(offset) => reply.offset(offset),
            Err(error) => self.fail("lseek", About::Handle(handle), reply, &error),
        }
    }

    pub(super) fn release(&self, handle: u64, reply: Reply<ReplyEmpty>) {
        self.fs.release(handle);
        self.polls.forget(handle);
        reply.done();
    }
}

/// Whether the page cache may keep what is read. Never of a stream: it would give zeros at the end of a file that grows
/// behind its back. Files in drops change by the kernel's hand or not at all, and can so be mapped.
pub(super) fn caching(node: Node) -> FopenFlags {
    if matches!(node, Node::DropFile(_)) { FopenFlags::empty() } else { FopenFlags::FOPEN_DIRECT_IO }
}
