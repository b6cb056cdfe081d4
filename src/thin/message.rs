//! Every message of the thin-client protocol, as both ends see it.
//!
//! A frame's body is `{ variant: body }`. The daemon sends every outer key, the unused ones as null; clients
//! send the one key. So a variant is *present and not null*, and in the bodies null and absent mean the same.
//! No type here judges a length: the client checks before it sends, localnet before it acts.
//! Source: `thin-client-protocol.md` §2.3, §3.2, §3.3.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Length of query ids, session tokens and instance tokens, in bytes.
pub const ID_BYTES: usize = 16;
/// Length of envelope hashes and identity hashes, in bytes.
pub const HASH_BYTES: usize = 32;

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// A byte string of the wire. Many of them are secrets, so it shows its length and never its bytes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Octets(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Octets({} bytes)", self.0.len())
    }
}

impl<T: Into<Vec<u8>>> From<T> for Octets {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What a client sends: one variant, the others absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestFrame {
    /// See [`SessionToken`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SessionToken>,
    /// See [`ThinClose`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thin_close: Option<ThinClose>,
    /// See [`SendMessage`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_message: Option<SendMessage>,
    /// See [`NewKeypair`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_keypair: Option<NewKeypair>,
    /// See [`EncryptRead`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt_read: Option<EncryptRead>,
    /// See [`EncryptWrite`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt_write: Option<EncryptWrite>,
    /// See [`StartResending`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_resending_encrypted_message: Option<StartResending>,
    /// See [`CancelResending`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_resending_encrypted_message: Option<CancelResending>,
    /// See [`StartCopy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_resending_copy_command: Option<StartCopy>,
    /// See [`CancelCopy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_resending_copy_command: Option<CancelCopy>,
    /// See [`NextIndex`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_message_box_index: Option<NextIndex>,
    /// See [`IndexCounter`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get_message_box_index_counter: Option<IndexCounter>,
    /// See [`GetPkiDocument`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get_pki_document: Option<GetPkiDocument>,
    /// See [`GetDirectoryAuthorities`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get_directory_authorities: Option<GetDirectoryAuthorities>,
    /// See [`EnvelopesFromPayload`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_courier_envelopes_from_payload: Option<EnvelopesFromPayload>,
    /// See [`EnvelopesFromMultiPayload`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_courier_envelopes_from_multi_payload: Option<EnvelopesFromMultiPayload>,
    /// See [`EnvelopesFromTombstoneRange`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_courier_envelopes_from_tombstone_range: Option<EnvelopesFromTombstoneRange>,
    /// See [`VoucherMint`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voucher_mint: Option<VoucherMint>,
    /// See [`VoucherInduct`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voucher_induct: Option<VoucherInduct>,
    /// See [`VoucherOpen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voucher_open: Option<VoucherOpen>,
    /// See [`VoucherDeriveStream`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voucher_derive_stream: Option<VoucherDeriveStream>,
}

/// What a daemon sends: one variant, the others null, in the daemon's own order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponseFrame {
    /// See [`SessionTokenReply`].
    pub session_token_reply: Option<SessionTokenReply>,
    /// See [`ShutdownEvent`].
    pub shutdown_event: Option<ShutdownEvent>,
    /// See [`ConnectionStatusEvent`].
    pub connection_status_event: Option<ConnectionStatusEvent>,
    /// See [`NewPkiDocumentEvent`].
    pub new_pki_document_event: Option<NewPkiDocumentEvent>,
    /// See [`MessageSentEvent`].
    pub message_sent_event: Option<MessageSentEvent>,
    /// See [`MessageReplyEvent`].
    pub message_reply_event: Option<MessageReplyEvent>,
    /// See [`MessageIdGarbageCollected`].
    pub message_id_garbage_collected: Option<MessageIdGarbageCollected>,
    /// See [`NewKeypairReply`].
    pub new_keypair_reply: Option<NewKeypairReply>,
    /// See [`EncryptReply`].
    pub encrypt_read_reply: Option<EncryptReply>,
    /// See [`EncryptReply`].
    pub encrypt_write_reply: Option<EncryptReply>,
    /// See [`StartResendingReply`].
    pub start_resending_encrypted_message_reply: Option<StartResendingReply>,
    /// See [`CancelReply`].
    pub cancel_resending_encrypted_message_reply: Option<CancelReply>,
    /// See [`StartCopyReply`].
    pub start_resending_copy_command_reply: Option<StartCopyReply>,
    /// See [`CancelReply`].
    pub cancel_resending_copy_command_reply: Option<CancelReply>,
    /// See [`NextIndexReply`].
    pub next_message_box_index_reply: Option<NextIndexReply>,
    /// See [`IndexCounterReply`].
    pub get_message_box_index_counter_reply: Option<IndexCounterReply>,
    /// See [`GetPkiDocumentReply`].
    pub get_pki_document_reply: Option<GetPkiDocumentReply>,
    /// See [`GetDirectoryAuthoritiesReply`].
    pub get_directory_authorities_reply: Option<GetDirectoryAuthoritiesReply>,
    /// See [`EnvelopesFromPayloadReply`].
    pub create_courier_envelopes_from_payload_reply: Option<EnvelopesFromPayloadReply>,
    /// See [`EnvelopesFromMultiPayloadReply`].
    pub create_courier_envelopes_from_multi_payload_reply: Option<EnvelopesFromMultiPayloadReply>,
    /// See [`EnvelopesFromTombstoneRangeReply`].
    pub create_courier_envelopes_from_tombstone_range_reply: Option<EnvelopesFromTombstoneRangeReply>,
    /// See [`VoucherMintReply`].
    pub voucher_mint_reply: Option<VoucherMintReply>,
    /// See [`VoucherInductReply`].
    pub voucher_induct_reply: Option<VoucherInductReply>,
    /// See [`VoucherOpenReply`].
    pub voucher_open_reply: Option<VoucherOpenReply>,
    /// See [`VoucherDeriveStreamReply`].
    pub voucher_derive_stream_reply: Option<VoucherDeriveStreamReply>,
}

