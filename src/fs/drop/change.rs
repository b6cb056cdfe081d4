//! Names and attributes in drops: what is no record may be changed, what is one stays.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::open::too_many;
use super::room::{Body, Directory, State, gone};
use super::staging;
use super::tree::EntryId;
use crate::engine::fresh_write_cap;
use crate::fs::{Attributes, Change, Credentials, Fs, FsError, Node, Rename, names};
use crate::store::{ChannelId, Content, RecordId, Role, StoreError};

impl Fs {
    /// Makes a drop, or a directory in one.
    pub fn make_directory(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        by: Credentials,
    ) -> Result<Attributes, FsError> {
        if self.lookup(parent, name).is_ok() {
            return Err(FsError::quiet(libc::EEXIST, "the name is taken"));
        }
        if parent == Node::Root {
            self.options.check_changes_allowed()?;
            let name = names::for_new_stream(parent, name)?;
            let cap = fresh_write_cap().map_err(|failure| FsError::new(libc::EIO, failure.message))?;
            let id = self.owner.store().create(name, cap, Content::Drop { allow_delete: false }).wait()?;
            return self.attributes(Node::Drop(id), None);
        }
        if !parent.is_in_drop() {
            return Err(self.refuse(parent, "directories"));
        }
        self.options.check_changes_allowed()?;
        let (drop, directory, mut state) = self.directory(parent)?;
        let name = self.checked_name(&state, drop, directory, name)?;
        let mut names = state.owned_names(directory);
        names.push(name.clone());
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        let made = Directory { mode: Some(mode & 0o777), ..Directory::default() };
        let entry = state.forest.add_directory(directory, &name, made).ok_or_else(too_many)?;
        if let Err(error) = staging.make_directory(&names) {
            state.forest.remove(entry);
            return Err(error.into());
        }
        state.unsettled.insert(entry);
        state.own(entry, by, &self.options);
        state.touch(directory);
        std::mem::drop(state);
        self.look_again(drop);
        self.attributes(Node::DropDirectory(entry), None)
    }

    /// Removes a drop that never left this machine, or a directory in one; either must be empty.
    pub fn remove_directory(&self, parent: Node, name: &OsStr) -> Result<(), FsError> {
        match self.lookup(parent, name)? {
            Node::Drop(drop) => self.remove_drop(drop),
            Node::DropDirectory(entry) => self.remove_dropped_directory(entry),
            Node::Control => Err(FsError::quiet(libc::EPERM, "the control directory stays where it is")),
            Node::ChannelControl(_) => Err(FsError::quiet(libc::EACCES, "the control directory can only be read")),
            _ => Err(FsError::quiet(libc::ENOTDIR, "it is no directory")),
        }
    }

    fn remove_drop(&self, drop: ChannelId) -> Result<(), FsError> {
        self.options.check_changes_allowed()?;
        let channel = self.channel(drop)?;
        let mut state = self.names_in(drop)?;
        let root = state.forest.root(drop).ok_or_else(gone)?;
        let is_empty = state.forest.directory(root).is_none_or(|(_, children)| children.is_empty());
        // Said of one that cannot be removed at all, whatever is in it.
        if !is_empty && !channel.launched && !channel.shown && channel.role == Role::Writer {
            return Err(FsError::quiet(libc::ENOTEMPTY, "there are files in it"));
        }
        self.owner.store().unlink(drop).wait().map_err(|error| self.told(&channel, error))?;
        let staging = state.drops.get(&drop).map(|loaded| loaded.staging.clone());
        state.forget(drop);
        match staging {
            Some(staging) => Ok(staging.remove()?),
            None => Ok(()),
        }
    }

    /// A drop that is to be replaced must be empty; so is every stream.
    pub(in crate::fs) fn check_empty_drop(&self, drop: ChannelId) -> Result<(), FsError> {
        if !self.channel(drop)?.content.is_drop() {
            return Ok(());
        }
        let state = self.names_in(drop)?;
        let root = state.forest.root(drop).and_then(|root| state.forest.directory(root));
        if root.is_none_or(|(_, children)| children.is_empty()) {
            return Ok(());
        }
        Err(FsError::quiet(libc::ENOTEMPTY, "there are files in it"))
    }

