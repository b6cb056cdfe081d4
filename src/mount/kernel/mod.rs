//! The kernel's side of a mount: its requests, read from the device, and the answers, written to it.
//!
//! This is the protocol of `linux/fuse.h` in version 7.31, as far as the mount needs it, and nothing of what the requests
//! mean. It is spoken here and not by a library for one reason: fuser answers the kernel's word that a caller was
//! interrupted with ENOSYS, and the kernel never says it again: every later wait is then one in state D, and a signal goes
//! unheard (`fuse-semantics.md` §0.1). Numbers are in the machine's own order of bytes.

mod reply;
mod request;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

pub(super) use reply::{DIRECT_IO, Directory, POLL_IN, POLL_OUT, Reply, Room};
pub(super) use request::{Operation, POLL_SCHEDULE_NOTIFY, Request, SetAttr, Time};

use request::Init;

/// The version that is spoken; the kernel speaks an older one where it is asked to.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// Most bytes of one write. The kernel has no more in one request.
const MAX_WRITE: u32 = 1 << 20;
const PAGE: u32 = 4096;
/// A write, and what comes before its bytes.
const BUFFER_BYTES: usize = MAX_WRITE as usize + PAGE as usize;
/// Reads of pages, and closes, that the kernel has under way at most.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for: reads side by side, O_TRUNC with the open that it comes with, writes of more than a page,
/// look-ups of one directory side by side, requests of more than 32 pages.
const WANTED: u32 = ASYNC_READ | ATOMIC_O_TRUNC | BIG_WRITES | PARALLEL_DIROPS | MAX_PAGES;
const ASYNC_READ: u32 = 1 << 0;
const ATOMIC_O_TRUNC: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;
const PARALLEL_DIROPS: u32 = 1 << 18;
const MAX_PAGES: u32 = 1 << 22;

/// The notification that a poll has something to find.
const NOTIFY_POLL: i32 = 1;

/// The device of one mount, after the kernel was greeted.
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

/// Room for one request.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; BUFFER_BYTES])
    }
}

impl Device {
    /// Takes the first request of a mount, and says what is spoken here. Fails where the kernel is too old.
    pub(super) fn greet(device: OwnedFd) -> io::Result<Self> {
        let device = Self(device);
        let mut buffer = Buffer::new();
        loop {
            let ended = || io::Error::new(io::ErrorKind::NotConnected, "it was unmounted at once");
            let request = device.next(&mut buffer)?.ok_or_else(ended)?;
            let (unique, Operation::Init(init)) = (request.unique, request.operation) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel did not greet"));
            };
            if init.major > MAJOR {
                // It greets once more, in the version that it is told.
                device.answer(unique, 0, &init_out(&init, 0))?;
                continue;
            }
            // O_TRUNC then comes with open, where it can be decided; else it would come as a change of no handle's.
            if init.major < MAJOR || init.minor < MINOR || init.flags & ATOMIC_O_TRUNC == 0 {
                device.answer(unique, libc::EPROTO, &[])?;
                let text = format!("this kernel's FUSE is too old: {}.{}", init.major, init.minor);
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            device.answer(unique, 0, &init_out(&init, init.flags & WANTED))?;
            return Ok(device);
        }
    }

    /// The next request; waits for it. `None`: the mount has ended.
    pub(super) fn next<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<Request<'a>>> {
        let count = loop {
            match rustix::io::read(&self.0, &mut buffer.0[..]) {
                Ok(count) => break count,
                // NOENT: the request was taken back before it was read.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOENT | rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let request = Request::parse(&buffer.0[..count]);
        request.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a request without a head"))
    }

    /// Wakes a poll that waits; `wake` came with it. The kernel then asks again.
    pub(super) fn wake_poll(&self, wake: u64) -> io::Result<()> {
        self.send(0, NOTIFY_POLL, &wake.to_ne_bytes())
    }

    /// The answer to a request: an errno, or 0 and what belongs to it.
    fn answer(&self, unique: u64, errno: i32, body: &[u8]) -> io::Result<()> {
        self.send(unique, -errno, body)
    }

    fn send(&self, unique: u64, code: i32, body: &[u8]) -> io::Result<()> {
        const HEAD: usize = 16;
        let mut head = [0; HEAD];
        let length = u32::try_from(HEAD + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        head[..4].copy_from_slice(&length.to_ne_bytes());
        head[4..8].copy_from_slice(&code.to_ne_bytes());
        head[8..].copy_from_slice(&unique.to_ne_bytes());
        // The kernel takes all of it or nothing.
        rustix::io::writev(&self.0, &[IoSlice::new(&head), IoSlice::new(body)])?;
        Ok(())
    }
}

fn init_out(init: &Init, flags: u32) -> [u8; 64] {
    let pages = u16::try_from(MAX_WRITE / PAGE).expect("a constant");
    let mut out = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAJOR.to_ne_bytes());
    put(4, &MINOR.to_ne_bytes());
    put(8, &init.max_readahead.to_ne_bytes());
    put(12, &flags.to_ne_bytes());
    put(16, &MAX_BACKGROUND.to_ne_bytes());
    put(18, &(MAX_BACKGROUND / 4 * 3).to_ne_bytes());
    put(20, &MAX_WRITE.to_ne_bytes());
    // Times are told to the nanosecond.
    put(24, &1_u32.to_ne_bytes());
    put(28, &pages.to_ne_bytes());
    out
}