impl From<SessionToken> for RequestFrame {
    fn from(body: SessionToken) -> Self {
        Self { session_token: Some(body), ..Self::default() }
    }
}

impl From<ThinClose> for RequestFrame {
    fn from(body: ThinClose) -> Self {
        Self { thin_close: Some(body), ..Self::default() }
    }
}

impl From<SendMessage> for RequestFrame {
    fn from(body: SendMessage) -> Self {
        Self { send_message: Some(body), ..Self::default() }
    }
}

impl From<NewKeypair> for RequestFrame {
    fn from(body: NewKeypair) -> Self {
        Self { new_keypair: Some(body), ..Self::default() }
    }
}

impl From<EncryptRead> for RequestFrame {
    fn from(body: EncryptRead) -> Self {
        Self { encrypt_read: Some(body), ..Self::default() }
    }
}

impl From<EncryptWrite> for RequestFrame {
    fn from(body: EncryptWrite) -> Self {
        Self { encrypt_write: Some(body), ..Self::default() }
    }
}

impl From<StartResending> for RequestFrame {
    fn from(body: StartResending) -> Self {
        Self { start_resending_encrypted_message: Some(body), ..Self::default() }
    }
}

impl From<CancelResending> for RequestFrame {
    fn from(body: CancelResending) -> Self {
        Self { cancel_resending_encrypted_message: Some(body), ..Self::default() }
    }
}

impl From<StartCopy> for RequestFrame {
    fn from(body: StartCopy) -> Self {
        Self { start_resending_copy_command: Some(body), ..Self::default() }
    }
}

impl From<CancelCopy> for RequestFrame {
    fn from(body: CancelCopy) -> Self {
        Self { cancel_resending_copy_command: Some(body), ..Self::default() }
    }
}

impl From<NextIndex> for RequestFrame {
    fn from(body: NextIndex) -> Self {
        Self { next_message_box_index: Some(body), ..Self::default() }
    }
}

impl From<IndexCounter> for RequestFrame {
    fn from(body: IndexCounter) -> Self {
        Self { get_message_box_index_counter: Some(body), ..Self::default() }
    }
}

impl From<GetPkiDocument> for RequestFrame {
    fn from(body: GetPkiDocument) -> Self {
        Self { get_pki_document: Some(body), ..Self::default() }
    }
}

