//! Opening the store, and closing it.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::catalog::Catalog;
use super::migrations::{MIGRATIONS, migrate};
use super::queue::Queue;
use super::readers::Readers;
use super::reserve::{self, Reserve};
use super::state_dir::{private, sync_dir};
use super::writer::Writer;
use super::{Changes, Limits, StateDir, StoreError, queries};

/// Set aside on the disk, so that confirmations can be kept when it is full.
const RESERVE_BYTES: u64 = 16 << 20;

/// The channels of one state directory. Clones share one writer thread; the last one dropped closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    readers: Readers,
    catalog: Arc<Catalog>,
    changes: Changes,
    limits: Limits,
    dir: PathBuf,
    running: Mutex<Option<Running>>,
}

struct Running {
    writer: JoinHandle<()>,
    /// Held until nothing writes any more.
    _state: StateDir,
}

impl Store {
    /// Opens the database of a state directory, which is made where it is missing, and starts the writer thread. The
    /// directory stays locked until [`Store::close`], or until the last clone is dropped.
    pub fn open(state: &StateDir, limits: Limits) -> Result<Self, StoreError> {
        Self::open_with(state, limits, RESERVE_BYTES)
    }

    pub(super) fn open_with(state: &StateDir, limits: Limits, reserve_bytes: u64) -> Result<Self, StoreError> {
        let mut reserve = None;
        let db = match open(state) {
            Ok(db) => db,
            Err(error) if error.is_of_the_storage() && reserve::disk_is_full(state.path()) => {
                // SQLite needs some room to open at all. That is what the reserve is for.
                let mut held = Reserve::open(state.reserve(), reserve_bytes);
                if !held.release() {
                    return Err(StoreError::DiskFull);
                }
                reserve = Some(held);
                open(state)?
            }
            Err(error) => return Err(error),
        };
        let reserve = reserve.unwrap_or_else(|| Reserve::open(state.reserve(), reserve_bytes));
        let catalog = Arc::new(Catalog::new(limits));
        catalog.take(queries::everything(&db)?);
        let queue = Arc::new(Queue::default());
        let changes = Changes::default();
        let writer = Writer {
            db,
            dir: state.path().to_owned(),
            queue: Arc::clone(&queue),
            catalog: Arc::clone(&catalog),
            changes: changes.clone(),
            limits,
            reserve,
            litter: true,
            failed: None,
        };
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Io { reason: format!("the writer thread cannot be started: {error}") })?;
        let running = Mutex::new(Some(Running { writer, _state: state.clone() }));
        Ok(Self(Arc::new(Inner {
            queue,
            readers: Readers::new(state.database()),
            catalog,
            changes,
            limits,
            dir: state.path().to_owned(),
            running,
        })))
    }

    /// Carries out what was submitted, closes the database and lets go of the directory's lock. Requests and questions
    /// after this are [`StoreError::Closed`]. Blocks; the second time it does nothing.
    pub fn close(&self) {
        self.0.close();
    }

    /// Wake-ups after commits.
    pub fn changes(&self) -> Changes {
        self.0.changes.clone()
    }

    /// What it may take of the disk.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Bytes that the disk below has room for, as a user without privileges may take them.
    pub fn disk_free_bytes(&self) -> Result<u64, StoreError> {
        let told = rustix::fs::statvfs(&self.0.dir)
            .map_err(|error| StoreError::Io { reason: format!("{}: {error}", self.0.dir.display()) })?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.0.readers
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.0.queue
    }
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let running = self.running().take();
        if let Some(Running { writer, _state }) = running {
            self.readers.close();
            self.catalog.close();
            // A writer that panicked has said so, and its requests are settled.
            drop(writer.join());
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing panics while it is held.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(state: &StateDir) -> Result<Connection, StoreError> {
    let path = state.database();
    let io = |error: std::io::Error| StoreError::Io { reason: format!("{}: {error}", path.display()) };
    // Made here and not by SQLite, so that it is private from the start; the log and the shared memory take its mode.
    let file =
        private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(&path).map_err(io)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    let fresh = file.metadata().map_err(io)?.len() == 0;
    drop(file);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(&path, flags)?;
    configure(&db)?;
    if fresh {
        // Before the first table, or never: lets what was forgotten be given back to the disk.
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let journal: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if journal != "wal" {
        return Err(StoreError::Io {
            reason: format!("the file system allows no write-ahead log (it offers {journal})"),
        });
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    // The log shrinks again after a large transaction.
    db.pragma_update(None, "journal_size_limit", 16 << 20)?;
    // What is deleted is overwritten.
    db.pragma_update(None, "secure_delete", true)?;
    db.set_prepared_statement_cache_capacity(64);
    migrate(&mut db, MIGRATIONS)?;
    sync_dir(state.path()).map_err(io)?;
    Ok(db)
}

/// What every connection needs.
pub(super) fn configure(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Nothing of it may reach a directory for temporary files.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // Else a statement is planned anew each time that it is run with another number, which takes longer than to run it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}
