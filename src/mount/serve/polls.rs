//! Polls, and the files that they watch until there is something to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;
use tracing::debug;

use super::{Reply, Server, fail};
use crate::fs::Readiness;
use crate::mount::kernel::{POLL_IN, POLL_OUT, POLL_SCHEDULE_NOTIFY};
use crate::mount::waiting::look;

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
    pub(super) fn poll(&self, handle: u64, wake: u64, flags: u32, events: u32, reply: Reply) {
        let changes = self.fs.owner().store().changes();
        // Room in the spool is made by any channel. Watched before it is looked at, so that no change falls between.
        let mut watch = changes.watch_all();
        let readiness = match self.fs.readiness(handle) {
            Ok(readiness) => readiness,
            Err(error) => return fail("poll", reply, &error),
        };
        let now = found(&readiness) & events;
        if let (true, Some(channel), 0) = (flags & POLL_SCHEDULE_NOTIFY != 0, readiness.channel, now) {
            if events & POLL_OUT == 0 {
                watch = changes.watch(channel);
            }
            let (fs, device) = (Arc::clone(&self.fs), Arc::clone(&self.device));
            let poll = self.runtime.spawn(async move {
                // Until the file is closed or has something to say; the kernel then asks again.
                loop {
                    match look(&fs, move |fs| fs.readiness(handle)).await {
                        Ok(readiness) if found(&readiness) & events == 0 => {}
                        _ => break,
                    }
                    if watch.changed().await.is_err() {
                        return;
                    }
                }
                if let Err(error) = device.wake_poll(wake) {
                    debug!(%error, "a poll could not be woken");
                }
            });
            self.polls.watch(handle, poll.abort_handle());
        }
        reply.events(now);
    }
}

fn found(readiness: &Readiness) -> u32 {
    let readable = if readiness.readable { POLL_IN } else { 0 };
    let writable = if readiness.writable { POLL_OUT } else { 0 };
    readable | writable
}
