//! BACAP: capabilities, indices and boxes, and their text forms. Pure: no I/O, no clock, no randomness of its own.
//!
//! A channel is an Ed25519 root key and a chain of indices. Each index blinds the root key into the identity of one
//! box, whose contents are sealed under a key of that index. Everything is deterministic: the same capability, index
//! and message make the same box, byte for byte. Source: `pigeonhole-internals.md` §1 and §2.1.
//!
#![doc = include_str!("TEXT.md")]

mod capability;
mod index;
mod kdf;
mod sealed;
mod text;

pub use capability::{ParseError, ReadCap, WriteCap};
pub use index::{BoxIndex, IndexError};
pub use sealed::{BoxId, OpenError, Opened, SealError, SealedBox, verify_box};
pub use text::{AnyCap, CapText, Capability, TextError, TextKind, TextNetwork, looks_secret};

/// Length of a `MessageBoxIndex`, in bytes.
pub const INDEX_BYTES: usize = 104;
/// Length of a read capability, in bytes.
pub const READ_CAP_BYTES: usize = 136;
/// Length of a write capability, in bytes.
pub const WRITE_CAP_BYTES: usize = 168;
/// What a sealed box adds to M: the length prefix and the tag.
pub const BOX_OVERHEAD_BYTES: usize = 4 + 16;

#[cfg(test)]
mod tests {
    use blake2::Digest as _;
    use proptest::prelude::*;
    use serde_json::Value;
    use shake::{ExtendableOutput, Shake256, Update, XofReader};

    use super::*;

    fn vectors(kind: &str) -> Vec<Value> {
        let all: Value = serde_json::from_str(include_str!("../../testdata/bacap-vectors.json")).expect("JSON");
        all[kind].as_array().expect("a list of vectors").clone()
    }

    fn bytes(vector: &Value, key: &str) -> Vec<u8> {
        hex::decode(vector[key].as_str().unwrap_or_else(|| panic!("{key} in {vector}"))).expect("hex")
    }

    fn number(vector: &Value, key: &str) -> u64 {
        vector[key].as_u64().unwrap_or_else(|| panic!("{key} in {vector}"))
    }

    fn array<const N: usize>(bytes: Vec<u8>) -> [u8; N] {
        bytes.try_into().expect("the vector's length")
    }

    fn advanced(cap: &WriteCap, steps: u64) -> BoxIndex {
        cap.index().advance_to(cap.index().counter() + steps).expect("far from the end")
    }

    #[test]
    fn key_pairs_come_from_seeds_as_the_daemon_makes_them() {
        for vector in vectors("new_keypair") {
            let cap = WriteCap::from_seed(&array(bytes(&vector, "seed")));
            assert_eq!(hex::encode(*cap.to_bytes()), vector["write_cap"].as_str().expect("hex"));
            assert_eq!(cap.to_bytes()[32..], cap.read_cap().to_bytes()[..]);
            assert_eq!(WriteCap::from_bytes(&*cap.to_bytes()), Ok(cap.clone()));
            assert_eq!(
                ReadCap::from_base64(&format!(" {}\n", *cap.read_cap().to_base64())),
                Ok(cap.read_cap().clone())
            );
        }
    }

    #[test]
    fn indices_advance_as_the_daemon_steps_them() {
        for vector in vectors("advance") {
            let index = BoxIndex::from_bytes(&bytes(&vector, "index")).expect("104 bytes");
            let advanced = index.advance_to(index.counter() + number(&vector, "steps")).expect("forward");
            assert_eq!(hex::encode(advanced.as_bytes()), vector["expected"].as_str().expect("hex"));
        }
        let recorded: Vec<Value> =
            serde_json::from_str(include_str!("../../testdata/recorded-next-indices.json")).expect("JSON");
        assert!(!recorded.is_empty());
        for pair in recorded {
            let index = BoxIndex::from_bytes(&bytes(&pair, "index")).expect("104 bytes");
            assert_eq!(index.next().expect("a next one").as_bytes()[..], bytes(&pair, "next")[..]);
        }
    }

