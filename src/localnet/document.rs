//! What localnet says of itself: geometries, authorities and a PKI document, marked as an embedded network's.
//!
//! Every key in it but the authorities' is filler of the real length, drawn from the network's own identity: the same
//! network says the same in every life. Source: `thin-client-protocol.md` §3.3, §3.4.

use std::time::Duration;

use ciborium::Value;
use ed25519_dalek::{Signer as _, SigningKey};
use shake::{ExtendableOutput, Shake256, Update, XofReader};

use super::core::Echo;
use super::envelope::{OVERHEAD, hash256};
use super::profile::Profile;
use super::replica::{EPOCH_ZERO, replica_epoch};
use crate::thin::Document;
use crate::thin::message::{DirectoryAuthority, Octets, PigeonholeGeometry, SphinxGeometry};

/// The queue that couriers listen on.
pub(super) const COURIER_QUEUE: &[u8] = b"courier";
/// The services that send a message back, with their queues: each service node has them, as in the networks that upstream's
/// genconfig makes. Upstream's older tests ask for the second one.
const ECHOES: [(&str, &[u8]); 2] = [("echo", b"+echo"), ("testdest", b"+testdest")];
const AUTHORITIES: usize = 3;
const GATEWAYS: usize = 2;
const MIXES_PER_LAYER: usize = 2;
/// Length of a link's public key, in bytes.
const LINK_KEY: usize = 1216;
/// Scheme of the authorities' signatures.
const SCHEME: &str = "Ed25519";
/// Mixnet epochs after which a document's signatures are no longer good.
const EXPIRATION: u64 = 5;

/// The keys that make one localnet another network than the next. Random, made once, kept in its state.
#[derive(Clone)]
pub(super) struct Identity {
    /// Opens the envelopes.
    pub(super) envelope_key: [u8; 32],
    /// What the authorities and all the nodes are drawn from.
    pub(super) authority_key: [u8; 32],
    /// Stands for the first courier's node.
    pub(super) courier_key: [u8; 32],
}

impl Identity {
    /// A key of a name, for a node, a replica or a document.
    fn key(&self, name: &str) -> [u8; 32] {
        hash256(&[name.as_bytes(), &self.authority_key])
    }

    /// A longer key of a name.
    fn link_key(&self, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; LINK_KEY];
        let mut hash = Shake256::default();
        hash.update(&self.key(name));
        hash.finalize_xof().read(&mut bytes);
        bytes
    }

    /// The identity key of a service node.
    fn service_key(&self, number: usize) -> [u8; 32] {
        if number == 0 { self.courier_key } else { self.key(&format!("servicenode{number}")) }
    }

    fn authority(&self, number: usize) -> SigningKey {
        SigningKey::from_bytes(&self.key(&format!("authority{number}")))
    }
}

/// The identity keys of the network's replicas, by their number: what decides who holds which box.
pub(super) fn replica_keys(identity: &Identity, replicas: usize) -> Vec<[u8; 32]> {
    (0..replicas).map(|id| identity.key(&format!("replica{id}"))).collect()
}

/// The identity hashes of the couriers' nodes, by their number.
pub(super) fn courier_hashes(identity: &Identity, couriers: usize) -> Vec<[u8; 32]> {
    (0..couriers).map(|number| hash256(&[&identity.service_key(number)])).collect()
}

/// The services that send a legacy message back.
pub(super) fn echoes(couriers: &[[u8; 32]]) -> Vec<Echo> {
    let of_node = |node: &[u8; 32]| ECHOES.map(|(_, queue)| Echo { node: *node, queue: queue.to_vec() });
    couriers.iter().flat_map(of_node).collect()
}

/// The mixnet epoch at a time since the Unix epoch.
pub(super) fn mixnet_epoch(profile: &Profile, wall: Duration) -> u64 {
    let since = wall.saturating_sub(Duration::from_secs(EPOCH_ZERO));
    u64::try_from(since.as_millis() / profile.epoch.as_millis().max(1)).unwrap_or(u64::MAX)
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
    let authority = |number: usize| {
        let key = identity.authority(number).verifying_key();
        DirectoryAuthority {
            identifier: format!("localnet{}", number + 1),
            pki_signature_scheme: SCHEME.to_owned(),
            wire_kem_scheme: "xwing".to_owned(),
            addresses: Some(vec![address(&format!("authority{number}"))]),
            identity_public_key_pem: pem("ED25519", key.as_bytes()),
            link_public_key_pem: pem("XWING", &identity.link_key(&format!("authority{number} link"))),
            identity_key_hash: Some(Octets::from(hash256(&[key.as_bytes()]))),
        }
    };
    (0..AUTHORITIES).map(authority).collect()
}

