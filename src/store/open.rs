//! Opening the store, and closing it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;

use super::catalog::Catalog;
use super::clock::Clock;
use super::migrations::{MIGRATIONS, migrate};
use super::private_dir::PrivateDir;
use super::queue::Queue;
use super::readers::Readers;
use super::reserve::{self, Reserve};
use super::state_dir::DATABASE;
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
    state_path: std::path::PathBuf,
    dir: PrivateDir,
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

    /// One that goes by another clock than the system's, with next to no reserve.
    #[cfg(test)]
    pub(crate) fn open_simulated(state: &StateDir, limits: Limits, clock: Clock) -> Result<Self, StoreError> {
        Self::open_at(state, limits, 4096, clock)
    }

    pub(super) fn open_with(state: &StateDir, limits: Limits, reserve_bytes: u64) -> Result<Self, StoreError> {
        Self::open_at(state, limits, reserve_bytes, Clock::default())
    }

    fn open_at(state: &StateDir, limits: Limits, reserve_bytes: u64, clock: Clock) -> Result<Self, StoreError> {
        let mut reserve = None;
        let db = match open(state) {
            Ok(db) => db,
            Err(error) if error.is_of_the_storage() && reserve::disk_is_full(state.dir()) => {
                // SQLite needs some room to open at all. That is what the reserve is for.
                let mut held = Reserve::open(state.dir().clone(), reserve_bytes);
                if !held.release() {
                    return Err(StoreError::DiskFull);
                }
                reserve = Some(held);
                open(state)?
            }
            Err(error) => return Err(error),
        };
        let reserve = reserve.unwrap_or_else(|| Reserve::open(state.dir().clone(), reserve_bytes));
        let catalog = Arc::new(Catalog::new(limits));
        catalog.take(queries::everything(&db)?);
        let queue = Arc::new(Queue::default());
        let changes = Changes::default();
        let writer = Writer {
            db,
            dir: state.dir().clone(),
            queue: Arc::clone(&queue),
            catalog: Arc::clone(&catalog),
            changes: changes.clone(),
            limits,
            clock,
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
            readers: Readers::new(state.dir().clone()),
            catalog,
            changes,
            limits,
            state_path: state.path().to_owned(),
            dir: state.dir().clone(),
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
        Ok(self.0.dir.free_bytes()?)
    }

    /// The state directory as it was named: for messages. It may have been moved since.
    pub fn state_path(&self) -> &Path {
        &self.0.state_path
    }

    /// The state directory itself: whatever is kept in it is opened through this.
    pub fn dir(&self) -> &PrivateDir {
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
    let dir = state.dir();
    // Made here and not by SQLite, so that it is private from the start; the log and the shared memory take its mode.
    let file = dir.file(DATABASE, OFlags::RDWR | OFlags::CREATE)?;
    let io = |error: std::io::Error| StoreError::Io { reason: format!("{:?}: {error}", state.path()) };
    let fresh = file.metadata().map_err(io)?.len() == 0;
    drop(file);
    let mut db = connect(dir)?;
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
    dir.sync()?;
    Ok(db)
}

/// A connection to the database in a state directory, wherever that is now.
pub(super) fn connect(dir: &PrivateDir) -> Result<Connection, StoreError> {
    for name in [DATABASE, "pigeonfs.db-wal", "pigeonfs.db-shm"] {
        dir.check_file(name)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(dir.through_descriptor().join(DATABASE), flags)?;
    // SQLite resolves the descriptor's link to a path. The directory may have been moved in that moment, and another
    // may stand in its place.
    let (opened, ours) = (db.path().map(std::fs::metadata), dir.stat(DATABASE)?);
    match (opened, ours) {
        (Some(Ok(opened)), Some(ours)) if (opened.dev(), opened.ino()) == (ours.st_dev, ours.st_ino) => {}
        // A path that is no UTF-8 is not told.
        (None, Some(_)) => {}
        _ => {
            return Err(StoreError::Io {
                reason: format!("the database of {:?} was moved or removed while it was opened", dir.path()),
            });
        }
    }
    configure(&db)?;
    Ok(db)
}

/// What every connection needs.
fn configure(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Nothing of it may reach a directory for temporary files.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // Else a statement is planned anew each time that it is run with another number, which takes longer than to run it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}
