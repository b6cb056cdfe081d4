//! What can go wrong between a request and its commit.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::private_dir::PrivateDirError;
use super::sealed::SealError;
use super::{BoxSeq, BoxState};
use crate::bacap;

/// Why a request was not carried out, or a question not answered. Nothing of the request was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The channel does not exist, or no longer.
    #[error("there is no such channel; it may have been forgotten meanwhile")]
    NoChannel,
    /// Another channel has the name.
    #[error("there is a channel named {name:?} already; choose another name, or rename or forget that one")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The capability is held under another name.
    #[error("this capability is held already, by the channel {name:?}; use that one")]
    CapKnown {
        /// That channel's name.
        name: String,
    },
    /// Only a read capability is held, and the request needs the write capability.
    #[error("only the read capability of this channel is held; it cannot be written, emptied or removed as a file")]
    ReadOnly,
    /// Only a write capability is held, and what arrives belongs to a reader.
    #[error("this channel is one that we write; nothing arrives in it")]
    NotAReader,
    /// A packet may have left, the capability was shown, or the channel is somebody else's: it cannot be taken back.
    #[error(
        "{name:?} was sent, shared or added, and cannot be taken back as a file can; append with `>>`, or give it up \
         with `pigeonfs forget`"
    )]
    AlreadyLaunched {
        /// The channel's name.
        name: String,
    },
    /// The indices of the channel move with the reply to its invitation.
    #[error(
        "{name:?} is invited with: nothing of it is sent, shared or taken back before the reply has come. \
         `pigeonfs invite --again {name}` waits for it; `invite --cancel` ends that where the channel is empty, and \
         `forget --force` in any case"
    )]
    Invited {
        /// The channel's name.
        name: String,
    },
    /// The state is sealed, and is not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// No invitation of the channel is open.
    #[error("{name:?} is not invited with, so there is nothing to cancel")]
    NotInvited {
        /// The channel's name.
        name: String,
    },
    /// The boxes were taken back or packed anew since they were looked up.
    #[error("the boxes were written anew since they were looked up; look again")]
    Rewritten,
    /// The channel has failed for good.
    #[error("{name:?} is fenced: {reason}")]
    Fenced {
        /// The channel's name.
        name: String,
        /// Why, in words for the person.
        reason: String,
    },
    /// The channel carries files, and the request is about bytes.
    #[error("{name:?} is a drop, which takes whole files: send them with `pigeonfs send FILE --to {name}`")]
    IsADrop {
        /// The channel's name.
        name: String,
    },
    /// The channel carries bytes, and the request is about files.
    #[error("{name:?} is a stream, which takes bytes and not files: append to it, or make a drop with `new --drop`")]
    IsAStream {
        /// The channel's name.
        name: String,
    },
    /// A header that no reader would take.
    #[error("the file cannot be sent: {reason}")]
    BadHeader {
        /// What is wrong with it.
        reason: String,
    },
    /// The record is not there, or no longer.
    #[error("there is no such file in the drop; it may have been removed meanwhile")]
    NoRecord,
    /// A packet of the record may have left.
    #[error("{name:?} was sent already, at least in part, and cannot be taken back")]
    RecordSent {
        /// The file's name.
        name: String,
    },
    /// The bytes were dropped to make room.
    #[error(
        "the bytes before {end} are no longer here: they were dropped to make room, by --keep-sent or `pigeonfs trim`"
    )]
    Dropped {
        /// Where those that are here begin.
        end: u64,
    },
    /// The spool's own limit is reached.
    #[error(
        "the spool is full: {spooled} bytes wait to be stored by the network, and the limit is {limit}; wait until \
         some are delivered"
    )]
    SpoolFull {
        /// What waits already.
        spooled: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk is full, or the reserve for confirmations could not be set aside.
    #[error("the disk that holds the state directory is full; make room on it")]
    DiskFull,
    /// The interrupt of an append came before its commit: nothing was appended.
    #[error("interrupted before anything was appended")]
    Interrupted,
    /// The channel has not failed, so nothing is to be decided about it.
    #[error("{name:?} is not fenced: it goes on by itself, and there is nothing to adopt or to move")]
    NotFenced {
        /// The channel's name.
        name: String,
    },
    /// The files of a drop are bound to their boxes, so these cannot be rewritten.
    #[error("{name:?} is a drop, which can be neither adopted nor moved; make a new one, and send the files again")]
    FencedDrop {
        /// The channel's name.
        name: String,
    },
    /// What was not stored of a fenced channel was moved to another one.
    #[error(
        "what was not stored of {name:?} was moved to another channel; this one stays as it is. Its fence in \
         `pigeonfs status` says where to"
    )]
    Moved {
        /// The channel's name.
        name: String,
    },
    /// The network is being asked what another writer wrote.
    #[error("{name:?} is being adopted; `pigeonfs adopt` goes on with that, and waits for its end")]
    BeingAdopted {
        /// The channel's name.
        name: String,
    },
    /// No adoption of the channel is under way.
    #[error("the channel is not being adopted; it may have been finished or forgotten meanwhile")]
    NotAdopting,
    /// A box past the frontier is known, so there is nothing to look for.
    #[error("a later box of {name:?} is here already; `pigeonfs skip` goes on behind what is missing")]
    LaterKnown {
        /// The channel's name.
        name: String,
    },
    /// Nothing is missing before a box that is known.
    #[error("no box of {name:?} is missing before a later one that has arrived, so there is nothing to skip")]
    NoHole {
        /// The channel's name.
        name: String,
    },
    /// The box is not there.
    #[error("the channel has no box {seq}")]
    NoBox {
        /// Which.
        seq: BoxSeq,
    },
    /// The box is not in a state from which the request could take it on.
    #[error("box {seq} is {state:?}, and cannot become {wanted:?}")]
    WrongState {
        /// Which.
        seq: BoxSeq,
        /// Its state.
        state: BoxState,
        /// What was asked for.
        wanted: BoxState,
    },
    /// Further past the end of the channel than an index is derived.
    #[error("box {seq} is more than {limit} boxes past the end of what is known of the channel")]
    TooFarAhead {
        /// Which.
        seq: BoxSeq,
        /// The limit.
        limit: u64,
    },
    /// The channel's counter is at its end.
    #[error("the channel has used its last index; go on in a new one")]
    Exhausted,
    /// A geometry that no network has.
    #[error("{bytes} bytes cannot be the most that a box takes")]
    BadMaxPlaintext {
        /// The number.
        bytes: usize,
    },
    /// The database was written by a newer version of this program.
    #[error(
        "{path:?} was written by a newer version of pigeonfs (schema {found}; this one knows up to {known}); use that \
         version, or another --state directory"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The file is no database of ours, or is damaged.
    #[error("the state cannot be read: {reason}; restore it, or use another --state directory")]
    Corrupt {
        /// What was found.
        reason: String,
    },
    /// The request would have broken a law of the schema: a mistake in this program.
    #[error("refused, because it would break a law of the store: {law}; please report this")]
    Law {
        /// The law.
        law: String,
    },
    /// The operating system or SQLite failed.
    #[error("the state could not be read or written: {reason}")]
    Io {
        /// What they say.
        reason: String,
    },
    /// A commit failed in a way that leaves open whether it happened: the request may have been carried out.
    #[error(
        "writing the state failed ({reason}), and what was asked for may have been done or not; look again before you \
         ask again"
    )]
    Failed {
        /// What failed.
        reason: String,
    },
    /// The disk below failed, and has taken nothing since. Nothing of the request was done.
    #[error("the state cannot be written ({reason}), so nothing is accepted; it is tried again every few seconds")]
    Unavailable {
        /// What failed.
        reason: String,
    },
    /// The same request was carried out before; its outcome is remembered.
    #[error("this was asked for and done before")]
    AskedAgain,
    /// The store was closed.
    #[error("the state was closed")]
    Closed,
}

impl StoreError {
    /// Whether the request may have been committed all the same: the answer is lost, or the commit's own fate is open.
    pub fn leaves_outcome_open(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Io { .. } | Self::Closed)
    }

    /// Whether the storage below failed, and with it perhaps the whole transaction rather than one request.
    pub(super) fn is_of_the_storage(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Io { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(cause, text) => {
                let reason = || text.clone().unwrap_or_else(|| cause.to_string());
                match cause.code {
                    ErrorCode::DiskFull => Self::DiskFull,
                    ErrorCode::ConstraintViolation => Self::Law { law: reason() },
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { reason: reason() },
                    _ => Self::Io { reason: format!("{} (code {})", reason(), cause.extended_code) },
                }
            }
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => Self::Corrupt { reason: error.to_string() },
            _ => Self::Io { reason: error.to_string() },
        }
    }
}

impl From<PrivateDirError> for StoreError {
    fn from(error: PrivateDirError) -> Self {
        Self::Io { reason: error.to_string() }
    }
}

impl From<bacap::IndexError> for StoreError {
    fn from(_: bacap::IndexError) -> Self {
        Self::Exhausted
    }
}
