//! Legacy messages: one packet to a service of the mixnet, and perhaps its reply.
//!
//! They are sent at most once: nothing repeats one, not after a reconnect either. A lost reply is silence, so each wait has
//! a deadline. Source: `thin-client-protocol.md` §4.8.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Client;
use crate::thin::message::{HASH_BYTES, ID_BYTES};
use crate::thin::session::{Awaits, Command, Send, Sending};
use crate::thin::{Error, ErrorKind, Operation};

/// Queue ids fill a field of the Sphinx packet.
const QUEUE_ID_BYTES: usize = 32;

/// A service of the mixnet: services and their queues stand in the PKI document.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    /// BLAKE2b-256 of its node's identity key.
    pub identity_hash: [u8; HASH_BYTES],
    /// Its queue at that node, 1 to 32 bytes, such as `+echo`.
    pub queue_id: Vec<u8>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Destination({:?})", String::from_utf8_lossy(&self.queue_id))
    }
}

/// A message that left the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentMessage {
    /// Under which its reply comes, as [`Event::MessageReply`](crate::thin::Event::MessageReply).
    pub surb_id: [u8; ID_BYTES],
    /// How long the reply is expected to take.
    pub reply_eta: Duration,
}

impl Client {
    /// Sends a message whose reply comes as [`Event::MessageReply`](crate::thin::Event::MessageReply); returns when the
    /// daemon says that it left. The daemon waits for the reply for the round trip that it drew and some seconds more.
    pub async fn send_message(
        &self,
        to: &Destination,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<SentMessage, Error> {
        match self.legacy(to, payload, Awaits::Sent, None, deadline).await? {
            Sending::Sent { surb_id, reply_eta } => Ok(SentMessage { surb_id, reply_eta }),
            _ => unreachable!("the session answers what was awaited"),
        }
    }

    /// Sends a message without a reply; returns when it was handed to the daemon, which never tells what became of it.
    pub async fn send_message_without_reply(
        &self,
        to: &Destination,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Error> {
        self.legacy(to, payload, Awaits::Nothing, None, deadline).await.map(drop)
    }

    /// Sends a message and waits for its reply, zero-padded to the geometry's payload length. A reply that came while the
    /// client was disconnected is met on return, if the daemon still knows the session.
    pub async fn blocking_send_message(
        &self,
        to: &Destination,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        match self.legacy(to, payload, Awaits::Reply, None, deadline).await? {
            Sending::Reply(payload) => Ok(payload),
            _ => unreachable!("the session answers what was awaited"),
        }
    }

    /// Hands a message over whose reply comes under a SURB id of the caller's own making, which was never used before;
    /// returns when the daemon has it. For programs that look at frames themselves
    /// ([`ClientOptions::inbound`](crate::thin::ClientOptions::inbound)): what became of it comes as frames alone.
    pub async fn hand_over_message(
        &self,
        surb_id: [u8; ID_BYTES],
        to: &Destination,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Error> {
        self.legacy(to, payload, Awaits::Nothing, Some(surb_id), deadline).await.map(drop)
    }

    async fn legacy(
        &self,
        to: &Destination,
        payload: &[u8],
        awaits: Awaits,
        surb_id: Option<[u8; ID_BYTES]>,
        deadline: Instant,
    ) -> Result<Sending, Error> {
        let operation = Operation::SendMessage;
        let refused = |text: String| Error { operation, kind: ErrorKind::InvalidArgument(text) };
        if to.queue_id.is_empty() || to.queue_id.len() > QUEUE_ID_BYTES {
            return Err(refused(format!("a queue id has 1 to 32 bytes, and this one has {}", to.queue_id.len())));
        }
        let geometry = self.status.borrow().sphinx.clone();
        if let Some(max) = geometry.and_then(|geometry| usize::try_from(geometry.user_forward_payload_length).ok())
            && payload.len() > max
        {
            return Err(refused(format!("{} bytes do not fit into this network's packets of {max}", payload.len())));
        }
        let room = self.room(operation, deadline, &self.started).await?;
        let (answer, answered) = oneshot::channel();
        let (destination, queue, payload) = (to.identity_hash, to.queue_id.clone(), payload.to_vec());
        let send = Send { destination, queue, payload, surb_id, awaits, deadline, answer, room };
        self.command(operation, deadline, Command::Send(send)).await?;
        self.answer(operation, answered).await
    }
}
