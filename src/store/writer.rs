//! The writer thread: one transaction for as many requests as wait, each in a savepoint of its own.
//!
//! A full disk is met with a reserve: a file of 16 MiB beside the database. Requests that only confirm what already
//! happened are *vital*: the reserve is let go for them. Appends are refused until it could be made again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rustix::fs::FallocateFlags;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{Changes, ChannelId, Limits, StateDir, StoreError, schema};

/// Requests that wait for the writer; a further one waits for room.
const QUEUE: usize = 1024;
/// Most requests of one transaction.
const GROUP: usize = 256;
/// Kept free for confirmations.
const RESERVE_BYTES: u64 = 16 << 20;
/// Read connections that are kept for the next query.
const READERS: usize = 4;

/// The open store of a state directory. Clones share it.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Shared>);

pub(super) struct Shared {
    database: PathBuf,
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
    pub(super) changes: Changes,
    pub(super) spool_bytes: Arc<AtomicU64>,
}

/// A change on its way to the disk: done when its transaction is committed. Dropping it does not take it back.
#[derive(Debug)]
pub struct Commit<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Commit<T> {
    /// Waits on this thread, which must not be one of an async runtime.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Commit<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.unwrap_or(Err(StoreError::Closed)))
    }
}

/// What a request sees of its transaction.
pub(super) struct Tx<'a> {
    pub(super) sql: &'a Connection,
    /// Channels whose watchers are woken after the commit.
    pub(super) touched: BTreeSet<ChannelId>,
    /// The spool, as it will be after the commit.
    pub(super) spool_bytes: u64,
    pub(super) spool_limit: u64,
    reserve_held: bool,
}

impl Tx<'_> {
    /// Whether more may be accepted onto this disk.
    pub(super) fn has_reserve(&self) -> bool {
        self.reserve_held
    }
}

type Change = Box<dyn FnMut(&mut Tx<'_>) -> Result<(), StoreError> + Send>;

/// A request: run again where its transaction had to be, and answered once.
struct Job {
    vital: bool,
    run: Change,
    /// Told at the end; `None` is success.
    done: Box<dyn FnOnce(Option<StoreError>) + Send>,
}

impl Store {
    /// Opens the store of a state directory, bringing its schema up to date. The directory must be kept for as long.
    pub fn open(state: &StateDir, limits: Limits) -> Result<Self, StoreError> {
        let (connection, spool) = schema::open(&state.database())?;
        let spool_bytes = Arc::new(AtomicU64::new(spool));
        let changes = Changes::default();
        let (jobs, queue) = sync_channel(QUEUE);
        let writer = Writer {
            connection,
            reserve: Reserve { path: state.reserve(), held: None },
            limits,
            changes: changes.clone(),
            spool_bytes: Arc::clone(&spool_bytes),
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(Self(Arc::new(Shared {
            database: state.database(),
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            readers: Mutex::default(),
            changes,
            spool_bytes,
        })))
    }

    /// Finishes what was submitted and closes the database; what comes later is answered with
    /// [`StoreError::Closed`]. Blocks.
    pub fn close(&self) {
        drop(self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Wake-ups after commits.
    pub fn changes(&self) -> Changes {
        self.0.changes.clone()
    }

    /// Hands a change to the writer thread, behind all that were handed over before. Waits for room in the queue.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        vital: bool,
        mut change: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        let (answer, commit) = oneshot::channel();
        let result = Arc::new(Mutex::new(None));
        let found = Arc::clone(&result);
        let job = Job {
            vital,
            run: Box::new(move |tx| {
                let value = change(tx)?;
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                Ok(())
            }),
            done: Box::new(move |error| {
                let value = found.lock().unwrap_or_else(PoisonError::into_inner).take();
                let _ = answer.send(match error {
                    Some(error) => Err(error),
                    None => value.ok_or(StoreError::Closed),
                });
            }),
        };
        let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A writer that is gone drops the job, and with it the answer's other end.
        if let Some(jobs) = jobs {
            let _ = jobs.send(job);
        }
        Commit(commit)
    }

    /// Runs a query on one of the read connections.
    pub(super) fn query<T>(&self, look: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let kept = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_reader(&self.0.database)?,
        };
        let result = look(&connection);
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS {
            readers.push(connection);
        }
        result
    }

    /// Bytes accepted and not yet stored, over all channels.
    pub fn spool_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.0.spool_bytes.load(Ordering::Acquire))
    }
}

struct Writer {
    connection: Connection,
    reserve: Reserve,
    limits: Limits,
    changes: Changes,
    spool_bytes: Arc<AtomicU64>,
}

