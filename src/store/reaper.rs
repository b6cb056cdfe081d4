//! Deletes the boxes of abandoned chains and those that were dropped, in slices, and gives the pages back to the disk.

use rusqlite::params;

use super::StoreError;
use super::ledger::Ledger;

/// Boxes that one transaction deletes: some milliseconds, and a few MiB of log.
const SLICE: i64 = 1024;
/// Pages (4 KiB each) that one transaction gives back.
const PAGES: i64 = 512;
/// Free pages that are kept for what comes next.
const KEEP_PAGES: i64 = 2048;

/// What one slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// There may be more.
    Some,
    /// The last pages were given back.
    LastPages,
    /// There was nothing to do.
    All,
}

impl Ledger<'_> {
    /// One slice.
    pub(super) fn sweep(&mut self) -> Result<Swept, StoreError> {
        let abandoned = "SELECT id FROM chain WHERE abandoned <> 0 LIMIT 1";
        if let Some(chain) = self.one(abandoned, [], |row| row.get::<_, i64>(0))? {
            let records = self.run(
                "DELETE FROM drop_record WHERE id IN (SELECT id FROM drop_record WHERE chain = ?1 LIMIT ?2)",
                params![chain, SLICE],
            )?;
            if records > 0 {
                return Ok(Swept::Some);
            }
            let deleted = self.run(
                "DELETE FROM box WHERE id IN (SELECT id FROM box WHERE chain = ?1 LIMIT ?2)",
                params![chain, SLICE],
            )?;
            if deleted == 0 {
                self.run("DELETE FROM chain WHERE id = ?1", [chain])?;
            }
            return Ok(Swept::Some);
        }
        if self.sweep_dropped()? || self.drop_sent()? {
            return Ok(Swept::Some);
        }
        let free = self.free_pages()?;
        if free <= KEEP_PAGES {
            return Ok(Swept::All);
        }
        self.each(&format!("PRAGMA incremental_vacuum({PAGES})"), [], |_| Ok(true))?;
        let left = self.free_pages()?;
        // A database that was made without the means to give pages back keeps them.
        Ok(if left == free {
            Swept::All
        } else if left <= KEEP_PAGES {
            Swept::LastPages
        } else {
            Swept::Some
        })
    }

    /// Deletes a slice of what was dropped. False: there is none.
    fn sweep_dropped(&self) -> Result<bool, StoreError> {
        let unswept = self.one(
            "SELECT id, chain, swept_boxes, dropped_boxes FROM channel WHERE swept_boxes < dropped_boxes LIMIT 1",
            [],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?)),
        )?;
        let Some((id, chain, swept, dropped)) = unswept else { return Ok(false) };
        let end = dropped.min(swept + SLICE);
        self.run("DELETE FROM box WHERE chain = ?1 AND seq >= ?2 AND seq < ?3", params![chain, swept, end])?;
        self.run("UPDATE channel SET swept_boxes = ?2 WHERE id = ?1", params![id, end])?;
        Ok(true)
    }

    fn free_pages(&self) -> Result<i64, StoreError> {
        Ok(self.one("PRAGMA freelist_count", [], |row| row.get(0))?.unwrap_or(0))
    }
}
