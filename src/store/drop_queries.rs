//! Questions about drops: their records, and what there is to do for them.

use rusqlite::{Connection, Row, params};

use super::drops::{DropCounts, DropRecord, place};
use super::ledger::{int, seq, uint};
use super::nanos::from_nanos;
use super::queries::{each, one};
use super::{BoxSeq, ChannelId, Store, StoreError};
use super::{RecordId, RecordState};
use crate::drop::Header;

const RECORD: &str = "
    SELECT r.id, c.id, r.state, r.header, r.name, r.size, r.digest, r.staging, r.first_seq, r.end_seq, r.begin,
           r.head_bytes, r.taken, r.reason, r.parts, r.part, r.delivered, r.created,
           r.end_seq IS NOT NULL AND r.end_seq <= c.first_unstored, r.modified, r.deleted_end
    FROM drop_record r JOIN channel c ON c.chain = r.chain";

/// Whether a file of the directory of drops is a record's.
pub(super) const STAGED: &str = "SELECT 1 FROM drop_record r JOIN channel c ON c.chain = r.chain WHERE r.staging = ?1";

/// Whether a record `r` was broken off, and nobody has removed it or sent the file again.
const BROKEN_OFF: &str = "r.state = 5 AND r.delivered = 0
    AND NOT EXISTS (SELECT 1 FROM drop_record n WHERE n.chain = r.chain AND n.path = r.path AND n.name = r.name
                                                   AND n.id > r.id)";

/// A box of a drop that we read, as far as it is known.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DropBox {
    /// Its bytes, and the bytes of the channel before it.
    Bytes(Vec<u8>, u64),
    /// Deleted by its writer.
    Tombstone,
    /// Passed over, or no longer here.
    Lost,
}