    fn remove_dropped_directory(&self, entry: EntryId) -> Result<(), FsError> {
        self.options.check_changes_allowed()?;
        let mut state = self.room.settled(self.room.lock(), &[entry])?;
        let (drop, parent) = state.forest.entry(entry).map(|entry| (entry.drop, entry.parent)).ok_or_else(gone)?;
        let names = state.owned_names(entry);
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let (role, staging) = (loaded.role, loaded.staging.clone());
        if role == Role::Reader {
            return Err(self.refuse_sealed(drop, role, &names));
        }
        let (directory, children) = state.forest.directory(entry).ok_or_else(gone)?;
        if !children.is_empty() {
            return Err(FsError::quiet(libc::ENOTEMPTY, "there are files in it"));
        }
        if let Some(record) = directory.record {
            self.take_back(drop, record, &names)?;
        }
        staging.remove_directory(&names)?;
        state.remove(entry);
        state.settle_parent(parent);
        Ok(())
    }

    /// Removes a file of a drop: what is no record goes, and so does a record of which nothing has left. What was stored
    /// is deleted from the network where the drop allows it.
    pub(in crate::fs) fn unlink_dropped(&self, entry: EntryId) -> Result<(), FsError> {
        self.options.check_changes_allowed()?;
        let mut state = self.room.settled(self.room.lock(), &[entry])?;
        let (drop, parent) = state.forest.entry(entry).map(|entry| (entry.drop, entry.parent)).ok_or_else(gone)?;
        let names = state.owned_names(entry);
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let (role, staging) = (loaded.role, loaded.staging.clone());
        if role == Role::Writer {
            self.keep_open(&mut state, entry)?;
        }
        match state.forest.file(entry) {
            None => return Err(FsError::quiet(libc::EISDIR, "it is a directory")),
            Some(Body::Staged(_)) => staging.remove_file(&names)?,
            Some(Body::Sealed(_)) if role == Role::Reader => return Err(self.refuse_sealed(drop, role, &names)),
            Some(Body::Sealed(sealed)) => self.take_back(drop, sealed.record, &names)?,
        }
        state.remove(entry);
        state.touch(parent);
        state.settle_parent(parent);
        std::mem::drop(state);
        self.look_again(drop);
        Ok(())
    }

    fn take_back(&self, drop: ChannelId, record: RecordId, names: &[String]) -> Result<(), FsError> {
        let store = self.owner.store();
        let channel = self.channel(drop)?;
        let found = store.drop_record(drop, record)?;
        match store.take_back(drop, record).wait() {
            Ok(()) => {
                if let Some(staging) = found.and_then(|found| found.staging) {
                    let path = self.owner.engine().drops().directory()?.join(staging);
                    staging::allow_missing(std::fs::remove_file(path))?;
                }
                Ok(())
            }
            Err(StoreError::NoRecord) => Ok(()),
            Err(StoreError::RecordSent { .. }) if channel.content == (Content::Drop { allow_delete: true }) => {
                store.delete_record(drop, record, false).wait().map_err(|error| match error {
                    StoreError::RecordSent { name } => {
                        let text = format!("{name} is on its way; it can be deleted once it is stored");
                        self.refused(&channel, libc::EPERM, text)
                    }
                    error => self.told(&channel, error),
                })
            }
            Err(StoreError::RecordSent { .. }) => {
                let text = format!(
                    "{} was sent, and this drop was made without --allow-delete; `pigeonfs forget` gives up all of it",
                    names.join("/")
                );
                Err(self.refused(&channel, libc::EPERM, text))
            }
            Err(error) => Err(self.told(&channel, error)),
        }
    }

