//! What went wrong with channels, for a person to find later: the newest few of each.

use std::time::SystemTime;

use rusqlite::params;

use super::ledger::{Ledger, int};
use super::nanos::from_nanos;
use super::queries::each;
use super::{ChannelId, Commit, Store, StoreError};

/// Notes that are kept of one channel.
pub const MAX_NOTES: usize = 32;

impl Store {
    /// Keeps a note about a channel, and the newest [`MAX_NOTES`] of all. The last one again only has a new time.
    pub fn note(&self, id: ChannelId, text: String) -> Commit<()> {
        self.submit(move |ledger| ledger.note(id, &text))
    }

    /// The notes about a channel, newest last.
    pub fn notes(&self, id: ChannelId) -> Result<Vec<(SystemTime, String)>, StoreError> {
        self.readers().ask(|db| {
            let mut notes = Vec::new();
            each(db, "SELECT at, text FROM note WHERE channel = ?1 ORDER BY id", [id.0], |row| {
                notes.push((from_nanos(row.get(0)?), row.get(1)?));
                Ok(true)
            })?;
            Ok(notes)
        })
    }
}

impl Ledger<'_> {
    fn note(&mut self, id: ChannelId, text: &str) -> Result<(), StoreError> {
        let again = self.run(
            "UPDATE note SET at = ?3
             WHERE id = (SELECT id FROM note WHERE channel = ?1 ORDER BY id DESC LIMIT 1) AND text = ?2",
            params![id.0, text, self.now],
        )?;
        if again > 0 {
            return Ok(());
        }
        let fresh = self.run(
            "INSERT INTO note (channel, at, text) SELECT id, ?2, ?3 FROM channel WHERE id = ?1",
            params![id.0, self.now, text],
        )?;
        if fresh == 0 {
            return Err(StoreError::NoChannel);
        }
        self.run(
            "DELETE FROM note WHERE channel = ?1
             AND id <= (SELECT id FROM note WHERE channel = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![id.0, int(MAX_NOTES as u64)],
        )?;
        Ok(())
    }
}
