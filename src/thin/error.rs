//! One typed error: what failed, in which operation, whether trying again can help, and whether it may have happened.
//!
//! The daemon's one error byte is fed from two name spaces that overlap, so it is decoded per kind of reply
//! (`thin-client-protocol.md` §5).

use std::fmt;

use super::session::Absence;

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
    SendMessage,
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
            Self::SendMessage => "sending a message",
        })
    }
}

impl Operation {
    /// Whether it leaves something in the network.
    fn leaves_a_trace(self) -> bool {
        matches!(self, Self::Write | Self::Copy | Self::SendMessage)
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
    /// The deadline passed with no daemon at the address; nothing was sent.
    #[error("no daemon: {0}")]
    NoDaemon(String),
    /// The deadline passed while the daemon had no connection to the mixnet; nothing was sent.
    #[error("{0}; try again once it is connected")]
    NoConsensus(Absence),
    /// The deadline passed while others took all the room; nothing was sent.
    #[error("no room within the deadline: too much is under way already")]
    Busy,
    /// The deadline passed without an answer to what was sent.
    #[error("no answer within the deadline")]
    Timeout,
    /// It was sent, and then the daemon, or its memory of it, went away.
    #[error("sent, and then lost: {0}")]
    Lost(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The arguments cannot be meant; nothing was sent.
    #[error("{0}")]
    InvalidArgument(String),
    /// The daemon's answer is not what the protocol says.
    #[error("the daemon's answer is malformed: {0}")]
    MalformedReply(&'static str),
    /// The daemon did not send a legacy message.
    #[error("the daemon could not send it: {0}")]
    NotSent(String),
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

/// The kinds of replies that read the daemon's error byte differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyType {
    /// To a started read or write.
    Started {
        /// Whether the reply names the courier. Without one the daemon refused by itself, and no replica has spoken.
        courier_known: bool,
    },
    /// The `replica_error_code` of a copy command that failed (26).
    CopyReplica,
    /// Any other.
    Other,
}

/// What an error byte means in a reply of a type; 0 is success.
pub fn error_text(code: u8, reply: ReplyType) -> &'static str {
    match (code, reply) {
        (0, ReplyType::CopyReplica) => copy_code(0),
        (0, _) => "success",
        (code, ReplyType::CopyReplica) => copy_code(code),
        (code, ReplyType::Started { courier_known }) => match started(code, courier_known) {
            ErrorKind::Replica(code) => replica_code(code),
            _ => daemon_code(code),
        },
        (code, ReplyType::Other) => daemon_code(code),
    }
}

impl Error {
    /// Whether the same question, in a fresh envelope, may have another answer.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ErrorKind::NoDaemon(_)
            | ErrorKind::NoConsensus(_)
            | ErrorKind::Busy
            | ErrorKind::Timeout
            | ErrorKind::Lost(_)
            | ErrorKind::NotSent(_)
            | ErrorKind::Cancelled => true,
            ErrorKind::Closed
            | ErrorKind::InvalidArgument(_)
            | ErrorKind::MalformedReply(_)
            | ErrorKind::Voucher(_) => false,
            // 4 is also what a daemon without a consensus says, and 10 that something is not at hand yet.
            ErrorKind::Daemon(code) => matches!(code, 1 | 2 | 4 | 10),
            // Database, space, replica's inside, epoch, replication: all of them pass.
            ErrorKind::Replica(code) => matches!(code, 1 | 4 | 6 | 7 | 8 | 9),
            ErrorKind::CopyFailed { replica_code, .. } => matches!(replica_code, 0 | 1 | 4 | 6 | 7 | 8 | 9),
            // Another start draws another courier; an envelope that is invalid stays so.
            ErrorKind::Courier(code) => *code != 31,
            // Keys rotated, or a replica that lied; another pair of replicas may not.
            ErrorKind::Unauthentic(_) => true,
        }
    }

    /// Whether a write, a message, or some of a copy, that ended so may be there all the same.
    pub fn may_have_happened(&self) -> bool {
        self.operation.leaves_a_trace()
            && match self.kind {
                ErrorKind::Timeout
                | ErrorKind::Lost(_)
                | ErrorKind::Closed
                | ErrorKind::Cancelled
                | ErrorKind::MalformedReply(_)
                | ErrorKind::Courier(_)
                | ErrorKind::Unauthentic(22)
                | ErrorKind::CopyFailed { .. } => true,
                // A daemon that failed once it had the courier's answer; and replicas that did not tell the others.
                ErrorKind::Replica(code) => matches!(code, 4 | 7 | 9),
                _ => false,
            }
    }

    /// Whether it is an answer rather than a failure: there is no such box, or it holds something else, or was deleted.
    pub fn is_expected_outcome(&self) -> bool {
        matches!(self.kind, ErrorKind::Replica(1 | 10 | 11))
    }

