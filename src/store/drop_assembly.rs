//! Records of a drop that we read: what its boxes were made into.
//!
//! The engine runs the boxes before the frontier through an assembler and commits what came of them together with how far
//! it has got, so that each box is made into a record once. A record that is under way has a row of its own, from which
//! the assembler is made anew after a restart.

use rusqlite::params;

use super::drops::encoded;
use super::ledger::{Ledger, Record, int};
use super::{BoxSeq, ChannelId, Commit, Store, StoreError};
use super::{RecordId, RecordState};
use crate::drop::{Digest, Header};

/// A change of a drop's records that boxes brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A record begins.
    Started {
        /// Its first box.
        first: BoxSeq,
        /// Bytes of the channel before it.
        begin: u64,
        /// Length of its header.
        head_bytes: u64,
        /// What it says.
        header: Box<Header>,
    },
    /// The record under way is complete.
    Complete {
        /// The box after its last.
        end: BoxSeq,
        /// BLAKE3 of its body.
        digest: Digest,
    },
    /// The record under way is broken.
    Broken {
        /// Why.
        reason: String,
    },
    /// The record under way was deleted by its writer: nothing of it is kept, and nothing of a file whose part it is.
    Withdrawn,
    /// Boxes from here on belong to no record.
    Astray {
        /// The first of them.
        at: BoxSeq,
        /// Why.
        reason: String,
    },
}

/// What a run of boxes was made into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The first of them: where the run before ended.
    pub from: BoxSeq,
    /// The box after the last.
    pub next: BoxSeq,
    /// In their order.
    pub standings: Vec<Standing>,
    /// Bytes that have come of the body of the record that is under way now.
    pub taken: Option<u64>,
    /// Whether a header is looked for now.
    pub astray: bool,
}

/// Where the parts of a file begin in it, or why they make none.
type Joined = Result<Vec<(RecordId, u64)>, String>;

impl Store {
    /// Keeps what boxes were made into. Where others were before it, [`StoreError::Rewritten`].
    pub fn assemble(&self, id: ChannelId, assembled: Assembled) -> Commit<()> {
        self.submit(move |ledger| ledger.assemble(id, &assembled))
    }

    /// Keeps the file that the parts of a chain make, with where each part begins in it; or in words why they make none.
    /// Once a chain. `header` is that of the last part.
    pub fn join(&self, id: ChannelId, header: Header, joined: Joined) -> Commit<()> {
        self.submit(move |ledger| ledger.join(id, &header, &joined))
    }

    /// A person has got the file, or was told that it is broken.
    pub fn deliver(&self, id: ChannelId, record: RecordId) -> Commit<()> {
        self.submit(move |ledger| ledger.deliver(id, record))
    }
}