/// Where a node that does not exist would listen; names under `invalid` never do (RFC 2606).
fn address(name: &str) -> String {
    format!("tcp://{name}.localnet.invalid:30000")
}

fn pem(scheme: &str, key: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(key);
    let lines: String = encoded.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
    format!("-----BEGIN {scheme} PUBLIC KEY-----\n{lines}-----END {scheme} PUBLIC KEY-----\n")
}

/// How CBOR is written: two ways are in use for one document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Keys by length and then by bytes, floats as short as they go: what a client gets when it connects, and inside
    /// certificates.
    Canonical,
    /// Keys as they are declared, floats of 64 bits: what all clients get when an epoch begins.
    Declared,
}

/// The PKI document of a mixnet epoch, signatures stripped, as `new_pki_document_event` carries it.
pub(super) fn pki_document(
    identity: &Identity,
    profile: &Profile,
    max_plaintext: usize,
    epoch: u64,
    style: Style,
) -> Vec<u8> {
    let replica_epoch = replica_epoch(start_of(profile, epoch));
    let node = |node: &Node| Value::Bytes(encode(&node.descriptor(identity, epoch), Style::Canonical));
    let mixes = |layer: usize| {
        let mix = |number: usize| Node::of(format!("mix{}", layer * MIXES_PER_LAYER + number));
        Value::Array((0..MIXES_PER_LAYER).map(|number| node(&mix(number))).collect())
    };
    let gateway = |number: usize| node(&Node { gateway: true, ..Node::of(format!("gateway{number}")) });
    let service = |number: usize| node(&Node { service: Some(number), ..Node::of(format!("servicenode{number}")) });
    let keys = replica_keys(identity, profile.replicas);
    // The authorities' list goes by the keys, and each id stands where its key does.
    let mut configured: Vec<_> = keys.iter().zip(0_u8..).collect();
    configured.sort_unstable();
    let (configured_keys, configured_ids): (Vec<_>, Vec<_>) =
        configured.into_iter().map(|(key, id)| (Value::Bytes(key.to_vec()), id)).unzip();
    let replica = |(number, key): (usize, &[u8; 32])| {
        let name = format!("replica{number}");
        let envelope_key = |epoch: u64| bytes(identity.key(&format!("{name} envelope {epoch}")));
        map([
            ("Name", text(&name)),
            ("ReplicaID", Value::from(u64::try_from(number).expect("few"))),
            ("Epoch", Value::from(epoch)),
            ("IdentityKey", bytes(*key)),
            ("LinkKey", Value::Bytes(identity.link_key(&format!("{name} link")))),
            (
                "EnvelopeKeys",
                Value::Map((replica_epoch..).take(2).map(|at| (Value::from(at), envelope_key(at))).collect()),
            ),
            ("Addresses", map([("tcp", Value::Array(vec![text(&address(&name))]))])),
        ])
    };
    let shared_random = |epoch: u64| bytes(identity.key(&format!("shared random {epoch}")));
    let (lambda_p, replica_link) = (profile.lambda_p(), profile.replica_delay.as_secs_f64() * 1000.0 / 3.0);
    let document = map([
        ("Epoch", Value::from(epoch)),
        ("GenesisEpoch", Value::from(1)),
        ("Mu", Value::Float(profile.mu())),
        ("LambdaP", Value::Float(lambda_p)),
        ("LambdaL", Value::Float(lambda_p / 2.0)),
        ("LambdaM", Value::Float(lambda_p / 2.0)),
        ("LambdaG", Value::Float(lambda_p * 1.5)),
        ("LambdaR", Value::Float(if replica_link > 0.0 { 1.0 / replica_link } else { 1.0 })),
        ("Topology", Value::Array((0..profile.layers).map(mixes).collect())),
        ("GatewayNodes", Value::Array((0..GATEWAYS).map(gateway).collect())),
        ("ServiceNodes", Value::Array((0..profile.couriers).map(service).collect())),
        ("StorageReplicas", Value::Array(keys.iter().enumerate().map(replica).collect())),
        ("ConfiguredReplicaIDs", Value::Bytes(configured_ids)),
        ("ConfiguredReplicaIdentityKeys", Value::Array(configured_keys)),
        ("SharedRandomCommit", Value::Null),
        ("SharedRandomReveal", Value::Null),
        ("SharedRandomValue", shared_random(epoch)),
        ("PriorSharedRandom", Value::Array((1..=2).map(|ago| shared_random(epoch.saturating_sub(ago))).collect())),
        ("SphinxGeometryHash", bytes(hash256(&[format!("{:?}", sphinx_geometry(max_plaintext)).as_bytes()]))),
        ("Version", text("v1")),
        ("PKISignatureScheme", text(SCHEME)),
        (Document::LOCALNET_MARK, Value::Bool(true)),
    ]);
    encode(&document, style)
}

