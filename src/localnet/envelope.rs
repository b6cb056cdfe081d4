//! Envelopes: the query that a client carries for the daemon, of the real shape and length.
//!
//! The key encapsulation is replaced by an AEAD under a key of the network's own state, so that a query can be executed
//! after a restart, and more than once (`pigeonhole-internals.md` §2.4, §3.1, §7.2).

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit};
use rand::{Rng, RngExt as _};
use serde::Serialize;

use crate::bacap::{BoxId, SealedBox};
use crate::thin::message::Octets;

const NONCE: usize = 12;
const TAG: usize = 16;
const DEK: usize = 60;
const PUBLIC_KEY: usize = 160;
const PRIVATE_KEY: usize = 162;
/// Query type, intermediates, two keys, reply index, epoch, length and public key, length.
const FIXED: usize = 1 + 2 + 2 * DEK + 1 + 8 + 2 + PUBLIC_KEY + 4;
/// What a query adds to M.
pub(super) const OVERHEAD: usize = 451;

/// What an envelope asks a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    Read(BoxId),
    Write(SealedBox),
}

/// An envelope, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Replica epoch that it was made in.
    pub(super) epoch: u64,
    /// As the courier computes it.
    pub(super) hash: [u8; 32],
    /// The two replicas that it is for.
    pub(super) replicas: [u8; 2],
    /// Which of the two answers is asked for first; our own envelopes say 0.
    pub(super) reply_index: u8,
    pub(super) inner: Inner,
}

/// A query, as an encrypt request gives it out.
pub(super) struct Made {
    pub(super) ciphertext: Vec<u8>,
    pub(super) descriptor: Vec<u8>,
    pub(super) hash: [u8; 32],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Descriptor {
    epoch: u64,
    replica_nums: Octets,
    envelope_key: Octets,
}

/// Makes a query for a network of boxes of `max_plaintext`.
pub(super) fn make(
    key: &[u8; 32],
    epoch: u64,
    replicas: [u8; 2],
    inner: &Inner,
    max_plaintext: usize,
    rng: &mut impl Rng,
) -> Made {
    let message = match inner {
        Inner::Read(box_id) => [&[0][..], &box_id.0].concat(),
        Inner::Write(sealed) => {
            let length = u32::try_from(sealed.payload.len()).expect("a box is small").to_be_bytes();
            [&[1][..], &sealed.box_id.0, &sealed.signature, &length, &sealed.payload].concat()
        }
    };
    let mut padded = vec![0; max_plaintext + 125];
    padded[..4].copy_from_slice(&u32::try_from(message.len()).expect("a box is small").to_be_bytes());
    padded[4..4 + message.len()].copy_from_slice(&message);

    let nonce: [u8; NONCE] = rng.random();
    let sealed = ChaCha20Poly1305::new(key.into()).encrypt(&nonce.into(), &padded[..]).expect("far below the limit");
    let public_key: [u8; PUBLIC_KEY] = rng.random();
    let mut ciphertext = Vec::with_capacity(max_plaintext + OVERHEAD);
    ciphertext.push(0);
    ciphertext.extend(replicas);
    ciphertext.extend(rng.random::<[u8; 2 * DEK]>());
    ciphertext.push(0);
    ciphertext.extend(epoch.to_be_bytes());
    ciphertext.extend(u16::try_from(PUBLIC_KEY).expect("160").to_be_bytes());
    ciphertext.extend(public_key);
    ciphertext.extend(u32::try_from(NONCE + sealed.len()).expect("a box is small").to_be_bytes());
    ciphertext.extend(nonce);
    ciphertext.extend(&sealed);
    let hash = hash256(&[&public_key, &nonce, &sealed]);

    let descriptor = Descriptor {
        epoch,
        replica_nums: Octets::from(replicas),
        envelope_key: Octets::from(rng.random::<[u8; PRIVATE_KEY]>()),
    };
    let mut bytes = Vec::new();
    ciborium::into_writer(&descriptor, &mut bytes).expect("into memory");
    Made { ciphertext, descriptor: bytes, hash }
}

/// Opens a query; `None` where it is none of this network's.
pub(super) fn open(key: &[u8; 32], ciphertext: &[u8]) -> Option<Query> {
    let (fixed, body) = ciphertext.split_at_checked(FIXED)?;
    if fixed[0] != 0 || fixed[132..134] != u16::try_from(PUBLIC_KEY).ok()?.to_be_bytes() {
        return None;
    }
    let epoch = u64::from_be_bytes(fixed[124..132].try_into().ok()?);
    let public_key = &fixed[134..294];
    let length = usize::try_from(u32::from_be_bytes(fixed[294..298].try_into().ok()?)).ok()?;
    if length != body.len() || length < NONCE + TAG {
        return None;
    }
    let nonce: &[u8; NONCE] = body[..NONCE].try_into().ok()?;
    let padded = ChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), &body[NONCE..]).ok()?;
    let (prefix, rest) = padded.split_first_chunk::<4>()?;
    let message = rest.get(..usize::try_from(u32::from_be_bytes(*prefix)).ok()?)?;
    let hash = hash256(&[public_key, body]);
    Some(Query { epoch, hash, replicas: [fixed[1], fixed[2]], reply_index: fixed[123], inner: inner(message)? })
}

fn inner(message: &[u8]) -> Option<Inner> {
    let (kind, rest) = message.split_first()?;
    let (box_id, rest) = rest.split_first_chunk::<32>()?;
    match kind {
        0 => Some(Inner::Read(BoxId(*box_id))),
        1 => {
            let (signature, rest) = rest.split_first_chunk::<64>()?;
            let (length, payload) = rest.split_first_chunk::<4>()?;
            if usize::try_from(u32::from_be_bytes(*length)).ok()? != payload.len() {
                return None;
            }
            Some(Inner::Write(SealedBox { box_id: BoxId(*box_id), payload: payload.to_vec(), signature: *signature }))
        }
        _ => None,
    }
}

/// BLAKE2b-256 over the parts.
pub(super) fn hash256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2b::<U32>::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::bacap::WriteCap;

    #[test]
    fn a_query_has_the_real_length_and_opens_to_what_was_asked() {
        let mut rng = StdRng::seed_from_u64(1);
        let cap = WriteCap::from_seed(&[3; 32]);
        let sealed = cap.seal(cap.index(), b"hello", 1549).expect("it fits");
        for inner in [Inner::Write(sealed), Inner::Write(cap.tombstone(cap.index())), Inner::Read(BoxId([7; 32]))] {
            let made = make(&[9; 32], 494, [3, 1], &inner, 1549, &mut rng);
            assert_eq!((made.ciphertext.len(), made.descriptor.len()), (2000, 201));
            let opened = open(&[9; 32], &made.ciphertext).expect("our own");
            assert_eq!(opened, Query { epoch: 494, hash: made.hash, replicas: [3, 1], reply_index: 0, inner });
            assert_eq!(open(&[8; 32], &made.ciphertext), None, "another network's key");
        }
        assert_eq!(open(&[9; 32], b""), None);
    }
}
