//! Records of a drop that we write: accepted, filled into boxes, taken back while nothing of them has left.
//!
//! A record is accepted with one row, once its bytes lie in a file of their own that nobody changes any more; a crash
//! leaves no row or the whole one. The engine fills boxes from that file in slices, each one transaction, oldest record
//! first, so a drop's boxes are those of its records one after another.

use std::time::SystemTime;

use rusqlite::params;

use super::ledger::{Ledger, Packer, Record, index, int, uint};
use super::nanos::to_nanos;
use super::queue::Kind;
use super::{BoxSeq, ChannelId, Commit, Content, Outcome, RecordId, RecordState, Store, StoreError};
use crate::drop::{Digest, Header};

/// Rows that one statement deletes.
const SLICE: u64 = 1024;

/// One record of a drop.
#[derive(Clone, Debug, PartialEq)]
pub struct DropRecord {
    /// Its number.
    pub id: RecordId,
    /// Whose.
    pub channel: ChannelId,
    /// How far it is.
    pub state: RecordState,
    /// What it says of itself; `None`: boxes that belong to no record.
    pub header: Option<Header>,
    /// What the file is called once it is whole and unpacked, as the sender says.
    pub name: String,
    /// Bytes of its body.
    pub size: u64,
    /// BLAKE3 of its body, where it is known.
    pub digest: Option<Digest>,
    /// Writer: where its bytes are, relative to the directory of drops, until all of them are stored.
    pub staging: Option<String>,
    /// Its first box.
    pub first: Option<super::BoxSeq>,
    /// The box after its last.
    pub end: Option<super::BoxSeq>,
    /// Bytes of the channel before it.
    pub begin: u64,
    /// Length of its header.
    pub head_bytes: u64,
    /// Bytes of its body that are in boxes (writer), or have arrived (reader).
    pub taken: u64,
    /// Writer: whether replicas have all of it.
    pub stored: bool,
    /// Why it is broken.
    pub reason: Option<String>,
    /// The chain that it is a part of, and which part; 0: the file that the parts make.
    pub part: Option<([u8; 16], u32)>,
    /// Reader: whether a verb has put it where a person wanted it, or has told that it is broken. Writer: a person
    /// has removed one that was broken off.
    pub delivered: bool,
    /// When it was accepted, or began to arrive.
    pub created: SystemTime,
    /// Writer: when the file was changed last, before it was accepted.
    pub modified: Option<SystemTime>,
    /// Writer: where the boxes begin that are still to be deleted from the network, while it is being deleted.
    pub deleted_end: Option<BoxSeq>,
}

/// How many records of a drop are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts {
    /// Writer: accepted, and not yet stored by replicas.
    pub pending: u64,
    /// Writer: stored. Reader: complete; of a chain of parts, the file that they make.
    pub complete: u64,
    /// Reader: arriving.
    pub incomplete: u64,
    /// Reader: broken. Writer: broken off before its end.
    pub broken: u64,
    /// Writer: deleted again, or to be.
    pub deleted: u64,
}

/// A file to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// What is said of it; `sync` is set when its place is known.
    pub header: Header,
    /// Its bytes, relative to the directory of drops: on the disk, and never changed again. `None`: there are none.
    pub staging: Option<String>,
    /// When the file was changed last. This stays on this machine; what is sent is in the header.
    pub modified: Option<SystemTime>,
}

/// The next boxes of the record that was begun, or the first ones of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSlice {
    /// Which record.
    pub record: RecordId,
    /// The channel's count of rewrites when they were cut.
    pub rewrites: u64,
    /// The M that they were cut for.
    pub max_plaintext: usize,
    /// Length of the record's header.
    pub head_bytes: u64,
    /// Where they begin, from the first byte of the header.
    pub position: u64,
    /// Their payloads.
    pub boxes: Vec<Vec<u8>>,
}

