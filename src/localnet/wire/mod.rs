//! What a frame asks: answered here where no network is needed, and turned into what the core understands otherwise.
//!
//! Everything here is a function of its arguments, so that connections do it side by side.

mod decode;

pub(super) use decode::{Malformed, decode};

use std::time::Duration;

use tracing::warn;

use super::core::{Request, Started};
use super::document::{self, Identity};
use super::envelope::{self, Inner};
use super::replica::{mixnet_epoch, replica_epoch};
use crate::bacap::{
    BoxIndex, INDEX_BYTES, OpenError, Opened, READ_CAP_BYTES, ReadCap, SealedBox, WRITE_CAP_BYTES, WriteCap, verify_box,
};
use crate::thin::message::{
    CancelReply, EncryptReply, EnvelopesFromMultiPayloadReply, EnvelopesFromPayloadReply,
    EnvelopesFromTombstoneRangeReply, GetDirectoryAuthoritiesReply, GetPkiDocumentReply, ID_BYTES, IndexCounterReply,
    MessageSentEvent, NewKeypairReply, NextIndexReply, Octets, RequestFrame, ResponseFrame, StartCopyReply,
    StartResending, StartResendingReply, VoucherDeriveStreamReply, VoucherInductReply, VoucherMintReply,
    VoucherOpenReply,
};

pub(super) const INVALID_REQUEST: u8 = 3;
pub(super) const INTERNAL_ERROR: u8 = 4;
const SERVICE_UNAVAILABLE: u8 = 10;
const BACAP_DECRYPTION_FAILED: u8 = 23;
const INVALID_TOMBSTONE_SIGNATURE: u8 = 25;

/// What does not change while the network runs.
pub(super) struct Network {
    pub(super) identity: Identity,
    pub(super) max_plaintext: usize,
}

