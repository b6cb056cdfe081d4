//! The pure core: the daemon's operations and sessions, in front of the couriers and replicas.
//!
//! Events and a time go in, actions come out. Steps that take time on a real network go through a queue of timed steps,
//! so that delays and faults have their place; in the profile `instant` every delay is zero.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tracing::warn;

use super::backend::{Backend, BoxStore, COURIER_INVALID_ENVELOPE, COURIER_INVALID_EPOCH, CourierAnswer};
use super::envelope::{Inner, Query};
use super::replica;
use crate::bacap::{BoxId, SealedBox};
use crate::thin::message::ID_BYTES;

pub(super) use event::{Action, Conn, Control, Event, Reply, Request, Setup, Started};

const INTERNAL_ERROR: u8 = 4;
const CANCELLED: u8 = 24;
const COURIER_CACHE_CORRUPTION: u8 = 12;
const COURIER_PROPAGATION_ERROR: u8 = 13;
const THIN_INVALID_ENVELOPE: u8 = 31;
const THIN_INVALID_EPOCH: u8 = 32;
/// Replies kept for a client that is away.
const QUEUED_REPLIES: usize = 1000;

type OpId = u64;
type SessionId = u64;

enum Step {
    Query(OpId),
    /// The courier's answer is back at the daemon.
    Answer(OpId, CourierAnswer),
}

struct Op {
    session: SessionId,
    started: Started,
}

struct Session {
    conn: Option<Conn>,
    token: Option<[u8; ID_BYTES]>,
    app_id: [u8; ID_BYTES],
    away: VecDeque<Reply>,
    gone_at: Option<Duration>,
}

pub(super) struct Core<S> {
    backend: Backend<S>,
    dice: StdRng,
    mixnet: Duration,
    grace: Duration,
    sessions: HashMap<SessionId, Session>,
    tokens: HashMap<[u8; ID_BYTES], SessionId>,
    conns: HashMap<Conn, SessionId>,
    ops: HashMap<OpId, Op>,
    by_hash: HashMap<[u8; 32], OpId>,
    /// Reads that wait for a box to be written.
    parked: HashMap<BoxId, Vec<OpId>>,
    steps: BTreeMap<(Duration, u64), Step>,
    serial: u64,
}

impl<S: BoxStore> Core<S> {
    pub(super) fn new(backend: Backend<S>, setup: Setup) -> Self {
        Self {
            backend,
            dice: StdRng::seed_from_u64(setup.seed),
            mixnet: (setup.profile.hop * 7 + setup.profile.network) / 2,
            grace: setup.grace,
            sessions: HashMap::new(),
            tokens: HashMap::new(),
            conns: HashMap::new(),
            ops: HashMap::new(),
            by_hash: HashMap::new(),
            parked: HashMap::new(),
            steps: BTreeMap::new(),
            serial: 0,
        }
    }

    pub(super) fn store(&mut self) -> &mut S {
        self.backend.store()
    }

    /// What was done since the last commit is not on the disk, and nobody was told of it.
    pub(super) fn rolled_back(&mut self) {
        self.backend.rolled_back();
    }

    /// Takes an event in at `wall`, a time since the Unix epoch, and gives what is to be told to whom.
    pub(super) fn handle(&mut self, wall: Duration, event: Event) -> Vec<Action> {
        let mut told = Vec::new();
        match event {
            Event::Connected(conn) => self.connected(conn),
            Event::Request(conn, request) => {
                self.asked(wall, conn, request, &mut told);
                told.push(Action::Read(conn));
            }
            Event::Disconnected(conn) => self.disconnected(wall, conn),
            Event::Closed(conn) => {
                if let Some(session) = self.conns.remove(&conn) {
                    self.end_session(session);
                }
            }
            Event::Control(control) => self.changed(wall, control, &mut told),
            Event::Tick => {}
        }
        self.run_steps(wall, &mut told);
        self.end_sessions_of_the_gone(wall);
        told
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let step = self.steps.keys().next().map(|&(at, _)| at);
        let gone = self.sessions.values().filter_map(|session| session.gone_at).map(|at| at + self.grace);
        step.into_iter().chain(gone).chain(self.backend.next_deadline()).min()
    }

    fn connected(&mut self, conn: Conn) {
        let id = self.next_serial();
        let session =
            Session { conn: Some(conn), token: None, app_id: self.dice.random(), away: VecDeque::new(), gone_at: None };
        self.sessions.insert(id, session);
        self.conns.insert(conn, id);
    }