    /// Renames within one drop. Between drops, and to and from streams, programs copy.
    pub(in crate::fs) fn rename_dropped(
        &self,
        from: (Node, &OsStr),
        to: (Node, &OsStr),
        how: Rename,
    ) -> Result<(), FsError> {
        self.options.check_changes_allowed()?;
        let (drop, old_directory, state) = self.directory(from.0)?;
        std::mem::drop(state);
        let (other, new_directory, state) = self.directory(to.0)?;
        if drop != other {
            return Err(elsewhere());
        }
        let entry = from.1.to_str().and_then(|name| state.forest.child(old_directory, name)).ok_or_else(gone)?;
        let name = self.checked_name(&state, drop, new_directory, to.1)?;
        let there = state.forest.child(new_directory, &name);
        let mut moved = vec![entry];
        moved.extend(state.forest.below(entry));
        moved.extend(there);
        let mut state = self.room.settled(state, &moved)?;
        // Looked up anew: a hand-over may have been waited for.
        let there = state.forest.child(new_directory, &name);
        if state.forest.child(old_directory, from.1.to_str().unwrap_or_default()) != Some(entry) {
            return Err(gone());
        }
        if there == Some(entry) {
            return Ok(());
        }
        match (how, there) {
            (Rename::NoReplace, Some(_)) => return Err(FsError::quiet(libc::EEXIST, "the name is taken")),
            (Rename::Exchange, None) => return Err(gone()),
            _ => {}
        }
        let old_names = state.owned_names(entry);
        let mut new_names = state.owned_names(new_directory);
        new_names.push(name.clone());
        for (at, names) in [(Some(entry), &old_names), (there, &new_names)] {
            if let Some(at) = at
                && state.has_records(at)
            {
                return Err(self.refuse_sealed(drop, Role::Writer, names));
            }
        }
        let staging = state.drops.get(&drop).ok_or_else(gone)?.staging.clone();
        if how == Rename::Exchange {
            let there = there.ok_or_else(gone)?;
            staging.rename(&old_names, &new_names, true)?;
            let old_name = old_names.last().cloned().unwrap_or_default();
            // No name may be taken for a moment: the numbers change places by way of one that nothing can have.
            state.forest.move_to(there, new_directory, "/");
            state.forest.move_to(entry, new_directory, &name);
            state.forest.move_to(there, old_directory, &old_name);
            state.rest_anew(there);
        } else {
            if let Some(there) = there
                && state.forest.directory(there).is_some_and(|(_, children)| !children.is_empty())
            {
                return Err(FsError::quiet(libc::ENOTEMPTY, "there are files in it"));
            }
            if let Some(there) = there {
                self.keep_open(&mut state, there)?;
            }
            staging.rename(&old_names, &new_names, false)?;
            if let Some(there) = there {
                state.remove(there);
            }
            state.forest.move_to(entry, new_directory, &name);
        }
        state.rest_anew(entry);
        for directory in [old_directory, new_directory] {
            state.touch(directory);
            state.settle_parent(directory);
        }
        std::mem::drop(state);
        self.look_again(drop);
        Ok(())
    }

    /// Changes attributes of what is in a drop, by its name or through an open file.
    pub(in crate::fs) fn change_dropped(
        &self,
        node: Node,
        handle: Option<u64>,
        change: Change,
    ) -> Result<Attributes, FsError> {
        let attributes = self.attributes(node, handle)?;
        if change.uid.is_some_and(|uid| uid != attributes.uid) || change.gid.is_some_and(|gid| gid != attributes.gid) {
            return Err(FsError::quiet(libc::EPERM, "it cannot be given to somebody else"));
        }
        match node {
            Node::DropFile(entry) => self.change_dropped_file(entry, handle, change)?,
            Node::DropDirectory(entry) => self.change_dropped_directory(entry, change)?,
            // The drop itself: what copies a directory asks for its bits and times; they are not kept.
            _ => {}
        }
        self.attributes(node, handle)
    }

