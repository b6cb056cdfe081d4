//! Open files.

use std::collections::HashMap;
use std::sync::Arc;

use super::drop::OpenFile;
use super::{Barrier, FsError, Node};

/// One open file description.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) node: Node,
    pub(super) flags: i32,
    /// Where the next write must be, without `O_APPEND`.
    pub(super) expected: u64,
    /// Whether it began with an empty file: what it passes over is then zeros, as in any file.
    pub(super) fills_gaps: bool,
    /// Zeros before the bytes of the write that is being taken.
    pub(super) filled: u64,
    /// Where the last read ended.
    pub(super) position: u64,
    written_since_flush: bool,
    flushed: bool,
    /// Whether bytes were ever taken through it.
    pub(super) wrote: bool,
    /// The first failure of its channel that a write, an fsync or a close met. It sticks.
    pub(super) failed: Option<FsError>,
    /// A report as it was at open, or at the end of its wait.
    pub(super) report: Option<Arc<[u8]>>,
    /// What a read of `wait` waits for.
    pub(super) barrier: Option<Barrier>,
    /// What is open of a drop.
    pub(super) dropped: Option<OpenFile>,
}

impl Handle {
    pub(super) fn new(node: Node, flags: i32) -> Self {
        Self {
            node,
            flags,
            expected: 0,
            fills_gaps: false,
            filled: 0,
            position: 0,
            written_since_flush: false,
            flushed: false,
            wrote: false,
            failed: None,
            report: None,
            barrier: None,
            dropped: None,
        }
    }

    pub(super) fn appends(&self) -> bool {
        self.flags & libc::O_APPEND != 0
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.flags & libc::O_NONBLOCK != 0
    }

    /// Whether it writes from a position of its own, as `cp` and `>` do.
    pub(super) fn is_sequential_writer(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY && !self.appends()
    }

    pub(super) fn writes(&mut self) {
        self.written_since_flush = true;
    }

    pub(super) fn flushes(&mut self) {
        self.written_since_flush = false;
        self.flushed = true;
    }

    /// What failed for its channel fails for good through this handle.
    pub(super) fn fail(&mut self, error: &FsError) {
        if error.errno == libc::EIO && self.failed.is_none() {
            self.failed = Some(FsError::quiet(error.errno, error.message.clone()));
        }
    }

    /// RELEASE comes some time after the last close; FLUSH comes with it. A shell flushes once before it writes.
    fn is_writing(&self) -> bool {
        self.is_sequential_writer() && (self.written_since_flush || !self.flushed)
    }
}

/// All open files of a mount.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    last: u64,
}

impl Handles {
    pub(super) fn insert(&mut self, handle: Handle) -> u64 {
        self.last += 1;
        self.open.insert(self.last, handle);
        self.last
    }

    pub(super) fn find(&self, handle: u64) -> Result<&Handle, FsError> {
        self.open.get(&handle).ok_or_else(|| FsError::quiet(libc::EBADF, "the file is not open"))
    }

    pub(super) fn find_mut(&mut self, handle: u64) -> Result<&mut Handle, FsError> {
        self.open.get_mut(&handle).ok_or_else(|| FsError::quiet(libc::EBADF, "the file is not open"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn reached(&mut self, handle: u64, position: u64) {
        if let Some(open) = self.open.get_mut(&handle) {
            open.position = position;
        }
    }

    pub(super) fn is_open(&self, node: Node) -> bool {
        self.open.values().any(|open| open.node == node)
    }

    pub(super) fn each_of(&mut self, node: Node, mut see: impl FnMut(&mut Handle)) {
        self.open.values_mut().filter(|open| open.node == node).for_each(&mut see);
    }

    pub(super) fn is_being_written(&self, node: Node) -> bool {
        self.open.values().any(|open| open.node == node && open.is_writing())
    }

    /// The file was emptied: whoever writes it starts at its beginning, and no older position is taken for its end.
    pub(super) fn emptied(&mut self, node: Node) {
        for open in self.open.values_mut().filter(|open| open.node == node) {
            open.expected = 0;
            open.position = 0;
            open.fills_gaps = false;
        }
    }

    pub(super) fn remove(&mut self, handle: u64) -> Option<Handle> {
        self.open.remove(&handle)
    }
}
