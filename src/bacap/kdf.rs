//! The derivations that all of BACAP rests on (`pigeonhole-internals.md` §1.1).

use blake2::Blake2b512;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use hkdf::SimpleHkdf;
use sha2::{Digest, Sha512_256};
use zeroize::Zeroizing;

/// What sets the boxes of Pigeonhole apart from other uses of BACAP.
const CONTEXT: &[u8] = b"pigeonhole context";

/// HKDF over BLAKE2b-512, `N` bytes long.
pub(super) fn hkdf<const N: usize>(ikm: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut okm = Zeroizing::new([0; N]);
    let salt = (!salt.is_empty()).then_some(salt);
    SimpleHkdf::<Blake2b512>::new(salt, ikm).expand(info, &mut *okm).expect("far below 255 blocks");
    okm
}

/// A key of one index, bound to [`CONTEXT`].
pub(super) fn in_context(key: &[u8]) -> Zeroizing<[u8; 32]> {
    hkdf(key, CONTEXT, &[])
}

/// The factor that blinds the root key for one index.
pub(super) fn blinding_factor(blinding_key: &[u8]) -> Zeroizing<Scalar> {
    let digest: [u8; 32] = Sha512_256::digest(*in_context(blinding_key)).into();
    Zeroizing::new(Scalar::from_bytes_mod_order(clamp_integer(digest)))
}