/// How one attempt at a transaction ended.
enum Attempt {
    /// Committed; per job, what it answered.
    Committed { results: Vec<Option<StoreError>>, touched: BTreeSet<ChannelId>, spool_bytes: u64 },
    /// The disk is full; the job at fault where one is known.
    Full { at: Option<usize> },
    /// The transaction as a whole failed.
    Failed(StoreError),
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut group = vec![first];
            group.extend(queue.try_iter().take(GROUP - 1));
            self.commit(group);
        }
        if let Err((_, error)) = self.connection.close() {
            warn!(%error, "the database could not be closed in order; it is sound all the same");
        }
    }

    /// Commits the group, or as much of it as the disk takes, and answers each job.
    fn commit(&mut self, mut group: Vec<Job>) {
        while !group.is_empty() {
            let held = self.reserve.hold();
            match self.attempt(&mut group, held) {
                Attempt::Committed { results, touched, spool_bytes } => {
                    self.spool_bytes.store(spool_bytes, Ordering::Release);
                    for (job, result) in group.drain(..).zip(results) {
                        (job.done)(result);
                    }
                    self.changes.announce(&touched);
                }
                Attempt::Full { at } => {
                    let vital = at.map_or_else(|| group.iter().any(|job| job.vital), |at| group[at].vital);
                    if vital && self.reserve.release() {
                        debug!("the disk is full: the reserve is let go for confirmations");
                        let (kept, refused) = group.into_iter().partition(|job: &Job| job.vital);
                        group = kept;
                        refuse(refused, &StoreError::DiskFull);
                    } else if let Some(at) = at {
                        refuse(vec![group.remove(at)], &StoreError::DiskFull);
                    } else {
                        refuse(std::mem::take(&mut group), &StoreError::DiskFull);
                    }
                }
                Attempt::Failed(error) => refuse(std::mem::take(&mut group), &error),
            }
        }
    }

    fn attempt(&mut self, group: &mut [Job], reserve_held: bool) -> Attempt {
        let sql = &self.connection;
        if let Err(error) = sql.execute_batch("BEGIN IMMEDIATE") {
            return Attempt::Failed(error.into());
        }
        let mut tx = Tx {
            sql,
            touched: BTreeSet::new(),
            spool_bytes: self.spool_bytes.load(Ordering::Acquire),
            spool_limit: self.limits.spool_bytes,
            reserve_held,
        };
        let mut results = Vec::with_capacity(group.len());
        for (at, job) in group.iter_mut().enumerate() {
            let before = tx.spool_bytes;
            let result = run_in_savepoint(&mut tx, job);
            if result.is_err() {
                tx.spool_bytes = before;
            }
            match result {
                // SQLite may have rolled everything back by itself; then all is done anew without this job.
                Err(StoreError::DiskFull) if reserve_held || sql.is_autocommit() => {
                    roll_back(sql);
                    return Attempt::Full { at: Some(at) };
                }
                Err(error) if sql.is_autocommit() => return Attempt::Failed(error),
                result => results.push(result.err()),
            }
        }
        let (touched, spool_bytes) = (tx.touched, tx.spool_bytes);
        match sql.execute_batch("COMMIT").map_err(StoreError::from) {
            Ok(()) => Attempt::Committed { results, touched, spool_bytes },
            Err(error) => {
                roll_back(sql);
                match error {
                    StoreError::DiskFull => Attempt::Full { at: None },
                    error => Attempt::Failed(error),
                }
            }
        }
    }
}

fn run_in_savepoint(tx: &mut Tx<'_>, job: &mut Job) -> Result<(), StoreError> {
    tx.sql.execute_batch("SAVEPOINT job")?;
    let touched = tx.touched.clone();
    let result = (job.run)(tx);
    if result.is_err() {
        tx.touched = touched;
        if !tx.sql.is_autocommit() {
            tx.sql.execute_batch("ROLLBACK TO job")?;
        }
    }
    if !tx.sql.is_autocommit() {
        tx.sql.execute_batch("RELEASE job")?;
    }
    result
}

fn roll_back(sql: &Connection) {
    if !sql.is_autocommit()
        && let Err(error) = sql.execute_batch("ROLLBACK")
    {
        warn!(%error, "a transaction could not be rolled back");
    }
}

fn refuse(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        (job.done)(Some(error.clone()));
    }
}

/// The disk space that is kept for confirmations.
struct Reserve {
    path: PathBuf,
    held: Option<File>,
}

impl Reserve {
    /// Whether the reserve is there; made where it is not and there is room.
    fn hold(&mut self) -> bool {
        if self.held.is_none() {
            let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
            self.held = made.ok().and_then(|file| {
                match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
                    Ok(()) => Some(file),
                    // A file system that cannot allocate ahead has no reserve to hold; the limits of the spool remain.
                    Err(rustix::io::Errno::OPNOTSUPP) => Some(file),
                    Err(_) => {
                        let _ = file.set_len(0);
                        None
                    }
                }
            });
        }
        self.held.is_some()
    }

    /// Gives the space back; whether there was any.
    fn release(&mut self) -> bool {
        self.held.take().is_some_and(|file| file.set_len(0).is_ok())
    }
}
