//! One typed error: what failed, in which operation, whether trying again can help, and whether it may have happened.
//!
//! The daemon's one error byte is fed from two name spaces that overlap, so it is decoded per kind of reply
//! (`thin-client-protocol.md` §5).

use std::fmt;

/// What was asked of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the protocol's own.
pub enum Operation {
    NewKeypair,
    EncryptRead,
    EncryptWrite,
    Read,
    Write,
    Cancel,
    Copy,
    CancelCopy,
    CourierEnvelopes,
    Voucher,
    NextIndex,
    IndexCounter,
    PkiDocument,
    DirectoryAuthorities,
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NewKeypair => "making a key pair",
            Self::EncryptRead => "encrypting a read",
            Self::EncryptWrite => "encrypting a write",
            Self::Read => "reading a box",
            Self::Write => "writing a box",
            Self::Cancel => "cancelling",
            Self::Copy => "copying a stream",
            Self::CancelCopy => "cancelling a copy command",
            Self::CourierEnvelopes => "making envelopes for a copy",
            Self::Voucher => "handling a voucher",
            Self::NextIndex => "stepping an index",
            Self::IndexCounter => "asking for an index's counter",
            Self::PkiDocument => "asking for the PKI document",
            Self::DirectoryAuthorities => "asking for the directory authorities",
        })
    }
}

/// An operation that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {kind}")]
pub struct Error {
    /// Which.
    pub operation: Operation,
    /// Why.
    pub kind: ErrorKind,
}

/// Why an operation did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The deadline passed with no daemon at the address.
    #[error("no daemon: {0}")]
    NoDaemon(String),
    /// The deadline passed without an answer.
    #[error("no answer within the deadline")]
    Timeout,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The arguments cannot be meant; nothing was sent.
    #[error("{0}")]
    InvalidArgument(String),
    /// The daemon's answer is not what the protocol says.
    #[error("the daemon's answer is malformed: {0}")]
    MalformedReply(&'static str),
    /// The daemon refused, or failed, on its own side.
    #[error("the daemon refused: {} (code {code})", daemon_code(*.0), code = .0)]
    Daemon(u8),
    /// A replica's own verdict.
    #[error("a replica refused: {} (code {code})", replica_code(*.0), code = .0)]
    Replica(u8),
    /// A courier could not take or answer the envelope.
    #[error("the courier failed: {} (code {code})", courier_code(*.0), code = .0)]
    Courier(u8),
    /// The answer could not be decrypted, or is not authentic.
    #[error("the answer is not authentic: {} (code {code})", crypto_code(*.0), code = .0)]
    Unauthentic(u8),
    /// A courier ended a copy command at one of its envelopes; those before it are written.
    #[error("the copy command failed at envelope {envelope}: {} (code {replica_code})", copy_code(*replica_code))]
    CopyFailed {
        /// What the replica said; 0 where none answered, or the stream itself is at fault.
        replica_code: u8,
        /// The first envelope that was not written, counted from 1 along the stream; 0 where there was none.
        envelope: u64,
    },
    /// A voucher, or a reply to one, is not what it says.
    #[error("the voucher cannot be used: {} (code {code})", voucher_code(*.0), code = .0)]
    Voucher(u8),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the same question, in a fresh envelope, may have another answer.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ErrorKind::NoDaemon(_) | ErrorKind::Timeout | ErrorKind::Cancelled => true,
            ErrorKind::Closed
            | ErrorKind::InvalidArgument(_)
            | ErrorKind::MalformedReply(_)
            | ErrorKind::Voucher(_) => false,
            // 4 is also what a daemon without a consensus says, and 10 that something is not at hand yet.
            ErrorKind::Daemon(code) => matches!(code, 1 | 2 | 4 | 10),
            // Database, space, replica's inside, epoch, replication: all of them pass.
            ErrorKind::Replica(code) => matches!(code, 1 | 4 | 6 | 7 | 8 | 9),
            ErrorKind::CopyFailed { replica_code, .. } => matches!(replica_code, 0 | 1 | 4 | 6 | 7 | 8 | 9),
            ErrorKind::Courier(_) => true,
            // Keys rotated, or a replica that lied; another pair of replicas may not.
            ErrorKind::Unauthentic(_) => true,
        }
    }

    /// Whether a write, or some of a copy, that ended so may be there all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self.operation, Operation::Write | Operation::Copy)
            && matches!(
                self.kind,
                ErrorKind::Timeout
                    | ErrorKind::Closed
                    | ErrorKind::Cancelled
                    | ErrorKind::Courier(_)
                    | ErrorKind::CopyFailed { .. }
            )
    }
}

/// The code of a reply to a started read or write: its name space depends on whether a courier was involved.
pub(super) fn started(code: u8, courier_known: bool) -> ErrorKind {
    match code {
        24 => ErrorKind::Cancelled,
        12 | 13 | 31 | 32 => ErrorKind::Courier(code),
        22 | 23 | 25 => ErrorKind::Unauthentic(code),
        1..=11 if courier_known => ErrorKind::Replica(code),
        _ => ErrorKind::Daemon(code),
    }
}

fn daemon_code(code: u8) -> &'static str {
    match code {
        1 => "the connection was lost",
        2 => "it timed out",
        3 => "the request is invalid",
        4 => "an internal error, or no consensus yet",
        10 => "the service is not available",
        _ => "an unknown error",
    }
}

fn replica_code(code: u8) -> &'static str {
    match code {
        1 => "there is no such box",
        2 => "the box's identity is invalid",
        3 => "the box's signature is invalid",
        4 => "its database failed",
        5 => "the box's payload has another length than the network's boxes",
        6 => "its storage is full",
        7 => "an internal error",
        8 => "the epoch is invalid",
        9 => "replication failed",
        10 => "the box holds something else already",
        11 => "the box was deleted",
        _ => "an unknown error",
    }
}

fn copy_code(code: u8) -> &'static str {
    match code {
        0 => "no replica answered, or the courier itself failed",
        code => replica_code(code),
    }
}

fn voucher_code(code: u8) -> &'static str {
    match code {
        28 => "its payload is another voucher's",
        29 => "its payload is not signed by the channel that it names",
        30 => "the reply is not sealed for it",
        _ => "an unknown error",
    }
}

fn courier_code(code: u8) -> &'static str {
    match code {
        12 => "its cache is corrupt",
        13 => "it could not reach the replicas",
        31 => "the envelope is invalid",
        32 => "the envelope is of another epoch",
        _ => "an unknown error",
    }
}

fn crypto_code(code: u8) -> &'static str {
    match code {
        22 => "the envelope does not open",
        23 => "the box does not open",
        25 => "the tombstone's signature is invalid",
        _ => "an unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_means_two_things_and_the_courier_tells_which() {
        assert_eq!(started(3, true), ErrorKind::Replica(3));
        assert_eq!(started(3, false), ErrorKind::Daemon(3));
        let no_consensus = Error { operation: Operation::Write, kind: started(4, false) };
        assert!(no_consensus.is_retryable(), "no consensus yet is no failure");
        let invalid = Error { operation: Operation::Write, kind: started(3, true) };
        assert!(!invalid.is_retryable() && invalid.to_string().contains("signature"), "{invalid}");
    }
}