/// The same document as `get_pki_document` gives it out: wrapped, with the authorities' signatures over it.
pub(super) fn signed_document(identity: &Identity, profile: &Profile, max_plaintext: usize, epoch: u64) -> Vec<u8> {
    let certified = pki_document(identity, profile, max_plaintext, epoch, Style::Canonical);
    let expiration = epoch.saturating_add(EXPIRATION);
    let message = [&0_u32.to_le_bytes()[..], &expiration.to_le_bytes(), SCHEME.as_bytes(), &certified].concat();
    let signature = |number: usize| {
        let key = identity.authority(number);
        let hash = bytes(hash256(&[key.verifying_key().as_bytes()]));
        let payload = Value::Bytes(key.sign(&message).to_bytes().to_vec());
        (hash.clone(), map([("PublicKeySum256", hash), ("Payload", payload)]))
    };
    let signatures = Value::Map((0..AUTHORITIES).map(signature).collect());
    let certificate = map([
        ("Version", Value::from(0)),
        ("Expiration", Value::from(expiration)),
        ("KeyType", text(SCHEME)),
        ("Certified", Value::Bytes(certified)),
        ("Signatures", signatures),
    ]);
    encode(&certificate, Style::Canonical)
}

/// A time that lies in a mixnet epoch.
fn start_of(profile: &Profile, epoch: u64) -> Duration {
    let since = u128::from(epoch) * profile.epoch.as_millis();
    Duration::from_secs(EPOCH_ZERO).saturating_add(Duration::from_millis(u64::try_from(since).unwrap_or(u64::MAX)))
}

/// A mix, a gateway or a service node.
struct Node {
    name: String,
    gateway: bool,
    /// The number of the service node, if it is one.
    service: Option<usize>,
}

impl Node {
    fn of(name: String) -> Self {
        Self { name, gateway: false, service: None }
    }

