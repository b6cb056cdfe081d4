//! Open files in drops: those that are being written, wherever in them, and those that are records.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::room::{Body, Staged, State, gone};
use super::settle::Settling;
use super::tree::EntryId;
use crate::drop::{Header, MAX_PATH_BYTES, MAX_SIZE};
use crate::fs::handle::Handle;
use crate::fs::{Fs, FsError, Node, Opened, READ_BYTES};
use crate::store::{Channel, ChannelId, MAX_NAME_BYTES, RecordId, Role};

/// Directories within one another: what a reader makes at most.
const MAX_DEPTH: usize = 64;
/// Threads whose writes are remembered, for each open file.
const WRITERS: usize = 8;

/// What is open of a drop.
#[derive(Clone, Debug)]
pub(in crate::fs) struct OpenFile {
    drop: ChannelId,
    entry: EntryId,
    /// Where its bytes are: a file of ours, or a record.
    from: From,
    writes: bool,
    /// Threads that wrote through it.
    writers: Vec<u32>,
}

#[derive(Clone, Debug)]
enum From {
    Staged(Arc<File>),
    Record(RecordId),
}

impl Fs {
    /// Opens a file of a drop.
    pub(in crate::fs) fn open_dropped(&self, entry: EntryId, flags: i32) -> Result<Opened, FsError> {
        let truncates = flags & libc::O_TRUNC != 0;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || truncates;
        if writes {
            self.options.check_changes_allowed()?;
        }
        let mut state = self.room.lock();
        if writes {
            state = self.room.settled(state, &[entry]);
        }
        let drop = state.forest.entry(entry).ok_or_else(gone)?.drop;
        let names = state.owned_names(entry);
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let (role, staging) = (loaded.role, loaded.staging.clone());
        let cut = match state.forest.file_mut(entry) {
            None => return Err(FsError::quiet(libc::EISDIR, "it is a directory")),
            Some(Body::Sealed(sealed)) => {
                let record = sealed.record;
                std::mem::drop(state);
                if writes {
                    return Err(self.refuse_sealed(drop, role, &names));
                }
                let file = OpenFile { drop, entry, from: From::Record(record), writes, writers: Vec::new() };
                return Ok(self.opened_dropped(entry, flags, file));
            }
            Some(Body::Staged(staged)) => {
                let file = Arc::new(staging.open(&names, writes)?);
                let mut cut = 0;
                if truncates {
                    file.set_len(0)?;
                    cut = std::mem::take(&mut staged.bytes);
                }
                if writes {
                    staged.settling.opened();
                }
                if truncates {
                    staged.settling.emptied();
                }
                let open = OpenFile { drop, entry, from: From::Staged(file), writes, writers: Vec::new() };
                (cut, open)
            }
        };
        state.staged_bytes = state.staged_bytes.saturating_sub(cut.0);
        std::mem::drop(state);
        Ok(self.opened_dropped(entry, flags, cut.1))
    }

    fn opened_dropped(&self, entry: EntryId, flags: i32, file: OpenFile) -> Opened {
        let node = Node::DropFile(entry);
        let mut handle = Handle::new(node, flags);
        handle.dropped = Some(file);
        Opened { handle: self.handles().insert(handle), node }
    }

