//! Boxes that are kept on the network for longer than replicas keep anything: in which replica epoch each was put there.
//!
//! A box that was put there in epoch E is there until E + 2 begins. The epoch that is kept here is never later than the true
//! one: that of the launch, or of the last time that the box was asked for or sent again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::params;

use super::holes::RETENTION_EPOCHS;
use super::ledger::{Ledger, index, int, seq, uint};
use super::nanos::{from_nanos, to_nanos};
use super::queries::one;
use super::{BoxSeq, ChannelId, Commit, REPLICA_EPOCH, Store, StoreError};
use crate::bacap::BoxIndex;

/// Replica epochs are counted from 2017-06-01T00:00Z (`pigeonhole-internals.md` §3.6).
const EPOCH_ZERO: Duration = Duration::from_secs(1_496_275_200);

/// When a replica epoch begins.
pub fn replica_epoch_begins(epoch: u64) -> SystemTime {
    let weeks = u32::try_from(epoch).unwrap_or(u32::MAX);
    UNIX_EPOCH + EPOCH_ZERO + REPLICA_EPOCH.saturating_mul(weeks)
}

/// The replica epoch of a time; 0 before the first.
pub fn replica_epoch_at(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH + EPOCH_ZERO).unwrap_or_default();
    since.as_secs() / REPLICA_EPOCH.as_secs()
}

/// A stored box that may be sent again.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptBox {
    /// Its number in the channel.
    pub seq: BoxSeq,
    /// The replica epoch in which it was put on the network, or an earlier one; 0 where that is not known.
    pub epoch: u64,
    /// Its index, which never changes.
    pub index: BoxIndex,
    /// Its plaintext.
    pub payload: Vec<u8>,
}

/// What is kept of a channel, and what can no longer be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptCounts {
    /// Boxes that replicas have confirmed and whose bytes are here, but for deleted files.
    pub boxes: u64,
    /// Boxes whose bytes were dropped to make room: they cannot be sent again.
    pub dropped_boxes: u64,
    /// Those of `boxes` that have expired and were not sent again yet.
    pub expired_boxes: u64,
    /// The epoch in which the oldest of `boxes` was put on the network, where that is known.
    pub oldest_epoch: Option<u64>,
    /// The most boxes that one epoch has.
    pub most_in_an_epoch: u64,
}

/// Boxes `b` of the channel `c` that can be sent again: confirmed, held, and of no file that is deleted.
const SENDABLE: &str = "FROM channel c JOIN box b ON b.chain = c.chain
    WHERE c.id = ?1 AND b.state = 4 AND b.seq >= c.dropped_boxes
      AND NOT EXISTS (SELECT 1 FROM drop_record r WHERE r.chain = c.chain AND r.state IN (3, 4)
                                                    AND b.seq >= r.first_seq AND b.seq < r.end_seq)";

