//! One session with the daemon: a task that owns all that is unanswered, and keeps a connection for it.
//!
//! ```text
//!   Client ── commands ──▶ Session ── one frame at a time ──▶ writer ──▶ daemon
//!     ▲                    │  ▲ ▲
//!     └── one-shot answers ┘  │ └────────── frames ────────── reader ◀── daemon
//!                             └ timers
//! ```
//!
//! The session waits for nobody: answers go into one-shot channels, events into a ring, frames out as the writer has room.
//! Each request holds a permit of its kind until the daemon is rid of it, which bounds every table here. After every
//! reconnect each unanswered request goes out again under a new query id; a started operation is cancelled first, so
//! that a survivor of the last connection does not run beside it (`thin-client-protocol.md` §4.6). Mixnet requests
//! wait here, and not in the daemon's queue, while the daemon says that it has no gateway: there they could not be cancelled.

mod calls;
mod connection;
mod heard;
mod sends;
mod status;
mod tombstones;
mod vigil;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use self::calls::Calls;
use self::connection::{Connection, Wire};
use self::heard::{Heard, Kind};
use self::sends::Sends;
pub(super) use self::sends::{Awaits, Send, Sending};
pub use self::status::{Event, Events, Link, Status};
use self::tombstones::Tombstones;
use self::vigil::Vigil;
use super::frame;
use super::message::{
    CancelCopy, CancelResending, ConnectionStatusEvent, HASH_BYTES, ID_BYTES, IndexCounter, MessageReplyEvent,
    MessageSentEvent, Octets, RequestFrame, ResponseFrame, SessionToken, ThinClose,
};
use super::{ClientOptions, Dial, Document, ErrorKind};

/// Mixnet requests that the daemon's queue of a connection holds; with more it stops reading us.
pub(super) const STARTED: usize = 16;
/// Local requests that may be unanswered.
pub(super) const LOCAL: usize = 64;
/// Commands that wait for the session: as many as there are permits, and some that need none.
const COMMANDS: usize = STARTED + LOCAL + 16;
/// Frames that wait for the session. One may have 40 MiB.
const HEARD: usize = 4;
/// The daemon may wait 30 s for a document before each client that it accepts.
const HANDSHAKE: Duration = Duration::from_secs(75);
/// After so long without a word after connecting, the status says so.
const SILENCE: Duration = Duration::from_secs(5);
/// With something unanswered and no reply for so long, a question that costs nothing is put.
const QUIET: Duration = Duration::from_secs(20);
/// What its answer may take, and what it may take behind other questions: an encrypt without a document waits for
/// five attempts to fetch one, each up to 30 s. Giving up on a daemon that is at work is what brings its sessions into
/// disorder (§4.6).
const PROBE: Duration = Duration::from_secs(10);
const PROBE_BEHIND: Duration = Duration::from_secs(180);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A connection that held so long was no failure.
const STEADY: Duration = Duration::from_secs(10);
/// A new request does not wait out a long pause.
const PROMPT: Duration = Duration::from_secs(1);
/// What closing may take: to say goodbye, and before that to connect for it.
const GOODBYE: Duration = Duration::from_secs(2);
const RETURN: Duration = Duration::from_secs(5);
/// A packet's turn, where no document tells.
const TURN: Duration = Duration::from_secs(1);
/// Turns that a packet may wait behind each that was there before it: others use the daemon too.
const TURNS: u32 = 3;

pub(super) type Id = [u8; ID_BYTES];
pub(super) type Answer<T> = oneshot::Sender<Result<T, ErrorKind>>;

/// A request on its way through the session. Its body is kept, to be put again.
pub(super) struct Call {
    pub(super) body: Body,
    pub(super) deadline: Instant,
    pub(super) answer: Answer<Answered>,
    /// Its place among those of its kind.
    pub(super) room: OwnedSemaphorePermit,
}

