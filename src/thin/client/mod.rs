//! The client: what a program asks of the daemon, with typed arguments and answers.

mod cancel;
mod copy;
mod copy_stream;
mod directory;
mod elements;
mod exchange;
mod legacy;
mod life;
mod pigeonhole;
mod tombstones;
mod vouchers;
mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

pub use self::cancel::CancelOutcome;
pub use self::copy::Courier;
pub use self::copy_stream::CopyStream;
pub use self::elements::{Elements, MAX_CALL_BYTES, MAX_PAYLOAD_BYTES, MAX_TOMBSTONES, Part, Payload};
pub use self::legacy::{Destination, SentMessage};
pub use self::pigeonhole::{Envelope, KeyPair, Missing, ReadOutcome, WriteMode, WriteOutcome};
pub use self::tombstones::TombstoneRange;
pub use self::vouchers::{Induction, MintedVoucher, OpenedReply, Voucher, VoucherStream};
use super::message::{HASH_BYTES, ID_BYTES, Octets, RequestFrame, ResponseFrame};
use super::pki::Service;
use super::session::{self, Answered, Body, Call, CancelKey, Command, Handle, LOCAL, STARTED};
use super::{Config, Dial, Error, ErrorKind, Event, Inbound, Operation, Status};
use crate::bacap::BoxIndex;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Started operations and legacy messages that the daemon may not be done with at once, at most 16: more than its
    /// queue of a connection holds would keep it from reading anything else of ours. Others wait for room.
    pub started: usize,
    /// Where all of the client's randomness (query ids, tokens, jitter, couriers) comes from, so that a run can be repeated. Only
    /// for tests and simulations: who guesses a session's token can take the session over. `None` is the system's.
    pub seed: Option<u64>,
    /// After another daemon process was met, hold back all that goes into the mixnet until [`Client::release`] says that
    /// it may: the daemon may be of another network now, and what was unanswered was meant for the one before.
    pub hold_after_restart: bool,
    /// The session's token, 16 random bytes: with the one of a session that was left ([`Client::leave`]) that session is
    /// resumed, if the daemon still knows it. Whoever knows it can take the session over. `None` makes one.
    pub token: Option<[u8; ID_BYTES]>,
    /// Where a copy of each frame goes, in order, for programs that speak the protocol themselves ([`Client::exchange`]).
    /// The daemon is read no faster than the frames are taken from it.
    pub inbound: Option<mpsc::Sender<Inbound>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { started: STARTED, seed: None, hold_after_restart: false, token: None, inbound: None }
    }
}

/// A handle on one session with the daemon. Clones share it; when the last is gone the session is closed.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    events: broadcast::WeakSender<Event>,
    dropped: Arc<Notify>,
    started: Arc<Semaphore>,
    local: Arc<Semaphore>,
    /// Of both together.
    places: usize,
    /// For what is drawn here and not by the session.
    dice: Arc<Mutex<StdRng>>,
}

/// Dials once the session that goes before was greeted; never, once that is closed.
struct Beside<D> {
    dialer: D,
    leader: watch::Receiver<Status>,
}

impl<D: Dial> Dial for Beside<D> {
    type Stream = D::Stream;

    async fn ready(&self) {
        if self.leader.clone().wait_for(|status| status.link.is_greeted()).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.dialer.ready().await;
    }

    fn dial(&self) -> impl Future<Output = std::io::Result<D::Stream>> + Send {
        self.dialer.dial()
    }

    fn name(&self) -> String {
        self.dialer.name()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({:?})", self.status.borrow().link)
    }
}

/// Wakes the session when a future that waits for an answer is dropped.
struct Waiting<'a> {
    dropped: &'a Notify,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.dropped.notify_one();
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
        let Handle { commands, status, events, dropped } = session::start(dialer, &options);
        let places = options.started.clamp(1, STARTED);
        let (started, local) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new(LOCAL)));
        // Not the session's own sequence once more.
        let dice = options.seed.map_or_else(rand::make_rng, |seed| StdRng::seed_from_u64(!seed));
        let dice = Arc::new(Mutex::new(dice));
        Self { commands, status, events, dropped, started, local, places: places + LOCAL, dice }
    }

    /// A further session with the same daemon, which connects only once this one was greeted, again after each loss. A
    /// daemon without a PKI document greets one client after the other, 30 s each: two that dial side by side are slower
    /// than one after the other.
    pub fn beside(&self, dialer: impl Dial, options: ClientOptions) -> Self {
        Self::over(Beside { dialer, leader: self.status.clone() }, options)
    }

    /// One service of a capability, if there is a document that tells of one.
    fn drawn(&self, capability: &str) -> Option<Service> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        self.pki_document()?.service_by(capability, &mut *dice)
    }

    /// Asks once there is room, and again after each reconnect. Operations that were started, and `cancel` set, count
    /// among the sixteen.
    async fn call(
        &self,
        operation: Operation,
        deadline: Instant,
        cancel: Option<CancelKey>,
        frame: impl Fn([u8; ID_BYTES]) -> RequestFrame + Send + 'static,
    ) -> Result<ResponseFrame, Error> {
        let body = Body { frame: Box::new(frame), cancel, cancels: None, fragile: false };
        Ok(self.ask(operation, deadline, body).await?.frame)
    }

    async fn ask(&self, operation: Operation, deadline: Instant, body: Body) -> Result<Answered, Error> {
        let kind = if body.cancel.is_some() { &self.started } else { &self.local };
        let room = self.room(operation, deadline, kind).await?;
        let (answer, answered) = oneshot::channel();
        self.command(operation, deadline, Command::Call(Call { body, deadline, answer, room })).await?;
        self.answer(operation, answered).await
    }

    /// A place among the requests of a kind.
    async fn room(
        &self,
        operation: Operation,
        deadline: Instant,
        kind: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let room = timeout_at(deadline, Arc::clone(kind).acquire_owned()).await;
        Ok(room.map_err(|_| self.too_late(operation))?.expect("the semaphore is never closed"))
    }

    async fn command(&self, operation: Operation, deadline: Instant, command: Command) -> Result<(), Error> {
        match timeout_at(deadline, self.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error { operation, kind: ErrorKind::Closed }),
            Err(_) => Err(self.too_late(operation)),
        }
    }

    /// The session keeps the deadline; it tells more than a timer here could.
    async fn answer<T>(
        &self,
        operation: Operation,
        answered: oneshot::Receiver<Result<T, ErrorKind>>,
    ) -> Result<T, Error> {
        let mut waiting = Waiting { dropped: &self.dropped, answered: false };
        let answer = answered.await;
        waiting.answered = true;
        answer.unwrap_or(Err(ErrorKind::Closed)).map_err(|kind| Error { operation, kind })
    }

    /// The deadline passed before anything was sent.
    fn too_late(&self, operation: Operation) -> Error {
        Error { operation, kind: session::late(&self.status.borrow().link, false) }
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
