//! The schema, its invariants, and its migrations.
//!
//! The laws that a box obeys stand here as triggers: what was launched never changes its bytes or its index and is
//! never deleted but with its channel, and a state never goes back.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// The newest schema that this version knows.
const VERSION: i64 = 1;

/// One step each, from the version of its place to the next.
const MIGRATIONS: &[&str] = &[FIRST];

const FIRST: &str = "
CREATE TABLE channel (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 255),
    role INTEGER NOT NULL CHECK (role IN (0, 1)),
    capability BLOB NOT NULL CHECK (length(capability) = CASE role WHEN 0 THEN 168 ELSE 136 END),
    root BLOB NOT NULL CHECK (length(root) = 32),
    network BLOB CHECK (network IS NULL OR length(network) % 32 = 0),
    max_plaintext INTEGER NOT NULL CHECK (max_plaintext > 0),
    next_index BLOB NOT NULL CHECK (length(next_index) = 104),
    size INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0),
    stored_bytes INTEGER NOT NULL DEFAULT 0 CHECK (stored_bytes BETWEEN 0 AND size),
    boxes INTEGER NOT NULL DEFAULT 0 CHECK (boxes >= 0),
    stored_boxes INTEGER NOT NULL DEFAULT 0 CHECK (stored_boxes BETWEEN 0 AND boxes),
    first_unstored INTEGER NOT NULL DEFAULT 0 CHECK (first_unstored BETWEEN 0 AND boxes),
    tail_bytes INTEGER NOT NULL DEFAULT 0 CHECK (tail_bytes >= 0),
    rewrites INTEGER NOT NULL DEFAULT 0,
    launched INTEGER NOT NULL DEFAULT 0 CHECK (launched IN (0, 1)),
    shown INTEGER NOT NULL DEFAULT 0 CHECK (shown IN (0, 1)),
    fence TEXT,
    frontier INTEGER NOT NULL DEFAULT 0 CHECK (frontier >= 0),
    verdict INTEGER,
    later_known INTEGER NOT NULL DEFAULT 0 CHECK (later_known IN (0, 1)),
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    accessed INTEGER NOT NULL,
    dropped_mode INTEGER NOT NULL DEFAULT 0,
    forgotten INTEGER NOT NULL DEFAULT 0 CHECK (forgotten IN (0, 1)),
    UNIQUE (role, root)
);
CREATE TABLE box (
    channel INTEGER NOT NULL REFERENCES channel (id),
    seq INTEGER NOT NULL CHECK (seq >= 0),
    box_index BLOB NOT NULL CHECK (length(box_index) = 104),
    offset INTEGER CHECK (offset >= 0),
    payload BLOB NOT NULL CHECK (typeof(payload) = 'blob' AND (state = 6) = (length(payload) = 0)),
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 6),
    PRIMARY KEY (channel, seq)
);
CREATE INDEX box_by_offset ON box (channel, offset);
CREATE TRIGGER a_launched_box_is_final BEFORE UPDATE OF channel, seq, box_index, payload ON box
WHEN old.state >= 2 AND (new.channel, new.seq, new.box_index, new.payload)
    IS NOT (old.channel, old.seq, old.box_index, old.payload)
BEGIN SELECT RAISE (ABORT, 'the bytes and the index of a launched box never change'); END;
CREATE TRIGGER a_state_never_goes_back BEFORE UPDATE OF state ON box
WHEN new.state < old.state OR (old.state >= 4 AND new.state <> old.state)
BEGIN SELECT RAISE (ABORT, 'the state of a box never goes back'); END;
CREATE TRIGGER a_launched_box_stays BEFORE DELETE ON box
WHEN old.state >= 2 AND (SELECT forgotten FROM channel WHERE id = old.channel) = 0
BEGIN SELECT RAISE (ABORT, 'a launched box is deleted only with its channel'); END;
CREATE TRIGGER a_capability_is_final BEFORE UPDATE OF capability, root, role ON channel
BEGIN SELECT RAISE (ABORT, 'the capability of a channel never changes'); END;
CREATE TRIGGER a_launch_is_final BEFORE UPDATE OF launched, shown ON channel
WHEN new.launched < old.launched OR new.shown < old.shown
BEGIN SELECT RAISE (ABORT, 'what left cannot be taken back'); END;
";

/// Opens the writer's connection, brings the schema up to date, and says how much waits in the spool.
pub(super) fn open(path: &Path) -> Result<(Connection, u64), StoreError> {
    // SQLite gives the mode of the database to its companions, so the file is made first, with ours.
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::Database(error.to_string()))?;
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection, path)?;
    let spool: i64 = connection.query_row(
        "SELECT coalesce(sum(size - stored_bytes), 0) FROM channel WHERE role = 0",
        [],
        |row| row.get(0),
    )?;
    Ok((connection, u64::try_from(spool).unwrap_or(0)))
}

/// A connection that can only look.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: VERSION });
    }
    for (from, step) in (0..VERSION).zip(MIGRATIONS).skip(usize::try_from(found.max(0)).unwrap_or(0)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", from + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
