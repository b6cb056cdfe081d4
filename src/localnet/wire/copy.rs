//! Copy commands: the streams that they are made from, and their start and end (`thin-client-protocol.md` §4.5).
//!
//! Making a stream may take thousands of envelopes: [`Making`] makes some at a time, so that whoever drives it can let
//! others have their turn. What would not fit into one frame of 40 MiB is refused before anything is made, as an invalid
//! request, where the daemon would send a reply that every client rejects; that also bounds `max_count`, which the daemon
//! does not bound at all: about 20,900 tombstones of boxes of 1,549 bytes.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;

use super::{Answer, INTERNAL_ERROR, INVALID_REQUEST, Meaning, Network, Present, encrypt, hash, id, index, octets};
use crate::bacap::{BoxIndex, SealedBox, WriteCap};
use crate::localnet::copy_stream::Encoder;
use crate::localnet::core::{Request, StartedCopy};
use crate::localnet::envelope::{Inner, OVERHEAD, hash256};
use crate::thin::frame::MAX_BODY_BYTES;
use crate::thin::message::{
    CancelCopy, CancelReply, EnvelopesFromMultiPayload, EnvelopesFromMultiPayloadReply, EnvelopesFromPayload,
    EnvelopesFromPayloadReply, EnvelopesFromTombstoneRange, EnvelopesFromTombstoneRangeReply, Octets, ResponseFrame,
    StartCopy, StartCopyReply,
};

const COPY_COMMAND_FAILED: u8 = 26;
/// Longest payload for one destination.
const LONGEST_PAYLOAD: usize = 10 << 20;
/// Envelopes that are made at a time.
const PORTION: usize = 16;
/// What a reply has besides the elements, the indices and the buffer.
const REPLY_OVERHEAD: usize = 4096;

pub(super) fn start(request: StartCopy) -> Meaning {
    let refused =
        |query_id, error_code| Meaning::answer(StartCopyReply { query_id, error_code, ..StartCopyReply::default() });
    let (Some(query_id), Some(bytes)) = (id(&request.query_id), request.write_cap.as_deref()) else {
        return refused(request.query_id, INVALID_REQUEST);
    };
    // A courier that is sent something else than a capability fails before the first envelope.
    let Ok(write_cap) = WriteCap::from_bytes(bytes) else { return refused(request.query_id, COPY_COMMAND_FAILED) };
    // A courier is pinned by its hash and its queue, or not at all.
    let queue = request.courier_queue_id.as_deref().filter(|queue| !queue.is_empty());
    let courier = queue.and_then(|_| hash(&request.courier_identity_hash));
    Meaning::Ask(Request::Copy(Box::new(StartedCopy { query_id, hash: hash256(&[bytes]), write_cap, courier })))
}

pub(super) fn cancel(request: CancelCopy) -> Meaning {
    match (id(&request.query_id), hash(&request.write_cap_hash)) {
        (Some(query_id), Some(hash)) => Meaning::Ask(Request::CancelCopy { query_id, hash }),
        _ => Meaning::answer(ResponseFrame {
            cancel_resending_copy_command_reply: Some(CancelReply {
                query_id: request.query_id,
                error_code: INVALID_REQUEST,
            }),
            ..ResponseFrame::default()
        }),
    }
}

/// A copy stream in the making.
pub(in crate::localnet) struct Making {
    kind: Kind,
    query_id: Option<Octets>,
    present: Present,
    encoder: Encoder,
    ends: bool,
    destinations: VecDeque<Destination>,
    elements: Vec<Octets>,
    /// The index behind the last one used, one a destination.
    next: Vec<Octets>,
    /// How long the daemon would be at it.
    cost: Duration,
}

/// Which of the three requests is answered.
#[derive(Clone, Copy)]
enum Kind {
    Payload,
    MultiPayload,
    Tombstones,
}

/// What is to be written from an index on.
struct Destination {
    cap: WriteCap,
    index: BoxIndex,
    boxes: Boxes,
}

enum Boxes {
    Payload { bytes: Vec<u8>, done: usize },
    Tombstones(u32),
}

/// What the three requests have in common.
struct Asked {
    kind: Kind,
    query_id: Option<Octets>,
    starts: bool,
    ends: bool,
    buffer: Octets,
    /// `None` where something in them is not what it should be.
    destinations: Option<Vec<Destination>>,
}