    /// Makes a file in a drop, and opens it.
    pub(in crate::fs) fn create_dropped(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<Opened, FsError> {
        self.options.check_changes_allowed()?;
        let (drop, directory, mut state) = self.directory(parent)?;
        let name = self.checked_name(&state, drop, directory, name)?;
        let mut names = state.owned_names(directory);
        names.push(name.clone());
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        let staged = Staged::new(Settling::created(Instant::now()), 0);
        let entry = state.forest.add_file(directory, &name, Body::Staged(staged)).ok_or_else(too_many)?;
        let file = match staging.create(&names, mode) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                state.forest.remove(entry);
                return Err(error.into());
            }
        };
        state.unsettled.insert(entry);
        state.touch(directory);
        std::mem::drop(state);
        let open = OpenFile { drop, entry, from: From::Staged(file), writes: true, writers: Vec::new() };
        Ok(self.opened_dropped(entry, flags, open))
    }

    /// The name of something that is to be made in this directory: one that can be said to a reader.
    pub(super) fn checked_name(
        &self,
        state: &MutexGuard<'_, State>,
        drop: ChannelId,
        directory: EntryId,
        name: &OsStr,
    ) -> Result<String, FsError> {
        let channel = self.channel(drop)?;
        if channel.role == Role::Reader {
            return Err(self.refused(&channel, libc::EACCES, "only its read capability is here"));
        }
        self.refuse_unusable(&channel)?;
        if name.len() > MAX_NAME_BYTES {
            return Err(FsError::quiet(libc::ENAMETOOLONG, "no name is that long"));
        }
        let name = name.to_str().ok_or_else(|| FsError::new(libc::EILSEQ, "a name in a drop must be UTF-8"))?;
        let names = state.forest.names(directory);
        let path = names.join("/");
        if path.len() > MAX_PATH_BYTES || names.len() > MAX_DEPTH || !fits(&channel, &path, name) {
            return Err(FsError::new(libc::ENAMETOOLONG, "its path is too long for one box: use shorter names"));
        }
        Ok(name.to_owned())
    }

    /// Reads a file of a drop.
    pub(in crate::fs) fn read_dropped(&self, file: &OpenFile, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
        let size = size.min(READ_BYTES);
        match &file.from {
            From::Staged(file) => Ok(read_at(file, offset, size)?),
            From::Record(record) => {
                let found = self.owner.store().drop_record(file.drop, *record)?;
                let found = found.ok_or_else(|| FsError::quiet(libc::ESTALE, "it was removed while it was open"))?;
                let read = self.owner.engine().drops().read(&found, offset, size);
                read.map_err(|error| match self.channel(file.drop) {
                    Ok(channel) => self.refused(&channel, libc::EIO, format!("{}: {error}", found.name)),
                    Err(gone) => gone,
                })
            }
        }
    }

    /// Whether the handle is of a file in a drop, whose writes go wherever they want.
    pub fn is_dropped(&self, handle: u64) -> bool {
        self.handles().find(handle).is_ok_and(|open| open.dropped.is_some())
    }

    /// Writes to a file of a drop, on behalf of this thread.
    pub fn write_dropped(&self, handle: u64, thread: u32, offset: u64, bytes: &[u8]) -> Result<u64, FsError> {
        let not_open = || FsError::quiet(libc::EBADF, "it is not open for writing");
        let open = {
            let mut handles = self.handles();
            let open = handles.find_mut(handle)?.dropped.as_mut().ok_or_else(not_open)?;
            if !open.writers.contains(&thread) && open.writers.len() < WRITERS {
                open.writers.push(thread);
            }
            open.clone()
        };
        let From::Staged(file) = open.from else { return Err(not_open()) };
        if !open.writes {
            return Err(not_open());
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= MAX_SIZE);
        let end = end.ok_or_else(|| FsError::quiet(libc::EFBIG, "no file is that long"))?;
        self.grow(open.drop, open.entry, end)?;
        if let Err(error) = file.write_all_at(bytes, offset) {
            let length = file.metadata().map_or(end, |found| found.len());
            self.room.lock().resize(open.entry, length);
            return Err(error.into());
        }
        Ok(bytes.len() as u64)
    }

    /// Has a file be at least so long, where the spool has room for it.
    pub(super) fn grow(&self, drop: ChannelId, entry: EntryId, end: u64) -> Result<(), FsError> {
        let store = self.owner.store();
        let (spooled, limit) = (store.usage()?.spool_bytes, store.limits().spool_bytes);
        let mut state = self.room.lock();
        let staged_bytes = state.staged_bytes;
        // One that was removed while it was open takes no room that is counted.
        let Some(Body::Staged(staged)) = state.forest.file_mut(entry) else { return Ok(()) };
        let growth = end.saturating_sub(staged.bytes);
        if growth > 0 && spooled.saturating_add(staged_bytes).saturating_add(growth) > limit {
            std::mem::drop(state);
            let text = format!("the spool is full: its limit is {limit} bytes; wait until some are delivered");
            return Err(self.refused(&self.channel(drop)?, libc::ENOSPC, text));
        }
        staged.bytes += growth;
        staged.settling.changed();
        state.staged_bytes += growth;
        Ok(())
    }

    /// Makes a file of a drop safe on the disk. It stays as unsettled as it was.
    pub(in crate::fs) fn sync_dropped(&self, file: &OpenFile) -> Result<(), FsError> {
        let From::Staged(staged) = &file.from else { return Ok(()) };
        let (staging, names) = {
            let state = self.room.lock();
            let staging = state.drops.get(&file.drop).map(|loaded| loaded.staging.clone());
            let there = state.forest.file(file.entry).is_some();
            (staging.filter(|_| there), state.owned_names(file.entry))
        };
        match staging {
            Some(staging) => Ok(staging.sync(staged, &names)?),
            None => Ok(staged.sync_all()?),
        }
    }

    /// The threads that wrote through an open file of a drop; `None`: nothing could be written through it.
    pub fn dropped_writers(&self, handle: u64) -> Option<Vec<u32>> {
        let handles = self.handles();
        let open = handles.find(handle).ok()?.dropped.as_ref()?;
        open.writes.then(|| open.writers.clone())
    }

    /// A program that wrote a file of a drop died of a signal: nobody says that the file is whole.
    pub fn killed(&self, handle: u64) {
        let open = self.handles().find(handle).ok().and_then(|open| open.dropped.clone());
        let Some(open) = open.filter(|open| open.writes) else { return };
        let mut state = self.room.lock();
        if let Some(Body::Staged(staged)) = state.forest.file_mut(open.entry) {
            staged.settling.killed();
        }
    }

    /// A file of a drop was closed for good.
    pub(in crate::fs) fn release_dropped(&self, open: &OpenFile) {
        if !open.writes {
            return;
        }
        let mut state = self.room.lock();
        let names = state.owned_names(open.entry);
        let Some(staging) = state.drops.get(&open.drop).map(|loaded| loaded.staging.clone()) else { return };
        if let Some(Body::Staged(staged)) = state.forest.file_mut(open.entry)
            && staged.settling.closed(Instant::now())
        {
            let finished = !staged.settling.is_unfinished();
            if let Err(error) = staging.mark(&names, finished) {
                tracing::warn!(%error, "a file of a drop could not be marked as closed; after a crash it is unfinished");
            }
            std::mem::drop(state);
            self.room.wake.notify_one();
        }
    }

    /// How long an open file is, which may have no name any more.
    pub(in crate::fs) fn open_length(&self, file: &OpenFile) -> Option<std::fs::Metadata> {
        match &file.from {
            From::Staged(file) => file.metadata().ok(),
            From::Record(_) => None,
        }
    }

    /// Why a file that is a record stays what it is.
    pub(super) fn refuse_sealed(&self, drop: ChannelId, role: Role, names: &[String]) -> FsError {
        let channel = match self.channel(drop) {
            Ok(channel) => channel,
            Err(error) => return error,
        };
        let name = names.join("/");
        match role {
            Role::Reader => self.refused(&channel, libc::EACCES, "only its read capability is here"),
            Role::Writer => {
                let text = format!("{name} is on its way as it is, and stays so: give the other version another name");
                self.refused(&channel, libc::EPERM, text)
            }
        }
    }
}

