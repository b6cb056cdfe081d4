//! Directories that are ours, held by their descriptor. What is in them is opened relative to it, never by path: so a
//! directory that is moved, or replaced by another, does not change what is read and written, and a link that somebody
//! planted is refused rather than followed.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Links that lead to one directory at most, as in the kernel.
const MAX_LINKS: usize = 40;
/// `statfs` says this of every FUSE file system.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;

/// Why a directory or a file in it was not opened. Nothing was changed by the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateDirError {
    /// There is nothing at the path.
    #[error("{path:?} does not exist")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The path leads to something that is not what it must be.
    #[error("{path:?} is not a {expected}")]
    WrongType {
        /// The path.
        path: PathBuf,
        /// `directory` or `regular file`.
        expected: &'static str,
    },
    /// It is a link, where none is followed.
    #[error("{path:?} is a symbolic link, and none is followed there; remove it")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error("{path:?} belongs to user {owner}, and this process runs as user {us}")]
    Foreign {
        /// What belongs to the other user: the directory itself, one that leads to it, or a file in it.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
        /// The effective user of this process.
        us: u32,
    },
    /// It is below a mount of pigeonfs: what is made there goes to the network.
    #[error("{path:?} is inside a pigeonfs mount, whose files go to the network")]
    InMount {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{path:?}: {error}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

impl PrivateDirError {
    fn io(path: &Path, error: Errno) -> Self {
        let path = path.to_owned();
        match error {
            Errno::NOENT => Self::Missing { path },
            // O_NOFOLLOW together with O_DIRECTORY says ENOTDIR of a link; callers look first where it matters.
            Errno::LOOP => Self::Link { path },
            error => Self::Io { path, error: error.into() },
        }
    }
}

impl From<PrivateDirError> for io::Error {
    fn from(error: PrivateDirError) -> Self {
        let kind = match &error {
            PrivateDirError::Missing { .. } => io::ErrorKind::NotFound,
            PrivateDirError::WrongType { .. } => io::ErrorKind::InvalidInput,
            PrivateDirError::Link { .. } | PrivateDirError::Foreign { .. } | PrivateDirError::InMount { .. } => {
                io::ErrorKind::PermissionDenied
            }
            PrivateDirError::Io { error, .. } => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// A directory that belongs to the effective user. Clones are the same descriptor.
///
/// Names are relative to it, as `drops/incoming/7`: no part of one may be a link, `..`, or belong to somebody else.
#[derive(Clone, Debug)]
pub struct PrivateDir(Arc<Held>);

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    /// How it was named, for messages.
    path: PathBuf,
}

impl PrivateDir {
    /// Opens the directory at `path`. Links on the way are followed where they and their directories belong to the
    /// effective user or to root; the directory itself must belong to the effective user.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn open(path: &Path) -> Result<Self, PrivateDirError> {
        Walk::to(path, false).map(|(dir, _)| dir)
    }

    /// The same, and what is missing of the path is made (0700), and safe on the disk. True: the directory itself was
    /// made.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn open_or_make(path: &Path) -> Result<(Self, bool), PrivateDirError> {
        Walk::to(path, true)
    }

    /// How it was named when it was opened. For messages: it may have been moved since.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A path for what can only open by path, such as SQLite and Unix sockets: it leads through the descriptor. In
    /// this process only.
    pub fn through_descriptor(&self) -> PathBuf {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.fd.as_raw_fd()));
        // Where /proc is not mounted there is only the name.
        if rustix::fs::statat(CWD, &path, AtFlags::empty()).is_ok() { path } else { self.0.path.clone() }
    }

    /// A directory in it.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn dir(&self, name: impl AsRef<Path>) -> Result<Self, PrivateDirError> {
        self.descend(name.as_ref(), false)
    }

    /// A directory in it, made (0700) where it is missing, and then safe on the disk.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn make_dir(&self, name: impl AsRef<Path>) -> Result<Self, PrivateDirError> {
        self.descend(name.as_ref(), true)
    }

    /// A regular file in it, opened with these flags; made, and its mode set to 0600, where they say
    /// [`OFlags::CREATE`].
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn file(&self, name: impl AsRef<Path>, flags: OFlags) -> Result<File, PrivateDirError> {
        let (dir, name, path) = self.parent_of(name.as_ref())?;
        // Not truncated before it is known to be ours; and a pipe must not make this wait.
        let careful = flags.difference(OFlags::TRUNC) | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, &name, careful, Mode::RUSR | Mode::WUSR)
            .map_err(|error| PrivateDirError::io(&path, error))?;
        let found = rustix::fs::fstat(&fd).map_err(|error| PrivateDirError::io(&path, error))?;
        if kind(&found) != FileType::RegularFile {
            return Err(PrivateDirError::WrongType { path, expected: "regular file" });
        }
        check_ours(&found, &path)?;
        if flags.contains(OFlags::CREATE) && found.st_mode & 0o777 != 0o600 {
            // Whatever the umask took or gave.
            rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|error| PrivateDirError::io(&path, error))?;
        }
        let file = File::from(fd);
        if flags.contains(OFlags::TRUNC) {
            file.set_len(0).map_err(|error| PrivateDirError::Io { path, error })?;
        }
        Ok(file)
    }

    /// What a name stands for; a link is not followed. `None`: nothing is there.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn stat(&self, name: impl AsRef<Path>) -> Result<Option<Stat>, PrivateDirError> {
        let (dir, name, path) = match self.parent_of(name.as_ref()) {
            Err(PrivateDirError::Missing { .. }) => return Ok(None),
            parent => parent?,
        };
        match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(PrivateDirError::io(&path, error)),
        }
    }

    /// Refuses what is there under a name if it is no regular file of ours: for files that others open by path. True:
    /// there is one.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn check_file(&self, name: impl AsRef<Path>) -> Result<bool, PrivateDirError> {
        let name = name.as_ref();
        let Some(found) = self.stat(name)? else { return Ok(false) };
        let path = self.0.path.join(name);
        match kind(&found) {
            FileType::RegularFile => check_ours(&found, &path).map(|()| true),
            FileType::Symlink => Err(PrivateDirError::Link { path }),
            _ => Err(PrivateDirError::WrongType { path, expected: "regular file" }),
        }
    }

    /// Deletes a file; a link, not what it leads to.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn remove_file(&self, name: impl AsRef<Path>) -> Result<(), PrivateDirError> {
        self.remove(name.as_ref(), AtFlags::empty())
    }

    /// Deletes an empty directory.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn remove_dir(&self, name: impl AsRef<Path>) -> Result<(), PrivateDirError> {
        self.remove(name.as_ref(), AtFlags::REMOVEDIR)
    }

    /// Gives a file another name below this directory, over what has that name.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), PrivateDirError> {
        let (old_dir, old, path) = self.parent_of(from.as_ref())?;
        let (new_dir, new, _) = self.parent_of(to.as_ref())?;
        rustix::fs::renameat(&old_dir, &old, &new_dir, &new).map_err(|error| PrivateDirError::io(&path, error))
    }

    /// The names in it, in no order.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn names(&self) -> Result<Vec<OsString>, PrivateDirError> {
        let failed = |error| PrivateDirError::io(&self.0.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Makes the names in it last through a power cut.
    ///
    /// # Errors
    /// See [`PrivateDirError`].
    pub fn sync(&self) -> Result<(), PrivateDirError> {
        rustix::fs::fsync(&self.0.fd).map_err(|error| PrivateDirError::io(&self.0.path, error))
    }

    /// Its permission bits.
    pub(super) fn mode(&self) -> Result<u32, PrivateDirError> {
        Ok(self.look()?.st_mode & 0o7777)
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), PrivateDirError> {
        rustix::fs::fchmod(&self.0.fd, Mode::from_raw_mode(mode))
            .map_err(|error| PrivateDirError::io(&self.0.path, error))
    }

    /// Bytes that the disk below has room for, as a user without privileges may take them.
    pub(super) fn free_bytes(&self) -> Result<u64, PrivateDirError> {
        let found = rustix::fs::fstatvfs(&self.0.fd).map_err(|error| PrivateDirError::io(&self.0.path, error))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn look(&self) -> Result<Stat, PrivateDirError> {
        rustix::fs::fstat(&self.0.fd).map_err(|error| PrivateDirError::io(&self.0.path, error))
    }

    fn remove(&self, name: &Path, flags: AtFlags) -> Result<(), PrivateDirError> {
        let (dir, name, path) = self.parent_of(name)?;
        rustix::fs::unlinkat(&dir, &name, flags).map_err(|error| PrivateDirError::io(&path, error))
    }

    /// The directory that a name is in, the last part of the name, and all of it for messages.
    fn parent_of(&self, name: &Path) -> Result<(Self, OsString, PathBuf), PrivateDirError> {
        let path = self.0.path.join(name);
        let Some(Component::Normal(last)) = name.components().next_back() else {
            return Err(PrivateDirError::io(&path, Errno::INVAL));
        };
        let last = last.to_owned();
        let parent = name.parent().unwrap_or(Path::new(""));
        Ok((self.descend(parent, false)?, last, path))
    }

    fn descend(&self, name: &Path, make: bool) -> Result<Self, PrivateDirError> {
        let mut dir = self.clone();
        for component in name.components() {
            let Component::Normal(part) = component else {
                return Err(PrivateDirError::io(&self.0.path.join(name), Errno::INVAL));
            };
            dir = dir.enter(part, make)?;
        }
        Ok(dir)
    }

    fn enter(&self, name: &OsStr, make: bool) -> Result<Self, PrivateDirError> {
        let path = self.0.path.join(name);
        let failed = |error| PrivateDirError::io(&path, error);
        if make {
            make_one(&self.0.fd, name, &path)?;
        }
        let found = rustix::fs::statat(&self.0.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        match kind(&found) {
            FileType::Directory => {}
            FileType::Symlink => return Err(PrivateDirError::Link { path }),
            _ => return Err(PrivateDirError::WrongType { path, expected: "directory" }),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0.fd, name, flags, Mode::empty()).map_err(failed)?;
        check_ours(&rustix::fs::fstat(&fd).map_err(failed)?, &path)?;
        Ok(Self(Arc::new(Held { fd, path })))
    }
}

impl AsFd for PrivateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// The way from the root directory to one of ours, a descriptor at a time.
struct Walk {
    here: OwnedFd,
    path: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    fn to(path: &Path, make: bool) -> Result<(PrivateDir, bool), PrivateDirError> {
        let failed = |error: io::Error| PrivateDirError::Io { path: path.to_owned(), error };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let mut walk = Self {
            here: root()?,
            path: "/".into(),
            left: absolute.components().filter_map(part).map(OsStr::to_owned).collect(),
            links: 0,
        };
        let mut made = false;
        while let Some(name) = walk.left.pop_front() {
            made = walk.step(&name, make)?;
        }
        let failed = |error| PrivateDirError::io(&absolute, error);
        check_outside_mounts(&walk.here, &absolute)?;
        check_ours(&rustix::fs::fstat(&walk.here).map_err(failed)?, &absolute)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&walk.here, ".", flags, Mode::empty()).map_err(failed)?;
        Ok((PrivateDir(Arc::new(Held { fd, path: absolute })), made))
    }

    /// True: the directory was made.
    fn step(&mut self, name: &OsStr, make: bool) -> Result<bool, PrivateDirError> {
        let path = if name == ".." { self.path.clone() } else { self.path.join(name) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = false;
        let next = match rustix::fs::openat(&self.here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                check_outside_mounts(&self.here, &path)?;
                made = make_one(&self.here, name, &path)?;
                rustix::fs::openat(&self.here, name, flags, Mode::empty())
            }
            next => next,
        };
        let next = next.map_err(|error| PrivateDirError::io(&path, error))?;
        let found = rustix::fs::fstat(&next).map_err(|error| PrivateDirError::io(&path, error))?;
        check_trusted(&found, &path)?;
        match kind(&found) {
            FileType::Symlink => self.follow(name, &path)?,
            FileType::Directory => {
                if name == ".." {
                    self.path.pop();
                } else {
                    self.path = path;
                }
                self.here = next;
            }
            _ => return Err(PrivateDirError::WrongType { path, expected: "directory" }),
        }
        Ok(made)
    }

    fn follow(&mut self, name: &OsStr, path: &Path) -> Result<(), PrivateDirError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(PrivateDirError::io(path, Errno::LOOP));
        }
        let target =
            rustix::fs::readlinkat(&self.here, name, Vec::new()).map_err(|error| PrivateDirError::io(path, error))?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
        if target.is_absolute() {
            self.here = root()?;
            self.path = "/".into();
        }
        for component in target.components().rev().filter_map(part) {
            self.left.push_front(component.to_owned());
        }
        Ok(())
    }
}

