//! Boxes of another size: what was not launched is packed anew when the network's geometry becomes known.

use rusqlite::params;
use tracing::info;

use super::ledger::{Ledger, Packer, Record, index, int, state, uint};
use super::{BoxState, ChannelId, Role, StoreError};

/// Numbers of rows that wait to be packed anew, past all that a channel can have.
pub(super) const PARKED: u64 = 1 << 40;
/// Rows that one statement moves, so that none holds a list as long as the backlog.
const SLICE: u64 = 1024;

impl Ledger<'_> {
    /// Sets the most bytes of a box. All bytes that were not launched are packed anew, in one transaction, row by row;
    /// a launched box that no longer fits, and that no replica has confirmed, fences the channel until it fits again.
    pub(super) fn set_max_plaintext(&mut self, id: ChannelId, bytes: usize) -> Result<(), StoreError> {
        let record = self.record(id)?;
        let wanted = bytes as u64;
        if wanted == record.max_plaintext && record.unfit.is_none() {
            return Ok(());
        }
        if self.is_being_adopted(id)? {
            return Err(StoreError::BeingAdopted { name: record.name });
        }
        if bytes == 0 || wanted > u64::from(u32::MAX) {
            return Err(StoreError::BadMaxPlaintext { bytes });
        }
        if record.role == Role::Writer {
            let longest = self.longest_launched(&record)?;
            if longest > wanted {
                let reason = format!(
                    "a box that was sent and is not confirmed yet does not fit this network, whose boxes take {bytes} \
                     bytes; use the network where it was sent"
                );
                // A fence for another reason stays.
                self.run(
                    "UPDATE channel SET unfit = ?2, fence = ?3 WHERE id = ?1 AND (fence IS NULL OR unfit IS NOT NULL)",
                    params![id.0, int(longest), reason],
                )?;
                self.touch(id);
                return Ok(());
            }
            if record.unfit.is_some() {
                info!(channel = %record.name, bytes, "what was sent and is not confirmed yet fits this network again");
                self.run("UPDATE channel SET unfit = NULL, fence = NULL WHERE id = ?1", [id.0])?;
            }
            let waiting = record.boxes - record.launched_end;
            let only_a_tail_that_fits = waiting == 1 && (1..wanted).contains(&record.tail_bytes);
            if waiting > 0 && record.content.is_drop() {
                self.unfill(id, &record)?;
            } else if waiting > 0 && !only_a_tail_that_fits {
                self.repack(id, &record, bytes)?;
            }
        }
        self.run("UPDATE channel SET max_plaintext = ?2 WHERE id = ?1", params![id.0, int(wanted)])?;
        self.touch(id);
        Ok(())
    }

    /// Only boxes from the first that is not stored to the last that was launched are looked at: a window's worth.
    fn longest_launched(&self, record: &Record) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(length(payload)), 0) FROM box
                   WHERE chain = ?1 AND seq >= ?2 AND seq < ?3 AND state < 4";
        let range = params![record.chain, int(record.first_unstored), int(record.launched_end)];
        Ok(self.one(sql, range, |row| uint(row, 0))?.unwrap_or_default())
    }

    fn repack(&mut self, id: ChannelId, record: &Record, bytes: usize) -> Result<(), StoreError> {
        let chain = record.chain;
        let first = record.launched_end;
        let (index, offset) = self
            .one("SELECT index104, offset FROM box WHERE chain = ?1 AND seq = ?2", params![chain, int(first)], |row| {
                Ok((index(row, 0)?, uint(row, 1)?))
            })?
            .ok_or_else(|| StoreError::Corrupt { reason: format!("boxes of {:?} are missing", record.name) })?;
        let mut packer = Packer { chain, seq: first, index, offset };
        self.park(record)?;
        let mut bytes_left = Vec::new();
        let mut open = false;
        for old in first..record.boxes {
            let parked = self.one(
                "SELECT id, state, payload FROM box WHERE chain = ?1 AND seq = ?2",
                params![chain, int(PARKED + old)],
                |row| {
                    bytes_left.extend_from_slice(row.get_ref(2)?.as_blob()?);
                    Ok((row.get::<_, i64>(0)?, state(row, 1)?))
                },
            )?;
            let (row, state) =
                parked.ok_or_else(|| StoreError::Corrupt { reason: "a parked box is missing".to_owned() })?;
            self.run("DELETE FROM box WHERE id = ?1", [row])?;
            open = state == BoxState::Open;
            let full = bytes_left.len() / bytes * bytes;
            for payload in bytes_left[..full].chunks_exact(bytes) {
                packer.add(self, payload, false)?;
            }
            bytes_left.drain(..full);
        }
        if !bytes_left.is_empty() {
            packer.add(self, &bytes_left, open)?;
        }
        let tail_bytes = if open { bytes_left.len() as u64 } else { 0 };
        self.run(
            "UPDATE channel SET boxes = ?2, next_index = ?3, tail_bytes = ?4, rewrites = rewrites + 1 WHERE id = ?1",
            params![id.0, int(packer.seq), packer.index.as_bytes(), int(tail_bytes)],
        )?;
        info!(
            channel = %record.name, from = record.boxes - first, to = packer.seq - first, bytes,
            "boxes that were not launched are packed anew for this network"
        );
        Ok(())
    }

    fn park(&self, record: &Record) -> Result<(), StoreError> {
        let mut from = record.launched_end;
        while from < record.boxes {
            self.run(
                "UPDATE box SET seq = seq + ?4 WHERE chain = ?1 AND seq >= ?2 AND seq < ?3",
                params![record.chain, int(from), int(from + SLICE), int(PARKED)],
            )?;
            from += SLICE;
        }
        Ok(())
    }
}
