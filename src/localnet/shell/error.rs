//! Why a localnet could not start, in words that say what to do.

use std::io;
use std::path::PathBuf;

use super::listen::SOCKET_PATH;

/// Why a localnet could not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalnetError {
    /// Another process runs it.
    #[error("the network in {} is running already: use it by {}/thinclient.toml, or give --state another path", path.display(), path.display())]
    Busy {
        /// Its directory.
        path: PathBuf,
    },
    /// Its directory cannot be used.
    #[error("the directory {} cannot be used: {error}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its database cannot be used.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A newer version made it.
    #[error("the network in {} has schema {found}, and this version knows schemas up to {known}: use the newer pigeonfs that made it", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// An address that others than this machine reach.
    #[error(
        "{address} is not a loopback address: a localnet gives no anonymity and listens on this machine only, unless --allow-non-loopback says otherwise"
    )]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// A socket's path that no address holds.
    #[error("the path of the socket {} is longer than {SOCKET_PATH} bytes: use a shorter --state", path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// Its boxes have another length.
    #[error("the network in {} has boxes of {kept} bytes and keeps them: leave out the {asked} bytes of --max-plaintext, or give --state another path", path.display())]
    MaxPlaintext {
        /// Its directory.
        path: PathBuf,
        /// What it was made with.
        kept: usize,
        /// What was asked for.
        asked: usize,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
}
