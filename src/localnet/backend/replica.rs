//! The replica's rules: what is stored, what is refused, and how long it lives (`pigeonhole-internals.md` §3.3–§3.6).

use super::store::{BoxStore, Holders, Row};
use crate::bacap::{BOX_OVERHEAD_BYTES, BoxId, SealedBox};
use crate::localnet::replica::{
    BOX_ALREADY_EXISTS, BOX_ID_NOT_FOUND, DATABASE_FAILURE, INVALID_PAYLOAD, INVALID_SIGNATURE, STORAGE_FULL, SUCCESS,
    TOMBSTONE,
};

/// What a replica answers: its code, and the box that a read found.
pub(super) type Reply = (u8, Option<SealedBox>);

/// A box as it comes to be written.
pub(super) struct Write<'a> {
    pub(super) sealed: &'a SealedBox,
    /// Whether its signature verifies.
    pub(super) authentic: bool,
    /// M of the network.
    pub(super) max_plaintext: usize,
    /// Whether the replicas have no room for boxes.
    pub(super) full: bool,
}

/// What the holder of a rank answers to a read in the epoch `now`.
pub(super) fn read(store: &mut impl BoxStore, box_id: &BoxId, rank: usize, now: u64) -> Reply {
    let Ok(rows) = store.find(box_id, oldest_kept(now)) else { return (DATABASE_FAILURE, None) };
    match held_by(rows, rank) {
        None => (BOX_ID_NOT_FOUND, None),
        Some(row) if row.sealed.payload.is_empty() => (TOMBSTONE, Some(row.sealed)),
        Some(row) => (SUCCESS, Some(row.sealed)),
    }
}

/// What `holders` answer to a write in the epoch `now`, by rank; the place of one that is not asked means nothing.
pub(super) fn write(store: &mut impl BoxStore, write: &Write<'_>, holders: Holders, now: u64) -> [u8; 2] {
    let sealed = write.sealed;
    let tombstone = sealed.payload.is_empty();
    if !tombstone && sealed.payload.len() != write.max_plaintext + BOX_OVERHEAD_BYTES {
        return [INVALID_PAYLOAD; 2];
    }
    if !write.authentic {
        return [INVALID_SIGNATURE; 2];
    }
    // Before what is there is looked at: the same box once more is refused too.
    if !tombstone && write.full {
        return [STORAGE_FULL; 2];
    }
    let Ok(rows) = store.find(&sealed.box_id, oldest_kept(now)) else { return [DATABASE_FAILURE; 2] };
    if tombstone {
        bury(store, &rows, sealed, holders, now);
        return [SUCCESS; 2];
    }
    let mut codes = [SUCCESS; 2];
    let mut taken = Holders::NONE;
    for rank in (0..2).filter(|rank| holders.has(*rank)) {
        match rows.iter().find(|row| row.holders.has(rank)) {
            None => taken = taken.with(Holders::only(rank)),
            // Nothing is rewritten, and nothing lives longer for it.
            Some(row) if row.sealed == *sealed => {}
            Some(_) => codes[rank] = BOX_ALREADY_EXISTS,
        }
    }
    keep(store, &rows, sealed, taken, now);
    codes
}

/// A tombstone takes the place of whatever its holders have, an older tombstone included, and has a life of its own.
fn bury(store: &mut impl BoxStore, rows: &[Row], sealed: &SealedBox, holders: Holders, now: u64) {
    for row in rows {
        let left = row.holders.without(holders);
        if left != row.holders && !(row.epoch == now && row.sealed == *sealed) {
            store.set_holders(row, left);
        }
    }
    keep(store, rows, sealed, holders, now);
}

fn keep(store: &mut impl BoxStore, rows: &[Row], sealed: &SealedBox, holders: Holders, now: u64) {
    match rows.iter().find(|row| row.epoch == now && row.sealed == *sealed) {
        Some(row) if row.holders.with(holders) != row.holders => store.set_holders(row, row.holders.with(holders)),
        None if holders != Holders::NONE => store.insert(sealed, now, holders),
        _ => {}
    }
}

/// What a holder has, which is its newest row.
pub(super) fn held_by(rows: Vec<Row>, rank: usize) -> Option<Row> {
    rows.into_iter().find(|row| row.holders.has(rank))
}

/// A box lives in the epoch of its write and in the next one, and is gone the instant that the one after begins.
pub(super) fn oldest_kept(now: u64) -> u64 {
    now.saturating_sub(1)
}
