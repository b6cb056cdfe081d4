//! Streams that were removed or replaced while somebody had them open: they have no name and no channel any more, and
//! answer for as long as they are open, as files do.

use std::collections::HashMap;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::drop::reopen;
use super::handle::Handle;
use super::handle::Handles;
use super::{Attributes, Change, Fs, FsError, Node, Opened};
use crate::store::{Channel, ChannelId, StagedFile, StoreError};

/// What is copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The bytes of streams that have no name any more, by what their channel was.
#[derive(Default)]
pub(super) struct Unlinked(Mutex<HashMap<ChannelId, Arc<StagedFile>>>);

impl Unlinked {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<StagedFile>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, id: ChannelId) -> Option<Arc<StagedFile>> {
        self.lock().get(&id).cloned()
    }

    /// A handle was closed; where it was the last of its stream, the bytes go.
    pub(super) fn closed(&self, node: Node, handles: &Handles) {
        if let Node::Channel(id) = node {
            let mut unlinked = self.lock();
            if unlinked.contains_key(&id) && !handles.is_open(node) {
                unlinked.remove(&id);
            }
        }
    }
}

impl Fs {
    /// Has the store remove a stream, and keeps its bytes for those who have it open.
    pub(super) fn remove_stream(
        &self,
        channel: &Channel,
        remove: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), FsError> {
        let told = |error| self.told(channel, error);
        let node = Node::Channel(channel.id);
        // No write through a handle begins meanwhile, and none is lost between the copy and the removal.
        let handles = self.handles();
        if !handles.is_open(node) {
            drop(handles);
            return remove().map_err(told);
        }
        let kept = self.copy_of(channel)?;
        remove().map_err(told)?;
        self.unlinked.lock().insert(channel.id, Arc::new(kept));
        drop(handles);
        Ok(())
    }

    fn copy_of(&self, channel: &Channel) -> Result<StagedFile, FsError> {
        let store = self.owner.store();
        // Behind all writes that were taken before.
        store.set_attributes(channel.id, None, None, None).wait()?;
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|error| FsError::new(libc::EIO, error.to_string()))?;
        let name = format!("unlinked-{:016x}", u64::from_le_bytes(number));
        let path = self.owner.engine().drops().directory()?.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        let file = store.sealing().create(file)?;
        let mut offset = 0;
        loop {
            let bytes = store.read(channel.id, offset, CHUNK_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            file.write_all_at(&bytes, offset)?;
            offset += bytes.len() as u64;
        }
        file.file().set_permissions(Permissions::from_mode(0o666 & !channel.dropped_mode))?;
        Ok(file)
    }

    pub(super) fn open_unlinked_stream(&self, id: ChannelId, flags: i32) -> Result<Opened, FsError> {
        let file = self.unlinked.find(id).ok_or_else(|| FsError::quiet(libc::ENOENT, "the channel was removed"))?;
        if flags & libc::O_TRUNC != 0 {
            file.set_len(0)?;
        }
        let node = Node::Channel(id);
        let handle = self.handles().insert(Handle::new(node, flags));
        Ok(Opened { handle, node })
    }

    pub(super) fn unlinked_attributes(&self, node: Node, file: &StagedFile) -> Result<Attributes, FsError> {
        Ok(Attributes { links: 0, ..Attributes::of_file(node, file.content_len()?, &file.metadata()?, &self.options) })
    }

    /// Writes to a stream that has no name any more, which is a file like any other.
    pub(super) fn write_unlinked(file: &StagedFile, offset: u64, bytes: &[u8], appends: bool) -> Result<u64, FsError> {
        let at = if appends { file.content_len()? } else { offset };
        file.write_all_at(bytes, at)?;
        Ok(bytes.len() as u64)
    }

    pub(super) fn change_unlinked(&self, node: Node, file: &StagedFile, change: Change) -> Result<Attributes, FsError> {
        change.apply_to(file)?;
        self.unlinked_attributes(node, file)
    }
}

impl Change {
    /// Changes a file that has no name.
    pub(super) fn apply_to(self, file: &StagedFile) -> std::io::Result<()> {
        if let Some(size) = self.size {
            reopen(file, true)?.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            file.file().set_permissions(Permissions::from_mode(mode & 0o777))?;
        }
        file.file().set_times(self.times())
    }

    /// The times that are to be set.
    pub(super) fn times(self) -> std::fs::FileTimes {
        let mut times = std::fs::FileTimes::new();
        if let Some(modified) = self.modified {
            times = times.set_modified(modified);
        }
        if let Some(accessed) = self.accessed {
            times = times.set_accessed(accessed);
        }
        times
    }
}
