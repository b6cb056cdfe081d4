//! What the kernel is answered.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{debug, warn};

use super::Device;
use crate::fs::{Attributes, Kind, Node};

/// Of an open file: the page cache keeps nothing of it.
pub(in crate::mount) const DIRECT_IO: u32 = 1;
/// There is something to read; a write is taken. Each also under its other name.
pub(in crate::mount) const POLL_IN: u32 = (libc::POLLIN | libc::POLLRDNORM) as u32;
pub(in crate::mount) const POLL_OUT: u32 = (libc::POLLOUT | libc::POLLWRNORM) as u32;

/// Sizes and times change behind the kernel's back.
const ATTRIBUTES_LAST: Duration = Duration::ZERO;
/// The least that the kernel can count, a tick of its clock: a stat(2) looks a name up and then asks for what it was
/// just told. So it is not asked.
const ATTRIBUTES_OF_A_LOOKUP_LAST: Duration = Duration::from_nanos(1);
/// And names come, go and change.
const NAMES_LAST: Duration = Duration::ZERO;

/// The answer that a request waits for. One that is dropped is EIO.
#[derive(Debug)]
pub(in crate::mount) struct Reply {
    device: Arc<Device>,
    unique: u64,
    sent: bool,
}

/// What `statfs(2)` says, in blocks of `block` bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::mount) struct Room {
    pub(in crate::mount) block: u32,
    pub(in crate::mount) blocks: u64,
    pub(in crate::mount) free_blocks: u64,
    pub(in crate::mount) files: u64,
    pub(in crate::mount) name_bytes: u32,
}

impl Reply {
    pub(in crate::mount) fn new(device: &Arc<Device>, unique: u64) -> Self {
        Self { device: Arc::clone(device), unique, sent: false }
    }

    /// It failed.
    pub(in crate::mount) fn error(mut self, errno: i32) {
        self.send(errno, &[]);
    }

    /// It is done, and there is nothing to say.
    pub(in crate::mount) fn done(self) {
        self.bytes(&[]);
    }

    /// Bytes of a file, of a directory, of an attribute.
    pub(in crate::mount) fn bytes(mut self, bytes: &[u8]) {
        self.send(0, bytes);
    }

    /// What a name stands for.
    pub(in crate::mount) fn entry(self, attributes: &Attributes) {
        self.bytes(&entry(attributes, ATTRIBUTES_OF_A_LOOKUP_LAST).0);
    }

    pub(in crate::mount) fn attributes(self, attributes: &Attributes) {
        let mut out = Out::default();
        out.u64(ATTRIBUTES_LAST.as_secs()).u32(ATTRIBUTES_LAST.subsec_nanos()).u32(0).attributes(attributes);
        self.bytes(&out.0);
    }

    /// A file is open, with these flags of ours.
    pub(in crate::mount) fn opened(self, handle: u64, flags: u32) {
        let mut out = Out::default();
        out.u64(handle).u32(flags).u32(0);
        self.bytes(&out.0);
    }

    /// A file was made, and is open.
    pub(in crate::mount) fn created(self, attributes: &Attributes, handle: u64, flags: u32) {
        let mut out = entry(attributes, ATTRIBUTES_LAST);
        out.u64(handle).u32(flags).u32(0);
        self.bytes(&out.0);
    }

    /// So many bytes were taken.
    pub(in crate::mount) fn written(self, count: u64) {
        self.length(count);
    }

    /// So many bytes an attribute has.
    pub(in crate::mount) fn length(self, count: u64) {
        let mut out = Out::default();
        out.u32(u32::try_from(count).unwrap_or(u32::MAX)).u32(0);
        self.bytes(&out.0);
    }

    pub(in crate::mount) fn offset(self, offset: u64) {
        self.bytes(&offset.to_ne_bytes());
    }

    /// What a poll finds.
    pub(in crate::mount) fn events(self, events: u32) {
        let mut out = Out::default();
        out.u32(events).u32(0);
        self.bytes(&out.0);
    }

