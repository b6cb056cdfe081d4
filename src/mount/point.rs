//! The mount point: what must hold before anything is mounted there, and the dead mount of a killed process that may be
//! in the way. Only what is surely ours is cleared.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::geteuid;
use tracing::warn;

use super::mounts::Mounted;
use super::{MountError, attach, mounts};

/// Checks the mount point, and clears a dead mount of ours there. Its path comes back as the mount table will have it.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    attach::device()?;
    let path = resolved(path)?;
    if let Some(mounted) = mounts::at(&path) {
        // Of somebody else's we may not even learn whether it is dead.
        if is_dead(&path) || (mounted.is_ours() && mounted.user != Some(geteuid().as_raw())) {
            clear(&path, &mounted)?;
        } else if mounted.is_ours() {
            return Err(MountError::AlreadyMounted(path));
        }
    }
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.clone()),
        _ => MountError::System { path: path.clone(), what: "looked at", error },
    };
    let metadata = std::fs::metadata(&path).map_err(told)?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(path));
    }
    if std::fs::read_dir(&path).map_err(told)?.next().is_some() {
        return Err(MountError::NotEmpty(path));
    }
    // What fusermount3 asks for.
    let is_sticky = metadata.mode() & libc::S_ISVTX != 0;
    let is_ours = metadata.uid() == geteuid().as_raw();
    if !geteuid().is_root() && !is_ours && (is_sticky || rustix::fs::access(&path, Access::WRITE_OK).is_err()) {
        return Err(MountError::NotYours(path));
    }
    Ok(path)
}

/// Ends the mount of another process, or a dead one. `lazy` takes it out of the tree while files are open.
///
/// [`MountError::NotMounted`] where nothing of ours is mounted, [`MountError::InUse`] where files are open and `lazy` is
/// not set, or what the system said. Blocks shortly.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let path = resolved(path)?;
    if !mounts::at(&path).is_some_and(|mounted| mounted.is_ours()) {
        return Err(MountError::NotMounted(path));
    }
    attach::detach(&path, lazy || is_dead(&path))
}

fn resolved(path: &Path) -> Result<PathBuf, MountError> {
    mounts::absolute(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => MountError::NotADirectory(path.to_owned()),
        _ => MountError::System { path: path.to_owned(), what: "looked at", error },
    })
}

/// A mount whose process is gone answers everything with ENOTCONN.
fn is_dead(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
}

fn clear(path: &Path, dead: &Mounted) -> Result<(), MountError> {
    let us = geteuid().as_raw();
    if !dead.is_ours() || dead.user != Some(us) {
        let owner = match dead.user {
            Some(user) if user != us => format!("user {user} ({})", dead.kind),
            _ => dead.kind.clone(),
        };
        return Err(MountError::Stranger { path: path.to_owned(), owner });
    }
    warn!(path = %path.display(), "clearing a dead mount that an earlier process left");
    attach::detach(path, true)
}
