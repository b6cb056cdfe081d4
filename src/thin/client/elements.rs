//! The elements of copy streams: envelopes for many boxes, cut so that each element fills one box of a temporary
//! stream.
//!
//! These are the daemon's own calls. [`CopyStream`](super::CopyStream) makes them in the right order. Nothing is sent
//! into the network here. Source: `thin-client-protocol.md` §3.2 and §4.5, `pigeonhole-internals.md` §5.1.

use tokio::time::Instant;

use super::{Client, check, index, malformed, octets, query};
use crate::bacap::{BoxIndex, WriteCap};
use crate::thin::message::{
    CopyDestination, EnvelopesFromMultiPayload, EnvelopesFromPayload, EnvelopesFromTombstoneRange, Octets,
};
use crate::thin::{Error, ErrorKind, Operation};

/// The longest payload for one destination, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 10 * 1024 * 1024;
/// The longest payloads of one call together, in bytes: with a third more for the envelopes, the reply stays in its
/// frame.
pub const MAX_CALL_BYTES: usize = 28 * 1024 * 1024;
/// The most boxes that one call tombstones; the daemon itself would make any number, and hold the connection meanwhile.
pub const MAX_TOMBSTONES: u32 = 8192;

/// Where along a copy stream a call stands. The first one starts it; the last one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Nothing comes before it.
    pub is_start: bool,
    /// Nothing comes behind it.
    pub is_last: bool,
}

impl Part {
    /// The only call of a stream.
    pub const WHOLE: Self = Self { is_start: true, is_last: true };
    /// The first of several.
    pub const FIRST: Self = Self { is_start: true, is_last: false };
    /// Neither the first nor the last.
    pub const MIDDLE: Self = Self { is_start: false, is_last: false };
    /// The last of several.
    pub const LAST: Self = Self { is_start: false, is_last: true };
}

/// Bytes for one channel.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Whose boxes are written.
    pub write_cap: WriteCap,
    /// The first of them.
    pub start: BoxIndex,
    /// What they hold, cut into boxes of M−4 bytes by the daemon; at most [`MAX_PAYLOAD_BYTES`].
    pub bytes: Vec<u8>,
}

/// What a call made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements {
    /// Each the plaintext of one box of the temporary stream, in order.
    pub elements: Vec<Vec<u8>>,
    /// The beginning of an element that is not full yet, for the next call; empty behind the last one. Whoever loses it
    /// loses envelopes, so it is kept with the elements.
    pub buffer: Vec<u8>,
    /// For each destination, in order, the index behind the last box that it fills.
    pub next: Vec<BoxIndex>,
}