impl Store {
    /// Accepts a file into a drop. After this commit it will be sent to its end, whatever happens to this process.
    pub fn accept(&self, id: ChannelId, record: NewRecord) -> Commit<RecordId> {
        let kind = Kind { grows: true, ..Kind::default() };
        let accepted = |record: &RecordId| Outcome::Accepted { record: record.0 };
        self.send_once(kind, accepted, move |ledger| ledger.accept(id, &record))
    }

    /// Adds boxes to a drop. Where the channel has changed since they were cut, [`StoreError::Rewritten`].
    pub fn fill(&self, id: ChannelId, slice: DropSlice) -> Commit<()> {
        let bytes = slice.boxes.iter().map(Vec::len).sum();
        self.grow(bytes, move |ledger| ledger.fill(id, &slice))
    }

    /// Ends a record where its boxes end: its bytes cannot be read any further. One of which no packet has left waits again
    /// instead.
    pub(crate) fn break_off(&self, id: ChannelId, record: RecordId, reason: String) -> Commit<()> {
        self.submit(move |ledger| ledger.break_off(id, record, &reason))
    }

    /// Takes a file back of which no packet has left. One that was broken off is taken note of.
    pub fn take_back(&self, id: ChannelId, record: RecordId) -> Commit<()> {
        self.submit(move |ledger| ledger.take_back(id, record))
    }

    /// The bytes of a record that is stored are no longer needed in their file.
    pub fn unstage(&self, id: ChannelId, record: RecordId) -> Commit<()> {
        self.submit(move |ledger| ledger.unstage(id, record))
    }

    /// Whether a record's bytes are in this file once all that was submitted before is committed.
    pub(crate) fn is_staged_in_order(&self, staging: &str) -> Commit<bool> {
        let staging = staging.to_owned();
        self.submit(move |ledger| ledger.is_staged(&staging))
    }

    /// The boxes of a record that is being deleted are deleted from the network up to this one.
    pub fn deleted_up_to(&self, id: ChannelId, record: RecordId, next: BoxSeq) -> Commit<()> {
        self.submit(move |ledger| ledger.deleted_up_to(id, record, next))
    }

    /// The record that has its bytes in this file, once all that was submitted before is committed.
    #[cfg(feature = "mount")]
    pub(crate) fn staged_record(&self, id: ChannelId, staging: &str) -> Commit<Option<RecordId>> {
        let staging = staging.to_owned();
        self.submit(move |ledger| {
            let chain = ledger.record(id)?.chain;
            let sql = "SELECT id FROM drop_record WHERE staging = ?1 AND chain = ?2";
            ledger.one(sql, params![staging, chain], |row| row.get(0).map(RecordId))
        })
    }

    /// A stored record is to be deleted from the network, or is. Only in a drop that allows it.
    pub fn delete_record(&self, id: ChannelId, record: RecordId, done: bool) -> Commit<()> {
        self.submit(move |ledger| ledger.delete_record(id, record, done))
    }
}

/// What a request needs of a record's row.
struct Row {
    state: i64,
    name: String,
    size: u64,
    first: Option<u64>,
    end: Option<u64>,
    head_bytes: u64,
    taken: u64,
}

