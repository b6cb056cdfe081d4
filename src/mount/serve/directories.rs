//! What directories list: what they held when they were opened, so that none is listed twice or left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Reply, Server, fail};
use crate::fs::Node;
use crate::mount::kernel::Directory;

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
    pub(super) fn open_directory(&self, node: Node, reply: Reply) {
        match self.fs.list(node) {
            Ok(entries) => reply.opened(self.listings.open(entries.into()), 0),
            Err(error) => fail("opendir", reply, &error),
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

    pub(super) fn read(&self, handle: u64, offset: u64, size: u32, reply: Reply) {
        let listing = self.lock().open.get(&handle).cloned();
        let Some(listing) = listing else { return reply.error(libc::EBADF) };
        let mut directory = Directory::new(size);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (node, name)) in listing.iter().enumerate().skip(from) {
            if !directory.add(*node, at as u64 + 1, OsStr::new(name)) {
                break;
            }
        }
        directory.send(reply);
    }

    pub(super) fn release(&self, handle: u64, reply: Reply) {
        self.lock().open.remove(&handle);
        reply.done();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
