//! Where the database is: in a state directory, by whatever SQLite calls a disk.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use rustix::fs::OFlags;

use super::StoreError;
use super::migrations::{MIGRATIONS, migrate};
use super::private_dir::PrivateDir;
use super::sealed::{SEAL, Sealing};
use super::state_dir::DATABASE;

/// How long a connection waits for another one that stands in its way.
pub(super) const BUSY: Duration = Duration::from_secs(10);
/// The log that goes with it.
const LOG: &str = "pigeonfs.db-wal";
const SHARED_MEMORY: &str = "pigeonfs.db-shm";
/// What a database that is not sealed begins with.
const SQLITE_HEAD: &[u8; 16] = b"SQLite format 3\0";
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Where connections to one database lead.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PrivateDir,
    /// The SQLite VFS, where it is not the one of the operating system: then the database is on no disk of this machine.
    vfs: Option<String>,
    /// The file that was opened first. No connection is made to another one that stands in its place: by closing such a
    /// connection SQLite would delete the log, which is named as ours is.
    first: Arc<OnceLock<(u64, u64)>>,
    sealing: Sealing,
}

/// Which files a database is. Another file of the same name is not the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) database: Option<(u64, u64)>,
    pub(super) log: Option<(u64, u64)>,
}

impl Place {
    pub(super) fn new(dir: PrivateDir, vfs: Option<String>, sealing: Sealing) -> Self {
        Self { dir, vfs, first: Arc::default(), sealing }
    }

    pub(super) fn dir(&self) -> &PrivateDir {
        &self.dir
    }

    /// Opens the database for the one who writes, made where it is missing, and brings it to the newest schema.
    pub(super) fn open(&self) -> Result<Connection, StoreError> {
        let db = self.set_up(self.make()?)?;
        if let Some(database) = self.identity()?.database {
            let _ = self.first.set(database);
        }
        Ok(db)
    }

    /// The same, and nothing is made: for a database that was open before.
    pub(super) fn reopen(&self) -> Result<Connection, StoreError> {
        self.set_up(false)
    }

    /// SQLite says of a file that needs another key, or none, only that it is no database.
    fn unreadable(&self, error: rusqlite::Error) -> StoreError {
        if error.sqlite_error_code() != Some(ErrorCode::NotADatabase) || self.vfs.is_some() {
            return error.into();
        }
        let mut head = [0; SQLITE_HEAD.len()];
        let read = self.dir().file(DATABASE, OFlags::RDONLY).map(|file| file.read_exact_at(&mut head, 0).is_ok());
        let is_plain = read.unwrap_or(false) && head == *SQLITE_HEAD;
        let reason = match (self.sealing.is_sealed(), is_plain) {
            (false, true) => return error.into(),
            (false, false) => {
                format!(
                    "{DATABASE} is sealed, or is damaged; and {SEAL}, which alone has the key of a sealed one, is missing"
                )
            }
            (true, true) => format!("{DATABASE} is not sealed, but {SEAL} says that it is: they are not of one state"),
            (true, false) => {
                format!("{DATABASE} is damaged, or is not of one state with {SEAL}, which has another key")
            }
        };
        StoreError::Corrupt { reason }
    }

