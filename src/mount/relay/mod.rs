//! The relay between `/dev/fuse` and fuser.
//!
//! fuser 0.18 answers `FUSE_INTERRUPT` with ENOSYS. The kernel then sends none for as long as the mount lives: every
//! later wait is one in state D, and no signal ends it. So fuser does not get the device, but one end of a SOCK_SEQPACKET
//! pair, in which a message is a request or an answer, as on the device. A thread reads the device, takes the interrupts
//! out, and passes all other requests on unchanged. Whoever has answered a request through fuser passes the answer on to
//! the device itself, with [`Relay::settle`]: that saves a thread and its wake-up for each request. The bytes of a file go
//! past fuser, with [`Relay::answer_past_fuser`].
//!
//! No request is lost: one that cannot be passed on is tried again for a short time and then answered with EIO, and so is
//! one whose answer fuser could not send. Whoever owns the open file is told of a write, fsync or close that was lost like that:
//! its bytes may be missing. What fuser answers by itself (a request that it cannot parse) is passed on by a
//! thread that looks a few times a second while answers are due; so are notifications, which may have to wait for a lock
//! in the kernel whose owner waits for an answer of ours.
//!
//! The relay goes when fuser learns interrupts.

mod message;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tracing::{debug, warn};

pub(super) use message::OfHandle;
use message::{AnswerHead, Call, RequestHead};

/// Most bytes of one WRITE or READ that the kernel is asked for. A message is one allocation of the kernel, which may
/// not find a large one; and a user's socket takes no more than a little above this.
const LARGEST_DATA: usize = 256 << 10;
/// What comes with the data: the head of a request, and what the socket counts beside the bytes.
const OVERHEAD: usize = 4096;
const MESSAGE_BYTES: usize = LARGEST_DATA + OVERHEAD;
const PAGE: usize = 4096;
/// Buffers that are kept for whoever answers next.
const KEPT_BUFFERS: usize = 8;
/// How often a request that finds no memory is tried, and the pause between. An interrupt waits meanwhile.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// How often it is looked for answers that nobody has passed on, while some are due.
const LOOK: Duration = Duration::from_millis(50);

/// The relay of one mount. It is shared by all that answer.
#[derive(Debug)]
pub(super) struct Relay {
    device: OwnedFd,
    /// Our end of the pair; fuser has the other.
    socket: OwnedFd,
    state: Mutex<State>,
    /// Buffers that nobody uses at the moment, each for one message.
    buffers: Mutex<Vec<Vec<u8>>>,
    largest_data: usize,
}

#[derive(Debug)]
struct State {
    /// Requests that were passed on and are not answered.
    due: HashSet<u64>,
    /// The thread that looks for late answers looks.
    is_watched: bool,
    late: Sender<Late>,
}

/// What the thread for late messages is told.
#[derive(Debug)]
enum Late {
    /// A message for the device that may have to wait there.
    Notification(Vec<u8>),
    /// Answers are due.
    Watch,
    /// The mount has ended.
    End,
}

/// What fuser does not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The caller of the request of this number was interrupted.
    Interrupted(u64),
    /// A request could not be passed on, and was answered with EIO.
    Lost(OfHandle),
}

impl Relay {
    /// Starts to read the device. `hear` is told what fuser does not hear of. What comes back with the relay is the end of
    /// the pair for fuser, which is to read it with `readers` threads.
    pub(super) fn start(
        device: OwnedFd,
        readers: usize,
        hear: impl Fn(Heard) + Send + 'static,
    ) -> io::Result<(Arc<Self>, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for end in [&ours, &theirs] {
            // The kernel doubles it, and gives a user as much as it may.
            set_socket_send_buffer_size(end, MESSAGE_BYTES)?;
        }
        let taken = socket_send_buffer_size(&ours)?.saturating_sub(OVERHEAD).min(LARGEST_DATA);
        let (late, told) = channel();
        let relay = Arc::new(Self {
            device,
            socket: ours,
            state: Mutex::new(State { due: HashSet::new(), is_watched: false, late }),
            // Made now: in a process that maps a file of its own mount, asking for memory later could wait for itself.
            buffers: Mutex::new(vec![vec![0; MESSAGE_BYTES]; KEPT_BUFFERS]),
            largest_data: (taken / PAGE * PAGE).max(PAGE),
        });
        let reader = Arc::clone(&relay);
        thread::Builder::new().name("relay".to_owned()).spawn(move || {
            reader.read(&hear);
            reader.end(readers);
        })?;
        let writer = Arc::clone(&relay);
        thread::Builder::new().name("relay-late".to_owned()).spawn(move || writer.pass_late_messages(&told))?;
        Ok((relay, theirs))
    }

    /// Most bytes of data that fit into a message.
    pub(super) fn largest_data(&self) -> u32 {
        u32::try_from(self.largest_data).unwrap_or(u32::MAX)
    }

    /// Passes on what fuser has sent, which is the answer to this request among others. Where fuser could not send it,
    /// the request is answered here, with data or an errno. Says whether it was fuser's answer that was passed on.
    pub(super) fn settle(&self, unique: u64, instead: Result<&[u8], i32>) -> bool {
        if self.drain_to(Some(unique)) {
            return true;
        }
        let is_due = self.lock().due.remove(&unique);
        if is_due {
            warn!("an answer found no memory in the kernel");
            match instead {
                Ok(data) => self.answer(unique, 0, data),
                Err(errno) => self.answer(unique, errno, &[]),
            }
        }
        !is_due
    }

