//! Queries: synchronous, over the read connections, never with an answer as long as a backlog.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::append::row_number;
use super::reader::index_from;
use super::{
    BoxSeq, BoxState, Capability, Channel, ChannelId, ChannelName, NetworkId, OutBox, Role, Store, StoreError,
};
use crate::bacap::{BoxIndex, ReadCap, WriteCap};

/// Most bytes that one read gives.
const READ_BYTES: usize = 4 << 20;
/// Boxes past the frontier that a receiver may have waiting.
const PAST_FRONTIER: i64 = 4096;

pub(super) const CHANNEL_COLUMNS: &str = "id, name, role, size, stored_bytes, boxes, stored_boxes, first_unstored,
    tail_bytes, rewrites, launched, shown, fence, frontier, verdict, later_known, max_plaintext, network, created,
    modified, accessed, dropped_mode";

impl Store {
    /// Channels in the order of their names, behind `after`, at most `limit`.
    pub fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Result<Vec<Channel>, StoreError> {
        self.query(|sql| {
            let text = format!("SELECT {CHANNEL_COLUMNS} FROM channel WHERE name > ? ORDER BY name LIMIT ?");
            let mut rows = sql.prepare_cached(&text)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = rows.query_map(params![after.map_or("", ChannelName::as_str), limit], channel_from_row)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// One channel.
    pub fn channel(&self, id: ChannelId) -> Result<Option<Channel>, StoreError> {
        self.query(|sql| {
            let text = format!("SELECT {CHANNEL_COLUMNS} FROM channel WHERE id = ?");
            Ok(sql.prepare_cached(&text)?.query_row([id.0], channel_from_row).optional()?)
        })
    }

    /// One channel, by its name.
    pub fn by_name(&self, name: &ChannelName) -> Result<Option<Channel>, StoreError> {
        self.query(|sql| {
            let text = format!("SELECT {CHANNEL_COLUMNS} FROM channel WHERE name = ?");
            Ok(sql.prepare_cached(&text)?.query_row([name.as_str()], channel_from_row).optional()?)
        })
    }

    /// The bytes from `offset` on: what there is without a gap, at most `len`.
    pub fn read(&self, id: ChannelId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let (Ok(from), len) = (i64::try_from(offset), len.min(READ_BYTES)) else { return Ok(Vec::new()) };
        self.query(|sql| {
            // Deleted boxes share their offset with the next one, which is behind them.
            let first: Option<i64> = sql
                .prepare_cached(
                    "SELECT seq FROM box WHERE channel = ? AND offset <= ? ORDER BY offset DESC, seq LIMIT 1",
                )?
                .query_row(params![id.0, from], |row| row.get(0))
                .optional()?;
            let mut bytes = Vec::with_capacity(len.min(256 * 1024));
            let Some(first) = first else { return Ok(bytes) };
            let mut rows = sql.prepare_cached(
                "SELECT offset, payload FROM box WHERE channel = ? AND seq >= ? AND offset IS NOT NULL ORDER BY seq",
            )?;
            let mut rows = rows.query(params![id.0, first])?;
            while bytes.len() < len
                && let Some(row) = rows.next()?
            {
                let start: i64 = row.get(0)?;
                let payload = row.get_ref(1)?.as_blob().map_err(|error| StoreError::Database(error.to_string()))?;
                let skip = usize::try_from((from - start).max(0)).unwrap_or(usize::MAX);
                let part = payload.get(skip..).unwrap_or_default();
                bytes.extend_from_slice(&part[..part.len().min(len - bytes.len())]);
            }
            Ok(bytes)
        })
    }

    /// Boxes that are sealed and not stored, in order, from `from` on.
    pub fn outgoing(&self, id: ChannelId, from: BoxSeq, limit: usize) -> Result<Vec<OutBox>, StoreError> {
        self.query(|sql| {
            let first: Option<i64> = sql
                .prepare_cached("SELECT first_unstored FROM channel WHERE id = ?")?
                .query_row([id.0], |row| row.get(0))
                .optional()?;
            let from = row_number(from)?.max(first.unwrap_or(0));
            let mut rows = sql.prepare_cached(
                "SELECT seq, box_index, payload, state FROM box
                 WHERE channel = ? AND seq >= ? AND state BETWEEN 1 AND 3 ORDER BY seq LIMIT ?",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = rows.query_map(params![id.0, from, limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?, row.get::<_, u8>(3)?))
            })?;
            found
                .map(|row| {
                    let (seq, index, payload, state) = row?;
                    let state = BoxState::from_row(state).ok_or_else(|| corrupt("a box's state"))?;
                    Ok(OutBox { seq: seq_from(seq), index: index_of(&index)?, payload, state })
                })
                .collect()
        })
    }

    /// The boxes past the frontier that have arrived.
    pub fn arrived_past(&self, id: ChannelId, frontier: BoxSeq) -> Result<Vec<BoxSeq>, StoreError> {
        self.query(|sql| {
            let mut rows =
                sql.prepare_cached("SELECT seq FROM box WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?")?;
            let found =
                rows.query_map(params![id.0, row_number(frontier)?, PAST_FRONTIER], |row| Ok(seq_from(row.get(0)?)))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The index of a box at or past a reader's frontier.
    pub fn index_of(&self, id: ChannelId, seq: BoxSeq) -> Result<BoxIndex, StoreError> {
        let (frontier, index) = self.query(|sql| {
            let row: Option<(i64, Vec<u8>)> = sql
                .prepare_cached("SELECT frontier, next_index FROM channel WHERE id = ?")?
                .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let (frontier, index) = row.ok_or(StoreError::NoChannel)?;
            Ok((seq_from(frontier), index_of(&index)?))
        })?;
        index_from(&index, frontier, seq)
    }

    /// The capability that we hold.
    pub fn cap(&self, id: ChannelId) -> Result<Capability, StoreError> {
        self.query(|sql| capability(sql, id))
    }
}

pub(super) fn capability(sql: &Connection, id: ChannelId) -> Result<Capability, StoreError> {
    let row: Option<(i64, zeroize::Zeroizing<Vec<u8>>)> = sql
        .prepare_cached("SELECT role, capability FROM channel WHERE id = ?")?
        .query_row([id.0], |row| Ok((row.get(0)?, zeroize::Zeroizing::new(row.get(1)?))))
        .optional()?;
    let (role, bytes) = row.ok_or(StoreError::NoChannel)?;
    let bad = |error: crate::bacap::ParseError| StoreError::Database(format!("a capability is damaged: {error}"));
    match role {
        0 => WriteCap::from_bytes(&bytes).map(Capability::Write).map_err(bad),
        _ => ReadCap::from_bytes(&bytes).map(Capability::Read).map_err(bad),
    }
}

pub(super) fn channel_from_row(row: &Row<'_>) -> rusqlite::Result<Channel> {
    let count = |column: usize| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0));
    let time = |column: usize| row.get::<_, i64>(column).map(from_ns);
    let name: String = row.get(1)?;
    let network: Option<Vec<u8>> = row.get(17)?;
    Ok(Channel {
        id: ChannelId(row.get(0)?),
        name: ChannelName::parse(&name)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into()))?,
        role: if row.get::<_, i64>(2)? == 0 { Role::Writer } else { Role::Reader },
        size: count(3)?,
        stored_bytes: count(4)?,
        boxes: count(5)?,
        stored_boxes: count(6)?,
        first_unstored: BoxSeq(count(7)?),
        tail_bytes: count(8)?,
        rewrites: count(9)?,
        launched: row.get(10)?,
        shown: row.get(11)?,
        fence: row.get(12)?,
        frontier: BoxSeq(count(13)?),
        verdict: row.get::<_, Option<i64>>(14)?.map(from_ns),
        later_known: row.get(15)?,
        max_plaintext: usize::try_from(row.get::<_, i64>(16)?).unwrap_or(1),
        network: network.map(|blob| NetworkId::from_blob(&blob)),
        created: time(18)?,
        modified: time(19)?,
        accessed: time(20)?,
        dropped_mode: row.get(21)?,
    })
}

pub(super) fn now_ns() -> i64 {
    to_ns(SystemTime::now())
}

pub(super) fn to_ns(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

fn from_ns(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { UNIX_EPOCH + span } else { UNIX_EPOCH - span }
}

fn seq_from(row: i64) -> BoxSeq {
    BoxSeq(u64::try_from(row).unwrap_or(0))
}

fn index_of(bytes: &[u8]) -> Result<BoxIndex, StoreError> {
    BoxIndex::from_bytes(bytes).map_err(|_| corrupt("an index"))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Database(format!("{what} is damaged"))
}
