//! The bodies of what a daemon answers to a request that has a query id (`thin-client-protocol.md` §3.3).

use serde::{Deserialize, Serialize};

use super::{Octets, null_is_default};

/// Answers `new_keypair`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewKeypairReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 168 bytes.
    pub write_cap: Option<Octets>,
    /// 136 bytes.
    pub read_cap: Option<Octets>,
    /// 104 bytes.
    pub first_message_index: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `encrypt_read` and `encrypt_write`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncryptReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// The courier query.
    pub message_ciphertext: Option<Octets>,
    /// Opaque; holds a private key.
    pub envelope_descriptor: Option<Octets>,
    /// 32 bytes.
    pub envelope_hash: Option<Octets>,
    /// 104 bytes.
    pub next_message_box_index: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
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
    /// 104 bytes.
    pub next_message_box_index: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `get_message_box_index_counter`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexCounterReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// Idx64.
    #[serde(deserialize_with = "null_is_default")]
    pub counter: u64,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `get_pki_document`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetPkiDocumentReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// The signed document.
    pub payload: Option<Octets>,
    /// The epoch of the document returned.
    #[serde(deserialize_with = "null_is_default")]
    pub epoch: u64,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `get_directory_authorities`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetDirectoryAuthoritiesReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// The authorities.
    pub authorities: Option<Vec<DirectoryAuthority>>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `create_courier_envelopes_from_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromPayloadReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// 104 bytes.
    pub next_dest_index: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `create_courier_envelopes_from_multi_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromMultiPayloadReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// The unflushed tail.
    pub buffer: Option<Octets>,
    /// 104 bytes each, one a destination.
    pub next_dest_indices: Option<Vec<Octets>>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `create_courier_envelopes_from_tombstone_range`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvelopesFromTombstoneRangeReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// One element a box.
    pub envelopes: Option<Vec<Octets>>,
    /// The unflushed tail.
    pub buffer: Option<Octets>,
    /// 104 bytes.
    pub next_dest_index: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `voucher_mint`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherMintReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
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
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `voucher_induct`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherInductReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
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
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `voucher_open`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherOpenReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// What the inductor said.
    pub who_reply: Option<Octets>,
    /// 32 bytes.
    pub salt: Option<Octets>,
    /// 168 bytes.
    pub mutated_message_write_cap: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
}

/// Answers `voucher_derive_stream`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoucherDeriveStreamReply {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 168 bytes.
    pub voucher_write_cap: Option<Octets>,
    /// 136 bytes.
    pub voucher_read_cap: Option<Octets>,
    /// 0 is success; its meaning depends on the reply (`thin-client-protocol.md` §5).
    #[serde(deserialize_with = "null_is_default")]
    pub error_code: u8,
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
