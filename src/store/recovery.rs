//! What a person decides about a fenced channel: to adopt what another writer wrote, or to move on in another channel.
//!
//! Adopting is the one exception to the first law, and only a verb asks for it: bytes of ours whose index another writer
//! took are given another index, behind what that writer wrote. What stands at each index is learned from the network,
//! box by box, and kept as a [`Finding`]; when all are known, one transaction rewrites the channel. Until then nothing
//! of it is changed, so a crash at any point goes on from the findings that are here.

use rusqlite::params;
use tracing::info;

use super::ledger::{Ledger, Record, index, int, state, uint};
use super::repack::PARKED;
use super::{BoxSeq, BoxState, ChannelId, ChannelName, Content, Finding, Role, Store, StoreError};
use crate::bacap::{BoxIndex, WriteCap};

/// How far an adoption has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The first box that was looked at.
    pub first: BoxSeq,
    /// The next one to be looked at.
    pub next: BoxSeq,
    /// The boxes from here on were never launched, so the first of them where nothing is ends the search.
    pub launched_end: BoxSeq,
    /// What came of it, once it is over.
    pub adopted: Option<Adopted>,
}

/// What an adoption came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Boxes of another writer that are part of the channel now.
    pub foreign_boxes: u64,
    /// Their bytes.
    pub foreign_bytes: u64,
    /// Boxes of ours that met them, and go behind them.
    pub replanned_boxes: u64,
    /// Their bytes.
    pub replanned_bytes: u64,
}

/// What was moved to another channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The new channel.
    pub to: ChannelId,
    /// Boxes that are in it.
    pub boxes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of the boxes a packet may have left of, so that the old channel may hold them too.
    pub launched_boxes: u64,
}

const ADOPT: i64 = 1;
const MOVED: i64 = 2;
const ASKING: i64 = 0;
const REWRITING: i64 = 1;
const DONE: i64 = 2;
/// Rows that one statement moves.
const SLICE: u64 = 1024;

