//! What is done through an open file: reads, writes, fsync, close and poll.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::handle::Handle;
use super::{Attributes, Credentials, Fs, FsError, Node, Options};
use crate::fs::options::Fsync;
use crate::model::AT_HOME;
use crate::store::{Appended, Channel, ChannelId, Claim, Commit, Role, StoreError};

/// Most zeros that a write brings which leaves a gap before it.
const MAX_GAP_BYTES: u64 = 16 << 20;
/// What a limit of file sizes leaves free in the database, so that what was accepted can still be sent and confirmed.
const LIMIT_RESERVE_BYTES: u64 = 4 << 20;
/// Most bytes that one read gives.
pub(super) const READ_BYTES: usize = 1 << 20;

/// What an operation comes to that may have to wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// This.
    Now(T),
    /// Nothing yet: again after the channel has changed.
    Later(Pause),
}

/// What is waited for, and how long at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Its changes are worth another look.
    pub channel: ChannelId,
    /// What is waited for there: a wait that was interrupted goes on only at the same place.
    pub place: u64,
    /// From the first look on; then ETIMEDOUT.
    pub patience: Duration,
    /// What is said then.
    pub in_vain: String,
}

impl Pause {
    /// The patience is at its end.
    pub fn timed_out(&self) -> FsError {
        FsError::new(libc::ETIMEDOUT, self.in_vain.clone())
    }
}

/// A write that was taken.
#[derive(Debug)]
pub enum Taken {
    /// It is in the store's queue. What comes of it goes to [`Fs::wrote`].
    Commit(Commit<Appended>),
    /// So many bytes were written to a stream that has no name any more.
    Now(u64),
}

/// Bytes of a stream that replicas are to have: those that were accepted when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    id: ChannelId,
    /// `None`: the channel is read here, and its end is to be known.
    bytes: Option<u64>,
}

/// What a poll finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whose changes may alter it.
    pub channel: Option<ChannelId>,
    /// A read has something to say.
    pub readable: bool,
    /// A write is taken.
    pub writable: bool,
}

impl Fs {
    /// Reads. At the frontier of a reader its own verdict is the end; without one it is not known whether there is more.
    pub fn read(&self, handle: u64, offset: u64, size: usize) -> Result<Answer<Vec<u8>>, FsError> {
        let (node, report, barrier, nonblocking, dropped) = {
            let handles = self.handles();
            let open = handles.find(handle)?;
            (open.node, open.report.clone(), open.barrier, open.is_nonblocking(), open.dropped.clone())
        };
        if let Some(open) = dropped {
            return Ok(Answer::Now(self.read_dropped(&open, offset, size, &AtomicBool::new(false))?));
        }
        let answer = match (node, report, barrier) {
            (Node::Channel(id), _, _) => self.read_stream(handle, id, offset, size)?,
            (_, Some(report), _) => Answer::Now(part(&report, offset, size)),
            (_, None, Some(barrier)) => match self.reached(&barrier)? {
                Answer::Now(channel) => {
                    let report = super::control::outcome(&channel).into_bytes();
                    let bytes = part(&report, offset, size);
                    self.handles().find_mut(handle)?.report = Some(report.into());
                    Answer::Now(bytes)
                }
                Answer::Later(pause) => Answer::Later(pause),
            },
            _ => return Err(FsError::quiet(libc::EISDIR, "it is a directory")),
        };
        match answer {
            Answer::Later(_) if nonblocking => Err(FsError::quiet(libc::EAGAIN, "the answer is not known yet")),
            answer => Ok(answer),
        }
    }

    /// Whether a read through the handle commits nothing: one of `wait` puts a tail on its way first.
    pub fn only_looks(&self, handle: u64) -> bool {
        self.handles().find(handle).is_ok_and(|open| open.barrier.is_none())
    }

    fn read_stream(&self, handle: u64, id: ChannelId, offset: u64, size: usize) -> Result<Answer<Vec<u8>>, FsError> {
        let channel = match self.open_channel(id) {
            Err(gone) => {
                let file = self.unlinked.find(id).ok_or(gone)?;
                return Ok(Answer::Now(super::drop::read_at(&file, offset, size.min(READ_BYTES))?));
            }
            Ok(channel) => channel,
        };
        if offset < channel.size {
            let bytes = self.owner.store().read(id, offset, size.min(READ_BYTES)).map_err(|error| match error {
                StoreError::Dropped { .. } => self.refused(&channel, libc::EIO, error.to_string()),
                error => stale(error),
            })?;
            self.handles().reached(handle, offset + bytes.len() as u64);
            return Ok(Answer::Now(bytes));
        }
        self.handles().reached(handle, channel.size);
        if channel.role == Role::Writer {
            return Ok(Answer::Now(Vec::new()));
        }
        self.refuse_unusable(&channel)?;
        // Nothing is fetched for it, so even an old verdict says nothing, and no wait would end.
        if channel.paused {
            let text = "the cache is full, so nothing more is fetched: make room with `pigeonfs trim`";
            return Err(self.refused(&channel, libc::ENOSPC, text));
        }
        if channel.end_is_known() {
            return Ok(Answer::Now(Vec::new()));
        }
        if channel.is_lost() {
            return Err(self.lost(&channel));
        }
        let in_vain = format!("whether {} goes on could not be learned in time; this is not its end", channel.name);
        let place = channel.frontier.0;
        Ok(Answer::Later(Pause { channel: id, place, patience: self.options.read_timeout, in_vain }))
    }