fn kept_box(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeptBox> {
    Ok(KeptBox { seq: seq(row, 0)?, index: index(row, 1)?, payload: row.get(2)?, epoch: uint(row, 3)? })
}

impl Store {
    /// The channels that we write and keep beyond `now`, and the share of the pace that each may take.
    pub fn kept_channels(&self, now: SystemTime) -> Result<Vec<(ChannelId, f64)>, StoreError> {
        self.readers().ask(|db| {
            let sql = "SELECT id, keep_share FROM channel
                       WHERE role = 0 AND kept_until > ?1 AND fence IS NULL ORDER BY id";
            let mut statement = db.prepare_cached(sql)?;
            let found = statement.query_map([to_nanos(now)], |row| Ok((ChannelId(row.get(0)?), row.get(1)?)))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The network's time, as far as it is known: when its replica epoch began.
    pub fn replica_epoch_began(&self) -> Result<Option<SystemTime>, StoreError> {
        self.readers().ask(|db| {
            let epoch = one(db, "SELECT replica_epoch FROM spool", [], |row| row.get::<_, Option<i64>>(0))?;
            Ok(epoch.flatten().and_then(|epoch| u64::try_from(epoch).ok()).map(replica_epoch_begins))
        })
    }

    /// The oldest box of a channel that has expired by `epoch` and can be sent again, but for those in `passed`.
    pub fn expired_box(&self, id: ChannelId, epoch: u64, passed: &[BoxSeq]) -> Result<Option<KeptBox>, StoreError> {
        self.readers().ask(|db| {
            let sql = format!(
                "SELECT b.seq, b.index104, b.payload, coalesce(b.epoch, 0) {SENDABLE} AND coalesce(b.epoch, 0) <= ?2
                 ORDER BY coalesce(b.epoch, 0), b.seq LIMIT ?3"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let limit = int(passed.len() as u64 + 1);
            let mut rows = statement.query(params![id.0, int(epoch).saturating_sub(RETENTION_EPOCHS), limit])?;
            while let Some(row) = rows.next()? {
                if !passed.contains(&seq(row, 0)?) {
                    return Ok(Some(kept_box(row)?));
                }
            }
            Ok(None)
        })
    }

    /// A box that can be sent again.
    pub fn stored_box(&self, id: ChannelId, wanted: BoxSeq) -> Result<Option<KeptBox>, StoreError> {
        self.readers().ask(|db| {
            let sql = format!("SELECT b.seq, b.index104, b.payload, coalesce(b.epoch, 0) {SENDABLE} AND b.seq = ?2");
            one(db, &sql, params![id.0, int(wanted.0)], kept_box)
        })
    }

    /// The boxes of files that we have deleted, or are about to: ranges, each with its end excluded.
    pub fn deleted_boxes(&self, id: ChannelId) -> Result<Vec<std::ops::Range<u64>>, StoreError> {
        self.readers().ask(|db| {
            let sql = "SELECT r.first_seq, r.end_seq FROM channel c JOIN drop_record r ON r.chain = c.chain
                       WHERE c.id = ?1 AND r.state IN (3, 4) ORDER BY r.first_seq";
            let mut statement = db.prepare_cached(sql)?;
            let found = statement.query_map([id.0], |row| Ok(uint(row, 0)?..uint(row, 1)?))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The box that holds a byte of a channel.
    pub fn box_at(&self, id: ChannelId, offset: u64) -> Result<BoxSeq, StoreError> {
        self.readers().ask(|db| {
            let sql = "SELECT b.seq FROM channel c JOIN box b ON b.chain = c.chain
                       WHERE c.id = ?1 AND b.offset <= ?2 ORDER BY b.offset DESC, b.seq DESC LIMIT 1";
            Ok(one(db, sql, params![id.0, int(offset)], |row| seq(row, 0))?.unwrap_or_default())
        })
    }

    /// What is kept of a channel that we write.
    pub fn kept_counts(&self, id: ChannelId) -> Result<KeptCounts, StoreError> {
        self.readers().ask(|db| {
            let mut counts = KeptCounts::default();
            let sql = "SELECT c.dropped_boxes, (SELECT replica_epoch FROM spool) FROM channel c WHERE c.id = ?1";
            let found = one(db, sql, [id.0], |row| Ok((uint(row, 0)?, row.get::<_, Option<i64>>(1)?)))?;
            let (dropped, epoch) = found.ok_or(StoreError::NoChannel)?;
            counts.dropped_boxes = dropped;
            let sql =
                format!("SELECT coalesce(b.epoch, 0), count(*) {SENDABLE} GROUP BY coalesce(b.epoch, 0) ORDER BY 1");
            let mut statement = db.prepare_cached(&sql)?;
            let mut rows = statement.query([id.0])?;
            while let Some(row) = rows.next()? {
                let (of, boxes) = (uint(row, 0)?, uint(row, 1)?);
                counts.boxes += boxes;
                if of > 0 {
                    counts.oldest_epoch.get_or_insert(of);
                }
                counts.most_in_an_epoch = counts.most_in_an_epoch.max(boxes);
                if epoch.is_some_and(|epoch| int(of) <= epoch - RETENTION_EPOCHS) {
                    counts.expired_boxes += boxes;
                }
            }
            Ok(counts)
        })
    }

    /// A stored box is on the network since this epoch, or a later one.
    pub fn put_in_epoch(&self, id: ChannelId, wanted: BoxSeq, epoch: u64) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.run(
                "UPDATE box SET epoch = ?3
                 WHERE chain = (SELECT chain FROM channel WHERE id = ?1) AND seq = ?2 AND state = 4",
                params![id.0, int(wanted.0), int(epoch)],
            )?;
            ledger.touch(id);
            Ok(())
        })
    }

    /// Keeps what expires of a channel that we write on the network until then, at this share of the network's pace.
    pub fn keep(&self, id: ChannelId, until: SystemTime, share: Option<f64>) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.writer(id)?;
            ledger.run(
                "UPDATE channel SET kept_until = ?2, keep_share = coalesce(?3, keep_share) WHERE id = ?1",
                params![id.0, to_nanos(until), share],
            )?;
            ledger.touch(id);
            Ok(())
        })
    }

    /// The share of the network's pace that sending a channel's boxes again may take.
    pub fn keep_share(&self, id: ChannelId) -> Result<f64, StoreError> {
        self.readers().ask(|db| {
            let found = one(db, "SELECT keep_share FROM channel WHERE id = ?1", [id.0], |row| row.get(0))?;
            found.ok_or(StoreError::NoChannel)
        })
    }
}

impl Ledger<'_> {
    /// Whether the writer of a channel that we read keeps it on the network still: by the network's own time, where that is
    /// known.
    pub(super) fn is_kept(&self, id: ChannelId, epoch: Option<i64>) -> Result<bool, StoreError> {
        let until =
            self.one("SELECT kept_until FROM channel WHERE id = ?1", [id.0], |row| row.get::<_, Option<i64>>(0))?;
        let Some(until) = until.flatten().map(from_nanos) else { return Ok(false) };
        let now =
            epoch.map_or(from_nanos(self.now), |epoch| replica_epoch_begins(u64::try_from(epoch).unwrap_or_default()));
        Ok(until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_epochs_begin_on_thursdays() {
        let begins = |epoch| replica_epoch_begins(epoch).duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(begins(0), 1_496_275_200);
        assert_eq!(begins(494), 1_795_046_400, "2026-11-19T00:00Z");
        for epoch in [0, 1, 494] {
            let begins = replica_epoch_begins(epoch);
            assert_eq!(replica_epoch_at(begins), epoch);
            assert_eq!(replica_epoch_at(begins - Duration::from_secs(1)), epoch.saturating_sub(1));
        }
    }
}