/// Makes the frame of a request under a query id.
pub(super) struct Body {
    pub(super) frame: Box<dyn Fn(Id) -> RequestFrame + std::marker::Send>,
    /// Set for started operations: what cancels them.
    pub(super) cancel: Option<CancelKey>,
    /// Set for cancels: what they cancel.
    pub(super) cancels: Option<CancelKey>,
}

/// The daemon's reply, and for a cancel whether it ended something.
pub(super) struct Answered {
    pub(super) frame: ResponseFrame,
    pub(super) found: bool,
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
    pub(super) fn request(self, query_id: Id) -> RequestFrame {
        let query_id = Some(Octets::from(query_id));
        match self {
            Self::Envelope(hash) => CancelResending { query_id, envelope_hash: Some(Octets::from(hash)) }.into(),
            Self::Copy(hash) => CancelCopy { query_id, write_cap_hash: Some(Octets::from(hash)) }.into(),
        }
    }
}

pub(super) enum Command {
    Call(Call),
    Send(Send),
    /// Drop the connection and keep the session.
    Disconnect(oneshot::Sender<()>),
    /// Connect now.
    Reconnect,
    Close(oneshot::Sender<()>),
}

/// A session's ends that its clients hold.
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) events: broadcast::WeakSender<Event>,
    /// Told when a future that waits for an answer is dropped. It keeps one telling, so none is lost and none waits.
    pub(super) dropped: Arc<Notify>,
}

pub(super) fn start<D: Dial>(dialer: D, options: &ClientOptions) -> Handle {
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (status, seen) = watch::channel(Status::default());
    let (wire_sender, wire) = mpsc::channel(HEARD);
    let events = broadcast::Sender::new(status::EVENTS);
    let dropped = Arc::new(Notify::new());
    let mut random = options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
    let now = Instant::now();
    let handle = Handle { commands, status: seen, events: events.downgrade(), dropped: Arc::clone(&dropped) };
    let session = Session {
        address: dialer.name(),
        dialer: Arc::new(dialer),
        inbox,
        dropped,
        status,
        events,
        token: random.random(),
        random,
        calls: Calls::default(),
        sends: Sends::default(),
        tombstones: Tombstones::default(),
        ended: [false; 2],
        outbox: VecDeque::new(),
        connection: None,
        attempt: 0,
        wire,
        wire_sender,
        phase: Phase::Waiting { since: now, until: now },
        failures: 0,
        consensus: false,
        document: false,
        restarted: false,
        registered: false,
        vigil: Vigil::new(now),
        closing: None,
    };
    tokio::spawn(session.run());
    handle
}

struct Session<D> {
    dialer: Arc<D>,
    address: String,
    inbox: mpsc::Receiver<Command>,
    dropped: Arc<Notify>,
    status: watch::Sender<Status>,
    events: broadcast::Sender<Event>,
    token: Id,
    /// All of this session's randomness.
    random: StdRng,
    calls: Calls,
    sends: Sends,
    tombstones: Tombstones,
    /// Whether a 24 was heard since the last reply to a cancel, for envelopes and for copies: the daemon says both in
    /// this order, and the 24 on the canceller's connection, whosever operation it was (§4.4).
    ended: [bool; 2],
    /// Frames of the session's own, in order: its token, a probe.
    outbox: VecDeque<Vec<u8>>,
    connection: Option<Connection>,
    /// Numbers the connections, so that the last words of an old one are passed over.
    attempt: u64,
    wire: mpsc::Receiver<(u64, Wire)>,
    wire_sender: mpsc::Sender<(u64, Wire)>,
    phase: Phase,
    failures: u32,
    /// What the daemon says of its gateway, and whether it gave a document, on this connection.
    consensus: bool,
    document: bool,
    /// Another daemon process than before was met.
    restarted: bool,
    /// Whether a daemon knows our token.
    registered: bool,
    vigil: Vigil,
    closing: Option<Closing>,
}