    /// Takes bytes: checks where they go, and hands them to the store. The answer is the commit; its result then goes
    /// to [`Self::wrote`]. Whoever interrupts the wait goes through `claim`.
    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8], claim: Claim) -> Result<Taken, FsError> {
        let mut handles = self.handles();
        let open = handles.find_mut(handle)?;
        let Node::Channel(id) = open.node else {
            return Err(FsError::quiet(libc::EBADF, "it is not open for writing"));
        };
        if let Some(failed) = &open.failed {
            return Err(failed.clone());
        }
        let channel = match self.open_channel(id) {
            Err(gone) => {
                let file = self.unlinked.find(id).ok_or(gone)?;
                return Ok(Taken::Now(Self::write_unlinked(&file, offset, bytes, open.appends())?));
            }
            Ok(channel) => channel,
        };
        if channel.role == Role::Reader {
            return Err(self.refused(&channel, libc::EACCES, "only its read capability is here"));
        }
        self.refuse_unusable(&channel).inspect_err(|error| open.fail(error))?;
        // The kernel's offset means nothing under O_APPEND: others may have appended since it looked.
        let gap = if open.appends() { 0 } else { self.gap(&channel, open, offset)? };
        self.refuse_beyond_limit(gap.saturating_add(bytes.len() as u64))?;
        open.writes();
        open.filled = gap;
        let mut taken = vec![0; usize::try_from(gap).unwrap_or_default()];
        taken.extend_from_slice(bytes);
        Ok(Taken::Commit(self.owner.store().append(id, taken, Some(claim))))
    }

    /// Refuses bytes for which the state's database has no room below this process' limit of file sizes (`ulimit -f`). The store
    /// itself would take the failed write for a failing disk.
    fn refuse_beyond_limit(&self, bytes: u64) -> Result<(), FsError> {
        let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Fsize).current else { return Ok(()) };
        let state = self.owner.store().state_path();
        let longest = ["pigeonfs.db", "pigeonfs.db-wal"].iter().filter_map(|name| state.join(name).metadata().ok());
        let longest = longest.map(|found| found.len()).max().unwrap_or(0);
        if longest.saturating_add(bytes.saturating_mul(2)).saturating_add(LIMIT_RESERVE_BYTES) <= limit {
            return Ok(());
        }
        let text = format!(
            "the state's database would pass the limit of file sizes of {limit} bytes that the mount was started with: start it \
             with a larger `ulimit -f`"
        );
        Err(FsError::new(libc::EFBIG, text))
    }

    /// How many zeros belong before a write that does not begin where the last one ended. What copies a file with holes
    /// passes over them.
    fn gap(&self, channel: &Channel, open: &Handle, offset: u64) -> Result<u64, FsError> {
        let refuse = |text: String| Err(self.refused(channel, libc::ESPIPE, text));
        let alone = open.fills_gaps && open.expected == channel.size;
        match offset.checked_sub(open.expected) {
            Some(0) => Ok(0),
            // Where another program has appended meanwhile, it is not known what is passed over.
            Some(gap) if alone && gap <= MAX_GAP_BYTES => Ok(gap),
            Some(gap) if alone => refuse(format!(
                "a hole of {gap} bytes would be sent as zeros, and at most {MAX_GAP_BYTES} are: copy with --sparse=never to \
                 send all of them"
            )),
            _ => refuse(format!("it can only grow at its end: a write at {offset} was refused. Append with `>>`")),
        }
    }

    /// Has a stream that is being written grow by zeros, where it was empty when it was opened: the hole at the end of a
    /// file that is copied.
    pub(super) fn extend(&self, channel: &Channel, handle: u64, size: u64) -> Result<(), FsError> {
        let gap = {
            let mut handles = self.handles();
            let open = handles.find_mut(handle)?;
            if open.expected != channel.size || !open.fills_gaps || open.appends() {
                return Err(self.refused(channel, libc::EPERM, "it can only grow, by appending to it with `>>`"));
            }
            let gap = self.gap(channel, open, size)?;
            open.writes();
            gap
        };
        self.refuse_beyond_limit(gap)?;
        let zeros = vec![0; usize::try_from(gap).unwrap_or_default()];
        let appended = self.owner.store().append(channel.id, zeros, None).wait();
        self.wrote(handle, appended).map(drop)
    }

    /// Takes note of what became of a write: the number of bytes, or why there are none.
    pub fn wrote(&self, handle: u64, result: Result<Appended, StoreError>) -> Result<u64, FsError> {
        let mut handles = self.handles();
        let open = handles.find_mut(handle);
        match (result, open) {
            (Ok(appended), Ok(open)) => {
                let bytes = appended.size - appended.offset;
                open.expected += bytes;
                open.wrote = true;
                Ok(bytes - std::mem::take(&mut open.filled).min(bytes))
            }
            (Ok(appended), Err(_)) => Ok(appended.size - appended.offset),
            // Somebody who asked not to wait may try again when boxes have been stored.
            (Err(error @ StoreError::SpoolFull { .. }), Ok(open)) if open.is_nonblocking() => {
                Err(FsError::new(libc::EAGAIN, error.to_string()))
            }
            (Err(error), open) => {
                let error = stale(error);
                if let Ok(open) = open {
                    open.fail(&error);
                }
                Err(error)
            }
        }
    }

    /// A close of one of the handle's descriptors. Never the end of a message, and never a wait. Says so when what was
    /// written through it will not be delivered.
    pub fn flush(&self, handle: u64) -> Result<(), FsError> {
        let mut handles = self.handles();
        let open = handles.find_mut(handle)?;
        open.flushes();
        if let (Node::Channel(id), true) = (open.node, open.wrote)
            && let Some(channel) = self.owner.store().channel(id)?
        {
            self.refuse_unusable(&channel).inspect_err(|error| open.fail(error))?;
        }
        open.failed.clone().map_or(Ok(()), Err)
    }

    /// What was written is on this machine's disk since its write; this puts the tail on its way. Where replicas are to
    /// have all of it, what is to be waited for.
    /// Who may only read the file puts nothing on its way: couriers see when a box leaves.
    pub fn sync(&self, handle: u64, by: Credentials) -> Result<Option<Barrier>, FsError> {
        let (node, failed, dropped) = {
            let handles = self.handles();
            let open = handles.find(handle)?;
            (open.node, open.failed.clone(), open.dropped.clone())
        };
        if let Some(failed) = failed {
            return Err(failed);
        }
        self.refuse_in_trouble().inspect_err(|error| {
            if let Ok(open) = self.handles().find_mut(handle) {
                open.fail(error);
            }
        })?;
        if let Some(open) = dropped {
            return self.sync_dropped(&open).map(|()| None);
        }
        let Node::Channel(id) = node else { return Ok(None) };
        let channel = match self.open_channel(id) {
            Err(gone) => return self.unlinked.find(id).map(|_| None).ok_or(gone),
            Ok(channel) => channel,
        };
        if let Err(error) = self.refuse_unusable(&channel) {
            self.handles().find_mut(handle)?.fail(&error);
            return Err(error);
        }
        if channel.role == Role::Reader {
            return Ok(None);
        }
        if self.may_write(&channel, by) {
            self.seal(&channel)?;
        }
        // Nothing of one that is not renamed yet is sent.
        let waits = self.options.fsync == Fsync::Stored && !channel.is_at_home();
        Ok(waits.then_some(Barrier { id, bytes: Some(channel.size) }))
    }

    /// Whether what was to be waited for has come: then the channel as it is.
    pub fn reached(&self, barrier: &Barrier) -> Result<Answer<Channel>, FsError> {
        let channel = self.open_channel(barrier.id)?;
        self.refuse_unusable(&channel)?;
        if channel.content.is_drop() && channel.role == Role::Writer {
            return self.reached_in_drop(channel);
        }
        let Some(bytes) = barrier.bytes else {
            if channel.paused {
                let text = "the cache is full, so nothing more is fetched: make room with `pigeonfs trim`";
                return Err(self.refused(&channel, libc::ENOSPC, text));
            }
            if channel.end_is_known() {
                return Ok(Answer::Now(channel));
            }
            if channel.is_lost() {
                return Err(self.lost(&channel));
            }
            return Ok(Answer::Later(self.pause(
                &channel,
                format!("whether {} goes on after {} bytes is not known yet", channel.name, channel.size),
            )));
        };
        if channel.stored_bytes >= bytes {
            return Ok(Answer::Now(channel));
        }
        // A packing for another network may have opened the tail again.
        if channel.size - channel.tail_bytes < bytes {
            self.seal(&channel)?;
        }
        if channel.is_at_home() {
            return Err(self.refused(&channel, libc::EIO, AT_HOME));
        }
        let text = if channel.invited {
            format!("{} is invited with: nothing of it is sent before the other side has answered", channel.name)
        } else {
            format!(
                "{} of the {bytes} bytes of {} are stored; nothing is lost, and they stay on their way",
                channel.stored_bytes, channel.name
            )
        };
        Ok(Answer::Later(self.pause(&channel, text)))
    }

    fn may_write(&self, channel: &Channel, by: Credentials) -> bool {
        let attributes = Attributes::of_channel(channel, &self.options);
        let bits = if by.uid == attributes.uid {
            0o200
        } else if by.gid == attributes.gid {
            0o020
        } else {
            0o002
        };
        by.uid == 0 || attributes.mode & bits != 0
    }

    fn lost(&self, channel: &Channel) -> FsError {
        let text = "boxes that come next are gone from the network, and later ones are here: `pigeonfs skip` goes on \
                    behind them";
        self.refused(channel, libc::EIO, text)
    }

    /// What a read of `wait` waits for from now on.
    pub(super) fn barrier(&self, id: ChannelId) -> Result<Barrier, FsError> {
        let channel = self.channel(id)?;
        let bytes = (channel.role == Role::Writer).then_some(channel.size);
        Ok(Barrier { id, bytes })
    }

    pub(super) fn pause(&self, channel: &Channel, in_vain: String) -> Pause {
        Pause { channel: channel.id, place: u64::MAX, patience: self.options.sync_timeout, in_vain }
    }

    /// A mount that changes nothing leaves the tail to its linger.
    fn seal(&self, channel: &Channel) -> Result<(), FsError> {
        if channel.tail_bytes > 0 && !self.options.read_only {
            self.owner.store().seal_tail(channel.id).wait().map_err(stale)?;
        }
        Ok(())
    }

    /// Whether a read at the handle's position finds something, and a write is taken.
    pub fn readiness(&self, handle: u64) -> Result<Readiness, FsError> {
        let (node, position, barrier, dropped) = {
            let handles = self.handles();
            let open = handles.find(handle)?;
            (open.node, open.position, open.barrier.filter(|_| open.report.is_none()), open.dropped.is_some())
        };
        if let Some(barrier) = barrier {
            let readable = !matches!(self.reached(&barrier), Ok(Answer::Later(_)));
            return Ok(Readiness { channel: Some(barrier.id), readable, writable: false });
        }
        let Node::Channel(id) = node else {
            return Ok(Readiness { channel: None, readable: true, writable: dropped });
        };
        let channel = match self.open_channel(id) {
            Err(gone) => {
                self.unlinked.find(id).ok_or(gone)?;
                return Ok(Readiness { channel: None, readable: true, writable: true });
            }
            Ok(channel) => channel,
        };
        let failed = channel.fence.is_some() || channel.paused || channel.is_lost();
        let store = self.owner.store();
        let room = channel.role == Role::Writer && store.usage()?.spool_bytes < store.limits().spool_bytes;
        Ok(Readiness {
            channel: Some(id),
            readable: position < channel.size || failed,
            writable: channel.role == Role::Writer && (room || failed),
        })
    }

    /// Where the bytes from `offset` on begin or end: a stream is one extent, and what was dropped of it is no hole.
    pub fn seek(&self, handle: u64, offset: u64, hole: bool) -> Result<u64, FsError> {
        let node = self.handles().find(handle)?.node;
        let size = self.attributes(node, Some(handle))?.size;
        if offset >= size {
            return Err(FsError::quiet(libc::ENXIO, "it is past the end"));
        }
        Ok(if hole { size } else { offset })
    }

    /// The channel behind an open file.
    fn open_channel(&self, id: ChannelId) -> Result<Channel, FsError> {
        self.owner.store().channel(id)?.ok_or_else(|| stale(StoreError::NoChannel))
    }
}

/// The error of an open file: its channel may have been removed under it.
fn stale(error: StoreError) -> FsError {
    match error {
        StoreError::NoChannel => FsError::quiet(libc::ESTALE, "the stream was removed while it was open"),
        error => error.into(),
    }
}

fn part(report: &[u8], offset: u64, size: usize) -> Vec<u8> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(report.len());
    report[from..report.len().min(from.saturating_add(size))].to_vec()
}

impl Options {
    /// Refuses what would change anything, where nothing is to be changed.
    pub(super) fn check_changes_allowed(&self) -> Result<(), FsError> {
        if self.read_only { Err(FsError::quiet(libc::EROFS, "it is mounted read-only")) } else { Ok(()) }
    }
}
