//! The two capabilities of a channel: to write it, and to read it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{BoxIndex, READ_CAP_BYTES, WRITE_CAP_BYTES};

/// Why bytes, or text, are no capability. Says nothing of what they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The wrong number of bytes.
    #[error("it has {found} bytes{}, and {expected} are expected", what(*found))]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Not base64 in the standard alphabet.
    #[error("it is not base64 (standard alphabet, with padding)")]
    NotBase64,
    /// The root public key is not a point of the curve.
    #[error("its public key is not a point of the curve: it was altered, or is something else")]
    NotAPoint,
    /// The public half does not belong to the private one.
    #[error("its public key does not belong to its private key: it was altered, or is something else")]
    KeyMismatch,
}

fn what(bytes: usize) -> &'static str {
    match bytes {
        super::INDEX_BYTES => " (as an index has)",
        READ_CAP_BYTES => " (as a read capability has)",
        WRITE_CAP_BYTES => " (as a write capability has)",
        _ => "",
    }
}

/// The capability to read a channel from an index on: root public key (32) ‖ index (104).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ReadCap {
    root: [u8; 32],
    index: BoxIndex,
}

impl ReadCap {
    /// Reads exactly 136 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() != READ_CAP_BYTES {
            return Err(ParseError::Length { found: bytes.len(), expected: READ_CAP_BYTES });
        }
        let root: [u8; 32] = bytes[..32].try_into().expect("the length was checked");
        CompressedEdwardsY(root).decompress().ok_or(ParseError::NotAPoint)?;
        Ok(Self { root, index: BoxIndex::from_bytes(&bytes[32..])? })
    }

    /// The 136 bytes, as they travel.
    pub fn to_bytes(&self) -> Zeroizing<[u8; READ_CAP_BYTES]> {
        let mut bytes = Zeroizing::new([0; READ_CAP_BYTES]);
        bytes[..32].copy_from_slice(&self.root);
        bytes[32..].copy_from_slice(self.index.as_bytes());
        bytes
    }

    /// Reads what [`Self::to_base64`] prints; white space around it does not matter.
    pub fn from_base64(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(&decode(text)?)
    }

    /// Standard base64 with padding, as upstream prints it: 184 characters.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.to_bytes()))
    }

    /// Where reading starts.
    pub fn index(&self) -> &BoxIndex {
        &self.index
    }

    /// The same channel from another index on.
    #[must_use]
    pub fn with_index(&self, index: BoxIndex) -> Self {
        Self { root: self.root, index }
    }

    /// The same channel on the chain that `salt` opens.
    #[must_use]
    pub fn mutate(&self, salt: &[u8; 32]) -> Self {
        self.with_index(self.index.mutate(salt))
    }

    /// The root public key. Every constructor has checked it.
    pub(super) fn root(&self) -> EdwardsPoint {
        CompressedEdwardsY(self.root).decompress().expect("checked when it was read")
    }
}

impl fmt::Debug for ReadCap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReadCap(..)")
    }
}

/// The capability to write a channel from an index on: Ed25519 seed (32) ‖ root public key (32) ‖ index (104).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WriteCap {
    seed: [u8; 32],
    read: ReadCap,
}

impl WriteCap {
    /// The capability that the daemon's `new_keypair` makes of a seed (§1.4).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut stream = ChaCha20Legacy::new(seed.into(), &[0; 8].into());
        Self::from_stream(|bytes| {
            bytes.fill(0);
            stream.apply_keystream(bytes);
        })
    }

    /// The capability that a stream of bytes makes; `read` fills what it is given with the stream's next bytes.
    pub fn from_stream(mut read: impl FnMut(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0_u8; 80]);
        read(&mut *bytes);
        let seed: [u8; 32] = bytes[..32].try_into().expect("32 bytes");
        let (low, high) = (half(&bytes[64..72]), half(&bytes[72..80]));
        let index = BoxIndex::first(low + high, &bytes[32..64]).expect("the masks keep the counter far from its end");
        Self { seed, read: ReadCap { root: public_key(&seed), index } }
    }

    /// Reads exactly 168 bytes, whose public half must belong to the private one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() != WRITE_CAP_BYTES {
            return Err(ParseError::Length { found: bytes.len(), expected: WRITE_CAP_BYTES });
        }
        let seed: [u8; 32] = bytes[..32].try_into().expect("the length was checked");
        if public_key(&seed) != bytes[32..64] {
            return Err(ParseError::KeyMismatch);
        }
        Ok(Self { seed, read: ReadCap::from_bytes(&bytes[32..])? })
    }

    /// The 168 bytes, as they travel.
    pub fn to_bytes(&self) -> Zeroizing<[u8; WRITE_CAP_BYTES]> {
        let mut bytes = Zeroizing::new([0; WRITE_CAP_BYTES]);
        bytes[..32].copy_from_slice(&self.seed);
        bytes[32..].copy_from_slice(&*self.read.to_bytes());
        bytes
    }

    /// Reads what [`Self::to_base64`] prints; white space around it does not matter.
    pub fn from_base64(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(&decode(text)?)
    }

    /// Standard base64 with padding, as upstream prints it: 224 characters.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.to_bytes()))
    }

    /// Where writing starts.
    pub fn index(&self) -> &BoxIndex {
        &self.read.index
    }

    /// The capability to read what this one writes, from the same index on.
    pub fn read_cap(&self) -> &ReadCap {
        &self.read
    }

    /// The same channel from another index on.
    #[must_use]
    pub fn with_index(&self, index: BoxIndex) -> Self {
        Self { seed: self.seed, read: self.read.with_index(index) }
    }

    /// The same channel on the chain that `salt` opens.
    #[must_use]
    pub fn mutate(&self, salt: &[u8; 32]) -> Self {
        self.with_index(self.index().mutate(salt))
    }

    /// The private scalar behind the root key.
    pub(super) fn scalar(&self) -> Zeroizing<Scalar> {
        let digest = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(self.seed)));
        let half: [u8; 32] = digest[..32].try_into().expect("32 bytes");
        Zeroizing::new(Scalar::from_bytes_mod_order(clamp_integer(half)))
    }
}

impl PartialEq for WriteCap {
    fn eq(&self, other: &Self) -> bool {
        (self.seed.ct_eq(&other.seed) & self.read.to_bytes().ct_eq(&*other.read.to_bytes())).into()
    }
}

impl Eq for WriteCap {}

impl fmt::Debug for WriteCap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WriteCap(..)")
    }
}

/// One half of the starting counter, cut so that the sum of two leaves room to count.
fn half(bytes: &[u8]) -> u64 {
    let mut bytes: [u8; 8] = bytes.try_into().expect("eight bytes");
    bytes[7] &= 0x3f;
    u64::from_le_bytes(bytes)
}

fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, ParseError> {
    let text = text.trim_ascii();
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| ParseError::NotBase64)
}
