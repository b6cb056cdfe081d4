//! The boxes and the network's own keys on disk. Commits are the shell's: a group of events is one transaction.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tracing::error;

use super::LocalnetError;
use super::document::Identity;
use super::replica::BoxStore;
use crate::bacap::{BoxId, SealedBox};

const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE identity (name TEXT PRIMARY KEY, key BLOB NOT NULL CHECK (length(key) = 32)) WITHOUT ROWID;
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE box (
    box_id BLOB NOT NULL UNIQUE CHECK (length(box_id) = 32),
    payload BLOB NOT NULL,
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    epoch INTEGER NOT NULL
);
CREATE INDEX box_by_epoch ON box (epoch);
";

pub(super) struct Disk {
    connection: Connection,
    /// The first thing that could not be kept since the last commit.
    failed: Option<rusqlite::Error>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, LocalnetError> {
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
        connection.pragma_update(None, "journal_mode", "WAL").map_err(told)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(told)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
        match found {
            0 => connection
                .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))
                .map_err(told)?,
            VERSION => {}
            found => return Err(LocalnetError::NewerSchema { path: path.to_owned(), found, known: VERSION }),
        }
        Ok(Self { connection, failed: None })
    }

    /// The network's keys, made at its first start.
    pub(super) fn identity(&self) -> rusqlite::Result<Identity> {
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
    pub(super) fn max_plaintext(&self, asked: usize) -> rusqlite::Result<usize> {
        let asked = i64::try_from(asked).unwrap_or(i64::MAX);
        self.connection.execute("INSERT OR IGNORE INTO setting (name, value) VALUES ('max_plaintext', ?)", [asked])?;
        let kept: i64 =
            self.connection
                .query_row("SELECT value FROM setting WHERE name = 'max_plaintext'", [], |row| row.get(0))?;
        Ok(usize::try_from(kept).unwrap_or(1))
    }

    /// Deletes what no read can see any more.
    pub(super) fn expire(&self, current_epoch: u64) -> rusqlite::Result<usize> {
        let oldest = i64::try_from(current_epoch.saturating_sub(1)).unwrap_or(i64::MAX);
        self.connection.execute("DELETE FROM box WHERE epoch < ?", [oldest])
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.failed = None;
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Commits what was kept since [`Self::begin`], all of it or nothing.
    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.connection.execute_batch("COMMIT"),
        };
        if result.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }
}

impl BoxStore for Disk {
    fn get(&mut self, box_id: &BoxId) -> Option<(SealedBox, u64)> {
        let found = self
            .connection
            .prepare_cached("SELECT payload, signature, epoch FROM box WHERE box_id = ?")
            .and_then(|mut row| {
                row.query_row([box_id.0], |row| {
                    let sealed = SealedBox { box_id: *box_id, payload: row.get(0)?, signature: row.get(1)? };
                    Ok((sealed, u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)))
                })
                .optional()
            });
        found.unwrap_or_else(|error| {
            error!(%error, "a box could not be looked up");
            None
        })
    }

    fn put(&mut self, sealed: &SealedBox, epoch: u64) {
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        let kept = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO box (box_id, payload, signature, epoch) VALUES (?, ?, ?, ?)")
            .and_then(|mut row| row.execute(params![sealed.box_id.0, sealed.payload, sealed.signature, epoch]));
        if let Err(error) = kept {
            self.failed.get_or_insert(error);
        }
    }
}
