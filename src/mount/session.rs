//! The life of a mount: checks before, a thread that serves, and an end that leaves nothing behind.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use super::adapter::Adapter;
use super::mounts;
use crate::fs::Fs;

/// Threads that take requests from the kernel; none of them waits for anything.
const THREADS: usize = 2;

/// How a mount is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {}

/// Why a mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing there.
    #[error("the mount point {} does not exist: make it with `mkdir`", .0.display())]
    Missing(PathBuf),
    /// Something else there.
    #[error("the mount point {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It would hide files.
    #[error("the mount point {} is not empty: give an empty directory, so that no file is hidden", .0.display())]
    NotEmpty(PathBuf),
    /// There is one of ours.
    #[error("{} is a mount of pigeonfs already: end it with `pigeonfs umount {}` first", .0.display(), .0.display())]
    AlreadyMounted(PathBuf),
    /// Nothing of ours is mounted there.
    #[error("{} is not a mount of pigeonfs", .0.display())]
    NotMounted(PathBuf),
    /// No FUSE on this system.
    #[error(
        "/dev/fuse {0}: FUSE is not available here. Load the module `fuse`, or give the container --device /dev/fuse; \
             `pigeonfs append` and `pigeonfs read` need no mount"
    )]
    NoFuse(&'static str),
    /// Not root, and no helper.
    #[error("mounting as a user needs the program fusermount3: install the package fuse3")]
    NoHelper,
    /// Files are open.
    #[error("{} is in use: close the programs that use it, or end it with --lazy", .0.display())]
    InUse(PathBuf),
    /// Anything else that the system said.
    #[error("{} cannot be {what}: {error}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What was said.
        error: io::Error,
    },
}

/// A running mount. It ends with [`Session::unmount`], or from outside.
pub struct Session {
    path: PathBuf,
    unmounter: Mutex<SessionUnmounter>,
    serve: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Mounts `fs` at an empty directory. A dead mount of ours that is in the way is cleared first.
    pub fn start(path: &Path, fs: Arc<Fs>, runtime: Handle, _options: MountOptions) -> Result<Self, MountError> {
        let path = check(path)?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(mounts::SOURCE.to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
            MountOption::NoExec,
            MountOption::NoSuid,
            MountOption::NoDev,
        ];
        config.acl = SessionACL::Owner;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if !rustix::process::geteuid().is_root() => MountError::NoHelper,
            _ => MountError::System { path: path.clone(), what: "mounted", error },
        };
        let mut session = fuser::Session::new(Adapter::new(fs, runtime), &path, &config).map_err(told)?;
        // Before the session runs: afterwards it would do nothing, and say that it did.
        let unmounter = session.unmount_callable();
        let (end, ended) = watch::channel(false);
        let serve = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
            if let Err(error) = session.run() {
                warn!(%error, "the mount ended with an error");
            }
            end.send_replace(true);
        });
        let serve = serve.map_err(|error| MountError::System { path: path.clone(), what: "served", error })?;
        info!(path = %path.display(), "mounted");
        Ok(Self { path, unmounter: Mutex::new(unmounter), serve: Mutex::new(Some(serve)), ended })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Resolves when the mount has ended, from outside or by [`Self::unmount`].
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|&ended| ended).await;
    }

    /// Ends the mount: files that are open stay usable until they are closed, and nothing new is opened. Blocks shortly.
    pub fn unmount(&self) -> Result<(), MountError> {
        if !*self.ended.borrow() {
            let unmounted = self.unmounter.lock().unwrap_or_else(PoisonError::into_inner).unmount();
            if unmounted.is_err() && mounts::at(&self.path).is_some_and(|mounted| mounted.is_ours()) {
                detach(&self.path)?;
            }
        }
        // A program that keeps a file open keeps the thread; it ends with the process then.
        let serve = self.serve.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serve) = serve
            && *self.ended.borrow()
        {
            let _ = serve.join();
        }
        Ok(())
    }
}

/// Ends the mount of another process, or a dead one. `lazy` takes it out of the tree while files are open.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let path = mounts::absolute(path).map_err(|error| MountError::System {
        path: path.to_owned(),
        what: "unmounted",
        error,
    })?;
    if !mounts::at(&path).is_some_and(|mounted| mounted.is_ours()) {
        return Err(MountError::NotMounted(path));
    }
    if lazy || is_dead(&path) {
        return detach(&path);
    }
    if rustix::process::geteuid().is_root() {
        return match rustix::mount::unmount(&path, UnmountFlags::empty()) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::BUSY) => Err(MountError::InUse(path)),
            Err(error) => Err(MountError::System { path, what: "unmounted", error: error.into() }),
        };
    }
    helper(&path, "-u")
}

fn check(path: &Path) -> Result<PathBuf, MountError> {
    let path = mounts::absolute(path).map_err(|_| MountError::Missing(path.to_owned()))?;
    if mounts::at(&path).is_some_and(|mounted| mounted.is_ours()) {
        if !is_dead(&path) {
            return Err(MountError::AlreadyMounted(path));
        }
        warn!(path = %path.display(), "clearing a dead mount that an earlier process left");
        detach(&path)?;
    }
    let metadata = std::fs::metadata(&path).map_err(|_| MountError::Missing(path.clone()))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(path));
    }
    let mut entries = std::fs::read_dir(&path).map_err(|error| MountError::System {
        path: path.clone(),
        what: "looked at",
        error,
    })?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(path));
    }
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(MountError::NoFuse("may not be opened")),
        Err(_) => Err(MountError::NoFuse("is missing")),
    }
}

/// A mount whose process is gone answers everything with ENOTCONN.
fn is_dead(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
}

fn detach(path: &Path) -> Result<(), MountError> {
    if rustix::process::geteuid().is_root() {
        return rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|error| MountError::System {
            path: path.to_owned(),
            what: "unmounted",
            error: error.into(),
        });
    }
    helper(path, "-uz")
}

fn helper(path: &Path, flag: &str) -> Result<(), MountError> {
    let told = |error| MountError::System { path: path.to_owned(), what: "unmounted", error };
    let output =
        Command::new("fusermount3").arg(flag).arg("--").arg(path).output().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound { MountError::NoHelper } else { told(error) }
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if words.contains("busy") { Err(MountError::InUse(path.to_owned())) } else { Err(told(io::Error::other(words))) }
}