pub(super) fn from_payload(network: &Network, present: &Present, request: EnvelopesFromPayload) -> Meaning {
    let destination = payload(request.payload, &request.dest_write_cap, &request.dest_start_index);
    make(
        network,
        present,
        Asked {
            kind: Kind::Payload,
            query_id: request.query_id,
            starts: request.is_start,
            ends: request.is_last,
            buffer: Octets::default(),
            destinations: destination.map(|destination| vec![destination]),
        },
    )
}

pub(super) fn from_multi_payload(network: &Network, present: &Present, request: EnvelopesFromMultiPayload) -> Meaning {
    let destinations = request.destinations.filter(|all| !all.is_empty());
    make(
        network,
        present,
        Asked {
            kind: Kind::MultiPayload,
            query_id: request.query_id,
            starts: request.is_start,
            ends: request.is_last,
            buffer: request.buffer.unwrap_or_default(),
            destinations: destinations.and_then(|all| {
                all.into_iter().map(|one| payload(one.payload, &one.write_cap, &one.start_index)).collect()
            }),
        },
    )
}

pub(super) fn from_tombstone_range(
    network: &Network,
    present: &Present,
    request: EnvelopesFromTombstoneRange,
) -> Meaning {
    let cap = request.dest_write_cap.as_deref().and_then(|cap| WriteCap::from_bytes(cap).ok());
    let boxes = Boxes::Tombstones(request.max_count);
    make(
        network,
        present,
        Asked {
            kind: Kind::Tombstones,
            query_id: request.query_id,
            starts: request.is_start,
            ends: request.is_last,
            buffer: request.buffer.unwrap_or_default(),
            destinations: cap
                .zip(index(&request.dest_start_index))
                .map(|(cap, index)| vec![Destination { cap, index, boxes }]),
        },
    )
}

fn payload(payload: Option<Octets>, cap: &Option<Octets>, at: &Option<Octets>) -> Option<Destination> {
    let bytes = payload.unwrap_or_default().0;
    let cap = WriteCap::from_bytes(cap.as_deref()?).ok()?;
    let index = index(at)?;
    (bytes.len() <= LONGEST_PAYLOAD).then_some(Destination { cap, index, boxes: Boxes::Payload { bytes, done: 0 } })
}

fn make(network: &Network, present: &Present, asked: Asked) -> Meaning {
    let Asked { kind, query_id, starts, ends, buffer, destinations } = asked;
    let refuse = |query_id, code| {
        let cost = network.refusal(present, code);
        Meaning::Answer(Answer { cost, ..Answer::of(refused(kind, query_id, code)) })
    };
    let Some(destinations) = destinations else { return refuse(query_id, INVALID_REQUEST) };
    let max_plaintext = network.max_plaintext;
    let envelopes: usize = destinations.iter().map(|destination| destination.left(max_plaintext)).sum();
    if longest_reply(max_plaintext, envelopes, buffer.len(), destinations.len()) > MAX_BODY_BYTES {
        return refuse(query_id, INVALID_REQUEST);
    }
    if !present.consensus {
        return refuse(query_id, INTERNAL_ERROR);
    }
    Meaning::Make(Box::new(Making {
        kind,
        query_id,
        present: *present,
        encoder: Encoder::new(max_plaintext, starts, &buffer),
        ends,
        destinations: destinations.into(),
        elements: Vec::new(),
        next: Vec::new(),
        cost: network.profile.encrypt.saturating_mul(u32::try_from(envelopes).unwrap_or(u32::MAX)),
    }))
}

/// What the reply's body is no longer than, in bytes.
pub(super) fn longest_reply(max_plaintext: usize, envelopes: usize, buffer: usize, destinations: usize) -> usize {
    let stream = envelopes.saturating_mul(4 + max_plaintext + OVERHEAD - 1).saturating_add(buffer);
    // An element has a head of its own in the stream, and another one in the reply.
    let elements = stream.div_ceil(max_plaintext - 5).saturating_mul(10);
    stream.saturating_add(elements).saturating_add(destinations * 106 + REPLY_OVERHEAD)
}

