//! The log of a sealed state: kept in the database, as whatever else names channels and files.

use std::time::SystemTime;

use rusqlite::params;

use super::ledger::{Ledger, int};
use super::nanos::from_nanos;
use super::queries::each;
use super::{Commit, Store, StoreError};

/// Lines that are kept.
pub const MAX_LOG_LINES: u64 = 10_000;
/// Bytes of a line that are kept.
const MAX_LINE_BYTES: usize = 4096;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its number: later lines have larger ones.
    pub id: i64,
    /// When it was kept.
    pub at: SystemTime,
    /// What was logged.
    pub text: String,
}

impl Store {
    /// Keeps lines of the log, and the newest [`MAX_LOG_LINES`] of all.
    pub fn log(&self, lines: Vec<String>) -> Commit<()> {
        self.submit(move |ledger| lines.iter().try_for_each(|line| ledger.log(line)))
    }

    /// The oldest lines behind number `after`, `limit` at most.
    pub fn log_lines(&self, after: i64, limit: u64) -> Result<Vec<LogLine>, StoreError> {
        self.readers().ask(|db| {
            let mut lines = Vec::new();
            let sql = "SELECT id, at, text FROM log WHERE id > ?1 ORDER BY id LIMIT ?2";
            each(db, sql, params![after, int(limit)], |row| {
                lines.push(LogLine { id: row.get(0)?, at: from_nanos(row.get(1)?), text: row.get(2)? });
                Ok(true)
            })?;
            Ok(lines)
        })
    }
}

impl Ledger<'_> {
    fn log(&mut self, line: &str) -> Result<(), StoreError> {
        let end = (0..=line.len().min(MAX_LINE_BYTES)).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
        self.run("INSERT INTO log (at, text) VALUES (?1, ?2)", params![self.now, &line[..end]])?;
        self.run("DELETE FROM log WHERE id <= (SELECT max(id) FROM log) - ?1", [int(MAX_LOG_LINES)]).map(drop)
    }
}
