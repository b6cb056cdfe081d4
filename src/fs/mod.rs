//! The policy of the mount: names, handles, access, errno. No FUSE types, no async.
//!
//! Everything here is answered from the store, so no file operation asks the network anything. What has to wait says
//! so with [`Answer::Later`], or hands out a commit; the mount waits, and can be interrupted. The decisions are those of
//! `fuse-semantics.md` §3, as the design changes them. For users they are written down, and tested, as follows.
//!
#![doc = include_str!("SEMANTICS.md")]

mod change;
mod control;
pub mod drop;
mod error;
mod handle;
mod names;
mod node;
mod options;
mod patience;
mod shown;
mod stream;
mod unlinked;
mod xattr;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use change::{Change, Rename};
pub use drop::EntryId;
pub use error::FsError;
pub use node::{Attributes, Kind, Node, Report};
pub use options::{Fsync, Options, Truncate, UnknownChoice};
pub use patience::Patience;
pub use stream::{Answer, Barrier, Pause, Readiness, Taken};

use drop::Room;
use handle::{Handle, Handles};
use stream::READ_BYTES;
use unlinked::Unlinked;

use crate::engine::{Owner, fresh_write_cap};
use crate::store::{Channel, ChannelId, ChannelName, MAX_NAME_BYTES, Role, StoreError};

/// Channels that a listing takes from the store at a time.
const PAGE: usize = 512;

/// The file system of one state.
pub struct Fs {
    owner: Arc<Owner>,
    options: Options,
    handles: Mutex<Handles>,
    /// What is in drops.
    room: Room,
    /// The mount ends, and has no more time for files in drops.
    is_hurried: AtomicBool,
    /// Streams that were removed while they were open.
    unlinked: Unlinked,
    patience: Patience,
}

/// Who asks, as the kernel says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub handle: u64,
    /// What it is.
    pub node: Node,
}

/// What `statfs(2)` says of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that are taken yet.
    pub free_bytes: u64,
}

impl Fs {
    /// The file system of what `owner` owns.
    pub fn new(owner: Arc<Owner>, options: Options) -> Self {
        Self {
            owner,
            options,
            handles: Mutex::default(),
            room: Room::new(),
            is_hurried: AtomicBool::new(false),
            unlinked: Unlinked::default(),
            patience: Patience::default(),
        }
    }

    /// What was chosen.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Who owns the state.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Whether a program has a file open.
    pub fn has_open_files(&self) -> bool {
        !self.handles().is_empty()
    }

    /// Leaves the files in drops that are not handed over yet to the next mount.
    pub fn stop_settling(&self) {
        self.is_hurried.store(true, Ordering::Relaxed);
    }

    /// How long callers have waited already.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a name up.
    pub fn lookup(&self, parent: Node, name: &OsStr) -> Result<Node, FsError> {
        let missing = || FsError::quiet(libc::ENOENT, "there is no such file");
        if name.len() > MAX_NAME_BYTES {
            return Err(FsError::quiet(libc::ENAMETOOLONG, "no name is that long"));
        }
        let channel = || Ok(self.channel_named(name)?.id);
        match parent {
            Node::Root if name == ".pigeonfs" => Ok(Node::Control),
            Node::Root => self.channel_named(name).map(|channel| Node::of_channel(&channel)),
            Node::Drop(_) | Node::DropDirectory(_) => self.lookup_dropped(parent, name.to_str().ok_or_else(missing)?),
            Node::Control if name == "status.json" => Ok(Node::Status),
            Node::Control => channel().map(Node::ChannelControl),
            Node::ChannelControl(id) => {
                let report = Report::ALL.into_iter().find(|report| name == report.name()).ok_or_else(missing)?;
                Ok(Node::Report(id, report))
            }
            _ => Err(missing()),
        }
    }