impl State {
    pub(super) fn owned_names(&self, entry: EntryId) -> Vec<String> {
        self.forest.names(entry).into_iter().map(str::to_owned).collect()
    }

    /// The names in a directory have changed.
    pub(super) fn touch(&mut self, directory: EntryId) {
        if let Some(it) = self.forest.directory_mut(directory) {
            it.modified = std::time::SystemTime::now();
            it.made = Instant::now();
        }
    }

    /// A staged file has this length now.
    pub(super) fn resize(&mut self, entry: EntryId, bytes: u64) {
        if let Some(Body::Staged(staged)) = self.forest.file_mut(entry) {
            let before = std::mem::replace(&mut staged.bytes, bytes);
            self.staged_bytes = self.staged_bytes.saturating_sub(before) + bytes;
        }
    }
}

/// Whether a header with this path and name fits into a box, whatever else it will say.
fn fits(channel: &Channel, path: &str, name: &str) -> bool {
    let header = Header {
        name: name.to_owned(),
        path: path.to_owned(),
        size: MAX_SIZE,
        digest: Some([0; 32]),
        sync: Some([0; 16]),
        ..Header::default()
    };
    header.encode(channel.max_plaintext).is_ok()
}

pub(super) fn too_many() -> FsError {
    FsError::new(libc::ENOSPC, "there are too many files in drops: forget drops that are done with")
}

fn read_at(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