impl From<GetDirectoryAuthorities> for RequestFrame {
    fn from(body: GetDirectoryAuthorities) -> Self {
        Self { get_directory_authorities: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromPayload> for RequestFrame {
    fn from(body: EnvelopesFromPayload) -> Self {
        Self { create_courier_envelopes_from_payload: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromMultiPayload> for RequestFrame {
    fn from(body: EnvelopesFromMultiPayload) -> Self {
        Self { create_courier_envelopes_from_multi_payload: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromTombstoneRange> for RequestFrame {
    fn from(body: EnvelopesFromTombstoneRange) -> Self {
        Self { create_courier_envelopes_from_tombstone_range: Some(body), ..Self::default() }
    }
}

impl From<VoucherMint> for RequestFrame {
    fn from(body: VoucherMint) -> Self {
        Self { voucher_mint: Some(body), ..Self::default() }
    }
}

impl From<VoucherInduct> for RequestFrame {
    fn from(body: VoucherInduct) -> Self {
        Self { voucher_induct: Some(body), ..Self::default() }
    }
}

impl From<VoucherOpen> for RequestFrame {
    fn from(body: VoucherOpen) -> Self {
        Self { voucher_open: Some(body), ..Self::default() }
    }
}

impl From<VoucherDeriveStream> for RequestFrame {
    fn from(body: VoucherDeriveStream) -> Self {
        Self { voucher_derive_stream: Some(body), ..Self::default() }
    }
}

impl From<SessionTokenReply> for ResponseFrame {
    fn from(body: SessionTokenReply) -> Self {
        Self { session_token_reply: Some(body), ..Self::default() }
    }
}

impl From<ShutdownEvent> for ResponseFrame {
    fn from(body: ShutdownEvent) -> Self {
        Self { shutdown_event: Some(body), ..Self::default() }
    }
}

impl From<ConnectionStatusEvent> for ResponseFrame {
    fn from(body: ConnectionStatusEvent) -> Self {
        Self { connection_status_event: Some(body), ..Self::default() }
    }
}

impl From<NewPkiDocumentEvent> for ResponseFrame {
    fn from(body: NewPkiDocumentEvent) -> Self {
        Self { new_pki_document_event: Some(body), ..Self::default() }
    }
}

impl From<MessageSentEvent> for ResponseFrame {
    fn from(body: MessageSentEvent) -> Self {
        Self { message_sent_event: Some(body), ..Self::default() }
    }
}

impl From<MessageReplyEvent> for ResponseFrame {
    fn from(body: MessageReplyEvent) -> Self {
        Self { message_reply_event: Some(body), ..Self::default() }
    }
}

impl From<MessageIdGarbageCollected> for ResponseFrame {
    fn from(body: MessageIdGarbageCollected) -> Self {
        Self { message_id_garbage_collected: Some(body), ..Self::default() }
    }
}

impl From<NewKeypairReply> for ResponseFrame {
    fn from(body: NewKeypairReply) -> Self {
        Self { new_keypair_reply: Some(body), ..Self::default() }
    }
}

impl From<StartResendingReply> for ResponseFrame {
    fn from(body: StartResendingReply) -> Self {
        Self { start_resending_encrypted_message_reply: Some(body), ..Self::default() }
    }
}

impl From<StartCopyReply> for ResponseFrame {
    fn from(body: StartCopyReply) -> Self {
        Self { start_resending_copy_command_reply: Some(body), ..Self::default() }
    }
}

impl From<NextIndexReply> for ResponseFrame {
    fn from(body: NextIndexReply) -> Self {
        Self { next_message_box_index_reply: Some(body), ..Self::default() }
    }
}

impl From<IndexCounterReply> for ResponseFrame {
    fn from(body: IndexCounterReply) -> Self {
        Self { get_message_box_index_counter_reply: Some(body), ..Self::default() }
    }
}

impl From<GetPkiDocumentReply> for ResponseFrame {
    fn from(body: GetPkiDocumentReply) -> Self {
        Self { get_pki_document_reply: Some(body), ..Self::default() }
    }
}

impl From<GetDirectoryAuthoritiesReply> for ResponseFrame {
    fn from(body: GetDirectoryAuthoritiesReply) -> Self {
        Self { get_directory_authorities_reply: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromPayloadReply> for ResponseFrame {
    fn from(body: EnvelopesFromPayloadReply) -> Self {
        Self { create_courier_envelopes_from_payload_reply: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromMultiPayloadReply> for ResponseFrame {
    fn from(body: EnvelopesFromMultiPayloadReply) -> Self {
        Self { create_courier_envelopes_from_multi_payload_reply: Some(body), ..Self::default() }
    }
}

impl From<EnvelopesFromTombstoneRangeReply> for ResponseFrame {
    fn from(body: EnvelopesFromTombstoneRangeReply) -> Self {
        Self { create_courier_envelopes_from_tombstone_range_reply: Some(body), ..Self::default() }
    }
}

impl From<VoucherMintReply> for ResponseFrame {
    fn from(body: VoucherMintReply) -> Self {
        Self { voucher_mint_reply: Some(body), ..Self::default() }
    }
}

impl From<VoucherInductReply> for ResponseFrame {
    fn from(body: VoucherInductReply) -> Self {
        Self { voucher_induct_reply: Some(body), ..Self::default() }
    }
}

impl From<VoucherOpenReply> for ResponseFrame {
    fn from(body: VoucherOpenReply) -> Self {
        Self { voucher_open_reply: Some(body), ..Self::default() }
    }
}

impl From<VoucherDeriveStreamReply> for ResponseFrame {
    fn from(body: VoucherDeriveStreamReply) -> Self {
        Self { voucher_derive_stream_reply: Some(body), ..Self::default() }
    }
}

/// Opens or resumes a session; answered by `session_token_reply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionToken {
    /// 16 random bytes of the client object.
    pub client_instance_token: Option<Octets>,
}

/// Ends the session at once; the daemon forgets everything of it and sends no reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThinClose {}

/// A legacy message: one Sphinx packet to a mixnet service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SendMessage {
    /// Message id, 16 bytes; upstream clients send null.
    pub id: Option<Octets>,
    /// Whether a reply is wanted.
    #[serde(deserialize_with = "null_is_default")]
    pub with_surb: bool,
    /// 16 bytes chosen by the client; required with `with_surb`.
    pub surbid: Option<Octets>,
    /// BLAKE2b-256 of the service node's identity key.
    pub destination_id_hash: Option<Octets>,
    /// Queue at the service node, 1 to 32 bytes.
    pub recipient_queue_id: Option<Octets>,
    /// At most `UserForwardPayloadLength` bytes.
    pub payload: Option<Octets>,
}

/// Derives a pair of capabilities from a seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewKeypair {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// Exactly 32 bytes.
    pub seed: Option<Octets>,
}

/// Makes the envelope that asks for one box.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncryptRead {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 136 bytes.
    pub read_cap: Option<Octets>,
    /// 104 bytes.
    pub message_box_index: Option<Octets>,
}

/// Makes the envelope that writes one box.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncryptWrite {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// At most `MaxPlaintextPayloadLength` bytes; present and empty is a tombstone.
    pub plaintext: Option<Octets>,
    /// 168 bytes.
    pub write_cap: Option<Octets>,
    /// 104 bytes.
    pub message_box_index: Option<Octets>,
}

/// Sends an envelope until it is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartResending {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 136 bytes, for a read.
    pub read_cap: Option<Octets>,
    /// 168 bytes, for a write; exactly one of the two capabilities is given.
    pub write_cap: Option<Octets>,
    /// 104 bytes; reads are decrypted with it.
    pub message_box_index: Option<Octets>,
    /// Ignored by the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_index: Option<u8>,
    /// As the encrypt reply gave it; holds a private key.
    pub envelope_descriptor: Option<Octets>,
    /// As the encrypt reply gave it.
    pub message_ciphertext: Option<Octets>,
    /// 32 bytes; the key for a cancel.
    pub envelope_hash: Option<Octets>,
    /// End with code 1 where the box is missing, rather than ask for ever.
    #[serde(deserialize_with = "null_is_default")]
    pub no_retry_on_box_id_not_found: bool,
    /// A strict write: end with the replica's own verdict.
    #[serde(deserialize_with = "null_is_default")]
    pub no_idempotent_box_already_exists: bool,
}

/// Ends a started envelope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelResending {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 32 bytes.
    pub envelope_hash: Option<Octets>,
}

/// Has a courier write the envelopes that a temporary stream holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartCopy {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 168 bytes, of the temporary stream.
    pub write_cap: Option<Octets>,
    /// 32 bytes, to pin a courier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub courier_identity_hash: Option<Octets>,
    /// Queue of the pinned courier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub courier_queue_id: Option<Octets>,
}

/// Ends a started copy command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelCopy {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// BLAKE2b-256 of the write capability.
    pub write_cap_hash: Option<Octets>,
}

/// Steps an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NextIndex {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 104 bytes.
    pub message_box_index: Option<Octets>,
}

/// The counter of an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexCounter {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 104 bytes.
    pub message_box_index: Option<Octets>,
}

/// The signed PKI document of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetPkiDocument {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is the current one.
    #[serde(deserialize_with = "null_is_default")]
    pub epoch: u64,
}

/// The authorities that the daemon trusts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetDirectoryAuthorities {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
}

/// Copy-stream elements that write a payload to one destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromPayload {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// At most 10 MiB.
    pub payload: Option<Octets>,
    /// 168 bytes.
    pub dest_write_cap: Option<Octets>,
    /// 104 bytes.
    pub dest_start_index: Option<Octets>,
    /// Whether the copy stream begins here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_start: bool,
    /// Whether it ends here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_last: bool,
}

/// Copy-stream elements that write several payloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromMultiPayload {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// One or more.
    pub destinations: Option<Vec<CopyDestination>>,
    /// Whether the copy stream begins here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_start: bool,
    /// Whether it ends here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_last: bool,
    /// What the last call gave back.
    pub buffer: Option<Octets>,
}