    fn descriptor(&self, identity: &Identity, epoch: u64) -> Value {
        let name = &self.name;
        let mix_key = |epoch: u64| bytes(identity.key(&format!("{name} mix {epoch}")));
        let (mut services, mut advertised) = (Value::Null, Value::Null);
        if self.service.is_some() {
            let endpoint = |queue: &[u8]| map([("endpoint", text(&String::from_utf8_lossy(queue)))]);
            let [echo, testdest] = ECHOES.map(|(name, queue)| (name, endpoint(queue)));
            services = map([("courier", endpoint(COURIER_QUEUE)), echo, testdest]);
            let link = text(&pem("XWING", &identity.link_key(&format!("{name} courier link"))));
            advertised = map([("courier", map([("linkPublicKey", link)]))]);
        }
        let identity_key = self.service.map_or_else(|| identity.key(name), |number| identity.service_key(number));
        map([
            ("Name", text(name)),
            ("Epoch", Value::from(epoch)),
            ("IdentityKey", bytes(identity_key)),
            ("LinkKey", Value::Bytes(identity.link_key(&format!("{name} link")))),
            ("MixKeys", Value::Map((epoch..).take(3).map(|at| (Value::from(at), mix_key(at))).collect())),
            ("Addresses", map([("tcp4", Value::Array(vec![text(&address(name))]))])),
            ("Kaetzchen", services),
            ("KaetzchenAdvertizedData", advertised),
            ("IsGatewayNode", Value::Bool(self.gateway)),
            ("IsServiceNode", Value::Bool(self.service.is_some())),
            ("LoadWeight", Value::from(0)),
            ("AuthenticationType", text(if self.gateway { "tofu" } else { "" })),
            ("Version", text("")),
        ])
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn bytes(bytes: [u8; 32]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

fn encode(value: &Value, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, style, &mut out);
    out
}

fn write(value: &Value, style: Style, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            head(4, items.len(), out);
            items.iter().for_each(|item| write(item, style, out));
        }
        Value::Map(entries) => {
            head(5, entries.len(), out);
            let mut entries: Vec<_> = entries.iter().map(|(key, value)| (encode(key, style), value)).collect();
            if style == Style::Canonical {
                entries.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
            }
            for (key, value) in entries {
                out.extend(key);
                write(value, style, out);
            }
        }
        Value::Float(number) if style == Style::Declared => {
            out.push(0xfb);
            out.extend(number.to_be_bytes());
        }
        // Whatever is no container looks the same in both, and ciborium writes floats as short as they go.
        plain => ciborium::into_writer(plain, out).expect("into memory"),
    }
}

