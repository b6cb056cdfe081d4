//! Room: the beginning of a channel is dropped when more is kept than may be, or when a person says so.
//!
//! Only bytes that replicas have confirmed, or that have arrived in their order, are ever dropped, oldest first. What is
//! dropped cannot be read any more; its rows are deleted in slices by the writer thread.

use rusqlite::params;

use super::ledger::{Ledger, Record, int, uint};
use super::{ChannelId, Role, StoreError};

/// Most bytes that one step of the writer thread drops.
const STEP_BYTES: u64 = 1 << 20;
/// Where the limit was passed, so much less is kept than it allows, so that not every confirmation drops something.
const SLACK: u64 = 16;

impl Ledger<'_> {
    /// Drops the oldest bytes that are stored, or have arrived, until at most `keep_bytes` of those are left, and the
    /// last box in any case. Says how many bytes went.
    pub(super) fn trim(&mut self, id: ChannelId, keep_bytes: u64) -> Result<u64, StoreError> {
        let record = self.record(id)?;
        let (end_bytes, last) = record.droppable();
        // A box that was given up has no row.
        let row = "SELECT coalesce(max(seq), 0) FROM box WHERE chain = ?1 AND seq <= ?2";
        let last = self.one(row, params![record.chain, int(last)], |row| uint(row, 0))?.unwrap_or_default();
        let sql = "SELECT seq, offset FROM box WHERE chain = ?1 AND offset >= ?2 AND seq < ?3
                   ORDER BY offset, seq LIMIT 1";
        let pair = |row: &rusqlite::Row<'_>| Ok((uint(row, 0)?, uint(row, 1)?));
        let from = end_bytes.saturating_sub(keep_bytes);
        let cut = match self.one(sql, params![record.chain, int(from), int(last)], pair)? {
            Some(cut) => Some(cut),
            // Not even the last box fits.
            None => {
                let sql = "SELECT seq, offset FROM box WHERE chain = ?1 AND seq = ?2";
                self.one(sql, params![record.chain, int(last)], pair)?
            }
        };
        let Some((seq, offset)) = cut.filter(|(seq, _)| *seq > record.dropped_boxes) else { return Ok(0) };
        let bytes = offset - record.dropped_bytes;
        self.run(
            "UPDATE channel SET dropped_boxes = ?2, dropped_bytes = ?3,
                    held_bytes = CASE role WHEN 0 THEN 0 ELSE held_bytes - ?4 END
             WHERE id = ?1",
            params![id.0, int(seq), int(offset), int(bytes)],
        )?;
        self.litter();
        self.touch(id);
        Ok(bytes)
    }

    /// Where more sent plaintext is kept than may be, drops some of the oldest. False: nothing is to be dropped.
    pub(super) fn drop_sent(&mut self) -> Result<bool, StoreError> {
        let (sent, limit) = (self.sent_bytes()?, self.limits.sent_bytes);
        if sent <= limit {
            return Ok(false);
        }
        // The numbers of boxes grow as they are made, whatever their channel.
        let oldest = self.one(
            "SELECT c.id, c.stored_bytes - c.dropped_bytes FROM channel c
             JOIN box b ON b.chain = c.chain AND b.seq = c.dropped_boxes
             WHERE c.role = 0 AND c.dropped_boxes < min(c.first_unstored, c.boxes - 1)
               -- What was promised to be kept on the network is needed here.
               AND coalesce(c.kept_until, 0) <= ?1
             ORDER BY b.id LIMIT 1",
            [self.now],
            |row| Ok((ChannelId(row.get(0)?), uint(row, 1)?)),
        )?;
        let Some((id, kept)) = oldest else { return Ok(false) };
        let excess = sent - (limit - limit / SLACK);
        Ok(self.trim(id, kept.saturating_sub(excess.min(STEP_BYTES)))? > 0)
    }

    pub(super) fn sent_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.one("SELECT sent_bytes FROM spool", [], |row| uint(row, 0))?.unwrap_or_default())
    }
}

impl Record {
    /// How far its bytes may be dropped: the offset where those end, and the box that must stay.
    fn droppable(&self) -> (u64, u64) {
        match self.role {
            Role::Writer => (self.stored_bytes, self.first_unstored.min(self.boxes.saturating_sub(1))),
            Role::Reader => (self.size, self.frontier.saturating_sub(1)),
        }
    }
}
