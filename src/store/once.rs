//! Requests that are done once, however often they are asked: a verb whose owner died before it answered asks the next
//! one, which must know.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::queue::Kind;
use super::{Commit, Store, StoreError};

/// Requests that are remembered. A verb asks again within seconds.
const REMEMBERED: i64 = 4096;

/// The number of a request, drawn at random by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// The number that these bytes are.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// What a request came to, as far as its answer cannot be looked up afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done, and there is nothing to say.
    Done,
    /// Bytes were dropped.
    Trimmed {
        /// How many.
        bytes: u64,
    },
    /// Boxes were given up.
    Skipped {
        /// The first of them.
        first: u64,
        /// How many.
        boxes: u64,
        /// Bytes behind them that can be read now.
        bytes: u64,
    },
    /// What was not stored is in another channel.
    Moved {
        /// How many boxes.
        boxes: u64,
        /// Their bytes.
        bytes: u64,
        /// How many of the boxes may be in the old channel too.
        launched_boxes: u64,
    },
    /// Bytes were appended.
    Appended {
        /// The stream's size after it.
        size: u64,
    },
    /// A file was accepted.
    Accepted {
        /// Its record.
        record: i64,
    },
}

impl Store {
    /// The same store, whose next change is the one that `request` asks for: it is done once, and its outcome is
    /// remembered in the same transaction. `None`: as ever.
    #[must_use]
    pub fn for_request(&self, request: Option<RequestId>) -> Self {
        let mut store = self.clone();
        store.request = request;
        store
    }

    /// What a request came to that was carried out before.
    pub fn outcome(&self, request: RequestId) -> Result<Option<Outcome>, StoreError> {
        self.readers().ask(|db| {
            let mut found = db.prepare_cached("SELECT outcome FROM request WHERE id = ?1")?;
            let mut rows = found.query([request.0])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let outcome: Vec<u8> = row.get(0)?;
            ciborium::from_reader(&outcome[..])
                .map(Some)
                .map_err(|error| StoreError::Corrupt { reason: format!("the outcome of a request: {error}") })
        })
    }

    pub(super) fn send_once<T: Send + 'static>(
        &self,
        kind: Kind,
        outcome: impl Fn(&T) -> Outcome + Send + 'static,
        mut request: impl FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        let Some(id) = self.request else { return self.send(kind, request) };
        self.send(kind, move |ledger| {
            ledger.check_new(id)?;
            let done = request(ledger)?;
            ledger.remember(id, &outcome(&done))?;
            Ok(done)
        })
    }
}

impl Ledger<'_> {
    fn check_new(&self, id: RequestId) -> Result<(), StoreError> {
        match self.one("SELECT 1 FROM request WHERE id = ?1", [id.0], |_| Ok(()))? {
            Some(()) => Err(StoreError::AskedAgain),
            None => Ok(()),
        }
    }

    fn remember(&self, id: RequestId, outcome: &Outcome) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(outcome, &mut bytes)
            .map_err(|error| StoreError::Corrupt { reason: format!("the outcome of a request: {error}") })?;
        self.run("INSERT INTO request (id, outcome) VALUES (?1, ?2)", params![id.0, bytes])?;
        self.run("DELETE FROM request WHERE number <= ?1", [self.last_insert() - REMEMBERED]).map(drop)
    }
}
