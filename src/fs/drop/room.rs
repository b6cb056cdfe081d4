//! What is in drops, as it is shown: names of records from the store, and of files that are none yet from the disk.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;
use tracing::warn;

use super::settle::Settling;
use super::staging::{self, Found, MOUNT, Staging};
use super::tree::{EntryId, Forest, MAX_ENTRIES, What};
use crate::drop::{Kind, MAX_FILE_NAME_BYTES, SafeName, SafePath};
use crate::engine::drops::Drops;
use crate::fs::{Fs, FsError, Node};
use crate::store::{ChannelId, DropRecord, RecordId, RecordState, Role};

/// Records that are asked for at a time.
const PAGE: usize = 256;

/// The drops of a mount.
pub(in crate::fs) struct Room {
    state: Mutex<State>,
    /// Told when a file that was being handed over is so, or is not.
    pub(super) handed: Condvar,
    /// Told when something may be due earlier than it seemed.
    pub(super) wake: Notify,
}

pub(super) struct State {
    pub(super) forest: Forest<Body, Directory>,
    pub(super) drops: HashMap<ChannelId, Loaded>,
    /// Files that are no records, and directories that no reader knows.
    pub(super) unsettled: BTreeSet<EntryId>,
    /// Bytes of files that are no records.
    pub(super) staged_bytes: u64,
    same_boot: Option<bool>,
    /// The listing of channels when all drops were looked for.
    pub(super) met: Option<SystemTime>,
}

/// A drop whose names are known.
pub(super) struct Loaded {
    pub(super) role: Role,
    pub(super) staging: Staging,
    /// Records up to this one were looked at.
    after: Option<RecordId>,
    /// And these behind it.
    pub(super) listed: BTreeSet<RecordId>,
    /// Files for which there is no room in the listing.
    pub(super) hidden: u64,
    /// Where the search for a free name begins, for each name that was taken.
    taken: HashMap<(EntryId, String), u32>,
}

/// A file.
pub(super) enum Body {
    Staged(Staged),
    Sealed(Sealed),
}

/// A file that is no record yet.
pub(super) struct Staged {
    pub(super) settling: Settling,
    pub(super) bytes: u64,
    /// Its second link, while it is being handed over.
    pub(super) handing: Option<PathBuf>,
    /// It was refused, and is not tried again before.
    pub(super) refused: Option<Refused>,
}

/// Why a file was not handed over.
pub(super) struct Refused {
    pub(super) until: Instant,
    pub(super) reason: String,
}

/// A file that is a record.
pub(super) struct Sealed {
    pub(super) record: RecordId,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// A directory.
pub(super) struct Directory {
    /// Since when it is empty and nobody else knows of it.
    pub(super) made: Instant,
    /// Readers know of it, or will.
    pub(super) known: bool,
    /// The record that tells of it alone.
    pub(super) record: Option<RecordId>,
    pub(super) handing: bool,
    pub(super) modified: SystemTime,
}

impl Default for Directory {
    fn default() -> Self {
        Self { made: Instant::now(), known: false, record: None, handing: false, modified: SystemTime::now() }
    }
}

impl Staged {
    pub(super) fn new(settling: Settling, bytes: u64) -> Self {
        Self { settling, bytes, handing: None, refused: None }
    }
}

impl Room {
    pub(in crate::fs) fn new() -> Self {
        Self::with_limit(MAX_ENTRIES)
    }