impl Ledger<'_> {
    fn is_staged(&self, staging: &str) -> Result<bool, StoreError> {
        Ok(self.one(super::drop_queries::STAGED, [staging], |_| Ok(()))?.is_some())
    }

    fn accept(&mut self, id: ChannelId, new: &NewRecord) -> Result<RecordId, StoreError> {
        let record = self.writer(id)?;
        record.check_drop()?;
        if let Some(reason) = record.fence {
            return Err(StoreError::Fenced { name: record.name, reason });
        }
        let header = &new.header;
        self.check_spool(header.size)?;
        let bytes = encoded(header)?;
        self.run(
            "INSERT INTO drop_record (chain, state, header, name, path, size, digest, staging, parts, part, created,
                                      modified)
             VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                record.chain,
                bytes,
                header.file_name(),
                header.path,
                int(header.size),
                header.digest,
                new.staging,
                header.part.map(|part| part.chain),
                header.part.map(|part| part.number),
                self.now,
                new.modified.map(to_nanos)
            ],
        )?;
        let accepted = RecordId(self.last_insert());
        self.run("UPDATE channel SET modified = ?2, changed = ?2 WHERE id = ?1", params![id.0, self.now])?;
        self.touch(id);
        Ok(accepted)
    }

    fn fill(&mut self, id: ChannelId, slice: &DropSlice) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        record.check_drop()?;
        if let Some(reason) = record.fence {
            return Err(StoreError::Fenced { name: record.name, reason });
        }
        let begun = self.one("SELECT id FROM drop_record WHERE chain = ?1 AND state = 1", [record.chain], |row| {
            row.get(0).map(RecordId)
        })?;
        let row = self.row(&record, slice.record)?;
        let position = row.head_bytes + row.taken;
        // One that was begun is finished before another begins.
        if begun.is_some_and(|begun| begun != slice.record)
            || row.state > RecordState::Filling.code()
            || record.rewrites != slice.rewrites
            || record.max_plaintext != slice.max_plaintext as u64
            || position != slice.position
        {
            return Err(StoreError::Rewritten);
        }
        let mut packer =
            Packer { chain: record.chain, seq: record.boxes, index: self.next_index(id)?, offset: record.size };
        for payload in &slice.boxes {
            packer.add(self, payload, false)?;
        }
        let position = position + (packer.offset - record.size);
        let taken = position.checked_sub(slice.head_bytes).ok_or(StoreError::Rewritten)?;
        let filled = taken == row.size;
        self.run(
            "UPDATE drop_record
             SET state = ?2, taken = ?3, end_seq = CASE WHEN ?2 = 2 THEN ?4 END, first_seq = coalesce(first_seq, ?5),
                 begin = coalesce(begin, ?6), head_bytes = ?7
             WHERE id = ?1",
            params![
                slice.record.0,
                1 + i64::from(filled),
                int(taken),
                int(packer.seq),
                int(record.boxes),
                int(record.size),
                int(slice.head_bytes)
            ],
        )?;
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, modified = ?5, changed = ?5 WHERE id = ?1",
            params![id.0, int(packer.offset), int(packer.seq), packer.index.as_bytes(), self.now],
        )?;
        self.touch(id);
        Ok(())
    }

    fn take_back(&mut self, id: ChannelId, wanted: RecordId) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        let row = self.row(&record, wanted)?;
        if row.state == RecordState::BrokenOff.code() && record.content == (Content::Drop { allow_delete: false }) {
            self.run("UPDATE drop_record SET delivered = 1 WHERE id = ?1", [wanted.0])?;
            self.touch(id);
            return Ok(());
        }
        if row.state != RecordState::Waiting.code() {
            if row.first.is_none_or(|first| first < record.launched_end) {
                return Err(StoreError::RecordSent { name: row.name });
            }
            self.unfill(id, &record)?;
        }
        self.run("DELETE FROM drop_record WHERE id = ?1", [wanted.0])?;
        self.touch(id);
        Ok(())
    }

    fn break_off(&mut self, id: ChannelId, wanted: RecordId, reason: &str) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        // What was not launched goes nowhere: the record behind begins right after what was.
        self.unfill(id, &record)?;
        self.run(
            "UPDATE drop_record SET state = 5, reason = ?2, end_seq = (SELECT boxes FROM channel WHERE id = ?3)
             WHERE id = ?1 AND state = 1",
            params![wanted.0, reason, id.0],
        )?;
        self.touch(id);
        Ok(())
    }

    fn unstage(&mut self, id: ChannelId, wanted: RecordId) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        self.row(&record, wanted)?;
        self.run("UPDATE drop_record SET staging = NULL WHERE id = ?1 AND staging IS NOT NULL", [wanted.0])?;
        Ok(())
    }

    fn delete_record(&mut self, id: ChannelId, wanted: RecordId, done: bool) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        let row = self.row(&record, wanted)?;
        let stored = row.end.is_some_and(|end| end <= record.first_unstored);
        if record.content != (Content::Drop { allow_delete: true }) || !stored {
            return Err(StoreError::RecordSent { name: row.name });
        }
        let state = if done { RecordState::Deleted } else { RecordState::Deleting };
        self.run(
            "UPDATE drop_record SET state = ?2, reason = NULL WHERE id = ?1 AND (state < ?2 OR state = 5)",
            params![wanted.0, state.code()],
        )?;
        self.touch(id);
        Ok(())
    }

    fn deleted_up_to(&mut self, id: ChannelId, wanted: RecordId, next: BoxSeq) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        self.row(&record, wanted)?;
        self.run(
            "UPDATE drop_record SET deleted_end = max(coalesce(deleted_end, 0), ?2) WHERE id = ?1 AND state = 3",
            params![wanted.0, int(next.0)],
        )?;
        Ok(())
    }

    /// Takes the boxes of a drop that were not launched out again: their records are filled anew, for another M.
    pub(super) fn unfill(&mut self, id: ChannelId, record: &Record) -> Result<(), StoreError> {
        let (chain, first) = (record.chain, record.launched_end);
        let found = self.one(
            "SELECT index104, offset FROM box WHERE chain = ?1 AND seq = ?2",
            params![chain, int(first)],
            |row| Ok((index(row, 0)?, uint(row, 1)?)),
        )?;
        let Some((index, offset)) = found else { return Ok(()) };
        let mut end = record.boxes;
        while end > first {
            let begin = end.saturating_sub(SLICE).max(first);
            self.run(
                "DELETE FROM box WHERE chain = ?1 AND seq >= ?2 AND seq < ?3",
                params![chain, int(begin), int(end)],
            )?;
            end = begin;
        }
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, rewrites = rewrites + 1 WHERE id = ?1",
            params![id.0, int(offset), int(first), index.as_bytes()],
        )?;
        self.run(
            "UPDATE drop_record SET state = 0, first_seq = NULL, end_seq = NULL, begin = NULL, head_bytes = 0, taken = 0
             WHERE chain = ?1 AND first_seq >= ?2 AND state < 3",
            params![chain, int(first)],
        )?;
        self.run(
            "UPDATE drop_record SET state = 1, end_seq = NULL, taken = ?3 - begin - head_bytes
             WHERE chain = ?1 AND first_seq < ?2 AND (end_seq IS NULL OR end_seq > ?2) AND state < 3",
            params![chain, int(first), int(offset)],
        )?;
        self.touch(id);
        Ok(())
    }

    fn row(&self, record: &Record, wanted: RecordId) -> Result<Row, StoreError> {
        record.check_drop()?;
        self.one(
            "SELECT state, name, size, first_seq, end_seq, head_bytes, taken FROM drop_record WHERE id = ?1 AND chain = ?2",
            params![wanted.0, record.chain],
            |row| {
                Ok(Row {
                    state: row.get(0)?,
                    name: row.get(1)?,
                    size: uint(row, 2)?,
                    first: place(row, 3)?,
                    end: place(row, 4)?,
                    head_bytes: uint(row, 5)?,
                    taken: uint(row, 6)?,
                })
            },
        )?
        .ok_or(StoreError::NoRecord)
    }
}

/// A box, where the record has one there.
pub(super) fn place(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column)?.map(|_| uint(row, column)).transpose()
}

impl Record {
    pub(super) fn check_drop(&self) -> Result<(), StoreError> {
        if self.content.is_drop() { Ok(()) } else { Err(StoreError::IsAStream { name: self.name.clone() }) }
    }
}

/// A header as it is kept. What M it fits is decided when its boxes are cut.
pub(super) fn encoded(header: &Header) -> Result<Vec<u8>, StoreError> {
    header.encode(usize::MAX).map_err(|error| StoreError::BadHeader { reason: error.to_string() })
}