    fn change_dropped_file(&self, entry: EntryId, handle: Option<u64>, change: Change) -> Result<(), FsError> {
        let open = handle.and_then(|handle| self.handles().find(handle).ok()?.dropped.clone());
        let mut state = self.room.settled(self.room.lock(), &[entry])?;
        let Some(drop) = state.forest.entry(entry).map(|entry| entry.drop) else {
            let unlinked = state.unlinked.get(&entry).map(|unlinked| Arc::clone(&unlinked.file)).ok_or_else(gone)?;
            std::mem::drop(state);
            return Ok(change.apply_to(&unlinked)?);
        };
        let names = state.owned_names(entry);
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let (role, staging) = (loaded.role, loaded.staging.clone());
        match state.forest.file_mut(entry).ok_or_else(gone)? {
            Body::Sealed(sealed) => {
                let widens = change.mode.is_some_and(|mode| mode & 0o222 & !self.options.umask != 0);
                if change.size.is_some_and(|size| size != sealed.size) {
                    std::mem::drop(state);
                    return Err(self.refuse_sealed(drop, role, &names));
                }
                if widens && role == Role::Reader {
                    return Err(FsError::quiet(libc::EPERM, "only its read capability is here"));
                }
                if let Some(modified) = change.modified {
                    sealed.modified = modified;
                }
                if change.modified.is_some() || change.accessed.is_some() || change.mode.is_some() {
                    sealed.changed = SystemTime::now();
                }
            }
            Body::Staged(_) => {
                std::mem::drop(state);
                if let Some(size) = change.size {
                    self.resize_dropped(drop, entry, size, open.as_ref())?;
                }
                if let Some(mode) = change.mode {
                    staging.set_mode(&names, mode)?;
                }
                if change.modified.is_some() || change.accessed.is_some() {
                    OpenOptions::new().read(true).open(staging.path(&names)?)?.set_times(change.times())?;
                }
            }
        }
        Ok(())
    }

    /// A directory of a drop keeps its bits and times until the mount ends. They are not sent.
    fn change_dropped_directory(&self, entry: EntryId, change: Change) -> Result<(), FsError> {
        let mut state = self.room.lock();
        let drop = state.forest.entry(entry).ok_or_else(gone)?.drop;
        let role = state.drops.get(&drop).ok_or_else(gone)?.role;
        let directory = state.forest.directory_mut(entry).ok_or_else(gone)?;
        let widens = change.mode.is_some_and(|mode| mode & 0o222 & !self.options.umask != 0);
        if widens && role == Role::Reader {
            return Err(FsError::quiet(libc::EPERM, "only its read capability is here"));
        }
        if let Some(mode) = change.mode {
            directory.mode = Some(mode & 0o777);
        }
        if let Some(modified) = change.modified {
            directory.modified = modified;
        }
        directory.changed = SystemTime::now();
        Ok(())
    }
}

impl State {
    /// Whether it is a record, or a directory that readers know of.
    fn has_records(&self, entry: EntryId) -> bool {
        let is_record = |entry: EntryId| match self.forest.file(entry) {
            Some(body) => matches!(body, Body::Sealed(_)),
            None => self.forest.directory(entry).is_some_and(|(directory, _)| directory.known),
        };
        is_record(entry) || self.forest.below(entry).into_iter().any(is_record)
    }

    /// A new name: all that has it, or is below it, rests from now on.
    fn rest_anew(&mut self, entry: EntryId) {
        let now = Instant::now();
        let mut moved = self.forest.below(entry);
        moved.push(entry);
        for entry in moved {
            if let Some(Body::Staged(staged)) = self.forest.file_mut(entry) {
                staged.settling.moved(now);
            } else if let Some(directory) = self.forest.directory_mut(entry) {
                directory.made = now;
            }
        }
    }

    /// A directory that has become empty, and that nobody knows of, is one to be told of.
    fn settle_parent(&mut self, directory: EntryId) {
        let is_root = self.forest.entry(directory).is_some_and(|entry| entry.parent == directory);
        let told = self.forest.directory(directory).is_some_and(|(it, _)| it.known || it.record.is_some());
        if !is_root && !told {
            self.unsettled.insert(directory);
        }
    }
}

/// A rename that must be a copy.
pub(in crate::fs) fn elsewhere() -> FsError {
    FsError::quiet(libc::EXDEV, "it is copied, not moved, from one channel to another")
}