/// Copy-stream elements that tombstone a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromTombstoneRange {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 168 bytes.
    pub dest_write_cap: Option<Octets>,
    /// 104 bytes.
    pub dest_start_index: Option<Octets>,
    /// Boxes to tombstone.
    #[serde(deserialize_with = "null_is_default")]
    pub max_count: u32,
    /// Whether the copy stream begins here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_start: bool,
    /// Whether it ends here.
    #[serde(deserialize_with = "null_is_default")]
    pub is_last: bool,
    /// What the last call gave back.
    pub buffer: Option<Octets>,
}

/// Makes a contact voucher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherMint {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 168 bytes.
    pub message_write_cap: Option<Octets>,
    /// Name shown to the inductor.
    pub display_name: Option<String>,
}

/// Accepts a voucher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherInduct {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 32 bytes.
    pub voucher: Option<Octets>,
    /// What the joiner published.
    pub voucher_payload: Option<Octets>,
    /// What the inductor answers.
    pub who_reply: Option<Octets>,
}

/// Opens the inductor's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherOpen {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// As minted.
    pub voucher_secret_key: Option<Octets>,
    /// What the inductor published.
    pub sealed_reply: Option<Octets>,
    /// 168 bytes.
    pub message_write_cap: Option<Octets>,
}

/// The rendezvous stream of a voucher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherDeriveStream {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 32 bytes.
    pub voucher: Option<Octets>,
}

