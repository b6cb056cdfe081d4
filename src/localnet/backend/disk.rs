//! The boxes and the network's own keys on disk. Commits are the shell's: a group of events is one transaction.
//!
//! Boxes come in the order of their writing, so that a commit touches few pages of the table: the table is kept by row
//! number, with the random identities in an index of their own. Nothing is read or counted at the start, and no more than
//! `CACHE_KIB` of it is ever in memory.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row as SqlRow, params};
use tracing::error;

use super::store::{BoxStore, Holders, Row, Unreadable, newest_first};
use crate::bacap::{BoxId, SealedBox};
use crate::localnet::LocalnetError;
use crate::localnet::document::Identity;

const VERSION: i64 = 2;
/// Page cache of the database, which bounds what it takes of memory.
const CACHE_KIB: i64 = 16 * 1024;
/// Pages of the log that are written back together: the more, the fewer times an index page is written.
const CHECKPOINT_PAGES: i64 = 4000;
/// What the log keeps of the disk once it was longer.
const LOG_BYTES: i64 = 64 << 20;

const KEYS: &str = "
CREATE TABLE identity (name TEXT PRIMARY KEY, key BLOB NOT NULL CHECK (length(key) = 32)) WITHOUT ROWID;
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";
/// `holders` has bit 0 for the first of a box's holders and bit 1 for the second.
const BOXES: &str = "
CREATE TABLE box (
    id INTEGER PRIMARY KEY,
    box_id BLOB NOT NULL CHECK (length(box_id) = 32),
    payload BLOB NOT NULL,
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    epoch INTEGER NOT NULL,
    holders INTEGER NOT NULL CHECK (holders BETWEEN 1 AND 3)
);
";
const INDICES: &str = "
CREATE INDEX box_by_box_id ON box (box_id);
CREATE INDEX box_by_epoch ON box (epoch);
CREATE INDEX box_unreplicated ON box (id) WHERE holders < 3;
";
/// Version 1 had one row a box and knew of no holders.
const FROM_1: &str = "
INSERT INTO box (box_id, payload, signature, epoch, holders)
    SELECT box_id, payload, signature, epoch, 3 FROM box_1 ORDER BY epoch, rowid;
DROP TABLE box_1;
";

pub(in crate::localnet) struct Disk {
    connection: Connection,
    /// The first thing that could not be kept since the last commit.
    failed: Option<rusqlite::Error>,
    changed: bool,
}

