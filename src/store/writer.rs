//! The one thread that writes: group commit, and what it does when the disk is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tracing::{error, info, warn};

use super::catalog::Catalog;
use super::clock::Clock;
use super::health::Health;
use super::ledger::{Effects, GivenUp, Ledger};
use super::place::{BUSY, Identity, Place};
use super::queue::{Job, Next, Queue};
use super::readers::Readers;
use super::reaper::Swept;
use super::reserve::{self, Reserve};
use super::{Changes, ChannelId, Limits, StoreError, queries};

type Group = Vec<Box<dyn Job>>;

/// How often it is looked whether the database is still where it was.
const LOOK: Duration = Duration::from_secs(2);
/// What failed is tried again after this, and after twice as long each time.
const AGAIN: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);
/// Pages in the log from which on they are written into the database, as SQLite's own default has it.
const LOG_PAGES: i32 = 1000;

/// What the writer shares with those who ask.
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) changes: Changes,
    pub(super) health: Arc<Health>,
    pub(super) readers: Arc<Readers>,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
}

impl Shared {
    /// Wakes those who wait for a change of these.
    fn publish(&self, touched: Vec<ChannelId>) {
        let drops = self.catalog.concerns_drops(&touched);
        self.changes.publish(touched, drops);
    }
}

pub(super) struct Writer {
    /// `None`: it was closed after a failure, and could not be opened again yet.
    db: Option<Connection>,
    place: Place,
    opened: Identity,
    shared: Shared,
    reserve: Reserve,
    /// Whether there may be abandoned boxes to delete, or pages to give back.
    litter: bool,
    /// Whether the log may hold what a person gave up.
    given_up: bool,
    /// Pages that are in the log, as SQLite said after the last commit.
    log_pages: Arc<AtomicI32>,
    looked: Instant,
    failed: Option<Retry>,
}

