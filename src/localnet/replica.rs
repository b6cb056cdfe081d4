//! The replica's rules: what is stored, what is refused, and how long it lives (`pigeonhole-internals.md` §3.3–§3.6).

#[cfg(test)]
use std::collections::HashMap;
use std::time::Duration;

use crate::bacap::{BOX_OVERHEAD_BYTES, BoxId, SealedBox};

/// 2017-06-01 00:00:00 UTC, in seconds of Unix time.
const EPOCH_ZERO: u64 = 1_496_275_200;
const WEEK: u64 = 7 * 24 * 3600;

pub(super) const SUCCESS: u8 = 0;
pub(super) const BOX_ID_NOT_FOUND: u8 = 1;
pub(super) const INVALID_SIGNATURE: u8 = 3;
pub(super) const INVALID_PAYLOAD: u8 = 5;
pub(super) const BOX_ALREADY_EXISTS: u8 = 10;
pub(super) const TOMBSTONE: u8 = 11;

/// Where boxes are kept. A failure is the shell's to handle: what it could not keep is not confirmed.
pub(super) trait BoxStore {
    /// A box and the replica epoch of its write.
    fn get(&mut self, box_id: &BoxId) -> Option<(SealedBox, u64)>;
    /// Keeps a box, in the place of any other of its identity.
    fn put(&mut self, sealed: &SealedBox, epoch: u64);
}

/// Boxes in memory, for tests.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Memory(HashMap<BoxId, (SealedBox, u64)>);

#[cfg(test)]
impl BoxStore for Memory {
    fn get(&mut self, box_id: &BoxId) -> Option<(SealedBox, u64)> {
        self.0.get(box_id).cloned()
    }

    fn put(&mut self, sealed: &SealedBox, epoch: u64) {
        self.0.insert(sealed.box_id, (sealed.clone(), epoch));
    }
}

/// The replica epoch at a time since the Unix epoch: weeks, which begin on Thursdays.
pub(super) fn replica_epoch(wall: Duration) -> u64 {
    wall.as_secs().saturating_sub(EPOCH_ZERO) / WEEK
}

/// The mixnet epoch at a time, of epochs of 20 minutes.
pub(super) fn mixnet_epoch(wall: Duration) -> u64 {
    wall.as_secs().saturating_sub(EPOCH_ZERO) / 1200
}

/// What a replica answers to a read.
pub(super) fn read(store: &mut impl BoxStore, box_id: &BoxId, now: u64) -> (u8, Option<SealedBox>) {
    match visible(store, box_id, now) {
        None => (BOX_ID_NOT_FOUND, None),
        Some(sealed) if sealed.payload.is_empty() => (TOMBSTONE, Some(sealed)),
        Some(sealed) => (SUCCESS, Some(sealed)),
    }
}

/// What a replica answers to a write. `authentic` says whether the signature verifies.
pub(super) fn write(
    store: &mut impl BoxStore,
    sealed: &SealedBox,
    authentic: bool,
    max_plaintext: usize,
    now: u64,
) -> u8 {
    let tombstone = sealed.payload.is_empty();
    if !tombstone && sealed.payload.len() != max_plaintext + BOX_OVERHEAD_BYTES {
        return INVALID_PAYLOAD;
    }
    if !authentic {
        return INVALID_SIGNATURE;
    }
    if !tombstone && let Some(there) = visible(store, &sealed.box_id, now) {
        return if there == *sealed { SUCCESS } else { BOX_ALREADY_EXISTS };
    }
    store.put(sealed, now);
    SUCCESS
}

/// A box lives in the epoch of its write and the next one.
fn visible(store: &mut impl BoxStore, box_id: &BoxId, now: u64) -> Option<SealedBox> {
    store.get(box_id).filter(|(_, epoch)| now <= epoch + 1).map(|(sealed, _)| sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bacap::WriteCap;

    #[test]
    fn a_box_never_changes_but_into_a_tombstone_and_lives_for_two_epochs() {
        let (mut store, cap) = (Memory::default(), WriteCap::from_seed(&[1; 32]));
        let seal = |text: &[u8]| cap.seal(cap.index(), text, 50).expect("it fits");
        let mut put = |sealed: &SealedBox, now| write(&mut store, sealed, true, 50, now);
        assert_eq!(put(&seal(b"one"), 10), SUCCESS);
        assert_eq!(put(&seal(b"one"), 10), SUCCESS, "the same bytes again");
        assert_eq!(put(&seal(b"two"), 11), BOX_ALREADY_EXISTS);
        assert_eq!(put(&seal(b"two"), 12), SUCCESS, "the first one has expired");
        assert_eq!(put(&cap.tombstone(cap.index()), 12), SUCCESS);
        assert_eq!(put(&seal(b"two"), 12), BOX_ALREADY_EXISTS, "a tombstone is no empty place");
        assert_eq!(read(&mut store, &seal(b"x").box_id, 13).0, TOMBSTONE);
        assert_eq!(read(&mut store, &seal(b"x").box_id, 14).0, BOX_ID_NOT_FOUND);
        assert_eq!(write(&mut store, &seal(b"x"), false, 50, 14), INVALID_SIGNATURE);
        assert_eq!(write(&mut store, &seal(b"x"), true, 51, 14), INVALID_PAYLOAD);
    }

    #[test]
    fn replica_epochs_are_weeks_from_a_thursday() {
        let at = |seconds| replica_epoch(Duration::from_secs(seconds));
        assert_eq!(at(1_795_392_000), 494, "2026-11-23");
        assert_eq!((at(EPOCH_ZERO + WEEK - 1), at(EPOCH_ZERO + WEEK)), (0, 1));
    }
}