impl Disk {
    pub(in crate::localnet) fn open(path: &Path) -> Result<Self, LocalnetError> {
        let told =
            |error: rusqlite::Error| LocalnetError::Database { path: path.to_owned(), reason: error.to_string() };
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| LocalnetError::Database { path: path.to_owned(), reason: error.to_string() })?;
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(told)?;
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
            connection.pragma_update(None, name, value).map_err(told)?;
        }
        let limits =
            [("cache_size", -CACHE_KIB), ("wal_autocheckpoint", CHECKPOINT_PAGES), ("journal_size_limit", LOG_BYTES)];
        for (name, value) in limits {
            connection.pragma_update(None, name, value).map_err(told)?;
        }
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
        let change = match found {
            0 => format!("{KEYS}{BOXES}{INDICES}"),
            1 => format!("DROP INDEX box_by_epoch; ALTER TABLE box RENAME TO box_1; {BOXES}{FROM_1}{INDICES}"),
            VERSION => String::new(),
            found => return Err(LocalnetError::NewerSchema { path: path.to_owned(), found, known: VERSION }),
        };
        if !change.is_empty() {
            connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {change} PRAGMA user_version = {VERSION}; COMMIT;"))
                .map_err(told)?;
        }
        Ok(Self { connection, failed: None, changed: false })
    }

    /// The network's keys, made at its first start.
    pub(in crate::localnet) fn identity(&self) -> rusqlite::Result<Identity> {
        let key = |name: &str| {
            self.connection.execute(
                "INSERT OR IGNORE INTO identity (name, key) VALUES (?, ?)",
                params![name, rand::random::<[u8; 32]>()],
            )?;
            self.connection.query_row("SELECT key FROM identity WHERE name = ?", [name], |row| row.get(0))
        };
        Ok(Identity { envelope_key: key("envelope")?, authority_key: key("authority")?, courier_key: key("courier")? })
    }

    /// The network's M: what it was first started with, or `asked` where that is now.
    pub(in crate::localnet) fn max_plaintext(&self, asked: usize) -> rusqlite::Result<usize> {
        let asked = i64::try_from(asked).unwrap_or(i64::MAX);
        self.connection.execute("INSERT OR IGNORE INTO setting (name, value) VALUES ('max_plaintext', ?)", [asked])?;
        let kept: i64 =
            self.connection
                .query_row("SELECT value FROM setting WHERE name = 'max_plaintext'", [], |row| row.get(0))?;
        Ok(usize::try_from(kept).unwrap_or(1))
    }

    /// Whether anything is to be committed.
    pub(in crate::localnet) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Commits what was changed since the last commit, all of it or nothing.
    pub(in crate::localnet) fn commit(&mut self) -> rusqlite::Result<()> {
        self.changed = false;
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None if self.connection.is_autocommit() => return Ok(()),
            None => self.run("COMMIT", []).map(drop),
        };
        if result.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    /// The next commit fails, as on a full disk.
    #[cfg(test)]
    pub(super) fn fail(&mut self) {
        self.failed = Some(rusqlite::Error::InvalidQuery);
    }

    /// Changes something, in a transaction that begins with the first change.
    fn change(&mut self, sql: &str, values: impl rusqlite::Params) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let begun = match self.changed {
            true => Ok(0),
            false => self.run("BEGIN IMMEDIATE", []),
        };
        self.changed = true;
        let changed = begun.and_then(|_| self.run(sql, values));
        changed.unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            0
        })
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(values)
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Unreadable> {
        let found = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(values, read)?.collect::<rusqlite::Result<Vec<_>>>());
        found.map_err(|error| {
            error!(%error, "boxes could not be looked up");
            Unreadable
        })
    }
}

impl BoxStore for Disk {
    fn find(&mut self, box_id: &BoxId, oldest: u64) -> Result<Vec<Row>, Unreadable> {
        let read = |row: &SqlRow<'_>| {
            Ok(Row {
                id: row.get(0)?,
                sealed: SealedBox { box_id: *box_id, payload: row.get(1)?, signature: row.get(2)? },
                epoch: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                holders: Holders::from_bits(row.get(4)?),
            })
        };
        let sql = "SELECT id, payload, signature, epoch, holders FROM box WHERE box_id = ? AND +epoch >= ?";
        let mut found = self.rows(sql, params![box_id.0, number(oldest)], read)?;
        newest_first(&mut found);
        Ok(found)
    }

    fn insert(&mut self, sealed: &SealedBox, epoch: u64, holders: Holders) {
        self.change(
            "INSERT INTO box (box_id, payload, signature, epoch, holders) VALUES (?, ?, ?, ?, ?)",
            params![sealed.box_id.0, sealed.payload, sealed.signature, number(epoch), holders.bits()],
        );
    }

    fn set_holders(&mut self, row: &Row, holders: Holders) {
        if holders == Holders::NONE {
            self.change("DELETE FROM box WHERE id = ?", [row.id]);
        } else {
            self.change("UPDATE box SET holders = ? WHERE id = ?", params![holders.bits(), row.id]);
        }
    }

    fn expire(&mut self, oldest: u64, limit: usize) -> usize {
        self.change(
            "DELETE FROM box WHERE id IN (SELECT id FROM box WHERE epoch < ? LIMIT ?)",
            params![number(oldest), i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    fn unreplicated(&mut self, limit: usize) -> Vec<(BoxId, usize)> {
        let sql = "SELECT box_id, holders FROM box WHERE holders < 3 ORDER BY id LIMIT ?";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &SqlRow<'_>| Ok((BoxId(row.get(0)?), usize::from(row.get::<_, u8>(1)? == 2)));
        self.rows(sql, [limit], read).unwrap_or_default()
    }
}

fn number(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}