impl Store {
    /// The channels of which the network is to be asked what another writer wrote.
    pub fn adoptions(&self) -> Result<Vec<ChannelId>, StoreError> {
        self.readers().ask(|db| {
            let mut statement = db.prepare_cached("SELECT channel FROM recovery WHERE stage = 0 ORDER BY channel")?;
            let found = statement.query_map([], |row| row.get(0).map(ChannelId))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// How far the adoption of a channel has come: the newest, where there was one.
    pub fn adoption(&self, id: ChannelId) -> Result<Option<Adoption>, StoreError> {
        use rusqlite::OptionalExtension as _;
        let sql = "SELECT r.first, coalesce((SELECT max(seq) + 1 FROM finding f WHERE f.channel = r.channel), r.first),
                          c.launched_end, r.stage, r.foreign_boxes, r.foreign_bytes, r.replanned_boxes,
                          r.replanned_bytes
                   FROM recovery r JOIN channel c ON c.id = r.channel WHERE r.channel = ?1 AND r.kind = 1";
        self.readers().ask(|db| {
            let found = db.prepare_cached(sql)?.query_row([id.0], |row| {
                let adopted = Adopted {
                    foreign_boxes: uint(row, 4)?,
                    foreign_bytes: uint(row, 5)?,
                    replanned_boxes: uint(row, 6)?,
                    replanned_bytes: uint(row, 7)?,
                };
                Ok(Adoption {
                    first: BoxSeq(uint(row, 0)?),
                    next: BoxSeq(uint(row, 1)?),
                    launched_end: BoxSeq(uint(row, 2)?),
                    adopted: (row.get::<_, i64>(3)? == DONE).then_some(adopted),
                })
            });
            Ok(found.optional()?)
        })
    }
}

impl Ledger<'_> {
    /// From now on the network is to be asked what stands at the indices from the first on that is not stored. One that
    /// has begun goes on.
    pub(super) fn adopt(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let record = self.fenced(id)?;
        match self.recovery(id)? {
            Some((ADOPT, ASKING)) => return Ok(()),
            Some((MOVED, _)) => return Err(StoreError::Moved { name: record.name }),
            _ => {}
        }
        self.run("DELETE FROM recovery WHERE channel = ?1", [id.0])?;
        self.run(
            "INSERT INTO recovery (channel, kind, stage, first) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, ADOPT, ASKING, int(record.first_unstored)],
        )?;
        self.touch(id);
        Ok(())
    }

    /// Keeps what stands at the next indices, in order. What is known already is passed over.
    pub(super) fn found(&mut self, id: ChannelId, from: BoxSeq, findings: &[Finding]) -> Result<(), StoreError> {
        if !self.is_being_adopted(id)? {
            return Err(StoreError::NotAdopting);
        }
        let sql = "SELECT coalesce((SELECT max(seq) + 1 FROM finding WHERE channel = ?1), first) FROM recovery
                   WHERE channel = ?1";
        let next = self.one(sql, [id.0], |row| uint(row, 0))?.unwrap_or_default();
        if from.0 > next {
            return Err(StoreError::NoBox { seq: BoxSeq(next) });
        }
        for (seq, finding) in (from.0..).zip(findings).skip_while(|(seq, _)| *seq < next) {
            let (found, payload) = match finding {
                Finding::Nothing => (0, &[][..]),
                Finding::Ours => (1, &[][..]),
                Finding::Foreign(payload) => (2, &payload[..]),
                Finding::Tombstone => (3, &[][..]),
            };
            self.run(
                "INSERT INTO finding (channel, seq, found, payload) VALUES (?1, ?2, ?3, ?4)",
                params![id.0, int(seq), found, payload],
            )?;
        }
        self.touch(id);
        Ok(())
    }

    /// Rewrites the channel: another writer's boxes are where they were found, ours that were launched and not met stay
    /// where they are, and the others follow behind, in their order. The fence goes.
    pub(super) fn finish_adoption(&mut self, id: ChannelId) -> Result<Adopted, StoreError> {
        let record = self.writer(id)?;
        if !self.is_being_adopted(id)? {
            return Err(StoreError::NotAdopting);
        }
        let first = self
            .one("SELECT first FROM recovery WHERE channel = ?1", [id.0], |row| uint(row, 0))?
            .unwrap_or(record.first_unstored);
        let ends = self.one(
            "SELECT count(*), coalesce(max(CASE WHEN found <> 0 THEN seq + 1 END), 0) FROM finding WHERE channel = ?1",
            [id.0],
            |row| Ok((uint(row, 0)?, uint(row, 1)?)),
        )?;
        let (looked_at, last_found) = ends.unwrap_or_default();
        let end = record.launched_end.max(last_found).max(first);
        // Each index up to the end, and the one there, were asked for.
        if looked_at <= end - first {
            return Err(StoreError::NoBox { seq: BoxSeq(first + looked_at) });
        }
        self.set_stage(id, REWRITING)?;
        let mut rewrite = self.set_aside(id, &record, first)?;
        for seq in first..end {
            rewrite.settle(self, id, seq)?;
        }
        rewrite.follow(self, first, end, record.boxes)?;
        let adopted = rewrite.adopted;
        self.count_couriered(id)?;
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, launched = launched OR ?5 > 0,
                    launched_end = ?5, stored_boxes = ?6, first_unstored = ?7, stored_bytes = ?8, rewrites = rewrites + 1, fence = NULL, unfit = NULL,
                    modified = ?9,
                    changed = ?9
             WHERE id = ?1",
            params![
                id.0,
                int(rewrite.offset),
                int(rewrite.seq),
                rewrite.index.as_bytes(),
                int(end),
                int(first + rewrite.stored),
                int(rewrite.first_unstored),
                int(rewrite.stored_bytes),
                self.now
            ],
        )?;
        self.run("DELETE FROM finding WHERE channel = ?1", [id.0])?;
        self.run(
            "UPDATE recovery SET foreign_boxes = ?2, foreign_bytes = ?3, replanned_boxes = ?4, replanned_bytes = ?5
             WHERE channel = ?1",
            params![
                id.0,
                int(adopted.foreign_boxes),
                int(adopted.foreign_bytes),
                int(adopted.replanned_boxes),
                int(adopted.replanned_bytes)
            ],
        )?;
        self.set_stage(id, DONE)?;
        if self.sent_bytes()? > self.limits.sent_bytes {
            self.litter();
        }
        self.touch(id);
        info!(channel = %record.name, ?adopted, "another writer's boxes are part of the channel now");
        Ok(adopted)
    }

    /// Moves what is not stored without a gap to a new channel, box by box and in its order. What was stored stays, and
    /// the old channel stays fenced for good.
    pub(super) fn move_unsent(
        &mut self,
        id: ChannelId,
        name: &ChannelName,
        cap: &WriteCap,
    ) -> Result<Moved, StoreError> {
        let record = self.fenced(id)?;
        match self.recovery(id)? {
            Some((ADOPT, ASKING)) => return Err(StoreError::BeingAdopted { name: record.name }),
            Some((MOVED, _)) => return Err(StoreError::Moved { name: record.name }),
            _ => {}
        }
        let to = self.create(name, cap, Content::Stream, false)?;
        let target = self.record(to)?;
        let mut moving = Rewrite::new(target.chain, 0, self.next_index(to)?, 0);
        let first = record.first_unstored;
        let boundary = self.one(
            "SELECT index104 FROM box WHERE chain = ?1 AND seq = ?2",
            params![record.chain, int(first)],
            |row| index(row, 0),
        )?;
        // Where all that was stored is dropped, one box stays: a channel is never without its last.
        let keep = if record.dropped_boxes > 0 { first.max(record.dropped_boxes + 1) } else { first };
        self.run("DELETE FROM recovery WHERE channel = ?1", [id.0])?;
        self.run(
            "INSERT INTO recovery (channel, kind, stage, first) VALUES (?1, ?2, ?3, ?4)",
            params![id.0, MOVED, REWRITING, int(first)],
        )?;
        let (mut kept_bytes, mut kept_tail, mut kept_index) = (record.stored_bytes, 0, boundary);
        for seq in first..record.boxes {
            let Some((row, was, payload)) = self.own(record.chain, seq)? else {
                return Err(StoreError::Corrupt { reason: format!("boxes of {:?} are missing", record.name) });
            };
            moving.place(self, &payload, if was == BoxState::Open { was } else { BoxState::Sealed })?;
            if seq < keep {
                kept_bytes += payload.len() as u64;
                kept_tail = if was == BoxState::Open { record.tail_bytes } else { 0 };
                kept_index = kept_index.map(|index| index.next()).transpose()?;
            } else {
                self.run("DELETE FROM box WHERE id = ?1", [row])?;
            }
        }
        let kept = keep.min(record.boxes);
        let next_index = match kept_index {
            Some(index) => index,
            None => self.next_index(id)?,
        };
        let reason = format!(
            "{}; what was not stored of it was moved to {:?}, and nothing more is sent here",
            record.fence.as_deref().unwrap_or_default(),
            name.as_str()
        );
        self.count_couriered(id)?;
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, tail_bytes = ?8, launched_end = min(launched_end, ?3),
                    stored_boxes = ?5, rewrites = rewrites + 1, fence = ?6, unfit = NULL, modified = ?7, changed = ?7
             WHERE id = ?1",
            params![id.0, int(kept_bytes), int(kept), next_index.as_bytes(), int(first), reason, self.now, int(kept_tail)],
        )?;
        self.set_stage(id, DONE)?;
        self.run(
            "UPDATE channel SET size = ?2, boxes = ?3, next_index = ?4, tail_bytes = ?5, max_plaintext = ?6,
                    modified = ?7, changed = ?7
             WHERE id = ?1",
            params![
                to.0,
                int(moving.offset),
                int(moving.seq),
                moving.index.as_bytes(),
                int(record.tail_bytes),
                int(record.max_plaintext),
                self.now
            ],
        )?;
        self.touch(id);
        self.touch(to);
        let launched_boxes = record.launched_end - first;
        Ok(Moved { to, boxes: moving.seq, bytes: moving.offset, launched_boxes })
    }

