//! What clients ask of a session.

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::Send;
use crate::thin::ErrorKind;
use crate::thin::message::{CancelCopy, CancelResending, HASH_BYTES, ID_BYTES, Octets, RequestFrame, ResponseFrame};

pub(in crate::thin) type Id = [u8; ID_BYTES];
pub(in crate::thin) type Answer<T> = oneshot::Sender<Result<T, ErrorKind>>;

/// A request on its way through the session. Its body is kept, to be put again.
pub(in crate::thin) struct Call {
    pub(in crate::thin) body: Body,
    pub(in crate::thin) deadline: Instant,
    pub(in crate::thin) answer: Answer<Answered>,
    /// Its place among those of its kind.
    pub(in crate::thin) room: OwnedSemaphorePermit,
}

/// Makes the frame of a request under a query id.
pub(in crate::thin) struct Body {
    pub(in crate::thin) frame: Box<dyn Fn(Id) -> RequestFrame + std::marker::Send>,
    /// Set for started operations: what cancels them.
    pub(in crate::thin) cancel: Option<CancelKey>,
    /// Set for cancels: what they cancel.
    pub(in crate::thin) cancels: Option<CancelKey>,
    /// Whether it fails with its connection, rather than to be put again: a daemon hangs up at a request like this one.
    pub(in crate::thin) fragile: bool,
}

/// The daemon's reply, and for a cancel whether it ended something.
pub(in crate::thin) struct Answered {
    pub(in crate::thin) frame: ResponseFrame,
    pub(in crate::thin) found: bool,
}

/// The key under which the daemon finds a started operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::thin) enum CancelKey {
    /// A read or a write: the hash of its envelope.
    Envelope([u8; HASH_BYTES]),
    /// A copy command: BLAKE2b-256 of its stream's write capability.
    Copy([u8; HASH_BYTES]),
}

impl CancelKey {
    /// The request that cancels it.
    pub(in crate::thin) fn request(self, query_id: Id) -> RequestFrame {
        let query_id = Some(Octets::from(query_id));
        match self {
            Self::Envelope(hash) => CancelResending { query_id, envelope_hash: Some(Octets::from(hash)) }.into(),
            Self::Copy(hash) => CancelCopy { query_id, write_cap_hash: Some(Octets::from(hash)) }.into(),
        }
    }
}

pub(in crate::thin) enum Command {
    Call(Call),
    Send(Send),
    /// Drop the connection and keep the session.
    Disconnect(oneshot::Sender<()>),
    /// Drop the connection, leave the session to the daemon, and end.
    Leave(oneshot::Sender<()>),
    /// Connect now.
    Reconnect,
    /// What is held back goes into the mixnet through this daemon process.
    Release(Id),
    Close(oneshot::Sender<()>),
}
