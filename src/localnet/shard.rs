//! Which replicas hold a box, and which two a client sends its envelope to (`pigeonhole-internals.md` §3.5).

use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _};

use super::envelope::hash256;
use crate::bacap::BoxId;

/// The two replicas that hold a box, by their place in `keys`: those of the smallest hashes, the smallest first.
///
/// # Panics
/// If there are fewer than two keys.
pub(super) fn holders(keys: &[[u8; 32]], box_id: &BoxId) -> [usize; 2] {
    assert!(keys.len() >= 2, "a network has two replicas at least");
    let mut order: Vec<_> = keys.iter().enumerate().map(|(n, key)| (hash256(&[key, &box_id.0]), n)).collect();
    order.sort_unstable();
    [order[0].1, order[1].1]
}

/// The two replicas that an envelope for a box is sent to: no holders where there are enough others.
///
/// # Panics
/// If there are fewer than two keys.
pub(super) fn intermediaries(keys: &[[u8; 32]], box_id: &BoxId, rng: &mut impl Rng) -> [usize; 2] {
    let holders = holders(keys, box_id);
    match keys.len() {
        2 => holders,
        3 => {
            let others: Vec<_> = (0..3).filter(|n| *n != holders[0]).collect();
            [holders[0], others[rng.random_range(0..2)]]
        }
        replicas => {
            let others: Vec<_> = (0..replicas).filter(|n| !holders.contains(n)).collect();
            let chosen: Vec<_> = others.sample(rng, 2).copied().collect();
            [chosen[0], chosen[1]]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    proptest! {
        #[test]
        fn a_box_has_two_holders_and_an_envelope_avoids_them_where_it_can(
            keys in proptest::collection::vec(any::<[u8; 32]>(), 2..9), id: [u8; 32], seed: u64,
        ) {
            let id = BoxId(id);
            let held = holders(&keys, &id);
            let hash = |n: usize| hash256(&[&keys[n], &id.0]);
            prop_assert!(hash(held[0]) <= hash(held[1]) && held[0] != held[1]);
            prop_assert!((0..keys.len()).all(|n| held.contains(&n) || hash(n) >= hash(held[1])));

            let sent = intermediaries(&keys, &id, &mut StdRng::seed_from_u64(seed));
            prop_assert!(sent[0] != sent[1] && sent.iter().all(|n| *n < keys.len()));
            match keys.len() {
                2 => prop_assert_eq!(sent, held),
                3 => prop_assert_eq!(sent[0], held[0]),
                _ => prop_assert!(sent.iter().all(|n| !held.contains(n))),
            }
            prop_assert_eq!(sent, intermediaries(&keys, &id, &mut StdRng::seed_from_u64(seed)), "a seed decides");
        }
    }
}
