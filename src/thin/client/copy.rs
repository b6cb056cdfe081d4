//! Copy commands: a courier reads a temporary stream and writes the envelopes that it holds.
//!
//! The stream's boxes are the elements that [`Client::envelopes_from_payload`] and its like make, written to
//! consecutive indices from the one in the stream's write capability on. Source: `thin-client-protocol.md` §4.5,
//! `pigeonhole-internals.md` §5.

use tokio::time::Instant;

use super::{CancelOutcome, Client, hash256, malformed, octets, query};
use crate::bacap::WriteCap;
use crate::thin::message::{HASH_BYTES, Octets, StartCopy};
use crate::thin::pki::Service;
use crate::thin::session::CancelKey;
use crate::thin::{Error, ErrorKind, Operation};

const COPY_COMMAND_FAILED: u8 = 26;
const CANCELLED: u8 = 24;
/// Queue ids fill a field of the Sphinx packet.
const QUEUE_ID_BYTES: std::ops::RangeInclusive<usize> = 1..=32;

/// Which courier carries a copy command out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Courier {
    /// One of the PKI document's, drawn once: a command that is put again after a reconnect goes to the same one, as
    /// only that one knows how far it came. (Where no document is at hand the daemon draws, each time anew.)
    #[default]
    Random,
    /// This one, whose result a repeated command meets again for 30 minutes. Couriers are services of the PKI
    /// document: see [`Document::couriers`](crate::thin::Document::couriers).
    Pinned {
        /// BLAKE2b-256 of its node's identity key.
        identity_hash: [u8; HASH_BYTES],
        /// Its queue at that node, 1 to 32 bytes; usually `courier`.
        queue_id: Vec<u8>,
    },
}

impl Client {
    /// Has `courier` carry out the stream of `stream`, and waits for its end; dropping the future cancels it.
    ///
    /// It takes 5 seconds at the least, and is **not atomic**: where envelope k fails, those before it stay written,
    /// and none after it was sent ([`ErrorKind::CopyFailed`]). Repeating the command is safe, as the same bytes at the
    /// same index are no conflict; the same courier gives the same failure for 30 minutes, so repeat with another one.
    /// Counts as one of the started operations ([`ClientOptions::started`](crate::thin::ClientOptions::started)).
    pub async fn start_copy(&self, stream: &WriteCap, courier: Courier, deadline: Instant) -> Result<(), Error> {
        let operation = Operation::Copy;
        let courier = match courier {
            Courier::Random => self.drawn(Service::COURIER).map(Courier::from),
            pinned => Some(pinned),
        };
        let (courier_identity_hash, courier_queue_id) = match courier {
            Some(Courier::Pinned { queue_id, .. }) if !QUEUE_ID_BYTES.contains(&queue_id.len()) => {
                let text = format!("a queue id has 1 to 32 bytes, and this one has {}", queue_id.len());
                return Err(Error { operation, kind: ErrorKind::InvalidArgument(text) });
            }
            Some(Courier::Pinned { identity_hash, queue_id }) => {
                (Some(Octets::from(identity_hash)), Some(Octets::from(queue_id)))
            }
            Some(Courier::Random) | None => (None, None),
        };
        let cap = stream.clone();
        let frame = move |id| {
            StartCopy {
                query_id: query(id),
                write_cap: octets(&*cap.to_bytes()),
                courier_identity_hash: courier_identity_hash.clone(),
                courier_queue_id: courier_queue_id.clone(),
            }
            .into()
        };
        let reply = self.call(operation, deadline, Some(CancelKey::Copy(copy_hash(stream))), frame).await?;
        let reply = reply.start_resending_copy_command_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        let kind = match reply.error_code {
            0 => return Ok(()),
            COPY_COMMAND_FAILED => ErrorKind::CopyFailed {
                replica_code: reply.replica_error_code.unwrap_or(0),
                envelope: reply.failed_envelope_index.unwrap_or(0),
            },
            CANCELLED => ErrorKind::Cancelled,
            code => ErrorKind::Daemon(code),
        };
        Err(Error { operation, kind })
    }

    /// Ends the copy command of `stream`, by whichever client it was started: that one's wait ends as cancelled. What
    /// the courier has begun, it goes on with.
    pub async fn cancel_copy(&self, stream: &WriteCap, deadline: Instant) -> Result<CancelOutcome, Error> {
        self.cancel_key(Operation::CancelCopy, CancelKey::Copy(copy_hash(stream)), deadline).await
    }
}

/// The key of a copy command at the daemon: BLAKE2b-256 of its stream's write capability.
fn copy_hash(stream: &WriteCap) -> [u8; HASH_BYTES] {
    hash256(&*stream.to_bytes())
}
