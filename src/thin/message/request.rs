//! The bodies of what a client sends (`thin-client-protocol.md` §3.2).

use serde::{Deserialize, Serialize};

use super::{Octets, binary, null_is_default};

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
    #[serde(deserialize_with = "binary")]
    pub read_cap: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
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
    #[serde(deserialize_with = "binary")]
    pub write_cap: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
    pub message_box_index: Option<Octets>,
}

/// Sends an envelope until it is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartResending {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 136 bytes, for a read.
    #[serde(deserialize_with = "binary")]
    pub read_cap: Option<Octets>,
    /// 168 bytes, for a write; exactly one of the two capabilities is given.
    #[serde(deserialize_with = "binary")]
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
    #[serde(deserialize_with = "binary")]
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
    #[serde(deserialize_with = "binary")]
    pub message_box_index: Option<Octets>,
}

/// The counter of an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexCounter {
    /// 16 bytes, echoed in the reply.
    pub query_id: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
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
    #[serde(deserialize_with = "binary")]
    pub dest_write_cap: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
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
    #[serde(deserialize_with = "binary")]
    pub dest_write_cap: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
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

/// One destination of `create_courier_envelopes_from_multi_payload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyDestination {
    /// At most 10 MiB.
    pub payload: Option<Octets>,
    /// 168 bytes.
    #[serde(deserialize_with = "binary")]
    pub write_cap: Option<Octets>,
    /// 104 bytes.
    #[serde(deserialize_with = "binary")]
    pub start_index: Option<Octets>,
}