/// Answers `session_token`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionTokenReply {
    /// 16 bytes, informational.
    pub app_id: Option<Octets>,
    /// Whether the daemon still knew the token.
    #[serde(deserialize_with = "null_is_default")]
    pub resumed: bool,
}

/// The daemon is about to stop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShutdownEvent {}

/// First frame of every connection, and one at each change of the gateway link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionStatusEvent {
    /// Whether the daemon has a gateway.
    #[serde(deserialize_with = "null_is_default")]
    pub is_connected: bool,
    /// Always null.
    pub err: Option<String>,
    /// 16 bytes of this daemon process.
    pub instance_token: Option<Octets>,
    /// Sphinx geometry.
    pub sphinx_geometry: Option<SphinxGeometry>,
    /// Pigeonhole geometry.
    pub pigeonhole_geometry: Option<PigeonholeGeometry>,
}

/// Second frame of every connection, and one an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewPkiDocumentEvent {
    /// CBOR of the PKI document, or null.
    pub payload: Option<Octets>,
}

/// A legacy message has left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageSentEvent {
    /// 16 bytes.
    pub message_id: Option<Octets>,
    /// 16 bytes.
    pub surbid: Option<Octets>,
    /// Unix seconds.
    pub sent_at: Option<u64>,
    /// Nanoseconds.
    #[serde(deserialize_with = "null_is_default")]
    pub reply_eta: i64,
    /// What went wrong; absent on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
}

