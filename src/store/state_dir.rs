//! The hold on a state directory: one process at a time, private to its owner.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use tracing::warn;

use super::private_dir::{PrivateDir, PrivateDirError};
use super::sealed::{self, SealError, SealHeader, Sealing, StateKey};

/// A locked state directory. The lock is released when the last clone is dropped, and dies with the process.
#[derive(Clone, Debug)]
pub struct StateDir(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// The directory as it was named, absolute.
    path: PathBuf,
    dir: PrivateDir,
    /// Holds the flock; std opens every file close-on-exec.
    lock: File,
    /// The key of a sealed state, once it is unlocked.
    key: OnceLock<StateKey>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would leave it to a process that is just being started and has not come to its exec yet.
        if let Err(error) = self.lock.unlock() {
            warn!(%error, path = %self.path.display(), "the lock could not be released");
        }
    }
}

/// Whether a state is made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// No: that there is none is an error, and nothing is made.
    Never,
    /// At a path where nothing is, or in an empty directory.
    IfEmpty,
    /// In a directory that holds something else too: the default place is nobody else's.
    Always,
}

/// Why a state directory could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process owns it.
    #[error(
        "the state directory {path:?} is in use by {}; end it first, or choose another --state directory",
        owner(*pid)
    )]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Who owns it, where the lock file says so.
        pid: Option<u32>,
    },
    /// There is no state, and none is to be made.
    #[error("there is no state in {path:?}: nothing was mounted or made there yet")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// There is no state, and something else.
    #[error(
        "{path:?} holds {found:?} and no state, and a state is made in an empty directory only; choose another --state \
         directory"
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// It is below a mount of pigeonfs.
    #[error("the state directory {path:?} is inside a pigeonfs mount, whose files go to the network; choose another")]
    InMount {
        /// The directory.
        path: PathBuf,
    },
    /// It, a directory that leads to it, or a file in it, belongs to another user.
    #[error(
        "the state directory {path:?} cannot be trusted: {found:?} belongs to user {owner}, and this process runs as user \
         {us}; run it as that user, or choose another --state directory"
    )]
    Foreign {
        /// The state directory.
        path: PathBuf,
        /// What belongs to the other user.
        found: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        us: u32,
    },
    /// A file in it is a link, or something else that it must not be.
    #[error("the state directory {path:?} cannot be trusted: {reason}")]
    Planted {
        /// The state directory.
        path: PathBuf,
        /// What is wrong with which file.
        reason: String,
    },
    /// The path leads to something else.
    #[error("{path:?} is not a directory; choose another --state directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Files cannot be made in it.
    #[error(
        "the state directory {path:?} is not writable ({reason}); correct its permissions, or choose another --state \
         directory"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Others may put files there in place of ours.
    #[error(
        "the state directory {path:?} can be written by other users, and capabilities would lie in it; make it private \
         with `chmod 700`, or choose another --state directory"
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else.
    #[error("the state directory {path:?} cannot be used: {reason}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("another process (pid {pid})"))
}

const LOCK: &str = "lock";
const CONTROL_SOCKET: &str = "control.sock";
/// The name of the database in its state directory.
pub(super) const DATABASE: &str = "pigeonfs.db";
/// What may lie in a state directory besides the database: what is left of a state is made into one again.
const OURS: &[&str] = &[
    LOCK,
    CONTROL_SOCKET,
    "pigeonfs.db-wal",
    "pigeonfs.db-shm",
    super::reserve::FILE,
    super::reserve::PROBE,
    "drops",
    "localnet",
    "mount.log",
    "mount.log.old",
    // An empty file system has it.
    "lost+found",
];

