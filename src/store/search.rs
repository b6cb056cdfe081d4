//! Readers that were away for longer than the network keeps anything: whether what they find is to be believed.
//!
//! A frontier that is not there, and was last asked for two replica epochs ago, may be one that nobody has written yet, or
//! one that has expired. Epochs are those that the network tells: this machine's clock may be wrong. Until a search has
//! told, the channel is *stale*, and its end is not known. How far a search has come is kept here, and what it may ask for
//! in a day is given out before it is spent: so no crash makes it begin anew or ask for more.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::ledger::{Ledger, index, int, uint};
use super::{Arrival, BoxSeq, BoxState, Channel, ChannelId, RETENTION, Store, StoreError};
use crate::bacap::BoxIndex;

/// The time within which all searches of a channel share one budget.
pub const SEARCH_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// How far a search has come, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searching {
    /// How many boxes past the frontier it looks.
    pub span: u64,
    /// In how many reads at most.
    pub budget: u32,
    /// What the reads so far came to, in their order: 0 no answer, 1 not there, 2 arrived.
    pub answers: Vec<u8>,
    /// The lowest box that has arrived: how far past the frontier it is, its index, and what it holds.
    pub found: Option<(u64, BoxIndex, Arrival)>,
}

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
    /// The next box came by itself, so that there is nothing to look for.
    Needless,
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
            "UPDATE channel SET stale_since = coalesce(stale_since, min(coalesce(verdict_at, ?2), ?2)),
                    stale_epoch = coalesce(stale_epoch, verdict_epoch)
             WHERE id = ?1",
            params![id.0, self.ago(RETENTION)],
        )?;
        self.touch(id);
        Ok(())
    }

    /// Goes on with the search that was begun from this frontier, or begins one that looks `span` boxes far with what is
    /// left of the day's budget; `None`, where that is less than `least`.
    pub(super) fn begin_search(
        &mut self,
        id: ChannelId,
        per_day: u32,
        least: u32,
        span: u64,
    ) -> Result<Option<Searching>, StoreError> {
        let record = self.reader(id)?;
        if let Some((frontier, mut kept)) = self.searching(id)? {
            if frontier == record.frontier {
                // One read may have been asked for and not be kept.
                if kept.answers.len() < kept.budget as usize {
                    kept.answers.push(0);
                    self.run("UPDATE search SET answers = ?2 WHERE channel = ?1", params![id.0, kept.answers])?;
                }
                return Ok(Some(kept));
            }
            self.give_back(id, &kept)?;
        }
        let spent = self.one(
            "SELECT CASE WHEN searched > ?2 AND searched <= ?3 THEN search_probes ELSE 0 END FROM channel WHERE id = ?1",
            params![id.0, self.ago(SEARCH_WINDOW), self.now],
            |row| uint(row, 0),
        )?;
        let spent = spent.unwrap_or_default();
        let left = per_day.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX));
        if left < least.max(1) {
            return Ok(None);
        }
        self.run(
            "UPDATE channel SET searched = CASE WHEN ?3 > 0 THEN searched ELSE ?2 END, search_probes = ?4 WHERE id = ?1",
            params![id.0, self.now, int(spent), per_day],
        )?;
        self.run(
            "INSERT INTO search (channel, frontier, span, budget) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, int(record.frontier), int(span), left],
        )?;
        self.touch(id);
        Ok(Some(Searching { span, budget: left, ..Searching::default() }))
    }

    /// Keeps how far a search has come; where it was ended meanwhile, nothing.
    pub(super) fn searched_so_far(&mut self, id: ChannelId, so_far: &Searching) -> Result<(), StoreError> {
        let (at, index, payload) = match &so_far.found {
            Some((at, index, Arrival::Message(bytes))) => (Some(int(*at)), Some(index.as_bytes()), Some(&bytes[..])),
            Some((at, index, _)) => (Some(int(*at)), Some(index.as_bytes()), None),
            None => (None, None, None),
        };
        self.run(
            "UPDATE search SET answers = ?2, found_at = ?3, found_index = ?4, found_payload = ?5 WHERE channel = ?1",
            params![id.0, so_far.answers, at, index.map(|bytes| &bytes[..]), payload],
        )?;
        Ok(())
    }

    fn searching(&self, id: ChannelId) -> Result<Option<(u64, Searching)>, StoreError> {
        let sql = "SELECT frontier, span, budget, answers, found_at, found_index, found_payload FROM search
                   WHERE channel = ?1";
        self.one(sql, [id.0], |row| {
            let found = match row.get::<_, Option<i64>>(4)? {
                None => None,
                Some(_) => {
                    let arrival = row.get::<_, Option<Vec<u8>>>(6)?.map_or(Arrival::Tombstone, Arrival::Message);
                    Some((uint(row, 4)?, index(row, 5)?, arrival))
                }
            };
            Ok((uint(row, 0)?, Searching { span: uint(row, 1)?, budget: row.get(2)?, answers: row.get(3)?, found }))
        })
    }

    /// Ends a search: what it did not spend of its budget is left for others of the day.
    fn give_back(&self, id: ChannelId, kept: &Searching) -> Result<(), StoreError> {
        let unspent = kept.budget.saturating_sub(u32::try_from(kept.answers.len()).unwrap_or(u32::MAX));
        self.run(
            "UPDATE channel SET search_probes = max(search_probes - ?2, 0) WHERE id = ?1",
            params![id.0, unspent],
        )?;
        self.run("DELETE FROM search WHERE channel = ?1", [id.0]).map(drop)
    }

    /// Ends the search of a channel, and keeps what came of it.
    pub(super) fn end_search(&mut self, id: ChannelId, came: &Searched) -> Result<(), StoreError> {
        let record = self.reader(id)?;
        let Some((frontier, kept)) = self.searching(id)? else { return Ok(()) };
        self.give_back(id, &kept)?;
        self.touch(id);
        match came {
            // What has come meanwhile by itself tells more.
            _ if frontier != record.frontier => return Ok(()),
            Searched::Needless => return Ok(()),
            Searched::Found { seq, index, arrival } if record.boxes <= record.frontier && seq.0 > record.frontier => {
                let (state, payload) = match arrival {
                    Arrival::Message(bytes) => (BoxState::Received, &bytes[..]),
                    _ => (BoxState::Tombstone, &[][..]),
                };
                self.run(
                    "INSERT INTO box (chain, seq, state, index104, payload, seen, seen_epoch, since)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)",
                    params![
                        record.chain,
                        int(seq.0),
                        state.code(),
                        index.as_bytes(),
                        payload,
                        self.now,
                        self.replica_epoch()?
                    ],
                )?;
                self.run(
                    "UPDATE channel SET boxes = ?2 + 1, lost_end = ?2, held_bytes = held_bytes + ?3 WHERE id = ?1",
                    params![id.0, int(seq.0), int(payload.len() as u64)],
                )?;
            }
            Searched::Found { .. } | Searched::Nothing => {}
        }
        self.run("UPDATE channel SET stale_since = NULL, stale_epoch = NULL WHERE id = ?1", [id.0])?;
        Ok(())
    }

    /// The replica epoch that the network told last.
    pub(super) fn replica_epoch(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.one("SELECT replica_epoch FROM spool", [], |row| row.get(0))?.flatten())
    }

    /// What the network says of its own time, from now on.
    pub(super) fn set_replica_epoch(&mut self, epoch: Option<u64>) -> Result<(), StoreError> {
        self.run("UPDATE spool SET replica_epoch = ?1", [epoch.map(int)]).map(drop)
    }

    fn ago(&self, time: Duration) -> i64 {
        self.now.saturating_sub(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    }
}
