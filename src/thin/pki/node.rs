//! The nodes of a document: mixes, gateways, service nodes with their services, and storage replicas.

use std::collections::BTreeMap;

use ciborium::Value;
use serde::Deserialize;

use super::lenient::or_default;
use crate::thin::client::{Courier, Destination, hash256};
use crate::thin::frame;
use crate::thin::message::{HASH_BYTES, Octets};

/// A mix, a gateway or a service node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Node {
    /// Its name, unique in the network.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The epoch of its descriptor.
    #[serde(deserialize_with = "or_default")]
    pub epoch: u64,
    /// Its identity key, in the document's signature scheme.
    #[serde(deserialize_with = "or_default")]
    pub identity_key: Octets,
    /// The key of its links, in the network's wire KEM.
    #[serde(deserialize_with = "or_default")]
    pub link_key: Octets,
    /// Its Sphinx key of each epoch.
    #[serde(deserialize_with = "or_default")]
    pub mix_keys: BTreeMap<u64, Octets>,
    /// Where it listens, by transport (`tcp4`, …).
    #[serde(deserialize_with = "or_default")]
    pub addresses: BTreeMap<String, Vec<String>>,
    /// Whether packets enter here.
    #[serde(deserialize_with = "or_default")]
    pub is_gateway_node: bool,
    /// Whether services are here.
    #[serde(deserialize_with = "or_default")]
    pub is_service_node: bool,
    /// How much of the traffic it wants, relative to others; 0 where the network does not use it.
    #[serde(deserialize_with = "or_default")]
    pub load_weight: u8,
    /// How a gateway knows its clients.
    #[serde(deserialize_with = "or_default")]
    pub authentication_type: String,
    /// Version of its descriptor's form.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// What each service of the node says of itself, by capability. See [`Self::service`].
    #[serde(rename = "Kaetzchen", deserialize_with = "or_default")]
    pub parameters: BTreeMap<String, BTreeMap<String, Parameter>>,
    /// Larger data of each service, by capability, such as a courier's link key.
    #[serde(rename = "KaetzchenAdvertizedData", deserialize_with = "or_default")]
    pub advertised: BTreeMap<String, BTreeMap<String, Parameter>>,
}

impl Node {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        frame::decode(bytes).ok()
    }

    /// By this hash, BLAKE2b-256 of its identity key, a node is addressed.
    pub fn identity_hash(&self) -> [u8; HASH_BYTES] {
        hash256(&self.identity_key)
    }

    /// The service of a capability, where the node offers it and says at which queue.
    pub fn service(&self, capability: &str) -> Option<Service> {
        let (capability, parameters) = self.parameters.get_key_value(capability)?;
        let Some(Parameter::Text(endpoint)) = parameters.get("endpoint") else { return None };
        Some(Service {
            capability: capability.clone(),
            node: self.name.clone(),
            identity_hash: self.identity_hash(),
            queue_id: endpoint.clone().into_bytes(),
            parameters: parameters.clone(),
            advertised: self.advertised.get(capability).cloned().unwrap_or_default(),
        })
    }

    /// Every service that it offers.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.parameters.keys().filter_map(|capability| self.service(capability))
    }
}

/// A service of the mixnet, and where to send what is for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// What it does: `echo`, `courier`, …
    pub capability: String,
    /// The name of its node.
    pub node: String,
    /// BLAKE2b-256 of the node's identity key: the destination of a message.
    pub identity_hash: [u8; HASH_BYTES],
    /// Its queue at the node, as bytes of the document's `endpoint`.
    pub queue_id: Vec<u8>,
    /// What it says of itself, the endpoint included.
    pub parameters: BTreeMap<String, Parameter>,
    /// Larger data that it publishes.
    pub advertised: BTreeMap<String, Parameter>,
}

impl Service {
    /// The capability of couriers.
    pub const COURIER: &str = "courier";
    /// The capability of the service that sends back what it is sent.
    pub const ECHO: &str = "echo";
}

impl From<Service> for Courier {
    fn from(service: Service) -> Self {
        Self::Pinned { identity_hash: service.identity_hash, queue_id: service.queue_id }
    }
}

impl From<&Service> for Destination {
    fn from(service: &Service) -> Self {
        Self { identity_hash: service.identity_hash, queue_id: service.queue_id.clone() }
    }
}

impl From<Service> for Destination {
    fn from(service: Service) -> Self {
        Self { identity_hash: service.identity_hash, queue_id: service.queue_id }
    }
}

/// A value that a service publishes of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Value")]
pub enum Parameter {
    /// Text: an endpoint, a key in PEM, …
    Text(String),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Null, lists, maps: nothing that is in use.
    Other,
}

impl From<Value> for Parameter {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Integer(number) => Self::Integer(number.into()),
            Value::Float(number) => Self::Float(number),
            Value::Bool(flag) => Self::Bool(flag),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            _ => Self::Other,
        }
    }
}

/// A storage replica that is on line.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Replica {
    /// Its name, unique in the network.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its number among the configured replicas.
    #[serde(rename = "ReplicaID", deserialize_with = "or_default")]
    pub id: u8,
    /// The epoch of its descriptor.
    #[serde(deserialize_with = "or_default")]
    pub epoch: u64,
    /// Its identity key, in the document's signature scheme; boxes are shared out by it.
    #[serde(deserialize_with = "or_default")]
    pub identity_key: Octets,
    /// The key of its links.
    #[serde(deserialize_with = "or_default")]
    pub link_key: Octets,
    /// The keys that envelopes are made for, by replica epoch: weeks of production's time.
    #[serde(deserialize_with = "or_default")]
    pub envelope_keys: BTreeMap<u64, Octets>,
    /// Where it listens, by transport.
    #[serde(deserialize_with = "or_default")]
    pub addresses: BTreeMap<String, Vec<String>>,
}

impl Replica {
    /// BLAKE2b-256 of its identity key.
    pub fn identity_hash(&self) -> [u8; HASH_BYTES] {
        hash256(&self.identity_key)
    }
}
