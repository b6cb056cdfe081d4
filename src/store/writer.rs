//! The one thread that writes: group commit, and what it does when the disk is full.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tracing::{error, warn};

use super::ledger::Ledger;
use super::queue::{Job, Next, Queue};
use super::reserve::{self, Reserve};
use super::{Changes, ChannelId, Limits, StoreError};

type Group = Vec<Box<dyn Job>>;

pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) dir: PathBuf,
    pub(super) queue: Arc<Queue>,
    pub(super) changes: Changes,
    pub(super) limits: Limits,
    pub(super) reserve: Reserve,
    /// Whether there may be abandoned boxes to delete, or pages to give back.
    pub(super) litter: bool,
    /// The first failure that leaves open what is on the disk. It sticks.
    pub(super) failed: Option<String>,
}

/// Settles what waits when the writer thread ends, however it ends.
struct Farewell(Arc<Queue>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    /// Works until the queue is closed and empty. The connection is closed, and with it the last of the log is written
    /// into the database, before this returns.
    pub(super) fn run(mut self) {
        let _farewell = Farewell(Arc::clone(&self.queue));
        loop {
            match self.queue.next(!self.litter) {
                Next::Group(group) => self.commit(group),
                Next::Idle => self.litter = self.sweep(),
                Next::Closed => break,
            }
        }
        if let Err((_, error)) = self.db.close() {
            warn!(%error, "the database could not be closed in good order; the next start recovers it");
        }
    }

    fn commit(&mut self, group: Group) {
        if let Some(reason) = &self.failed {
            return settle(group, &Err(StoreError::Failed { reason: reason.clone() }));
        }
        // What a person brings is taken only while there is room for what must not be lost: confirmations.
        let (mut growing, mut group) = if self.reserve.hold() { (Vec::new(), group) } else { split(group) };
        let mut result = self.attempt(&mut group);
        if result == Err(StoreError::DiskFull) {
            let (refused, rest) = split(group);
            growing.extend(refused);
            group = rest;
            result = self.attempt(&mut group);
            if result == Err(StoreError::DiskFull) && self.reserve.release() {
                result = self.attempt(&mut group);
            }
        }
        settle(growing, &Err(StoreError::DiskFull));
        let touched = result.as_ref().ok().cloned();
        settle(group, &result.map(drop));
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Settled);
        if let Some(touched) = touched {
            self.changes.publish(touched);
        }
        self.litter = true;
    }

    /// One transaction with all of the group in it, in order. A request that is refused is undone alone.
    pub(super) fn attempt(&mut self, group: &mut Group) -> Result<Vec<ChannelId>, StoreError> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let result = self.transact(|ledger, db| {
            for job in group {
                apply(ledger, db, job.as_mut())?;
            }
            Ok(())
        });
        result.map_err(|error| self.after(error))
    }

    fn transact(
        &self,
        work: impl FnOnce(&mut Ledger<'_>, &Connection) -> Result<(), StoreError>,
    ) -> Result<Vec<ChannelId>, StoreError> {
        let db = &self.db;
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut ledger = Ledger::new(db, self.limits);
        let worked = work(&mut ledger, db);
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Applied);
        let result = worked.and_then(|()| {
            db.prepare_cached("COMMIT")?.execute([]).map(drop).map_err(|error| match StoreError::from(error) {
                StoreError::DiskFull => StoreError::DiskFull,
                // What the failed commit left on the disk is unknown.
                other => StoreError::Failed { reason: other.to_string() },
            })
        });
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Committed);
        // A failed COMMIT has usually rolled back by itself.
        if result.is_err()
            && !db.is_autocommit()
            && let Err(error) = db.execute_batch("ROLLBACK")
        {
            return Err(StoreError::Failed { reason: format!("a transaction could not be undone: {error}") });
        }
        result.map(|()| ledger.into_touched())
    }

    /// What a failed transaction means for the next ones.
    fn after(&mut self, error: StoreError) -> StoreError {
        if error == StoreError::DiskFull {
            return error;
        }
        if reserve::disk_is_full(&self.dir) {
            warn!(%error, "the disk is full");
            return StoreError::DiskFull;
        }
        error!(%error, "a transaction failed");
        if let StoreError::Failed { reason } = &error {
            self.failed = Some(reason.clone());
        }
        error
    }

    /// One slice of what nobody waits for. False: there is nothing left.
    fn sweep(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let more = AtomicBool::new(false);
        let result = self.transact(|ledger, _| {
            more.store(ledger.sweep()?, Ordering::Relaxed);
            Ok(())
        });
        match result {
            Ok(_) => more.into_inner(),
            Err(error) => {
                let error = self.after(error);
                warn!(%error, "what was forgotten could not be deleted yet");
                false
            }
        }
    }
}

fn apply(ledger: &mut Ledger<'_>, db: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    db.prepare_cached("SAVEPOINT request")?.execute([])?;
    let mark = ledger.mark();
    match job.apply(ledger) {
        Ok(()) => {}
        Err(error) if error.is_of_the_storage() => return Err(error),
        Err(_) => {
            db.prepare_cached("ROLLBACK TO request")?.execute([])?;
            ledger.back_to(mark);
        }
    }
    db.prepare_cached("RELEASE request")?.execute([])?;
    Ok(())
}

/// The requests that bring new bytes, and the others; each in order.
fn split(group: Group) -> (Group, Group) {
    group.into_iter().partition(|job| job.grows())
}

fn settle(group: Group, committed: &Result<(), StoreError>) {
    for job in group {
        job.settle(committed.clone());
    }
}