struct Closing {
    until: Instant,
    done: Vec<oneshot::Sender<()>>,
}

enum Phase {
    /// Until the next attempt; the last one failed at `since`.
    Waiting {
        since: Instant,
        until: Instant,
    },
    /// Disconnected on request.
    Idle,
    Dialling,
    /// The daemon speaks first: its status, then the document; then we send our token and wait for its reply.
    Shaking {
        since: Instant,
        greeted: bool,
        silence_told: bool,
    },
    Ready {
        since: Instant,
        /// The last reply.
        heard: Instant,
        /// An unanswered question, and when it means that nothing is answered.
        probe: Option<(Id, Instant)>,
    },
}

impl<D: Dial> Session<D> {
    async fn run(mut self) {
        loop {
            // Timers first: nothing that keeps coming can hold a deadline up.
            let now = Instant::now();
            let timer = self.next_timer(now);
            if timer <= now {
                self.tick(now);
                if self.closing.as_ref().is_some_and(|closing| closing.until <= now) {
                    return self.say_goodbye().await;
                }
            }
            if self.closing.is_some() && matches!(self.phase, Phase::Ready { .. } | Phase::Waiting { .. } | Phase::Idle)
            {
                return self.say_goodbye().await;
            }
            self.vigil.expect(timer);
            self.send_now();
            let sending = self.wants_to_send();
            let writer = self.connection.as_ref().filter(|_| sending).and_then(Connection::writer);
            // Answers first, as they make room; with each of them goes one of everything else, so that a daemon that
            // talks without a pause keeps nobody out.
            tokio::select! {
                biased;
                Some((attempt, wire)) = self.wire.recv() => {
                    if attempt == self.attempt {
                        self.hear(wire);
                    }
                    self.sweep();
                    if let Ok(command) = self.inbox.try_recv() {
                        self.obey(command);
                    }
                }
                command = self.inbox.recv(), if self.closing.is_none() => match command {
                    Some(command) => self.obey(command),
                    // Every handle is gone: nobody waits for anything.
                    None => self.close(None),
                },
                () = self.dropped.notified() => self.sweep(),
                permit = reserve(writer), if sending => match permit {
                    Some(permit) => if let Some(frame) = self.next_frame() {
                        drop(permit.send(frame));
                    },
                    // The writer failed; the reader says the same.
                    None => self.lost(Link::NoDaemon { error: format!("the connection to {} broke", self.address) }),
                },
                () = sleep_until(timer) => {}
            }
        }
    }

