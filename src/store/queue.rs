//! Requests on their way to the writer thread: in order, and bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::StoreError;
use super::ledger::Ledger;

/// Requests that wait at most; whoever submits one more waits for room.
const MAX_WAITING: usize = 1024;
/// Bytes that wait at most.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// What shares one COMMIT at most.
const MAX_GROUP: usize = 256;
const MAX_GROUP_BYTES: usize = 1 << 20;

/// A request, whatever its answer is.
pub(super) trait Job: Send {
    /// Whether it brings new bytes from a person: those are refused first on a full disk.
    fn grows(&self) -> bool;
    /// Whether it may change as many rows as a channel has: such a request has a transaction of its own.
    fn is_wide(&self) -> bool;
    /// How many bytes it carries.
    fn bytes(&self) -> usize;
    /// Does it, inside a transaction. It is done again where that transaction did not come to its commit.
    fn apply(&mut self, ledger: &mut Ledger<'_>) -> Result<(), StoreError>;
    /// Answers: what `apply` came to, unless the transaction failed.
    fn settle(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What the queue and the writer have to know of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kind {
    pub(super) grows: bool,
    pub(super) wide: bool,
    pub(super) bytes: usize,
}

/// A request from its parts.
pub(super) struct Task<T, F> {
    kind: Kind,
    request: F,
    reply: oneshot::Sender<Result<T, StoreError>>,
    outcome: Option<Result<T, StoreError>>,
}

impl<T, F> Task<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
{
    pub(super) fn boxed(kind: Kind, reply: oneshot::Sender<Result<T, StoreError>>, request: F) -> Box<dyn Job> {
        Box::new(Self { kind, request, reply, outcome: None })
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send,
{
    fn grows(&self) -> bool {
        self.kind.grows
    }

    fn is_wide(&self) -> bool {
        self.kind.wide
    }

    fn bytes(&self) -> usize {
        self.kind.bytes
    }

    fn apply(&mut self, ledger: &mut Ledger<'_>) -> Result<(), StoreError> {
        let outcome = (self.request)(ledger);
        let applied = outcome.as_ref().map(drop).map_err(Clone::clone);
        self.outcome = Some(outcome);
        applied
    }

    fn settle(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { reply, outcome, .. } = *self;
        let answer = committed.and_then(|()| outcome.unwrap_or(Err(StoreError::Closed)));
        // Nobody has to wait for an answer.
        drop(reply.send(answer));
    }
}

/// The queue between the submitters and the one writer.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    room: Condvar,
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Box<dyn Job>>,
    bytes: usize,
    closed: bool,
}

/// What the writer gets.
pub(super) enum Next {
    /// Requests for one transaction.
    Group(Vec<Box<dyn Job>>),
    /// Nothing waits at the moment.
    Idle,
    /// Nothing waits, and nothing will.
    Closed,
}

impl Queue {
    /// Submits a request; blocks while the queue is full. One that is larger than the bound enters an empty queue.
    pub(super) fn push(&self, job: Box<dyn Job>) {
        let bytes = job.bytes();
        let mut state = self.lock();
        while !state.closed
            && !state.jobs.is_empty()
            && (state.jobs.len() >= MAX_WAITING || state.bytes + bytes > MAX_WAITING_BYTES)
        {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            drop(state);
            return job.settle(Err(StoreError::Closed));
        }
        state.bytes += bytes;
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_one();
    }

    /// The next group; [`Next::Idle`] where none comes within `patience`.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let mut state = self.lock();
        if !patience.is_zero() {
            let waits = |state: &mut Waiting| state.jobs.is_empty() && !state.closed;
            state = self.work.wait_timeout_while(state, patience, waits).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.jobs.is_empty() {
            return if state.closed { Next::Closed } else { Next::Idle };
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(job) = state.jobs.front()
            && group.len() < MAX_GROUP
            && (group.is_empty() || (bytes + job.bytes() <= MAX_GROUP_BYTES && !job.is_wide()))
        {
            let wide = job.is_wide();
            bytes += job.bytes();
            group.extend(state.jobs.pop_front());
            if wide {
                break;
            }
        }
        state.bytes -= bytes;
        drop(state);
        self.room.notify_all();
        Next::Group(group)
    }

    /// Takes no more requests. Those that wait are still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Drops what waits, where there is no writer any more to take it.
    pub(super) fn abandon(&self) {
        self.close();
        let jobs = std::mem::take(&mut self.lock().jobs);
        for job in jobs {
            job.settle(Err(StoreError::Closed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
