//! One transaction as the requests see it: the connection, the time, and which channels were touched.

use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::{BoxSeq, ChannelId, Content, Limits, Role, StoreError};
use crate::bacap::BoxIndex;

/// What a request is applied to. Requests are methods of this type, one file a subject.
pub(super) struct Ledger<'a> {
    db: &'a Connection,
    pub(super) limits: Limits,
    /// The time of this transaction, in nanoseconds since 1970.
    pub(super) now: i64,
    effects: Effects,
}

/// Whether the log may hold what a person gave up, and when it is to be emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GivenUp {
    /// There is nothing of that kind.
    #[default]
    Nothing,
    /// As soon as nothing else is to be done.
    Later,
    /// Before the request is answered: a capability was given up.
    Now,
}

/// What others are to know of a transaction once it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// The channels that it changed.
    pub(super) touched: Vec<ChannelId>,
    /// It left boxes to be deleted.
    pub(super) litter: bool,
    /// A person gave something up: no copy of it is to be left in the log.
    pub(super) given_up: GivenUp,
}

/// What the requests need of a channel's row.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) content: Content,
    pub(super) chain: i64,
    pub(super) network: Option<i64>,
    pub(super) max_plaintext: u64,
    pub(super) fence: Option<String>,
    pub(super) launched: bool,
    pub(super) shown: bool,
    pub(super) size: u64,
    pub(super) boxes: u64,
    pub(super) tail_bytes: u64,
    pub(super) launched_end: u64,
    pub(super) first_unstored: u64,
    pub(super) stored_bytes: u64,
    pub(super) frontier: u64,
    pub(super) rewrites: u64,
    pub(super) dropped_boxes: u64,
    pub(super) dropped_bytes: u64,
    pub(super) lost_end: u64,
    pub(super) unfit: Option<i64>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(db: &'a Connection, limits: Limits, now: i64) -> Self {
        Self { db, limits, now, effects: Effects::default() }
    }

    /// The channel will be said to have changed, once this is committed.
    pub(super) fn touch(&mut self, id: ChannelId) {
        if !self.effects.touched.contains(&id) {
            self.effects.touched.push(id);
        }
    }

    pub(super) fn into_effects(self) -> Effects {
        self.effects
    }

    /// How many channels are touched so far, to go back to when a request is undone.
    pub(super) fn mark(&self) -> usize {
        self.effects.touched.len()
    }

    pub(super) fn back_to(&mut self, mark: usize) {
        self.effects.touched.truncate(mark);
    }

    /// There is something to delete, once this is committed.
    pub(super) fn litter(&mut self) {
        self.effects.litter = true;
    }

    /// A person gave something up: once this is committed, no copy of it is to be left.
    pub(super) fn give_up(&mut self, when: GivenUp) {
        self.effects.given_up = self.effects.given_up.max(when);
    }

    /// A name came or went.
    pub(super) fn list_anew(&self) -> Result<(), StoreError> {
        self.run("UPDATE spool SET listing_changed = ?1", [self.now]).map(drop)
    }

    /// Leaves the boxes of a chain to be deleted. `forgotten`: by the verb that may give up what was sent.
    pub(super) fn abandon(&mut self, chain: i64, forgotten: bool) -> Result<(), StoreError> {
        self.run("UPDATE chain SET abandoned = ?2 WHERE id = ?1", params![chain, 1 + i64::from(forgotten)])?;
        self.litter();
        self.give_up(if forgotten { GivenUp::Now } else { GivenUp::Later });
        Ok(())
    }

    /// Runs a statement; says how many rows it changed.
    pub(super) fn run(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.db.prepare_cached(sql)?.execute(params)?)
    }

    /// The first row, where there is one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.db.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    /// Each row, until `read` says that it has seen enough.
    pub(super) fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            if !read(row)? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn last_insert(&self) -> i64 {
        self.db.last_insert_rowid()
    }

    pub(super) fn record(&self, id: ChannelId) -> Result<Record, StoreError> {
        let sql = "SELECT name, role, chain, network, max_plaintext, fence, launched, shown, size, boxes,
                          tail_bytes, launched_end, first_unstored, stored_bytes, frontier, rewrites,
                          dropped_boxes, dropped_bytes, kind, allow_delete, lost_end, unfit
                   FROM channel WHERE id = ?1";
        self.one(sql, [id.0], |row| {
            Ok(Record {
                name: row.get(0)?,
                role: role(row, 1)?,
                content: content(row, 18, 19)?,
                chain: row.get(2)?,
                network: row.get(3)?,
                max_plaintext: uint(row, 4)?,
                fence: row.get(5)?,
                launched: row.get(6)?,
                shown: row.get(7)?,
                size: uint(row, 8)?,
                boxes: uint(row, 9)?,
                tail_bytes: uint(row, 10)?,
                launched_end: uint(row, 11)?,
                first_unstored: uint(row, 12)?,
                stored_bytes: uint(row, 13)?,
                frontier: uint(row, 14)?,
                rewrites: uint(row, 15)?,
                dropped_boxes: uint(row, 16)?,
                dropped_bytes: uint(row, 17)?,
                lost_end: uint(row, 20)?,
                unfit: row.get(21)?,
            })
        })?
        .ok_or(StoreError::NoChannel)
    }

    pub(super) fn writer(&self, id: ChannelId) -> Result<Record, StoreError> {
        let record = self.record(id)?;
        if record.role == Role::Reader { Err(StoreError::ReadOnly) } else { Ok(record) }
    }

    pub(super) fn reader(&self, id: ChannelId) -> Result<Record, StoreError> {
        let record = self.record(id)?;
        if record.role == Role::Writer { Err(StoreError::NotAReader) } else { Ok(record) }
    }

    /// The index of the box after the last (writer), or of the frontier (reader).
    pub(super) fn next_index(&self, id: ChannelId) -> Result<BoxIndex, StoreError> {
        self.one("SELECT next_index FROM channel WHERE id = ?1", [id.0], |row| index(row, 0))?
            .ok_or(StoreError::NoChannel)
    }

    /// A chain with no boxes yet.
    pub(super) fn new_chain(&self) -> Result<i64, StoreError> {
        self.run("INSERT INTO chain DEFAULT VALUES", [])?;
        Ok(self.last_insert())
    }
}

