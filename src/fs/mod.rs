//! The policy of the mount: names, handles, access, errno. No FUSE types, no async.
//!
//! Everything here is answered from the store, so no file operation asks the network anything. What has to wait says
//! so with [`Read::Wait`], or hands out a commit; the mount waits, and can be interrupted. The decisions are those of
//! `fuse-semantics.md` §3, as the design changes them.

mod control;
mod error;
mod handle;
mod names;
mod node;
mod options;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use error::FsError;
pub use node::{Attributes, Kind, Node};
pub use options::{Fsync, Options, Truncate, UnknownChoice};

use handle::{Handle, Handles};

use crate::engine::{Owner, fresh_write_cap};
use crate::store::{Appended, Channel, ChannelId, ChannelName, Claim, Commit, Role, StoreError};

/// Most bytes that one read gives.
const READ_BYTES: usize = 1 << 20;
/// Channels that a listing takes from the store at a time.
const PAGE: usize = 512;

/// The file system of one state.
pub struct Fs {
    owner: Arc<Owner>,
    options: Options,
    handles: Mutex<Handles>,
}

/// What a read comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// These bytes; none at the end.
    Data(Vec<u8>),
    /// Whether there is more is not known: again after the channel has changed.
    Wait(ChannelId),
}

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

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub handle: u64,
    /// What it is.
    pub node: Node,
}

impl Fs {
    /// The file system of what `owner` owns.
    pub fn new(owner: Arc<Owner>, options: Options) -> Self {
        Self { owner, options, handles: Mutex::default() }
    }

    /// What was chosen.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Who owns the state.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a name up.
    pub fn lookup(&self, parent: Node, name: &std::ffi::OsStr) -> Result<Node, FsError> {
        let missing = || FsError::quiet(libc::ENOENT, "there is no such file");
        match parent {
            Node::Root if name == ".pigeonfs" => Ok(Node::Control),
            Node::Root => {
                let name = ChannelName::from_os(name).map_err(|_| missing())?;
                let channel = self.owner.store().by_name(&name)?.ok_or_else(missing)?;
                Ok(Node::Channel(channel.id))
            }
            Node::Control if name == "status.json" => Ok(Node::Status),
            Node::Control => {
                let name = ChannelName::from_os(name).map_err(|_| missing())?;
                let channel = self.owner.store().by_name(&name)?.ok_or_else(missing)?;
                Ok(Node::ChannelControl(channel.id))
            }
            Node::ChannelControl(id) if name == "status" => Ok(Node::ChannelStatus(id)),
            Node::ChannelControl(id) if name == "status.json" => Ok(Node::ChannelStatusJson(id)),
            _ => Err(missing()),
        }
    }

    /// The attributes of a file or directory.
    pub fn attributes(&self, node: Node) -> Result<Attributes, FsError> {
        match node {
            Node::Root | Node::Control | Node::ChannelControl(_) => Ok(Attributes::directory(node, &self.options)),
            Node::Channel(id) => Ok(Attributes::of_channel(&self.channel(id)?, &self.options)),
            Node::Status | Node::ChannelStatus(_) | Node::ChannelStatusJson(_) => {
                Ok(Attributes::of_report(node, self.report(node)?.len() as u64, &self.options))
            }
        }
    }

