//! Clients: their connections, the sessions that outlive them, and what is told to whom
//! (`thin-client-protocol.md` §2.4, §2.5, §4.6).
//!
//! A session that has a token survives its connection for the grace period. Unlike upstream's daemon this one loses nothing
//! of an operation that was sent: its answer is kept, and what was to be sent again is, when the client is back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tracing::{debug, warn};

use super::egress::Daemon;
use super::event::{Action, Conn, Reply};
use super::operation::OpId;
use super::timeline::StepKey;
use super::worker::Connection;
use super::{Core, Step};
use crate::localnet::backend::BoxStore;
use crate::thin::message::ID_BYTES;

/// Replies kept for a client that is away; further ones are dropped.
const QUEUED_REPLIES: usize = 1000;
/// Sessions kept for clients that are away; of more, the one that has been away longest is given up.
pub(super) const AWAY: usize = 4096;

pub(super) type SessionId = u64;

#[derive(Default)]
pub(super) struct Clients {
    pub(super) connections: BTreeMap<Conn, Connection>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// By the daemon too: a token says nothing to another one.
    pub(super) tokens: BTreeMap<(Daemon, [u8; ID_BYTES]), SessionId>,
}

#[derive(Default)]
pub(super) struct Session {
    pub(super) daemon: Daemon,
    pub(super) conn: Option<Conn>,
    pub(super) token: Option<[u8; ID_BYTES]>,
    pub(super) app_id: [u8; ID_BYTES],
    pub(super) operations: BTreeSet<OpId>,
    /// What is to be sent again.
    pub(super) resends: VecDeque<OpId>,
    /// What found no room there, and since when.
    pub(super) overflow: VecDeque<(Duration, OpId)>,
    pub(super) rearm: Option<StepKey>,
    pub(super) away: VecDeque<Reply>,
    expiry: Option<StepKey>,
}

impl<S: BoxStore> Core<S> {
    pub(super) fn connected(&mut self, conn: Conn, daemon: Daemon) {
        let id = self.next_serial();
        let session = Session { daemon, conn: Some(conn), app_id: self.mixnet.id(), ..Session::default() };
        self.clients.sessions.insert(id, session);
        self.clients.connections.insert(conn, Connection::new(id));
        self.stop_or_go();
    }

    /// A token that is known brings its session back, with the replies that came meanwhile behind the token's own.
    pub(super) fn register(&mut self, conn: Conn, token: [u8; ID_BYTES]) {
        let Some(fresh) = self.clients.connections.get(&conn).map(|connection| connection.session) else { return };
        let Some(daemon) = self.clients.sessions.get(&fresh).map(|session| session.daemon) else { return };
        let known = self.clients.tokens.get(&(daemon, token)).copied();
        let id = known.unwrap_or(fresh);
        if id != fresh {
            // A second live connection takes the session over, and the first one is hung up on.
            if let Some(old) = self.clients.sessions.get(&id).and_then(|session| session.conn) {
                self.drop_connection(old);
                self.actions.push(Action::Hangup(old));
            }
            self.leave(fresh, id);
            if let Some(connection) = self.clients.connections.get_mut(&conn) {
                connection.session = id;
            }
        }
        let Some(session) = self.clients.sessions.get_mut(&id) else { return };
        session.conn = Some(conn);
        if let Some(old) = session.token.replace(token)
            && old != token
        {
            self.clients.tokens.remove(&(daemon, old));
        }
        self.clients.tokens.insert((daemon, token), id);
        if let Some(expiry) = session.expiry.take() {
            self.timeline.withdraw(expiry);
        }
        let app_id = session.app_id;
        let away = std::mem::take(&mut session.away);
        self.actions.push(Action::Tell(conn, Reply::Token { app_id, resumed: known.is_some() }));
        self.actions.extend(away.into_iter().map(|reply| Action::Tell(conn, reply)));
        self.rearm(id);
    }

    /// The session that a connection had before its token named another one: what was started on it goes along, unless
    /// it has a token of its own to be found by.
    fn leave(&mut self, fresh: SessionId, known: SessionId) {
        let Some(session) = self.clients.sessions.get_mut(&fresh) else { return };
        if session.token.is_some() {
            self.gone(fresh);
            return;
        }
        let (resends, overflow) = (std::mem::take(&mut session.resends), std::mem::take(&mut session.overflow));
        let operations = std::mem::take(&mut session.operations);
        self.end_session(fresh);
        for op in &operations {
            self.operations.belongs_to(*op, known);
        }
        let now = self.timeline.now();
        if let Some(known) = self.clients.sessions.get_mut(&known) {
            known.operations.extend(operations);
            known.overflow.extend(resends.into_iter().map(|op| (now, op)).chain(overflow));
        }
    }

