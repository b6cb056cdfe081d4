//! Where received files go: into a directory, whole and under harmless names; or to stdout.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::super::{Stop, output};
use crate::drop::{SafeName, SafePath};
use crate::engine::control::{Failure, FailureKind};
use crate::engine::status::RecordStatus;

/// Files of one name in one directory.
const MOST_NAMESAKES: u32 = 10_000;

pub(super) enum Target {
    Stdout,
    Directory {
        path: PathBuf,
        /// Held, so that what is made is made in this one whatever becomes of its name.
        held: OwnedFd,
    },
}

/// A file on its way; nothing is left of it unless it comes to its end.
pub(super) enum Writing {
    Stdout,
    Directory,
    File(Box<Temporary>),
}

/// Where a file is now.
pub(super) enum Written {
    Stdout,
    At(PathBuf),
    /// It was there with the same bytes: an earlier run had not come to say so.
    WasThere(PathBuf),
}

/// A file without its final name.
pub(super) struct Temporary {
    directory: OwnedFd,
    path: PathBuf,
    name: String,
    file: File,
    hash: blake3::Hasher,
    size: u64,
}

impl Target {
    pub(super) fn directory(path: &Path) -> Result<Self, Failure> {
        let held = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| {
                Failure::new(FailureKind::Usage, format!("files cannot be put into {}: {error}", path.display()))
                    .hint("-o takes a directory that is there")
            })?;
        Ok(Self::Directory { path: path.to_owned(), held })
    }

    pub(super) fn begin(&self, record: &RecordStatus) -> Result<Writing, Failure> {
        let Self::Directory { path, held } = self else { return Ok(Writing::Stdout) };
        let mut path = path.clone();
        let mut directory =
            rustix::io::fcntl_dupfd_cloexec(held, 0).map_err(|error| cannot("be used", &path, error))?;
        for name in SafePath::of(&record.path).names() {
            (directory, path) = enter(&directory, &path, name)?;
        }
        if record.directory {
            enter(&directory, &path, &SafeName::of(&record.name))?;
            return Ok(Writing::Directory);
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
        let name = format!(".pigeonfs-{:016x}.part", u64::from_le_bytes(random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| cannot("be written to", &path, error))?;
        let (file, hash) = (File::from(file), blake3::Hasher::new());
        Ok(Writing::File(Box::new(Temporary { directory, path, name, file, hash, size: 0 })))
    }
}

/// Goes into a directory below, made where it is missing; where something else has the name, into one with a number. No
/// symbolic link is followed: what a sender names stays below the directory that the person chose.
fn enter(directory: &OwnedFd, path: &Path, name: &SafeName) -> Result<(OwnedFd, PathBuf), Failure> {
    for count in 0..MOST_NAMESAKES {
        let name = name.numbered(count);
        match rustix::fs::mkdirat(directory, name.as_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(cannot("be made", &path.join(name.as_str()), error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name.as_str(), flags, Mode::empty()) {
            Ok(below) => return Ok((below, path.join(name.as_str()))),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(cannot("be opened", &path.join(name.as_str()), error)),
        }
    }
    Err(cannot("be made", &path.join(name.as_str()), Errno::EXIST))
}

impl Writing {
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Stdout => output::bytes(bytes),
            Self::Directory => Ok(()),
            Self::File(file) => Ok(file.take(bytes)?),
        }
    }

    /// Gives the file its name, once it is safe on the disk.
    pub(super) fn end(self, record: &RecordStatus) -> Result<Written, Failure> {
        match self {
            Self::Stdout | Self::Directory => Ok(Written::Stdout),
            Self::File(file) => file.end(record),
        }
    }
}

impl Temporary {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| cannot("be written", &self.path.join(&self.name), error))
    }

    fn end(self, record: &RecordStatus) -> Result<Written, Failure> {
        let failed = |error: Errno| cannot("be written", &self.path.join(&self.name), error);
        // Private, unless its sender told its mode.
        if let Some(mode) = record.mode {
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode & 0o777)).map_err(failed)?;
        }
        if let Some(mtime) = record.mtime {
            let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&self.file, &times).map_err(failed)?;
        }
        self.file.sync_all().map_err(|error| cannot("be written", &self.path.join(&self.name), error))?;
        for count in 0..MOST_NAMESAKES {
            let name = SafeName::of(&record.name).numbered(count);
            let path = self.path.join(name.as_str());
            match rename(&self.directory, &self.name, name.as_str()) {
                Ok(()) => {
                    rustix::fs::fsync(&self.directory).map_err(|error| cannot("be written", &self.path, error))?;
                    return Ok(Written::At(path));
                }
                Err(Errno::EXIST) if self.is(name.as_str()) => return Ok(Written::WasThere(path)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(cannot("be made", &path, error)),
            }
        }
        Err(cannot("be made", &self.path.join(SafeName::of(&record.name).as_str()), Errno::EXIST))
    }

    /// Whether the file of this name has the same bytes.
    fn is(&self, name: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(found) = rustix::fs::openat(&self.directory, name, flags, Mode::empty()) else { return false };
        let found = File::from(found);
        if !found.metadata().is_ok_and(|found| found.is_file() && found.len() == self.size) {
            return false;
        }
        let mut hash = blake3::Hasher::new();
        io::copy(&mut found.take(self.size + 1), &mut hash).is_ok() && hash.finalize() == self.hash.finalize()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where it has its name.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// Never over what is there. A file system that has no such rename has links.
fn rename(directory: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())?;
            rustix::fs::unlinkat(directory, from, AtFlags::empty())
        }
        renamed => renamed,
    }
}

fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Failed, format!("{} cannot {what}: {error}", path.display()))
}