/// Adds boxes to the end of a chain, each with the next index.
pub(super) struct Packer {
    pub(super) chain: i64,
    /// The next box.
    pub(super) seq: u64,
    pub(super) index: BoxIndex,
    pub(super) offset: u64,
}

impl Packer {
    pub(super) fn add(&mut self, ledger: &Ledger<'_>, payload: &[u8], open: bool) -> Result<(), StoreError> {
        ledger.run(
            "INSERT INTO box (chain, seq, state, index104, offset, payload, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![self.chain, int(self.seq), !open, self.index.as_bytes(), int(self.offset), payload, ledger.now],
        )?;
        self.index = self.index.next()?;
        self.seq += 1;
        self.offset += payload.len() as u64;
        Ok(())
    }
}

/// A number as SQLite keeps it. What is beyond its range matches no row, and is refused by the schema's checks.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that the schema keeps from being negative.
pub(super) fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

pub(super) fn role_code(role: Role) -> i64 {
    match role {
        Role::Writer => 0,
        Role::Reader => 1,
    }
}

pub(super) fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    match row.get(column)? {
        0_i64 => Ok(Role::Writer),
        1 => Ok(Role::Reader),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(column, other)),
    }
}

/// What a channel carries, from its two columns.
pub(super) fn content(row: &Row<'_>, kind: usize, allow_delete: usize) -> rusqlite::Result<Content> {
    match row.get(kind)? {
        0_i64 => Ok(Content::Stream),
        1 => Ok(Content::Drop { allow_delete: row.get(allow_delete)? }),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(kind, other)),
    }
}

pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<super::BoxState> {
    let code = row.get(column)?;
    super::BoxState::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, code))
}

pub(super) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<BoxSeq> {
    uint(row, column).map(BoxSeq)
}

/// An index, straight from the page that SQLite holds, so that no copy is left behind.
pub(super) fn index(row: &Row<'_>, column: usize) -> rusqlite::Result<BoxIndex> {
    let bytes = row.get_ref(column)?.as_blob()?;
    BoxIndex::from_bytes(bytes).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
    })
}
