//! A disk that others use: its image, the faults that it was told, and the locks on its files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::image::{Event, Image, Loss};
use crate::vfs::{self, Registration};

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To open a file.
    Open,
    /// To read.
    Read,
    /// To write, or to change a length.
    Write,
    /// To make safe what was written.
    Sync,
}

/// What is to fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operation.
    pub operation: Operation,
    /// Of files whose name ends so.
    pub file: String,
    /// So often; `None`: until [`SimDisk::heal`].
    pub times: Option<u32>,
}

/// A disk, and the VFS by which SQLite finds it. It ends with this value; connections to it must be closed before.
pub struct SimDisk {
    shared: Arc<Shared>,
    registration: Registration,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::with(Image::default())
    }

    /// A disk with these files.
    pub fn with(image: Image) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("simdisk-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::new(Shared { state: Mutex::new(State { image, ..State::default() }) });
        let registration = vfs::register(&name, Arc::clone(&shared));
        Self { shared, registration }
    }

    /// The name of its VFS.
    pub fn vfs(&self) -> &str {
        self.registration.name()
    }

    /// From now on all that is done to it is recorded.
    pub fn record(&self) {
        self.shared.lock().record = Some(Vec::new());
    }

    /// How much was recorded.
    pub fn recorded(&self) -> usize {
        self.shared.lock().record.as_ref().map_or(0, Vec::len)
    }

    /// What was recorded.
    pub fn history(&self) -> Vec<Event> {
        self.shared.lock().record.clone().unwrap_or_default()
    }

    /// What is on it.
    pub fn image(&self) -> Image {
        self.shared.lock().image.clone()
    }

    /// The power fails and comes back. Files that were open can only be closed from now on.
    pub fn cut(&self, loss: Loss) {
        let mut state = self.shared.lock();
        state.image = state.image.after_cut(loss);
        state.life += 1;
        state.locks.clear();
    }

    /// Something is to fail.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Nothing fails any more, and there is all the room.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.capacity = None;
    }

    /// Its files take no more bytes than this together.
    pub fn limit(&self, bytes: u64) {
        self.shared.lock().capacity = Some(bytes);
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        self.registration.end();
        // The VFS itself is leaked, as SQLite may still hold it; the bytes are not.
        *self.shared.lock() = State::default();
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) image: Image,
    /// How many power cuts there were. A file that was opened before the last is dead.
    pub(crate) life: u64,
    pub(crate) locks: HashMap<String, Locks>,
    record: Option<Vec<Event>>,
    faults: Vec<Fault>,
    capacity: Option<u64>,
}

/// The locks on one file, as SQLite takes them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Locks {
    pub(crate) shared: usize,
    pub(crate) reserved: bool,
    pub(crate) pending: bool,
    pub(crate) exclusive: bool,
}

impl State {
    /// Whether the operation is to fail now.
    pub(crate) fn fails(&mut self, operation: Operation, file: &str) -> bool {
        let meant =
            |fault: &&mut Fault| fault.operation == operation && file.ends_with(&fault.file) && fault.times != Some(0);
        let Some(fault) = self.faults.iter_mut().find(meant) else { return false };
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        true
    }

    /// Whether there is room for the file to grow to this length.
    pub(crate) fn has_room(&self, file: &str, length: u64) -> bool {
        let now = self.image.file(file).map_or(0, |bytes| bytes.len() as u64);
        self.capacity
            .is_none_or(|capacity| self.image.bytes() + length.saturating_sub(now) <= capacity || length <= now)
    }

    pub(crate) fn apply(&mut self, event: Event) {
        if let Some(record) = &mut self.record {
            record.push(event.clone());
        }
        self.image.apply(event);
    }
}