impl Client {
    /// The elements that write a payload to one channel. Unlike its kin it never leaves a buffer: a call that is not
    /// the last flushes what it has. An empty payload is refused: it makes no element, and as the last one it would
    /// leave a stream without its end, which no copy command could complete.
    pub async fn envelopes_from_payload(
        &self,
        payload: &Payload,
        part: Part,
        deadline: Instant,
    ) -> Result<Elements, Error> {
        let operation = Operation::CourierEnvelopes;
        admit(std::slice::from_ref(payload))?;
        if payload.bytes.is_empty() {
            return Err(refused("an empty payload makes no element, and a stream without one has no end"));
        }
        let (bytes, cap, start) = (payload.bytes.clone(), payload.write_cap.clone(), payload.start.clone());
        let frame = move |id| {
            EnvelopesFromPayload {
                query_id: query(id),
                payload: octets(&bytes),
                dest_write_cap: octets(&*cap.to_bytes()),
                dest_start_index: octets(start.as_bytes()),
                is_start: part.is_start,
                is_last: part.is_last,
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.create_courier_envelopes_from_payload_reply;
        let reply = reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        elements(reply.envelopes, None, vec![index(operation, reply.next_dest_index)?], part)
    }

    /// The elements that write payloads to one or more channels. Where `part` is not the last, what is over comes as
    /// [`Elements::buffer`], and goes into the next call. With empty payloads and no buffer there is nothing that could
    /// end a stream, so that is refused as the last call; with a buffer, an empty payload just ends it.
    pub async fn envelopes_from_multi_payload(
        &self,
        payloads: &[Payload],
        part: Part,
        buffer: &[u8],
        deadline: Instant,
    ) -> Result<Elements, Error> {
        let operation = Operation::CourierEnvelopes;
        admit(payloads)?;
        if part.is_last && buffer.is_empty() && payloads.iter().all(|payload| payload.bytes.is_empty()) {
            return Err(refused("empty payloads make no element, and a stream without one has no end"));
        }
        let destinations: Vec<_> = payloads.iter().map(destination).collect();
        let buffer = buffer.to_vec();
        let frame = move |id| {
            EnvelopesFromMultiPayload {
                query_id: query(id),
                destinations: Some(destinations.clone()),
                is_start: part.is_start,
                is_last: part.is_last,
                buffer: (!buffer.is_empty()).then(|| Octets::from(buffer.as_slice())),
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.create_courier_envelopes_from_multi_payload_reply;
        let reply = reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        let next = reply.next_dest_indices.unwrap_or_default().into_iter();
        let next = next.map(|next| index(operation, Some(next))).collect::<Result<Vec<_>, _>>()?;
        if next.len() != payloads.len() {
            return Err(malformed(operation, "not one index a destination"));
        }
        elements(reply.envelopes, reply.buffer, next, part)
    }

    /// The elements that tombstone `count` boxes of a channel, from `start` on. 1 to [`MAX_TOMBSTONES`]: the daemon
    /// answers a count of 0 with success, and drops the buffer.
    pub async fn envelopes_from_tombstone_range(
        &self,
        write_cap: &WriteCap,
        start: &BoxIndex,
        count: u32,
        part: Part,
        buffer: &[u8],
        deadline: Instant,
    ) -> Result<Elements, Error> {
        let operation = Operation::CourierEnvelopes;
        if !(1..=MAX_TOMBSTONES).contains(&count) {
            return Err(refused(&format!("{count} tombstones; one call makes 1 to {MAX_TOMBSTONES}")));
        }
        let (cap, start, buffer) = (write_cap.clone(), start.clone(), buffer.to_vec());
        let frame = move |id| {
            EnvelopesFromTombstoneRange {
                query_id: query(id),
                dest_write_cap: octets(&*cap.to_bytes()),
                dest_start_index: octets(start.as_bytes()),
                max_count: count,
                is_start: part.is_start,
                is_last: part.is_last,
                buffer: (!buffer.is_empty()).then(|| Octets::from(buffer.as_slice())),
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.create_courier_envelopes_from_tombstone_range_reply;
        let reply = reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        elements(reply.envelopes, reply.buffer, vec![index(operation, reply.next_dest_index)?], part)
    }
}

fn destination(payload: &Payload) -> CopyDestination {
    CopyDestination {
        payload: octets(&payload.bytes),
        write_cap: octets(&*payload.write_cap.to_bytes()),
        start_index: octets(payload.start.as_bytes()),
    }
}

/// What the daemon would refuse, or answer in a frame that is too long, is not sent.
fn admit(payloads: &[Payload]) -> Result<(), Error> {
    if payloads.is_empty() {
        return Err(refused("a copy needs one destination at the least"));
    }
    if let Some(payload) = payloads.iter().find(|payload| payload.bytes.len() > MAX_PAYLOAD_BYTES) {
        let bytes = payload.bytes.len();
        return Err(refused(&format!(
            "{bytes} bytes for one channel; the most is {MAX_PAYLOAD_BYTES}: make more calls"
        )));
    }
    let bytes: usize = payloads.iter().map(|payload| payload.bytes.len()).sum();
    if bytes > MAX_CALL_BYTES {
        return Err(refused(&format!("{bytes} bytes in one call; the most is {MAX_CALL_BYTES}: make more calls")));
    }
    Ok(())
}

/// A last call that gave no element has no end to be copied to.
fn elements(
    envelopes: Option<Vec<Octets>>,
    buffer: Option<Octets>,
    next: Vec<BoxIndex>,
    part: Part,
) -> Result<Elements, Error> {
    let elements: Vec<_> = envelopes.unwrap_or_default().into_iter().map(|element| element.0).collect();
    if part.is_last && elements.is_empty() {
        return Err(malformed(Operation::CourierEnvelopes, "a last part without an element"));
    }
    Ok(Elements { elements, buffer: buffer.unwrap_or_default().0, next })
}

fn refused(text: &str) -> Error {
    Error { operation: Operation::CourierEnvelopes, kind: ErrorKind::InvalidArgument(text.to_owned()) }
}