    /// What a directory lists: names and what they are. The control directory is found and never listed.
    pub fn list(&self, node: Node) -> Result<Vec<(Node, String)>, FsError> {
        let mut entries = vec![(node, ".".to_owned()), (Node::Root, "..".to_owned())];
        match node {
            Node::Root => self.each_channel(|channel| {
                entries.push((Node::Channel(channel.id), channel.name.to_string()));
            })?,
            Node::Control => {
                entries.push((Node::Status, "status.json".to_owned()));
                self.each_channel(|channel| {
                    entries.push((Node::ChannelControl(channel.id), channel.name.to_string()));
                })?;
            }
            Node::ChannelControl(id) => {
                entries.push((Node::ChannelStatus(id), "status".to_owned()));
                entries.push((Node::ChannelStatusJson(id), "status.json".to_owned()));
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
        let writing = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let mut handle = Handle::new(node, flags);
        match node {
            Node::Channel(id) => {
                let channel = self.channel(id)?;
                if writing && channel.role == Role::Reader {
                    return Err(FsError::new(libc::EACCES, format!("{} can only be read here", channel.name)));
                }
                let truncate = writing && flags & libc::O_TRUNC != 0 && channel.size > 0;
                if truncate {
                    self.owner.store().truncate(id).wait()?;
                }
                handle.expected = if truncate { 0 } else { channel.size };
                if handle.is_sequential_writer() && self.handles().is_being_written(node) {
                    return Err(FsError::new(
                        libc::EBUSY,
                        format!("{} is being written by another program; `>>` may be used side by side", channel.name),
                    ));
                }
            }
            Node::Status | Node::ChannelStatus(_) | Node::ChannelStatusJson(_) => {
                if writing {
                    return Err(FsError::quiet(libc::EACCES, "the control directory can only be read"));
                }
                handle.report = Some(self.report(node)?.into());
            }
            _ => return Err(FsError::quiet(libc::EISDIR, "it is a directory")),
        }
        Ok(Opened { handle: self.handles().insert(handle), node })
    }

    /// Makes a stream and opens it, or opens the one that is there.
    pub fn create(&self, parent: Node, name: &std::ffi::OsStr, flags: i32) -> Result<Opened, FsError> {
        if let Ok(node) = self.lookup(parent, name) {
            if flags & libc::O_EXCL != 0 {
                return Err(FsError::quiet(libc::EEXIST, "the file is there already"));
            }
            return self.open(node, flags);
        }
        let name = names::for_new_stream(parent, name)?;
        let cap = fresh_write_cap().map_err(|failure| FsError::new(libc::EIO, failure.message))?;
        let id = self.owner.store().create_stream(name, cap).wait()?;
        self.open(Node::Channel(id), flags & !libc::O_TRUNC)
    }

    /// Reads. At the frontier of a reader its own verdict is the end; without one it is not known whether there is more.
    pub fn read(&self, handle: u64, offset: u64, size: usize) -> Result<Read, FsError> {
        let (node, report, nonblocking) = {
            let handles = self.handles();
            let open = handles.find(handle)?;
            (open.node, open.report.clone(), open.flags & libc::O_NONBLOCK != 0)
        };
        let Node::Channel(id) = node else {
            let report = report.ok_or_else(|| FsError::quiet(libc::EISDIR, "it is a directory"))?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(report.len());
            return Ok(Read::Data(report[from..report.len().min(from.saturating_add(size))].to_vec()));
        };
        let channel = self.channel(id)?;
        if offset < channel.size {
            let bytes = self.owner.store().read(id, offset, size.min(READ_BYTES))?;
            self.handles().reached(handle, offset + bytes.len() as u64);
            return Ok(Read::Data(bytes));
        }
        self.handles().reached(handle, offset.min(channel.size));
        if channel.role == Role::Writer || (channel.verdict.is_some() && !channel.later_known) {
            return Ok(Read::Data(Vec::new()));
        }
        self.refuse_unusable(&channel)?;
        if nonblocking {
            return Err(FsError::quiet(libc::EAGAIN, "whether there is more is not known yet"));
        }
        Ok(Read::Wait(id))
    }

    /// Takes bytes: checks where they go, and hands them to the store. The answer is the commit; then comes
    /// [`Self::wrote`]. Whoever interrupts the wait goes through `claim`.
    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8], claim: Claim) -> Result<Commit<Appended>, FsError> {
        let mut handles = self.handles();
        let open = handles.find_mut(handle)?;
        let Node::Channel(id) = open.node else {
            return Err(FsError::quiet(libc::EBADF, "it is not open for writing"));
        };
        let channel = self.channel(id)?;
        self.refuse_unusable(&channel)?;
        if channel.role == Role::Reader {
            return Err(FsError::quiet(libc::EACCES, "only its read capability is here"));
        }
        // The kernel's offset means nothing under O_APPEND: others may have appended since it looked.
        if open.flags & libc::O_APPEND == 0 && offset != open.expected {
            return Err(FsError::new(
                libc::ESPIPE,
                format!("{} can only grow at its end: a write at {offset} was refused. Append with `>>`", channel.name),
            ));
        }
        open.written_since_flush = true;
        Ok(self.owner.store().append(id, bytes.to_vec(), Some(claim)))
    }

    /// Notes that a write was committed.
    pub fn wrote(&self, handle: u64, bytes: u64) {
        if let Ok(open) = self.handles().find_mut(handle) {
            open.expected += bytes;
        }
    }

    /// A close of one of the handle's descriptors. Never the end of a message, and never a wait.
    pub fn flush(&self, handle: u64) -> Result<(), FsError> {
        let mut handles = self.handles();
        let open = handles.find_mut(handle)?;
        open.written_since_flush = false;
        open.flushed = true;
        Ok(())
    }

    /// What was written is on this machine's disk since its write; this puts the tail on its way.
    pub fn sync(&self, handle: u64) -> Result<(), FsError> {
        let node = self.handles().find(handle)?.node;
        if let Node::Channel(id) = node {
            let channel = self.channel(id)?;
            self.refuse_unusable(&channel)?;
            if channel.role == Role::Writer {
                self.owner.store().seal_tail(id).wait()?;
            }
        }
        Ok(())
    }

