//! What the last mount was told about this state: whoever owns the state next without being told goes by it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::ledger::int;
use super::{Limits, StoreError};
use crate::channel::{Linger, PROBE_SHARE};

/// Limits and times that an owner works by.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// What the store may take of the disk.
    pub limits: Limits,
    /// When boxes that are not full leave.
    pub linger: Linger,
    /// The part of the network's pace, from 0 to 1, that probes of idle channels take at most.
    pub probe_share: f64,
}

impl Default for Choices {
    fn default() -> Self {
        Self { limits: Limits::default(), linger: Linger::default(), probe_share: PROBE_SHARE }
    }
}

/// How a share is kept: as a whole number.
const PARTS: f64 = 1e9;

/// Keeps what was chosen.
pub(super) fn keep(db: &Connection, choices: &Choices) -> Result<(), StoreError> {
    let Choices { limits, linger, probe_share } = choices;
    let milliseconds = |time: Duration| int(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "a share is between 0 and 1")]
    let parts = (probe_share * PARTS) as i64;
    let transaction = db.unchecked_transaction()?;
    for (name, value) in [
        ("spool_bytes", int(limits.spool_bytes)),
        ("cache_bytes", int(limits.cache_bytes)),
        ("cache_channel_bytes", int(limits.cache_channel_bytes)),
        ("sent_bytes", int(limits.sent_bytes)),
        ("linger_after_last_ms", milliseconds(linger.after_last)),
        ("linger_after_first_ms", milliseconds(linger.after_first)),
        ("linger_after_creation_ms", milliseconds(linger.after_creation)),
        ("probe_share", parts),
    ] {
        let sql = "INSERT INTO setting (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
        transaction.execute(sql, params![name, value])?;
    }
    Ok(transaction.commit()?)
}

/// What was chosen last; the defaults where nothing was.
pub(super) fn kept(db: &Connection) -> Result<Choices, StoreError> {
    let mut choices = Choices::default();
    let setting = |name: &str| {
        let found: Option<i64> =
            db.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()?;
        Ok::<_, StoreError>(found.and_then(|value| u64::try_from(value).ok()))
    };
    let Choices { limits, linger, probe_share } = &mut choices;
    for (name, value) in [
        ("spool_bytes", &mut limits.spool_bytes),
        ("cache_bytes", &mut limits.cache_bytes),
        ("cache_channel_bytes", &mut limits.cache_channel_bytes),
        ("sent_bytes", &mut limits.sent_bytes),
    ] {
        *value = setting(name)?.unwrap_or(*value);
    }
    for (name, value) in [
        ("linger_after_last_ms", &mut linger.after_last),
        ("linger_after_first_ms", &mut linger.after_first),
        ("linger_after_creation_ms", &mut linger.after_creation),
    ] {
        *value = setting(name)?.map_or(*value, Duration::from_millis);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share, kept with nine places")]
    if let Some(parts) = setting("probe_share")? {
        *probe_share = (parts as f64 / PARTS).clamp(0.0, 1.0);
    }
    Ok(choices)
}
