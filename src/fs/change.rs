//! Changes of names and attributes: what takes nothing back, or takes back what nobody can know yet.

use std::ffi::OsStr;
use std::time::SystemTime;

use super::{Attributes, Fs, FsError, Node, names};
use crate::store::{Channel, ChannelId, Role, StoreError};

/// What is asked of an attribute change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Length.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub accessed: Option<SystemTime>,
    /// Modification time.
    pub modified: Option<SystemTime>,
}

/// What a rename does with a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// Replaces a stream that never left this machine.
    Replace,
    /// Fails.
    NoReplace,
    /// The two change places.
    Exchange,
}

impl Fs {
    /// Changes attributes. A length only where it is no change, or takes back what has not left; times are kept; mode
    /// bits may be dropped. Bits that the mount's mask takes from all files are neither given nor missed.
    /// `handle`: the open file through which it is asked.
    pub fn change(&self, node: Node, handle: Option<u64>, change: Change) -> Result<Attributes, FsError> {
        self.options.check_changes_allowed()?;
        let id = match node {
            Node::Channel(id) => id,
            Node::Root => return self.change_root(change),
            Node::Drop(_) | Node::DropDirectory(_) | Node::DropFile(_) => {
                return self.change_dropped(node, handle, change);
            }
            _ if change.size.is_some() => {
                return Err(FsError::quiet(libc::EACCES, "the control directory can only be read"));
            }
            _ => return Err(FsError::quiet(libc::EPERM, "the control directory stays as it is")),
        };
        if let (None, Some(file)) = (self.owner.store().channel(id)?, self.unlinked.find(id)) {
            return self.change_unlinked(node, &file, change);
        }
        let channel = self.channel(id)?;
        let attributes = Attributes::of_channel(&channel, &self.options);
        if change.uid.is_some_and(|uid| uid != attributes.uid) || change.gid.is_some_and(|gid| gid != attributes.gid) {
            return Err(self.refused(&channel, libc::EPERM, "it cannot be given to somebody else"));
        }
        match change.size {
            Some(_) if channel.role == Role::Reader => {
                return Err(self.refused(&channel, libc::EACCES, "it can only be read here"));
            }
            Some(0) if channel.size > 0 => {
                self.empty(&channel).map_err(|error| self.told(&channel, error))?;
                if let Some(handle) = handle {
                    self.handles().find_mut(handle)?.fills_gaps = true;
                }
            }
            Some(size) if size > channel.size && handle.is_some() => {
                self.extend(&channel, handle.unwrap_or_default(), size)?;
            }
            Some(size) if size != channel.size => {
                return Err(self.refused(&channel, libc::EPERM, "it can only grow, by appending to it with `>>`"));
            }
            _ => {}
        }
        if channel.role == Role::Reader && change.mode.is_some_and(|mode| mode & 0o222 != 0) {
            return Err(self.refused(&channel, libc::EPERM, "only its read capability is here"));
        }
        let dropped = change.mode.map(|mode| 0o777 & !mode);
        if dropped.is_some() || change.accessed.is_some() || change.modified.is_some() {
            self.owner.store().set_attributes(id, change.accessed, change.modified, dropped).wait()?;
        }
        self.attributes(node, None)
    }

    /// The root keeps its own: what copies a directory may ask for what it is, and for times, which are not kept.
    fn change_root(&self, change: Change) -> Result<Attributes, FsError> {
        let attributes = self.attributes(Node::Root, None)?;
        let given = change.uid.is_some_and(|uid| uid != attributes.uid)
            || change.gid.is_some_and(|gid| gid != attributes.gid)
            || change.mode.is_some_and(|mode| mode & 0o777 & !self.options.umask != attributes.mode);
        if given { Err(FsError::quiet(libc::EPERM, "the root of a mount stays as it is")) } else { Ok(attributes) }
    }

    /// Takes all bytes back, where none of them can be known elsewhere.
    pub(super) fn empty(&self, channel: &Channel) -> Result<(), StoreError> {
        self.owner.store().truncate(channel.id).wait()?;
        self.handles().emptied(Node::Channel(channel.id));
        Ok(())
    }

    /// Removes a stream that never left this machine.
    pub fn unlink(&self, parent: Node, name: &OsStr) -> Result<(), FsError> {
        let found = self.lookup(parent, name)?;
        if let Node::DropFile(entry) = found {
            return self.unlink_dropped(entry);
        }
        if found.is_in_drop() {
            return Err(FsError::quiet(libc::EISDIR, "it is a directory"));
        }
        let id = self.named(parent, name)?;
        self.options.check_changes_allowed()?;
        let channel = self.channel(id)?;
        self.remove_stream(&channel, || self.owner.store().unlink(id).wait())
    }

    /// Renames within the root: the name is known here only, so that is always allowed. A stream that is replaced goes
    /// as one that is removed goes.
    pub fn rename(&self, from: (Node, &OsStr), to: (Node, &OsStr), how: Rename) -> Result<(), FsError> {
        if from.0.is_in_drop() && to.0.is_in_drop() {
            return self.rename_dropped(from, to, how);
        }
        if from.0.is_in_drop() || to.0.is_in_drop() {
            return Err(super::drop::elsewhere());
        }
        let id = self.named(from.0, from.1)?;
        self.options.check_changes_allowed()?;
        if to.0 != Node::Root {
            return Err(FsError::quiet(libc::EACCES, "the control directory can only be read"));
        }
        let there = match self.lookup(to.0, to.1) {
            Ok(Node::Channel(there) | Node::Drop(there)) => Some(there),
            Ok(_) => return Err(FsError::quiet(libc::EPERM, "the control directory stays where it is")),
            Err(error) if error.errno == libc::ENOENT => None,
            Err(error) => return Err(error),
        };
        let old = self.channel(id)?;
        let store = self.owner.store();
        let result = match (how, there) {
            (Rename::NoReplace, Some(_)) => return Err(FsError::quiet(libc::EEXIST, "the name is taken")),
            (Rename::Exchange, None) => return Err(FsError::quiet(libc::ENOENT, "there is nothing to exchange with")),
            (Rename::Exchange, Some(there)) => store.exchange(old.name, self.channel(there)?.name).wait(),
            (Rename::Replace, Some(there)) if there != id => {
                let replaced = self.channel(there)?;
                self.check_empty_drop(there)?;
                return self.remove_stream(&replaced, || store.rename_over(old.name, replaced.name.clone()).wait());
            }
            _ => store.rename(old.name, names::for_new_stream(to.0, to.1)?).wait(),
        };
        Ok(result?)
    }

    /// The channel of a name; only channels can be removed and renamed.
    fn named(&self, parent: Node, name: &OsStr) -> Result<ChannelId, FsError> {
        match self.lookup(parent, name)? {
            Node::Channel(id) | Node::Drop(id) => Ok(id),
            Node::Control => Err(FsError::quiet(libc::EPERM, "the control directory stays where it is")),
            _ => Err(FsError::quiet(libc::EACCES, "the control directory can only be read")),
        }
    }
}
