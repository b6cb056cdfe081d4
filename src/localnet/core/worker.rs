//! A connection's worker: one request after another, in their order (`thin-client-protocol.md` §4.1).
//!
//! What the daemon answers by itself keeps the worker for as long as it costs. What is for the mixnet goes into a queue of
//! 16; while that is full the worker waits, and with it everything behind: local requests, cancels, the lot.

use std::collections::VecDeque;

use super::event::{Action, Conn, Legacy, Reply, Request, Started, StartedCopy};
use super::session::SessionId;
use super::timeline::StepKey;
use super::{Core, Step};
use crate::localnet::backend::BoxStore;
use crate::thin::message::ResponseFrame;

/// Mixnet requests of a connection that wait to be sent for the first time.
const OUTGOING: usize = 16;

/// A request that waits to be sent.
pub(super) enum Outgoing {
    Start(Box<Started>),
    Copy(Box<StartedCopy>),
    Send(Box<Legacy>),
    Empty,
}

enum Worker {
    Idle,
    /// At work on an answer of its own.
    Busy(StepKey, Box<ResponseFrame>),
    /// Waiting for room in the queue.
    Blocked(Outgoing),
}

pub(super) struct Connection {
    pub(super) session: SessionId,
    pub(super) outgoing: VecDeque<Outgoing>,
    pub(super) in_rotation: bool,
    worker: Worker,
    /// Requests behind the one at work; the shell lets no more than one in.
    behind: VecDeque<Request>,
}

impl Connection {
    pub(super) fn new(session: SessionId) -> Self {
        Self { session, outgoing: VecDeque::new(), in_rotation: false, worker: Worker::Idle, behind: VecDeque::new() }
    }

    /// How many requests are not done with.
    pub(super) fn requests(&self) -> usize {
        self.behind.len() + usize::from(!matches!(self.worker, Worker::Idle))
    }

    pub(super) fn timer(&self) -> Option<StepKey> {
        if let Worker::Busy(step, _) = self.worker { Some(step) } else { None }
    }
}

impl<S: BoxStore> Core<S> {
    /// A request that came before its connection was known, or after it was dropped, is nobody's.
    pub(super) fn requested(&mut self, conn: Conn, request: Request) {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
        if matches!(connection.worker, Worker::Idle) {
            self.work(conn, request);
            self.go_on(conn);
        } else {
            connection.behind.push_back(request);
        }
    }

    /// The worker is done with its local request.
    pub(super) fn worked(&mut self, conn: Conn) {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
        if let Worker::Busy(_, answer) = std::mem::replace(&mut connection.worker, Worker::Idle) {
            self.actions.extend([Action::Tell(conn, Reply::Local(answer)), Action::Read(conn)]);
        }
        self.go_on(conn);
    }

    /// The first of what waits to be sent. The worker, if it waited for room, goes on.
    pub(super) fn next_outgoing(&mut self, conn: Conn) -> Option<Outgoing> {
        let connection = self.clients.connections.get_mut(&conn)?;
        let next = connection.outgoing.pop_front()?;
        match std::mem::replace(&mut connection.worker, Worker::Idle) {
            Worker::Blocked(outgoing) => {
                connection.outgoing.push_back(outgoing);
                self.actions.push(Action::Read(conn));
                self.go_on(conn);
            }
            other => connection.worker = other,
        }
        Some(next)
    }

    /// Handles what is behind, as long as the worker has nothing else to do.
    fn go_on(&mut self, conn: Conn) {
        loop {
            let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
            if !matches!(connection.worker, Worker::Idle) {
                return;
            }
            let Some(request) = connection.behind.pop_front() else { return };
            self.work(conn, request);
        }
    }

    fn work(&mut self, conn: Conn, request: Request) {
        match request {
            Request::Token(token) => self.register(conn, token),
            Request::Local { answer, cost } if cost.is_zero() => {
                self.actions.push(Action::Tell(conn, Reply::Local(answer)));
            }
            Request::Local { answer, cost } => {
                let step = self.timeline.plan(self.timeline.now() + cost, Step::Worked(conn));
                if let Some(connection) = self.clients.connections.get_mut(&conn) {
                    connection.worker = Worker::Busy(step, answer);
                }
                return;
            }
            Request::Cancel { query_id, hash } => {
                self.cancel(conn, hash);
                self.actions.push(Action::Tell(conn, Reply::Cancelled { query_id }));
            }
            Request::CancelCopy { query_id, hash } => {
                self.cancel_copy(conn, hash);
                self.actions.push(Action::Tell(conn, Reply::CopyCancelled { query_id }));
            }
            Request::Start(started) => return self.enqueue(conn, Outgoing::Start(started)),
            Request::Copy(copy) => return self.enqueue(conn, Outgoing::Copy(copy)),
            Request::Send(legacy) => return self.enqueue(conn, Outgoing::Send(legacy)),
            Request::Empty => return self.enqueue(conn, Outgoing::Empty),
        }
        self.actions.push(Action::Read(conn));
    }

    fn enqueue(&mut self, conn: Conn, outgoing: Outgoing) {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
        if connection.outgoing.len() == OUTGOING {
            connection.worker = Worker::Blocked(outgoing);
            return;
        }
        connection.outgoing.push_back(outgoing);
        self.actions.push(Action::Read(conn));
        self.enter_rotation(conn);
    }
}
