//! Every message of the thin-client protocol, as both ends see it.
//!
//! A frame's body is `{ variant: body }`. The daemon sends every outer key, the unused ones as null; clients
//! send the one key. So a variant is *present and not null*, and in the bodies null and absent mean the same.
//! No type here judges a length: the client checks before it sends, localnet before it acts.
//! Source: `thin-client-protocol.md` §2.3, §3.2, §3.3.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

mod event;
mod frames;
mod geometry;
mod reply;
mod request;

pub use event::*;
pub use frames::*;
pub use geometry::*;
pub use reply::*;
pub use request::*;

/// Length of query ids, session tokens and instance tokens, in bytes.
pub const ID_BYTES: usize = 16;
/// Length of envelope hashes and identity hashes, in bytes.
pub const HASH_BYTES: usize = 32;

/// A fresh id of the system's randomness: for queries, legacy messages, their SURBs and sessions alike. The
/// [`Client`](crate::thin::Client) makes its own; this is for programs that speak the protocol frame by frame.
pub fn random_id() -> [u8; ID_BYTES] {
    rand::random()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// What the daemon has a decoder of its own for: a byte string, where other fields may also be arrays of numbers.
fn binary<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Octets>, D::Error> {
    struct Binary(Octets);

    impl<'de> Deserialize<'de> for Binary {
        fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
            struct Bytes;

            impl de::Visitor<'_> for Bytes {
                type Value = Binary;

                fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                    out.write_str("a byte string")
                }

                fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
                    Ok(Binary(Octets::from(bytes)))
                }

                fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Binary, E> {
                    Ok(Binary(Octets(bytes)))
                }
            }

            input.deserialize_bytes(Bytes)
        }
    }

    Ok(Option::<Binary>::deserialize(input)?.map(|binary| binary.0))
}

/// A byte string of the wire. Many of them are secrets, so it shows its length and never its bytes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Octets(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Octets({} bytes)", self.0.len())
    }
}

impl<T: Into<Vec<u8>>> From<T> for Octets {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;
    use crate::thin::frame;

    #[test]
    fn a_session_token_has_the_bytes_that_the_specification_prints() {
        let token = (0..16).collect::<Vec<u8>>();
        let request = RequestFrame::from(SessionToken { client_instance_token: Some(Octets::from(token)) });
        let expected = "a16d73657373696f6e5f746f6b656ea175636c69656e745f696e7374616e63655f746f6b656e50000102030405060708090a0b0c0d0e0f";
        assert_eq!(hex::encode(&frame::encode(&request).expect("small")[4..]), expected);
    }

    #[test]
    fn null_and_absent_mean_the_same_and_unknown_keys_are_passed_over() {
        let mut body = Vec::new();
        let odd = cbor!({
            "new_keypair" => null,
            "surprise" => 1,
            "start_resending_encrypted_message" => { "no_retry_on_box_id_not_found" => null, "later" => "x" },
        });
        ciborium::into_writer(&odd.expect("cbor"), &mut body).expect("into memory");
        let request: RequestFrame = frame::decode(&body).expect("lenient, as the daemon's decoder");
        assert_eq!(request, RequestFrame::from(StartResending::default()));
    }

    #[test]
    fn a_response_names_every_variant_as_the_daemon_does() {
        let reply = ResponseFrame::from(ShutdownEvent {});
        let bytes = frame::encode(&reply).expect("small");
        let value: ciborium::Value = frame::decode(&bytes[4..]).expect("cbor");
        assert_eq!(value.as_map().expect("a map").len(), 25);
    }
}
