//! Where boxes are kept: what the replicas' rules need of a store, and the store in memory.
//!
//! A row is one content of one box, with the holders that have it: what both of them hold is one row, so that a write that
//! reaches both is one small insert. Where the two hold different contents there are two rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::bacap::{BoxId, SealedBox};

/// Which of a box's two holders: the first and the second in the order of `shard::holders`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::localnet) struct Holders(u8);

impl Holders {
    pub(super) const NONE: Self = Self(0);
    pub(super) const BOTH: Self = Self(3);

    /// The holder of a rank, 0 or 1, alone.
    pub(super) fn only(rank: usize) -> Self {
        Self(1 << rank)
    }

    pub(super) fn has(self, rank: usize) -> bool {
        self.0 & 1 << rank != 0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// As a store keeps it, 1 to 3.
    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits & 3)
    }
}

/// One content of a box.
#[derive(Clone)]
pub(in crate::localnet) struct Row {
    /// The store's own number of it.
    pub(super) id: i64,
    pub(super) sealed: SealedBox,
    /// The replica epoch of its write.
    pub(super) epoch: u64,
    pub(super) holders: Holders,
}

/// A lookup failed, and the store has said why in the log.
#[derive(Clone, Copy, Debug)]
pub(in crate::localnet) struct Unreadable;

/// Where boxes are kept. A failed change is the shell's to handle: what it could not commit is not confirmed.
pub(in crate::localnet) trait BoxStore {
    /// What is there of a box that was written in the epoch `oldest` or later, the newest first.
    fn find(&mut self, box_id: &BoxId, oldest: u64) -> Result<Vec<Row>, Unreadable>;
    /// Adds a row.
    fn insert(&mut self, sealed: &SealedBox, epoch: u64, holders: Holders);
    /// Gives a row other holders; with none it is deleted.
    fn set_holders(&mut self, row: &Row, holders: Holders);
    /// Deletes up to `limit` of the rows that were written before the epoch `oldest`, and says how many.
    fn expire(&mut self, oldest: u64, limit: usize) -> usize;
    /// Up to `limit` of the boxes that one holder has and the other has not, with the rank of the one.
    fn unreplicated(&mut self, limit: usize) -> Vec<(BoxId, usize)>;
}

/// Boxes in memory, as many as there are.
#[derive(Default)]
pub(in crate::localnet) struct Memory {
    boxes: BTreeMap<BoxId, Vec<Row>>,
    by_epoch: BTreeSet<(u64, BoxId, i64)>,
    unreplicated: BTreeMap<i64, (BoxId, usize)>,
    serial: i64,
}

impl BoxStore for Memory {
    fn find(&mut self, box_id: &BoxId, oldest: u64) -> Result<Vec<Row>, Unreadable> {
        let rows = self.boxes.get(box_id).into_iter().flatten();
        let mut found: Vec<_> = rows.filter(|row| row.epoch >= oldest).cloned().collect();
        newest_first(&mut found);
        Ok(found)
    }

    fn insert(&mut self, sealed: &SealedBox, epoch: u64, holders: Holders) {
        self.serial += 1;
        let row = Row { id: self.serial, sealed: sealed.clone(), epoch, holders };
        self.by_epoch.insert((epoch, sealed.box_id, row.id));
        self.note_replication(&row, holders);
        self.boxes.entry(sealed.box_id).or_default().push(row);
    }

    fn set_holders(&mut self, row: &Row, holders: Holders) {
        let box_id = row.sealed.box_id;
        self.note_replication(row, holders);
        let Some(rows) = self.boxes.get_mut(&box_id) else { return };
        if holders == Holders::NONE {
            self.by_epoch.remove(&(row.epoch, box_id, row.id));
            rows.retain(|other| other.id != row.id);
            if rows.is_empty() {
                self.boxes.remove(&box_id);
            }
        } else if let Some(kept) = rows.iter_mut().find(|other| other.id == row.id) {
            kept.holders = holders;
        }
    }

    fn expire(&mut self, oldest: u64, limit: usize) -> usize {
        let old = self.by_epoch.iter().take_while(|(epoch, ..)| *epoch < oldest).take(limit);
        let rows: Vec<_> = old
            .filter_map(|(_, box_id, id)| self.boxes.get(box_id)?.iter().find(|row| row.id == *id).cloned())
            .collect();
        for row in &rows {
            self.set_holders(row, Holders::NONE);
        }
        rows.len()
    }

    fn unreplicated(&mut self, limit: usize) -> Vec<(BoxId, usize)> {
        self.unreplicated.values().take(limit).copied().collect()
    }
}

impl Memory {
    /// What holders have of a box that has not expired in the epoch `now`.
    #[cfg(test)]
    pub(in crate::localnet) fn held(&mut self, box_id: &BoxId, now: u64) -> Vec<SealedBox> {
        let rows = self.find(box_id, super::replica::oldest_kept(now)).unwrap_or_default();
        rows.into_iter().map(|row| row.sealed).collect()
    }

    fn note_replication(&mut self, row: &Row, holders: Holders) {
        match (0..2).find(|rank| holders == Holders::only(*rank)) {
            Some(rank) => self.unreplicated.insert(row.id, (row.sealed.box_id, rank)),
            None => self.unreplicated.remove(&row.id),
        };
    }
}

/// Newer epochs first, and within an epoch what was added later.
pub(super) fn newest_first(rows: &mut [Row]) {
    rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.epoch, row.id)));
}
