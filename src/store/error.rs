//! What can go wrong with a state: what happened, to what, and what to do.

use std::io;
use std::path::PathBuf;

/// Why a state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process owns it.
    #[error("the state directory {} is in use{}", path.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Its owner, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// There is something else at its path.
    #[error("{} is not a directory: give --state another path", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// We may not write there.
    #[error("the state directory {} is not writable: check its owner and mode, or give --state another path", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else that the file system said.
    #[error("the state directory {} cannot be used: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a newer version.
    #[error("the state in {} has schema {found}, and this version knows schemas up to {known}: use the newer pigeonfs that wrote it", path.display())]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The name is in use.
    #[error("there is a channel named {name:?} already: choose another name, or rename that one")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The capability is in use.
    #[error("this capability is here already, as {name:?}")]
    CapKnown {
        /// The channel that holds it.
        name: String,
    },
    /// No such channel, or no longer.
    #[error("there is no such channel")]
    NoChannel,
    /// What was sent, or whose capability was shown, cannot be taken back.
    #[error(
        "{name:?} has left this machine, or its capability was shared: it can only grow. Append with `>>`, or drop the channel with `pigeonfs forget`"
    )]
    AlreadyLaunched {
        /// The channel.
        name: String,
    },
    /// The channel was written or packed anew since its boxes were looked up.
    #[error("the channel was written anew meanwhile")]
    Rewritten,
    /// We hold no write capability.
    #[error("only its read capability is here, so it cannot be appended to")]
    ReadOnly,
    /// The channel is stopped.
    #[error("{name:?} is fenced: {reason}")]
    Fenced {
        /// The channel.
        name: String,
        /// Why.
        reason: String,
    },
    /// The spool's limit is reached.
    #[error("the spool is full: {limit} bytes wait to be stored. Wait for the network to take some")]
    SpoolFull {
        /// Its limit in bytes.
        limit: u64,
    },
    /// The disk is full.
    #[error("the disk that holds the state is full: make room; nothing that was accepted is lost")]
    DiskFull,
    /// An interrupt came before the bytes were taken.
    #[error("interrupted before anything was taken")]
    Interrupted,
    /// The channel has reached its last index.
    #[error("the channel is at its last index")]
    Exhausted,
    /// The store was closed.
    #[error("the state is closed")]
    Closed,
    /// Anything else that the database said.
    #[error("the state's database failed: {0}")]
    Database(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            // A short write of the log is how some file systems say the same.
            Some(rusqlite::ErrorCode::SystemIoFailure) if is_no_space(&error) => Self::DiskFull,
            _ => Self::Database(error.to_string()),
        }
    }
}

fn is_no_space(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if matches!(failure.extended_code, rusqlite::ffi::SQLITE_IOERR_WRITE | rusqlite::ffi::SQLITE_IOERR_SHMSIZE
            | rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_TRUNCATE))
}
