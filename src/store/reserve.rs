//! Room on the disk that is set aside while there is some, so that confirmations can be kept when there is none.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use tracing::{info, warn};

use super::private_dir::PrivateDir;

/// Its name in the state directory.
pub(super) const FILE: &str = "reserve";
/// A file that is there for a moment, to learn whether the disk is full.
pub(super) const PROBE: &str = "room";

/// A file whose blocks are allocated and never used.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PrivateDir,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// Sets the room aside, where there is that much.
    pub(super) fn open(dir: PrivateDir, bytes: u64) -> Self {
        let mut reserve = Self { dir, bytes, held: false };
        if !reserve.hold() {
            warn!(bytes, "the disk is too full to set a reserve aside: nothing can be appended until there is room");
        }
        reserve
    }

    /// Sets the room aside again. False: there is not that much.
    pub(super) fn hold(&mut self) -> bool {
        if !self.held {
            match allocate(&self.dir, FILE, self.bytes) {
                Ok(()) => self.held = true,
                Err(error) => {
                    if !is_out_of_room(&error) {
                        warn!(%error, "the disk reserve cannot be made");
                    }
                    // What it did get must not stand in the way of others.
                    let _ = give_back(&self.dir, FILE);
                }
            }
        }
        self.held
    }

    /// Gives the room back to the disk. False: there was none set aside.
    pub(super) fn release(&mut self) -> bool {
        if !self.held {
            return false;
        }
        self.held = false;
        match give_back(&self.dir, FILE) {
            Ok(()) => info!("the disk is full: its reserve is used so that confirmations are kept"),
            Err(error) => warn!(%error, "the disk reserve cannot be released"),
        }
        true
    }
}

/// Whether the disk refuses more bytes, asked by trying: some of SQLite's errors do not tell a full disk or quota from
/// a broken one.
pub(super) fn disk_is_full(dir: &PrivateDir) -> bool {
    let full = allocate(dir, PROBE, 1 << 20).is_err_and(|error| is_out_of_room(&error));
    let _ = give_back(dir, PROBE);
    full
}

/// Emptied first: a process that is just being started may have the file open until its exec.
fn give_back(dir: &PrivateDir, name: &str) -> io::Result<()> {
    dir.file(name, OFlags::WRONLY | OFlags::TRUNC)?;
    Ok(dir.remove_file(name)?)
}

fn allocate(dir: &PrivateDir, name: &str, bytes: u64) -> io::Result<()> {
    let file = dir.file(name, OFlags::WRONLY | OFlags::CREATE)?;
    if file.metadata()?.len() > bytes {
        file.set_len(bytes)?;
    }
    loop {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // Not every file system can; there the blocks are taken by writing them.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return fill(file, bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

fn fill(mut file: File, bytes: u64) -> io::Result<()> {
    let zeros = [0_u8; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let some = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all(&zeros[..some])?;
        left -= some as u64;
    }
    file.sync_all()
}

fn is_out_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
