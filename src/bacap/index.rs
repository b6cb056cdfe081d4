//! Where a box stands in its channel: a counter and the keys that belong to it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::INDEX_BYTES;
use super::capability::ParseError;
use super::kdf::hkdf;

const MUTATE_INFO: &[u8] = b"bacap-mutate-kdf-state-v1";

/// A `MessageBoxIndex`: Idx64 (little endian, 8) ‖ blinding key (32) ‖ encryption key (32) ‖ HKDF state (32).
///
/// Whoever holds one and the root key can read that box and all behind it, so it shows only its counter.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub struct BoxIndex([u8; INDEX_BYTES]);

/// Why an index could not be stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The counter is at its last value.
    #[error("the channel is at its last index")]
    Exhausted,
    /// The chain of keys goes forward only.
    #[error("an index cannot be taken back from {from} to {to}")]
    Backwards {
        /// Where it stands.
        from: u64,
        /// Where it was asked to go.
        to: u64,
    },
}

impl BoxIndex {
    /// Reads exactly 104 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let bytes = bytes.try_into().map_err(|_| ParseError::Length { found: bytes.len(), expected: INDEX_BYTES })?;
        Ok(Self(bytes))
    }

    /// The 104 bytes, as they travel and are stored.
    pub fn as_bytes(&self) -> &[u8; INDEX_BYTES] {
        &self.0
    }

    /// Idx64.
    pub fn counter(&self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("eight bytes"))
    }

    /// The index of the next box.
    pub fn next(&self) -> Result<Self, IndexError> {
        let counter = self.counter().checked_add(1).ok_or(IndexError::Exhausted)?;
        Ok(self.rekeyed(counter, &hkdf(self.state(), &[], &self.0[..8])))
    }

    /// The index at `counter`, which must not lie behind. Costs one derivation a step.
    pub fn advance_to(&self, counter: u64) -> Result<Self, IndexError> {
        let from = self.counter();
        if counter < from {
            return Err(IndexError::Backwards { from, to: counter });
        }
        let mut index = self.clone();
        for _ in from..counter {
            index = index.next()?;
        }
        Ok(index)
    }

    /// The same counter on another chain, which only those who know `salt` can follow (§1.9).
    #[must_use]
    pub fn mutate(&self, salt: &[u8; 32]) -> Self {
        self.rekeyed(self.counter(), &hkdf(self.state(), salt, MUTATE_INFO))
    }

    /// The first index of a channel, from its starting counter and chain (§1.4).
    pub(super) fn first(counter: u64, state: &[u8]) -> Result<Self, IndexError> {
        let mut seed = Self([0; INDEX_BYTES]);
        seed.0[..8].copy_from_slice(&counter.to_le_bytes());
        seed.0[72..].copy_from_slice(state);
        seed.next()
    }

    pub(super) fn blinding_key(&self) -> &[u8] {
        &self.0[8..40]
    }

    pub(super) fn encryption_key(&self) -> &[u8] {
        &self.0[40..72]
    }

    fn state(&self) -> &[u8] {
        &self.0[72..]
    }

    /// The derivation gives state, encryption key and blinding key in this order; the layout is the reverse.
    fn rekeyed(&self, counter: u64, okm: &Zeroizing<[u8; 96]>) -> Self {
        let mut bytes = [0; INDEX_BYTES];
        bytes[..8].copy_from_slice(&counter.to_le_bytes());
        bytes[8..40].copy_from_slice(&okm[64..]);
        bytes[40..72].copy_from_slice(&okm[32..64]);
        bytes[72..].copy_from_slice(&okm[..32]);
        Self(bytes)
    }
}

impl fmt::Debug for BoxIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BoxIndex(#{})", self.counter())
    }
}