    /// A connection that only reads.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        // Not SQLITE_OPEN_READ_ONLY: a reader of a WAL database has its own marks to write in the shared memory.
        let db = self.connect()?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    }

    /// Which files the names in the directory stand for now.
    pub(super) fn identity(&self) -> Result<Identity, StoreError> {
        if self.vfs.is_some() {
            return Ok(Identity { database: None, log: None });
        }
        let which = |name| Ok::<_, StoreError>(self.dir().stat(name)?.map(|found| (found.st_dev, found.st_ino)));
        Ok(Identity { database: which(DATABASE)?, log: which(LOG)? })
    }

    /// Refuses where the database or its log is no longer what was opened: what is committed then is in no file that
    /// has a name.
    pub(super) fn check(&self, opened: &Identity) -> Result<(), StoreError> {
        let found = self.identity()?;
        let name = if found.database != opened.database {
            DATABASE
        } else if opened.log.is_some() && found.log != opened.log {
            LOG
        } else {
            return Ok(());
        };
        Err(self.replaced(name))
    }

    fn replaced(&self, name: &str) -> StoreError {
        let path = self.dir().path().join(name);
        StoreError::Io { reason: format!("{path:?} was removed or replaced while it was in use") }
    }

    /// True: it is a new file. Made here and not by SQLite, so that it is private from the start; the log and the shared
    /// memory take its mode.
    fn make(&self) -> Result<bool, StoreError> {
        if self.vfs.is_some() {
            return Ok(true);
        }
        let file: File = self.dir().file(DATABASE, OFlags::RDWR | OFlags::CREATE)?;
        let found = file.metadata().map_err(|error| StoreError::Io { reason: error.to_string() })?;
        Ok(found.len() == 0)
    }

    fn set_up(&self, fresh: bool) -> Result<Connection, StoreError> {
        let mut db = self.connect()?;
        if fresh {
            // Before the first table, or never: lets what was forgotten be given back to the disk.
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        // The first that is read of it.
        let journal = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        let journal = journal.map_err(|error| self.unreadable(error))?;
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
        self.dir().sync()?;
        Ok(db)
    }

    /// A connection to the database, wherever its directory is now.
    fn connect(&self) -> Result<Connection, StoreError> {
        let db = match &self.vfs {
            Some(vfs) => {
                let flags = FLAGS | OpenFlags::SQLITE_OPEN_CREATE;
                Connection::open_with_flags_and_vfs(Path::new("/").join(DATABASE), flags, vfs.as_str())?
            }
            None => self.connect_by_descriptor()?,
        };
        self.unlock(&db)?;
        configure(&db)?;
        Ok(db)
    }

    /// Before anything else is asked of the connection.
    fn unlock(&self, db: &Connection) -> Result<(), StoreError> {
        let Some(key) = self.sealing.database_key() else { return Ok(()) };
        let cipher: Option<String> = db.query_row("PRAGMA cipher_version", [], |row| row.get(0)).optional()?;
        if cipher.is_none() {
            let reason = "the state is sealed, and this program was built without SQLCipher".to_owned();
            return Err(StoreError::Io { reason });
        }
        Ok(db.pragma_update(None, "key", key.as_str())?)
    }

    fn connect_by_descriptor(&self) -> Result<Connection, StoreError> {
        let dir = self.dir();
        for name in [LOG, SHARED_MEMORY] {
            dir.check_file(name)?;
        }
        if !dir.check_file(DATABASE)? {
            return Err(StoreError::Io { reason: format!("{:?} does not exist", dir.path().join(DATABASE)) });
        }
        if let Some(first) = self.first.get()
            && self.identity()?.database != Some(*first)
        {
            return Err(self.replaced(DATABASE));
        }
        let db = Connection::open_with_flags(dir.through_descriptor().join(DATABASE), FLAGS)?;
        // SQLite resolves the descriptor's link to a path. The directory may have been moved in that moment, and another
        // may stand in its place.
        let (opened, ours) = (db.path().map(std::fs::metadata), dir.stat(DATABASE)?);
        match (opened, ours) {
            (Some(Ok(opened)), Some(ours)) if (opened.dev(), opened.ino()) == (ours.st_dev, ours.st_ino) => Ok(db),
            // A path that is no UTF-8 is not told.
            (None, Some(_)) => Ok(db),
            _ => Err(StoreError::Io {
                reason: format!("the database of {:?} was moved or removed while it was opened", dir.path()),
            }),
        }
    }
}

/// What every connection needs.
fn configure(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Nothing of it may reach a directory for temporary files.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // Else a statement is planned anew each time that it is run with another number, which takes longer than to run it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}