/// What one frame comes to.
pub(super) enum Meaning {
    /// Answered without the network.
    Answer(Box<ResponseFrame>),
    /// For the core.
    Ask(Request),
    /// The client says goodbye.
    Close,
    /// Nothing that is answered, as the daemon does.
    Nothing,
    /// The daemon hangs up on such a frame.
    Hangup(&'static str),
}

/// Understands a frame that came at `wall`, a time since the Unix epoch.
pub(super) fn understand(network: &Network, wall: Duration, frame: RequestFrame) -> Meaning {
    if frame.thin_close.is_some() {
        return Meaning::Close;
    }
    if let Some(lengths) = wrong_lengths(&frame) {
        return Meaning::Hangup(lengths);
    }
    if let Some(request) = frame.session_token {
        return match request.client_instance_token.as_deref().map(<[u8; ID_BYTES]>::try_from) {
            Some(Ok(token)) => Meaning::Ask(Request::Token(token)),
            _ => Meaning::Hangup("a session token of a wrong length"),
        };
    }
    if let Some(answer) = answer(network, wall, &frame) {
        return Meaning::Answer(Box::new(answer));
    }
    if let Some(request) = frame.cancel_resending_encrypted_message {
        return match (id(&request.query_id), hash(&request.envelope_hash)) {
            (Some(query_id), Some(hash)) => Meaning::Ask(Request::Cancel { query_id, hash }),
            _ => Meaning::answer(CancelReply { query_id: request.query_id, error_code: INVALID_REQUEST }, |reply| {
                ResponseFrame { cancel_resending_encrypted_message_reply: Some(reply), ..ResponseFrame::default() }
            }),
        };
    }
    if let Some(request) = frame.start_resending_encrypted_message {
        return start(network, request);
    }
    if let Some(request) = frame.send_message {
        return match request.with_surb {
            true => Meaning::Answer(Box::new(
                MessageSentEvent {
                    message_id: request.id,
                    surbid: request.surbid,
                    sent_at: Some(wall.as_secs()),
                    err: Some("localnet carries no legacy messages".to_owned()),
                    ..MessageSentEvent::default()
                }
                .into(),
            )),
            false => Meaning::Nothing,
        };
    }
    not_offered(frame)
}

impl Meaning {
    fn answer<T>(reply: T, frame: impl FnOnce(T) -> ResponseFrame) -> Self {
        Self::Answer(Box::new(frame(reply)))
    }
}

/// Capabilities and indices of a wrong length fail in the daemon's decoder, which then hangs up.
fn wrong_lengths(frame: &RequestFrame) -> Option<&'static str> {
    let wrong = |bytes: &Option<Octets>, expected: usize| bytes.as_ref().is_some_and(|bytes| bytes.len() != expected);
    let caps = [
        (frame.encrypt_read.as_ref().is_some_and(|r| wrong(&r.read_cap, READ_CAP_BYTES)), "a read capability"),
        (frame.encrypt_read.as_ref().is_some_and(|r| wrong(&r.message_box_index, INDEX_BYTES)), "an index"),
        (frame.encrypt_write.as_ref().is_some_and(|r| wrong(&r.write_cap, WRITE_CAP_BYTES)), "a write capability"),
        (frame.encrypt_write.as_ref().is_some_and(|r| wrong(&r.message_box_index, INDEX_BYTES)), "an index"),
        (frame.next_message_box_index.as_ref().is_some_and(|r| wrong(&r.message_box_index, INDEX_BYTES)), "an index"),
        (
            frame.get_message_box_index_counter.as_ref().is_some_and(|r| wrong(&r.message_box_index, INDEX_BYTES)),
            "an index",
        ),
        (
            frame.start_resending_encrypted_message.as_ref().is_some_and(|r| wrong(&r.read_cap, READ_CAP_BYTES)),
            "a read capability",
        ),
        (
            frame.start_resending_encrypted_message.as_ref().is_some_and(|r| wrong(&r.write_cap, WRITE_CAP_BYTES)),
            "a write capability",
        ),
    ];
    caps.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// The requests that the daemon answers by itself.
fn answer(network: &Network, wall: Duration, frame: &RequestFrame) -> Option<ResponseFrame> {
    if let Some(request) = &frame.new_keypair {
        let seed = request.seed.as_deref().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let query_id = request.query_id.clone();
        let reply = match seed.map(|seed| WriteCap::from_seed(&seed)) {
            Some(cap) => NewKeypairReply {
                query_id,
                error_code: 0,
                write_cap: octets(&*cap.to_bytes()),
                read_cap: octets(&*cap.read_cap().to_bytes()),
                first_message_index: octets(cap.index().as_bytes()),
            },
            None => NewKeypairReply { query_id, error_code: INVALID_REQUEST, ..NewKeypairReply::default() },
        };
        return Some(reply.into());
    }
    if let Some(request) = &frame.encrypt_read {
        let query_id = request.query_id.clone();
        let cap = request.read_cap.as_deref().and_then(|cap| ReadCap::from_bytes(cap).ok());
        let reply = encrypted(network, wall, query_id, &request.message_box_index, |index| {
            Some(Inner::Read(cap?.box_id(index)))
        });
        return Some(ResponseFrame { encrypt_read_reply: Some(reply), ..ResponseFrame::default() });
    }
    if let Some(request) = &frame.encrypt_write {
        let query_id = request.query_id.clone();
        let cap = request.write_cap.as_deref().and_then(|cap| WriteCap::from_bytes(cap).ok());
        let reply = encrypted(network, wall, query_id, &request.message_box_index, |index| {
            let (cap, plaintext) = (cap?, request.plaintext.as_deref()?);
            if plaintext.is_empty() {
                return Some(Inner::Write(cap.tombstone(index)));
            }
            cap.seal(index, plaintext, network.max_plaintext).ok().map(Inner::Write)
        });
        return Some(ResponseFrame { encrypt_write_reply: Some(reply), ..ResponseFrame::default() });
    }
    if let Some(request) = &frame.next_message_box_index {
        let query_id = request.query_id.clone();
        let (error_code, next) = match index(&request.message_box_index).map(|index| index.next()) {
            None => (INVALID_REQUEST, None),
            Some(Err(_)) => (INTERNAL_ERROR, None),
            Some(Ok(next)) => (0, octets(next.as_bytes())),
        };
        return Some(NextIndexReply { query_id, error_code, next_message_box_index: next }.into());
    }
    if let Some(request) = &frame.get_message_box_index_counter {
        let query_id = request.query_id.clone();
        let counter = index(&request.message_box_index).map(|index| index.counter());
        let error_code = if counter.is_some() { 0 } else { INVALID_REQUEST };
        return Some(IndexCounterReply { query_id, error_code, counter: counter.unwrap_or(0) }.into());
    }
    if let Some(request) = &frame.get_pki_document {
        let epoch = mixnet_epoch(wall);
        // Empty rather than null where there is none: one of upstream's clients cannot read a null here.
        let known = request.epoch == 0 || request.epoch == epoch;
        let (error_code, payload) = match known {
            true => (0, document::pki_document(&network.identity, epoch, replica_epoch(wall))),
            false => (SERVICE_UNAVAILABLE, Vec::new()),
        };
        let query_id = request.query_id.clone();
        let epoch = if known { epoch } else { request.epoch };
        return Some(GetPkiDocumentReply { query_id, error_code, payload: Some(payload.into()), epoch }.into());
    }
    if let Some(request) = &frame.get_directory_authorities {
        let authorities = Some(document::authorities(&network.identity));
        return Some(
            GetDirectoryAuthoritiesReply { query_id: request.query_id.clone(), error_code: 0, authorities }.into(),
        );
    }
    None
}

fn encrypted(
    network: &Network,
    wall: Duration,
    query_id: Option<Octets>,
    at: &Option<Octets>,
    inner: impl FnOnce(&BoxIndex) -> Option<Inner>,
) -> EncryptReply {
    let refused = |error_code| EncryptReply { query_id: query_id.clone(), error_code, ..EncryptReply::default() };
    let Some(index) = index(at) else { return refused(INVALID_REQUEST) };
    let Some(inner) = inner(&index) else { return refused(INVALID_REQUEST) };
    let Ok(next) = index.next() else { return refused(INTERNAL_ERROR) };
    let made = envelope::make(&network.identity.envelope_key, replica_epoch(wall), &inner, network.max_plaintext);
    EncryptReply {
        query_id,
        error_code: 0,
        message_ciphertext: Some(made.ciphertext.into()),
        envelope_descriptor: Some(made.descriptor.into()),
        envelope_hash: octets(&made.hash),
        next_message_box_index: octets(next.as_bytes()),
    }
}

fn start(network: &Network, request: StartResending) -> Meaning {
    let empty = |bytes: &Option<Octets>| bytes.as_deref().is_none_or(<[u8]>::is_empty);
    let refused = |query_id: Option<Octets>| {
        Meaning::Answer(Box::new(
            StartResendingReply { query_id, error_code: INVALID_REQUEST, ..StartResendingReply::default() }.into(),
        ))
    };
    let (Some(query_id), Some(hash)) = (id(&request.query_id), hash(&request.envelope_hash)) else {
        return refused(request.query_id);
    };
    if empty(&request.message_ciphertext)
        || empty(&request.envelope_descriptor)
        || request.read_cap.is_some() == request.write_cap.is_some()
    {
        return refused(request.query_id);
    }
    let opened =
        request.message_ciphertext.as_deref().and_then(|query| envelope::open(&network.identity.envelope_key, query));
    let authentic = opened.as_ref().is_some_and(|query| match &query.inner {
        Inner::Read(_) => true,
        Inner::Write(sealed) => verify_box(sealed),
    });
    let read = request.read_cap.as_deref().map(|cap| {
        Box::new(ReadWith {
            cap: ReadCap::from_bytes(cap).ok(),
            index: request.message_box_index.as_deref().map(|index| BoxIndex::from_bytes(index).ok()),
        })
    });
    Meaning::Ask(Request::Start(Box::new(Started {
        query_id,
        hash,
        query: opened,
        authentic,
        read,
        no_retry: request.no_retry_on_box_id_not_found,
        strict: request.no_idempotent_box_already_exists,
    })))
}

/// What a read is decrypted with: the request's own capability and index.
#[derive(Clone)]
pub(super) struct ReadWith {
    cap: Option<ReadCap>,
    index: Option<Option<BoxIndex>>,
}

impl ReadWith {
    #[cfg(test)]
    pub(super) fn new(cap: ReadCap, index: BoxIndex) -> Self {
        Self { cap: Some(cap), index: Some(Some(index)) }
    }

