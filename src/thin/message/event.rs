//! The bodies of what a daemon says of itself and of its session, and of legacy messages (`thin-client-protocol.md` §3.3).

use serde::{Deserialize, Serialize};

use super::{Octets, PigeonholeGeometry, SphinxGeometry, null_is_default};

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