    fn asked(&mut self, wall: Duration, conn: Conn, request: Request, told: &mut Vec<Action>) {
        let Some(&session) = self.conns.get(&conn) else { return };
        match request {
            Request::Token(token) => self.register(conn, session, token, told),
            Request::Start(started) => {
                let id = self.next_serial();
                self.by_hash.insert(started.hash, id);
                self.ops.insert(id, Op { session, started: *started });
                self.plan(wall + self.mixnet, Step::Query(id));
            }
            Request::Cancel { query_id, hash } => {
                if let Some(id) = self.by_hash.get(&hash).copied()
                    && let Some(op) = self.finish(id)
                {
                    let ended = Reply::Ended { query_id: op.started.query_id, code: CANCELLED, courier: Some(0) };
                    self.tell(session, ended, told);
                }
                self.tell(session, Reply::Cancelled { query_id }, told);
            }
            Request::Local { answer, .. } => told.push(Action::Tell(conn, Reply::Local(answer))),
            Request::Copy(copy) => {
                let ended = Reply::CopyEnded { query_id: copy.query_id, code: INTERNAL_ERROR, replica: 0, envelope: 0 };
                told.push(Action::Tell(conn, ended));
            }
            Request::CancelCopy { query_id, .. } => told.push(Action::Tell(conn, Reply::CopyCancelled { query_id })),
            Request::Send(_) | Request::Empty => {}
        }
    }

