//! Polls, and the files that they watch until there is something to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{PollEvents, PollNotifier, ReplyPoll};
use tokio::task::AbortHandle;
use tracing::debug;

use super::{About, Reply, Server};
use crate::fs::Readiness;
use crate::mount::waiting::look;

/// There is something to read; a write is taken. Each also under its other name.
const READABLE: PollEvents = PollEvents::POLLIN.union(PollEvents::POLLRDNORM);
const WRITABLE: PollEvents = PollEvents::POLLOUT.union(PollEvents::POLLWRNORM);

/// The polls that wait, one for each open file: the kernel keeps no more of them either.
#[derive(Default)]
pub(super) struct Polls(Mutex<HashMap<u64, AbortHandle>>);

impl Polls {
    /// The file is closed.
    pub(super) fn forget(&self, handle: u64) {
        if let Some(poll) = self.lock().remove(&handle) {
            poll.abort();
        }
    }

    fn watch(&self, handle: u64, poll: AbortHandle) {
        if let Some(older) = self.lock().insert(handle, poll) {
            older.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// `wake`: the kernel wants to be told when there is something.
    pub(super) fn poll(&self, handle: u64, wake: Option<PollNotifier>, events: PollEvents, reply: Reply<ReplyPoll>) {
        let changes = self.fs.owner().store().changes();
        // Room in the spool is made by any channel. Watched before it is looked at, so that no change falls between.
        let mut watch = changes.watch_all();
        let readiness = match self.fs.readiness(handle) {
            Ok(readiness) => readiness,
            Err(error) => return self.fail("poll", About::Handle(handle), reply, &error),
        };
        let now = found(&readiness) & events;
        if let (Some(wake), Some(channel), true) = (wake, readiness.channel, now.is_empty()) {
            if !events.contains(PollEvents::POLLOUT) {
                watch = changes.watch(channel);
            }
            let (fs, relay) = (Arc::clone(&self.fs), Arc::clone(&self.relay));
            let poll = self.runtime.spawn(async move {
                // Until the file is closed or has something to say; the kernel then asks again.
                loop {
                    match look(&fs, move |fs| fs.readiness(handle)).await {
                        Ok(readiness) if (found(&readiness) & events).is_empty() => {}
                        _ => break,
                    }
                    if watch.changed().await.is_err() {
                        return;
                    }
                }
                if let Err(error) = wake.notify() {
                    debug!(%error, "a poll could not be woken");
                }
                relay.drain();
            });
            self.polls.watch(handle, poll.abort_handle());
        }
        reply.events(now);
    }
}

fn found(readiness: &Readiness) -> PollEvents {
    let readable = if readiness.readable { READABLE } else { PollEvents::empty() };
    let writable = if readiness.writable { WRITABLE } else { PollEvents::empty() };
    readable | writable
}
