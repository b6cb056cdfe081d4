//! What a frame asks: answered here where no network is needed, and turned into what the core understands otherwise.
//!
//! Everything here is a function of its arguments, randomness included, so that connections do it side by side and the
//! same seed gives the same answers. No clock, no sockets, nothing that is kept from one request to the next.

mod copy;
mod decode;
mod directory;
mod encrypt;
mod keys;
mod legacy;
mod resend;
#[cfg(test)]
mod tests;
mod voucher;

use std::time::Duration;

use rand::rngs::StdRng;

pub(super) use copy::{Made, Making};
pub(super) use decode::{Malformed, decode};
pub(super) use resend::ReadWith;

use super::core::Request;
use super::document::{self, Identity, Style};
use super::profile::Profile;
use crate::bacap::{BoxIndex, INDEX_BYTES, READ_CAP_BYTES, SealedBox, WRITE_CAP_BYTES};
use crate::thin::message::{ID_BYTES, Octets, RequestFrame, ResponseFrame};

const INVALID_REQUEST: u8 = 3;
pub(super) const INTERNAL_ERROR: u8 = 4;
const SERVICE_UNAVAILABLE: u8 = 10;
const BACAP_DECRYPTION_FAILED: u8 = 23;
const INVALID_TOMBSTONE_SIGNATURE: u8 = 25;

/// What does not change while the network runs.
pub(super) struct Network {
    pub(super) identity: Identity,
    pub(super) max_plaintext: usize,
    pub(super) profile: Profile,
    /// The identity keys of the replicas, by their number.
    replicas: Vec<[u8; 32]>,
    /// The identity hashes of the couriers, by their number.
    pub(super) couriers: Vec<[u8; 32]>,
}

impl Network {
    /// A network of boxes of `max_plaintext`.
    pub(super) fn new(identity: Identity, max_plaintext: usize, profile: Profile) -> Self {
        let replicas = document::replica_keys(&identity, profile.replicas);
        let couriers = document::courier_hashes(&identity, profile.couriers);
        Self { identity, max_plaintext, profile, replicas, couriers }
    }

    /// The document of now, signatures stripped.
    pub(super) fn document(&self, wall: Duration, style: Style) -> Vec<u8> {
        let epoch = document::mixnet_epoch(&self.profile, wall);
        document::pki_document(&self.identity, &self.profile, self.max_plaintext, epoch, style)
    }

    /// How long the daemon is at a request before it refuses it: it looks for a document five times, a second apart, and a
    /// network in which nothing takes time spares it that.
    fn refusal(&self, present: &Present, code: u8) -> Duration {
        let searched = code == INTERNAL_ERROR && !present.consensus && !self.profile.tick.is_zero();
        // Four of the twenty seconds that it waits beyond a round trip, in the network's own time.
        if searched { self.profile.resend_after / 5 } else { Duration::ZERO }
    }
}

/// How things stand when a request comes.
#[derive(Clone, Copy)]
pub(super) struct Present {
    /// The time since the Unix epoch, on the network's clock.
    pub(super) wall: Duration,
    /// Whether the daemon has a PKI document.
    pub(super) consensus: bool,
    /// How probable it is that another writer takes the place of a box first.
    pub(super) conflicting_writer: f64,
}

