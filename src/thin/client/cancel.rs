//! Cancelling by key, whoever started the operation.
//!
//! Dropping a future cancels as well, and then the session sees to it that the daemon gets rid of the operation.
//! Source: `thin-client-protocol.md` §4.4.

use tokio::time::Instant;

use super::{Client, check, malformed};
use crate::thin::message::HASH_BYTES;
use crate::thin::session::{Body, CancelKey};
use crate::thin::{Error, Operation};

/// What a cancel met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The operation was under way, and is no more. Packets that had left may still arrive.
    Cancelled,
    /// The daemon found nothing under way: it has ended, or was never started, or waits in the daemon's queue and **may
    /// still start**. If it is an operation of this client, its wait has ended, and the client cancels it
    /// again when it surfaces.
    NothingFound,
}

impl Client {
    /// Ends whatever was started with this envelope, by whichever client: that one's wait ends as cancelled.
    pub async fn cancel(&self, hash: &[u8; HASH_BYTES], deadline: Instant) -> Result<CancelOutcome, Error> {
        self.cancel_key(Operation::Cancel, CancelKey::Envelope(*hash), deadline).await
    }

    pub(super) async fn cancel_key(
        &self,
        operation: Operation,
        key: CancelKey,
        deadline: Instant,
    ) -> Result<CancelOutcome, Error> {
        let body =
            Body { frame: Box::new(move |id| key.request(id)), cancel: None, cancels: Some(key), fragile: false };
        let answered = self.ask(operation, deadline, body).await?;
        let frame = answered.frame;
        let reply = match key {
            CancelKey::Envelope(_) => frame.cancel_resending_encrypted_message_reply,
            CancelKey::Copy(_) => frame.cancel_resending_copy_command_reply,
        };
        check(operation, reply.ok_or_else(|| malformed(operation, "another reply"))?.error_code)?;
        Ok(if answered.found { CancelOutcome::Cancelled } else { CancelOutcome::NothingFound })
    }
}