    /// Gives the writer what it has room for.
    fn send_now(&mut self) {
        while self.wants_to_send() {
            let Some(Ok(permit)) =
                self.connection.as_ref().and_then(Connection::writer).map(mpsc::Sender::try_reserve_owned)
            else {
                return;
            };
            match self.next_frame() {
                Some(frame) => drop(permit.send(frame)),
                None => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Call(call) => {
                self.on_demand();
                self.take(call);
            }
            Command::Send(send) => {
                self.on_demand();
                self.sends.insert(send);
            }
            Command::Disconnect(done) => {
                self.lost(Link::Disconnected);
                let _ = done.send(());
            }
            Command::Reconnect => {
                self.failures = 0;
                if matches!(self.phase, Phase::Waiting { .. } | Phase::Idle) {
                    self.dial();
                }
            }
            Command::Close(done) => self.close(Some(done)),
        }
    }

    /// A request came: it finds a connection, or does not wait long for the next attempt at one.
    fn on_demand(&mut self) {
        let idle = self.is_idle();
        match &mut self.phase {
            Phase::Idle => self.dial(),
            Phase::Waiting { since, until } => *until = (*until).min(*since + PROMPT),
            // Nobody looked while there was nothing to wait for.
            Phase::Ready { .. } if idle => self.look(Instant::now()),
            _ => {}
        }
    }

    fn take(&mut self, mut call: Call) {
        let mut earlier = None;
        if let Some(key) = call.body.cancel {
            if self.calls.find_key(key).is_some() {
                let text = "the same envelope, or copy stream, is under way already: wait for it, or cancel it first";
                let _ = call.answer.send(Err(ErrorKind::InvalidArgument(text.to_owned())));
                return;
            }
            // Started anew before the daemon was rid of it: a later cancel would meet the new one.
            if let Some((id, room)) = self.tombstones.rise(key) {
                earlier = Some(id);
                if let Some(room) = room {
                    call.room.merge(room);
                }
            }
        }
        if let Some(key) = call.body.cancels
            && let Some((seq, entry)) = self.calls.find_key(key)
            && !entry.sent()
        {
            // It never left, so there is nothing to find at the daemon but what others started.
            self.give_up(seq, Some(ErrorKind::Cancelled));
            self.ended[usize::from(matches!(key, CancelKey::Copy(_)))] = true;
        }
        self.calls.insert(call, earlier);
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.sends.is_empty() && self.tombstones.is_empty()
    }

    fn wants_to_send(&self) -> bool {
        let ready = matches!(self.phase, Phase::Ready { .. });
        self.connection.is_some()
            && (!self.outbox.is_empty()
                || ready
                    && (self.calls.wants_to_send(self.consensus)
                        || self.tombstones.next_deadline().is_some_and(|next| next <= Instant::now())
                        || self.document && self.consensus && self.sends.wants_to_send()))
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        if let Some(frame) = self.outbox.pop_front() {
            return Some(frame);
        }
        if !matches!(self.phase, Phase::Ready { .. }) {
            return None;
        }
        let now = Instant::now();
        if let Some(cancel) = self.tombstones.due(now, self.consensus, &mut self.random) {
            return Some(small(&cancel));
        }
        if let Some(frame) = self.calls.next_frame(self.consensus, &mut self.random) {
            return Some(frame);
        }
        if self.document && self.consensus && self.sends.wants_to_send() {
            let ahead = self.calls.started() + self.sends.queued() + 1;
            let turns = TURNS * u32::try_from(ahead).unwrap_or(u32::MAX);
            let until = now + self.turn().saturating_mul(turns);
            let order = self.calls.next_order();
            return self.sends.next_frame(self.random.random(), order, until);
        }
        None
    }

    /// The mean time between two packets of the daemon's.
    fn turn(&self) -> Duration {
        let rate = self.status.borrow().pki.as_ref().map(|document| document.lambda_p);
        match rate {
            Some(rate) if rate > 0.0 => Duration::from_secs_f64((0.001 / rate).clamp(0.001, 60.0)),
            _ => TURN,
        }
    }

    fn dial(&mut self) {
        self.attempt += 1;
        self.connection = Some(Connection::start(&self.dialer, &self.address, self.attempt, &self.wire_sender));
        self.phase = Phase::Dialling;
        if self.status.borrow().link == Link::Disconnected {
            self.tell(Link::Connecting);
        }
    }

    fn hear(&mut self, wire: Wire) {
        match wire {
            Wire::Dialled => {
                self.phase = Phase::Shaking { since: Instant::now(), greeted: false, silence_told: false };
            }
            Wire::Frame(frame) => self.receive(*frame),
            Wire::Ended { error, malformed: true } => self.lost(Link::Refused { error }),
            Wire::Ended { error, malformed: false } => self.lost(Link::NoDaemon { error }),
        }
    }

    fn receive(&mut self, mut frame: ResponseFrame) {
        if let Some(event) = frame.connection_status_event.take() {
            self.greeted(event);
        } else if let Some(event) = frame.new_pki_document_event.take() {
            if let Some(document) = event.payload.as_deref().and_then(Document::parse).map(Arc::new) {
                self.document = true;
                self.status.send_modify(|status| {
                    status.documents.insert(Arc::clone(&document));
                    status.pki = Some(Arc::clone(&document));
                });
                let _ = self.events.send(Event::PkiDocument(document));
                self.show();
            }
        } else if let Some(reply) = frame.session_token_reply.take() {
            match self.phase {
                Phase::Shaking { greeted: true, .. } => self.ready(reply.resumed),
                Phase::Shaking { greeted: false, .. } => self.refuse("it did not say its status first"),
                _ => {}
            }
        } else if frame.shutdown_event.take().is_some() {
            info!("the daemon says that it shuts down");
            self.tell(Link::ShuttingDown);
        } else if let Some(event) = frame.message_sent_event.take() {
            self.message_sent(event);
        } else if let Some(event) = frame.message_reply_event.take() {
            self.message_reply(event);
        } else if let Some(heard) = Heard::of(&frame) {
            if let Phase::Shaking { greeted: false, .. } = self.phase {
                return self.refuse("it did not say its status first");
            }
            self.reply(heard, frame);
        }
    }

    /// The daemon's status: the first frame of each connection, and one at each change.
    fn greeted(&mut self, event: ConnectionStatusEvent) {
        let shaking = matches!(self.phase, Phase::Shaking { .. });
        let max_plaintext = event.pigeonhole_geometry.as_ref().map_or(0, |found| found.max_plaintext_payload_length);
        if shaking && (event.sphinx_geometry.is_none() || event.pigeonhole_geometry.is_none()) {
            return self.refuse(
                "it does not tell the geometry of its packets and boxes, which an older or misconfigured daemon does not: \
                 use a current kpclientd",
            );
        }
        if shaking && max_plaintext <= 0 {
            return self.refuse("it tells a geometry of boxes without room for a message");
        }
        let token: Option<Id> = event.instance_token.as_deref().and_then(|token| token.try_into().ok());
        let old = self.status.borrow().instance_token;
        let restarted = old.is_some() && token.is_some() && old != token;
        if restarted {
            info!("the daemon was restarted");
            self.restarted = true;
            self.registered = false;
            let _ = self.events.send(Event::Restarted);
        }
        self.status.send_modify(|status| {
            status.restarts += u64::from(restarted);
            status.instance_token = token.or(status.instance_token);
            status.pigeonhole = event.pigeonhole_geometry.or(status.pigeonhole.take());
            status.sphinx = event.sphinx_geometry.or(status.sphinx.take());
        });
        self.consensus = event.is_connected;
        if let Phase::Shaking { greeted, .. } = &mut self.phase
            && !std::mem::replace(greeted, true)
        {
            let token = SessionToken { client_instance_token: Some(Octets::from(self.token)) };
            self.outbox.push_back(small(&token.into()));
        }
        self.show();
    }

    /// The session works: all that is unanswered goes out, again or for the first time.
    fn ready(&mut self, resumed: bool) {
        let now = Instant::now();
        let first = self.status.borrow().generation == 0;
        let known_before = std::mem::replace(&mut self.registered, true);
        self.phase = Phase::Ready { since: now, heard: now, probe: None };
        self.status.send_modify(|status| status.generation += 1);
        self.sweep();
        self.calls.again();
        if std::mem::take(&mut self.restarted) {
            self.tombstones.clear();
        }
        self.tombstones.reconnected(now);
        if !resumed && !first {
            self.sends.forgotten();
            if known_before {
                info!("the daemon does not know the session any more");
                let _ = self.events.send(Event::SessionLost);
            }
        }
        if !first {
            // A session may be deaf from its start: the last connection's end at the daemon can take it along (§4.6).
            self.probe(now);
        }
        self.show();
    }

    fn message_sent(&mut self, event: MessageSentEvent) {
        let Some(surb_id) = event.surbid.as_deref().and_then(|id| Id::try_from(id).ok()) else { return };
        let reply_eta = Duration::from_nanos(event.reply_eta.try_into().unwrap_or(0));
        if let Some(order) = self.sends.sent(surb_id, reply_eta, event.err.as_deref()) {
            self.taken(order + 1);
        }
        let _ = self.events.send(Event::MessageSent { surb_id, reply_eta, error: event.err });
    }

    fn message_reply(&mut self, event: MessageReplyEvent) {
        let Some(surb_id) = event.surbid.as_deref().and_then(|id| Id::try_from(id).ok()) else { return };
        let payload: Arc<[u8]> = event.payload.unwrap_or_default().0.into();
        self.sends.replied(surb_id, &payload);
        let _ = self.events.send(Event::MessageReply { surb_id, payload });
    }

    /// The daemon has taken from its queue what came before the `order`-th request of this connection.
    fn taken(&mut self, order: u64) {
        self.tombstones.taken(order, Instant::now());
        self.sends.taken(order);
    }

    fn reply(&mut self, heard: Heard, frame: ResponseFrame) {
        let now = Instant::now();
        if let Phase::Ready { heard, probe, .. } = &mut self.phase {
            *heard = now;
            *probe = None;
        }
        let mut found = false;
        match heard.kind {
            Kind::Ended { copy, cancelled: true, .. } => self.ended[usize::from(copy)] = true,
            Kind::Cancel { copy } => found = std::mem::take(&mut self.ended[usize::from(copy)]),
            _ => {}
        }
        let Some((seq, entry)) = self.calls.find(&heard.id) else {
            // A reply to what was cancelled, or to one of the session's own cancels.
            if !self.tombstones.ended(&heard.id) {
                self.tombstones.answered(&heard.id, now);
            }
            return;
        };
        let current = entry.id == Some(heard.id);
        let order = entry.order;
        if let Kind::Ended { cancelled: true, .. } = heard.kind
            && !current
        {
            return self.calls.forget_old(&heard.id);
        }
        let entry = self.calls.remove(seq).expect("just found");
        if !current && let (Some(key), Some(id)) = (entry.call.body.cancel, entry.id) {
            // The start before this one has answered; this one is not needed any more.
            self.tombstones.bury(key, id, order, None, now);
        }
        if let Kind::Ended { taken: true, .. } = heard.kind
            && current
        {
            self.taken(order);
        }
        if let (Kind::Cancel { .. }, Some(key), false) = (heard.kind, entry.call.body.cancels, found)
            && let Some((seq, _)) = self.calls.find_key(key)
        {
            // Ours, and the daemon has not found it: it may still lie in its queue.
            self.give_up(seq, Some(ErrorKind::Cancelled));
        }
        let _ = entry.call.answer.send(Ok(Answered { frame, found }));
    }

    /// Forgets the calls that nobody waits for, and cancels them at the daemon.
    fn sweep(&mut self) {
        for seq in self.calls.over(None) {
            self.give_up(seq, None);
        }
        self.sends.expire(Instant::now(), || ErrorKind::Busy);
    }

    fn give_up(&mut self, seq: u64, why: Option<ErrorKind>) {
        let Some(entry) = self.calls.remove(seq) else { return };
        let now = Instant::now();
        if let (Some(key), Some(id)) = (entry.call.body.cancel, entry.id.or(entry.old)) {
            let room = entry.id.is_some().then_some(entry.call.room);
            self.tombstones.bury(key, id, entry.order, room, now);
        }
        if let Some(why) = why {
            let _ = entry.call.answer.send(Err(why));
        }
    }

    fn refuse(&mut self, what: &str) {
        let error = format!("what answers at {} cannot be used as a Katzenpost daemon: {what}", self.address);
        self.lost(Link::Refused { error });
    }

    fn lost(&mut self, link: Link) {
        let now = Instant::now();
        self.connection = None;
        // What its reader had still to say is not of the next one.
        self.attempt += 1;
        self.outbox.clear();
        (self.consensus, self.document, self.ended) = (false, false, [false; 2]);
        self.tombstones.lost();
        self.sends.lost(link.trouble().unwrap_or("the connection was given up"));
        if matches!(self.phase, Phase::Ready { since, .. } if since + STEADY <= now) {
            self.failures = 0;
        }
        if link == Link::Disconnected {
            self.phase = Phase::Idle;
        } else {
            let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
            self.failures = self.failures.saturating_add(1);
            let jitter = self.random.random_range(0.5..1.0);
            self.phase = Phase::Waiting { since: now, until: now + pause.mul_f64(jitter) };
        }
        debug!(?link, "the daemon is not connected");
        self.tell(link);
    }

    fn show(&mut self) {
        if matches!(self.phase, Phase::Ready { .. }) {
            self.tell(if self.consensus && self.document { Link::Connected } else { Link::NoConsensus });
        }
    }

    fn tell(&mut self, link: Link) {
        let changed = self.status.send_if_modified(|status| {
            let changed = status.link != link;
            status.link = link.clone();
            changed
        });
        if changed {
            let _ = self.events.send(Event::Link(link));
        }
    }

    fn next_timer(&self, now: Instant) -> Instant {
        let far = now + Duration::from_secs(3600);
        let phase = match &self.phase {
            Phase::Waiting { until, .. } => *until,
            // Bounded by the task's own patience.
            Phase::Idle | Phase::Dialling => far,
            Phase::Shaking { since, greeted: false, silence_told: false } => *since + SILENCE,
            Phase::Shaking { since, .. } => *since + HANDSHAKE,
            Phase::Ready { probe: None, .. } if self.is_idle() => far,
            Phase::Ready { heard, probe, .. } => {
                probe.map_or(*heard + QUIET, |(_, until)| until).min(now + vigil::BEAT)
            }
        };
        let cancels = self.tombstones.next_deadline().filter(|_| matches!(self.phase, Phase::Ready { .. }));
        // A cancel that is due waits for the writer, not for a timer.
        let cancels = cancels.filter(|next| *next > now);
        let waits = [self.calls.next_deadline(), self.sends.next_deadline()];
        let waits = waits.into_iter().flatten().map(|deadline| deadline.max(self.vigil.patient_until));
        let closing = self.closing.as_ref().map(|closing| closing.until);
        waits.chain(cancels).chain(closing).fold(phase, Instant::min)
    }

    /// Whether time passed without us; then the connection has to show that it works.
    fn look(&mut self, now: Instant) {
        if self.vigil.look(now) {
            info!("time passed while this machine or process did not run: asking the daemon whether it is there");
            self.probe(now);
            if let Phase::Waiting { until, .. } = &mut self.phase {
                *until = now;
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.look(now);
        if self.vigil.patient_until <= now {
            self.expire(now);
        }
        match &mut self.phase {
            Phase::Waiting { until, .. } if *until <= now => self.dial(),
            Phase::Shaking { since, .. } if *since + HANDSHAKE <= now => {
                let error = format!("{} accepted the connection and then did not greet as a daemon does", self.address);
                self.lost(Link::Refused { error });
            }
            Phase::Shaking { since, greeted: false, silence_told: told @ false } if *since + SILENCE <= now => {
                *told = true;
                let error = format!(
                    "{} is silent: it is no daemon, or one that waits for the network's document",
                    self.address
                );
                self.tell(Link::NoDaemon { error });
            }
            Phase::Ready { probe: Some((_, until)), .. } if *until <= now => {
                // A session whose replies go nowhere: another token makes another session.
                self.token = self.random.random();
                self.registered = false;
                self.lost(Link::NoDaemon { error: format!("{} takes requests and answers none", self.address) });
            }
            Phase::Ready { heard, probe: None, .. } if *heard + QUIET <= now => self.probe(now),
            _ => {}
        }
    }

    fn expire(&mut self, now: Instant) {
        for seq in self.calls.over(Some(now)) {
            let sent = self.calls.is_sent(seq);
            let why = self.late(sent);
            self.give_up(seq, Some(why));
        }
        let unsent = self.late(false);
        self.sends.expire(now, || unsent.clone());
    }

    /// Why a deadline passed.
    fn late(&self, sent: bool) -> ErrorKind {
        late(&self.status.borrow().link, sent)
    }

    /// Puts a question that costs nothing, to see whether anything is answered.
    fn probe(&mut self, now: Instant) {
        let patience = if self.calls.local_under_way() { PROBE_BEHIND } else { PROBE };
        let Phase::Ready { probe: probe @ None, .. } = &mut self.phase else { return };
        let id = self.random.random();
        *probe = Some((id, now + patience));
        let question = IndexCounter {
            query_id: Some(Octets::from(id)),
            message_box_index: Some(Octets::from(vec![0; crate::bacap::INDEX_BYTES])),
        };
        self.outbox.push_back(small(&question.into()));
    }

    /// Fails what is unanswered. A daemon that knows the session is told; where it is not connected, one attempt is made.
    fn close(&mut self, done: Option<oneshot::Sender<()>>) {
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Call(call) => drop(call.answer.send(Err(ErrorKind::Closed))),
                Command::Send(send) => drop(send.answer.send(Err(ErrorKind::Closed))),
                Command::Close(other) | Command::Disconnect(other) => drop(other.send(())),
                Command::Reconnect => {}
            }
        }
        for call in self.calls.drain() {
            let _ = call.answer.send(Err(ErrorKind::Closed));
        }
        self.sends.close();
        self.tombstones.clear();
        self.closing = Some(Closing { until: Instant::now() + RETURN, done: done.into_iter().collect() });
        if self.registered && matches!(self.phase, Phase::Waiting { .. } | Phase::Idle) {
            self.dial();
        } else if !self.registered && !matches!(self.phase, Phase::Shaking { greeted: true, .. }) {
            // Nobody knows of us.
            self.connection = None;
            self.phase = Phase::Idle;
        }
    }

    /// Ends the session at the daemon, so that nothing of it runs on there. The daemon hangs up once it has done so.
    async fn say_goodbye(mut self) {
        let until = Instant::now() + GOODBYE;
        let ready = matches!(self.phase, Phase::Ready { .. });
        if let Some(mut connection) = self.connection.take().filter(|_| ready) {
            let sent = match connection.writer() {
                Some(writer) => timeout_at(until, writer.send(small(&ThinClose {}.into()))).await,
                None => return,
            };
            connection.finish();
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            loop {
                match timeout_at(until, self.wire.recv()).await {
                    Ok(Some((attempt, Wire::Ended { .. }))) if attempt == self.attempt => break,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        for done in self.closing.into_iter().flat_map(|closing| closing.done) {
            let _ = done.send(());
        }
    }
}

/// Why a deadline passed, as the link stands; `sent` is whether the daemon may have the request.
pub(super) fn late(link: &Link, sent: bool) -> ErrorKind {
    match (link.trouble(), sent) {
        (Some(error), false) => ErrorKind::NoDaemon(error.to_owned()),
        (Some(error), true) => ErrorKind::Lost(error.to_owned()),
        (None, false) if *link == Link::NoConsensus => ErrorKind::NoConsensus,
        (None, false) => ErrorKind::Busy,
        (None, true) => ErrorKind::Timeout,
    }
}

/// The frame of a request of the session's own making.
fn small(request: &RequestFrame) -> Vec<u8> {
    frame::encode(request).expect("a request of our own making is small")
}

async fn reserve(writer: Option<mpsc::Sender<Vec<u8>>>) -> Option<mpsc::OwnedPermit<Vec<u8>>> {
    writer?.reserve_owned().await.ok()
}
