//! Opening the store, and closing it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::catalog::Catalog;
use super::clock::Clock;
use super::health::Health;
use super::place::Place;
use super::private_dir::PrivateDir;
use super::queue::Queue;
use super::readers::Readers;
use super::reserve::{self, Reserve};
use super::sealed::Sealing;
use super::writer::{Shared, Writer};
use super::{Changes, Limits, StateDir, StoreError, queries};
use super::{Choices, RequestId, choices};

/// Set aside on the disk, so that confirmations can be kept when it is full.
const RESERVE_BYTES: u64 = 16 << 20;

/// The channels of one state directory. Clones share one writer thread; the last one dropped closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Which request the next change is for, where one asked.
    pub(super) request: Option<RequestId>,
}

struct Inner {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    health: Arc<Health>,
    catalog: Arc<Catalog>,
    changes: Changes,
    limits: Limits,
    state_path: std::path::PathBuf,
    dir: PrivateDir,
    sealing: Sealing,
    running: Mutex<Option<Running>>,
}

struct Running {
    writer: JoinHandle<()>,
    /// Held until nothing writes any more.
    _state: StateDir,
}

impl Store {
    /// Opens the database of a state directory, which is made where it is missing, and starts the writer thread. The
    /// directory stays locked until [`Store::close`], or until the last clone is dropped.
    pub fn open(state: &StateDir, limits: Limits) -> Result<Self, StoreError> {
        Self::open_with(state, limits, RESERVE_BYTES)
    }

    /// One that goes by another clock than the system's, with next to no reserve.
    #[cfg(test)]
    pub(crate) fn open_simulated(state: &StateDir, limits: Limits, clock: Clock) -> Result<Self, StoreError> {
        let choices = Choices { limits, ..Choices::default() };
        Ok(Self::open_at(place(state, None)?, state, Some(choices), 4096, clock)?.0)
    }

    pub(super) fn open_with(state: &StateDir, limits: Limits, reserve_bytes: u64) -> Result<Self, StoreError> {
        let choices = Choices { limits, ..Choices::default() };
        Ok(Self::open_at(place(state, None)?, state, Some(choices), reserve_bytes, Clock::default())?.0)
    }

    /// The same with all that was chosen, which is kept for the owners that come; with nothing chosen, by what was chosen
    /// last. Says what that is.
    pub fn open_choosing(state: &StateDir, chosen: Option<Choices>) -> Result<(Self, Choices), StoreError> {
        Self::open_at(place(state, None)?, state, chosen, RESERVE_BYTES, Clock::default())
    }

    /// The same on a disk that SQLite knows by the name of a VFS; only the reserve is in the directory.
    #[cfg(test)]
    pub(crate) fn open_on(vfs: &str, state: &StateDir, limits: Limits, clock: Clock) -> Result<Self, StoreError> {
        let choices = Choices { limits, ..Choices::default() };
        Ok(Self::open_at(place(state, Some(vfs.to_owned()))?, state, Some(choices), 1, clock)?.0)
    }

    fn open_at(
        place: Place,
        state: &StateDir,
        chosen: Option<Choices>,
        reserve_bytes: u64,
        clock: Clock,
    ) -> Result<(Self, Choices), StoreError> {
        let mut reserve = None;
        let db = match place.open() {
            Ok(db) => db,
            Err(error) if error.is_of_the_storage() && reserve::disk_is_full(state.dir()) => {
                // SQLite needs some room to open at all. That is what the reserve is for.
                let mut held = Reserve::open(state.dir().clone(), reserve_bytes);
                if !held.release() {
                    return Err(StoreError::DiskFull);
                }
                reserve = Some(held);
                place.open()?
            }
            Err(error) => return Err(error),
        };
        let reserve = reserve.unwrap_or_else(|| Reserve::open(state.dir().clone(), reserve_bytes));
        let choices = chosen.map_or_else(|| choices::kept(&db), Ok)?;
        if chosen.is_some() {
            match choices::keep(&db, &choices) {
                // On a full disk the old ones stay. They are no reason to refuse.
                Ok(()) | Err(StoreError::DiskFull) => {}
                Err(error) => return Err(error),
            }
        }
        let limits = choices.limits;
        let catalog = Arc::new(Catalog::new(limits));
        catalog.take(queries::everything(&db)?);
        let queue = Arc::new(Queue::default());
        let changes = Changes::default();
        let health = Arc::new(Health::default());
        let readers = Arc::new(Readers::new(place.clone()));
        let writer = Writer::new(
            db,
            place,
            Shared {
                queue: Arc::clone(&queue),
                catalog: Arc::clone(&catalog),
                changes: changes.clone(),
                health: Arc::clone(&health),
                readers: Arc::clone(&readers),
                limits,
                clock,
            },
            reserve,
        )?;
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Io { reason: format!("the writer thread cannot be started: {error}") })?;
        let running = Mutex::new(Some(Running { writer, _state: state.clone() }));
        let inner = Arc::new(Inner {
            queue,
            readers,
            health,
            catalog,
            changes,
            limits,
            state_path: state.path().to_owned(),
            dir: state.dir().clone(),
            sealing: state.sealing()?,
            running,
        });
        Ok((Self { inner, request: None }, choices))
    }

    /// Carries out what was submitted, closes the database and lets go of the directory's lock. Requests and questions
    /// after this are [`StoreError::Closed`]. Blocks; the second time it does nothing.
    pub fn close(&self) {
        self.inner.close();
    }

    /// What failed below, while it is not known whether what was written is on the disk, or nothing can be written. Then
    /// requests are refused, and whoever is asked about the state has to say so. It ends once the database was opened
    /// anew and has taken a write.
    pub fn trouble(&self) -> Option<String> {
        self.inner.health.trouble()
    }

    /// Wake-ups after commits.
    pub fn changes(&self) -> Changes {
        self.inner.changes.clone()
    }

    /// What it may take of the disk.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Bytes that the disk below has room for, as a user without privileges may take them.
    pub fn disk_free_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.inner.dir.free_bytes()?)
    }

    /// The state directory as it was named: for messages. It may have been moved since.
    pub fn state_path(&self) -> &Path {
        &self.inner.state_path
    }

    /// The state directory itself: whatever is kept in it is opened through this.
    pub fn dir(&self) -> &PrivateDir {
        &self.inner.dir
    }

    /// How what is in the state is kept.
    pub fn sealing(&self) -> &Sealing {
        &self.inner.sealing
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.inner.readers
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.inner.queue
    }
}

fn place(state: &StateDir, vfs: Option<String>) -> Result<Place, StoreError> {
    Ok(Place::new(state.dir().clone(), vfs, state.sealing()?))
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let running = self.running().take();
        if let Some(Running { writer, _state }) = running {
            self.readers.close();
            self.catalog.close();
            // A writer that panicked has said so, and its requests are settled.
            drop(writer.join());
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing panics while it is held.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
