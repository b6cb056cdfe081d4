//! One session with the daemon: a task that owns the table of unanswered requests, and keeps a connection for them.
//!
//! The reader task decodes frames and never waits for a consumer: answers go into one-shot channels. The writer task
//! takes whole frames from a bounded queue, one write each. After every reconnect each unanswered request goes out
//! again under a new query id; a started operation is cancelled first, so that a survivor of the last connection does
//! not run beside it (`thin-client-protocol.md` §4.6).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use super::frame::{self, FrameError};
use super::message::{
    CancelCopy, CancelResending, HASH_BYTES, ID_BYTES, IndexCounter, Octets, PigeonholeGeometry, RequestFrame,
    ResponseFrame, SessionToken, SphinxGeometry, ThinClose,
};
use super::pki::Documents;
use super::{ClientOptions, Dial, Document, ErrorKind};

/// Frames that wait for the socket, and requests that wait for the session.
const QUEUE: usize = 32;
/// Unanswered requests of one session; a further one waits.
const UNANSWERED: usize = 256;
const DIAL: Duration = Duration::from_secs(20);
/// The daemon may wait 30 s for a document before each client that it accepts.
const HANDSHAKE: Duration = Duration::from_secs(75);
/// After so long without a word after connecting, the status says so.
const SILENCE: Duration = Duration::from_secs(5);
/// With requests open and nothing heard for so long, a question that costs nothing is put.
const QUIET: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(20);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
const GOODBYE: Duration = Duration::from_secs(2);

/// What a subscriber sees of the session.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How the link stands.
    pub link: Link,
    /// Sizes of the network's boxes, once a daemon told.
    pub pigeonhole: Option<PigeonholeGeometry>,
    /// Sizes of the network's packets.
    pub sphinx: Option<SphinxGeometry>,
    /// The daemon process; another token is another process.
    pub instance_token: Option<[u8; ID_BYTES]>,
    /// The newest PKI document.
    pub pki: Option<Arc<Document>>,
    /// The documents of the last epochs, the newest among them.
    pub documents: Documents,
    /// Grows with each connection that came to work.
    pub generation: u64,
}

/// How the link to the daemon stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// The first attempt is under way.
    #[default]
    Connecting,
    /// Nothing answers, or what answered has gone.
    NoDaemon {
        /// Why.
        error: String,
    },
    /// What answers is no daemon.
    Refused {
        /// What it did.
        error: String,
    },
    /// The daemon has no gateway, or no PKI document.
    NoConsensus,
    /// It can be used.
    Connected,
}

/// A request on its way through the session. Its body is kept, to be put again.
pub(super) struct Call {
    pub(super) body: Body,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<ResponseFrame, ErrorKind>>,
}

/// Makes the frame of a request under a query id.
pub(super) struct Body {
    pub(super) frame: Box<dyn Fn([u8; ID_BYTES]) -> RequestFrame + Send>,
    /// Set for started operations: what cancels them.
    pub(super) cancel: Option<CancelKey>,
    /// Whether it was put before, on this connection or an earlier one.
    pub(super) sent: bool,
}

/// The key under which the daemon finds a started operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CancelKey {
    /// A read or a write: the hash of its envelope.
    Envelope([u8; HASH_BYTES]),
    /// A copy command: BLAKE2b-256 of its stream's write capability.
    Copy([u8; HASH_BYTES]),
}

impl CancelKey {
    /// The request that cancels it.
    pub(super) fn request(self, query_id: [u8; ID_BYTES]) -> RequestFrame {
        let query_id = Some(Octets::from(query_id));
        match self {
            Self::Envelope(hash) => CancelResending { query_id, envelope_hash: Some(Octets::from(hash)) }.into(),
            Self::Copy(hash) => CancelCopy { query_id, write_cap_hash: Some(Octets::from(hash)) }.into(),
        }
    }
}

pub(super) enum Command {
    Call(Call),
    /// The future that waited for a call is gone.
    Sweep,
    Close(oneshot::Sender<()>),
}