impl Store {
    /// Up to `limit` records of a drop in their order, those after `after`.
    pub fn records(&self, id: ChannelId, after: Option<RecordId>, limit: usize) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND r.id > ?2 ORDER BY r.id LIMIT ?3");
        self.collect(&sql, params![id.0, after.map_or(0, |after| after.0), int(limit as u64)])
    }

    /// One record of a drop, where it is there.
    pub fn drop_record(&self, id: ChannelId, record: RecordId) -> Result<Option<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND r.id = ?2");
        self.readers().ask(|db| one(db, &sql, params![id.0, record.0], read_record))
    }

    /// The records of a drop that have this path and name, in their order.
    pub fn records_named(&self, id: ChannelId, path: &str, name: &str) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND r.path = ?2 AND r.name = ?3 ORDER BY r.id");
        self.collect(&sql, params![id.0, path, name])
    }

    /// The record of a drop that is arriving.
    pub fn arriving(&self, id: ChannelId) -> Result<Option<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND r.state = 10");
        self.readers().ask(|db| one(db, &sql, params![id.0], read_record))
    }

    /// The record of a drop whose boxes are made next: one that was begun, or else the oldest of those behind `after` that
    /// wait.
    pub fn unfilled(&self, id: ChannelId, after: Option<RecordId>) -> Result<Option<DropRecord>, StoreError> {
        let sql = format!(
            "{RECORD} WHERE c.id = ?1 AND (r.state = 1 OR (r.state = 0 AND r.id > ?2)) ORDER BY r.state DESC, r.id LIMIT 1"
        );
        self.readers().ask(|db| one(db, &sql, params![id.0, after.map_or(0, |after| after.0)], read_record))
    }

    /// Whether a record of a drop waits behind this one, with its bytes or without any.
    pub(crate) fn next_waiting(&self, id: ChannelId, after: RecordId) -> Result<Option<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND r.state = 0 AND r.id > ?2 ORDER BY r.id LIMIT 1");
        self.readers().ask(|db| one(db, &sql, params![id.0, after.0], read_record))
    }

    /// The oldest record of a drop that replicas do not have all of.
    pub fn unstored(&self, id: ChannelId) -> Result<Option<DropRecord>, StoreError> {
        let sql = format!(
            "{RECORD} WHERE c.id = ?1 AND r.state <= 2 AND (r.end_seq IS NULL OR r.end_seq > c.first_unstored)
             ORDER BY r.id LIMIT 1"
        );
        self.readers().ask(|db| one(db, &sql, params![id.0], read_record))
    }

    /// The newest records of a drop that are broken, up to `limit`.
    pub fn newest_broken(&self, id: ChannelId, limit: usize) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND (r.state = 12 OR {BROKEN_OFF}) ORDER BY r.id DESC LIMIT ?2");
        self.collect(&sql, params![id.0, int(limit as u64)])
    }

    /// Files of a drop that we write that were broken off, up to `limit`: neither removed nor written anew since.
    pub(crate) fn broken_off(&self, id: ChannelId, limit: usize) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!("{RECORD} WHERE c.id = ?1 AND {BROKEN_OFF} ORDER BY r.id LIMIT ?2");
        self.collect(&sql, params![id.0, int(limit as u64)])
    }

    /// How many records of a drop are how far.
    pub fn drop_counts(&self, id: ChannelId) -> Result<DropCounts, StoreError> {
        self.readers().ask(|db| {
            let mut counts = DropCounts::default();
            // One snapshot for both questions.
            let snapshot = db.unchecked_transaction()?;
            let sql = "SELECT n.state, n.is_part, n.records FROM drop_count n JOIN channel c ON c.chain = n.chain
                       WHERE c.id = ?1";
            each(&snapshot, sql, params![id.0], |row| {
                let count = uint(row, 2)?;
                match record_state(row, 0)? {
                    RecordState::Waiting | RecordState::Filling => counts.pending += count,
                    RecordState::Complete if row.get(1)? => {}
                    RecordState::Filled | RecordState::Complete => counts.complete += count,
                    RecordState::Deleting | RecordState::Deleted => counts.deleted += count,
                    RecordState::Incomplete => counts.incomplete += count,
                    RecordState::BrokenOff | RecordState::Broken => counts.broken += count,
                }
                Ok(true)
            })?;
            // What is filled and not stored is no more than the spool.
            let sql = "SELECT count(*) FROM channel c JOIN drop_record r ON r.chain = c.chain
                       WHERE c.id = ?1 AND r.state = 2 AND r.end_seq > c.first_unstored";
            let on_their_way = one(&snapshot, sql, params![id.0], |row| uint(row, 0))?.unwrap_or_default();
            counts.pending += on_their_way;
            counts.complete = counts.complete.saturating_sub(on_their_way);
            Ok(counts)
        })
    }

    /// Drops with records that are not all in boxes.
    pub(crate) fn drops_to_fill(&self) -> Result<Vec<ChannelId>, StoreError> {
        self.ids(
            "SELECT c.id FROM channel c WHERE c.kind = 1 AND c.role = 0 AND c.fence IS NULL
               AND EXISTS (SELECT 1 FROM drop_record r WHERE r.chain = c.chain AND r.state < 2)",
        )
    }

    /// Drops with boxes before their frontier that were not made into records.
    pub(crate) fn drops_to_assemble(&self) -> Result<Vec<ChannelId>, StoreError> {
        self.ids("SELECT id FROM channel WHERE kind = 1 AND role = 1 AND assembled < frontier")
    }

    /// Records whose bytes are no longer needed in their files, as they are stored: some of them.
    pub(crate) fn records_to_unstage(&self) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!(
            "{RECORD} WHERE c.kind = 1 AND c.role = 0 AND r.staging IS NOT NULL AND r.end_seq <= c.first_unstored
             LIMIT 64"
        );
        self.collect(&sql, [])
    }

    /// Records that are to be deleted from the network: the oldest of each drop.
    pub fn records_to_delete(&self) -> Result<Vec<DropRecord>, StoreError> {
        let oldest = "SELECT min(d.id) FROM drop_record d WHERE d.state = 3 GROUP BY d.chain";
        self.collect(&format!("{RECORD} WHERE r.id IN ({oldest}) ORDER BY r.id"), [])
    }

    /// Whether a record has its bytes in this file.
    pub(crate) fn is_staged(&self, staging: &str) -> Result<bool, StoreError> {
        self.readers().ask(|db| Ok(one(db, STAGED, [staging], |_| Ok(()))?.is_some()))
    }

    /// Drops that we read.
    pub(crate) fn read_drops(&self) -> Result<Vec<ChannelId>, StoreError> {
        self.ids("SELECT id FROM channel WHERE kind = 1 AND role = 1")
    }

    /// Boxes of a drop that we read, from `from` on and before its frontier, until they have `bytes` bytes or are
    /// `limit`.
    pub(crate) fn drop_boxes(
        &self,
        id: ChannelId,
        from: BoxSeq,
        limit: u64,
        bytes: usize,
    ) -> Result<Vec<DropBox>, StoreError> {
        self.readers().ask(|db| {
            // One snapshot for both questions.
            let snapshot = db.unchecked_transaction()?;
            let sql = "SELECT chain, frontier FROM channel WHERE id = ?1";
            let found = one(&snapshot, sql, [id.0], |row| Ok((row.get::<_, i64>(0)?, uint(row, 1)?)))?;
            let (chain, frontier) = found.ok_or(StoreError::NoChannel)?;
            let end = frontier.min(from.0.saturating_add(limit));
            let mut boxes = Vec::new();
            let mut left = bytes;
            each(
                &snapshot,
                "SELECT seq, state, offset, payload FROM box WHERE chain = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq",
                params![chain, int(from.0), int(end)],
                |row| {
                    let at = usize::try_from(seq(row, 0)?.0 - from.0).unwrap_or(usize::MAX);
                    while boxes.len() < at {
                        boxes.push(DropBox::Lost);
                    }
                    boxes.push(match row.get(1)? {
                        12 => {
                            let payload: Vec<u8> = row.get(3)?;
                            left = left.saturating_sub(payload.len());
                            DropBox::Bytes(payload, uint(row, 2)?)
                        }
                        13 => DropBox::Tombstone,
                        _ => DropBox::Lost,
                    });
                    Ok(left > 0)
                },
            )?;
            if left > 0 {
                // What is missing at the end was dropped to make room.
                boxes.resize(usize::try_from(end.saturating_sub(from.0)).unwrap_or(usize::MAX), DropBox::Lost);
            }
            Ok(boxes)
        })
    }

    /// Up to `limit` complete parts of a chain, those from number `from` on, in the order of their numbers.
    pub(crate) fn parts(
        &self,
        id: ChannelId,
        parts: [u8; 16],
        from: u32,
        limit: usize,
    ) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!(
            "{RECORD} WHERE c.id = ?1 AND r.parts = ?2 AND r.part >= max(?3, 1) AND r.state = 11
             ORDER BY r.part, r.id LIMIT ?4"
        );
        self.collect(&sql, params![id.0, parts, from, int(limit as u64)])
    }

    /// The part that has this byte of the file that a chain makes, and where the part begins in it.
    pub(crate) fn part_at(
        &self,
        id: ChannelId,
        parts: [u8; 16],
        offset: u64,
    ) -> Result<Option<(DropRecord, u64)>, StoreError> {
        let found = self.readers().ask(|db| {
            let sql = "SELECT r.id, r.part_begin FROM drop_record r JOIN channel c ON c.chain = r.chain
                       WHERE c.id = ?1 AND r.parts = ?2 AND r.part_begin <= ?3
                       ORDER BY r.part_begin DESC, r.size DESC LIMIT 1";
            one(db, sql, params![id.0, parts, int(offset)], |row| Ok((RecordId(row.get(0)?), uint(row, 1)?)))
        })?;
        let Some((part, begin)) = found else { return Ok(None) };
        Ok(self.drop_record(id, part)?.map(|record| (record, begin)))
    }

    /// Up to `limit` chains of a drop that make no file yet: of each the first part that has come, whatever its number.
    pub fn open_chains(&self, id: ChannelId, limit: usize) -> Result<Vec<DropRecord>, StoreError> {
        let sql = format!(
            "{RECORD} WHERE c.id = ?1 AND r.parts IS NOT NULL AND r.state IN (11, 12) AND r.part > 0
               AND r.id = (SELECT min(f.id) FROM drop_record f WHERE f.chain = r.chain AND f.parts = r.parts)
               AND NOT EXISTS (SELECT 1 FROM drop_record w WHERE w.chain = r.chain AND w.parts = r.parts AND w.part = 0)
             ORDER BY r.id LIMIT ?2"
        );
        self.collect(&sql, params![id.0, int(limit as u64)])
    }

    fn collect(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<DropRecord>, StoreError> {
        self.readers().ask(|db| {
            let mut records = Vec::new();
            each(db, sql, params, |row| {
                records.push(read_record(row)?);
                Ok(true)
            })?;
            Ok(records)
        })
    }

    fn ids(&self, sql: &str) -> Result<Vec<ChannelId>, StoreError> {
        self.readers().ask(|db: &Connection| {
            let mut ids = Vec::new();
            each(db, sql, [], |row| {
                ids.push(ChannelId(row.get(0)?));
                Ok(true)
            })?;
            Ok(ids)
        })
    }
}