    fn with_limit(limit: usize) -> Self {
        let state = State {
            forest: Forest::new(limit),
            drops: HashMap::new(),
            unsettled: BTreeSet::new(),
            staged_bytes: 0,
            same_boot: None,
            met: None,
        };
        Self { state: Mutex::new(state), handed: Condvar::new(), wake: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing of this is being handed over: a commit long.
    pub(super) fn settled<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        entries: &[EntryId],
    ) -> MutexGuard<'a, State> {
        while entries.iter().any(|&entry| state.is_handed_over(entry)) {
            state = self.handed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Bytes of files that are no records yet.
    pub(in crate::fs) fn staged_bytes(&self) -> u64 {
        self.lock().staged_bytes
    }
}

impl Fs {
    /// The names in drops, with those of this one up to date.
    pub(super) fn names_in(&self, drop: ChannelId) -> Result<MutexGuard<'_, State>, FsError> {
        let mut state = self.room.lock();
        if state.forest.root(drop).is_none()
            && let Err(error) = self.load(&mut state, drop)
        {
            state.forget(drop);
            return Err(error);
        }
        self.refresh(&mut state, drop)?;
        Ok(state)
    }

    /// The drop that a directory is in, and the directory's number there.
    pub(super) fn directory(&self, node: Node) -> Result<(ChannelId, EntryId, MutexGuard<'_, State>), FsError> {
        match node {
            Node::Drop(drop) => {
                self.channel(drop)?;
                let state = self.names_in(drop)?;
                let root = state.forest.root(drop).ok_or_else(gone)?;
                Ok((drop, root, state))
            }
            Node::DropDirectory(entry) => {
                let drop = self.room.lock().forest.entry(entry).ok_or_else(gone)?.drop;
                let state = self.names_in(drop)?;
                Ok((drop, entry, state))
            }
            _ => Err(FsError::quiet(libc::ENOTDIR, "it is no directory of a drop")),
        }
    }

    fn load(&self, state: &mut State, drop: ChannelId) -> Result<(), FsError> {
        let channel = self.channel(drop)?;
        let mount = self.owner.engine().drops().directory()?.join(MOUNT);
        let same_boot = match state.same_boot {
            Some(same) => same,
            None => staging::is_same_boot(&mount)?,
        };
        state.same_boot = Some(same_boot);
        let root = state.forest.plant(drop);
        let staging = Staging::of(&mount, drop);
        let loaded = Loaded {
            role: channel.role,
            staging: staging.clone(),
            after: None,
            listed: BTreeSet::new(),
            hidden: 0,
            taken: HashMap::new(),
        };
        state.drops.insert(drop, loaded);
        self.refresh(state, drop)?;
        if channel.role == Role::Writer {
            self.load_staged(state, drop, root, &staging, same_boot)?;
        }
        Ok(())
    }

    fn load_staged(
        &self,
        state: &mut State,
        drop: ChannelId,
        root: EntryId,
        staging: &Staging,
        same_boot: bool,
    ) -> Result<(), FsError> {
        let drops = self.owner.engine().drops();
        for (names, found) in staging.found(same_boot)? {
            let Some((name, directories)) = names.split_last() else { continue };
            let Some(directory) = state.directories(drop, root, directories.iter().map(String::as_str)) else {
                warn!("there is no room in memory for all files of a drop; some are not shown");
                break;
            };
            let Found::File { bytes, finished, sent } = found else {
                if state.directories(drop, directory, [name.as_str()]).is_none() {
                    break;
                }
                continue;
            };
            if let Some(sent) = sent {
                if self.is_record(drops, &sent)? {
                    staging.remove_file(&names)?;
                    continue;
                }
                std::fs::remove_file(sent)?;
            }
            // A verb may have sent another file under its name meanwhile.
            let free = state.free_name(drop, directory, name);
            if free != *name {
                let mut renamed = directories.to_vec();
                renamed.push(free.clone());
                staging.rename(&names, &renamed, false)?;
            }
            let staged = Staged::new(Settling::found(finished, Instant::now()), bytes);
            if let Some(entry) = state.forest.add_file(directory, &free, Body::Staged(staged)) {
                state.unsettled.insert(entry);
                state.staged_bytes += bytes;
            }
        }
        for sent in staging.links()? {
            if !self.is_record(drops, &sent)? {
                std::fs::remove_file(sent)?;
            }
        }
        Ok(())
    }

    /// Whether a record's bytes are in this file.
    fn is_record(&self, drops: &Drops, path: &std::path::Path) -> Result<bool, FsError> {
        let below = path.strip_prefix(drops.directory()?).ok().and_then(std::path::Path::to_str);
        Ok(match below {
            Some(name) => self.owner.store().is_staged(name)?,
            None => false,
        })
    }

    /// Takes in the records that there are by now.
    fn refresh(&self, state: &mut State, drop: ChannelId) -> Result<(), FsError> {
        let Some(mut cursor) = state.drops.get(&drop).map(|loaded| loaded.after) else { return Ok(()) };
        let mut passed = true;
        loop {
            let page = self.owner.store().records(drop, cursor, PAGE)?;
            for record in &page {
                passed &= record.state != RecordState::Incomplete;
                let known = state.drops.get_mut(&drop).is_none_or(|loaded| !loaded.listed.insert(record.id));
                if !known && record.state == RecordState::Incomplete {
                    // It is looked at again.
                    state.drops.get_mut(&drop).map(|loaded| loaded.listed.remove(&record.id));
                } else if !known {
                    state.list(drop, record);
                }
                if passed && let Some(loaded) = state.drops.get_mut(&drop) {
                    loaded.after = Some(record.id);
                    loaded.listed.remove(&record.id);
                }
            }
            cursor = page.last().map(|record| record.id);
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}

impl State {
    fn is_handed_over(&self, entry: EntryId) -> bool {
        match self.forest.entry(entry).map(|entry| &entry.what) {
            Some(What::File(Body::Staged(staged))) => staged.handing.is_some(),
            Some(What::Directory(directory, _)) => directory.handing,
            _ => false,
        }
    }

    /// Forgets a drop that is no more, or could not be read.
    pub(super) fn forget(&mut self, drop: ChannelId) {
        let root = self.forest.root(drop);
        for entry in root.map(|root| self.forest.below(root)).unwrap_or_default() {
            self.unsettle(entry);
        }
        self.forest.fell(drop);
        self.drops.remove(&drop);
    }

    /// A file or directory is settled, or goes.
    pub(super) fn unsettle(&mut self, entry: EntryId) {
        self.unsettled.remove(&entry);
        if let Some(Body::Staged(staged)) = self.forest.file(entry) {
            self.staged_bytes = self.staged_bytes.saturating_sub(staged.bytes);
        }
    }

    /// A staged file is a record from now on; so is what leads to it.
    pub(super) fn seal(&mut self, entry: EntryId, record: RecordId, size: u64, modified: SystemTime) {
        self.unsettle(entry);
        if let Some(body) = self.forest.file_mut(entry) {
            *body = Body::Sealed(Sealed { record, size, modified });
        }
        self.known(entry);
    }

    /// Readers know of the directories that lead to this one.
    pub(super) fn known(&mut self, entry: EntryId) {
        let mut at = entry;
        while let Some(parent) = self.forest.entry(at).map(|entry| entry.parent).filter(|&parent| parent != at) {
            self.unsettled.remove(&parent);
            match self.forest.directory_mut(parent) {
                Some(directory) if !directory.known => directory.known = true,
                _ => return,
            }
            at = parent;
        }
    }

    /// Shows a record of the store under the name that it has, or one that is free.
    fn list(&mut self, drop: ChannelId, record: &DropRecord) {
        let (Some(header), Some(root)) = (&record.header, self.forest.root(drop)) else { return };
        let goes = matches!(record.state, RecordState::Deleting | RecordState::Deleted | RecordState::Broken);
        if goes || record.part.is_some_and(|(_, part)| part > 0) {
            return;
        }
        let ours = self.drops.get(&drop).is_some_and(|loaded| loaded.role == Role::Writer);
        let mut directories: Vec<String> = if ours && header.path.split('/').all(is_file_name) {
            header.path.split('/').map(str::to_owned).collect()
        } else {
            SafePath::of(&header.path).names().iter().map(ToString::to_string).collect()
        };
        let name = if ours && is_file_name(&record.name) {
            record.name.clone()
        } else {
            SafeName::of(&record.name).to_string()
        };
        if header.kind == Kind::EmptyDirectory {
            directories.push(name);
            match self.directories(drop, root, directories.iter().map(String::as_str)) {
                Some(entry) => {
                    self.unsettled.remove(&entry);
                    self.known(entry);
                    if let Some(directory) = self.forest.directory_mut(entry) {
                        directory.known = true;
                        directory.record = Some(record.id);
                        directory.handing = false;
                    }
                }
                None => self.hide(drop),
            }
            return;
        }
        let size = Drops::size(record);
        let told = header.mtime.and_then(|at| u64::try_from(at).ok());
        let told = told.map(|at| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at));
        let modified = record.modified.or(told).unwrap_or(record.created);
        let Some(directory) = self.directories(drop, root, directories.iter().map(String::as_str)) else {
            return self.hide(drop);
        };
        // The one that is being handed over, seen before it was told so.
        if let Some(there) = self.forest.child(directory, &name)
            && let Some(Body::Staged(Staged { handing: Some(path), .. })) = self.forest.file(there)
            && record.staging.as_ref().is_some_and(|staging| path.ends_with(staging))
        {
            return self.seal(there, record.id, size, modified);
        }
        let free = self.free_name(drop, directory, &name);
        let sealed = Body::Sealed(Sealed { record: record.id, size, modified });
        match self.forest.add_file(directory, &free, sealed) {
            Some(entry) => self.known(entry),
            None => self.hide(drop),
        }
    }

    fn hide(&mut self, drop: ChannelId) {
        if let Some(loaded) = self.drops.get_mut(&drop) {
            loaded.hidden += 1;
        }
    }

    /// The directory with these names below another, made where it is missing. Where a file has the name of one, it gets
    /// the next that is free. None: there are too many.
    pub(super) fn directories<'a>(
        &mut self,
        drop: ChannelId,
        below: EntryId,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Option<EntryId> {
        let mut at = below;
        for name in names {
            let safe = SafeName::of(name);
            let mut tried = name.to_owned();
            let mut count = 0;
            at = loop {
                match self.forest.child(at, &tried) {
                    Some(there) if self.forest.directory(there).is_some() => break there,
                    Some(_) => {
                        count += 1;
                        tried = safe.numbered(count).to_string();
                    }
                    None => {
                        let made = self.forest.add_directory(at, &tried, Directory::default())?;
                        if self.drops.get(&drop).is_some_and(|loaded| loaded.role == Role::Writer) {
                            self.unsettled.insert(made);
                        }
                        break made;
                    }
                }
            };
        }
        Some(at)
    }

    /// This name, or the next that is free.
    fn free_name(&mut self, drop: ChannelId, directory: EntryId, name: &str) -> String {
        if self.forest.child(directory, name).is_none() {
            return name.to_owned();
        }
        let safe = SafeName::of(name);
        let key = (directory, name.to_owned());
        let from = self.drops.get(&drop).and_then(|loaded| loaded.taken.get(&key)).copied().unwrap_or(1);
        let mut count = from;
        while self.forest.child(directory, safe.numbered(count).as_str()).is_some() {
            count += 1;
        }
        if let Some(loaded) = self.drops.get_mut(&drop) {
            loaded.taken.insert(key, count + 1);
        }
        safe.numbered(count).to_string()
    }
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_FILE_NAME_BYTES && !name.contains(['/', '\0'])
}

pub(super) fn gone() -> FsError {
    FsError::quiet(libc::ENOENT, "it was removed from the drop")
}
