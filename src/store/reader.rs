//! A reader's side: what arrived, and how far it goes without a gap.

use rusqlite::{OptionalExtension, params};
use tracing::warn;

use super::append::{channel, next_index, row_number};
use super::query::{now_ns, to_ns};
use super::writer::{Commit, Store, Tx};
use super::{Arrival, BoxSeq, BoxState, Channel, ChannelId, Frontier, Role, StoreError};
use crate::bacap::BoxIndex;

impl Store {
    /// Keeps what reads have found: boxes, the frontier that they make, and the frontier's own verdict, in one
    /// transaction. A box that is here already is not replaced.
    pub fn received(&self, id: ChannelId, found: Vec<(BoxSeq, Arrival)>) -> Commit<Frontier> {
        self.submit(true, move |tx| {
            let channel = channel(tx, id)?;
            if channel.role != Role::Reader {
                return Err(StoreError::NoChannel);
            }
            let mut reader = Reader { index: next_index(tx, id)?, channel };
            for (seq, arrival) in &found {
                match arrival {
                    Arrival::Message(bytes) if bytes.is_empty() => {}
                    Arrival::Message(bytes) => reader.keep(tx, *seq, bytes, BoxState::Received)?,
                    Arrival::Tombstone => reader.keep(tx, *seq, &[], BoxState::Tombstone)?,
                    Arrival::NotYet => {}
                }
            }
            reader.advance(tx)?;
            let frontier = reader.channel.frontier;
            if found.iter().any(|(seq, arrival)| *seq == frontier && *arrival == Arrival::NotYet) {
                reader.channel.verdict = Some(std::time::SystemTime::now());
            }
            reader.finish(tx)
        })
    }
}

struct Reader {
    channel: Channel,
    /// The frontier's.
    index: BoxIndex,
}

impl Reader {
    fn keep(&self, tx: &Tx<'_>, seq: BoxSeq, bytes: &[u8], state: BoxState) -> Result<(), StoreError> {
        let row = params![self.channel.id.0, row_number(seq)?];
        let known: Option<Vec<u8>> = tx
            .sql
            .prepare_cached("SELECT payload FROM box WHERE channel = ? AND seq = ?")?
            .query_row(row, |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            if known != bytes {
                warn!(seq = seq.0, "a box arrived again with other contents; the first ones stay");
            }
            return Ok(());
        }
        if seq < self.channel.frontier {
            return Ok(());
        }
        let index = index_from(&self.index, self.channel.frontier, seq)?;
        tx.sql
            .prepare_cached("INSERT INTO box (channel, seq, box_index, payload, state) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![self.channel.id.0, row_number(seq)?, index.as_bytes(), bytes, state as u8])?;
        Ok(())
    }

    /// Moves the frontier over what is there, and tells each box where its bytes stand.
    fn advance(&mut self, tx: &Tx<'_>) -> Result<(), StoreError> {
        let start = self.channel.frontier;
        {
            let mut rows = tx
                .sql
                .prepare_cached("SELECT seq, length(payload) FROM box WHERE channel = ? AND seq >= ? ORDER BY seq")?;
            let mut place = tx.sql.prepare_cached("UPDATE box SET offset = ?3 WHERE channel = ?1 AND seq = ?2")?;
            let mut rows = rows.query(params![self.channel.id.0, row_number(start)?])?;
            self.channel.later_known = false;
            while let Some(row) = rows.next()? {
                let (seq, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                if seq != row_number(self.channel.frontier)? {
                    self.channel.later_known = true;
                    break;
                }
                let offset = i64::try_from(self.channel.size).map_err(|_| StoreError::Exhausted)?;
                place.execute(params![self.channel.id.0, seq, offset])?;
                self.channel.size += u64::try_from(bytes).unwrap_or(0);
                self.channel.frontier = BoxSeq(self.channel.frontier.0 + 1);
                self.index = self.index.next().map_err(|_| StoreError::Exhausted)?;
            }
        }
        if self.channel.frontier != start {
            self.channel.verdict = None;
        }
        Ok(())
    }

    fn finish(self, tx: &mut Tx<'_>) -> Result<Frontier, StoreError> {
        let channel = &self.channel;
        tx.sql
            .prepare_cached(
                "UPDATE channel SET modified = CASE WHEN size = ?2 THEN modified ELSE ?7 END, size = ?2,
                 stored_bytes = ?2, frontier = ?3, next_index = ?4, verdict = ?5, later_known = ?6 WHERE id = ?1",
            )?
            .execute(params![
                channel.id.0,
                i64::try_from(channel.size).map_err(|_| StoreError::Exhausted)?,
                row_number(channel.frontier)?,
                self.index.as_bytes(),
                channel.verdict.map(to_ns),
                channel.later_known,
                now_ns(),
            ])?;
        tx.touched.insert(channel.id);
        Ok(Frontier { seq: channel.frontier, size: channel.size })
    }
}

/// The index of a box at or past the frontier.
pub(super) fn index_from(frontier_index: &BoxIndex, frontier: BoxSeq, seq: BoxSeq) -> Result<BoxIndex, StoreError> {
    let steps = seq.0.checked_sub(frontier.0).ok_or(StoreError::NoChannel)?;
    let counter = frontier_index.counter().checked_add(steps).ok_or(StoreError::Exhausted)?;
    frontier_index.advance_to(counter).map_err(|_| StoreError::Exhausted)
}
