//! The state directory and its lock: flock, close-on-exec, gone with its process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StateError;

/// A state directory that this process owns, until the value is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Its flock is the ownership.
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing (0700, whatever the umask), and takes it.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StateError::NotWritable { path: path.to_owned() }
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StateError::NotADirectory { path: path.to_owned() }
            }
            _ => StateError::Io { path: path.to_owned(), error },
        };
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(told)?;
        }
        if !path.is_dir() {
            return Err(StateError::NotADirectory { path: path.to_owned() });
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(told)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(told)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(20).read_to_string(&mut pid);
                return Err(StateError::Busy { path: path.to_owned(), pid: pid.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(told(error)),
        }
        // For the message of whoever finds it taken; the lock itself is what counts.
        let _ = lock.set_permissions(std::fs::Permissions::from_mode(0o600));
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        let path = path.canonicalize().map_err(told)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the owner answers the verbs.
    pub fn control_socket(&self) -> PathBuf {
        Self::control_socket_in(&self.path)
    }

    /// Where the owner of the state at `path` answers the verbs.
    pub fn control_socket_in(path: &Path) -> PathBuf {
        path.join("control.sock")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("state.db")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }
}
