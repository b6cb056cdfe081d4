//! Open files in drops: those that are being written, wherever in them, and those that are records.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::lot::Lot;
use super::room::{Body, Staged, State, Unlinked, gone};
use super::settle::{Fault, Opening, Settling};
use super::staging;
use super::tree::EntryId;
use crate::drop::{Header, MAX_PATH_BYTES, MAX_SIZE};
use crate::engine::drops::DropError;
use crate::fs::handle::Handle;
use crate::fs::{Attributes, Credentials, Fs, FsError, Node, Opened, READ_BYTES};
use crate::store::{Channel, ChannelId, MAX_NAME_BYTES, RecordId, Role, StagedFile};

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
    /// What the file was when it was opened for writing.
    opening: Option<Opening>,
    /// Threads that wrote through it.
    writers: Vec<u32>,
}

#[derive(Clone, Debug)]
enum From {
    Staged(Arc<StagedFile>),
    Record {
        record: RecordId,
        /// It is compressed.
        packed: bool,
    },
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
            state = self.room.settled(state, &[entry])?;
        }
        let Some(drop) = state.forest.entry(entry).map(|entry| entry.drop) else {
            return self.open_unlinked(&state, entry, flags);
        };
        let names = state.owned_names(entry);
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let (role, staging) = (loaded.role, loaded.staging.clone());
        match state.forest.file_mut(entry) {
            None => Err(FsError::quiet(libc::EISDIR, "it is a directory")),
            Some(Body::Sealed(_)) if writes => {
                std::mem::drop(state);
                Err(self.refuse_sealed(drop, role, &names))
            }
            Some(Body::Sealed(sealed)) => {
                let from = From::Record { record: sealed.record, packed: sealed.packed };
                let file = OpenFile { drop, entry, from, writes, opening: None, writers: Vec::new() };
                Ok(self.opened_dropped(&state, flags, file))
            }
            Some(Body::Staged(staged)) => {
                let file = staging.open(&names, writes)?;
                if truncates {
                    file.set_len(0)?;
                    staged.settling.emptied();
                }
                let opening = writes.then(|| staged.settling.opened());
                if truncates {
                    state.recount(entry, 0, 0);
                }
                let from = From::Staged(Arc::new(file));
                let file = OpenFile { drop, entry, from, writes, opening, writers: Vec::new() };
                Ok(self.opened_dropped(&state, flags, file))
            }
        }
    }

    /// Opens a file once more that has no name any more, and that somebody still has open.
    fn open_unlinked(&self, state: &MutexGuard<'_, State>, entry: EntryId, flags: i32) -> Result<Opened, FsError> {
        let unlinked = state.unlinked.get(&entry).ok_or_else(gone)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        let file = staging::reopen(&unlinked.file, writes)?;
        if flags & libc::O_TRUNC != 0 {
            file.set_len(0)?;
        }
        let from = From::Staged(Arc::new(file));
        let file = OpenFile { drop: unlinked.drop, entry, from, writes, opening: None, writers: Vec::new() };
        Ok(self.opened_dropped(state, flags, file))
    }

    /// A handle of an open file. The names stay locked until it is there, so that nobody who removes the file takes it
    /// for one that nobody has open.
    fn opened_dropped(&self, _: &MutexGuard<'_, State>, flags: i32, file: OpenFile) -> Opened {
        let node = Node::DropFile(file.entry);
        let mut handle = Handle::new(node, flags);
        handle.dropped = Some(file);
        Opened { handle: self.handles().insert(handle), node }
    }

    /// The file is about to lose its name: whoever has it open goes on with its bytes, for as long as it is open.
    pub(super) fn keep_open(&self, state: &mut State, entry: EntryId) -> Result<(), FsError> {
        let Some(Body::Staged(_) | Body::Sealed(_)) = state.forest.file(entry) else { return Ok(()) };
        let node = Node::DropFile(entry);
        if !self.handles().is_open(node) {
            return Ok(());
        }
        let drop = state.forest.entry(entry).ok_or_else(gone)?.drop;
        let mut file = None;
        self.handles().each_of(node, |handle| {
            if let Some(OpenFile { from: From::Staged(open), .. }) = &handle.dropped {
                file = Some(Arc::clone(open));
            }
        });
        if let Some(Body::Sealed(sealed)) = state.forest.file(entry) {
            let record = self.owner.store().drop_record(drop, sealed.record)?;
            if let Some(staging) = record.and_then(|record| record.staging) {
                // One that is stored is still in its boxes.
                let path = self.owner.engine().drops().directory()?.join(staging);
                let sealing = self.owner.store().sealing();
                file = File::open(path).and_then(|file| sealing.open(file)).ok().map(Arc::new);
            }
        }
        let Some(file) = file else { return Ok(()) };
        self.handles().each_of(node, |handle| {
            if let Some(open) = &mut handle.dropped
                && let From::Record { .. } = open.from
            {
                open.from = From::Staged(Arc::clone(&file));
            }
        });
        state.unlinked.insert(entry, Unlinked { drop, file });
        Ok(())
    }

    /// Makes a file in a drop, and opens it.
    pub(in crate::fs) fn create_dropped(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        flags: i32,
        by: Credentials,
    ) -> Result<Opened, FsError> {
        let (state, drop, entry, file) = self.stage(parent, name, mode, true, by)?;
        let opening = match state.forest.file(entry) {
            Some(Body::Staged(staged)) => Some(staged.settling.opening()),
            _ => None,
        };
        let open =
            OpenFile { drop, entry, from: From::Staged(Arc::new(file)), writes: true, opening, writers: Vec::new() };
        Ok(self.opened_dropped(&state, flags, open))
    }

    /// Makes an empty file in a drop, as mknod(2) does. It rests from now on.
    pub(in crate::fs) fn make_dropped(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        by: Credentials,
    ) -> Result<Attributes, FsError> {
        let (state, drop, entry, _) = self.stage(parent, name, mode, false, by)?;
        let names = state.owned_names(entry);
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        staging.mark(&names, true)?;
        std::mem::drop(state);
        self.look_again(drop);
        self.attributes(Node::DropFile(entry), None)
    }

    fn stage(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        open: bool,
        by: Credentials,
    ) -> Result<(MutexGuard<'_, State>, ChannelId, EntryId, StagedFile), FsError> {
        self.options.check_changes_allowed()?;
        let (drop, directory, mut state) = self.directory(parent)?;
        let name = self.checked_name(&state, drop, directory, name)?;
        let mut names = state.owned_names(directory);
        names.push(name.clone());
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        let staged = Staged::new(Settling::created(open, Instant::now()), 0);
        let entry = state.forest.add_file(directory, &name, Body::Staged(staged.into())).ok_or_else(too_many)?;
        let made = staging.create(&names, mode).and_then(|file| {
            self.give(&file, by)?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                state.forest.remove(entry);
                return Err(error.into());
            }
        };
        state.unsettled.insert(entry);
        state.own(entry, by, &self.options);
        state.touch(directory);
        Ok((state, drop, entry, file))
    }

    /// Where this process may, the file belongs to who made it on the disk too, and so for later mounts.
    fn give(&self, file: &StagedFile, by: Credentials) -> io::Result<()> {
        let ours = (self.options.uid, self.options.gid) == (by.uid, by.gid);
        if ours || !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        std::os::unix::fs::fchown(file.file(), Some(by.uid), Some(by.gid))
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
        if self.owner.store().sealing().name(name).is_err() {
            return Err(FsError::quiet(libc::ENAMETOOLONG, "a sealed state keeps names in drops of at most 175 bytes"));
        }
        let names = state.forest.names(directory);
        let path = names.join("/");
        let too_long = |text: String| Err(self.refused(&channel, libc::ENAMETOOLONG, text));
        if names.len() > MAX_DEPTH {
            return too_long(format!("files in drops can be in at most {MAX_DEPTH} directories within one another"));
        }
        if path.len() > MAX_PATH_BYTES {
            return too_long(format!(
                "the directories of a file in a drop can have at most {MAX_PATH_BYTES} bytes of names"
            ));
        }
        if !fits(&channel, &path, name) {
            return too_long(
                "the file's name and its directories do not fit into one box: use shorter names".to_owned(),
            );
        }
        Ok(name.to_owned())
    }

    /// Reads a file of a drop.
    pub(in crate::fs) fn read_dropped(
        &self,
        file: &OpenFile,
        offset: u64,
        size: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<u8>, FsError> {
        let size = size.min(READ_BYTES);
        match &file.from {
            From::Staged(file) => Ok(read_at(file, offset, size)?),
            From::Record { record, .. } => {
                let found = self.owner.store().drop_record(file.drop, *record)?;
                let found = found.ok_or_else(|| FsError::quiet(libc::ESTALE, "it was removed while it was open"))?;
                let read = self.owner.engine().drops().read_until(&found, offset, size, stop);
                read.map_err(|error| match (error, self.channel(file.drop)) {
                    (DropError::Stopped, _) => FsError::quiet(libc::EINTR, "interrupted"),
                    (error, Ok(channel)) => self.refused(&channel, libc::EIO, format!("{}: {error}", found.name)),
                    (_, Err(gone)) => gone,
                })
            }
        }
    }

    /// Whether the handle is of a compressed file: to read it may take long, and then goes through [`Fs::unpack`].
    pub fn is_packed(&self, handle: u64) -> bool {
        let handles = self.handles();
        let open = handles.find(handle).ok().and_then(|open| open.dropped.as_ref());
        open.is_some_and(|open| matches!(open.from, From::Record { packed: true, .. }))
    }

    /// Reads a compressed file of a drop, until `stop` is set: then EINTR.
    pub fn unpack(&self, handle: u64, offset: u64, size: usize, stop: &AtomicBool) -> Result<Vec<u8>, FsError> {
        let open = self.handles().find(handle)?.dropped.clone();
        let open = open.ok_or_else(|| FsError::quiet(libc::EBADF, "it is no file of a drop"))?;
        self.read_dropped(&open, offset, size, stop)
    }

    /// Whether the handle is of a file in a drop, whose writes go wherever they want.
    pub fn is_dropped(&self, handle: u64) -> bool {
        self.handles().find(handle).is_ok_and(|open| open.dropped.is_some())
    }

    /// Writes to a file of a drop, on behalf of this thread; 0 where nobody can say whose bytes they are. What is refused leaves the file unfinished.
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
        let From::Staged(file) = &open.from else { return Err(not_open()) };
        if !open.writes {
            return Err(not_open());
        }
        let written = self.write_staged(&open, file, offset, bytes);
        if written.is_err() {
            self.fail_dropped(&open, Fault::Refused);
        } else if thread == 0
            && !self.options.trust_close
            && let Some(Body::Staged(staged)) = self.room.lock().forest.file_mut(open.entry)
        {
            // So the kernel writes what is in a map, for whomever.
            staged.settling.written_from_map();
        }
        written
    }

    fn write_staged(&self, open: &OpenFile, file: &StagedFile, offset: u64, bytes: &[u8]) -> Result<u64, FsError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= MAX_SIZE);
        let end = end.ok_or_else(|| FsError::quiet(libc::EFBIG, "no file is that long"))?;
        self.reserve(open.drop, open.entry, end, bytes.len() as u64)?;
        let result = file.write_all_at(bytes, offset);
        if let Ok((length, held)) = room_of(file) {
            let mut state = self.room.lock();
            state.recount(open.entry, length, held);
            if let (Some(Body::Staged(staged)), 0, Some(opening)) =
                (state.forest.file_mut(open.entry), offset, open.opening)
            {
                staged.settling.written_anew(opening);
            }
        }
        result?;
        Ok(bytes.len() as u64)
    }

    /// Has a file be at least so long and hold so many bytes more, where the spool has room for it.
    fn reserve(&self, drop: ChannelId, entry: EntryId, end: u64, bytes: u64) -> Result<(), FsError> {
        let store = self.owner.store();
        let (spooled, limit) = (store.usage()?.spool_bytes, store.limits().spool_bytes);
        let mut state = self.room.lock();
        let staged_bytes = state.staged_bytes;
        // One that was removed while it was open takes no room that is counted.
        let Some(Body::Staged(staged)) = state.forest.file_mut(entry) else { return Ok(()) };
        let length = staged.length.max(end);
        // Holes take no room until something is written into them.
        let growth = staged.held.saturating_add(bytes).min(length).saturating_sub(staged.held);
        if growth > 0 && spooled.saturating_add(staged_bytes).saturating_add(growth) > limit {
            let alone = staged.held.saturating_add(growth) > limit;
            let unfinished = state.unfinished_bytes();
            std::mem::drop(state);
            let text = if alone {
                format!(
                    "the file would be larger than the spool's limit of {limit} bytes; mount with a larger --spool-limit"
                )
            } else {
                let mut text = format!(
                    "the spool is full: of its limit of {limit} bytes {spooled} wait for the network, and {staged_bytes} \
                     are in files that are not sent yet"
                );
                if unfinished > 0 {
                    text.push_str(&format!(
                        ", {unfinished} of them in unfinished ones: write those anew, remove them, or release them with \
                         `pigeonfs send --finish`"
                    ));
                } else {
                    text.push_str("; wait until some are delivered, or remove files that were not sent");
                }
                text
            };
            return Err(self.refused(&self.channel(drop)?, libc::ENOSPC, text));
        }
        staged.length = length;
        staged.held += growth;
        staged.settling.changed();
        state.staged_bytes += growth;
        Ok(())
    }

    /// Cuts a file of a drop off or has it grow, through an open file or by its name.
    pub(super) fn resize_dropped(
        &self,
        drop: ChannelId,
        entry: EntryId,
        size: u64,
        through: Option<&OpenFile>,
    ) -> Result<(), FsError> {
        if size > MAX_SIZE {
            if let Some(open) = through {
                self.fail_dropped(open, Fault::Refused);
            }
            return Err(FsError::quiet(libc::EFBIG, "no file is that long"));
        }
        let mut state = self.room.lock();
        let names = state.owned_names(entry);
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        let Some(Body::Staged(staged)) = state.forest.file_mut(entry) else { return Err(gone()) };
        let closed = !staged.settling.is_open();
        let opening = match through {
            Some(open) => open.opening,
            // By its name: whoever does that now.
            None => Some(staged.settling.opening()),
        };
        let resized = staging.open(&names, true).and_then(|file| {
            file.set_len(size)?;
            room_of(&file)
        });
        let found = match resized {
            Ok(found) => found,
            Err(error) => {
                if through.is_some() {
                    staged.settling.failed(Fault::Refused);
                }
                return Err(error.into());
            }
        };
        staged.settling.changed();
        if let (0, Some(opening)) = (size, opening) {
            staged.settling.written_anew(opening);
        }
        if closed {
            staged.settling.moved(Instant::now());
            if staged.settling.fault().is_none() {
                staging.mark(&names, true)?;
            }
        }
        state.recount(entry, found.0, found.1);
        std::mem::drop(state);
        self.look_again(drop);
        Ok(())
    }

    /// Makes a file of a drop safe on the disk. It stays as unsettled as it was.
    pub(in crate::fs) fn sync_dropped(&self, open: &OpenFile) -> Result<(), FsError> {
        let From::Staged(file) = &open.from else { return Ok(()) };
        let (staging, names, syncing) = {
            let state = self.room.lock();
            let staging = state.drops.get(&open.drop).map(|loaded| loaded.staging.clone());
            let syncing = match state.forest.file(open.entry) {
                Some(Body::Staged(staged)) => Some(staged.settling.syncing()),
                _ => None,
            };
            (staging.filter(|_| state.forest.file(open.entry).is_some()), state.owned_names(open.entry), syncing)
        };
        let synced = match staging {
            Some(staging) => staging.sync(file, &names),
            None => file.sync_all(),
        };
        if let Err(error) = synced {
            self.fail_dropped(open, Fault::Refused);
            return Err(error.into());
        }
        if let (Some(syncing), Some(Body::Staged(staged))) = (syncing, self.room.lock().forest.file_mut(open.entry)) {
            staged.settling.synced(syncing);
        }
        Ok(())
    }

    /// The threads that wrote through an open file of a drop; `None`: nothing could be written through it.
    pub fn dropped_writers(&self, handle: u64) -> Option<Vec<u32>> {
        let handles = self.handles();
        let open = handles.find(handle).ok()?.dropped.as_ref()?;
        open.writes.then(|| open.writers.clone())
    }

    /// A program that wrote a file of a drop died of a signal: nobody says that the file is whole.
    pub fn killed(&self, handle: u64) {
        if let Some(open) = self.open_for_writing(handle) {
            self.fail_dropped(&open, Fault::Killed);
        }
    }

    /// A program that can be seen, and was not killed, closes a file of a drop.
    pub fn closed_in_order(&self, handle: u64) {
        let Some(open) = self.open_for_writing(handle) else { return };
        if let Some(Body::Staged(staged)) = self.room.lock().forest.file_mut(open.entry) {
            staged.settling.closed_in_order();
        }
    }

    /// A program that may have written a file of a drop closes it, and whether it was killed cannot be seen.
    pub fn closed_unseen(&self, handle: u64) {
        if self.options.trust_close {
            return;
        }
        let Some(open) = self.open_for_writing(handle) else { return };
        if let Some(Body::Staged(staged)) = self.room.lock().forest.file_mut(open.entry) {
            staged.settling.closed_unseen();
        }
    }

    /// The caller of a write, fsync or change of length heard of an error, and nothing here knows of the call.
    pub fn call_lost(&self, handle: u64) {
        if let Some(open) = self.open_for_writing(handle) {
            self.fail_dropped(&open, Fault::Refused);
        }
        if let Ok(open) = self.handles().find_mut(handle) {
            open.fail(&FsError::quiet(libc::EIO, "a write was refused: this machine's memory was short"));
        }
    }

    fn open_for_writing(&self, handle: u64) -> Option<OpenFile> {
        let open = self.handles().find(handle).ok()?.dropped.clone()?;
        open.writes.then_some(open)
    }

    fn fail_dropped(&self, open: &OpenFile, fault: Fault) {
        if let Some(Body::Staged(staged)) = self.room.lock().forest.file_mut(open.entry) {
            staged.settling.failed(fault);
        }
    }

    /// A file of a drop was closed for good.
    pub(in crate::fs) fn release_dropped(&self, open: &OpenFile) {
        let mut state = self.room.lock();
        if state.unlinked.contains_key(&open.entry) && !self.handles().is_open(Node::DropFile(open.entry)) {
            state.unlinked.remove(&open.entry);
        }
        if !open.writes {
            return;
        }
        let names = state.owned_names(open.entry);
        let Some(staging) = state.drops.get(&open.drop).map(|loaded| loaded.staging.clone()) else { return };
        if let Some(Body::Staged(staged)) = state.forest.file_mut(open.entry)
            && staged.settling.closed(Instant::now())
        {
            let finished = staged.settling.fault().is_none();
            if let Err(error) = staging.mark(&names, finished) {
                tracing::warn!(%error, "a file of a drop could not be marked as closed; after a crash it is unfinished");
            }
            std::mem::drop(state);
            self.look_again(open.drop);
        }
    }

    /// The file behind an open file that has no name any more.
    pub(in crate::fs) fn unlinked(&self, file: &OpenFile) -> Option<Arc<StagedFile>> {
        match &file.from {
            From::Staged(file) => Some(Arc::clone(file)),
            From::Record { .. } => None,
        }
    }

    /// A person says that an unfinished file of a drop is whole.
    pub fn finish(&self, drop: ChannelId, path: &str) -> Result<(), FsError> {
        self.options.check_changes_allowed()?;
        let mut state = self.names_in(drop)?;
        let missing = || FsError::quiet(libc::ENOENT, format!("there is no file {path:?} that is not sent yet"));
        let root = state.forest.root(drop).ok_or_else(missing)?;
        let entry = path.split('/').try_fold(root, |at, name| state.forest.child(at, name)).ok_or_else(missing)?;
        let names = state.owned_names(entry);
        let staging = state.drops.get(&drop).ok_or_else(missing)?.staging.clone();
        let refused = |text: String| Err(FsError::quiet(libc::EINVAL, text));
        let lot = Lot::of(names.iter().map(String::as_str));
        let staged = match state.forest.file_mut(entry) {
            Some(Body::Staged(staged)) => staged,
            Some(Body::Sealed(_)) => return refused(format!("{path:?} is sent, or on its way")),
            None => return refused(format!("{path:?} is a directory; name the files in it")),
        };
        if staged.settling.is_open() {
            return refused(format!("{path:?} is open for writing; it can be finished once it is closed"));
        }
        if lot != Lot::Sent {
            return refused(format!("{path:?} has a name that is not sent: rename it, and it is sent"));
        }
        staging.mark(&names, true)?;
        staged.settling.finished(Instant::now());
        std::mem::drop(state);
        self.look_again(drop);
        Ok(())
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
            it.listed = it.modified;
            it.made = Instant::now();
        }
    }

    /// A staged file has this length now, and takes so many bytes.
    pub(super) fn recount(&mut self, entry: EntryId, length: u64, held: u64) {
        if let Some(Body::Staged(staged)) = self.forest.file_mut(entry) {
            staged.length = length;
            let before = std::mem::replace(&mut staged.held, held);
            self.staged_bytes = self.staged_bytes.saturating_sub(before) + held;
        }
    }

    /// Bytes of files that are not sent as they are.
    fn unfinished_bytes(&self) -> u64 {
        let staged = self.unsettled.iter().filter_map(|&entry| match self.forest.file(entry) {
            Some(Body::Staged(staged)) if staged.settling.fault().is_some() => Some(staged.held),
            _ => None,
        });
        staged.sum()
    }
}

/// What a file takes of the disk: no more than its length, and less where it has holes.
pub(super) fn held(length: u64, found: &std::fs::Metadata) -> u64 {
    length.min(found.blocks().saturating_mul(512))
}

/// The length of a file, and what it takes of the disk.
fn room_of(file: &StagedFile) -> io::Result<(u64, u64)> {
    let length = file.content_len()?;
    Ok((length, held(length, &file.metadata()?)))
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

pub(in crate::fs) fn read_at(file: &StagedFile, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}
