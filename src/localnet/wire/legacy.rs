//! Messages to a mixnet service, one packet each (`thin-client-protocol.md` §4.8).

use super::{Meaning, Network, Present, hash, id};
use crate::localnet::core::{Legacy, Request};
use crate::localnet::envelope::OVERHEAD;
use crate::thin::message::{MessageSentEvent, SendMessage};

/// Understands a message. One that wants a reply and does not say by which SURB brings the daemon down, or is never heard
/// of again: here it takes its place among what waits to be sent, and nothing comes of it.
pub(super) fn send(network: &Network, present: &Present, request: SendMessage) -> Meaning {
    let surb_id = if request.with_surb { id(&request.surbid) } else { None };
    if request.with_surb && surb_id.is_none() {
        return Meaning::Ask(Request::Empty);
    }
    let payload = request.payload.unwrap_or_default().0;
    let longest = network.max_plaintext + OVERHEAD;
    if payload.len() > longest {
        return match surb_id {
            Some(_) => Meaning::answer(MessageSentEvent {
                message_id: id(&request.id).map(Into::into),
                surbid: surb_id.map(Into::into),
                sent_at: Some(present.wall.as_secs()),
                reply_eta: 0,
                err: Some(format!("the payload of {} bytes is longer than {longest}", payload.len())),
            }),
            None => Meaning::Ask(Request::Empty),
        };
    }
    Meaning::Ask(Request::Send(Box::new(Legacy {
        message_id: id(&request.id),
        surb_id,
        destination: hash(&request.destination_id_hash),
        queue: request.recipient_queue_id.unwrap_or_default().0,
        payload,
    })))
}