    pub(super) fn disconnected(&mut self, conn: Conn) {
        let Some(session) = self.drop_connection(conn) else { return };
        match self.clients.sessions.get(&session) {
            Some(known) if known.token.is_some() => self.gone(session),
            // A client without a token has nothing to come back to.
            _ => self.end_session(session),
        }
    }

    pub(super) fn closed(&mut self, conn: Conn) {
        if let Some(session) = self.drop_connection(conn) {
            self.end_session(session);
        }
    }

    pub(super) fn expired(&mut self, session: SessionId) {
        debug!(session, "a client that went away has not come back, and is forgotten");
        self.end_session(session);
    }

    /// A daemon starts anew, or all of them do: nothing of its clients is left. What is on its way to a courier still
    /// arrives.
    pub(super) fn restart(&mut self, daemon: Option<Daemon>) {
        let Clients { connections, sessions, .. } = &self.clients;
        let is_its = |session: SessionId| {
            daemon.is_none_or(|daemon| sessions.get(&session).is_some_and(|session| session.daemon == daemon))
        };
        let ending: Vec<_> = sessions.keys().copied().filter(|&session| is_its(session)).collect();
        let cut: Vec<_> =
            connections.iter().filter(|(_, connection)| is_its(connection.session)).map(|(&conn, _)| conn).collect();
        for conn in cut {
            self.drop_connection(conn);
            self.actions.push(Action::Hangup(conn));
        }
        for session in ending {
            self.end_session(session);
        }
    }

    /// Tells the client of a session, or keeps what it is to be told.
    pub(super) fn tell(&mut self, session: SessionId, reply: Reply) {
        let Some(session) = self.clients.sessions.get_mut(&session) else { return };
        match session.conn {
            Some(conn) => self.actions.push(Action::Tell(conn, reply)),
            None if session.away.len() < QUEUED_REPLIES => session.away.push_back(reply),
            None => warn!("a client that is away has {QUEUED_REPLIES} replies waiting; a further one is dropped"),
        }
    }

    pub(super) fn broadcast(&mut self, reply: impl Fn() -> Reply) {
        self.actions.extend(self.clients.connections.keys().map(|&conn| Action::Tell(conn, reply())));
    }

    /// The connection is over, with what waited on it to be handled or sent for the first time.
    fn drop_connection(&mut self, conn: Conn) -> Option<SessionId> {
        let connection = self.clients.connections.remove(&conn)?;
        if let Some(step) = connection.timer() {
            self.timeline.withdraw(step);
        }
        self.leave_rotation(conn);
        Some(connection.session)
    }

    /// A session's connection is over and its client may come back.
    fn gone(&mut self, id: SessionId) {
        let now = self.timeline.now();
        let Some(session) = self.clients.sessions.get_mut(&id) else { return };
        session.conn = None;
        for op in std::mem::take(&mut session.resends).into_iter().rev() {
            session.overflow.push_front((now, op));
        }
        if let Some(rearm) = session.rearm.take() {
            self.timeline.withdraw(rearm);
        }
        session.expiry = Some(self.timeline.plan(now + self.grace, Step::Expired(id)));
        self.give_up_the_longest_away();
    }

    fn give_up_the_longest_away(&mut self) {
        if self.clients.sessions.len().saturating_sub(self.clients.connections.len()) <= AWAY {
            return;
        }
        let away = self.clients.sessions.iter().filter_map(|(id, session)| Some((session.expiry?, *id)));
        if let Some((_, longest)) = away.min() {
            warn!("more than {AWAY} clients are away; the one that has been longest is forgotten");
            self.end_session(longest);
        }
    }

    fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.clients.sessions.get_mut(&id) else { return };
        for op in std::mem::take(&mut session.operations) {
            self.finish(op);
        }
        let Some(session) = self.clients.sessions.remove(&id) else { return };
        if let Some(token) = session.token {
            self.clients.tokens.remove(&(session.daemon, token));
        }
        for step in session.expiry.into_iter().chain(session.rearm) {
            self.timeline.withdraw(step);
        }
    }
}