pub(super) fn start<D: Dial>(dialer: D, options: &ClientOptions) -> (mpsc::Sender<Command>, watch::Receiver<Status>) {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (status, seen) = watch::channel(Status::default());
    let (wire_sender, wire) = mpsc::channel(QUEUE);
    let mut random = options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
    let session = Session {
        address: dialer.name(),
        dialer: Arc::new(dialer),
        inbox,
        status,
        token: random.random(),
        random,
        calls: BTreeMap::new(),
        outbox: VecDeque::new(),
        connection: None,
        attempt: 0,
        wire,
        wire_sender,
        phase: Phase::Waiting { until: Instant::now() },
        failures: 0,
        consensus: false,
        silence_told: false,
    };
    tokio::spawn(session.run());
    (commands, seen)
}

struct Session<D> {
    dialer: Arc<D>,
    address: String,
    /// All of this session's randomness.
    random: StdRng,
    inbox: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    token: [u8; ID_BYTES],
    calls: BTreeMap<[u8; ID_BYTES], Call>,
    /// Frames for the writer, in order; bounded by what is unanswered.
    outbox: VecDeque<Vec<u8>>,
    connection: Option<Connection>,
    /// Numbers the connections, so that the last words of an old one are passed over.
    attempt: u64,
    wire: mpsc::Receiver<(u64, Wire)>,
    wire_sender: mpsc::Sender<(u64, Wire)>,
    phase: Phase,
    failures: u32,
    consensus: bool,
    silence_told: bool,
}

/// One attempt at a connection and its socket: a task that dials and reads, and one that writes.
struct Connection {
    writer: mpsc::Sender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

enum Phase {
    /// Until the next attempt.
    Waiting {
        until: Instant,
    },
    Dialling,
    /// The daemon speaks first: its status, then the document; then we send our token and wait for its reply.
    Shaking {
        since: Instant,
        greeted: bool,
    },
    Ready {
        heard: Instant,
        probe: Option<([u8; ID_BYTES], Instant)>,
    },
}

enum Wire {
    Dialled,
    Frame(Box<ResponseFrame>),
    /// It ended: in order, by an error of the socket, or because what came is no frame.
    Ended {
        error: String,
        malformed: bool,
    },
}

impl<D: Dial> Session<D> {
    async fn run(mut self) {
        loop {
            let timer = self.next_timer();
            let room = self.calls.len() < UNANSWERED && self.outbox.len() < QUEUE;
            let writer = self.connection.as_ref().filter(|_| !self.outbox.is_empty()).map(|c| c.writer.clone());
            // Answers first: they make room. Neither can keep the others out, as both come through queues that run dry.
            tokio::select! {
                biased;
                Some((attempt, wire)) = self.wire.recv() => if attempt == self.attempt {
                    self.hear(wire);
                },
                command = self.inbox.recv(), if room => match command {
                    Some(Command::Call(call)) => self.take(call),
                    Some(Command::Sweep) => self.sweep(),
                    Some(Command::Close(done)) => {
                        self.say_goodbye().await;
                        let _ = done.send(());
                        return;
                    }
                    // Every handle is gone: nobody waits for anything.
                    None => return self.say_goodbye().await,
                },
                permit = reserve(writer), if !self.outbox.is_empty() && self.connection.is_some() => match permit {
                    Some(permit) => drop(permit.send(self.outbox.pop_front().expect("guarded"))),
                    // The writer failed; the reader says the same.
                    None => self.lost(Link::NoDaemon { error: "the connection to the daemon broke".to_owned() }),
                },
                () = sleep_until(timer) => self.tick(),
            }
        }
    }