/// The head of an array or a map, of which none here is long.
fn head(kind: u8, items: usize, out: &mut Vec<u8>) {
    match u8::try_from(items) {
        Ok(items @ 0..24) => out.push(kind << 5 | items),
        Ok(items) => out.extend([kind << 5 | 24, items]),
        Err(_) => {
            out.push(kind << 5 | 26);
            out.extend(u32::try_from(items).expect("a document is far shorter").to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thin::frame;
    use crate::thin::pki::SignedDocument;

    const EPOCH: u64 = 249_331;

    fn identity() -> Identity {
        Identity { envelope_key: [1; 32], authority_key: [2; 32], courier_key: [3; 32] }
    }

    fn document(style: Style) -> Vec<u8> {
        pki_document(&identity(), &Profile::docker(), 1549, EPOCH, style)
    }

    /// The keys of a map, in the order of their bytes on the wire.
    fn keys(value: &Value) -> Vec<&str> {
        value.as_map().expect("a map").iter().map(|(key, _)| key.as_text().expect("text")).collect()
    }

    fn get<'a>(value: &'a Value, key: &str) -> &'a Value {
        let entries = value.as_map().expect("a map");
        &entries.iter().find(|(at, _)| at.as_text() == Some(key)).unwrap_or_else(|| panic!("{key}")).1
    }

    #[test]
    fn the_document_is_marked_and_the_geometry_is_the_network_s() {
        for style in [Style::Canonical, Style::Declared] {
            let document = Document::parse(&document(style)).expect("a document");
            assert!(document.localnet && document.epoch == EPOCH);
            assert_eq!((document.layers(), document.replicas.len(), document.couriers().count()), (3, 5, 3));
            assert!((document.lambda_p - 0.001).abs() < 1e-12 && (document.mu - 0.005).abs() < 1e-12);
        }
        let (sphinx, pigeonhole) = (sphinx_geometry(1549), pigeonhole_geometry(1549));
        assert_eq!((sphinx.packet_length, sphinx.forward_payload_length), (3082, 2574));
        assert_eq!((pigeonhole.courier_query_read_length, pigeonhole.courier_query_reply_read_length), (2000, 1718));
    }

    /// The orders of keys are those that upstream's daemon was recorded with, our mark aside.
    #[test]
    fn the_two_encodings_say_the_same_in_the_orders_that_were_recorded() {
        let (canonical, declared) = (document(Style::Canonical), document(Style::Declared));
        let canonical: Value = frame::decode(&canonical).expect("CBOR");
        let declared: Value = frame::decode(&declared).expect("CBOR");
        let recorded = "Mu Epoch LambdaG LambdaL LambdaM LambdaP LambdaR Version Topology GatewayNodes GenesisEpoch \
            ServiceNodes StorageReplicas PigeonfsLocalnet PriorSharedRandom SharedRandomValue PKISignatureScheme \
            SharedRandomCommit SharedRandomReveal SphinxGeometryHash ConfiguredReplicaIDs ConfiguredReplicaIdentityKeys";
        assert_eq!(keys(&canonical), recorded.split_whitespace().collect::<Vec<_>>());
        let recorded = "Epoch GenesisEpoch Mu LambdaP LambdaL LambdaM LambdaG LambdaR Topology GatewayNodes \
            ServiceNodes StorageReplicas ConfiguredReplicaIDs ConfiguredReplicaIdentityKeys SharedRandomCommit \
            SharedRandomReveal SharedRandomValue PriorSharedRandom SphinxGeometryHash Version PKISignatureScheme \
            PigeonfsLocalnet";
        assert_eq!(keys(&declared), recorded.split_whitespace().collect::<Vec<_>>());
        for key in keys(&canonical) {
            let (one, other) = (get(&canonical, key), get(&declared, key));
            if key == "StorageReplicas" {
                let order = |replicas: &Value| keys(&replicas.as_array().expect("replicas")[0]).join(" ");
                assert_eq!(order(one), "Name Epoch LinkKey Addresses ReplicaID IdentityKey EnvelopeKeys");
                assert_eq!(order(other), "Name ReplicaID Epoch IdentityKey LinkKey EnvelopeKeys Addresses");
            } else {
                assert_eq!(one, other, "{key}");
            }
        }
        let gateway: Value =
            frame::decode(get(&declared, "GatewayNodes").as_array().expect("gateways")[0].as_bytes().expect("CBOR"))
                .expect("CBOR");
        let recorded = "Name Epoch LinkKey MixKeys Version Addresses Kaetzchen LoadWeight IdentityKey IsGatewayNode \
            IsServiceNode AuthenticationType KaetzchenAdvertizedData";
        assert_eq!(keys(&gateway), recorded.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn floats_are_short_when_a_client_connects_and_wide_when_an_epoch_begins() {
        let half = |style| encode(&Value::Float(1.5), style);
        assert_eq!((half(Style::Canonical), half(Style::Declared).len()), (vec![0xf9, 0x3e, 0x00], 9));
    }

    #[test]
    fn couriers_and_echoes_are_where_the_document_says_they_are() {
        let (identity, profile) = (identity(), Profile::docker());
        let document: Value = frame::decode(&document(Style::Canonical)).expect("CBOR");
        let couriers = courier_hashes(&identity, profile.couriers);
        let services = get(&document, "ServiceNodes").as_array().expect("nodes");
        assert_eq!((services.len(), couriers.len()), (profile.couriers, profile.couriers));
        for (number, node) in services.iter().enumerate() {
            let node: Value = frame::decode(node.as_bytes().expect("CBOR")).expect("CBOR");
            assert_eq!(hash256(&[get(&node, "IdentityKey").as_bytes().expect("bytes")]), couriers[number]);
            let services = get(&node, "Kaetzchen");
            assert_eq!(get(get(services, "courier"), "endpoint").as_text(), Some("courier"));
            for (name, queue) in [("echo", "+echo"), ("testdest", "+testdest")] {
                assert_eq!(get(get(services, name), "endpoint").as_text(), Some(queue));
                let answers = |echo: &Echo| (echo.node, &echo.queue[..]) == (couriers[number], queue.as_bytes());
                assert!(echoes(&couriers).iter().any(answers), "{name} of node {number}");
            }
        }
    }

    #[test]
    fn a_certificate_holds_the_document_and_is_signed_by_the_authorities() {
        let (identity, profile) = (identity(), Profile::docker());
        let certificate: Value = frame::decode(&signed_document(&identity, &profile, 1549, EPOCH)).expect("CBOR");
        assert_eq!(keys(&certificate), ["KeyType", "Version", "Certified", "Expiration", "Signatures"]);
        assert_eq!(*get(&certificate, "Certified").as_bytes().expect("CBOR"), document(Style::Canonical));
        let signed = signed_document(&identity, &profile, 1549, EPOCH);
        let signed = SignedDocument::parse(&signed).expect("a certificate");
        assert_eq!((signed.verify(&authorities(&identity)).valid(), signed.expiration), (AUTHORITIES, EPOCH + 5));
    }
}
