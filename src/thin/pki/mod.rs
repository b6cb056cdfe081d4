//! The PKI document: what the network is made of, at what pace it runs, and who vouches for it.
//!
//! A daemon sends the document of each epoch with its signatures taken off, in one of two encodings (canonical, with
//! floats as short as they can be, or in the order of its own structure): [`Document`] reads both, passes over keys
//! that it does not know, and leaves out nodes that it cannot read. The signed form, for those who would rather verify
//! than trust the daemon, is a [`SignedDocument`]. Nothing here does I/O, and no bytes make it panic or grow beyond
//! what they are. Source: `thin-client-protocol.md` §3.4 and its recorded conversations.

mod certificate;
mod documents;
mod lenient;
mod node;
mod show;

use std::collections::BTreeMap;
use std::time::Duration;

use ciborium::Value;
use rand::Rng;
use rand::seq::IndexedRandom as _;
use serde::Deserialize;
use serde_bytes::ByteBuf;

pub use self::certificate::{CertificateError, SignedDocument, Verdict, Verification};
pub use self::documents::Documents;
use self::lenient::{Number, or_default};
pub use self::node::{Node, Parameter, Replica, Service};
use super::frame;

/// What a round trip takes besides the delays at its hops, and the longest that these are taken for.
const BETWEEN_HOPS: Duration = Duration::from_millis(400);
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(600);

/// The longest document that is read, in bytes. Real ones have some kilobytes a node.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// One epoch of the network, as its directory authorities agreed on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The mixnet epoch that it is of: 20 minutes of production's time.
    pub epoch: u64,
    /// The first epoch of this network.
    pub genesis_epoch: u64,
    /// Rate of the delay at each hop, events per millisecond: the mean is 1/μ ms.
    pub mu: f64,
    /// Rate of a daemon's packets, real ones and decoys, events per millisecond.
    pub lambda_p: f64,
    /// Rate of a daemon's loops, events per millisecond.
    pub lambda_l: f64,
    /// Rate of the mixes' own loops, events per millisecond.
    pub lambda_m: f64,
    /// Rate of the gateways' loops, events per millisecond.
    pub lambda_g: f64,
    /// Rate of the replicas' packets, events per millisecond.
    pub lambda_r: f64,
    /// The mixes, layer by layer, in the order of a packet's way.
    pub topology: Vec<Vec<Node>>,
    /// Where packets enter.
    pub gateways: Vec<Node>,
    /// Where services are; couriers are among them.
    pub service_nodes: Vec<Node>,
    /// The storage replicas that are on line.
    pub replicas: Vec<Replica>,
    /// Ids of all replicas that boxes are shared out to, on line or not; in no order.
    pub configured_replica_ids: Vec<u8>,
    /// Their identity keys, in the same order.
    pub configured_replica_keys: Vec<Vec<u8>>,
    /// The authorities' commitments to randomness, by the hash of their identity keys. Often empty.
    pub shared_random_commits: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What they committed to. Often empty.
    pub shared_random_reveals: BTreeMap<Vec<u8>, Vec<u8>>,
    /// This epoch's shared randomness, 32 bytes.
    pub shared_random: Vec<u8>,
    /// That of the epochs before it.
    pub prior_shared_randoms: Vec<Vec<u8>>,
    /// BLAKE2b-256 of the Sphinx geometry that the network uses, 32 bytes.
    pub sphinx_geometry_hash: Vec<u8>,
    /// Version of the document's form: `v1`.
    pub version: String,
    /// Scheme of the authorities' and the nodes' signatures.
    pub signature_scheme: String,
    /// Nodes that could not be read, and are left out.
    pub unreadable_nodes: usize,
    /// Whether an embedded network made it, which gives no anonymity.
    pub localnet: bool,
}

/// The document as it travels.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Wire {
    #[serde(deserialize_with = "or_default")]
    epoch: u64,
    #[serde(deserialize_with = "or_default")]
    genesis_epoch: u64,
    #[serde(deserialize_with = "or_default")]
    mu: Number,
    #[serde(deserialize_with = "or_default")]
    lambda_p: Number,
    #[serde(deserialize_with = "or_default")]
    lambda_l: Number,
    #[serde(deserialize_with = "or_default")]
    lambda_m: Number,
    #[serde(deserialize_with = "or_default")]
    lambda_g: Number,
    #[serde(deserialize_with = "or_default")]
    lambda_r: Number,
    #[serde(deserialize_with = "or_default")]
    topology: Vec<Vec<ByteBuf>>,
    #[serde(deserialize_with = "or_default")]
    gateway_nodes: Vec<ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    service_nodes: Vec<ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    storage_replicas: Vec<Value>,
    #[serde(rename = "ConfiguredReplicaIDs", deserialize_with = "or_default")]
    configured_replica_ids: ByteBuf,
    #[serde(deserialize_with = "or_default")]
    configured_replica_identity_keys: Vec<ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    shared_random_commit: BTreeMap<ByteBuf, ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    shared_random_reveal: BTreeMap<ByteBuf, ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    shared_random_value: ByteBuf,
    #[serde(deserialize_with = "or_default")]
    prior_shared_random: Vec<ByteBuf>,
    #[serde(deserialize_with = "or_default")]
    sphinx_geometry_hash: ByteBuf,
    #[serde(deserialize_with = "or_default")]
    version: String,
    #[serde(rename = "PKISignatureScheme", deserialize_with = "or_default")]
    pki_signature_scheme: String,
    #[serde(deserialize_with = "or_default")]
    pigeonfs_localnet: bool,
}