    /// Frees a handle.
    pub fn release(&self, handle: u64) {
        self.handles().remove(handle);
    }

    /// The channel behind a handle, and whether a read at its position finds something and a write is taken.
    pub fn readiness(&self, handle: u64) -> Result<(Option<ChannelId>, bool, bool), FsError> {
        let (node, position) = {
            let handles = self.handles();
            let open = handles.find(handle)?;
            (open.node, open.position)
        };
        let Node::Channel(id) = node else { return Ok((None, true, false)) };
        let channel = self.channel(id)?;
        let writable = channel.role == Role::Writer;
        Ok((Some(id), position < channel.size || channel.fence.is_some(), writable))
    }

    /// Changes attributes. A length only where it is no change, or takes back what has not left; times are kept; mode
    /// bits may be dropped.
    pub fn change(&self, node: Node, change: Change) -> Result<Attributes, FsError> {
        let Node::Channel(id) = node else {
            return Err(FsError::quiet(libc::EPERM, "the directory itself cannot be changed"));
        };
        let channel = self.channel(id)?;
        let attributes = Attributes::of_channel(&channel, &self.options);
        if change.uid.is_some_and(|uid| uid != attributes.uid) || change.gid.is_some_and(|gid| gid != attributes.gid) {
            return Err(FsError::new(libc::EPERM, format!("{} cannot be given to somebody else", channel.name)));
        }
        match change.size {
            Some(size) if size != channel.size && channel.role == Role::Reader => {
                return Err(FsError::new(libc::EACCES, format!("{} can only be read here", channel.name)));
            }
            Some(0) if channel.size > 0 => self.owner.store().truncate(id).wait()?,
            Some(size) if size != channel.size => {
                return Err(FsError::new(libc::EPERM, format!("{} can only grow, by appending to it", channel.name)));
            }
            _ => {}
        }
        if channel.role == Role::Reader && change.mode.is_some_and(|mode| mode & 0o222 != 0) {
            return Err(FsError::new(libc::EPERM, format!("only the read capability of {} is here", channel.name)));
        }
        // Bits for others are nothing that this mount gives, so asking for them changes nothing.
        let dropped = change.mode.map(|mode| 0o777 & !mode);
        if dropped.is_some() || change.accessed.is_some() || change.modified.is_some() {
            self.owner.store().set_attributes(id, change.accessed, change.modified, dropped).wait()?;
        }
        self.attributes(node)
    }

    /// Removes a stream that never left this machine.
    pub fn unlink(&self, parent: Node, name: &std::ffi::OsStr) -> Result<(), FsError> {
        match self.lookup(parent, name)? {
            Node::Channel(id) => Ok(self.owner.store().unlink(id).wait()?),
            _ => Err(FsError::quiet(libc::EPERM, "the control directory can only be read")),
        }
    }

    /// Renames within the root: onto a free name, or over a stream that never left this machine.
    pub fn rename(
        &self,
        from: (Node, &std::ffi::OsStr),
        to: (Node, &std::ffi::OsStr),
        replace: bool,
    ) -> Result<(), FsError> {
        let node = self.lookup(from.0, from.1)?;
        let (Node::Channel(id), Node::Root) = (node, to.0) else {
            return Err(FsError::quiet(libc::EPERM, "only channels can be renamed, within the root"));
        };
        let new = names::for_new_stream(to.0, to.1)?;
        let old = self.channel(id)?.name;
        let store = self.owner.store();
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => Err(FsError::quiet(libc::EEXIST, "the name is taken")),
            Ok(there) if there != node => Ok(store.rename_over(old, new).wait()?),
            _ => Ok(store.rename(old, new).wait()?),
        }
    }

    /// Why directories, links and special files are refused in the root.
    pub fn refuse(&self, what: &str) -> FsError {
        FsError::new(
            libc::EPERM,
            format!("{what} cannot be made here: the mount holds streams, which are regular files"),
        )
    }

    fn channel(&self, id: ChannelId) -> Result<Channel, FsError> {
        let channel = self.owner.store().channel(id)?;
        channel.ok_or_else(|| FsError::quiet(libc::ENOENT, "the channel was removed"))
    }

    /// A channel that is fenced, or of another network, takes nothing and knows nothing.
    fn refuse_unusable(&self, channel: &Channel) -> Result<(), FsError> {
        let reason = channel.fence.clone().or_else(|| self.owner.engine().refusal(channel));
        match reason {
            Some(reason) => Err(FsError::new(libc::EIO, format!("{}: {reason}", channel.name))),
            None => Ok(()),
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        let errno = match error {
            StoreError::AlreadyLaunched { .. } => libc::EPERM,
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
