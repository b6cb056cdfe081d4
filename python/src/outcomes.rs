//! What a session's thread leaves for the event loop.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pigeonfs::thin::Error;
use pigeonfs::thin::message::ResponseFrame;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

/// Frames that may wait for the event loop; the daemon is read no faster.
const FRAMES: usize = 256;

/// Something that happened in a session.
pub(crate) enum Outcome {
    /// A request was answered, or was not. `None` is the answer of a request that has no reply.
    Answered { id: u64, answer: Box<Result<Option<ResponseFrame>, Error>> },
    /// The daemon said something.
    Frame(Vec<u8>),
    /// The connection ended, or an attempt at one failed.
    Ended(String),
    /// The thread is gone, and this is the last that it says.
    Closed,
}

#[derive(Default)]
struct Queue {
    outcomes: Vec<Outcome>,
    frames: usize,
    closed: bool,
}

/// The queue, and the bell that rings when something is in it.
pub(crate) struct Outcomes {
    queue: Mutex<Queue>,
    bell: OwnedFd,
    drained: Notify,
    closed: Condvar,
}

impl Outcomes {
    pub(crate) fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::default(), bell, drained: Notify::new(), closed: Condvar::new() })
    }

    /// Readable while something waits.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    pub(crate) fn push(&self, outcome: Outcome) {
        let mut queue = self.lock();
        queue.frames += usize::from(matches!(outcome, Outcome::Frame(_)));
        if matches!(outcome, Outcome::Closed) {
            queue.closed = true;
            self.closed.notify_all();
        }
        queue.outcomes.push(outcome);
        if queue.outcomes.len() == 1 {
            // It cannot fail: a count of one has room.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until there is room for a frame, and pushes it.
    pub(crate) async fn push_frame(&self, frame: Vec<u8>) {
        while self.lock().frames >= FRAMES {
            self.drained.notified().await;
        }
        self.push(Outcome::Frame(frame));
    }

    /// All that waits.
    pub(crate) fn take(&self) -> Vec<Outcome> {
        let mut queue = self.lock();
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        queue.frames = 0;
        self.drained.notify_one();
        std::mem::take(&mut queue.outcomes)
    }

    /// Whether the thread was gone within `patience`.
    pub(crate) fn wait_closed(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut queue = self.lock();
        while !queue.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.closed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