    /// The code and the plaintext that a box comes to.
    pub(super) fn open(&self, sealed: &SealedBox) -> (u8, Option<Vec<u8>>) {
        let tombstone = sealed.payload.is_empty();
        let failed = if tombstone { INVALID_TOMBSTONE_SIGNATURE } else { BACAP_DECRYPTION_FAILED };
        match (&self.cap, &self.index) {
            (_, None) => (INTERNAL_ERROR, None),
            (Some(cap), Some(Some(index))) => match cap.open(index, sealed) {
                Ok(Opened::Message(bytes)) => (0, Some(bytes)),
                Ok(Opened::Tombstone) => (super::replica::TOMBSTONE, None),
                Err(OpenError::Framing) => (INTERNAL_ERROR, None),
                Err(_) => (failed, None),
            },
            _ => (failed, None),
        }
    }
}

/// Requests of later parts of the protocol: an error in the protocol's own words, never silence.
fn not_offered(frame: RequestFrame) -> Meaning {
    let error_code = INTERNAL_ERROR;
    macro_rules! refuse {
        ($($request:ident => $reply:ident: $type:ty),+ $(,)?) => {
            $(if let Some(request) = frame.$request {
                warn!(request = stringify!($request), "localnet does not offer this");
                let reply = <$type>::default();
                return Meaning::Answer(Box::new(ResponseFrame {
                    $reply: Some({
                        let mut reply = reply;
                        reply.query_id = request.query_id;
                        reply.error_code = error_code;
                        reply
                    }),
                    ..ResponseFrame::default()
                }));
            })+
        };
    }
    refuse! {
        start_resending_copy_command => start_resending_copy_command_reply: StartCopyReply,
        cancel_resending_copy_command => cancel_resending_copy_command_reply: CancelReply,
        create_courier_envelopes_from_payload => create_courier_envelopes_from_payload_reply: EnvelopesFromPayloadReply,
        create_courier_envelopes_from_multi_payload => create_courier_envelopes_from_multi_payload_reply: EnvelopesFromMultiPayloadReply,
        create_courier_envelopes_from_tombstone_range => create_courier_envelopes_from_tombstone_range_reply: EnvelopesFromTombstoneRangeReply,
        voucher_mint => voucher_mint_reply: VoucherMintReply,
        voucher_induct => voucher_induct_reply: VoucherInductReply,
        voucher_open => voucher_open_reply: VoucherOpenReply,
        voucher_derive_stream => voucher_derive_stream_reply: VoucherDeriveStreamReply,
    }
    Meaning::Nothing
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
