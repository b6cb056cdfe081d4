//! The hold on a state directory: one process at a time, private to its owner.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

/// A locked state directory. The lock is released when the last clone is dropped, and dies with the process.
#[derive(Clone, Debug)]
pub struct StateDir(Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Holds the flock; std opens every file close-on-exec.
    lock: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would leave it to a process that is just being started and has not come to its exec yet.
        if let Err(error) = self.lock.unlock() {
            warn!(%error, path = %self.path.display(), "the lock could not be released");
        }
    }
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

impl StateDir {
    /// Takes the directory at `path`, which is made (0700) where it is missing.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        let made = make(&path)?;
        let found = fs::metadata(&path).map_err(|error| failed(&path, &error))?;
        if !found.is_dir() {
            return Err(StateError::NotADirectory { path });
        }
        if found.permissions().mode() & 0o077 != 0 {
            make_private(&path, &found)?;
        }
        let mut lock = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(path.join(LOCK))
            .map_err(|error| failed(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Busy { pid: recorded_pid(&mut lock), path }),
            Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
        }
        lock.set_permissions(Permissions::from_mode(0o600)).map_err(|error| failed(&path, &error))?;
        record_pid(&mut lock).map_err(|error| failed(&path, &error))?;
        sync_dir(&path).map_err(|error| failed(&path, &error))?;
        if made && let Some(parent) = path.parent() {
            sync_dir(parent).map_err(|error| failed(&path, &error))?;
        }
        Ok(Self(Arc::new(Held { path, lock })))
    }

    /// The directory, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where the owner answers verbs.
    pub fn control_socket(&self) -> PathBuf {
        Self::control_socket_in(&self.0.path)
    }

    /// Where the owner of the state directory at `path` answers verbs.
    pub fn control_socket_in(path: &Path) -> PathBuf {
        path.join(CONTROL_SOCKET)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.path.join("pigeonfs.db")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.0.path.join("reserve")
    }
}

/// Options that make a file 0600 and follow no link in its place.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW)
}

/// Makes the names in a directory last through a power cut.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// True where the directory was not there before.
fn make(path: &Path) -> Result<bool, StateError> {
    if path.exists() {
        return Ok(false);
    }
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed(path, &error)),
    }
    // A umask may have taken bits that we need.
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| failed(path, &error))?;
    Ok(true)
}

/// A directory that was there before: made private where it is plainly meant for us, refused where others could
/// replace our files, and else left as its owner wants it: the files themselves are private.
fn make_private(path: &Path, found: &fs::Metadata) -> Result<(), StateError> {
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    let empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if ours && (path.join(LOCK).exists() || empty()) {
        return fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| failed(path, &error));
    }
    if found.permissions().mode() & 0o022 != 0 {
        return Err(StateError::Exposed { path: path.to_owned() });
    }
    Ok(())
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
