//! The client: what a program asks of the daemon, with typed arguments and answers.

mod copy;
mod copy_stream;
mod directory;
mod elements;
mod pigeonhole;
mod tombstones;
mod vouchers;

use std::fmt;
use std::sync::Arc;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

pub use self::copy::Courier;
pub use self::copy_stream::CopyStream;
pub use self::elements::{Elements, MAX_CALL_BYTES, MAX_PAYLOAD_BYTES, MAX_TOMBSTONES, Part, Payload};
pub use self::pigeonhole::{Envelope, KeyPair, Missing, ReadOutcome, WriteMode, WriteOutcome};
pub use self::tombstones::TombstoneRange;
pub use self::vouchers::{Induction, MintedVoucher, OpenedReply, Voucher, VoucherStream};
use super::message::{HASH_BYTES, ID_BYTES, Octets, RequestFrame, ResponseFrame};
use super::session::{self, Body, Call, CancelKey, Command};
use super::{Config, Dial, Error, ErrorKind, Link, Operation, Status};
use crate::bacap::BoxIndex;

/// The daemon's queue of a connection; with more than that unanswered it stops reading us.
const STARTED: usize = 16;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Started operations that may be unanswered at once, at most 16.
    pub started: usize,
    /// Where all of the client's randomness (query ids, tokens, jitter) comes from, so that a run can be repeated. Only
    /// for tests and simulations: who guesses a session's token can take the session over. `None` is the system's.
    pub seed: Option<u64>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { started: STARTED, seed: None }
    }
}

/// A handle on one session with the daemon. Clones share it; when the last is gone the session is closed.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    started: Arc<Semaphore>,
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({:?})", self.status.borrow().link)
    }
}

/// Wakes the session when a future that waits for an answer is dropped.
struct Waiting<'a> {
    commands: &'a mpsc::Sender<Command>,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            // A session that is too busy to be told finds out at the call's deadline, or at its next sweep.
            let _ = self.commands.try_send(Command::Sweep);
        }
    }
}

impl Client {
    /// Starts a session on the current tokio runtime. Returns at once; [`Self::status`] tells how it goes, and requests
    /// wait for the connection as long as their deadlines allow.
    pub fn start(config: Config, options: ClientOptions) -> Self {
        Self::over(config, options)
    }

    /// As [`Self::start`], over the streams that `dialer` gives.
    pub fn over(dialer: impl Dial, options: ClientOptions) -> Self {
        let (commands, status) = session::start(dialer, &options);
        Self { commands, status, started: Arc::new(Semaphore::new(options.started.clamp(1, STARTED))) }
    }

    /// How the session stands, now and later.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the network can be used.
    pub async fn wait_connected(&self, deadline: Instant) -> Result<Status, ErrorKind> {
        let mut status = self.status.clone();
        match timeout_at(deadline, status.wait_for(|status| status.link == Link::Connected)).await {
            Ok(Ok(status)) => return Ok(status.clone()),
            Ok(Err(_)) => return Err(ErrorKind::Closed),
            Err(_) => {}
        }
        match &self.status.borrow().link {
            Link::NoDaemon { error } | Link::Refused { error } => Err(ErrorKind::NoDaemon(error.clone())),
            _ => Err(ErrorKind::Timeout),
        }
    }

    /// Ends the session: unanswered requests fail, and the daemon forgets all of it. Bounded.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn call(
        &self,
        operation: Operation,
        deadline: Instant,
        cancel: Option<CancelKey>,
        frame: impl Fn([u8; ID_BYTES]) -> RequestFrame + Send + 'static,
    ) -> Result<ResponseFrame, Error> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = Waiting { commands: &self.commands, answered: false };
        let body = Body { frame: Box::new(frame), cancel, sent: false };
        let call = Command::Call(Call { body, deadline, answer });
        match timeout_at(deadline, self.commands.send(call)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error { operation, kind: ErrorKind::Closed }),
            Err(_) => return Err(self.too_late(operation)),
        }
        // The session keeps the deadline; it tells more than a timer here could.
        let reply = answered.await;
        waiting.answered = true;
        reply.unwrap_or(Err(ErrorKind::Closed)).map_err(|kind| Error { operation, kind })
    }

    fn too_late(&self, operation: Operation) -> Error {
        let kind = match &self.status.borrow().link {
            Link::NoDaemon { error } | Link::Refused { error } => ErrorKind::NoDaemon(error.clone()),
            _ => ErrorKind::Timeout,
        };
        Error { operation, kind }
    }
}

fn query(id: [u8; ID_BYTES]) -> Option<Octets> {
    Some(Octets::from(id))
}

#[allow(clippy::unnecessary_wraps)] // Every field of the wire may be null.
fn octets(bytes: &[u8]) -> Option<Octets> {
    Some(Octets::from(bytes))
}

fn index(operation: Operation, bytes: Option<Octets>) -> Result<BoxIndex, Error> {
    BoxIndex::from_bytes(&bytes.unwrap_or_default()).map_err(|_| malformed(operation, "no index"))
}

/// BLAKE2b-256, as the network hashes keys and capabilities.
pub(super) fn hash256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    Blake2b::<U32>::digest(bytes).into()
}

fn check(operation: Operation, code: u8) -> Result<(), Error> {
    match code {
        0 => Ok(()),
        code => Err(Error { operation, kind: ErrorKind::Daemon(code) }),
    }
}

fn malformed(operation: Operation, what: &'static str) -> Error {
    Error { operation, kind: ErrorKind::MalformedReply(what) }
}
