//! Where received files go: into a directory, or to stdout.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Stop, harden, output};
use crate::engine::control::Failure;
use crate::engine::status::RecordStatus;
use crate::state::disk::{self, Directory};

pub(super) enum Target {
    Stdout,
    Directory(Arc<Directory>),
}

/// A file on its way; nothing is left of it unless it comes to its end.
pub(super) enum Writing {
    Stdout,
    OnDisk(disk::Writing),
}

/// Where a file is now.
pub(super) enum Written {
    Stdout,
    At(PathBuf),
    /// It was there with the same bytes: an earlier run had not come to say so.
    WasThere(PathBuf),
}

/// How what comes from a sender is put on the disk.
pub(super) fn policy(dotfiles: bool, keep_mode: bool) -> disk::Policy {
    disk::Policy { dotfiles, keep_mode, umask: harden::umask_at_start() }
}

impl Target {
    pub(super) fn chosen(path: &Path, policy: disk::Policy) -> Result<Self, Failure> {
        Directory::chosen(path, policy).map(Self::Directory)
    }

    pub(super) fn of_the_drop(drop: &str, policy: disk::Policy) -> Result<Self, Failure> {
        Directory::of_the_drop(drop, policy).map(Self::Directory)
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Begins to write the file of a record.
    pub(super) fn begin(&self, record: &RecordStatus) -> Result<Writing, Failure> {
        match self {
            Self::Stdout => Ok(Writing::Stdout),
            Self::Directory(target) => target.begin(record).map(Writing::OnDisk),
        }
    }
}

impl Writing {
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Stdout => output::bytes(bytes),
            Self::OnDisk(file) => Ok(file.take(bytes)?),
        }
    }

    /// Gives the file its name, once it is safe on the disk.
    pub(super) fn end(self, record: &RecordStatus) -> Result<Written, Stop> {
        match self {
            Self::Stdout => output::settle().map(|()| Written::Stdout),
            Self::OnDisk(file) => Ok(match file.end(record)? {
                disk::Written::Directory => Written::Stdout,
                disk::Written::At(path) => Written::At(path),
                disk::Written::WasThere(path) => Written::WasThere(path),
            }),
        }
    }
}