impl Destination {
    /// How many boxes are still to be written.
    fn left(&self, max_plaintext: usize) -> usize {
        match &self.boxes {
            Boxes::Payload { bytes, done } => (bytes.len() - done).div_ceil(max_plaintext - 4),
            Boxes::Tombstones(count) => usize::try_from(*count).unwrap_or(usize::MAX),
        }
    }

    /// The next box, or a code where the channel has no more indices; `None` at the end.
    fn next(&mut self, max_plaintext: usize) -> Option<Result<SealedBox, u8>> {
        if self.left(max_plaintext) == 0 {
            return None;
        }
        let Ok(next) = self.index.next() else { return Some(Err(INTERNAL_ERROR)) };
        let index = std::mem::replace(&mut self.index, next);
        Some(Ok(match &mut self.boxes {
            Boxes::Payload { bytes, done } => {
                let chunk = &bytes[*done..bytes.len().min(*done + max_plaintext - 4)];
                *done += chunk.len();
                self.cap.seal(&index, chunk, max_plaintext).expect("a chunk is shorter than a box")
            }
            Boxes::Tombstones(count) => {
                *count -= 1;
                self.cap.tombstone(&index)
            }
        }))
    }
}

impl Making {
    /// Makes some more of it, and gives the answer when there is no more to make. Takes as long as a few envelopes do.
    pub(in crate::localnet) fn step(mut self: Box<Self>, network: &Network, rng: &mut StdRng) -> Made {
        for _ in 0..PORTION {
            let Some(destination) = self.destinations.front_mut() else { return Made::Answer(self.answer()) };
            match destination.next(network.max_plaintext) {
                Some(Ok(sealed)) => {
                    let made = encrypt::envelope(network, &self.present, rng, &Inner::Write(sealed));
                    // In the stream an envelope goes without the type of a query.
                    self.elements.extend(self.encoder.push(&made.ciphertext[1..]).into_iter().map(Octets));
                }
                Some(Err(code)) => return Made::Answer(Answer::of(refused(self.kind, self.query_id, code))),
                None => {
                    self.next.extend(octets(destination.index.as_bytes()));
                    self.destinations.pop_front();
                }
            }
        }
        Made::More(self)
    }

    fn answer(mut self) -> Answer {
        let (last, buffer) = match (self.kind, self.ends) {
            (Kind::Payload, ends) | (_, ends @ true) => (self.encoder.flush(ends), Vec::new()),
            (_, false) => self.encoder.suspend(),
        };
        self.elements.extend(last.into_iter().map(Octets));
        let (query_id, error_code) = (self.query_id, 0);
        let envelopes = (!self.elements.is_empty()).then_some(self.elements);
        let buffer = (!buffer.is_empty()).then_some(Octets(buffer));
        let frame: ResponseFrame = match self.kind {
            Kind::Payload => {
                let next_dest_index = self.next.pop();
                EnvelopesFromPayloadReply { query_id, envelopes, next_dest_index, error_code }.into()
            }
            Kind::MultiPayload => {
                let next_dest_indices = Some(self.next);
                EnvelopesFromMultiPayloadReply { query_id, envelopes, buffer, next_dest_indices, error_code }.into()
            }
            Kind::Tombstones => {
                let next_dest_index = self.next.pop();
                EnvelopesFromTombstoneRangeReply { query_id, envelopes, buffer, next_dest_index, error_code }.into()
            }
        };
        Answer { cost: self.cost, ..Answer::of(frame) }
    }
}

/// What a step of [`Making`] comes to.
pub(in crate::localnet) enum Made {
    More(Box<Making>),
    Answer(Answer),
}

fn refused(kind: Kind, query_id: Option<Octets>, error_code: u8) -> ResponseFrame {
    match kind {
        Kind::Payload => {
            EnvelopesFromPayloadReply { query_id, error_code, ..EnvelopesFromPayloadReply::default() }.into()
        }
        Kind::MultiPayload => {
            EnvelopesFromMultiPayloadReply { query_id, error_code, ..EnvelopesFromMultiPayloadReply::default() }.into()
        }
        Kind::Tombstones => {
            EnvelopesFromTombstoneRangeReply { query_id, error_code, ..EnvelopesFromTombstoneRangeReply::default() }
                .into()
        }
    }
}
