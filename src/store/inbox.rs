//! What arrives in a reader's channel: boxes in any order, and the contiguous bytes that come of them.

use std::collections::BTreeSet;

use rusqlite::params;
use tracing::warn;

use super::ledger::{Ledger, Record, index, int, state, uint};
use super::model::MAX_AHEAD_BOXES;
use super::{Arrival, BoxSeq, BoxState, ChannelId, Frontier, StoreError};
use crate::bacap::BoxIndex;

impl Ledger<'_> {
    /// Keeps a batch of answers: boxes, then the frontier that they move, then what is known of the new frontier.
    pub(super) fn received(&mut self, id: ChannelId, arrivals: &[(BoxSeq, Arrival)]) -> Result<Frontier, StoreError> {
        let record = self.reader(id)?;
        let mut order: Vec<_> = arrivals.iter().collect();
        order.sort_by_key(|(seq, _)| *seq);
        let mut inbox =
            Inbox { cursor: (record.frontier, self.next_index(id)?), end: record.boxes, fresh_bytes: 0, record };
        let mut not_yet = BTreeSet::new();
        for (seq, arrival) in order {
            match arrival {
                Arrival::Message(bytes) => inbox.keep(self, *seq, BoxState::Received, bytes)?,
                Arrival::Tombstone => inbox.keep(self, *seq, BoxState::Tombstone, &[])?,
                Arrival::NotYet => drop(not_yet.insert(*seq)),
            }
        }
        let (frontier, size, index) = inbox.advance(self, id)?;
        let moved = frontier != inbox.record.frontier;
        let verdict = not_yet.contains(&BoxSeq(frontier));
        let end = inbox.end.max(frontier);
        self.run(
            "UPDATE channel SET frontier = ?2, size = ?3, next_index = ?4, boxes = ?5,
                    verdict_at = CASE WHEN ?6 THEN ?8 WHEN ?7 THEN NULL ELSE verdict_at END,
                    modified = CASE WHEN ?3 > size THEN ?8 ELSE modified END,
                    changed = CASE WHEN ?3 > size THEN ?8 ELSE changed END,
                    held_bytes = held_bytes + ?9
             WHERE id = ?1",
            params![
                id.0,
                int(frontier),
                int(size),
                index.as_bytes(),
                int(end),
                verdict,
                moved,
                self.now,
                int(inbox.fresh_bytes)
            ],
        )?;
        self.touch(id);
        Ok(Frontier { seq: BoxSeq(frontier), size })
    }
}

struct Inbox {
    record: Record,
    /// A box at or past the frontier, and its index: goes forward with the batch, which is sorted.
    cursor: (u64, BoxIndex),
    /// One past the last box that has arrived.
    end: u64,
    /// Bytes that were not here before.
    fresh_bytes: u64,
}

impl Inbox {
    fn keep(&mut self, ledger: &Ledger<'_>, seq: BoxSeq, to: BoxState, payload: &[u8]) -> Result<(), StoreError> {
        let chain = self.record.chain;
        let found = ledger.one(
            "SELECT state, payload = ?3 FROM box WHERE chain = ?1 AND seq = ?2",
            params![chain, int(seq.0), payload],
            |row| Ok((state(row, 0)?, row.get::<_, bool>(1)?)),
        )?;
        match found {
            None if seq.0 >= self.record.frontier => {
                self.insert(ledger, seq, to, payload)?;
                self.fresh_bytes += payload.len() as u64;
                self.end = self.end.max(seq.0 + 1);
            }
            // A repetition. The first that arrived is what was read, so it stays.
            Some((state, same)) if state != to || !same => {
                warn!(channel = %self.record.name, %seq, "a box arrived again with other contents; the first are kept");
            }
            _ => {}
        }
        Ok(())
    }

    fn insert(&mut self, ledger: &Ledger<'_>, seq: BoxSeq, to: BoxState, payload: &[u8]) -> Result<(), StoreError> {
        if seq.0 - self.record.frontier >= MAX_AHEAD_BOXES {
            return Err(StoreError::TooFarAhead { seq, limit: MAX_AHEAD_BOXES });
        }
        while self.cursor.0 < seq.0 {
            self.cursor = (self.cursor.0 + 1, self.cursor.1.next()?);
        }
        ledger.run(
            "INSERT INTO box (chain, seq, state, index104, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![self.record.chain, int(seq.0), to.code(), self.cursor.1.as_bytes(), payload],
        )?;
        Ok(())
    }

    /// Gives the boxes that now follow without a gap their offsets. Returns the new frontier, its offset and its index.
    fn advance(&self, ledger: &Ledger<'_>, id: ChannelId) -> Result<(u64, u64, BoxIndex), StoreError> {
        let (mut frontier, mut size) = (self.record.frontier, self.record.size);
        let mut last = None;
        loop {
            let next = ledger.one(
                "SELECT id, length(payload), index104 FROM box WHERE chain = ?1 AND seq = ?2",
                params![self.record.chain, int(frontier)],
                |row| Ok((row.get::<_, i64>(0)?, uint(row, 1)?, index(row, 2)?)),
            )?;
            let Some((row, length, index)) = next else { break };
            ledger.run("UPDATE box SET offset = ?2 WHERE id = ?1", params![row, int(size)])?;
            size += length;
            frontier += 1;
            last = Some(index);
        }
        let index = match last {
            Some(index) => index.next()?,
            None => ledger.next_index(id)?,
        };
        Ok((frontier, size, index))
    }
}
