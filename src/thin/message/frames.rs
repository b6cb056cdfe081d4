//! The two kinds of frame: what a client sends and what a daemon sends, one variant of many each.

use serde::{Deserialize, Serialize};

use super::*;

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