    #[test]
    fn boxes_are_sealed_bit_for_bit_and_open_again() {
        for vector in vectors("encrypt_box") {
            let cap = WriteCap::from_bytes(&bytes(&vector, "write_cap")).expect("a capability");
            let index = advanced(&cap, number(&vector, "advance"));
            let message = bytes(&vector, "message");
            let max = usize::try_from(number(&vector, "max_plaintext_payload_length")).expect("small");
            let sealed = cap.seal(&index, &message, max).expect("it fits");
            assert_eq!(hex::encode(sealed.box_id.0), vector["box_id"].as_str().expect("hex"));
            assert_eq!(hex::encode(sealed.signature), vector["signature"].as_str().expect("hex"));
            let digest = blake2::Blake2b::<blake2::digest::consts::U32>::digest(&sealed.payload);
            assert_eq!(hex::encode(digest), vector["payload_blake2b256"].as_str().expect("hex"));
            assert_eq!(cap.read_cap().open(&index, &sealed), Ok(Opened::Message(message)));
        }
    }

    #[test]
    fn tombstones_mutations_and_voucher_streams_meet_their_vectors() {
        for vector in vectors("tombstone") {
            let cap = WriteCap::from_bytes(&bytes(&vector, "write_cap")).expect("a capability");
            let index = advanced(&cap, number(&vector, "advance"));
            let tombstone = cap.tombstone(&index);
            assert_eq!(hex::encode(tombstone.box_id.0), vector["box_id"].as_str().expect("hex"));
            assert_eq!(hex::encode(tombstone.signature), vector["signature"].as_str().expect("hex"));
            assert_eq!(cap.read_cap().open(&index, &tombstone), Ok(Opened::Tombstone));
        }
        for vector in vectors("mutate") {
            let cap = WriteCap::from_bytes(&bytes(&vector, "write_cap")).expect("a capability");
            let mutated = cap.mutate(&array(bytes(&vector, "salt")));
            assert_eq!(mutated.read_cap(), &cap.read_cap().mutate(&array(bytes(&vector, "salt"))));
            let expected = vector.get("mutated_write_cap").or_else(|| vector.get("expected")).expect("an expectation");
            let expected = expected.as_str().expect("hex");
            assert!(hex::encode(*mutated.to_bytes()).ends_with(expected));
        }
        for vector in vectors("voucher_stream") {
            let mut stream = Shake256::default().chain(bytes(&vector, "voucher")).finalize_xof();
            let cap = WriteCap::from_stream(|out| stream.read(out));
            assert_eq!(hex::encode(*cap.to_bytes()), vector["write_cap"].as_str().expect("hex"));
        }
    }

    #[test]
    fn what_is_no_capability_is_refused_with_what_it_looks_like() {
        let cap = WriteCap::from_seed(&[7; 32]);
        let told = |error: ParseError| error.to_string();
        let swapped = ReadCap::from_base64(&cap.to_base64()).expect_err("a write capability");
        assert!(told(swapped).contains("as a write capability has"));
        assert_eq!(ReadCap::from_base64("not base64!"), Err(ParseError::NotBase64));
        let mut altered = cap.to_bytes();
        altered[0] ^= 1;
        assert_eq!(WriteCap::from_bytes(&*altered), Err(ParseError::KeyMismatch));
        for shown in [format!("{cap:?}"), format!("{:?}", cap.read_cap()), format!("{:?}", cap.index())] {
            assert!(shown.len() < 40, "nothing of the keys is shown: {shown}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any message comes back; any flipped bit of the box does not open.
        #[test]
        fn only_the_very_box_opens(seed: [u8; 32], message in proptest::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index) {
            let cap = WriteCap::from_seed(&seed);
            let index = cap.index().next().expect("a next one");
            let sealed = cap.seal(&index, &message, 200).expect("it fits");
            prop_assert_eq!(cap.read_cap().open(&index, &sealed), Ok(Opened::Message(message)));
            prop_assert!(cap.read_cap().open(cap.index(), &sealed).is_err());
            let mut altered = sealed;
            let bit = at.index((32 + 64 + altered.payload.len()) * 8);
            match bit / 8 {
                byte @ 0..32 => altered.box_id.0[byte] ^= 1 << (bit % 8),
                byte @ 32..96 => altered.signature[byte - 32] ^= 1 << (bit % 8),
                byte => altered.payload[byte - 96] ^= 1 << (bit % 8),
            }
            prop_assert!(cap.read_cap().open(&index, &altered).is_err());
        }
    }
}
