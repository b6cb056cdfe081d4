//! Contact vouchers: how two parties who share a short secret give each other a channel that others cannot find.
//!
//! The joiner mints a voucher and publishes its payload; the inductor checks it, seals an answer to the joiner with a
//! fresh salt, and both move the joiner's channel to the chain that the salt opens. Pure: randomness is given.
//!
//! **Not interoperable with a real daemon**: there the seal's key exchange is CTIDH-1024 beside X25519, and here X25519
//! alone, in keys of the same length whose other bytes are filler. Everything else is the real thing, sizes included.
//! Source: `pigeonhole-internals.md` §6.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit};
use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use zeroize::Zeroizing;

use super::envelope::hash256;
use super::wire::decode;
use crate::bacap::{ReadCap, WriteCap};
use crate::thin::message::Octets;

const PUBLIC_KEY: usize = 160;
const SECRET_KEY: usize = 162;
const NONCE: usize = 12;

/// Why a voucher's request is refused; the codes are the protocol's (`thin-client-protocol.md` §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something in the request is not what it should be.
    Invalid = 3,
    /// The payload is not the one that the voucher stands for.
    Hash = 28,
    /// The payload is not signed by the channel that it offers.
    Signature = 29,
    /// The answer is sealed for somebody else, was altered, or holds something else.
    Seal = 30,
}

/// A voucher, minted.
pub(super) struct Minted {
    pub(super) voucher: [u8; 32],
    pub(super) payload: Vec<u8>,
    pub(super) secret_key: Zeroizing<Vec<u8>>,
    pub(super) public_key: Vec<u8>,
}

/// A voucher, accepted.
pub(super) struct Inducted {
    pub(super) display_name: String,
    pub(super) read_cap: ReadCap,
    pub(super) sealed_reply: Vec<u8>,
    pub(super) salt: [u8; 32],
}

/// An answer to a voucher, opened.
pub(super) struct Opened {
    pub(super) who_reply: Vec<u8>,
    pub(super) write_cap: WriteCap,
    pub(super) salt: [u8; 32],
}

