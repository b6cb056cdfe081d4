//! The history of the last two days: a row for each minute in which something went over the network.

use rusqlite::params;

use super::ledger::{int, uint};
use super::queries::each;
use super::{Commit, HISTORY_MINUTES, HistoryPoint, Store, StoreError};

impl Store {
    /// Adds to what a minute has brought, and drops what is too old.
    pub(crate) fn record_history(&self, point: HistoryPoint) -> Commit<()> {
        self.submit(move |ledger| {
            let oldest = point.minute.saturating_sub(HISTORY_MINUTES);
            // A clock that was wrong for a moment leaves nothing that stays for ever.
            ledger.run(
                "DELETE FROM history WHERE minute <= ?1 OR minute > ?2",
                params![int(oldest), int(point.minute)],
            )?;
            let sql =
                "INSERT INTO history (minute, stored_boxes, stored_bytes, arrived_boxes, arrived_bytes, spool_bytes)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                       ON CONFLICT (minute) DO UPDATE SET stored_boxes = stored_boxes + excluded.stored_boxes,
                           stored_bytes = stored_bytes + excluded.stored_bytes,
                           arrived_boxes = arrived_boxes + excluded.arrived_boxes,
                           arrived_bytes = arrived_bytes + excluded.arrived_bytes, spool_bytes = excluded.spool_bytes";
            ledger.run(
                sql,
                params![
                    int(point.minute),
                    int(point.stored_boxes),
                    int(point.stored_bytes),
                    int(point.arrived_boxes),
                    int(point.arrived_bytes),
                    int(point.spool_bytes)
                ],
            )?;
            Ok(())
        })
    }

    /// The minutes from `from` on in which something went over the network, in their order.
    pub fn history(&self, from: u64) -> Result<Vec<HistoryPoint>, StoreError> {
        self.readers().ask(|db| {
            let mut points = Vec::new();
            let sql = "SELECT minute, stored_boxes, stored_bytes, arrived_boxes, arrived_bytes, spool_bytes
                       FROM history WHERE minute >= ?1 ORDER BY minute";
            each(db, sql, [int(from)], |row| {
                points.push(HistoryPoint {
                    minute: uint(row, 0)?,
                    stored_boxes: uint(row, 1)?,
                    stored_bytes: uint(row, 2)?,
                    arrived_boxes: uint(row, 3)?,
                    arrived_bytes: uint(row, 4)?,
                    spool_bytes: uint(row, 5)?,
                });
                Ok(true)
            })?;
            Ok(points)
        })
    }
}
