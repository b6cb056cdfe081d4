//! `sync`: proves that a header begins at the box where it was found.

use super::Header;
use crate::bacap::ReadCap;

const CONTEXT: &str = "pigeonfs drop sync v1";

/// What a header carries to be found by.
pub type Sync = [u8; 16];

/// Makes the [`Sync`] of each index of one channel. Who can read the channel can compute it: it is no secret.
#[derive(Clone, Debug)]
pub struct SyncKey([u8; 32]);

impl SyncKey {
    /// The key of the channel that this capability reads, from whichever index on.
    pub fn of(cap: &ReadCap) -> Self {
        Self::of_root(&cap.to_bytes()[..32])
    }

    pub(super) fn of_root(root: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, root))
    }

    /// The sync of a record whose first box has this Idx64.
    pub fn at(&self, counter: u64) -> Sync {
        let hash = blake3::keyed_hash(&self.0, &counter.to_le_bytes());
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// The header, and its length, if these bytes, found in the box with this Idx64, begin with one that belongs there.
    pub fn find(&self, counter: u64, bytes: &[u8]) -> Option<(Header, usize)> {
        // A map in CBOR: spares nearly all boxes the decoder.
        if bytes.first().is_none_or(|first| first >> 5 != 5) {
            return None;
        }
        let (header, length) = Header::decode(bytes).ok()?;
        (header.sync? == self.at(counter)).then_some((header, length))
    }
}