    /// The code that the daemon gave, if it gave one; its meaning depends on [`Self::kind`].
    pub fn code(&self) -> Option<u8> {
        match self.kind {
            ErrorKind::Daemon(code)
            | ErrorKind::Replica(code)
            | ErrorKind::Courier(code)
            | ErrorKind::Unauthentic(code)
            | ErrorKind::Voucher(code) => Some(code),
            ErrorKind::CopyFailed { .. } => Some(26),
            ErrorKind::Cancelled => Some(24),
            _ => None,
        }
    }
}

/// The code of a reply to a started read or write: its name space depends on whether a courier was involved.
pub(crate) fn started(code: u8, courier_known: bool) -> ErrorKind {
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
        3 => "the request is invalid: nothing was done",
        4 => "an internal error, or no consensus yet: try again later",
        5 => "it tried too often",
        6 => "the channel is invalid",
        7 => "there is no such channel",
        8 => "permission denied",
        9 => "the payload is invalid",
        10 => "the service is not available: try again later",
        11 => "the capability is a duplicate",
        14..=21 => "an error of an older protocol",
        24 => "it was cancelled",
        26 => "the copy command failed",
        27 => "the payload is too large",
        28..=30 => voucher_code(code),
        12 | 13 | 31 | 32 => courier_code(code),
        22 | 23 | 25 => crypto_code(code),
        _ => "an unknown error",
    }
}

fn replica_code(code: u8) -> &'static str {
    match code {
        1 => "there is no such box",
        2 => "the box's identity is invalid",
        3 => "the box's signature is invalid",
        4 => "its database failed: try again later",
        5 => "the box's payload has another length than the network's boxes",
        6 => "its storage is full: try again later",
        7 => "an internal error: try again later",
        8 => "the epoch is invalid: encrypt again",
        9 => "replication failed: try again later",
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
        12 => "its cache is corrupt: start again",
        13 => "it could not reach the replicas: start again",
        31 => "the envelope is invalid",
        32 => "the envelope is of another epoch: encrypt again",
        _ => "an unknown error",
    }
}

fn crypto_code(code: u8) -> &'static str {
    match code {
        22 => "the envelope does not open: encrypt again",
        23 => "the box does not open",
        25 => "the tombstone's signature is invalid",
        _ => "an unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(operation: Operation, kind: ErrorKind) -> Error {
        Error { operation, kind }
    }

    #[test]
    fn one_byte_means_two_things_and_the_courier_tells_which() {
        assert_eq!(started(3, true), ErrorKind::Replica(3));
        assert_eq!(started(3, false), ErrorKind::Daemon(3));
        let no_consensus = error(Operation::Write, started(4, false));
        assert!(no_consensus.is_retryable(), "no consensus yet is no failure");
        let invalid = error(Operation::Write, started(3, true));
        assert!(!invalid.is_retryable() && invalid.to_string().contains("signature"), "{invalid}");
        assert_eq!(error_text(10, ReplyType::Started { courier_known: true }), "the box holds something else already");
        assert!(error_text(10, ReplyType::Other).contains("not available"));
        assert!(error_text(0, ReplyType::CopyReplica).contains("no replica answered"));
    }

    #[test]
    fn every_code_has_a_text_and_a_kind_in_every_type_of_reply() {
        for code in 1..=32 {
            for reply in [
                ReplyType::Started { courier_known: true },
                ReplyType::Started { courier_known: false },
                ReplyType::Other,
            ] {
                assert_ne!(error_text(code, reply), "an unknown error", "{code} in {reply:?}");
            }
            let kind = started(code, true);
            let told = error(Operation::Read, kind.clone());
            assert_eq!(told.code(), Some(code), "{told}");
            assert_eq!(told.is_expected_outcome(), [1, 10, 11].contains(&code), "{told}");
            assert!(!told.may_have_happened(), "a read leaves no trace: {told}");
        }
    }

    #[test]
    fn what_never_left_has_not_happened() {
        for (kind, may) in [
            (ErrorKind::NoDaemon(String::new()), false),
            (ErrorKind::NoConsensus(Absence::Lost), false),
            (ErrorKind::Busy, false),
            (ErrorKind::NotSent(String::new()), false),
            (ErrorKind::Daemon(4), false),
            (ErrorKind::Replica(10), false),
            (ErrorKind::Timeout, true),
            (ErrorKind::Lost(String::new()), true),
            (ErrorKind::Cancelled, true),
            (ErrorKind::Courier(13), true),
        ] {
            assert_eq!(error(Operation::Write, kind.clone()).may_have_happened(), may, "{kind}");
        }
    }
}