    /// Answers a request with data that fuser never sees: its way through the pair would copy them twice. What fuser is
    /// told instead is an answer that nobody waits for. Says whether somebody waited for the data.
    pub(super) fn answer_past_fuser(&self, unique: u64, data: &[u8]) -> bool {
        let is_due = self.lock().due.remove(&unique);
        if is_due {
            self.answer(unique, 0, data);
        }
        is_due
    }

    /// Passes on what fuser has sent: answers now, notifications by the thread that may wait.
    pub(super) fn drain(&self) {
        self.drain_to(None);
    }

    /// The same up to the answer of this request. Says whether that was there.
    fn drain_to(&self, last: Option<u64>) -> bool {
        let mut buffer = self.buffers().pop().unwrap_or_else(|| vec![0; MESSAGE_BYTES]);
        let mut found = false;
        while !found && let Some((head, is_due, length)) = self.receive(&mut buffer) {
            if head.is_notification() {
                // Nobody is there to tell it to where the mount has ended.
                let _ = self.lock().late.send(Late::Notification(buffer[..length].to_vec()));
            } else if is_due {
                self.write(&[IoSlice::new(&buffer[..length])]);
            }
            found = last == Some(head.unique);
        }
        let mut buffers = self.buffers();
        if buffers.len() < KEPT_BUFFERS {
            buffers.push(buffer);
        }
        found
    }

    /// The next message of fuser, if there is one; whether it answers a request that waits, which it does no more from
    /// that moment; and its length.
    fn receive(&self, buffer: &mut [u8]) -> Option<(AnswerHead, bool, usize)> {
        let mut state = self.lock();
        loop {
            let length = match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) if length > 0 => length,
                Err(Errno::INTR) => continue,
                // Nothing is there, or fuser has gone.
                _ => return None,
            };
            match AnswerHead::of(&buffer[..length]) {
                Some(head) => {
                    return Some((head, state.due.remove(&head.unique), length));
                }
                None => warn!(length, "fuser sent something else than an answer"),
            }
        }
    }

    /// Reads the device until the mount has ended.
    fn read(&self, hear: &impl Fn(Heard)) {
        let mut buffer = vec![0; MESSAGE_BYTES];
        loop {
            let length = match rustix::io::read(&self.device, &mut buffer[..]) {
                Ok(0) | Err(Errno::NODEV) => return,
                Ok(length) => length,
                // NOENT: the request was taken back before it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
                Err(error) => {
                    warn!(%error, "the mount ends: no request can be read any more");
                    return;
                }
            };
            let Some(head) = RequestHead::of(&buffer[..length]) else {
                warn!(length, "the kernel sent something else than a request");
                continue;
            };
            match head.call {
                Call::Interrupt { unique } => hear(Heard::Interrupted(unique)),
                // It has no answer, and the numbers of files are not counted.
                Call::Forget => {}
                Call::OfHandle(call) => {
                    self.pass(head.unique, &buffer[..length], || hear(Heard::Lost(call)));
                }
                Call::Other => self.pass(head.unique, &buffer[..length], || ()),
            }
        }
    }

    /// Passes a request on; or says that it is lost, and then answers it.
    fn pass(&self, unique: u64, request: &[u8], lost: impl FnOnce()) {
        {
            let mut state = self.lock();
            state.due.insert(unique);
            if !std::mem::replace(&mut state.is_watched, true) {
                let _ = state.late.send(Late::Watch);
            }
        }
        let mut tries = 0;
        let error = loop {
            tries += 1;
            match send(&self.socket, request, SendFlags::NOSIGNAL) {
                Ok(_) => return,
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN) if tries < TRIES => thread::sleep(PAUSE),
                Err(error) => break error,
            }
        };
        warn!(%error, bytes = request.len(), "a request could not be passed on");
        self.lock().due.remove(&unique);
        // Before the caller knows: it may close the file at once.
        lost();
        self.answer(unique, libc::EIO, &[]);
    }

    /// Ends fuser's threads, and the one for late messages. Whoever waits for an answer has been told by the kernel.
    fn end(&self, readers: usize) {
        let destroy = message::destroy();
        for _ in 0..readers {
            if let Err(error) = send(&self.socket, &destroy, SendFlags::NOSIGNAL) {
                // It has ended by itself.
                debug!(%error, "fuser could not be told of the end");
            }
        }
        let mut state = self.lock();
        state.due.clear();
        let _ = state.late.send(Late::End);
    }

    fn pass_late_messages(&self, told: &Receiver<Late>) {
        let mut is_watching = false;
        loop {
            let message = match is_watching {
                true => told.recv_timeout(LOOK),
                false => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Late::Notification(notification)) => self.write(&[IoSlice::new(&notification)]),
                Ok(Late::Watch) => is_watching = true,
                Ok(Late::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.drain();
                    let mut state = self.lock();
                    is_watching = !state.due.is_empty();
                    state.is_watched = is_watching;
                }
            }
        }
    }

    /// Answers a request in fuser's place: with an errno, or with 0 and data.
    fn answer(&self, unique: u64, errno: i32, data: &[u8]) {
        match message::answer_head(unique, errno, data.len()) {
            Some(head) => self.write(&[IoSlice::new(&head), IoSlice::new(data)]),
            None => warn!(bytes = data.len(), "an answer is too long"),
        }
    }

    /// The kernel takes all of a message or nothing.
    fn write(&self, message: &[IoSlice<'_>]) {
        match rustix::io::writev(&self.device, message) {
            Ok(_) => {}
            // A notification of something that the kernel does not know, an answer that nobody waits for any more.
            Err(error) => debug!(%error, "the kernel did not take a message"),
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
