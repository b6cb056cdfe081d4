//! The kernel's requests, as calls of the file system; each is answered exactly once.
//!
//! What only looks is answered on the thread that took the request. What commits runs on the runtime; a write is handed
//! to the store before its request's thread goes on, so that writes keep their order. What waits is ended by a deadline
//! or by a signal to its caller.

mod adapter;
mod directories;
mod files;
mod names;
mod polls;
mod refusals;
mod reply;

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use fuser::{INodeNo, ReplyStatfs, Request, Version};
use tokio::runtime::Handle;

use super::interrupt::{Caller, Interrupts};
use super::relay::Relay;
use crate::fs::{Fs, FsError, Node};
use directories::Listings;
use polls::Polls;
use refusals::About;
pub(super) use refusals::Refusals;
use reply::{Answer, Reply};

/// The version of the protocol that is needed at least.
const OLDEST: Version = Version(7, 31);
/// Reads of pages, and closes, that the kernel has under way at most.
const MAX_BACKGROUND: u16 = 64;

/// What serves a mount. fuser's threads share it.
pub(super) struct Server {
    fs: Arc<Fs>,
    runtime: Handle,
    relay: Arc<Relay>,
    interrupts: Interrupts,
    listings: Listings,
    polls: Polls,
    refusals: Arc<Refusals>,
}

impl Server {
    pub(super) fn new(
        fs: Arc<Fs>,
        refusals: Arc<Refusals>,
        runtime: Handle,
        relay: Arc<Relay>,
        interrupts: Interrupts,
    ) -> Self {
        Self { refusals, fs, runtime, relay, interrupts, listings: Listings::default(), polls: Polls::default() }
    }

    fn reply<R: Answer>(&self, request: &Request, answer: R) -> Reply<R> {
        Reply::new(&self.relay, request, answer)
    }

    fn caller(&self, request: &Request) -> Caller {
        self.interrupts.caller(request.unique().0, request.pid())
    }

    /// Runs what commits off the thread that takes requests, then answers.
    fn commit<R: Answer + Send + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        about: About,
        reply: Reply<R>,
        work: impl FnOnce(&Fs) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Reply<R>, T) + Send + 'static,
    ) {
        let (fs, refusals) = (Arc::clone(&self.fs), Arc::clone(&self.refusals));
        self.runtime.spawn_blocking(move || match work(&fs) {
            Ok(done) => answer(reply, done),
            Err(error) => refusals.refuse(operation, &about, reply, &error),
        });
    }

    fn fail<R: Answer>(&self, operation: &'static str, about: About, reply: Reply<R>, error: &FsError) {
        self.refusals.refuse(operation, &about, reply, error);
    }

    fn room(&self, reply: Reply<ReplyStatfs>) {
        const BLOCK: u32 = 4096;
        match self.fs.capacity() {
            Ok(capacity) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK);
                reply.room(BLOCK, blocks(capacity.total_bytes), blocks(capacity.free_bytes));
            }
            Err(error) => self.fail("statfs", About::node(Node::Root), reply, &error),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

fn node(inode: INodeNo) -> Result<Node, FsError> {
    Node::from_inode(inode.0).ok_or_else(|| FsError::quiet(libc::ENOENT, "there is no such file"))
}

/// What a request is about: a file, or a name in a directory.
fn named(parent: Node, name: &OsStr) -> About {
    About::name(parent, name)
}
