//! What localnet says of itself: geometries, authorities and a PKI document, marked as an embedded network's.

use ciborium::Value;

use super::envelope::{OVERHEAD, hash256};
use crate::thin::Document;
use crate::thin::message::{DirectoryAuthority, Octets, PigeonholeGeometry, SphinxGeometry};

/// The queue that couriers listen on.
pub(super) const COURIER_QUEUE: &[u8] = b"courier";
/// Rates of the profile `instant`, events per millisecond: packets and hops that take no time.
const LAMBDA_P: f64 = 1.0;
const MU: f64 = 1000.0;

/// The keys that make one localnet another network than the next. Random, made once, kept in its state.
#[derive(Clone)]
pub(super) struct Identity {
    /// Opens the envelopes.
    pub(super) envelope_key: [u8; 32],
    /// Stands for the directory authority.
    pub(super) authority_key: [u8; 32],
    /// Stands for the courier's node.
    pub(super) courier_key: [u8; 32],
}

impl Identity {
    pub(super) fn courier_hash(&self) -> [u8; 32] {
        hash256(&[&self.courier_key])
    }
}

/// The identity keys of the network's replicas, by their number: what decides who holds which box.
pub(super) fn replica_keys(identity: &Identity, replicas: usize) -> Vec<[u8; 32]> {
    (0..replicas).map(|id| hash256(&[format!("replica{id}").as_bytes(), &identity.authority_key])).collect()
}

pub(super) fn pigeonhole_geometry(max_plaintext: usize) -> PigeonholeGeometry {
    let int = |value: usize| i64::try_from(value).expect("a box is small");
    PigeonholeGeometry {
        max_plaintext_payload_length: int(max_plaintext),
        courier_query_read_length: int(max_plaintext + OVERHEAD),
        courier_query_write_length: int(max_plaintext + OVERHEAD),
        courier_query_reply_read_length: int(max_plaintext + 169),
        courier_query_reply_write_length: int(max_plaintext + 169),
        nike_name: "CTIDH1024-X25519".to_owned(),
        signature_scheme_name: "Ed25519".to_owned(),
    }
}

pub(super) fn sphinx_geometry(max_plaintext: usize) -> SphinxGeometry {
    let user = i64::try_from(max_plaintext + OVERHEAD).expect("a box is small");
    SphinxGeometry {
        packet_length: user + 1082,
        nr_hops: 5,
        header_length: 476,
        routing_info_length: 410,
        per_hop_routing_info_length: 82,
        surb_length: 572,
        sphinx_plaintext_header_length: 2,
        payload_tag_length: 32,
        forward_payload_length: user + 574,
        user_forward_payload_length: user,
        next_node_hop_length: 65,
        sprp_key_material_length: 64,
        nike_name: "x25519".to_owned(),
        kem_name: String::new(),
    }
}

pub(super) fn authorities(identity: &Identity) -> Vec<DirectoryAuthority> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(identity.authority_key);
    vec![DirectoryAuthority {
        identifier: "localnet".to_owned(),
        pki_signature_scheme: "Ed25519".to_owned(),
        wire_kem_scheme: "x25519".to_owned(),
        addresses: Some(Vec::new()),
        identity_public_key_pem: format!(
            "-----BEGIN LOCALNET PUBLIC KEY-----\n{encoded}\n-----END LOCALNET PUBLIC KEY-----\n"
        ),
        link_public_key_pem: String::new(),
        identity_key_hash: Some(Octets::from(hash256(&[&identity.authority_key]))),
    }]
}

