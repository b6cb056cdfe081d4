//! What directories list: what they held when they were opened, so that none is listed twice or left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{FopenFlags, ReplyDirectory, ReplyEmpty, ReplyOpen};

use super::{About, Reply, Server};
use crate::fs::Node;

type Listing = Arc<[(Node, String)]>;

/// The open directories of a mount.
#[derive(Default)]
pub(super) struct Listings(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<u64, Listing>,
    last: u64,
}

impl Server {
    pub(super) fn open_directory(&self, node: Node, reply: Reply<ReplyOpen>) {
        match self.fs.list(node) {
            Ok(entries) => {
                let handle = self.listings.open(entries.into());
                if !reply.opened(handle, FopenFlags::empty()) {
                    self.listings.close(handle);
                }
            }
            Err(error) => self.fail("opendir", About::node(node), reply, &error),
        }
    }
}

impl Listings {
    fn open(&self, listing: Listing) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let handle = state.last;
        state.open.insert(handle, listing);
        handle
    }

    pub(super) fn read(&self, handle: u64, offset: u64, mut reply: Reply<ReplyDirectory>) {
        let listing = self.lock().open.get(&handle).cloned();
        let Some(listing) = listing else { return reply.error(libc::EBADF) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (node, name)) in listing.iter().enumerate().skip(from) {
            if !reply.add(*node, at as u64 + 1, name) {
                break;
            }
        }
        reply.send();
    }

    pub(super) fn release(&self, handle: u64, reply: Reply<ReplyEmpty>) {
        self.close(handle);
        reply.done();
    }

    fn close(&self, handle: u64) {
        self.lock().open.remove(&handle);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