fn root() -> Result<OwnedFd, PrivateDirError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(|error| PrivateDirError::io(Path::new("/"), error))
}

fn part(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }
}

/// Makes a directory that is private whatever the umask is. False: there is something already.
fn make_one(parent: impl AsFd, name: &OsStr, path: &Path) -> Result<bool, PrivateDirError> {
    let failed = |error| PrivateDirError::io(path, error);
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A umask may have taken the bits that opening needs.
    let _ = rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty());
    let made = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(failed)?;
    check_ours(&rustix::fs::fstat(&made).map_err(failed)?, path)?;
    let parent = rustix::fs::openat(&parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match parent.and_then(rustix::fs::fsync) {
        // A directory that may be entered and not listed cannot be synced; its owner wants it so.
        Ok(()) | Err(Errno::ACCESS | Errno::INVAL) => Ok(true),
        Err(error) => Err(failed(error)),
    }
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn check_ours(found: &Stat, path: &Path) -> Result<(), PrivateDirError> {
    if found.st_uid == us() {
        return Ok(());
    }
    Err(PrivateDirError::Foreign { path: path.to_owned(), owner: found.st_uid, us: us() })
}

/// Who owns a directory, or a link in it, decides where it leads.
fn check_trusted(found: &Stat, path: &Path) -> Result<(), PrivateDirError> {
    if found.st_uid == 0 || stands_for_root(found.st_uid) { Ok(()) } else { check_ours(found, path) }
}

/// In a user namespace the owner of what its creator does not own, such as `/`, is shown as the overflow user.
fn stands_for_root(uid: u32) -> bool {
    let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    uid == number("/proc/sys/kernel/overflowuid").unwrap_or(65534)
        && std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

fn check_outside_mounts(dir: impl AsFd, path: &Path) -> Result<(), PrivateDirError> {
    let failed = |error| PrivateDirError::io(path, error);
    let found = rustix::fs::fstatfs(&dir).map_err(failed)?;
    if u64::try_from(found.f_type) != Ok(FUSE_SUPER_MAGIC) {
        return Ok(());
    }
    let device = rustix::fs::fstat(&dir).map_err(failed)?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // Somebody may have mounted at a path that is no text.
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let is_ours = String::from_utf8_lossy(&mounts).lines().any(|line| {
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        line.split(' ').nth(2) == Some(&device) && kind == Some("fuse.pigeonfs")
    });
    if is_ours { Err(PrivateDirError::InMount { path: path.to_owned() }) } else { Ok(()) }
}