/// The PKI document of a mixnet epoch.
pub(super) fn pki_document(identity: &Identity, epoch: u64, replica_epoch: u64) -> Vec<u8> {
    let text = |text: &str| Value::Text(text.to_owned());
    let key = |name: &str| Value::Bytes(hash256(&[name.as_bytes(), &identity.authority_key]).to_vec());
    let addresses = || Value::Map(Vec::new());
    let node = |name: &str, identity_key: Value, service: Vec<(Value, Value)>, gateway: bool| {
        let is_service = !service.is_empty();
        let entries = vec![
            (text("Name"), text(name)),
            (text("Epoch"), Value::from(epoch)),
            (text("IdentityKey"), identity_key),
            (text("LinkKey"), key(&format!("{name} link"))),
            (text("MixKeys"), Value::Map(vec![(Value::from(epoch), key(&format!("{name} mix")))])),
            (text("Addresses"), addresses()),
            (text("Kaetzchen"), Value::Map(service)),
            (text("IsGatewayNode"), Value::Bool(gateway)),
            (text("IsServiceNode"), Value::Bool(is_service)),
            (text("LoadWeight"), Value::from(0)),
            (text("AuthenticationType"), text("")),
            (text("Version"), text("v1")),
        ];
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(entries), &mut bytes).expect("into memory");
        Value::Bytes(bytes)
    };
    let endpoint = String::from_utf8_lossy(COURIER_QUEUE).into_owned();
    let courier = vec![(text("courier"), Value::Map(vec![(text("endpoint"), text(&endpoint))]))];
    let courier_key = Value::Bytes(identity.courier_key.to_vec());
    let mix = |layer: usize| {
        let name = format!("mix{layer}");
        Value::Array(vec![node(&name, key(&name), Vec::new(), false)])
    };
    let replica = |id: u64| {
        let name = format!("replica{id}");
        let envelope_keys = Value::Map(vec![(Value::from(replica_epoch), key(&format!("{name} envelope")))]);
        Value::Map(vec![
            (text("Name"), text(&name)),
            (text("ReplicaID"), Value::from(id)),
            (text("Epoch"), Value::from(epoch)),
            (text("IdentityKey"), key(&name)),
            (text("LinkKey"), key(&format!("{name} link"))),
            (text("EnvelopeKeys"), envelope_keys),
            (text("Addresses"), addresses()),
        ])
    };
    let entries = vec![
        (text("Epoch"), Value::from(epoch)),
        (text("GenesisEpoch"), Value::from(1)),
        (text("Mu"), Value::Float(MU)),
        (text("LambdaP"), Value::Float(LAMBDA_P)),
        (text("LambdaL"), Value::Float(0.0)),
        (text("LambdaM"), Value::Float(0.0)),
        (text("LambdaG"), Value::Float(0.0)),
        (text("LambdaR"), Value::Float(LAMBDA_P)),
        (text("Topology"), Value::Array((0..3).map(mix).collect())),
        (text("GatewayNodes"), Value::Array(vec![node("gateway", key("gateway"), Vec::new(), true)])),
        (text("ServiceNodes"), Value::Array(vec![node("courier", courier_key, courier, false)])),
        (text("StorageReplicas"), Value::Array((0..4).map(replica).collect())),
        (text("ConfiguredReplicaIDs"), Value::Bytes(vec![0, 1, 2, 3])),
        (text("ConfiguredReplicaIdentityKeys"), Value::Array((0..4).map(|id| key(&format!("replica{id}"))).collect())),
        (text("SharedRandomCommit"), Value::Map(Vec::new())),
        (text("SharedRandomReveal"), Value::Map(Vec::new())),
        (text("SharedRandomValue"), key("shared random")),
        (text("PriorSharedRandom"), Value::Array(Vec::new())),
        (text("SphinxGeometryHash"), key("geometry")),
        (text("Version"), text("v1")),
        (text("PKISignatureScheme"), text("Ed25519")),
        (text(Document::LOCALNET_MARK), Value::Bool(true)),
    ];
    let mut bytes = Vec::new();
    ciborium::into_writer(&Value::Map(entries), &mut bytes).expect("into memory");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_marked_and_the_geometry_is_the_network_s() {
        let identity = Identity { envelope_key: [1; 32], authority_key: [2; 32], courier_key: [3; 32] };
        let document = Document::parse(&pki_document(&identity, 7, 1)).expect("a document");
        assert!(document.localnet && document.epoch == 7 && document.layers() == 3 && document.replicas.len() == 4);
        let (sphinx, pigeonhole) = (sphinx_geometry(1549), pigeonhole_geometry(1549));
        assert_eq!((sphinx.packet_length, sphinx.forward_payload_length), (3082, 2574));
        assert_eq!((pigeonhole.courier_query_read_length, pigeonhole.courier_query_reply_read_length), (2000, 1718));
    }
}