impl StateDir {
    /// Takes the directory at `path`, which is made (0700) where it is missing.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        Self::take(path, Making::IfEmpty)
    }

    /// Takes the directory at `path`; where there is no state, one is made or not.
    pub fn take(path: &Path, making: Making) -> Result<Self, StateError> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        let wrong = |error| refused(&path, error);
        let dir = match check(&path, making)? {
            Some(dir) => dir,
            None => {
                PrivateDir::open_or_make(&path).map_err(wrong)?;
                // Somebody else may have been here at the same time.
                check(&path, making)?.ok_or_else(|| StateError::Missing { path: path.clone() })?
            }
        };
        let begun = dir.check_file(LOCK).map_err(wrong)? || dir.check_file(DATABASE).map_err(wrong)?;
        make_private(&path, &dir, begun)?;
        let mut lock = dir.file(LOCK, OFlags::RDWR | OFlags::CREATE).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Busy { pid: recorded_pid(&mut lock), path }),
            Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
        }
        // Its database may have been made since it was looked for, and it may have been replaced.
        if making == Making::Never && !dir.check_file(DATABASE).map_err(wrong)? {
            return Err(StateError::Missing { path });
        }
        record_pid(&mut lock).map_err(|error| failed(&path, &error))?;
        dir.sync().map_err(wrong)?;
        // It may have been in the middle of being sealed or unsealed.
        sealed::settle(&dir).map_err(wrong)?;
        Ok(Self(Arc::new(Held { path, dir, lock, key: OnceLock::new() })))
    }

    /// Whether a state may be taken there: what [`StateDir::take`] would refuse. Makes nothing.
    ///
    /// # Errors
    /// There is none and none is to be made; or what is there is not ours, or something else.
    pub fn check(path: &Path, making: Making) -> Result<(), StateError> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        check(&path, making).map(drop)
    }

    /// The directory at `path`, if a state of ours is there: for those who talk to its owner.
    ///
    /// # Errors
    /// [`StateError::Missing`] where nothing is there; it is not ours.
    pub fn find(path: &Path) -> Result<PrivateDir, StateError> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        match PrivateDir::open(&path) {
            Err(PrivateDirError::Missing { .. }) => Err(StateError::Missing { path }),
            opened => opened.map_err(|error| refused(&path, error)),
        }
    }

    /// How the state is sealed; `None`: it is not.
    ///
    /// # Errors
    /// `seal.json` cannot be read or understood.
    pub fn seal_header(&self) -> Result<Option<SealHeader>, SealError> {
        SealHeader::read(self.dir())
    }

    /// Opens a sealed state with its key, for as long as it is held.
    pub fn unlock(&self, key: StateKey) {
        let _ = self.0.key.set(key);
    }

    pub(super) fn key(&self) -> Option<&StateKey> {
        self.0.key.get()
    }

    /// How what is in it is kept.
    pub(super) fn sealing(&self) -> Result<Sealing, SealError> {
        match (self.seal_header()?, self.key()) {
            (None, _) => Ok(Sealing::default()),
            (Some(_), Some(key)) => Ok(Sealing::with(key)),
            (Some(_), None) => Err(SealError::NoKey { path: self.path().to_owned() }),
        }
    }

    /// The directory as it was named, as an absolute path: for messages. It may have been moved since.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The directory itself. Whatever is in the state is opened through it.
    pub fn dir(&self) -> &PrivateDir {
        &self.0.dir
    }

    /// Where the database is, as the directory was named.
    #[cfg(test)]
    pub(super) fn database(&self) -> PathBuf {
        self.0.path.join(DATABASE)
    }

    /// The name of the owner's socket in a state directory.
    pub fn control_socket() -> &'static str {
        CONTROL_SOCKET
    }
}

/// The directory of a state, or one that may become it. `None`: there is nothing, and it may be made.
fn check(path: &Path, making: Making) -> Result<Option<PrivateDir>, StateError> {
    let wrong = |error| refused(path, error);
    let missing = || StateError::Missing { path: path.to_owned() };
    let dir = match PrivateDir::open(path) {
        Err(PrivateDirError::Missing { .. }) if making == Making::Never => return Err(missing()),
        Err(PrivateDirError::Missing { .. }) => return Ok(None),
        opened => opened.map_err(wrong)?,
    };
    if dir.check_file(DATABASE).map_err(wrong)? {
        return Ok(Some(dir));
    }
    match making {
        // Somebody may hold it whose database is gone: then it is busy.
        Making::Never if dir.check_file(LOCK).map_err(wrong)? => {}
        Making::Never => return Err(missing()),
        Making::IfEmpty => {
            if let Some(found) = dir.names().map_err(wrong)?.iter().find(|name| !is_ours(name)) {
                let found = found.to_string_lossy().into_owned();
                return Err(StateError::Occupied { path: path.to_owned(), found });
            }
        }
        Making::Always => {}
    }
    Ok(Some(dir))
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    OURS.iter().chain(sealed::BETWEEN).any(|ours| name == *ours)
}

/// A directory that was there before: made private where it is plainly meant for us, refused where others could
/// replace our files, and else left as its owner wants it: the files themselves are private.
fn make_private(path: &Path, dir: &PrivateDir, is_state: bool) -> Result<(), StateError> {
    let mode = dir.mode().map_err(|error| refused(path, error))?;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if is_state || dir.names().map_err(|error| refused(path, error))?.is_empty() {
        return dir.set_mode(0o700).map_err(|error| refused(path, error));
    }
    if mode & 0o022 != 0 {
        return Err(StateError::Exposed { path: path.to_owned() });
    }
    Ok(())
}

fn refused(path: &Path, error: PrivateDirError) -> StateError {
    let state = path.to_owned();
    match error {
        PrivateDirError::Foreign { path: found, owner, us } => StateError::Foreign { path: state, found, owner, us },
        PrivateDirError::InMount { .. } => StateError::InMount { path: state },
        PrivateDirError::WrongType { path, expected: "directory" } => StateError::NotADirectory { path },
        error @ (PrivateDirError::Link { .. } | PrivateDirError::WrongType { .. }) => {
            StateError::Planted { path: state, reason: error.to_string() }
        }
        error @ PrivateDirError::Missing { .. } => StateError::Io { path: state, reason: error.to_string() },
        PrivateDirError::Io { error, .. } => failed(path, &error),
    }
}

fn failed(path: &Path, error: &io::Error) -> StateError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StateError::NotWritable { path, reason },
        ErrorKind::NotADirectory => StateError::NotADirectory { path },
        _ => StateError::Io { path, reason },
    }
}

fn record_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    // On a full disk the owner stays unnamed; that is no reason to refuse.
    match writeln!(lock, "{}", std::process::id()) {
        Err(error) if error.kind() != ErrorKind::StorageFull => Err(error),
        _ => Ok(()),
    }
}

fn recorded_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