    fn dial(&mut self) {
        self.attempt += 1;
        let (attempt, wire, address) = (self.attempt, self.wire_sender.clone(), self.address.clone());
        let dialer = Arc::clone(&self.dialer);
        let (writer, mut frames) = mpsc::channel::<Vec<u8>>(QUEUE);
        let (hand_over, socket) = oneshot::channel();
        let reader = tokio::spawn(async move {
            let dialled = match timeout_at(Instant::now() + DIAL, dialer.dial()).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    let error = format!("nothing answers at {address}: {error}");
                    return drop(wire.send((attempt, Wire::Ended { error, malformed: false })).await);
                }
                Err(_) => {
                    let error = format!("{address} does not answer");
                    return drop(wire.send((attempt, Wire::Ended { error, malformed: false })).await);
                }
            };
            let (mut read, write) = tokio::io::split(dialled);
            let _ = hand_over.send(write);
            let _ = wire.send((attempt, Wire::Dialled)).await;
            loop {
                let frame = match frame::read_body(&mut read).await {
                    Ok(Some(body)) => frame::decode::<ResponseFrame>(&body),
                    Ok(None) => {
                        let error = format!("{address} hung up");
                        return drop(wire.send((attempt, Wire::Ended { error, malformed: false })).await);
                    }
                    Err(error) => Err(error),
                };
                let told = match frame {
                    Ok(frame) => Wire::Frame(Box::new(frame)),
                    Err(FrameError::Io(error)) => {
                        let error = format!("the connection to {address} broke: {error}");
                        return drop(wire.send((attempt, Wire::Ended { error, malformed: false })).await);
                    }
                    Err(error) => {
                        let error = format!("what answers at {address} is no Katzenpost daemon: {error}");
                        return drop(wire.send((attempt, Wire::Ended { error, malformed: true })).await);
                    }
                };
                if wire.send((attempt, told)).await.is_err() {
                    return;
                }
            }
        });
        let sender = tokio::spawn(async move {
            let Ok(mut write) = socket.await else { return };
            while let Some(bytes) = frames.recv().await {
                if let Err(error) = write.write_all(&bytes).await {
                    return debug!(%error, "a frame could not be written");
                }
            }
            let _ = write.shutdown().await;
        });
        self.connection = Some(Connection { writer, tasks: [reader, sender] });
        self.phase = Phase::Dialling;
    }

    fn hear(&mut self, wire: Wire) {
        match wire {
            Wire::Dialled => self.phase = Phase::Shaking { since: Instant::now(), greeted: false },
            Wire::Frame(frame) => self.receive(*frame),
            Wire::Ended { error, malformed: true } => self.lost(Link::Refused { error }),
            Wire::Ended { error, malformed: false } => self.lost(Link::NoDaemon { error }),
        }
    }

    fn receive(&mut self, frame: ResponseFrame) {
        if let Phase::Ready { heard, probe } = &mut self.phase {
            *heard = Instant::now();
            *probe = None;
        }
        if let Some(event) = frame.connection_status_event {
            let token = event.instance_token.as_deref().and_then(|token| token.try_into().ok());
            self.status.send_modify(|status| {
                if let Some(old) = status.instance_token
                    && token.is_some_and(|new: [u8; ID_BYTES]| new != old)
                {
                    info!("the daemon was restarted");
                }
                status.instance_token = token;
                status.pigeonhole = event.pigeonhole_geometry;
                status.sphinx = event.sphinx_geometry;
            });
            self.consensus = event.is_connected;
            if let Phase::Shaking { greeted, .. } = &mut self.phase
                && !std::mem::replace(greeted, true)
            {
                let token = SessionToken { client_instance_token: Some(Octets::from(self.token)) };
                self.send(&token.into());
            }
            return self.show();
        }
        if let Some(event) = frame.new_pki_document_event {
            if let Some(document) = event.payload.as_deref().and_then(Document::parse) {
                let document = Arc::new(document);
                self.status.send_modify(|status| {
                    status.documents.insert(Arc::clone(&document));
                    status.pki = Some(document);
                });
                self.show();
            }
            return;
        }
        match &self.phase {
            Phase::Shaking { greeted: false, .. } => {
                let error = format!(
                    "what answers at {} is no Katzenpost daemon: it did not say its status first",
                    self.address
                );
                return self.lost(Link::Refused { error });
            }
            Phase::Shaking { .. } if frame.session_token_reply.is_some() => return self.ready(),
            _ => {}
        }
        if frame.shutdown_event.is_some() {
            return info!("the daemon says that it shuts down");
        }
        let Some(id) = query_id(&frame) else { return };
        // Unknown ids are replies to what was cancelled or put anew.
        if let Some(call) = self.calls.remove(&id) {
            let _ = call.answer.send(Ok(frame));
        }
    }

    /// The session works: all that is unanswered goes out, again or for the first time.
    fn ready(&mut self) {
        self.failures = 0;
        self.phase = Phase::Ready { heard: Instant::now(), probe: None };
        self.status.send_modify(|status| status.generation += 1);
        self.show();
        self.sweep();
        for call in std::mem::take(&mut self.calls).into_values() {
            if let (true, Some(key)) = (call.body.sent, call.body.cancel) {
                let cancel = key.request(self.random.random());
                self.send(&cancel);
            }
            self.put(call);
        }
    }

    fn take(&mut self, call: Call) {
        if matches!(self.phase, Phase::Ready { .. }) {
            self.put(call);
        } else {
            let id = self.random.random();
            self.calls.insert(id, call);
        }
    }

    fn put(&mut self, mut call: Call) {
        let id: [u8; ID_BYTES] = self.random.random();
        let request = (call.body.frame)(id);
        call.body.sent = true;
        match frame::encode(&request) {
            Ok(bytes) => {
                self.outbox.push_back(bytes);
                self.calls.insert(id, call);
            }
            Err(error) => drop(call.answer.send(Err(ErrorKind::InvalidArgument(error.to_string())))),
        }
    }

    fn send(&mut self, request: &RequestFrame) {
        let bytes = frame::encode(request).expect("a request of our own making is small");
        self.outbox.push_back(bytes);
    }

    /// Forgets the calls that nobody waits for, and cancels them at the daemon.
    fn sweep(&mut self) {
        let gone: Vec<_> = self.calls.iter().filter(|(_, call)| call.answer.is_closed()).map(|(&id, _)| id).collect();
        for id in gone {
            self.give_up(id, None);
        }
    }

    fn give_up(&mut self, id: [u8; ID_BYTES], why: Option<ErrorKind>) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let (Phase::Ready { .. }, Some(key)) = (&self.phase, call.body.cancel) {
            let cancel = key.request(self.random.random());
            self.send(&cancel);
        }
        if let Some(why) = why {
            let _ = call.answer.send(Err(why));
        }
    }

    fn lost(&mut self, link: Link) {
        self.connection = None;
        self.outbox.clear();
        self.consensus = false;
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        let jitter = self.random.random_range(0.5..1.0);
        self.phase = Phase::Waiting { until: Instant::now() + pause.mul_f64(jitter) };
        debug!(?link, "the daemon is not connected");
        self.status.send_if_modified(|status| std::mem::replace(&mut status.link, link.clone()) != link);
    }

    fn show(&mut self) {
        if matches!(self.phase, Phase::Ready { .. }) {
            let consensus = self.consensus;
            self.status.send_modify(|status| {
                status.link = if consensus && status.pki.is_some() { Link::Connected } else { Link::NoConsensus };
            });
        }
    }

    fn next_timer(&self) -> Instant {
        let phase = match &self.phase {
            Phase::Waiting { until } => *until,
            // Bounded by the task's own patience.
            Phase::Dialling => Instant::now() + 2 * DIAL,
            Phase::Shaking { since, greeted } if !greeted && !self.silence_told => *since + SILENCE,
            Phase::Shaking { since, .. } => *since + HANDSHAKE,
            Phase::Ready { probe: Some((_, at)), .. } => *at + PROBE,
            Phase::Ready { heard, .. } => *heard + QUIET,
        };
        self.calls.values().map(|call| call.deadline).fold(phase, Instant::min)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let over: Vec<_> = self.calls.iter().filter(|(_, call)| call.deadline <= now).map(|(&id, _)| id).collect();
        for id in over {
            let why = match &self.status.borrow().link {
                Link::NoDaemon { error } | Link::Refused { error } => ErrorKind::NoDaemon(error.clone()),
                _ => ErrorKind::Timeout,
            };
            self.give_up(id, Some(why));
        }
        match &mut self.phase {
            Phase::Waiting { until } if *until <= now => {
                self.silence_told = false;
                self.dial();
            }
            Phase::Shaking { since, .. } if *since + HANDSHAKE <= now => {
                let error = format!("{} accepted the connection and then did not greet as a daemon does", self.address);
                self.lost(Link::Refused { error });
            }
            Phase::Shaking { since, greeted: false } if *since + SILENCE <= now && !self.silence_told => {
                self.silence_told = true;
                let error = format!(
                    "{} is silent: it is no daemon, or one that waits for the network's document",
                    self.address
                );
                self.status.send_modify(|status| status.link = Link::NoDaemon { error });
            }
            Phase::Ready { probe: Some((_, at)), .. } if *at + PROBE <= now => {
                // A session whose replies go nowhere: another token makes another session.
                self.token = self.random.random();
                self.lost(Link::NoDaemon { error: format!("{} takes requests and answers none", self.address) });
            }
            Phase::Ready { heard, probe: probe @ None } if *heard + QUIET <= now => {
                if self.calls.is_empty() {
                    *heard = now;
                } else {
                    let id = self.random.random();
                    *probe = Some((id, now));
                    let question = IndexCounter {
                        query_id: Some(Octets::from(id)),
                        message_box_index: Some(Octets::from(vec![0; crate::bacap::INDEX_BYTES])),
                    };
                    self.send(&question.into());
                }
            }
            _ => {}
        }
    }

    /// Ends the session at the daemon, so that nothing of it runs on there.
    async fn say_goodbye(mut self) {
        self.inbox.close();
        for call in std::mem::take(&mut self.calls).into_values() {
            let _ = call.answer.send(Err(ErrorKind::Closed));
        }
        let Some(mut connection) = self.connection.take() else { return };
        let until = Instant::now() + GOODBYE;
        if matches!(self.phase, Phase::Ready { .. } | Phase::Shaking { .. }) {
            let close = frame::encode(&RequestFrame::from(ThinClose {})).expect("an empty map");
            self.outbox.push_back(close);
            for bytes in self.outbox.drain(..) {
                if timeout_at(until, connection.writer.send(bytes)).await.is_err() {
                    return;
                }
            }
        }
        // The writer ends once it has sent what it was given and its queue is closed.
        connection.writer = mpsc::channel(1).0;
        let _ = timeout_at(until, &mut connection.tasks[1]).await;
    }
}

async fn reserve(writer: Option<mpsc::Sender<Vec<u8>>>) -> Option<mpsc::OwnedPermit<Vec<u8>>> {
    writer?.reserve_owned().await.ok()
}

/// The query id of whatever reply a frame holds.
fn query_id(frame: &ResponseFrame) -> Option<[u8; ID_BYTES]> {
    macro_rules! first {
        ($($variant:ident),+) => { None$(.or_else(|| frame.$variant.as_ref()?.query_id.as_deref()))+ };
    }
    let id: Option<&[u8]> = first!(
        start_resending_encrypted_message_reply,
        encrypt_read_reply,
        encrypt_write_reply,
        new_keypair_reply,
        cancel_resending_encrypted_message_reply,
        start_resending_copy_command_reply,
        cancel_resending_copy_command_reply,
        next_message_box_index_reply,
        get_message_box_index_counter_reply,
        get_pki_document_reply,
        get_directory_authorities_reply,
        create_courier_envelopes_from_payload_reply,
        create_courier_envelopes_from_multi_payload_reply,
        create_courier_envelopes_from_tombstone_range_reply,
        voucher_mint_reply,
        voucher_induct_reply,
        voucher_open_reply,
        voucher_derive_stream_reply
    );
    id?.try_into().ok()
}