/// The answer to a legacy message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageReplyEvent {
    /// 16 bytes.
    pub message_id: Option<Octets>,
    /// 16 bytes.
    pub surbid: Option<Octets>,
    /// The decrypted reply, zero padded.
    pub payload: Option<Octets>,
    /// Never set now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_index: Option<u8>,
    /// Always 0 now.
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Never emitted by the current daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageIdGarbageCollected {
    /// 16 bytes.
    pub message_id: Option<Octets>,
}

/// Answers `new_keypair`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewKeypairReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// 168 bytes.
    pub write_cap: Option<Octets>,
    /// 136 bytes.
    pub read_cap: Option<Octets>,
    /// 104 bytes.
    pub first_message_index: Option<Octets>,
}

/// Answers `encrypt_read` and `encrypt_write`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncryptReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// The courier query.
    pub message_ciphertext: Option<Octets>,
    /// Opaque; holds a private key.
    pub envelope_descriptor: Option<Octets>,
    /// 32 bytes.
    pub envelope_hash: Option<Octets>,
    /// 104 bytes.
    pub next_message_box_index: Option<Octets>,
}

/// Answers `start_resending_encrypted_message`, once, at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartResendingReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// What the box holds; null for writes and errors.
    pub plaintext: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// 32 bytes; null where the daemon refused up front.
    pub courier_identity_hash: Option<Octets>,
    /// Queue of that courier.
    pub courier_queue_id: Option<Octets>,
}

/// Answers a cancel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `start_resending_copy_command`, once, at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartCopyReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// The replica's code behind code 26.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_error_code: Option<u8>,
    /// 1-based position of the envelope that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_envelope_index: Option<u64>,
}

/// Answers `next_message_box_index`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NextIndexReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// 104 bytes.
    pub next_message_box_index: Option<Octets>,
}

/// Answers `get_message_box_index_counter`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexCounterReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// Idx64.
    #[serde(deserialize_with = "null_is_default")]
    pub counter: u64,
}

/// Answers `get_pki_document`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetPkiDocumentReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// The signed document.
    pub payload: Option<Octets>,
    /// The epoch of the document returned.
    #[serde(deserialize_with = "null_is_default")]
    pub epoch: u64,
}

/// Answers `get_directory_authorities`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetDirectoryAuthoritiesReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// The authorities.
    pub authorities: Option<Vec<DirectoryAuthority>>,
}

/// Answers `create_courier_envelopes_from_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromPayloadReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// 104 bytes.
    pub next_dest_index: Option<Octets>,
}

/// Answers `create_courier_envelopes_from_multi_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromMultiPayloadReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// The unflushed tail.
    pub buffer: Option<Octets>,
    /// 104 bytes each, one a destination.
    pub next_dest_indices: Option<Vec<Octets>>,
}

/// Answers `create_courier_envelopes_from_tombstone_range`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromTombstoneRangeReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// The unflushed tail.
    pub buffer: Option<Octets>,
    /// 104 bytes.
    pub next_dest_index: Option<Octets>,
}

/// Answers `voucher_mint`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherMintReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// 32 bytes.
    pub voucher: Option<Octets>,
    /// To be published.
    pub voucher_payload: Option<Octets>,
    /// 168 bytes.
    pub voucher_write_cap: Option<Octets>,
    /// 136 bytes.
    pub voucher_read_cap: Option<Octets>,
    /// 162 bytes.
    pub voucher_secret_key: Option<Octets>,
    /// 160 bytes.
    pub voucher_public_key: Option<Octets>,
}

/// Answers `voucher_induct`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherInductReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// Empty on error.
    #[serde(deserialize_with = "null_is_default")]
    pub display_name: String,
    /// 136 bytes.
    pub mutated_message_read_cap: Option<Octets>,
    /// To be published.
    pub sealed_reply: Option<Octets>,
    /// 168 bytes.
    pub voucher_write_cap: Option<Octets>,
    /// 136 bytes.
    pub voucher_read_cap: Option<Octets>,
    /// 32 bytes.
    pub salt: Option<Octets>,
}

/// Answers `voucher_open`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherOpenReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// What the inductor said.
    pub who_reply: Option<Octets>,
    /// 32 bytes.
    pub salt: Option<Octets>,
    /// 168 bytes.
    pub mutated_message_write_cap: Option<Octets>,
}

