//! What is in drops, as it is shown: names of records from the store, and of files that are none yet from the disk.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;
use tracing::warn;

use super::settle::Settling;
use super::staging::{self, Found, MOUNT, Staging};
use super::tree::{EntryId, Forest, MAX_ENTRIES, What};
use crate::drop::{Digest, Kind, MAX_FILE_NAME_BYTES, SafeName, SafePath};
use crate::engine::drops::Drops;
use crate::fs::{Credentials, Fs, FsError, Node, Options};
use crate::store::{ChannelId, DropRecord, RecordId, RecordState, Role, StagedFile};

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
    /// Files that have no name any more, and that somebody has open.
    pub(super) unlinked: HashMap<EntryId, Unlinked>,
    /// Who made a file or directory, where that was not who mounted.
    pub(super) owners: HashMap<EntryId, Credentials>,
    /// Hand-overs whose outcome the store could not tell.
    pub(super) open: Vec<super::hand::Handoff>,
    same_boot: Option<bool>,
    /// The listing of channels when all drops were looked for.
    pub(super) met: Option<SystemTime>,
}

/// A drop whose names are known.
pub(super) struct Loaded {
    pub(super) role: Role,
    pub(super) staging: Staging,
    /// The channel's version when its records were looked at last.
    version: Option<u64>,
    /// Records up to this one were looked at, and are in the tree where they belong there.
    after: Option<RecordId>,
    /// Records behind that one that are in the tree already.
    ahead: BTreeSet<RecordId>,
    /// Files that are being handed over: what the store says of them is not known yet.
    pub(super) handing: HashMap<EntryId, InHandoff>,
    /// Files for which there is no room in the listing.
    pub(super) hidden: u64,
    /// Where the search for a free name begins, for each name that was taken.
    taken: HashMap<(EntryId, String), u32>,
}

/// A file whose record may be in the store already, while this mount does not know the record's number yet.
pub(super) struct InHandoff {
    /// Where its bytes are, relative to the directory of drops.
    pub(super) staging: Option<String>,
    pub(super) path: String,
    pub(super) name: String,
    pub(super) digest: Digest,
}

/// A file.
pub(super) enum Body {
    Staged(Box<Staged>),
    Sealed(Sealed),
}

/// A file that is no record yet.
pub(super) struct Staged {
    pub(super) settling: Settling,
    /// How long it is.
    pub(super) length: u64,
    /// Bytes that count against the spool's limit: those that it takes of the disk.
    pub(super) held: u64,
    /// Whether it is being handed over.
    pub(super) handing: Handing,
    /// It was refused, and is not tried again before.
    pub(super) refused: Option<Refused>,
}

/// Whether a file or directory is on its way to being a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Handing {
    /// It is not.
    #[default]
    No,
    /// The store was asked to accept it.
    Asked,
    /// The store failed in the middle: it is asked again what became of it.
    Open,
}

/// Why a file was not handed over.
pub(super) struct Refused {
    pub(super) until: Instant,
    pub(super) reason: String,
}

/// A file that has no name any more, and that somebody has open.
pub(super) struct Unlinked {
    pub(super) drop: ChannelId,
    pub(super) file: Arc<StagedFile>,
}

/// A file that is a record.
pub(super) struct Sealed {
    pub(super) record: RecordId,
    pub(super) size: u64,
    /// It is compressed, and unpacked as it is read.
    pub(super) packed: bool,
    pub(super) modified: SystemTime,
    /// When its attributes were set.
    pub(super) changed: SystemTime,
}

/// A directory.
pub(super) struct Directory {
    /// Since when it is empty and nobody else knows of it.
    pub(super) made: Instant,
    /// Readers know of it, or will.
    pub(super) known: bool,
    /// The record that tells of it alone.
    pub(super) record: Option<RecordId>,
    pub(super) handing: Handing,
    pub(super) modified: SystemTime,
    /// When its names changed.
    pub(super) listed: SystemTime,
    /// When its bits or times were set.
    pub(super) changed: SystemTime,
    /// Permission bits, where they were set.
    pub(super) mode: Option<u32>,
}

impl Default for Directory {
    fn default() -> Self {
        let now = SystemTime::now();
        Self {
            made: Instant::now(),
            known: false,
            record: None,
            handing: Handing::No,
            modified: now,
            listed: now,
            changed: now,
            mode: None,
        }
    }
}

