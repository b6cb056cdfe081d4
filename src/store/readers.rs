//! Connections that only read. They are kept, and there are few.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::StoreError;
use super::place::Place;

/// Queries at the same time at most; one more waits for the shortest of them.
const MAX_CONNECTIONS: usize = 4;

pub(super) struct Readers {
    place: Place,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
    /// Nobody is lent one until all are closed.
    renewing: bool,
    closed: bool,
}

impl Readers {
    pub(super) fn new(place: Place) -> Self {
        Self { place, state: Mutex::default(), returned: Condvar::new() }
    }

    /// Asks one of the connections.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let lent = Lent { db: Some(self.borrow()?), readers: self };
        question(lent.db.as_ref().expect("lent until it is dropped"))
    }

    /// Closes the connections, those in use as soon as they are returned. Every later question is refused.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.open -= state.idle.len();
        let idle = std::mem::take(&mut state.idle);
        // The last connection of all writes the log into the database when it closes: that is to be the writer's.
        while state.open > 0 {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        drop(idle);
        self.returned.notify_all();
    }

    /// Closes the connections, and opens others for the questions that come. Waits for the questions that are being
    /// answered, which are short.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        state.renewing = true;
        loop {
            state.open -= state.idle.len();
            let idle = std::mem::take(&mut state.idle);
            if state.open == 0 {
                state.renewing = false;
                drop(state);
                drop(idle);
                break;
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.returned.notify_all();
    }

    fn borrow(&self) -> Result<Connection, StoreError> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(StoreError::Closed);
            }
            if !state.renewing
                && let Some(db) = state.idle.pop()
            {
                return Ok(db);
            }
            if !state.renewing && state.open < MAX_CONNECTIONS {
                state.open += 1;
                drop(state);
                return self.place.reader().inspect_err(|_| self.gone());
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn gone(&self) {
        self.lock().open -= 1;
        self.returned.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent<'a> {
    db: Option<Connection>,
    readers: &'a Readers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let mut state = self.readers.lock();
        if state.closed {
            drop(state);
            drop(db);
            return self.readers.gone();
        }
        state.idle.push(db);
        drop(state);
        // Whoever renews them waits too, and must not be passed over.
        self.readers.returned.notify_all();
    }
}