/// Answers `voucher_derive_stream`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherDeriveStreamReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
    /// 168 bytes.
    pub voucher_write_cap: Option<Octets>,
    /// 136 bytes.
    pub voucher_read_cap: Option<Octets>,
}

/// One destination of `create_courier_envelopes_from_multi_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyDestination {
    /// At most 10 MiB.
    pub payload: Option<Octets>,
    /// 168 bytes.
    pub write_cap: Option<Octets>,
    /// 104 bytes.
    pub start_index: Option<Octets>,
}

/// A directory authority that the daemon trusts; its identity key tells one network from another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectoryAuthority {
    /// Its name in the daemon's configuration.
    pub identifier: String,
    /// Scheme of the identity key.
    pub pki_signature_scheme: String,
    /// Scheme of the link key.
    pub wire_kem_scheme: String,
    /// Where it listens.
    pub addresses: Option<Vec<String>>,
    /// Identity key, PEM.
    pub identity_public_key_pem: String,
    /// Link key, PEM.
    pub link_public_key_pem: String,
    /// BLAKE2b-256 of the identity key, 32 bytes.
    pub identity_key_hash: Option<Octets>,
}

/// Sizes of the network's Sphinx packets. Upstream's clients want exactly these keys, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs)] // The names are the field's own; all lengths in bytes.
pub struct SphinxGeometry {
    pub packet_length: i64,
    pub nr_hops: i64,
    pub header_length: i64,
    pub routing_info_length: i64,
    pub per_hop_routing_info_length: i64,
    #[serde(rename = "SURBLength")]
    pub surb_length: i64,
    pub sphinx_plaintext_header_length: i64,
    pub payload_tag_length: i64,
    pub forward_payload_length: i64,
    pub user_forward_payload_length: i64,
    pub next_node_hop_length: i64,
    #[serde(rename = "SPRPKeyMaterialLength")]
    pub sprp_key_material_length: i64,
    #[serde(rename = "NIKEName")]
    pub nike_name: String,
    #[serde(rename = "KEMName")]
    pub kem_name: String,
}

/// Sizes of the network's boxes and envelopes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PigeonholeGeometry {
    /// M: the longest plaintext of one box.
    pub max_plaintext_payload_length: i64,
    /// Length of a read's `message_ciphertext`.
    pub courier_query_read_length: i64,
    /// Length of a write's `message_ciphertext`.
    pub courier_query_write_length: i64,
    /// As advertised; the real reply is 25 bytes longer.
    pub courier_query_reply_read_length: i64,
    /// As advertised; the real reply is 25 bytes longer.
    pub courier_query_reply_write_length: i64,
    /// Scheme of the envelopes' key exchange.
    #[serde(rename = "NIKEName")]
    pub nike_name: String,
    /// Scheme of the boxes' signatures.
    pub signature_scheme_name: String,
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;
    use crate::thin::frame;

    #[test]
    fn a_session_token_has_the_bytes_that_the_specification_prints() {
        let token = (0..16).collect::<Vec<u8>>();
        let request = RequestFrame::from(SessionToken { client_instance_token: Some(Octets::from(token)) });
        let expected = "a16d73657373696f6e5f746f6b656ea175636c69656e745f696e7374616e63655f746f6b656e50000102030405060708090a0b0c0d0e0f";
        assert_eq!(hex::encode(&frame::encode(&request).expect("small")[4..]), expected);
    }

    #[test]
    fn null_and_absent_mean_the_same_and_unknown_keys_are_passed_over() {
        let mut body = Vec::new();
        let odd = cbor!({
            "new_keypair" => null,
            "surprise" => 1,
            "start_resending_encrypted_message" => { "no_retry_on_box_id_not_found" => null, "later" => "x" },
        });
        ciborium::into_writer(&odd.expect("cbor"), &mut body).expect("into memory");
        let request: RequestFrame = frame::decode(&body).expect("lenient, as the daemon's decoder");
        assert_eq!(request, RequestFrame::from(StartResending::default()));
    }

    #[test]
    fn a_response_names_every_variant_as_the_daemon_does() {
        let reply = ResponseFrame::from(ShutdownEvent {});
        let bytes = frame::encode(&reply).expect("small");
        let value: ciborium::Value = frame::decode(&bytes[4..]).expect("cbor");
        assert_eq!(value.as_map().expect("a map").len(), 25);
    }
}
