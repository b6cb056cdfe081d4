//! One box: sealed by its writer, checked by a replica, opened by a reader.

use std::fmt;

use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::kdf::{blinding_factor, in_context};
use super::{BoxIndex, ReadCap, WriteCap};

/// A box's identity: the root key, blinded for its index. Unlinkable to the channel and to its other boxes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxId(pub [u8; 32]);

impl fmt::Debug for BoxId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BoxId(..)")
    }
}

/// What a replica stores of one box.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBox {
    /// Which box.
    pub box_id: BoxId,
    /// Ciphertext and tag, M + 20 bytes; empty in a tombstone.
    pub payload: Vec<u8>,
    /// Over the payload, by the blinded key.
    pub signature: [u8; 64],
}

impl fmt::Debug for SealedBox {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SealedBox({} bytes)", self.payload.len())
    }
}

/// What a box holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Opened {
    /// A message.
    Message(Vec<u8>),
    /// Its writer deleted it.
    Tombstone,
}

impl fmt::Debug for Opened {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(out, "Message({} bytes)", bytes.len()),
            Self::Tombstone => out.write_str("Tombstone"),
        }
    }
}

/// Why a message cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A box without a message is a tombstone, which is asked for by name.
    #[error("a box cannot hold an empty message")]
    Empty,
    /// It does not fit.
    #[error("a message of {bytes} bytes does not fit into a box of {max_plaintext}")]
    TooLong {
        /// The message's length.
        bytes: usize,
        /// M.
        max_plaintext: usize,
    },
}

/// Why a box does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is the box of another index or channel.
    #[error("the box belongs to another index")]
    OtherBox,
    /// Its signature is not its writer's.
    #[error("the box's signature is not valid")]
    Signature,
    /// Its contents are not what its writer sealed.
    #[error("the box's contents are not authentic")]
    Ciphertext,
    /// What was sealed is no framed message.
    #[error("the box's contents are not framed as a message")]
    Framing,
}

impl ReadCap {
    /// The identity of the box at `index`.
    pub fn box_id(&self, index: &BoxIndex) -> BoxId {
        BoxId((self.root() * *blinding_factor(index.blinding_key())).compress().to_bytes())
    }

    /// Opens the box at `index`. A tombstone has nothing but its signature to authenticate it, so the identity is
    /// compared first.
    pub fn open(&self, index: &BoxIndex, sealed: &SealedBox) -> Result<Opened, OpenError> {
        if sealed.box_id == BoxId([0; 32]) || self.box_id(index) != sealed.box_id {
            return Err(OpenError::OtherBox);
        }
        if !verify_box(sealed) {
            return Err(OpenError::Signature);
        }
        if sealed.payload.is_empty() {
            return Ok(Opened::Tombstone);
        }
        let id = &sealed.box_id.0;
        let framed = cipher(index)
            .decrypt(id[..12].try_into().expect("12 bytes"), Payload { msg: &sealed.payload, aad: id })
            .map_err(|_| OpenError::Ciphertext)?;
        unframe(framed).map(Opened::Message)
    }
}

impl WriteCap {
    /// Seals a message of 1 to `max_plaintext` bytes for the box at `index`.
    pub fn seal(&self, index: &BoxIndex, message: &[u8], max_plaintext: usize) -> Result<SealedBox, SealError> {
        if message.is_empty() {
            return Err(SealError::Empty);
        }
        if message.len() > max_plaintext {
            return Err(SealError::TooLong { bytes: message.len(), max_plaintext });
        }
        let mut framed = Zeroizing::new(vec![0; max_plaintext + 4]);
        let length =
            u32::try_from(message.len()).map_err(|_| SealError::TooLong { bytes: message.len(), max_plaintext });
        framed[..4].copy_from_slice(&length?.to_be_bytes());
        framed[4..4 + message.len()].copy_from_slice(message);
        let (key, box_id) = self.blinded(index);
        let id = &box_id.0;
        let payload = cipher(index)
            .encrypt(id[..12].try_into().expect("12 bytes"), Payload { msg: &framed, aad: id })
            .expect("a box is far below the cipher's limit");
        let signature = sign(&key, &box_id, &payload);
        Ok(SealedBox { box_id, payload, signature })
    }

    /// The tombstone of the box at `index`.
    pub fn tombstone(&self, index: &BoxIndex) -> SealedBox {
        let (key, box_id) = self.blinded(index);
        SealedBox { box_id, payload: Vec::new(), signature: sign(&key, &box_id, &[]) }
    }

    fn blinded(&self, index: &BoxIndex) -> (Zeroizing<Scalar>, BoxId) {
        let key = Zeroizing::new(*self.scalar() * *blinding_factor(index.blinding_key()));
        let box_id = BoxId(EdwardsPoint::mul_base(&key).compress().to_bytes());
        (key, box_id)
    }
}

/// What a replica checks before it stores a box: standard Ed25519 with the box's identity as the key.
pub fn verify_box(sealed: &SealedBox) -> bool {
    let signature = Signature::from_bytes(&sealed.signature);
    VerifyingKey::from_bytes(&sealed.box_id.0).is_ok_and(|key| key.verify(&sealed.payload, &signature).is_ok())
}

fn cipher(index: &BoxIndex) -> Aes256GcmSiv {
    Aes256GcmSiv::new((&*in_context(index.encryption_key())).into())
}

/// Ed25519 by a blinded key. The nonce hash has a 31-byte suffix that RFC 8032 has not; replicas compare signatures, so
/// it is reproduced bit for bit (§1.7).
fn sign(key: &Scalar, box_id: &BoxId, message: &[u8]) -> [u8; 64] {
    let d = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(key.to_bytes())));
    let r = Zeroizing::new(wide(Sha512::new().chain_update(&d[32..]).chain_update(message).chain_update(&d[33..])));
    let commitment = EdwardsPoint::mul_base(&r).compress().to_bytes();
    let k = wide(Sha512::new().chain_update(commitment).chain_update(box_id.0).chain_update(message));
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&commitment);
    signature[32..].copy_from_slice(&(k * key + *r).to_bytes());
    signature
}

fn wide(hash: Sha512) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// BE32 length ‖ message ‖ padding, whose contents nobody checks (§2.1).
fn unframe(mut framed: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    let (prefix, rest) = framed.split_first_chunk::<4>().ok_or(OpenError::Framing)?;
    let bytes = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| OpenError::Framing)?;
    if bytes > rest.len() {
        return Err(OpenError::Framing);
    }
    framed.drain(..4);
    framed.truncate(bytes);
    Ok(framed)
}