/// What one frame comes to.
pub(super) enum Meaning {
    /// Answered without the network.
    Answer(Answer),
    /// To be answered without the network, after some work that is done bit by bit.
    Make(Box<Making>),
    /// For the core.
    Ask(Request),
    /// The client says goodbye.
    Close,
    /// The daemon hangs up on such a frame.
    Hangup(&'static str),
}

/// What the daemon answers by itself.
pub(super) struct Answer {
    pub(super) frame: Box<ResponseFrame>,
    /// How long that keeps the connection, in the network's own time.
    pub(super) cost: Duration,
    /// What another writer of the same channel stores before the answer is used.
    pub(super) foreign: Option<Box<SealedBox>>,
}

impl Answer {
    fn of(frame: impl Into<ResponseFrame>) -> Self {
        Self { frame: Box::new(frame.into()), cost: Duration::ZERO, foreign: None }
    }
}

impl Meaning {
    fn answer(frame: impl Into<ResponseFrame>) -> Self {
        Self::Answer(Answer::of(frame))
    }
}

/// Understands a frame. Where it holds several requests, the daemon takes its goodbye first, then its session's token,
/// then the first that it answers by itself, then the first that goes over the network (`thin-client-protocol.md` §3.2).
pub(super) fn understand(network: &Network, present: &Present, rng: &mut StdRng, mut frame: RequestFrame) -> Meaning {
    fit_query_ids(&mut frame);
    if let Some(what) = wrong_length(&frame) {
        return Meaning::Hangup(what);
    }
    if frame.thin_close.is_some() {
        return Meaning::Close;
    }
    if let Some(request) = frame.session_token {
        return match id(&request.client_instance_token) {
            Some(token) => Meaning::Ask(Request::Token(token)),
            None => Meaning::Hangup("no session token"),
        };
    }
    if let Some(request) = frame.new_keypair {
        return Meaning::answer(keys::new_keypair(request));
    }
    if let Some(request) = frame.encrypt_read {
        return Meaning::Answer(encrypt::read(network, present, rng, request));
    }
    if let Some(request) = frame.encrypt_write {
        return Meaning::Answer(encrypt::write(network, present, rng, request));
    }
    if let Some(request) = frame.cancel_resending_encrypted_message {
        return resend::cancel(request);
    }
    if let Some(request) = frame.cancel_resending_copy_command {
        return copy::cancel(request);
    }
    if let Some(request) = frame.next_message_box_index {
        return Meaning::answer(keys::next_index(request));
    }
    if let Some(request) = frame.get_message_box_index_counter {
        return Meaning::answer(keys::counter(request));
    }
    if let Some(request) = frame.get_pki_document {
        return Meaning::answer(directory::document(network, present, request));
    }
    if let Some(request) = frame.get_directory_authorities {
        return Meaning::answer(directory::authorities(network, request));
    }
    if let Some(request) = frame.create_courier_envelopes_from_payload {
        return copy::from_payload(network, present, request);
    }
    if let Some(request) = frame.create_courier_envelopes_from_multi_payload {
        return copy::from_multi_payload(network, present, request);
    }
    if let Some(request) = frame.create_courier_envelopes_from_tombstone_range {
        return copy::from_tombstone_range(network, present, request);
    }
    if let Some(request) = frame.voucher_mint {
        return Meaning::answer(voucher::mint(rng, request));
    }
    if let Some(request) = frame.voucher_induct {
        return Meaning::answer(voucher::induct(rng, request));
    }
    if let Some(request) = frame.voucher_open {
        return Meaning::answer(voucher::open(request));
    }
    if let Some(request) = frame.voucher_derive_stream {
        return Meaning::answer(voucher::derive_stream(request));
    }
    if let Some(request) = frame.send_message {
        return legacy::send(network, present, request);
    }
    if let Some(request) = frame.start_resending_encrypted_message {
        return resend::start(network, request);
    }
    if let Some(request) = frame.start_resending_copy_command {
        return copy::start(request);
    }
    // A frame that asks nothing takes its place among what waits to be sent, and that is all.
    Meaning::Ask(Request::Empty)
}

/// What is echoed has been through the daemon's decoder.
fn fit_query_ids(frame: &mut RequestFrame) {
    macro_rules! fit {
        ($($request:ident),+ $(,)?) => {
            $(if let Some(request) = &mut frame.$request {
                request.query_id = id(&request.query_id).map(Octets::from);
            })+
        };
    }
    fit! {
        new_keypair, encrypt_read, encrypt_write, start_resending_encrypted_message,
        cancel_resending_encrypted_message, start_resending_copy_command, cancel_resending_copy_command,
        next_message_box_index, get_message_box_index_counter, get_pki_document, get_directory_authorities,
        create_courier_envelopes_from_payload, create_courier_envelopes_from_multi_payload,
        create_courier_envelopes_from_tombstone_range, voucher_mint, voucher_induct, voucher_open,
        voucher_derive_stream,
    }
}

/// Capabilities and indices of a wrong length fail in the daemon's decoder, which then hangs up.
fn wrong_length(frame: &RequestFrame) -> Option<&'static str> {
    let read_cap = |bytes: &Option<Octets>| wrong(bytes, READ_CAP_BYTES).then_some("a read capability");
    let write_cap = |bytes: &Option<Octets>| wrong(bytes, WRITE_CAP_BYTES).then_some("a write capability");
    let at = |bytes: &Option<Octets>| wrong(bytes, INDEX_BYTES).then_some("an index");
    fn wrong(bytes: &Option<Octets>, length: usize) -> bool {
        bytes.as_ref().is_some_and(|bytes| bytes.len() != length)
    }
    let mut found = None;
    if let Some(request) = &frame.encrypt_read {
        found = found.or(read_cap(&request.read_cap)).or(at(&request.message_box_index));
    }
    if let Some(request) = &frame.encrypt_write {
        found = found.or(write_cap(&request.write_cap)).or(at(&request.message_box_index));
    }
    if let Some(request) = &frame.next_message_box_index {
        found = found.or(at(&request.message_box_index));
    }
    if let Some(request) = &frame.get_message_box_index_counter {
        found = found.or(at(&request.message_box_index));
    }
    // The index of a started operation is plain bytes to the daemon.
    if let Some(request) = &frame.start_resending_encrypted_message {
        found = found.or(read_cap(&request.read_cap)).or(write_cap(&request.write_cap));
    }
    if let Some(request) = &frame.start_resending_copy_command {
        found = found.or(write_cap(&request.write_cap));
    }
    if let Some(request) = &frame.create_courier_envelopes_from_payload {
        found = found.or(write_cap(&request.dest_write_cap)).or(at(&request.dest_start_index));
    }
    if let Some(request) = &frame.create_courier_envelopes_from_tombstone_range {
        found = found.or(write_cap(&request.dest_write_cap)).or(at(&request.dest_start_index));
    }
    if let Some(request) = &frame.create_courier_envelopes_from_multi_payload {
        let all = request.destinations.iter().flatten();
        found = found.or(all.into_iter().find_map(|one| write_cap(&one.write_cap).or(at(&one.start_index))));
    }
    found
}

fn index(bytes: &Option<Octets>) -> Option<BoxIndex> {
    BoxIndex::from_bytes(bytes.as_deref()?).ok()
}

/// The daemon's decoder cuts or pads ids to their length.
fn id(bytes: &Option<Octets>) -> Option<[u8; ID_BYTES]> {
    fitted(bytes)
}

fn hash(bytes: &Option<Octets>) -> Option<[u8; 32]> {
    fitted(bytes)
}

fn fitted<const N: usize>(bytes: &Option<Octets>) -> Option<[u8; N]> {
    let bytes = bytes.as_deref()?;
    let mut fitted = [0; N];
    let common = bytes.len().min(N);
    fitted[..common].copy_from_slice(&bytes[..common]);
    Some(fitted)
}

#[allow(clippy::unnecessary_wraps)] // Every field of the wire may be null.
fn octets(bytes: &[u8]) -> Option<Octets> {
    Some(Octets::from(bytes))
}
