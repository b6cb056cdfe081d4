//! Questions, answered from memory, or from counters and indices by connections that only read.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use zeroize::Zeroizing;

use super::MAX_AHEAD_BOXES;
use super::catalog::News;
use super::channels::capability;
use super::drops::place;
use super::ledger::{content, index, int, role, seq, state, uint};
use super::nanos::from_nanos;
use super::{
    BoxSeq, BoxState, Capability, Channel, ChannelId, ChannelName, Durability, NetworkId, OutBox, Role, Store,
    StoreError, Usage,
};
use crate::bacap::{BoxIndex, TextNetwork};

/// Most bytes that one [`Store::read`] returns.
pub const MAX_READ_BYTES: usize = 4 << 20;

const CHANNEL: &str = "
    SELECT c.id, c.name, c.role, c.size, c.stored_bytes, c.boxes, c.stored_boxes, c.first_unstored, c.tail_bytes,
           c.rewrites, c.created, c.modified, c.accessed, c.dropped_mode, c.launched, c.shown, c.fence, c.frontier,
           c.verdict_at, c.max_plaintext, n.keys, c.changed, c.dropped_bytes, c.held_bytes, c.lost_end, c.skipped_boxes,
           c.kind, c.allow_delete, c.assembled, c.astray,
           c.durability, c.couriered_boxes, c.couriered_bytes, c.stale_since, c.searched, c.search_probes,
           c.launched_end, c.unfit, c.stale_epoch,
           n.localnet, c.kind_is_told, c.text_network, c.strict_network, c.kept_until, c.uid, c.gid, c.cap_elsewhere,
           EXISTS (SELECT 1 FROM invitation i WHERE i.channel = c.id AND i.stage <> 4)
    FROM channel c LEFT JOIN network n ON n.id = c.network";

impl Store {
    /// Up to `limit` channels in the order of their names, those after `after`.
    pub fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Result<Vec<Channel>, StoreError> {
        self.catalog().channels(after, limit)
    }

    /// The channel, where there is one.
    pub fn channel(&self, id: ChannelId) -> Result<Option<Channel>, StoreError> {
        self.catalog().channel(id)
    }

    /// A number that grows with every commit that touches the channel or its records; `None`: there is no such channel.
    /// It is known before the commit is acknowledged.
    pub fn version(&self, id: ChannelId) -> Result<Option<u64>, StoreError> {
        self.catalog().version(id)
    }

    /// The channel of this name, where there is one.
    pub fn by_name(&self, name: &ChannelName) -> Result<Option<Channel>, StoreError> {
        self.catalog().by_name(name)
    }

    /// Bytes from `offset` on, up to `len` and up to [`MAX_READ_BYTES`]: what was accepted (writer), or has arrived
    /// without a gap (reader). Fewer only at the end of those. What was dropped is [`StoreError::Dropped`].
    pub fn read(&self, id: ChannelId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let len = len.min(MAX_READ_BYTES);
        self.readers().ask(|db| {
            // One snapshot for both questions.
            let snapshot = db.unchecked_transaction()?;
            let sql = "SELECT chain, dropped_bytes, size FROM channel WHERE id = ?1";
            let found = one(&snapshot, sql, [id.0], |row| Ok((row.get::<_, i64>(0)?, uint(row, 1)?, uint(row, 2)?)))?;
            let (chain, dropped_bytes, size) = found.ok_or(StoreError::NoChannel)?;
            if offset < dropped_bytes {
                return Err(StoreError::Dropped { end: dropped_bytes });
            }
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut bytes = Vec::with_capacity(len.min(left));
            // From the last box that begins at or before the offset. Past a reader's frontier boxes have none.
            each(
                &snapshot,
                "SELECT offset, payload FROM box
                 WHERE chain = ?1
                   AND offset >= coalesce((SELECT b.offset FROM box b WHERE b.chain = ?1 AND b.offset <= ?2
                                           ORDER BY b.offset DESC LIMIT 1), 0)
                 ORDER BY offset, seq",
                params![chain, int(offset)],
                |row| {
                    let begin = uint(row, 0)?;
                    let payload = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
                    let skip = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
                    let fresh = payload.get(skip..).unwrap_or_default();
                    bytes.extend_from_slice(&fresh[..fresh.len().min(len - bytes.len())]);
                    Ok(bytes.len() < len)
                },
            )?;
            Ok(bytes)
        })
    }

