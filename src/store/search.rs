//! Readers that were away for longer than the network keeps anything: whether what they find is to be believed.
//!
//! A frontier that is not there, and was last asked for more than a replica epoch ago, may be one that nobody has written
//! yet, or one that has expired. Until a search has told, the channel is *stale*, and its end is not known. What a search
//! may ask for in a day is kept here, and given out before it is spent: so no crash makes it ask for more.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::ledger::{Ledger, int, uint};
use super::{Arrival, BoxSeq, BoxState, Channel, ChannelId, REPLICA_EPOCH, RETENTION, Store, StoreError};
use crate::bacap::BoxIndex;

/// The time within which all searches of a channel share one budget.
pub const SEARCH_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Searched {
    /// The first box that lives, with its index.
    Found {
        /// Which box.
        seq: BoxSeq,
        /// Its index.
        index: BoxIndex,
        /// What it holds.
        arrival: Arrival,
    },
    /// Nothing lives past the frontier, as far as could be learned: so the frontier is the end.
    Nothing,
    /// It was broken off, and begins anew.
    BrokenOff,
}

impl Channel {
    /// Reads that a search of the channel may spend now, of so many in a day.
    pub fn search_budget(&self, now: SystemTime, per_day: u32) -> u32 {
        let same_day = self.searched.is_some_and(|at| now.duration_since(at).is_ok_and(|since| since < SEARCH_WINDOW));
        if same_day { per_day.saturating_sub(self.search_probes) } else { per_day }
    }
}

impl Store {
    /// The channels that are to be searched.
    pub fn stale(&self) -> Result<Vec<ChannelId>, StoreError> {
        self.readers().ask(|db| {
            let sql = "SELECT id FROM channel WHERE stale_since IS NOT NULL ORDER BY id";
            let mut statement = db.prepare_cached(sql)?;
            let found = statement.query_map([], |row| row.get(0).map(ChannelId))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }
}

impl Ledger<'_> {
    /// The channel is to be searched, by a person's word.
    pub(super) fn search(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let record = self.reader(id)?;
        if record.boxes > record.frontier {
            return Err(StoreError::LaterKnown { name: record.name });
        }
        self.run(
            "UPDATE channel SET stale_since = coalesce(stale_since, min(coalesce(verdict_at, ?2), ?2)) WHERE id = ?1",
            params![id.0, self.ago(RETENTION)],
        )?;
        self.touch(id);
        Ok(())
    }

    /// Gives out what is left of the day's budget; nothing, where that is less than `least`.
    pub(super) fn begin_search(&mut self, id: ChannelId, per_day: u32, least: u32) -> Result<u32, StoreError> {
        self.reader(id)?;
        let spent = self.one(
            "SELECT CASE WHEN searched > ?2 AND searched <= ?3 THEN search_probes ELSE 0 END FROM channel WHERE id = ?1",
            params![id.0, self.ago(SEARCH_WINDOW), self.now],
            |row| uint(row, 0),
        )?;
        let spent = spent.unwrap_or_default();
        let left = per_day.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX));
        if left < least.max(1) {
            return Ok(0);
        }
        self.run(
            "UPDATE channel SET searched = CASE WHEN ?3 > 0 THEN searched ELSE ?2 END, search_probes = ?4 WHERE id = ?1",
            params![id.0, self.now, int(spent), per_day],
        )?;
        self.touch(id);
        Ok(left)
    }

    /// Takes back what was not spent of what was given out, and keeps what came of it.
    pub(super) fn end_search(&mut self, id: ChannelId, unspent: u32, came: &Searched) -> Result<(), StoreError> {
        let record = self.reader(id)?;
        self.run(
            "UPDATE channel SET search_probes = max(search_probes - ?2, 0) WHERE id = ?1",
            params![id.0, unspent],
        )?;
        self.touch(id);
        match came {
            Searched::BrokenOff => return Ok(()),
            // What has come meanwhile by itself tells more.
            Searched::Found { seq, index, arrival } if record.boxes <= record.frontier && seq.0 > record.frontier => {
                let (state, payload) = match arrival {
                    Arrival::Message(bytes) => (BoxState::Received, &bytes[..]),
                    _ => (BoxState::Tombstone, &[][..]),
                };
                self.run(
                    "INSERT INTO box (chain, seq, state, index104, payload, seen, since)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
                    params![record.chain, int(seq.0), state.code(), index.as_bytes(), payload, self.now],
                )?;
                self.run(
                    "UPDATE channel SET boxes = ?2 + 1, lost_end = ?2, held_bytes = held_bytes + ?3 WHERE id = ?1",
                    params![id.0, int(seq.0), int(payload.len() as u64)],
                )?;
            }
            Searched::Found { .. } | Searched::Nothing => {}
        }
        self.run("UPDATE channel SET stale_since = NULL WHERE id = ?1", [id.0])?;
        Ok(())
    }

    /// Before then a verdict is too old to tell a frontier that nobody has written from one that has expired.
    pub(super) fn stale_before(&self) -> i64 {
        self.ago(REPLICA_EPOCH)
    }

    fn ago(&self, time: Duration) -> i64 {
        self.now.saturating_sub(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    }
}