impl Staged {
    pub(super) fn new(settling: Settling, bytes: u64) -> Self {
        Self { settling, length: bytes, held: bytes, handing: Handing::No, refused: None }
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
            unlinked: HashMap::new(),
            owners: HashMap::new(),
            open: Vec::new(),
            same_boot: None,
            met: None,
        };
        Self { state: Mutex::new(state), handed: Condvar::new(), wake: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing of this is being handed over: a commit long. Fails where the store could not tell what became
    /// of a hand-over.
    pub(super) fn settled<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        entries: &[EntryId],
    ) -> Result<MutexGuard<'a, State>, FsError> {
        loop {
            let mut handing = entries.iter().map(|&entry| (entry, state.handing(entry)));
            let Some((entry, found)) = handing.find(|(_, handing)| *handing != Handing::No) else { break };
            if found == Handing::Open {
                let name = state.forest.names(entry).join("/");
                let text =
                    format!("{name}: the state failed while it was taken in; it is looked at again when it can be");
                return Err(FsError::new(libc::EIO, text));
            }
            state = self.handed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
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
        let staging = Staging::of(&mount, drop, self.owner.store().sealing());
        let loaded = Loaded {
            role: channel.role,
            staging: staging.clone(),
            version: None,
            after: None,
            ahead: BTreeSet::new(),
            handing: HashMap::new(),
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
            let Found::File { bytes, held, finished, sent } = found else {
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
            let staged = Staged { held, ..Staged::new(Settling::found(finished, Instant::now()), bytes) };
            if let Some(entry) = state.forest.add_file(directory, &free, Body::Staged(staged.into())) {
                state.unsettled.insert(entry);
                state.staged_bytes += held;
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

    /// Takes in the records that came since the last look. Where nothing was committed since, the store is not asked.
    fn refresh(&self, state: &mut State, drop: ChannelId) -> Result<(), FsError> {
        // Asked before the records are: what is committed in between is looked at once more.
        let version = self.owner.store().version(drop)?;
        let Some(loaded) = state.drops.get(&drop) else { return Ok(()) };
        if version.is_some() && loaded.version == version {
            return Ok(());
        }
        let mut cursor = loaded.after;
        let mut settled = true;
        loop {
            let page = self.owner.store().records(drop, cursor, PAGE)?;
            for record in &page {
                let Some(loaded) = state.drops.get_mut(&drop) else { return Ok(()) };
                let known = loaded.ahead.contains(&record.id);
                let open = !known && (record.state == RecordState::Incomplete || loaded.may_be_in_handoff(record));
                settled &= !open;
                if settled {
                    loaded.after = Some(record.id);
                    loaded.ahead.remove(&record.id);
                } else if !open {
                    loaded.ahead.insert(record.id);
                }
                if !known && !open {
                    state.list(drop, record);
                }
            }
            cursor = page.last().map(|record| record.id);
            if page.len() < PAGE {
                break;
            }
        }
        if let Some(loaded) = state.drops.get_mut(&drop) {
            loaded.version = version;
        }
        Ok(())
    }
}

impl Loaded {
    /// Whether this record may be one that is being handed over. What the store knows of it as its own is compared: where
    /// its bytes are, or, once they are at the replicas, what they are. Which of the two it is, the answer to the
    /// hand-over tells; nobody guesses meanwhile.
    fn may_be_in_handoff(&self, record: &DropRecord) -> bool {
        let path = record.header.as_ref().map(|header| header.path.as_str());
        self.handing.values().any(|handing| match (&record.staging, &handing.staging) {
            (Some(one), Some(other)) => one == other,
            _ => {
                record.digest == Some(handing.digest)
                    && record.name == handing.name
                    && path == Some(handing.path.as_str())
            }
        })
    }

    /// The store has said which record a file became. The record is in the tree from now on.
    pub(super) fn handed_over(&mut self, entry: EntryId, record: Option<RecordId>) {
        self.handing.remove(&entry);
        // It may have been passed over.
        self.version = None;
        if let Some(record) = record.filter(|&record| self.after.is_none_or(|after| after < record)) {
            self.ahead.insert(record);
        }
    }
}

impl State {
    fn handing(&self, entry: EntryId) -> Handing {
        match self.forest.entry(entry).map(|entry| &entry.what) {
            Some(What::File(Body::Staged(staged))) => staged.handing,
            Some(What::Directory(directory, _)) => directory.handing,
            _ => Handing::No,
        }
    }

    pub(super) fn set_handing(&mut self, entry: EntryId, to: Handing) {
        match self.forest.entry_mut(entry).map(|entry| &mut entry.what) {
            Some(What::File(Body::Staged(staged))) => staged.handing = to,
            Some(What::Directory(directory, _)) => directory.handing = to,
            _ => {}
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
            self.staged_bytes = self.staged_bytes.saturating_sub(staged.held);
        }
    }

    /// Who made a file or directory; the mount's own are not kept.
    pub(super) fn own(&mut self, entry: EntryId, by: Credentials, options: &Options) {
        if (by.uid, by.gid) != (options.uid, options.gid) {
            self.owners.insert(entry, by);
        }
    }

    /// A file or directory is no more.
    pub(super) fn remove(&mut self, entry: EntryId) {
        self.unsettle(entry);
        self.owners.remove(&entry);
        self.forest.remove(entry);
    }

    /// A staged file is a record from now on; so is what leads to it.
    pub(super) fn seal(&mut self, entry: EntryId, record: RecordId, size: u64, modified: SystemTime) {
        self.unsettle(entry);
        if let Some(body) = self.forest.file_mut(entry) {
            *body = Body::Sealed(Sealed { record, size, packed: false, modified, changed: modified });
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
        let goes = match record.state {
            RecordState::Deleting | RecordState::Deleted | RecordState::BrokenOff | RecordState::Broken => true,
            RecordState::Waiting | RecordState::Filling | RecordState::Filled => false,
            RecordState::Incomplete | RecordState::Complete => false,
        };
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
                        directory.handing = Handing::No;
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
        let free = self.free_name(drop, directory, &name);
        let sealed = Body::Sealed(Sealed {
            record: record.id,
            size,
            packed: Drops::is_packed(record),
            modified,
            changed: modified,
        });
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
