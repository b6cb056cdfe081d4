//! The mount point: what must hold before anything is mounted there, and the dead mount of a killed process that may be
//! in the way. Only what is surely ours is cleared.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::geteuid;
use tracing::warn;

use super::mounts::Mounted;
use super::{Holders, MountError, attach, holders, mounts};

/// A directory that was found fit to be mounted at. What is mounted is mounted at this directory, whatever has its name
/// by then.
pub(super) struct Point {
    /// As the mount table will have it, if nobody moves it.
    pub(super) path: PathBuf,
    pub(super) directory: OwnedFd,
}

/// Checks the mount point, and clears a dead mount of ours there.
pub(super) fn prepare(path: &Path) -> Result<Point, MountError> {
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
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Err(MountError::NotADirectory(path)),
        Err(error) => return Err(told(error.into())),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = rustix::fs::openat(&directory, ".", flags, Mode::empty()).map_err(|error| told(error.into()))?;
    let is_own_name = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    for entry in Dir::new(listing).map_err(|error| told(error.into()))? {
        if !is_own_name(entry.map_err(|error| told(error.into()))?.file_name()) {
            return Err(MountError::NotEmpty(path));
        }
    }
    // What fusermount3 asks for. It looks at what has the name when it does, so a user who may rename the directory can
    // have it mount elsewhere, where that user may write.
    let found = rustix::fs::fstat(&directory).map_err(|error| told(error.into()))?;
    let is_sticky = found.st_mode & libc::S_ISVTX != 0;
    let is_ours = found.st_uid == geteuid().as_raw();
    if !geteuid().is_root()
        && !is_ours
        && (is_sticky || rustix::fs::accessat(&directory, ".", Access::WRITE_OK, AtFlags::EACCESS).is_err())
    {
        return Err(MountError::NotYours(path));
    }
    Ok(Point { path, directory })
}

/// Ends the mount of another process, or a dead one. `lazy` takes it out of the tree while files are open. Says in whose
/// mount namespaces a copy of it is left.
///
/// [`MountError::NotMounted`] where nothing of ours is mounted, [`MountError::InUse`] where files are open and `lazy` is
/// not set, or what the system said. Blocks shortly.
pub fn unmount(path: &Path, lazy: bool) -> Result<Holders, MountError> {
    let path = resolved(path).map_err(|error| match error {
        MountError::Missing(path) => MountError::NothingThere(path),
        error => error,
    })?;
    let Some(mounted) = mounts::at(&path).filter(Mounted::is_ours) else {
        return Err(MountError::NotMounted(path));
    };
    attach::detach(&path, lazy || is_dead(&path))?;
    Ok(holders::in_other_namespaces(&mounted.device))
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
    // The kernel may still have what a living one said: it is to ask.
    statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE).err() == Some(Errno::NOTCONN)
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