impl Document {
    /// The key by which localnet marks its documents; other clients pass over it.
    pub const LOCALNET_MARK: &str = "PigeonfsLocalnet";

    /// Reads the payload of a `new_pki_document_event`, or what a [`SignedDocument`] certifies; `None` where it is no
    /// document, or longer than [`MAX_DOCUMENT_BYTES`].
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > MAX_DOCUMENT_BYTES {
            return None;
        }
        let wire: Wire = frame::decode(payload).ok()?;
        let of_wire = wire.storage_replicas.len();
        let replicas: Vec<Replica> = wire.storage_replicas.iter().filter_map(|one| one.deserialized().ok()).collect();
        let mut unreadable_nodes = of_wire - replicas.len();
        let mut read = |nodes: Vec<ByteBuf>| -> Vec<Node> {
            let read: Vec<_> = nodes.iter().filter_map(|bytes| Node::parse(bytes)).collect();
            unreadable_nodes += nodes.len() - read.len();
            read
        };
        Some(Self {
            epoch: wire.epoch,
            genesis_epoch: wire.genesis_epoch,
            mu: wire.mu.0,
            lambda_p: wire.lambda_p.0,
            lambda_l: wire.lambda_l.0,
            lambda_m: wire.lambda_m.0,
            lambda_g: wire.lambda_g.0,
            lambda_r: wire.lambda_r.0,
            topology: wire.topology.into_iter().map(&mut read).collect(),
            gateways: read(wire.gateway_nodes),
            service_nodes: read(wire.service_nodes),
            replicas,
            configured_replica_ids: wire.configured_replica_ids.into_vec(),
            configured_replica_keys: plain(wire.configured_replica_identity_keys),
            shared_random_commits: plain_map(wire.shared_random_commit),
            shared_random_reveals: plain_map(wire.shared_random_reveal),
            shared_random: wire.shared_random_value.into_vec(),
            prior_shared_randoms: plain(wire.prior_shared_random),
            sphinx_geometry_hash: wire.sphinx_geometry_hash.into_vec(),
            version: wire.version,
            signature_scheme: wire.pki_signature_scheme,
            unreadable_nodes,
            localnet: wire.pigeonfs_localnet,
        })
    }

    /// How many layers of mixes there are.
    pub fn layers(&self) -> usize {
        self.topology.len()
    }

    /// The mean time between two packets of a daemon, 1/λP; `None` where the document states no rate.
    pub fn packet_interval(&self) -> Option<Duration> {
        mean(self.lambda_p)
    }

    /// The mean round trip of a packet to a service and its reply: a hop into each layer and to the service, a hop out of
    /// each layer, and 0.4 s for the way between them. `None` where the document states no rate.
    pub fn round_trip(&self) -> Option<Duration> {
        let hops = u32::try_from(2 * self.layers() + 1).unwrap_or(u32::MAX);
        Some(mean(self.mu)?.saturating_mul(hops).min(LONGEST_ROUND_TRIP) + BETWEEN_HOPS)
    }

    /// Every service of one capability (`echo`, `courier`, …), one for each node that offers it, in the document's
    /// order.
    pub fn services<'a>(&'a self, capability: &'a str) -> impl Iterator<Item = Service> + 'a {
        self.service_nodes.iter().filter_map(move |node| node.service(capability))
    }

    /// One service of a capability, drawn at random, so that clients spread over the nodes that offer it.
    pub fn service(&self, capability: &str) -> Option<Service> {
        self.service_by(capability, &mut rand::rng())
    }

    /// As [`Self::service`], drawn by `dice`.
    pub fn service_by(&self, capability: &str, dice: &mut impl Rng) -> Option<Service> {
        let services: Vec<_> = self.services(capability).collect();
        services.choose(dice).cloned()
    }

    /// The couriers: they carry envelopes to the replicas, and carry out copy commands.
    pub fn couriers(&self) -> impl Iterator<Item = Service> + '_ {
        self.services(Service::COURIER)
    }
}

/// The mean interval of events that come at a rate per millisecond, an hour at most.
fn mean(rate: f64) -> Option<Duration> {
    let usable = rate > 0.0 && rate.is_finite();
    usable.then(|| Duration::from_secs_f64((0.001 / rate).min(3600.0)))
}

fn plain(list: Vec<ByteBuf>) -> Vec<Vec<u8>> {
    list.into_iter().map(ByteBuf::into_vec).collect()
}

fn plain_map(map: BTreeMap<ByteBuf, ByteBuf>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    map.into_iter().map(|(key, value)| (key.into_vec(), value.into_vec())).collect()
}

#[cfg(test)]
mod tests;