impl Ledger<'_> {
    fn assemble(&mut self, id: ChannelId, assembled: &Assembled) -> Result<(), StoreError> {
        let record = self.reader(id)?;
        record.check_drop()?;
        let changed = self.run(
            "UPDATE channel SET assembled = ?3, astray = ?4 WHERE id = ?1 AND assembled = ?2",
            params![id.0, int(assembled.from.0), int(assembled.next.0), assembled.astray],
        )?;
        if changed == 0 {
            return Err(StoreError::Rewritten);
        }
        for standing in &assembled.standings {
            self.keep(&record, standing)?;
        }
        if let Some(taken) = assembled.taken {
            let sql = "UPDATE drop_record SET taken = ?2 WHERE chain = ?1 AND state = 10";
            self.run(sql, params![record.chain, int(taken)])?;
        }
        self.touch(id);
        Ok(())
    }

    fn keep(&mut self, record: &Record, standing: &Standing) -> Result<(), StoreError> {
        match standing {
            Standing::Started { first, begin, head_bytes, header } => self.insert_record(
                record,
                header,
                RecordState::Incomplete,
                None,
                (Some(first.0), Some(*begin), *head_bytes),
            ),
            Standing::Complete { end, digest } => self
                .run(
                    "UPDATE drop_record SET state = 11, end_seq = ?2, taken = size, digest = ?3
                     WHERE chain = ?1 AND state = 10",
                    params![record.chain, int(end.0), digest],
                )
                .map(drop),
            Standing::Broken { reason } => self
                .run(
                    "UPDATE drop_record SET state = 12, reason = ?2 WHERE chain = ?1 AND state = 10",
                    params![record.chain, reason],
                )
                .map(drop),
            Standing::Withdrawn => {
                self.run(
                    "DELETE FROM drop_record WHERE chain = ?1 AND state = 11 AND parts IN
                         (SELECT parts FROM drop_record WHERE chain = ?1 AND state = 10)
                       AND NOT EXISTS (SELECT 1 FROM drop_record whole
                           WHERE whole.chain = ?1 AND whole.parts = drop_record.parts AND whole.part = 0)",
                    [record.chain],
                )?;
                self.run("DELETE FROM drop_record WHERE chain = ?1 AND state = 10", [record.chain]).map(drop)
            }
            Standing::Astray { at, reason } => self
                .run(
                    "INSERT INTO drop_record (chain, state, header, name, path, size, first_seq, reason, created)
                     VALUES (?1, 12, x'', '', '', 0, ?2, ?3, ?4)",
                    params![record.chain, int(at.0), reason, self.now],
                )
                .map(drop),
        }
    }

    fn join(&mut self, id: ChannelId, header: &Header, joined: &Joined) -> Result<(), StoreError> {
        let record = self.reader(id)?;
        record.check_drop()?;
        let Some(part) = header.part else { return Err(StoreError::NoRecord) };
        let sql = "SELECT 1 FROM drop_record WHERE chain = ?1 AND parts = ?2 AND part = 0";
        if self.one(sql, params![record.chain, part.chain], |_| Ok(()))?.is_some() {
            return Ok(());
        }
        for (part, begin) in joined.as_deref().unwrap_or_default() {
            let sql = "UPDATE drop_record SET part_begin = ?2 WHERE id = ?1";
            self.run(sql, params![part.0, int(*begin)])?;
        }
        let (state, reason) = match joined {
            Ok(_) => (RecordState::Complete, None),
            Err(reason) => (RecordState::Broken, Some(reason.as_str())),
        };
        self.insert_record(&record, header, state, reason, (None, None, 0))?;
        self.touch(id);
        Ok(())
    }

    fn insert_record(
        &mut self,
        record: &Record,
        header: &Header,
        state: RecordState,
        reason: Option<&str>,
        (first, begin, head_bytes): (Option<u64>, Option<u64>, u64),
    ) -> Result<(), StoreError> {
        // The file that parts make has the whole's size and digest, and the number 0.
        let whole = header.part.filter(|_| first.is_none());
        let last = whole.and_then(|part| part.last);
        self.run(
            "INSERT INTO drop_record (chain, state, header, name, path, size, digest, first_seq, begin, head_bytes,
                                      reason, parts, part, taken, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, CASE ?2 WHEN 11 THEN ?6 ELSE 0 END, ?14)",
            params![
                record.chain,
                state.code(),
                encoded(header)?,
                header.file_name(),
                header.path,
                int(last.map_or(header.size, |total| total.size)),
                last.map_or(header.digest, |total| Some(total.digest)),
                first.map(int),
                begin.map(int),
                int(head_bytes),
                reason,
                header.part.map(|part| part.chain),
                header.part.map(|part| if whole.is_some() { 0 } else { part.number }),
                self.now
            ],
        )
        .map(drop)
    }

    fn deliver(&mut self, id: ChannelId, wanted: RecordId) -> Result<(), StoreError> {
        let record = self.record(id)?;
        record.check_drop()?;
        let there = "SELECT 1 FROM drop_record WHERE id = ?1 AND chain = ?2";
        self.one(there, params![wanted.0, record.chain], |_| Ok(()))?.ok_or(StoreError::NoRecord)?;
        self.run("UPDATE drop_record SET delivered = 1 WHERE id = ?1", [wanted.0])?;
        self.touch(id);
        Ok(())
    }
}
