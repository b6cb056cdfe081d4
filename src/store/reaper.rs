//! Deletes the boxes of abandoned chains in slices, and gives the pages back to the disk.

use rusqlite::params;

use super::StoreError;
use super::ledger::Ledger;

/// Boxes that one transaction deletes: some milliseconds, and a few MiB of log.
const SLICE: i64 = 1024;
/// Pages (4 KiB each) that one transaction gives back.
const PAGES: i64 = 512;
/// Free pages that are kept for what comes next.
const KEEP_PAGES: i64 = 2048;

impl Ledger<'_> {
    /// One slice. False: nothing is left to do.
    pub(super) fn sweep(&mut self) -> Result<bool, StoreError> {
        let abandoned = "SELECT id FROM chain WHERE abandoned <> 0 LIMIT 1";
        if let Some(chain) = self.one(abandoned, [], |row| row.get::<_, i64>(0))? {
            let deleted = self.run(
                "DELETE FROM box WHERE id IN (SELECT id FROM box WHERE chain = ?1 LIMIT ?2)",
                params![chain, SLICE],
            )?;
            if deleted == 0 {
                self.run("DELETE FROM chain WHERE id = ?1", [chain])?;
            }
            return Ok(true);
        }
        let free = self.one("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0))?.unwrap_or(0);
        if free <= KEEP_PAGES {
            return Ok(false);
        }
        self.each(&format!("PRAGMA incremental_vacuum({PAGES})"), [], |_| Ok(true))?;
        Ok(true)
    }
}
