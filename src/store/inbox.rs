//! What arrives in a reader's channel: boxes in any order, and the contiguous bytes that come of them.

use std::collections::BTreeSet;

use rusqlite::params;
use tracing::warn;

use super::MAX_AHEAD_BOXES;
use super::holes::RETENTION_EPOCHS;
use super::ledger::{Ledger, Record, index, int, state, uint};
use super::{Arrival, BoxSeq, BoxState, ChannelId, Frontier, StoreError};
use crate::bacap::BoxIndex;

impl Ledger<'_> {
    /// Keeps a batch of answers: boxes, then the frontier that they move, then what is known of the new frontier.
    pub(super) fn received(&mut self, id: ChannelId, arrivals: &[(BoxSeq, Arrival)]) -> Result<Frontier, StoreError> {
        let record = self.reader(id)?;
        if self.settle_kind(id, &record, arrivals)? {
            return Ok(Frontier { seq: BoxSeq(0), size: 0 });
        }
        let mut order: Vec<_> = arrivals.iter().collect();
        order.sort_by_key(|(seq, _)| *seq);
        let mut inbox = Inbox {
            cursor: (record.frontier, self.next_index(id)?),
            end: record.boxes,
            fresh_bytes: 0,
            undoes_lost: false,
            epoch: self.replica_epoch()?,
            record,
        };
        let mut not_yet = BTreeSet::new();
        for (seq, arrival) in order {
            match arrival {
                Arrival::Message(bytes) => inbox.keep(self, *seq, BoxState::Received, bytes)?,
                Arrival::Tombstone => inbox.keep(self, *seq, BoxState::Tombstone, &[])?,
                Arrival::NotYet => drop(not_yet.insert(*seq)),
            }
        }
        let (frontier, size, last) = self.contiguous(inbox.record.chain, inbox.record.frontier, inbox.record.size)?;
        let index = match last {
            Some(index) => index.next()?,
            None => self.next_index(id)?,
        };
        let moved = frontier != inbox.record.frontier;
        // What its writer keeps is late where it is not found, and neither the end nor lost.
        let verdict = not_yet.contains(&BoxSeq(frontier)) && !self.is_kept(id, inbox.epoch)?;
        let end = inbox.end.max(frontier);
        // Each time that a late box is asked for in vain, its age is looked at.
        let lost_end = if verdict && end > frontier { self.lost_end(inbox.record.chain, frontier)? } else { 0 };
        // What was called lost and has come after all says that the rest may be there too.
        let kept_lost_end = if inbox.undoes_lost { 0 } else { inbox.record.lost_end };
        let epoch = inbox.epoch;
        self.run(
            "UPDATE channel SET frontier = ?2, size = ?3, next_index = ?4, boxes = ?5,
                    verdict_at = CASE WHEN ?6 THEN ?8 WHEN ?7 THEN NULL ELSE verdict_at END,
                    modified = CASE WHEN ?3 > size THEN ?8 ELSE modified END,
                    changed = CASE WHEN ?3 > size THEN ?8 ELSE changed END,
                    verdict_epoch = CASE WHEN ?6 THEN coalesce(?11, verdict_epoch) WHEN ?7 THEN NULL
                                         ELSE verdict_epoch END,
                    held_bytes = held_bytes + ?9, lost_end = ?10,
                    stale_since = CASE WHEN ?7 OR ?5 > ?2 THEN NULL
                                       WHEN ?6 AND verdict_epoch <= ?12 THEN coalesce(stale_since, verdict_at)
                                       ELSE stale_since END,
                    stale_epoch = CASE WHEN ?7 OR ?5 > ?2 THEN NULL
                                       WHEN ?6 AND verdict_epoch <= ?12 THEN coalesce(stale_epoch, verdict_epoch)
                                       ELSE stale_epoch END
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
                int(inbox.fresh_bytes),
                int(lost_end.max(kept_lost_end)),
                epoch,
                epoch.map(|epoch| epoch - RETENTION_EPOCHS)
            ],
        )?;
        self.touch(id);
        Ok(Frontier { seq: BoxSeq(frontier), size })
    }
}

/// From further than this, the index of a box is derived from the nearest that is here.
const NEAR_BOXES: u64 = 16;

struct Inbox {
    record: Record,
    /// A box at or past the frontier, and its index: goes forward with the batch, which is sorted.
    cursor: (u64, BoxIndex),
    /// One past the last box that has arrived.
    end: u64,
    /// Bytes that were not here before.
    fresh_bytes: u64,
    /// A box has come that was called lost.
    undoes_lost: bool,
    /// The network's replica epoch.
    epoch: Option<i64>,
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
                self.undoes_lost |= seq.0 < self.record.lost_end;
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
        let far = seq.0 - self.cursor.0 > NEAR_BOXES;
        let near = "SELECT seq, index104 FROM box WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT 1";
        let range = params![self.record.chain, int(self.cursor.0), int(seq.0)];
        if far && let Some(nearer) = ledger.one(near, range, |row| Ok((uint(row, 0)?, index(row, 1)?)))? {
            self.cursor = nearer;
        }
        if seq.0 - self.cursor.0 >= MAX_AHEAD_BOXES {
            return Err(StoreError::TooFarAhead { seq, limit: MAX_AHEAD_BOXES });
        }
        while self.cursor.0 < seq.0 {
            self.cursor = (self.cursor.0 + 1, self.cursor.1.next()?);
        }
        ledger.run(
            "INSERT INTO box (chain, seq, state, index104, payload, seen, seen_epoch, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                self.record.chain,
                int(seq.0),
                to.code(),
                self.cursor.1.as_bytes(),
                payload,
                (seq.0 > self.record.frontier).then_some(ledger.now),
                self.epoch.filter(|_| seq.0 > self.record.frontier),
                ledger.now
            ],
        )?;
        Ok(())
    }
}

impl Ledger<'_> {
    /// Gives the boxes that follow without a gap from `frontier` on, which is at byte `size`, their offsets. Returns the
    /// new frontier, its offset, and the index of the last box that was passed.
    pub(super) fn contiguous(
        &self,
        chain: i64,
        mut frontier: u64,
        mut size: u64,
    ) -> Result<(u64, u64, Option<BoxIndex>), StoreError> {
        let mut last = None;
        loop {
            let next = self.one(
                "SELECT id, length(payload), index104 FROM box WHERE chain = ?1 AND seq = ?2",
                params![chain, int(frontier)],
                |row| Ok((row.get::<_, i64>(0)?, uint(row, 1)?, index(row, 2)?)),
            )?;
            let Some((row, length, index)) = next else { return Ok((frontier, size, last)) };
            self.run("UPDATE box SET offset = ?2 WHERE id = ?1", params![row, int(size)])?;
            size += length;
            frontier += 1;
            last = Some(index);
        }
    }
}
