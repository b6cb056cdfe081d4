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
mod closing;
mod connection;
mod heard;
mod hearing;
mod request;
mod sends;
mod status;
mod timing;
mod tombstones;
mod vigil;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use self::calls::Calls;
use self::connection::{Connection, Wire};
pub(super) use self::request::{Answer, Answered, Body, Call, CancelKey, Command, Id};
use self::sends::Sends;
pub(super) use self::sends::{Awaits, Send, Sending};
pub use self::status::{Absence, Event, Events, Inbound, Link, Status};
pub(super) use self::timing::late;
use self::tombstones::Tombstones;
use self::vigil::Vigil;
use super::frame;
use super::message::RequestFrame;
use super::{ClientOptions, Dial, ErrorKind};

/// Mixnet requests that the daemon's queue of a connection holds; with more it stops reading us.
pub(super) const STARTED: usize = 16;
/// Local requests that may be unanswered.
pub(super) const LOCAL: usize = 64;
/// Commands that wait for the session: as many as there are permits, and some that need none.
const COMMANDS: usize = STARTED + LOCAL + 16;
/// Frames that wait for the session. One may have 40 MiB.
const HEARD: usize = 4;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A connection that held so long was no failure.
const STEADY: Duration = Duration::from_secs(10);
/// A new request does not wait out a long pause.
const PROMPT: Duration = Duration::from_secs(1);
/// A packet's turn, where no document tells.
const TURN: Duration = Duration::from_secs(1);
/// Turns that a packet may wait behind each that was there before it: others use the daemon too.
const TURNS: u32 = 3;

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
        token: options.token.unwrap_or_else(|| random.random()),
        inbound: options.inbound.clone(),
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
        was_connected: false,
        restarted: false,
        hold_after_restart: options.hold_after_restart,
        held: false,
        released: None,
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
    /// Where a copy of each frame goes.
    inbound: Option<mpsc::Sender<Inbound>>,
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
    /// Whether this daemon process was connected to the mixnet before.
    was_connected: bool,
    /// Another daemon process than before was met.
    restarted: bool,
    hold_after_restart: bool,
    /// Whether nothing goes into the mixnet until a release.
    held: bool,
    /// The daemon process that a release was for, whether it was met already or not.
    released: Option<Id>,
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
            Command::Leave(done) => {
                self.lost(Link::Disconnected);
                // The daemon keeps it, so there is nobody to tell.
                self.registered = false;
                self.close(Some(done));
            }
            Command::Reconnect => {
                self.failures = 0;
                if matches!(self.phase, Phase::Waiting { .. } | Phase::Idle) {
                    self.dial();
                }
            }
            Command::Release(instance) => {
                self.released = Some(instance);
                self.held &= self.status.borrow().instance_token != self.released;
            }
            Command::Close(done) => self.close(Some(done)),
        }
    }

    /// Whether requests go into the mixnet now.
    fn mixnet(&self) -> bool {
        self.consensus && !self.held
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
            // Nobody waits for it any more, and the sweep that cancels it is still to come.
            let dead = self.calls.find_key(key).filter(|(_, entry)| entry.call.answer.is_closed()).map(|(seq, _)| seq);
            if let Some(seq) = dead {
                self.give_up(seq, None);
            }
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
                    && (self.calls.wants_to_send(self.mixnet())
                        || self.tombstones.next_deadline().is_some_and(|next| next <= Instant::now())
                        || self.document && self.mixnet() && self.sends.wants_to_send()))
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
        let mixnet = self.mixnet();
        if let Some(frame) = self.calls.next_frame(mixnet, &mut self.random) {
            return Some(frame);
        }
        if self.document && mixnet && self.sends.wants_to_send() {
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
        let (wire, inbound) = (&self.wire_sender, self.inbound.clone());
        self.connection = Some(Connection::start(&self.dialer, &self.address, self.attempt, wire, inbound));
        self.phase = Phase::Dialling;
        if self.status.borrow().link == Link::Disconnected {
            self.tell(Link::Connecting);
        }
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
        let why = link.trouble().unwrap_or("the connection was given up");
        self.sends.lost(why);
        for seq in self.calls.fragile() {
            self.give_up(seq, Some(ErrorKind::Lost(why.to_owned())));
        }
        self.tell_inbound(why);
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

    /// Tells whoever looks at frames that no more come of this connection.
    fn tell_inbound(&self, why: &str) {
        let Some(inbound) = self.inbound.clone() else { return };
        if let Err(mpsc::error::TrySendError::Full(ended)) = inbound.try_send(Inbound::Ended { error: why.to_owned() })
        {
            tokio::spawn(async move {
                let _ = inbound.send(ended).await;
            });
        }
    }

    fn show(&mut self) {
        if matches!(self.phase, Phase::Ready { .. }) {
            let link = match (self.consensus, self.document) {
                (true, true) => Link::Connected,
                (true, false) => Link::NoConsensus(Absence::NoDocument),
                (false, _) if self.was_connected => Link::NoConsensus(Absence::Lost),
                (false, _) => Link::NoConsensus(Absence::NotYet),
            };
            self.was_connected |= link == Link::Connected;
            self.tell(link);
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
}

/// The frame of a request of the session's own making.
fn small(request: &RequestFrame) -> Vec<u8> {
    frame::encode(request).expect("a request of our own making is small")
}

async fn reserve(writer: Option<mpsc::Sender<Vec<u8>>>) -> Option<mpsc::OwnedPermit<Vec<u8>>> {
    writer?.reserve_owned().await.ok()
}
