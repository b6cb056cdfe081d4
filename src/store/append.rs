//! Bytes into a writer's channel, and out again while nothing of it was launched.

use rusqlite::params;

use super::ledger::{Ledger, Packer, Record, int, uint};
use super::{Appended, BoxState, ChannelId, Role, StoreError};

impl Ledger<'_> {
    /// Puts the bytes into the open tail and into new boxes behind it. A full box is sealed at once.
    pub(super) fn append(&mut self, id: ChannelId, bytes: &[u8]) -> Result<Appended, StoreError> {
        let record = self.writer(id)?;
        if let Some(reason) = record.fence {
            return Err(StoreError::Fenced { name: record.name, reason });
        }
        if record.content.is_drop() {
            return Err(StoreError::IsADrop { name: record.name });
        }
        let before = record.size;
        let size = before + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(Appended { offset: before, size });
        }
        self.check_spool(bytes.len() as u64)?;
        let room =
            usize::try_from(record.max_plaintext).map_err(|_| StoreError::BadMaxPlaintext { bytes: usize::MAX })?;
        let mut tail_bytes = record.tail_bytes;
        let mut rest = bytes;
        if tail_bytes > 0 {
            let held = usize::try_from(tail_bytes).unwrap_or(room);
            let (more, behind) = rest.split_at(room.saturating_sub(held).min(rest.len()));
            rest = behind;
            let full = held + more.len() == room;
            self.grow_tail(&record, more, full)?;
            tail_bytes = if full { 0 } else { tail_bytes + more.len() as u64 };
        }
        let mut packer = Packer {
            chain: record.chain,
            seq: record.boxes,
            index: self.next_index(id)?,
            offset: size - rest.len() as u64,
        };
        while !rest.is_empty() {
            let (payload, behind) = rest.split_at(room.min(rest.len()));
            rest = behind;
            let open = payload.len() < room;
            packer.add(self, payload, open)?;
            if open {
                tail_bytes = payload.len() as u64;
            }
        }
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, tail_bytes = ?5, modified = ?6, changed = ?6
             WHERE id = ?1",
            params![id.0, int(size), int(packer.seq), packer.index.as_bytes(), int(tail_bytes), self.now],
        )?;
        self.touch(id);
        Ok(Appended { offset: before, size })
    }

    /// Fixes the bytes of the open tail. False: there is none.
    pub(super) fn seal_tail(&mut self, id: ChannelId) -> Result<bool, StoreError> {
        let record = self.writer(id)?;
        if record.tail_bytes == 0 {
            return Ok(false);
        }
        self.grow_tail(&record, &[], true)?;
        self.run("UPDATE channel SET tail_bytes = 0 WHERE id = ?1", [id.0])?;
        self.touch(id);
        Ok(true)
    }

    /// Takes all bytes back, in the same transaction that checks that none has left.
    pub(super) fn truncate(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        if record.content.is_drop() {
            return Err(StoreError::IsADrop { name: record.name });
        }
        if record.size == 0 {
            return Ok(());
        }
        record.check_takes_back()?;
        let chain = self.new_chain()?;
        self.abandon(record.chain, false)?;
        self.run(
            "UPDATE channel SET chain = ?2, size = 0, boxes = 0, tail_bytes = 0, rewrites = rewrites + 1,
                    next_index = substr(cap, 65, 104), modified = ?3, changed = ?3
             WHERE id = ?1",
            params![id.0, chain, self.now],
        )?;
        self.touch(id);
        Ok(())
    }

    pub(super) fn check_spool(&self, more: u64) -> Result<(), StoreError> {
        let spooled = self.one("SELECT bytes FROM spool", [], |row| uint(row, 0))?.unwrap_or_default();
        let limit = self.limits.spool_bytes;
        if spooled.saturating_add(more) > limit { Err(StoreError::SpoolFull { spooled, limit }) } else { Ok(()) }
    }

    fn grow_tail(&self, record: &Record, more: &[u8], full: bool) -> Result<(), StoreError> {
        let state = if full { BoxState::Sealed } else { BoxState::Open };
        let tail = record.boxes.saturating_sub(1);
        let changed = self.run(
            "UPDATE box SET payload = CAST(payload || ?3 AS BLOB), state = ?4, since = ?6
             WHERE chain = ?1 AND seq = ?2 AND state = 0 AND length(payload) = ?5",
            params![record.chain, int(tail), more, state.code(), int(record.tail_bytes), self.now],
        )?;
        if changed == 1 {
            Ok(())
        } else {
            Err(StoreError::Corrupt { reason: format!("the open tail of {:?} is not there", record.name) })
        }
    }
}

impl Record {
    /// Bytes can be taken back until a packet of them may have left, and until somebody else may look for them.
    pub(super) fn check_takes_back(&self) -> Result<(), StoreError> {
        if self.launched || self.shown || self.role == Role::Reader {
            return Err(StoreError::AlreadyLaunched { name: self.name.clone() });
        }
        Ok(())
    }
}