    pub(in crate::mount) fn room(self, room: &Room) {
        let mut out = Out::default();
        out.u64(room.blocks).u64(room.free_blocks).u64(room.free_blocks).u64(room.files).u64(room.files);
        out.u32(room.block).u32(room.name_bytes).u32(room.block).u32(0);
        out.0.resize(80, 0);
        self.bytes(&out.0);
    }

    fn send(&mut self, errno: i32, body: &[u8]) {
        self.sent = true;
        if let Err(error) = self.device.answer(self.unique, errno, body) {
            // The mount has gone, or the caller has.
            debug!(%error, "an answer was not taken");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            warn!("a request was left without an answer");
            self.send(libc::EIO, &[]);
        }
    }
}

/// What fits of a directory into one answer.
pub(in crate::mount) struct Directory {
    out: Out,
    size: usize,
}

impl Directory {
    pub(in crate::mount) fn new(size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(0);
        Self { out: Out(Vec::with_capacity(size)), size }
    }

    /// Adds an entry; `next` is where the one after it is. False: there is no room for it.
    pub(in crate::mount) fn add(&mut self, node: Node, next: u64, name: &OsStr) -> bool {
        const HEAD: usize = 24;
        let name = name.as_bytes();
        let end = self.out.0.len() + (HEAD + name.len()).next_multiple_of(8);
        if end > self.size {
            return false;
        }
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.out.u64(node.inode()).u64(next).u32(length).u32(kind(node) >> 12);
        self.out.0.extend_from_slice(name);
        self.out.0.resize(end, 0);
        true
    }

    pub(in crate::mount) fn send(self, reply: Reply) {
        reply.bytes(&self.out.0);
    }
}

fn entry(attributes: &Attributes, last: Duration) -> Out {
    let mut out = Out(Vec::with_capacity(144));
    out.u64(attributes.node.inode()).u64(0);
    out.u64(NAMES_LAST.as_secs()).u64(last.as_secs()).u32(NAMES_LAST.subsec_nanos()).u32(last.subsec_nanos());
    out.attributes(attributes);
    out
}

fn kind(node: Node) -> u32 {
    match node.kind() {
        Kind::Directory => libc::S_IFDIR,
        Kind::File => libc::S_IFREG,
    }
}

/// An answer as it is put together.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let times = [attributes.accessed, attributes.modified, attributes.changed].map(time);
        let links = if attributes.node.kind() == Kind::Directory { 2 } else { 1 };
        self.u64(attributes.node.inode()).u64(attributes.size).u64(attributes.held.div_ceil(512));
        for (seconds, _) in times {
            self.u64(seconds.cast_unsigned());
        }
        for (_, nanos) in times {
            self.u32(nanos);
        }
        self.u32(kind(attributes.node) | attributes.mode).u32(links).u32(attributes.uid).u32(attributes.gid);
        self.u32(0).u32(attributes.block).u32(0);
    }
}

/// Seconds since 1970, and what is beyond them in nanoseconds.
fn time(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds.saturating_sub(1), 1_000_000_000 - nanos),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_up_to_it() {
        assert_eq!(time(UNIX_EPOCH), (0, 0));
        assert_eq!(time(UNIX_EPOCH + Duration::new(5, 7)), (5, 7));
        assert_eq!(time(UNIX_EPOCH - Duration::new(5, 0)), (-5, 0));
        assert_eq!(time(UNIX_EPOCH - Duration::new(5, 1)), (-6, 999_999_999));
    }

    #[test]
    fn a_directory_ends_before_what_does_not_fit() {
        let mut directory = Directory::new(70);
        assert!(directory.add(Node::Root, 1, OsStr::new(".")));
        assert!(directory.add(Node::Control, 2, OsStr::new("12345678")));
        assert!(!directory.add(Node::Status, 3, OsStr::new("")));
        assert_eq!(directory.out.0.len(), 64);
        assert_eq!(directory.out.0[20..24], (libc::S_IFDIR >> 12).to_ne_bytes());
    }
}