/// When a database that failed is opened again.
#[derive(Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// Settles what waits when the writer thread ends, however it ends.
struct Farewell(Arc<Queue>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(super) fn new(mut db: Connection, place: Place, shared: Shared, reserve: Reserve) -> Result<Self, StoreError> {
        let log_pages = Arc::new(AtomicI32::new(0));
        count_log_pages(&mut db, &log_pages)?;
        let opened = place.identity()?;
        let (litter, given_up, looked, failed) = (true, false, Instant::now(), None);
        Ok(Self { db: Some(db), place, opened, shared, reserve, litter, given_up, log_pages, looked, failed })
    }

    /// Works until the queue is closed and empty. The connection is closed, and with it the last of the log is written
    /// into the database, before this returns.
    pub(super) fn run(mut self) {
        let _farewell = Farewell(Arc::clone(&self.shared.queue));
        loop {
            match self.shared.queue.next(self.patience()) {
                Next::Group(group) => self.commit(group),
                Next::Idle => self.idle(),
                Next::Closed => break,
            }
        }
        let Some(db) = self.db.take() else { return };
        // By hand, so that a failure is told; SQLite finds nothing to do then.
        let mut written = self.place.check(&self.opened).and_then(|()| write_log(&db, "TRUNCATE"));
        // The log takes room in the database before it gives its own back.
        if written == Err(StoreError::DiskFull) && self.reserve.release() {
            written = write_log(&db, "TRUNCATE");
        }
        let closed = db.close().map_err(|(_, error)| StoreError::from(error));
        if let Err(error) = written.and(closed) {
            warn!(%error, "the database could not be closed in good order; the next start recovers it");
            self.shared.health.set(Some(error.to_string()));
        }
    }

    fn patience(&self) -> Duration {
        match self.failed {
            Some(retry) => retry.at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
            None if self.litter => Duration::ZERO,
            None => LOOK,
        }
    }

    /// What is done while nobody asks for anything.
    fn idle(&mut self) {
        if let Some(retry) = self.failed {
            if Instant::now() >= retry.at {
                self.recover();
            }
            return;
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if let Err(error) = self.place.check(&self.opened) {
                return self.fail(&error);
            }
            if self.given_up {
                self.litter = true;
            }
        }
        if self.litter {
            self.litter = self.sweep();
        }
        if self.given_up && !self.litter && self.failed.is_none() {
            self.empty_log();
        }
    }

    fn commit(&mut self, group: Group) {
        if self.failed.is_some_and(|retry| Instant::now() >= retry.at) {
            self.recover();
        }
        if self.failed.is_some() {
            return settle(group, &Err(self.shared.health.refusal()));
        }
        match self.attempt(group) {
            Ok(()) => {}
            Err((group, StoreError::DiskFull)) => self.commit_on_a_full_disk(group),
            Err((group, error)) => self.commit_after(group, error),
        }
    }

    /// A transaction failed. Where it was not at its COMMIT, nothing of it was done, and it is tried once more.
    fn commit_after(&mut self, mut group: Group, error: StoreError) {
        if error.is_of_the_storage() && self.failed.is_none() {
            // One of them may have met what fails; the others are not to fail with it.
            while !group.is_empty() && self.failed.is_none() {
                let rest = group.split_off(1);
                match self.attempt(group) {
                    Ok(()) => {}
                    Err((alone, StoreError::DiskFull)) => self.commit_on_a_full_disk(alone),
                    Err((alone, error)) => settle(alone, &Err(error)),
                }
                group = rest;
            }
            return settle(group, &Err(self.shared.health.refusal()));
        }
        settle(group, &Err(error));
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
                if effects.given_up == GivenUp::Now {
                    self.empty_log();
                }
                // What is deleted in slices afterwards leaves copies too.
                self.given_up |= effects.given_up != GivenUp::Nothing;
                settle(group, &Ok(()));
                #[cfg(test)]
                super::tests::crash::point(super::tests::crash::Point::Settled);
                self.litter |= effects.litter || self.given_up;
                self.shared.publish(effects.touched);
                self.keep_log_short();
                Ok(())
            }
            Err(error) => Err((group, self.after(error))),
        }
    }

    fn transact(
        &self,
        work: impl FnOnce(&mut Ledger<'_>, &Connection) -> Result<End, StoreError>,
    ) -> Result<Effects, StoreError> {
        let Some(db) = &self.db else { return Err(self.shared.health.refusal()) };
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut ledger = Ledger::new(db, self.shared.limits, self.shared.clock.now());
        let worked = work(&mut ledger, db);
        #[cfg(test)]
        super::tests::crash::point(super::tests::crash::Point::Applied);
        let result = worked.and_then(|end| {
            if end == End::Undo {
                return Ok(Effects::default());
            }
            let effects = ledger.into_effects();
            let news = queries::news(db, &effects.touched)?;
            // What is committed into a file that has no name any more is lost.
            self.place.check(&self.opened)?;
            match db.prepare_cached("COMMIT")?.execute([]).map_err(StoreError::from) {
                Ok(_) => {
                    self.shared.catalog.take(news);
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
        if error.is_of_the_storage() || matches!(error, StoreError::Failed { .. }) {
            if reserve::disk_is_full(self.place.dir()) {
                warn!(%error, "the disk is full");
                return StoreError::DiskFull;
            }
            self.fail(&error);
        } else {
            error!(%error, "a transaction failed");
        }
        error
    }

    /// The disk below failed. From here on every door says so, until the database was opened anew; that is tried at
    /// once.
    fn fail(&mut self, error: &StoreError) {
        error!(%error, "the state could not be written or read; its database is opened anew");
        self.shared.health.set(Some(error.to_string()));
        self.failed = Some(Retry { at: Instant::now(), pause: AGAIN });
        self.recover();
        if self.failed.is_some() {
            // Whoever waits for something is to see that it does not come.
            self.shared.publish(self.shared.catalog.ids());
        }
    }

    /// Opens the database anew, and looks at what it holds. It counts as recovered once it has taken a write and a sync.
    fn recover(&mut self) {
        match self.open_anew() {
            Ok(touched) => {
                info!("the database was opened anew: what it holds is what counts");
                self.failed = None;
                self.shared.health.set(None);
                self.shared.publish(touched);
            }
            Err(error) => {
                let pause = self.failed.map_or(AGAIN, |retry| (retry.pause * 2).min(LONGEST));
                warn!(%error, ?pause, "the state cannot be written; trying again");
                self.failed = Some(Retry { at: Instant::now() + pause, pause });
                self.shared.health.set(Some(error.to_string()));
            }
        }
    }

    fn open_anew(&mut self) -> Result<Vec<ChannelId>, StoreError> {
        if let Some(db) = self.db.take() {
            // Where the disk takes writes again, the log is emptied: what a commit that failed left in it, nobody was
            // told of, and it does not come back.
            let _ = write_log(&db, "TRUNCATE");
            self.shared.readers.renew();
            drop(db);
        } else {
            self.shared.readers.renew();
        }
        self.place.check(&Identity { log: None, ..self.opened })?;
        let mut db = self.place.reopen()?;
        prove(&db)?;
        count_log_pages(&mut db, &self.log_pages)?;
        let touched = self.shared.catalog.replace(queries::everything(&db)?);
        self.opened = self.place.identity()?;
        self.db = Some(db);
        self.litter = true;
        Ok(touched)
    }

    /// Writes the log into the database once it is long. Not left to SQLite, which tells nobody when that fails.
    fn keep_log_short(&mut self) {
        let Some(db) = self.db.as_ref().filter(|_| self.log_pages.load(Ordering::Relaxed) >= LOG_PAGES) else { return };
        if let Err(error) = write_log(db, "PASSIVE") {
            self.after(error);
        }
    }

    /// Empties the log, where nobody reads from it: it holds copies of what was given up. Else that is tried again.
    fn empty_log(&mut self) {
        let Some(db) = &self.db else { return };
        match write_log(db, "TRUNCATE") {
            Ok(all) => self.given_up = !all,
            Err(error) => {
                self.after(error);
            }
        }
    }

    /// One slice of what nobody waits for. False: there is nothing left, or nothing that can be done now.
    fn sweep(&mut self) -> bool {
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
            Ok(if swept == Swept::All { End::Undo } else { End::Commit })
        }) {
            Ok(_) => self.keep_log_short(),
            Err(error) => return Err(self.after(error)),
        }
        if swept == Swept::LastPages {
            // The database file shrinks when the log is written into it. Readers may prevent that: then later.
            self.empty_log();
        }
        Ok(swept == Swept::Some)
    }
}

/// Has SQLite say after each commit how many pages are in the log.
fn count_log_pages(db: &mut Connection, pages: &Arc<AtomicI32>) -> Result<(), StoreError> {
    let pages = Arc::clone(pages);
    pages.store(0, Ordering::Relaxed);
    Ok(db.wal_hook(Some(move |_: &mut Wal, count| {
        pages.store(count, Ordering::Relaxed);
        Ok(())
    }))?)
}

/// Writes the log into the database, and both to the disk. False: somebody was in the way of the last of it.
fn write_log(db: &Connection, how: &str) -> Result<bool, StoreError> {
    // Readers are short; and whoever waits for the writer is not to wait for them.
    db.busy_timeout(Duration::from_millis(250))?;
    let (busy, pages, written) = db.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    db.busy_timeout(BUSY)?;
    Ok(busy == 0 && pages == written)
}

/// Whether the disk takes what is written: a commit with its sync, and the log's way into the database.
fn prove(db: &Connection) -> Result<(), StoreError> {
    // Another value each time: SQLite does not write what is the same.
    let sql = "INSERT INTO setting (name, value) VALUES ('opened_anew', 1)
               ON CONFLICT (name) DO UPDATE SET value = value + 1";
    db.execute(sql, [])?;
    write_log(db, "TRUNCATE").map(drop)
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