    fn fenced(&self, id: ChannelId) -> Result<Record, StoreError> {
        let record = self.writer(id)?;
        if record.fence.is_none() {
            return Err(StoreError::NotFenced { name: record.name });
        }
        if record.content.is_drop() {
            return Err(StoreError::FencedDrop { name: record.name });
        }
        Ok(record)
    }

    /// The kind and the stage of what was decided.
    fn recovery(&self, id: ChannelId) -> Result<Option<(i64, i64)>, StoreError> {
        let sql = "SELECT kind, stage FROM recovery WHERE channel = ?1";
        self.one(sql, [id.0], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Whether the network is being asked: what is launched and what is not stays as it is meanwhile.
    pub(super) fn is_being_adopted(&self, id: ChannelId) -> Result<bool, StoreError> {
        Ok(self.recovery(id)? == Some((ADOPT, ASKING)))
    }

    fn set_stage(&self, id: ChannelId, stage: i64) -> Result<(), StoreError> {
        self.run("UPDATE recovery SET stage = ?2 WHERE channel = ?1", [id.0, stage]).map(drop)
    }

    /// Moves the rows from `first` on out of the way; what is written there begins at its index and its offset.
    fn set_aside(&self, id: ChannelId, record: &Record, first: u64) -> Result<Rewrite, StoreError> {
        debug_assert_eq!(record.role, Role::Writer);
        let begins = self.one(
            "SELECT index104, offset FROM box WHERE chain = ?1 AND seq = ?2",
            params![record.chain, int(first)],
            |row| Ok((index(row, 0)?, uint(row, 1)?)),
        )?;
        let (index, offset) = match begins {
            Some(begins) => begins,
            None => (self.next_index(id)?, record.size),
        };
        for from in (first..record.boxes).step_by(usize::try_from(SLICE).unwrap_or(1)) {
            self.run(
                "UPDATE box SET seq = seq + ?4 WHERE chain = ?1 AND seq >= ?2 AND seq < ?3",
                params![record.chain, int(from), int(from + SLICE), int(PARKED)],
            )?;
        }
        Ok(Rewrite::new(record.chain, first, index, offset))
    }

    /// A box of ours: its row, its state, its bytes.
    fn own(&self, chain: i64, seq: u64) -> Result<Option<(i64, BoxState, Vec<u8>)>, StoreError> {
        self.one("SELECT id, state, payload FROM box WHERE chain = ?1 AND seq = ?2", params![chain, int(seq)], |row| {
            Ok((row.get(0)?, state(row, 1)?, row.get(2)?))
        })
    }
}

/// Boxes that are written one behind the other.
struct Rewrite {
    chain: i64,
    seq: u64,
    index: BoxIndex,
    offset: u64,
    /// How many of them are stored, and how far without a gap.
    stored: u64,
    first_unstored: u64,
    stored_bytes: u64,
    adopted: Adopted,
}

impl Rewrite {
    fn new(chain: i64, seq: u64, index: BoxIndex, offset: u64) -> Self {
        let adopted = Adopted::default();
        Self { chain, seq, index, offset, stored: 0, first_unstored: seq, stored_bytes: offset, adopted }
    }

    /// One index that was asked for: what is there, or what we launched there, stays there.
    fn settle(&mut self, ledger: &Ledger<'_>, id: ChannelId, seq: u64) -> Result<(), StoreError> {
        let finding = ledger.one(
            "SELECT found, payload FROM finding WHERE channel = ?1 AND seq = ?2",
            params![id.0, int(seq)],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
        )?;
        let own = ledger.own(self.chain, PARKED + seq)?;
        match (finding, own) {
            // A replica's own word for ours stands.
            (Some((2, foreign)), own) if own.as_ref().is_none_or(|(_, state, _)| *state != BoxState::Stored) => {
                self.adopted.foreign_boxes += 1;
                self.adopted.foreign_bytes += foreign.len() as u64;
                self.place(ledger, &foreign, BoxState::Stored)
            }
            (Some((3, _)), own) if own.as_ref().is_none_or(|(_, state, _)| *state != BoxState::Stored) => {
                self.adopted.foreign_boxes += 1;
                self.place(ledger, &[], BoxState::Tombstone)
            }
            (Some((found, _)), Some((row, was, payload))) => {
                ledger.run("DELETE FROM box WHERE id = ?1", [row])?;
                self.place(ledger, &payload, if found == 1 { BoxState::Stored } else { was })
            }
            _ => Err(StoreError::NoBox { seq: BoxSeq(seq) }),
        }
    }

    /// What is left of ours, in its order: sealed again, but for the tail.
    fn follow(&mut self, ledger: &Ledger<'_>, first: u64, end: u64, boxes: u64) -> Result<(), StoreError> {
        for seq in first..boxes {
            let Some((row, was, payload)) = ledger.own(self.chain, PARKED + seq)? else { continue };
            ledger.run("DELETE FROM box WHERE id = ?1", [row])?;
            // Those further behind only move up.
            if seq < end {
                self.adopted.replanned_boxes += 1;
                self.adopted.replanned_bytes += payload.len() as u64;
            }
            self.place(ledger, &payload, if was == BoxState::Open { was } else { BoxState::Sealed })?;
        }
        Ok(())
    }

    fn place(&mut self, ledger: &Ledger<'_>, payload: &[u8], state: BoxState) -> Result<(), StoreError> {
        ledger.run(
            "INSERT INTO box (chain, seq, state, index104, offset, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![self.chain, int(self.seq), state.code(), self.index.as_bytes(), int(self.offset), payload],
        )?;
        self.index = self.index.next()?;
        self.seq += 1;
        self.offset += payload.len() as u64;
        if matches!(state, BoxState::Stored | BoxState::Tombstone) {
            self.stored += 1;
            if self.first_unstored + 1 == self.seq {
                (self.first_unstored, self.stored_bytes) = (self.seq, self.offset);
            }
        }
        Ok(())
    }
}