// The fields stand in the order of canonical CBOR: by the length of their names, then by their letters.

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PleaseAdd {
    display_name: String,
    message_read_cap: Octets,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct SignedPleaseAdd {
    please_add: Octets,
    signature: Octets,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Payload {
    #[serde(rename = "VoucherPubKey")]
    public_key: Octets,
    #[serde(rename = "SignedPleaseAdd")]
    signed: Octets,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    who_reply: Octets,
    voucher_salt: Octets,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Sealed {
    #[serde(rename = "Envelope")]
    envelope: Octets,
    #[serde(rename = "DEKCiphertexts")]
    keys: Vec<Octets>,
    #[serde(rename = "EphemeralPublicKey")]
    ephemeral: Octets,
}

/// Makes a voucher for the channel of `cap`, from where that stands.
pub(super) fn mint(cap: &WriteCap, display_name: &str, rng: &mut impl Rng) -> Minted {
    let (secret_key, public_key) = key_pair(rng);
    let please_add = encode(&PleaseAdd {
        display_name: display_name.to_owned(),
        message_read_cap: Octets::from(&cap.read_cap().to_bytes()[..]),
    });
    let seed: [u8; 32] = cap.to_bytes()[..32].try_into().expect("a capability begins with its seed");
    let signature = SigningKey::from_bytes(&seed).sign(&please_add).to_bytes();
    let signed = encode(&SignedPleaseAdd { please_add: please_add.into(), signature: Octets::from(signature) });
    let payload = encode(&Payload { public_key: Octets::from(&public_key[..]), signed: signed.into() });
    Minted { voucher: hash256(&[&payload]), payload, secret_key, public_key }
}

/// The stream at which the two parties of a voucher meet.
pub(super) fn stream(voucher: &[u8; 32]) -> WriteCap {
    let mut hash = Shake256::default();
    hash.update(voucher);
    let mut reader = hash.finalize_xof();
    WriteCap::from_stream(|bytes| reader.read(bytes))
}

/// Accepts a voucher, and says `who_reply` to whoever minted it.
pub(super) fn induct(
    voucher: &[u8; 32],
    payload: &[u8],
    who_reply: &[u8],
    rng: &mut impl Rng,
) -> Result<Inducted, Refused> {
    if hash256(&[payload]) != *voucher {
        return Err(Refused::Hash);
    }
    let payload: Payload = decode(payload).map_err(|_| Refused::Invalid)?;
    let signed: SignedPleaseAdd = decode(&payload.signed).map_err(|_| Refused::Invalid)?;
    let please_add: PleaseAdd = decode(&signed.please_add).map_err(|_| Refused::Invalid)?;
    let read_cap = ReadCap::from_bytes(&please_add.message_read_cap).map_err(|_| Refused::Invalid)?;
    if payload.public_key.len() != PUBLIC_KEY {
        return Err(Refused::Invalid);
    }
    let root = read_cap.to_bytes()[..32].try_into().expect("a capability begins with its root key");
    let signature = Signature::from_slice(&signed.signature).map_err(|_| Refused::Signature)?;
    let root = VerifyingKey::from_bytes(&root).map_err(|_| Refused::Invalid)?;
    root.verify(&signed.please_add, &signature).map_err(|_| Refused::Signature)?;

    let salt: [u8; 32] = rng.random();
    let answer = encode(&Answer { who_reply: Octets::from(who_reply), voucher_salt: Octets::from(salt) });
    Ok(Inducted {
        display_name: please_add.display_name,
        read_cap: read_cap.mutate(&salt),
        sealed_reply: seal(&payload.public_key, &answer, rng),
        salt,
    })
}

/// Opens the answer to a voucher, and moves the channel of `cap` to where the answer says.
pub(super) fn open(secret_key: &[u8], sealed_reply: &[u8], cap: &WriteCap) -> Result<Opened, Refused> {
    if secret_key.len() != SECRET_KEY {
        return Err(Refused::Invalid);
    }
    let answer = unseal(secret_key, sealed_reply).ok_or(Refused::Seal)?;
    let answer: Answer = decode(&answer).map_err(|_| Refused::Seal)?;
    let salt = (&answer.voucher_salt[..]).try_into().map_err(|_| Refused::Seal)?;
    Ok(Opened { who_reply: answer.who_reply.0, write_cap: cap.mutate(&salt), salt })
}

/// A key pair of the real lengths, of which the first 32 bytes are used.
fn key_pair(rng: &mut impl Rng) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
    let mut secret = Zeroizing::new(vec![0; SECRET_KEY]);
    let mut public = vec![0; PUBLIC_KEY];
    rng.fill_bytes(&mut secret);
    rng.fill_bytes(&mut public);
    public[..32].copy_from_slice(&MontgomeryPoint::mul_base_clamped(scalar(&secret)).0);
    (secret, public)
}

fn scalar(secret: &[u8]) -> [u8; 32] {
    secret[..32].try_into().expect("a secret key is longer")
}

/// What two parties of a key exchange come to. Keys are of the right length.
fn shared(secret: &[u8], public: &[u8]) -> Zeroizing<[u8; 32]> {
    let public = MontgomeryPoint(public[..32].try_into().expect("a public key is longer"));
    Zeroizing::new(hash256(&[&public.mul_clamped(scalar(secret)).0]))
}

/// Seals a message for one recipient, as MKEM does for several.
fn seal(public_key: &[u8], message: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let (secret, ephemeral) = key_pair(rng);
    let key = Zeroizing::new(rng.random::<[u8; 32]>());
    encode(&Sealed {
        envelope: encrypt(&key, message, rng).into(),
        keys: vec![encrypt(&shared(&secret, public_key), &*key, rng).into()],
        ephemeral: ephemeral.into(),
    })
}

fn unseal(secret_key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let sealed: Sealed = decode(sealed).ok()?;
    if sealed.ephemeral.len() != PUBLIC_KEY {
        return None;
    }
    let shared = shared(secret_key, &sealed.ephemeral);
    let key = sealed.keys.iter().find_map(|key| decrypt(&shared, key)).map(Zeroizing::new)?;
    decrypt(key.as_slice().try_into().ok()?, &sealed.envelope)
}

/// nonce ‖ ciphertext ‖ tag.
fn encrypt(key: &[u8; 32], message: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let nonce: [u8; NONCE] = rng.random();
    let sealed = ChaCha20Poly1305::new(key.into()).encrypt(&nonce.into(), message).expect("far below the limit");
    [&nonce[..], &sealed].concat()
}

fn decrypt(key: &[u8; 32], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    ChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), sealed).ok()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("into memory");
    bytes
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use serde_json::Value;

    use super::*;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn a_voucher_gives_its_two_parties_a_channel_that_only_they_can_find() {
        let (mut rng, cap) = (rng(), WriteCap::from_seed(&[1; 32]));
        let minted = mint(&cap, "alice", &mut rng);
        assert_eq!((minted.secret_key.len(), minted.public_key.len(), minted.payload.len()), (162, 160, 457));
        for reply in [&b""[..], b"bob", &[7; 1000]] {
            let inducted = induct(&minted.voucher, &minted.payload, reply, &mut rng).expect("as minted");
            assert_eq!(inducted.display_name, "alice");
            assert!((356..=359).contains(&(inducted.sealed_reply.len() - reply.len())), "{}", reply.len());
            let opened = open(&minted.secret_key, &inducted.sealed_reply, &cap).expect("sealed for us");
            assert_eq!((&opened.who_reply[..], opened.salt), (reply, inducted.salt));
            assert_eq!(opened.write_cap.read_cap(), &inducted.read_cap);
            assert_ne!(opened.write_cap.index(), cap.index());
        }
    }

    #[test]
    fn each_thing_that_can_be_wrong_has_its_code() {
        let (mut rng, cap) = (rng(), WriteCap::from_seed(&[1; 32]));
        let minted = mint(&cap, "alice", &mut rng);
        let mut induct = |payload: &[u8], voucher: Option<[u8; 32]>| {
            let voucher = voucher.unwrap_or_else(|| hash256(&[payload]));
            super::induct(&voucher, payload, b"bob", &mut rng).map(|inducted| inducted.sealed_reply)
        };
        assert_eq!(induct(&minted.payload, Some([0; 32])), Err(Refused::Hash));
        assert_eq!(induct(b"\xff", None), Err(Refused::Invalid));
        assert_eq!(induct(b"\xa0", None), Err(Refused::Invalid));
        let mut forged = minted.payload.clone();
        *forged.last_mut().expect("long") ^= 1;
        assert_eq!(induct(&forged, None), Err(Refused::Signature));
        let sealed = induct(&minted.payload, None).expect("as minted");
        let open = |secret: &[u8], sealed: &[u8]| super::open(secret, sealed, &cap).map(|opened| opened.who_reply);
        assert_eq!(open(&minted.secret_key, &sealed), Ok(b"bob".to_vec()));
        assert_eq!(open(&minted.secret_key[1..], &sealed), Err(Refused::Invalid));
        assert_eq!(open(&[9; 162], &sealed), Err(Refused::Seal));
        for sealed in [&b""[..], b"\xa0", &sealed[..sealed.len() - 1]] {
            assert_eq!(open(&minted.secret_key, sealed), Err(Refused::Seal));
        }
    }

    /// The payload's bytes are the ones that upstream would hash: keys by length, whatever order Rust has them in.
    #[test]
    fn a_payload_is_canonical() {
        let minted = mint(&WriteCap::from_seed(&[1; 32]), "alice", &mut rng());
        let keys = |bytes: &[u8]| -> Vec<String> {
            let value: ciborium::Value = ciborium::from_reader(bytes).expect("CBOR");
            value.as_map().expect("a map").iter().map(|(key, _)| key.as_text().expect("text").to_owned()).collect()
        };
        assert_eq!(keys(&minted.payload), ["VoucherPubKey", "SignedPleaseAdd"]);
        let payload: Payload = decode(&minted.payload).expect("ours");
        assert_eq!(keys(&payload.signed), ["PleaseAdd", "Signature"]);
        let signed: SignedPleaseAdd = decode(&payload.signed).expect("ours");
        assert_eq!(keys(&signed.please_add), ["DisplayName", "MessageReadCap"]);
        assert_eq!(
            keys(&seal(&minted.public_key, b"", &mut rng())),
            ["Envelope", "DEKCiphertexts", "EphemeralPublicKey"]
        );
    }

    #[test]
    fn a_voucher_s_stream_is_the_one_of_the_vectors() {
        let all: Value = serde_json::from_str(include_str!("../../testdata/bacap-vectors.json")).expect("JSON");
        for vector in all["voucher_stream"].as_array().expect("vectors") {
            let bytes = |key: &str| hex::decode(vector[key].as_str().expect("hex")).expect("hex");
            let cap = stream(&bytes("voucher").try_into().expect("32 bytes"));
            assert_eq!(
                (cap.to_bytes().to_vec(), cap.read_cap().to_bytes().to_vec()),
                (bytes("write_cap"), bytes("read_cap"))
            );
        }
    }
}