    fn changed(&mut self, wall: Duration, control: Control, told: &mut Vec<Action>) {
        match control {
            Control::Faults(faults) => self.backend.set_faults(&faults),
            Control::Foreign(sealed) => self.backend.plant(wall, &sealed),
            Control::Restart => {
                told.extend(self.conns.keys().map(|&conn| Action::Hangup(conn)));
                for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.end_session(id);
                }
                self.conns.clear();
            }
            Control::Epoch => told.extend(self.conns.keys().map(|&conn| Action::Tell(conn, Reply::Document))),
            Control::Link(connected) => {
                told.extend(self.conns.keys().map(|&conn| Action::Tell(conn, Reply::Status { connected })));
            }
            Control::Jumped { from, to } => self.backend.jumped(from, to),
            Control::Consensus(_) => {}
        }
    }

    /// A token that is known brings its session back, with the replies that came meanwhile behind the token's own.
    fn register(&mut self, conn: Conn, fresh: SessionId, token: [u8; ID_BYTES], told: &mut Vec<Action>) {
        let known = self.tokens.get(&token).copied().filter(|id| *id != fresh);
        let id = known.unwrap_or(fresh);
        if known.is_some() {
            self.end_session(fresh);
            // A second live connection takes the session over, and the first one hears nothing more.
            if let Some(old) = self.sessions.get(&id).and_then(|session| session.conn) {
                self.conns.remove(&old);
            }
            self.conns.insert(conn, id);
        } else {
            self.tokens.insert(token, id);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.conn = Some(conn);
        session.token = Some(token);
        session.gone_at = None;
        let app_id = session.app_id;
        let away = std::mem::take(&mut session.away);
        told.push(Action::Tell(conn, Reply::Token { app_id, resumed: known.is_some() }));
        told.extend(away.into_iter().map(|reply| Action::Tell(conn, reply)));
    }

    fn disconnected(&mut self, wall: Duration, conn: Conn) {
        let Some(id) = self.conns.remove(&conn) else { return };
        match self.sessions.get_mut(&id) {
            Some(session) if session.token.is_some() => {
                session.conn = None;
                session.gone_at = Some(wall);
            }
            // A client without a token has nothing to come back to.
            _ => self.end_session(id),
        }
    }

    fn end_sessions_of_the_gone(&mut self, wall: Duration) {
        let over = |session: &Session| session.gone_at.is_some_and(|at| wall >= at + self.grace);
        let gone: Vec<_> = self.sessions.iter().filter(|(_, session)| over(session)).map(|(&id, _)| id).collect();
        for id in gone {
            self.end_session(id);
        }
    }

    fn end_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id)
            && let Some(token) = session.token
        {
            self.tokens.remove(&token);
        }
        let ops: Vec<_> = self.ops.iter().filter(|(_, op)| op.session == id).map(|(&op, _)| op).collect();
        for op in ops {
            self.finish(op);
        }
    }

    fn run_steps(&mut self, wall: Duration, told: &mut Vec<Action>) {
        self.backend.advance(wall);
        while let Some(entry) = self.steps.first_entry() {
            if entry.key().0 > wall {
                break;
            }
            match entry.remove() {
                Step::Query(op) => self.at_courier(wall, op),
                Step::Answer(op, answer) => self.at_daemon(wall, op, answer, told),
            }
        }
    }

    fn at_courier(&mut self, wall: Duration, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let answer = match &op.started.query {
            None => CourierAnswer::Error(COURIER_INVALID_ENVELOPE),
            Some(query) => self.backend.envelope(wall, 0, query, op.started.authentic),
        };
        self.plan(wall + self.mixnet, Step::Answer(id, answer));
        for written in self.backend.take_written() {
            for parked in self.parked.remove(&written).unwrap_or_default() {
                self.plan(wall + self.mixnet, Step::Query(parked));
            }
        }
    }

    /// The daemon: what an answer of the courier means for the operation.
    fn at_daemon(&mut self, wall: Duration, id: OpId, answer: CourierAnswer, told: &mut Vec<Action>) {
        let Some(op) = self.ops.get(&id) else { return };
        let reading = op.started.read.is_some();
        match answer {
            CourierAnswer::Ack if !reading && !op.started.strict => self.end(id, replica::SUCCESS, told),
            CourierAnswer::Ack => self.plan(wall + self.mixnet, Step::Query(id)),
            CourierAnswer::Error(code) => self.end(id, thin_code(code), told),
            CourierAnswer::Payload { code: replica::BOX_ID_NOT_FOUND, .. } if reading && !op.started.no_retry => {
                if let Some(Query { inner: Inner::Read(box_id), .. }) = &op.started.query {
                    self.parked.entry(*box_id).or_default().push(id);
                }
            }
            CourierAnswer::Payload { sealed: Some(sealed), .. } if reading => self.end_with_box(id, sealed, told),
            CourierAnswer::Payload { code: replica::BOX_ALREADY_EXISTS, .. } if !op.started.strict => {
                self.end(id, replica::SUCCESS, told);
            }
            CourierAnswer::Payload { code, .. } => self.end(id, code, told),
        }
    }

    fn end_with_box(&mut self, id: OpId, sealed: SealedBox, told: &mut Vec<Action>) {
        let Some(op) = self.finish(id) else { return };
        let Some(read) = op.started.read else { return };
        self.tell(op.session, Reply::Box { query_id: op.started.query_id, read, sealed, courier: 0 }, told);
    }

    fn end(&mut self, id: OpId, code: u8, told: &mut Vec<Action>) {
        if let Some(op) = self.finish(id) {
            self.tell(op.session, Reply::Ended { query_id: op.started.query_id, code, courier: Some(0) }, told);
        }
    }

    fn finish(&mut self, id: OpId) -> Option<Op> {
        let op = self.ops.remove(&id)?;
        if self.by_hash.get(&op.started.hash) == Some(&id) {
            self.by_hash.remove(&op.started.hash);
        }
        if let Some(Query { inner: Inner::Read(box_id), .. }) = &op.started.query
            && let Some(parked) = self.parked.get_mut(box_id)
        {
            parked.retain(|other| *other != id);
            if parked.is_empty() {
                self.parked.remove(box_id);
            }
        }
        Some(op)
    }

    fn tell(&mut self, session: SessionId, reply: Reply, told: &mut Vec<Action>) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        match session.conn {
            Some(conn) => told.push(Action::Tell(conn, reply)),
            None if session.away.len() < QUEUED_REPLIES => session.away.push_back(reply),
            None => warn!("a client that is away has too many replies; one is dropped"),
        }
    }

    fn plan(&mut self, at: Duration, step: Step) {
        let serial = self.next_serial();
        self.steps.insert((at, serial), step);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// What the daemon makes of a courier's own code.
fn thin_code(code: u8) -> u8 {
    match code {
        2 => COURIER_CACHE_CORRUPTION,
        3 => COURIER_PROPAGATION_ERROR,
        COURIER_INVALID_EPOCH => THIN_INVALID_EPOCH,
        _ => THIN_INVALID_ENVELOPE,
    }
}

mod event;
#[cfg(test)]
mod tests;