    /// Up to `limit` boxes from `from` on that are to be sent or to be confirmed: sealed, launched or couriered.
    pub fn outgoing(&self, id: ChannelId, from: BoxSeq, limit: usize) -> Result<Vec<OutBox>, StoreError> {
        self.readers().ask(|db| {
            let found = one(db, "SELECT chain, first_unstored, role FROM channel WHERE id = ?1", [id.0], |row| {
                Ok((row.get::<_, i64>(0)?, uint(row, 1)?, role(row, 2)?))
            })?;
            let (chain, first_unstored, role) = found.ok_or(StoreError::NoChannel)?;
            if role == Role::Reader {
                return Err(StoreError::ReadOnly);
            }
            let mut boxes = Vec::new();
            each(
                db,
                "SELECT seq, index104, payload, state FROM box
                 WHERE chain = ?1 AND seq >= ?2 AND state BETWEEN 1 AND 3 ORDER BY seq LIMIT ?3",
                params![chain, int(from.0.max(first_unstored)), int(limit as u64)],
                |row| {
                    boxes.push(OutBox {
                        seq: seq(row, 0)?,
                        index: index(row, 1)?,
                        payload: row.get(2)?,
                        state: state(row, 3)?,
                    });
                    Ok(true)
                },
            )?;
            Ok(boxes)
        })
    }

    /// How far up to `limit` boxes from `from` on are that are to be sent or to be confirmed, and since when; without
    /// their bytes.
    pub fn outgoing_states(
        &self,
        id: ChannelId,
        from: BoxSeq,
        limit: usize,
    ) -> Result<Vec<(BoxSeq, BoxState, Option<SystemTime>)>, StoreError> {
        self.readers().ask(|db| {
            let mut boxes = Vec::new();
            each(
                db,
                "SELECT b.seq, b.state, b.since FROM channel c JOIN box b ON b.chain = c.chain
                 WHERE c.id = ?1 AND c.role = 0 AND b.seq >= max(?2, c.first_unstored) AND b.state BETWEEN 1 AND 3
                 ORDER BY b.seq LIMIT ?3",
                params![id.0, int(from.0), int(limit as u64)],
                |row| {
                    boxes.push((seq(row, 0)?, state(row, 1)?, row.get::<_, Option<i64>>(2)?.map(from_nanos)));
                    Ok(true)
                },
            )?;
            Ok(boxes)
        })
    }

    /// Since when the oldest box of a writer waits that no replica has confirmed: since it was sealed, or, where a
    /// courier has it, since then.
    pub fn oldest_unstored(&self, id: ChannelId) -> Result<Option<SystemTime>, StoreError> {
        self.since_of(id, "b.seq = c.first_unstored AND b.state BETWEEN 1 AND 3")
    }

    /// When the oldest box of a writer that is kept here was confirmed by a replica.
    pub fn oldest_stored(&self, id: ChannelId) -> Result<Option<SystemTime>, StoreError> {
        self.since_of(id, "b.seq = c.dropped_boxes AND b.state = 4")
    }

    fn since_of(&self, id: ChannelId, which: &str) -> Result<Option<SystemTime>, StoreError> {
        let sql = format!(
            "SELECT b.since FROM channel c JOIN box b ON b.chain = c.chain WHERE c.id = ?1 AND c.role = 0 AND {which}"
        );
        self.readers().ask(|db| {
            let since = one(db, &sql, [id.0], |row| row.get::<_, Option<i64>>(0))?;
            Ok(since.flatten().map(from_nanos))
        })
    }

    /// Boxes of a reader that have arrived past `frontier`, in order: at most [`MAX_AHEAD_BOXES`].
    pub fn arrived_past(&self, id: ChannelId, frontier: BoxSeq) -> Result<Vec<BoxSeq>, StoreError> {
        self.readers().ask(|db| {
            let chain = chain(db, id)?;
            let mut arrived = Vec::new();
            let sql = "SELECT seq FROM box WHERE chain = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
            each(db, sql, params![chain, int(frontier.0), int(MAX_AHEAD_BOXES)], |row| {
                arrived.push(seq(row, 0)?);
                Ok(true)
            })?;
            Ok(arrived)
        })
    }

