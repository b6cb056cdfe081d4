//! The one thread that writes: group commit, and what it does when the disk is full.

use std::sync::Arc;

use rusqlite::Connection;
use tracing::{error, warn};

use super::catalog::Catalog;
use super::clock::Clock;
use super::ledger::{Effects, Ledger};
use super::private_dir::PrivateDir;
use super::queue::{Job, Next, Queue};
use super::reaper::Swept;
use super::reserve::{self, Reserve};
use super::{Changes, Limits, StoreError, queries};

type Group = Vec<Box<dyn Job>>;

pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) dir: PrivateDir,
    pub(super) queue: Arc<Queue>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) changes: Changes,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
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
        match self.attempt(group) {
            Ok(()) => {}
            Err((group, StoreError::DiskFull)) => self.commit_on_a_full_disk(group),
            // One of them may have met what fails; the others are not to fail with it.
            Err((group, StoreError::Io { .. })) if group.len() > 1 => {
                for job in group {
                    self.commit(vec![job]);
                }
            }
            Err((group, error)) => settle(group, &Err(error)),
        }
    }

    /// What a person brings is refused; for the rest, the reserve is given up if need be.
    fn commit_on_a_full_disk(&mut self, group: Group) {
        let (refused, group) = split(group);
        settle(refused, &Err(StoreError::DiskFull));
        let mut result = self.attempt(group);
        if let Err((group, StoreError::DiskFull)) = result {
            self.reserve.release();
            result = self.attempt(group);
        }
        if let Err((group, error)) = result {
            settle(group, &Err(error));
        }
    }

    /// One transaction with all of the group in it, in order, answered after its commit. A request that is refused is
    /// undone alone. Where the transaction fails, the group comes back unanswered.
    fn attempt(&mut self, group: Group) -> Result<(), (Group, StoreError)> {
        // What a person brings is taken only while there is room set aside for what must not be lost: confirmations.
        let (refused, mut group) = if group.iter().any(|job| job.grows()) && !self.reserve.hold() {
            split(group)
        } else {
            (Vec::new(), group)
        };
        settle(refused, &Err(StoreError::DiskFull));
        if group.is_empty() {
            return Ok(());
        }
        let result = self.transact(|ledger, db| match &mut group[..] {
            [job] => apply_alone(ledger, job.as_mut()),
            group => {
                for job in group {
                    apply(ledger, db, job.as_mut())?;
                }
                Ok(End::Commit)
            }
        });
        match result {
            Ok(effects) => {
                settle(group, &Ok(()));
                #[cfg(test)]
                super::tests::crash::point(super::tests::crash::Point::Settled);
                self.litter |= effects.litter;
                self.changes.publish(effects.touched);
                Ok(())
            }
            Err(error) => Err((group, self.after(error))),
        }
    }

    fn transact(
        &self,
        work: impl FnOnce(&mut Ledger<'_>, &Connection) -> Result<End, StoreError>,
    ) -> Result<Effects, StoreError> {
        let db = &self.db;
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut ledger = Ledger::new(db, self.limits, self.clock.now());
        let worked = work(&mut ledger, db);
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Applied);
        let result = worked.and_then(|end| {
            if end == End::Undo {
                return Ok(Effects::default());
            }
            let effects = ledger.into_effects();
            let news = queries::news(db, &effects.touched)?;
            match db.prepare_cached("COMMIT")?.execute([]).map_err(StoreError::from) {
                Ok(_) => {
                    self.catalog.take(news);
                    Ok(effects)
                }
                Err(StoreError::DiskFull) => Err(StoreError::DiskFull),
                // What the failed commit left on the disk is unknown.
                Err(other) => Err(StoreError::Failed { reason: other.to_string() }),
            }
        });
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Committed);
        // Where the storage failed, SQLite has usually rolled back by itself.
        if !db.is_autocommit()
            && let Err(error) = db.execute_batch("ROLLBACK")
        {
            return Err(StoreError::Failed { reason: format!("a transaction could not be undone: {error}") });
        }
        result
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

    /// One slice of what nobody waits for. False: there is nothing left, or nothing that can be done now.
    fn sweep(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let mut result = self.sweep_once();
        // Deleting makes room, and takes some before.
        if result == Err(StoreError::DiskFull) && self.reserve.release() {
            result = self.sweep_once();
        }
        result.unwrap_or_else(|error| {
            warn!(%error, "what was forgotten could not be deleted yet");
            false
        })
    }

    fn sweep_once(&mut self) -> Result<bool, StoreError> {
        let mut swept = Swept::All;
        match self.transact(|ledger, _| {
            swept = ledger.sweep()?;
            Ok(End::Commit)
        }) {
            Ok(_) => {}
            Err(error) => return Err(self.after(error)),
        }
        if swept == Swept::LastPages {
            // The database file shrinks when the log is written into it. Readers may prevent that: then later.
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(swept == Swept::Some)
    }
}

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    Undo,
}

/// A request that has the transaction for itself needs no savepoint. SQLite remembers each page that is changed within
/// one, in memory; a request that changes many is not to pay for that.
fn apply_alone(ledger: &mut Ledger<'_>, job: &mut dyn Job) -> Result<End, StoreError> {
    match job.apply(ledger) {
        Ok(()) => Ok(End::Commit),
        Err(error) if error.is_of_the_storage() => Err(error),
        Err(_) => Ok(End::Undo),
    }
}

fn apply(ledger: &mut Ledger<'_>, db: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    db.prepare_cached("SAVEPOINT request")?.execute([])?;
    let mark = ledger.mark();
    match job.apply(ledger) {
        Ok(()) => {}
        Err(error) if error.is_of_the_storage() || db.is_autocommit() => return Err(error),
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
