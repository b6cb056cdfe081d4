//! The bytes of a file in a drop: from where it was staged, from the boxes, or from its unpacked copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::PoisonError;

use super::{DropError, Drops, make};
use crate::drop::{UnpackError, unpack};
use crate::store::{DropRecord, MAX_READ_BYTES, RecordId, RecordState, StoreError};

/// What is read of a body at once while it is unpacked.
const CHUNK_BYTES: usize = 1 << 20;

impl Drops {
    /// Bytes of a record's file once it is whole and unpacked.
    pub fn size(record: &DropRecord) -> u64 {
        record.header.as_ref().and_then(|header| header.raw.as_ref()).map_or(record.size, |raw| raw.size)
    }

    /// Bytes of a file from `offset` on, up to `len` and up to 4 MiB; fewer only at its end. Blocks on the disk, and while a
    /// compressed file is unpacked the first time.
    ///
    /// # Errors
    /// [`DropError::NotComplete`] where it has not all arrived, or is broken; [`StoreError::Dropped`] where it went to
    /// make room; [`UnpackError`].
    pub fn read(&self, record: &DropRecord, offset: u64, len: usize) -> Result<Vec<u8>, DropError> {
        match record.header.as_ref().and_then(|header| header.raw.as_ref()) {
            None => self.body(record, offset, len),
            Some(raw) if offset >= raw.size => Ok(Vec::new()),
            Some(raw) => {
                let path = self.unpacked(record, raw.size)?;
                read_at(&path, offset, len).map_err(|error| DropError::io(&path, error))
            }
        }
    }

    /// The same of the body as it travels.
    pub(super) fn body(&self, record: &DropRecord, offset: u64, len: usize) -> Result<Vec<u8>, DropError> {
        if matches!(record.state, RecordState::Incomplete | RecordState::Broken) {
            return Err(DropError::NotComplete { reason: record.reason.clone() });
        }
        let left = record.size.saturating_sub(offset);
        let len = len.min(MAX_READ_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Vec::new());
        }
        if let Some((parts, 0)) = record.part {
            let found = self.0.store.part_at(record.channel, parts, offset)?;
            let (part, begin) = found.ok_or(DropError::NotComplete { reason: None })?;
            return self.body(&part, offset - begin, len);
        }
        if let Some(staging) = &record.staging {
            let path = self.staged(staging);
            match read_at(&path, offset, len) {
                // Stored meanwhile: then the boxes have it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                read => return read.map_err(|error| DropError::io(&path, error)),
            }
        }
        let (state, filled) = (record.state, record.head_bytes + record.taken);
        if matches!(state, RecordState::Waiting | RecordState::Filling) && record.head_bytes + offset >= filled {
            return Err(DropError::NotComplete { reason: Some("its staged bytes are gone".to_owned()) });
        }
        Ok(self.0.store.read(record.channel, record.begin + record.head_bytes + offset, len)?)
    }

    /// The unpacked copy of a compressed body, made where it is missing: at most what the cache has room for.
    fn unpacked(&self, record: &DropRecord, raw_size: u64) -> Result<PathBuf, DropError> {
        let path = self.unpacked_path(record.id)?;
        let there = || fs::metadata(&path).is_ok_and(|found| found.len() == raw_size);
        if there() {
            return Ok(path);
        }
        let _one_at_a_time = self.0.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        if there() {
            return Ok(path);
        }
        let (limits, usage) = (self.0.store.limits(), self.0.store.usage()?);
        let room = limits.cache_bytes.saturating_sub(usage.cache_bytes).min(limits.cache_channel_bytes);
        if raw_size > room {
            return Err(UnpackError::TooLarge { bytes: raw_size, limit: room }.into());
        }
        let temporary = path.with_extension("tmp");
        let made = self.unpack_into(record, &temporary, raw_size, room).and_then(|()| {
            // Counted first: what is not counted is swept away.
            self.0.store.unpacked(record.channel, record.id, raw_size).wait()?;
            fs::rename(&temporary, &path).map_err(|error| DropError::io(&path, error))
        });
        if let Err(error) = made {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(path)
    }

    fn unpack_into(&self, record: &DropRecord, path: &PathBuf, raw_size: u64, limit: u64) -> Result<(), DropError> {
        let failed = |error| DropError::io(path, error);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
        let mut to = BufWriter::new(file);
        let mut from = Body { drops: self, record, offset: 0, chunk: Vec::new(), at: 0, error: None };
        let unpacked = unpack(&mut from, &mut to, raw_size, limit);
        // The cause of a failed read is worth more than that a read failed.
        if let Some(error) = from.error {
            return Err(error);
        }
        unpacked?;
        let file = to.into_inner().map_err(|error| failed(error.into_error()))?;
        // A whole name must mean a whole file, after a power cut too.
        file.sync_all().map_err(failed)
    }

    pub(super) fn unpacked_path(&self, record: RecordId) -> Result<PathBuf, DropError> {
        let directory = self.directory()?.join("unpacked");
        make(&directory)?;
        Ok(directory.join(record.0.to_string()))
    }
}

/// A body as a stream.
struct Body<'a> {
    drops: &'a Drops,
    record: &'a DropRecord,
    offset: u64,
    chunk: Vec<u8>,
    at: usize,
    error: Option<DropError>,
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.at = 0;
            self.chunk = match self.drops.body(self.record, self.offset, CHUNK_BYTES) {
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

fn read_at(path: &std::path::Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; len.min(MAX_READ_BYTES)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl DropError {
    /// Why the file itself is at fault: it is the same on every machine. `None`: this machine is, and it may be tried again.
    pub fn broken(&self) -> Option<String> {
        matches!(self, Self::Unpack(error) if error.is_in_the_body()).then(|| self.to_string())
    }

    /// Whether the bytes were here and went to make room.
    pub fn is_dropped(&self) -> bool {
        matches!(self, Self::Store(StoreError::Dropped { .. }))
    }
}