    /// The index of a box: of one that exists, or of one up to [`MAX_AHEAD_BOXES`] past them.
    pub fn index_of(&self, id: ChannelId, box_seq: BoxSeq) -> Result<BoxIndex, StoreError> {
        self.readers().ask(|db| {
            // One snapshot for both questions.
            let snapshot = db.unchecked_transaction()?;
            let sql =
                "SELECT chain, CASE role WHEN 0 THEN boxes ELSE frontier END, next_index FROM channel WHERE id = ?1";
            let found = one(&snapshot, sql, [id.0], |row| Ok((row.get::<_, i64>(0)?, uint(row, 1)?, index(row, 2)?)))?;
            let (chain, mut next, mut next_index) = found.ok_or(StoreError::NoChannel)?;
            // The box itself, or the nearest before it: past a long hole there are some.
            let sql = "SELECT seq, index104 FROM box WHERE chain = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
            let near = one(&snapshot, sql, params![chain, int(box_seq.0)], |row| Ok((uint(row, 0)?, index(row, 1)?)))?;
            match near {
                Some((seq, index)) if seq == box_seq.0 => return Ok(index),
                Some((seq, index)) if seq > next => (next, next_index) = (seq, index),
                _ => {}
            }
            let ahead = box_seq.0.checked_sub(next).ok_or(StoreError::NoBox { seq: box_seq })?;
            if ahead >= MAX_AHEAD_BOXES {
                return Err(StoreError::TooFarAhead { seq: box_seq, limit: MAX_AHEAD_BOXES });
            }
            (0..ahead).try_fold(next_index, |index, _| Ok(index.next()?))
        })
    }

    /// How far each box of a channel is, from the first one that is here, and what it holds.
    #[cfg(test)]
    pub(crate) fn rows(&self, id: ChannelId, from: BoxSeq, limit: usize) -> Vec<(BoxSeq, BoxState, Vec<u8>)> {
        let mut rows = Vec::new();
        let asked = self.readers().ask(|db| {
            let chain = chain(db, id)?;
            let sql = "SELECT seq, state, payload FROM box WHERE chain = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";
            each(db, sql, params![chain, int(from.0), int(limit as u64)], |row| {
                rows.push((seq(row, 0)?, state(row, 1)?, row.get(2)?));
                Ok(true)
            })
        });
        asked.expect("a store that can be asked");
        rows
    }

    /// What we hold of the channel.
    pub fn cap(&self, id: ChannelId) -> Result<Capability, StoreError> {
        self.readers().ask(|db| {
            let found = one(db, "SELECT role, cap FROM channel WHERE id = ?1", [id.0], |row| {
                Ok((role(row, 0)?, Zeroizing::new(row.get::<_, Vec<u8>>(1)?)))
            })?;
            let (role, bytes) = found.ok_or(StoreError::NoChannel)?;
            capability(role, &bytes)
        })
    }

    /// Bytes accepted and not yet stored by replicas, over all channels.
    pub fn spool_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.usage()?.spool_bytes)
    }

    /// What the store has taken, over all channels.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.catalog().usage()
    }
}

/// All that the catalog begins with.
pub(super) fn everything(db: &Connection) -> Result<News, StoreError> {
    let mut channels = Vec::new();
    each(db, CHANNEL, [], |row| {
        let channel = channel(row)?;
        channels.push((channel.id, Some(channel)));
        Ok(true)
    })?;
    Ok(News { channels, usage: usage(db)? })
}

/// What a transaction leaves of the channels that it touched, read inside of it.
pub(super) fn news(db: &Connection, touched: &[ChannelId]) -> Result<News, StoreError> {
    let sql = format!("{CHANNEL} WHERE c.id = ?1");
    let look = |id: &ChannelId| Ok((*id, one(db, &sql, [id.0], channel)?));
    let channels = touched.iter().map(look).collect::<Result<_, StoreError>>()?;
    Ok(News { channels, usage: usage(db)? })
}

