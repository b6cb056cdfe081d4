//! Sizes of the network's packets and boxes, as each connection is told them (`thin-client-protocol.md` §3.3).

use serde::{Deserialize, Serialize};

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