    /// Looks a name up, and its attributes with it: for a channel one question, where [`Self::lookup`] and
    /// [`Self::attributes`] would be two.
    pub fn find(&self, parent: Node, name: &OsStr) -> Result<Attributes, FsError> {
        if parent == Node::Root && name != ".pigeonfs" && name.len() <= MAX_NAME_BYTES {
            let channel = self.channel_named(name)?;
            return Ok(match Node::of_channel(&channel) {
                Node::Drop(_) => self.drop_attributes(&channel),
                _ => Attributes::of_channel(&channel, &self.options),
            });
        }
        self.attributes(self.lookup(parent, name)?, None)
    }

    fn channel_named(&self, name: &OsStr) -> Result<Channel, FsError> {
        let missing = || FsError::quiet(libc::ENOENT, "there is no such file");
        let name = ChannelName::from_os(name).map_err(|_| missing())?;
        self.owner.store().by_name(&name)?.ok_or_else(missing)
    }

    /// The attributes of a file or directory; a report that is open is as long as it was made.
    pub fn attributes(&self, node: Node, handle: Option<u64>) -> Result<Attributes, FsError> {
        match node {
            Node::Channel(id) => match (self.owner.store().channel(id)?, self.unlinked.find(id)) {
                (None, Some(file)) => self.unlinked_attributes(node, &file),
                (channel, _) => Ok(Attributes::of_channel(&channel.ok_or_else(removed)?, &self.options)),
            },
            Node::Drop(id) => Ok(self.drop_attributes(&self.channel(id)?)),
            Node::DropDirectory(_) | Node::DropFile(_) => {
                let open = handle.and_then(|handle| self.handles().find(handle).ok()?.dropped.clone());
                self.dropped_attributes(node, open.as_ref())
            }
            Node::Root | Node::Control => {
                Ok(Attributes::directory(node, self.owner.store().usage()?.listing_changed, &self.options))
            }
            Node::ChannelControl(id) => Ok(Attributes::directory(node, self.channel(id)?.created, &self.options)),
            Node::Status | Node::Report(..) => {
                let open = handle.and_then(|handle| Some(self.handles().find(handle).ok()?.report.as_ref()?.len()));
                let size = match (open, node) {
                    (Some(bytes), _) => bytes as u64,
                    // Looking at it is not showing it.
                    (None, Node::Report(id, Report::ReadCapability)) => {
                        self.channel(id).map(|_| node::CAPABILITY_BYTES)?
                    }
                    (None, _) => self.report(node)?.map_or(0, |report| report.len() as u64),
                };
                let writers = match node {
                    Node::Report(id, Report::Wait) => {
                        let channel = self.channel(id)?;
                        if channel.role == Role::Reader {
                            0o222
                        } else {
                            Attributes::of_channel(&channel, &self.options).mode
                        }
                    }
                    _ => 0,
                };
                Ok(Attributes::of_report(node, size, writers, &self.options))
            }
        }
    }

    /// What a directory lists: names and what they are. The control directory is found and never listed, nor are the
    /// reports whose reading does something.
    pub fn list(&self, node: Node) -> Result<Vec<(Node, String)>, FsError> {
        if node.is_in_drop() {
            return self.list_dropped(node);
        }
        let parent = if matches!(node, Node::ChannelControl(_)) { Node::Control } else { Node::Root };
        let mut entries = vec![(node, ".".to_owned()), (parent, "..".to_owned())];
        match node {
            Node::Root => self.each_channel(|channel| {
                entries.push((Node::of_channel(channel), channel.name.to_string()));
            })?,
            Node::Control => {
                entries.push((Node::Status, "status.json".to_owned()));
                self.each_channel(|channel| {
                    // Its directory would have the name of the file beside it: of that one, `pigeonfs status` tells.
                    if channel.name.as_str() != "status.json" {
                        entries.push((Node::ChannelControl(channel.id), channel.name.to_string()));
                    }
                })?;
            }
            Node::ChannelControl(id) => {
                self.channel(id)?;
                let listed = Report::ALL.into_iter().filter(|report| report.is_listed());
                entries.extend(listed.map(|report| (Node::Report(id, report), report.name().to_owned())));
            }
            _ => return Err(FsError::quiet(libc::ENOTDIR, "it is no directory")),
        }
        Ok(entries)
    }