fn usage(db: &Connection) -> Result<Usage, StoreError> {
    let sql = "SELECT bytes, cache_bytes, sent_bytes, listing_changed FROM spool";
    let usage = one(db, sql, [], |row| {
        Ok(Usage {
            spool_bytes: uint(row, 0)?,
            cache_bytes: uint(row, 1)?,
            sent_bytes: uint(row, 2)?,
            listing_changed: from_nanos(row.get(3)?),
        })
    })?;
    usage.ok_or_else(|| StoreError::Corrupt { reason: "the count of the spool is missing".to_owned() })
}

fn chain(db: &Connection, id: ChannelId) -> Result<i64, StoreError> {
    one(db, "SELECT chain FROM channel WHERE id = ?1", [id.0], |row| row.get(0))?.ok_or(StoreError::NoChannel)
}

/// A channel but for whether it is paused, which depends on all of them.
fn channel(row: &Row<'_>) -> rusqlite::Result<Channel> {
    let corrupt = |column, text: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, text.into())
    };
    let time = |column| row.get(column).map(from_nanos);
    let role = role(row, 2)?;
    let boxes = uint(row, 5)?;
    let frontier = seq(row, 17)?;
    let keys: Option<Vec<u8>> = row.get(20)?;
    let localnet = row.get::<_, Option<bool>>(39)?.unwrap_or_default();
    let (size, dropped_bytes, cached) = (uint(row, 3)?, uint(row, 22)?, uint(row, 23)?);
    Ok(Channel {
        id: ChannelId(row.get(0)?),
        name: ChannelName::parse(row.get_ref(1)?.as_str()?).map_err(|error| corrupt(1, error.to_string()))?,
        role,
        content: content(row, 26, 27)?,
        assembled: seq(row, 28)?,
        astray: row.get(29)?,
        size,
        stored_bytes: uint(row, 4)?,
        boxes,
        stored_boxes: uint(row, 6)?,
        first_unstored: seq(row, 7)?,
        couriered_boxes: uint(row, 31)?,
        couriered_bytes: uint(row, 32)?,
        durability: if row.get::<_, bool>(30)? { Durability::Couriered } else { Durability::Stored },
        tail_bytes: uint(row, 8)?,
        rewrites: uint(row, 9)?,
        created: time(10)?,
        modified: time(11)?,
        accessed: time(12)?,
        changed: time(21)?,
        dropped_mode: row.get(13)?,
        owner: row.get::<_, Option<u32>>(44)?.zip(row.get(45)?),
        launched: row.get(14)?,
        launched_end: seq(row, 36)?,
        shown: row.get(15)?,
        cap_elsewhere: row.get(46)?,
        invited: row.get(47)?,
        fence: row.get(16)?,
        unfit: row.get::<_, Option<u32>>(37)?.map(|bytes| bytes as usize),
        frontier,
        verdict: row.get::<_, Option<i64>>(18)?.map(from_nanos),
        later_known: role == Role::Reader && boxes > frontier.0,
        lost_end: seq(row, 24)?,
        skipped_boxes: uint(row, 25)?,
        stale_since: row.get::<_, Option<i64>>(33)?.map(from_nanos),
        stale_epoch: place(row, 38)?,
        searched: row.get::<_, Option<i64>>(34)?.map(from_nanos),
        search_probes: row.get(35)?,
        dropped_bytes,
        held_bytes: if role == Role::Reader { cached } else { size.saturating_sub(dropped_bytes) },
        paused: false,
        max_plaintext: row.get::<_, u32>(19)? as usize,
        network: keys
            .map(|keys| NetworkId::from_bytes(&keys).ok_or_else(|| corrupt(20, "not whole keys".to_owned())))
            .transpose()?
            .map(|network| network.embedded(localnet)),
        kind_is_told: row.get(40)?,
        text_network: row
            .get::<_, Option<[u8; 5]>>(41)?
            .map_or(Some(TextNetwork::Unbound), TextNetwork::from_bytes)
            .ok_or_else(|| corrupt(41, "no network".to_owned()))?,
        strict_network: row.get(42)?,
        kept_until: row.get::<_, Option<i64>>(43)?.map(from_nanos),
    })
}

pub(super) fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// Each row, until `read` says that it has seen enough.
pub(super) fn each(
    db: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        if !read(row)? {
            break;
        }
    }
    Ok(())
}
