//! Holes of a channel that we read: boxes that are missing before one that has arrived.
//!
//! A hole is a range of indices, and has no rows: it may be longer than a person would ever wait for. It is *late* until
//! its boxes come; it is *lost* where the network has forgotten what was never fetched; and it is behind us once it was
//! *skipped*. Only a hole at the frontier stands in a reader's way.

use std::time::{Duration, SystemTime};

use rusqlite::params;

use super::ledger::{Ledger, index, int, uint};
use super::nanos::from_nanos;
use super::{BoxSeq, Channel, ChannelId, Role, Skipped, Store, StoreError};

/// A replica epoch: boxes are kept by the week of their writing (`pigeonhole-internals.md` §3.6).
pub const REPLICA_EPOCH: Duration = Duration::from_secs(7 * 24 * 3600);
/// A box is gone when this many replica epochs have begun since the one of its writing.
pub(super) const RETENTION_EPOCHS: i64 = 2;
/// The longest that a replica keeps a box: the epoch of its writing and the next. Nobody can say when a box that never
/// came was written, but it was meant to be written before the ones behind it: so its age is counted from when a later
/// one was first seen.
pub const RETENTION: Duration = REPLICA_EPOCH.saturating_mul(2);

/// The hole at the frontier of a channel that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first box that is missing: the frontier.
    pub first: BoxSeq,
    /// The first behind it that has arrived.
    pub end: BoxSeq,
    /// No replica can have it any more.
    pub lost: bool,
    /// When a later box was first seen.
    pub since: Option<SystemTime>,
}

impl Hole {
    /// How many boxes are missing.
    pub fn boxes(&self) -> u64 {
        self.end.0 - self.first.0
    }
}

impl Channel {
    /// Reader: the box at the frontier is gone from the network, and what follows is here or may be.
    pub fn is_lost(&self) -> bool {
        self.lost_end > self.frontier
    }

    /// Reader: the network has said of the frontier itself that it is not there yet, nothing past it is known, and it cannot
    /// have expired.
    pub fn end_is_known(&self) -> bool {
        self.verdict.is_some() && !self.later_known && self.stale_since.is_none()
    }
}

impl Store {
    /// The hole at the frontier, where there is one.
    pub fn hole(&self, id: ChannelId) -> Result<Option<Hole>, StoreError> {
        let Some(channel) = self.channel(id)?.filter(|channel| channel.later_known) else { return Ok(None) };
        let found = self.readers().ask(|db| {
            let sql = "SELECT min(b.seq), min(b.seen) FROM box b JOIN channel c ON b.chain = c.chain
                       WHERE c.id = ?1 AND b.seq >= c.frontier AND c.frontier = ?2";
            let mut statement = db.prepare_cached(sql)?;
            Ok(statement.query_row(params![id.0, int(channel.frontier.0)], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
            })?)
        })?;
        // The frontier may have moved between the two questions: then there is no hole to speak of.
        let (Some(end), since) = found else { return Ok(None) };
        let end = BoxSeq(u64::try_from(end).unwrap_or_default());
        let hole = Hole { first: channel.frontier, end, lost: channel.is_lost(), since: since.map(from_nanos) };
        Ok((hole.end > hole.first).then_some(hole))
    }
}

impl Ledger<'_> {
    /// Gives up what is missing at the frontier, up to the next box that has arrived. It reads as no bytes for ever.
    pub(super) fn skip(&mut self, id: ChannelId) -> Result<Skipped, StoreError> {
        let record = self.record(id)?;
        if record.role == Role::Writer {
            return Err(StoreError::NotAReader);
        }
        let next = self.one(
            "SELECT seq, index104 FROM box WHERE chain = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1",
            params![record.chain, int(record.frontier)],
            |row| Ok((uint(row, 0)?, index(row, 1)?)),
        )?;
        let Some((end, index)) = next else { return Err(StoreError::NoHole { name: record.name }) };
        let (frontier, size, last) = self.contiguous(record.chain, end, record.size)?;
        let index = last.map_or(Ok(index), |last| last.next())?;
        let boxes = end - record.frontier;
        self.run(
            "UPDATE channel SET frontier = ?2, size = ?3, next_index = ?4, skipped_boxes = skipped_boxes + ?5,
                    verdict_at = NULL, verdict_epoch = NULL, stale_since = NULL, stale_epoch = NULL, modified = ?6, changed = ?6
             WHERE id = ?1",
            params![id.0, int(frontier), int(size), index.as_bytes(), int(boxes), self.now],
        )?;
        self.touch(id);
        Ok(Skipped { first: BoxSeq(record.frontier), boxes, bytes: size - record.size })
    }

    /// Where what is missing before it is lost: behind the last box of those that were seen longer ago than replicas
    /// keep anything, by the network's own epochs. A box that was seen while none was known counts from now on.
    pub(super) fn lost_end(&self, chain: i64, frontier: u64) -> Result<u64, StoreError> {
        let Some(epoch) = self.replica_epoch()? else { return Ok(0) };
        self.run(
            "UPDATE box SET seen_epoch = ?3 WHERE chain = ?1 AND seq > ?2 AND seen IS NOT NULL AND seen_epoch IS NULL",
            params![chain, int(frontier), epoch],
        )?;
        let last = self.one(
            "SELECT coalesce(max(seq), 0) FROM box WHERE chain = ?1 AND seq > ?2 AND seen_epoch <= ?3",
            params![chain, int(frontier), epoch - RETENTION_EPOCHS],
            |row| uint(row, 0),
        )?;
        Ok(last.unwrap_or_default())
    }
}