    fn each_channel(&self, mut see: impl FnMut(&Channel)) -> Result<(), FsError> {
        let mut after: Option<ChannelName> = None;
        loop {
            let page = self.owner.store().channels(after.as_ref(), PAGE)?;
            page.iter().for_each(&mut see);
            match page.last() {
                Some(last) => after = Some(last.name.clone()),
                None => return Ok(()),
            }
        }
    }

    /// Opens a file. `flags` are those of `open(2)`; `O_TRUNC` is decided here.
    pub fn open(&self, node: Node, flags: i32) -> Result<Opened, FsError> {
        match node {
            Node::Channel(id) => self.open_stream(id, flags),
            Node::DropFile(entry) => self.open_dropped(entry, flags),
            Node::Status | Node::Report(..) => {
                if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
                    return Err(FsError::quiet(libc::EACCES, "the control directory can only be read"));
                }
                let mut handle = Handle::new(node, flags);
                match node {
                    Node::Report(id, Report::Wait) => handle.barrier = Some(self.barrier(id)?),
                    _ => handle.report = self.report(node)?.map(Into::into),
                }
                Ok(Opened { handle: self.handles().insert(handle), node })
            }
            _ => Err(FsError::quiet(libc::EISDIR, "it is a directory")),
        }
    }

    fn open_stream(&self, id: ChannelId, flags: i32) -> Result<Opened, FsError> {
        let node = Node::Channel(id);
        let truncates = flags & libc::O_TRUNC != 0;
        let Some(channel) = self.owner.store().channel(id)? else { return self.open_unlinked_stream(id, flags) };
        if flags & libc::O_ACCMODE != libc::O_RDONLY || truncates {
            self.options.check_changes_allowed()?;
            if channel.role == Role::Reader {
                return Err(self.refused(&channel, libc::EACCES, "only its read capability is here"));
            }
        }
        let mut handle = Handle::new(node, flags);
        handle.expected = channel.size;
        handle.fills_gaps = channel.size == 0;
        let handle = {
            let mut handles = self.handles();
            if handle.is_sequential_writer() && handles.is_being_written(node) {
                let text = "it is being written by another program; `>>` may be used side by side";
                return Err(self.refused(&channel, libc::EBUSY, text));
            }
            handles.insert(handle)
        };
        if truncates && channel.size > 0 {
            match self.empty(&channel) {
                Ok(()) => self.handles().find_mut(handle)?.fills_gaps = true,
                // What was sent stays, and the program writes as if the file were empty.
                Err(StoreError::AlreadyLaunched { .. }) if self.options.truncate == Truncate::Append => {
                    self.handles().find_mut(handle)?.expected = 0;
                }
                Err(error) => {
                    self.release(handle);
                    return Err(self.told(&channel, error));
                }
            }
        }
        Ok(Opened { handle, node })
    }

    /// Makes a stream and opens it, or opens the one that is there.
    pub fn create(
        &self,
        parent: Node,
        name: &OsStr,
        mode: u32,
        flags: i32,
        by: Credentials,
    ) -> Result<Opened, FsError> {
        match self.lookup(parent, name) {
            Ok(_) if flags & libc::O_EXCL != 0 => {
                return Err(FsError::quiet(libc::EEXIST, "the file is there already"));
            }
            Ok(node) => return self.open(node, flags),
            Err(_) => {}
        }
        if parent.is_in_drop() {
            return self.create_dropped(parent, name, mode, flags, by);
        }
        let id = self.make_stream(parent, name, mode, by)?;
        self.open(Node::Channel(id), flags & !libc::O_TRUNC)
    }

    /// Makes a regular file without opening it, as mknod(2) does.
    pub fn make_file(&self, parent: Node, name: &OsStr, mode: u32, by: Credentials) -> Result<Attributes, FsError> {
        if self.lookup(parent, name).is_ok() {
            return Err(FsError::quiet(libc::EEXIST, "the file is there already"));
        }
        if parent.is_in_drop() {
            return self.make_dropped(parent, name, mode, by);
        }
        let id = self.make_stream(parent, name, mode, by)?;
        self.attributes(Node::Channel(id), None)
    }

    fn make_stream(&self, parent: Node, name: &OsStr, mode: u32, by: Credentials) -> Result<ChannelId, FsError> {
        let name = names::for_new_stream(parent, name)?;
        self.options.check_changes_allowed()?;
        let cap = fresh_write_cap().map_err(|failure| FsError::new(libc::EIO, failure.message))?;
        let store = self.owner.store();
        let id = store.create_stream(name, cap).wait()?;
        let dropped = 0o666 & !mode;
        if dropped & !self.options.umask != 0 {
            store.set_attributes(id, None, None, Some(dropped)).wait()?;
        }
        if (by.uid, by.gid) != (self.options.uid, self.options.gid) {
            store.set_owner(id, by.uid, by.gid).wait()?;
        }
        Ok(id)
    }

    /// Frees a handle.
    pub fn release(&self, handle: u64) {
        let released = {
            let mut handles = self.handles();
            let released = handles.remove(handle);
            if let Some(released) = &released {
                self.unlinked.closed(released.node, &handles);
            }
            released
        };
        self.patience.ended(handle);
        if let Some(open) = released.and_then(|handle| handle.dropped) {
            self.release_dropped(&open);
        }
    }

    /// How much the mount holds and takes: the spool's limit, where the disk below has room for it.
    pub fn capacity(&self) -> Result<Capacity, FsError> {
        let store = self.owner.store();
        let (used, limit) = (store.usage()?.spool_bytes + self.room.staged_bytes(), store.limits().spool_bytes);
        let free_bytes = limit.saturating_sub(used).min(store.disk_free_bytes()?);
        Ok(Capacity { total_bytes: used + free_bytes, free_bytes })
    }

    /// Why directories, links and special files are refused.
    pub fn refuse(&self, parent: Node, what: &str) -> FsError {
        if let Err(error) = self.options.check_changes_allowed() {
            return error;
        }
        if parent != Node::Root && !parent.is_in_drop() {
            return FsError::quiet(libc::EACCES, "the control directory can only be read");
        }
        FsError::new(libc::EPERM, format!("{what} cannot be made here: the mount holds regular files and directories"))
    }

    /// A channel that is fenced, or of another network, takes nothing and knows nothing.
    fn refuse_unusable(&self, channel: &Channel) -> Result<(), FsError> {
        self.refuse_in_trouble()?;
        let reason = channel.fence.clone().or_else(|| self.owner.engine().refusal(channel));
        match reason {
            Some(reason) => Err(FsError::new(libc::EIO, format!("{}: {reason}", channel.name))),
            None => Ok(()),
        }
    }

    /// While the state cannot be written, nothing counts as safe.
    fn refuse_in_trouble(&self) -> Result<(), FsError> {
        let trouble = self.owner.store().trouble();
        trouble.map_or(Ok(()), |reason| Err(StoreError::Unavailable { reason }.into()))
    }
}

fn removed() -> FsError {
    FsError::quiet(libc::ENOENT, "the channel was removed")
}

impl From<crate::engine::drops::DropError> for FsError {
    fn from(error: crate::engine::drops::DropError) -> Self {
        match error {
            crate::engine::drops::DropError::Store(error) => error.into(),
            error => FsError::new(libc::EIO, error.to_string()),
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        let errno = match error {
            StoreError::AlreadyLaunched { .. } | StoreError::Invited { .. } => libc::EPERM,
            StoreError::Dropped { .. } => libc::EIO,
            StoreError::NameTaken { .. } | StoreError::CapKnown { .. } => libc::EEXIST,
            StoreError::NoChannel => libc::ENOENT,
            StoreError::ReadOnly => libc::EACCES,
            StoreError::SpoolFull { .. } | StoreError::DiskFull => libc::ENOSPC,
            StoreError::Interrupted => libc::EINTR,
            _ => libc::EIO,
        };
        match errno {
            libc::ENOENT | libc::EINTR | libc::EEXIST => FsError::quiet(errno, error.to_string()),
            _ => FsError::new(errno, error.to_string()),
        }
    }
}
