//! Connections that only read. They are kept, and there are few.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::StoreError;
use super::private_dir::PrivateDir;

/// Queries at the same time at most; one more waits for the shortest of them.
const MAX_CONNECTIONS: usize = 4;

pub(super) struct Readers {
    dir: PrivateDir,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(dir: PrivateDir) -> Self {
        Self { dir, state: Mutex::default(), returned: Condvar::new() }
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

    fn borrow(&self) -> Result<Connection, StoreError> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(StoreError::Closed);
            }
            if let Some(db) = state.idle.pop() {
                return Ok(db);
            }
            if state.open < MAX_CONNECTIONS {
                state.open += 1;
                drop(state);
                return open(&self.dir).inspect_err(|_| self.gone());
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
        self.readers.returned.notify_one();
    }
}

fn open(dir: &PrivateDir) -> Result<Connection, StoreError> {
    // Not SQLITE_OPEN_READ_ONLY: a reader of a WAL database has its own marks to write in the shared memory.
    let db = super::open::connect(dir)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}