fn record_state(row: &Row<'_>, column: usize) -> rusqlite::Result<RecordState> {
    let code = row.get(column)?;
    RecordState::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, code))
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<DropRecord> {
    let header = row.get_ref(3)?.as_blob()?;
    let header = match header {
        [] => None,
        bytes => Some(Header::decode(bytes).map(|(header, _)| header).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Blob, Box::new(error))
        })?),
    };
    let parts: Option<[u8; 16]> = row.get(14)?;
    let part: Option<u32> = row.get(15)?;
    Ok(DropRecord {
        id: RecordId(row.get(0)?),
        channel: ChannelId(row.get(1)?),
        state: record_state(row, 2)?,
        header,
        name: row.get(4)?,
        size: uint(row, 5)?,
        digest: row.get(6)?,
        staging: row.get(7)?,
        first: place(row, 8)?.map(BoxSeq),
        end: place(row, 9)?.map(BoxSeq),
        begin: place(row, 10)?.unwrap_or(0),
        head_bytes: uint(row, 11)?,
        taken: uint(row, 12)?,
        reason: row.get(13)?,
        part: parts.zip(part),
        delivered: row.get(16)?,
        created: from_nanos(row.get(17)?),
        stored: row.get(18)?,
        modified: row.get::<_, Option<i64>>(19)?.map(from_nanos),
        deleted_end: place(row, 20)?.map(BoxSeq),
    })
}
