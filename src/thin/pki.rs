//! What a client takes from the PKI document (`thin-client-protocol.md` §3.4). Decoded leniently: two encodings are in use.

use ciborium::Value;

use super::frame;

/// The parts of a PKI document that set the pace and tell the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Mixnet epoch.
    pub epoch: u64,
    /// Rate of the client's packets, events per millisecond.
    pub lambda_p: f64,
    /// Rate of the mixes' delays, events per millisecond.
    pub mu: f64,
    /// Mix layers.
    pub layers: usize,
    /// Storage replicas.
    pub replicas: usize,
    /// Whether an embedded network made it, which gives no anonymity.
    pub localnet: bool,
}

impl Document {
    /// The key by which localnet marks its documents; other clients pass over it.
    pub const LOCALNET_MARK: &str = "PigeonfsLocalnet";

    /// Reads the payload of a `new_pki_document_event`; `None` where it is no document.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let Value::Map(entries) = frame::decode(payload).ok()? else { return None };
        let mut document = Self::default();
        for (key, value) in &entries {
            match (key.as_text()?, value) {
                ("Epoch", value) => document.epoch = u64::try_from(value.as_integer()?).ok()?,
                ("LambdaP", value) => document.lambda_p = number(value)?,
                ("Mu", value) => document.mu = number(value)?,
                ("Topology", Value::Array(layers)) => document.layers = layers.len(),
                ("StorageReplicas", Value::Array(replicas)) => document.replicas = replicas.len(),
                (Self::LOCALNET_MARK, Value::Bool(mark)) => document.localnet = *mark,
                _ => {}
            }
        }
        Some(document)
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        // Canonical CBOR may write a whole number as an integer.
        #[allow(clippy::cast_precision_loss)]
        Value::Integer(number) => Some(i128::from(*number) as f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;

    #[test]
    fn a_document_is_read_in_any_order_of_keys_and_widths_of_numbers() {
        let value = cbor!({
            "Mu" => 0.005, "LambdaP" => 1, "Epoch" => 7, "Topology" => [[], [], []], "StorageReplicas" => [{}, {}],
            "Unknown" => null, "PigeonfsLocalnet" => true,
        });
        let mut bytes = Vec::new();
        ciborium::into_writer(&value.expect("cbor"), &mut bytes).expect("into memory");
        let document = Document::parse(&bytes).expect("a document");
        let expected = Document { epoch: 7, lambda_p: 1.0, mu: 0.005, layers: 3, replicas: 2, localnet: true };
        assert_eq!(document, expected);
        assert_eq!(Document::parse(b"\x01"), None);
    }
}
