//! Compressed files, unpacked as they are read. Nothing of it is kept on the disk, so that reading a file takes no room that the
//! channel's cache needs, and changes nothing of what is fetched for it.
//!
//! A file is unpacked from its beginning. What has been unpacked up to some place goes on from there with the next read, and
//! what came out last is kept for a moment: the kernel asks for several pieces at once, in any order. A read that is before
//! all of that begins anew.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{DropError, Drops, Inner};
use crate::drop::Unpacker;
use crate::store::{DropRecord, RecordId, StoreError};

/// Files, or places in one, that are unpacked side by side. Each takes up to 8 MiB for its window, and what is kept of it.
const MOST: usize = 4;
/// What is kept of what came out last.
const RECENT_BYTES: usize = 1 << 20;
/// What is read of a body at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How often whoever waits for its turn looks whether it still has to.
const LOOK: Duration = Duration::from_millis(50);

/// The files of one state that are being unpacked.
#[derive(Default)]
pub(super) struct Unpacking {
    /// The one that was read last is the last.
    files: Mutex<Vec<Slot>>,
    changed: Condvar,
}

/// A file up to some place.
struct Slot {
    record: RecordId,
    /// Where what is kept of it begins.
    start: u64,
    /// `None`: somebody reads it now.
    unpacked: Option<Box<Unpacked>>,
    /// Which of those that are read it is.
    turn: u64,
}

struct Unpacked {
    unpacker: Unpacker<Body>,
    /// Bytes that come out of all of it, as its sender says.
    size: u64,
    /// As many came out, and no more.
    is_whole: bool,
    start: u64,
    /// What came out last, from `start` on.
    recent: Vec<u8>,
}

impl Drops {
    /// Bytes of a compressed file that holds `size` of them.
    pub(super) fn unpacked(
        &self,
        record: &DropRecord,
        size: u64,
        offset: u64,
        len: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<u8>, DropError> {
        let len = len.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        // Who reads an empty file hears of a body that is not.
        if len == 0 && (size > 0 || offset > 0) {
            return Ok(Vec::new());
        }
        // What is gone, or not all here, is so wherever it was unpacked to.
        self.body(record, 0, 1)?;
        let mut taken = self.0.unpacking.take(record.id, offset, stop)?;
        let mut unpacked = match taken.unpacked.take() {
            Some(unpacked) => unpacked,
            None => Box::new(Unpacked::new(self, record, size)?),
        };
        let bytes = unpacked.read(offset, len, stop);
        // One that failed is begun anew by the next.
        if bytes.is_ok() || matches!(bytes, Err(DropError::Stopped)) {
            taken.unpacked = Some(unpacked);
        }
        bytes
    }
}

/// A file that this thread reads. It goes back when it is dropped.
struct Taken<'a> {
    of: &'a Unpacking,
    turn: u64,
    unpacked: Option<Box<Unpacked>>,
}

impl Unpacking {
    /// The file as far as it is unpacked, where that is not behind `offset`; else a place for one that begins anew. Waits while
    /// another thread reads it.
    fn take(&self, record: RecordId, offset: u64, stop: &AtomicBool) -> Result<Taken<'_>, DropError> {
        let mut files = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(DropError::Stopped);
            }
            let before = |slot: &&mut Slot| slot.record == record && slot.start <= offset;
            let turn = files.iter().map(|slot| slot.turn).max().unwrap_or(0) + 1;
            if let Some(slot) = files.iter_mut().filter(before).max_by_key(|slot| slot.start) {
                if let Some(unpacked) = slot.unpacked.take() {
                    slot.turn = turn;
                    return Ok(Taken { of: self, turn, unpacked: Some(unpacked) });
                }
            } else {
                if files.len() >= MOST {
                    let idle = files.iter().filter(|slot| slot.unpacked.is_some()).map(|slot| slot.turn).min();
                    files.retain(|slot| Some(slot.turn) != idle);
                }
                if files.len() < MOST {
                    files.push(Slot { record, start: 0, unpacked: None, turn });
                    return Ok(Taken { of: self, turn, unpacked: None });
                }
            }
            let waited = self.changed.wait_timeout(files, LOOK);
            files = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // What is in it is whole at any time.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut files = self.of.lock();
        match (files.iter().position(|slot| slot.turn == self.turn), self.unpacked.take()) {
            (Some(at), Some(unpacked)) => {
                files[at].start = unpacked.start;
                files[at].unpacked = Some(unpacked);
            }
            (Some(at), None) => drop(files.remove(at)),
            (None, _) => {}
        }
        self.of.changed.notify_all();
    }
}

impl Unpacked {
    fn new(drops: &Drops, record: &DropRecord, size: u64) -> Result<Self, DropError> {
        let drops = std::sync::Arc::downgrade(&drops.0);
        let body = Body { drops, record: record.clone(), offset: 0, chunk: Vec::new(), at: 0, error: None };
        Ok(Self { unpacker: Unpacker::new(body, size)?, size, is_whole: false, start: 0, recent: Vec::new() })
    }

    /// Bytes at a place that is not before what is kept.
    fn read(&mut self, offset: u64, len: usize, stop: &AtomicBool) -> Result<Vec<u8>, DropError> {
        let end = offset + len as u64;
        // At the end it is looked whether the body ends there, too.
        while self.end() < end || (end >= self.size && !self.is_whole) {
            if stop.load(Ordering::Relaxed) {
                return Err(DropError::Stopped);
            }
            let piece = self.unpacker.piece().map(|piece| {
                self.recent.extend_from_slice(piece);
                piece.len()
            });
            let count = match piece {
                Ok(count) => count,
                // The cause of a failed read is worth more than that a read failed.
                Err(error) => return Err(self.unpacker.source().error.take().unwrap_or_else(|| error.into())),
            };
            self.is_whole = count == 0;
            // What is asked for stays, and so does what another caller may ask for in a moment.
            let kept = usize::try_from(self.end().saturating_sub(offset)).unwrap_or(usize::MAX).max(RECENT_BYTES);
            if self.recent.len() > 2 * kept {
                let gone = self.recent.len() - kept;
                self.recent.drain(..gone);
                self.start += gone as u64;
            }
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.recent.len());
        let to = from.saturating_add(len).min(self.recent.len());
        Ok(self.recent[from..to].to_vec())
    }

    /// Up to where it is unpacked.
    fn end(&self) -> u64 {
        self.start + self.recent.len() as u64
    }
}

/// A body as a stream.
struct Body {
    /// Not held: it is kept by what it refers to.
    drops: Weak<Inner>,
    record: DropRecord,
    offset: u64,
    chunk: Vec<u8>,
    at: usize,
    error: Option<DropError>,
}

impl Body {
    fn more(&self) -> Result<Vec<u8>, DropError> {
        let drops = self.drops.upgrade().ok_or(StoreError::Closed)?;
        Drops(drops).body(&self.record, self.offset, CHUNK_BYTES)
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.at = 0;
            self.chunk = match self.more() {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.error = Some(error);
                    return Err(ErrorKind::Other.into());
                }
            };
            self.offset += self.chunk.len() as u64;
        }
        let count = out.len().min(self.chunk.len() - self.at);
        out[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
