//! The bytes of a file in a drop: from where it was staged, or from the boxes; those of a compressed one come out of
//! [`super::unpack`].

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicBool;

use super::{DropError, Drops};
use crate::store::{DropRecord, MAX_READ_BYTES, RecordState, Sealing, StoreError};

impl Drops {
    /// Bytes of a record's file once it is whole and unpacked.
    pub fn size(record: &DropRecord) -> u64 {
        record.header.as_ref().and_then(|header| header.raw.as_ref()).map_or(record.size, |raw| raw.size)
    }

    /// Whether a file is compressed: reading at an offset may take as long as unpacking all that is before it.
    pub fn is_packed(record: &DropRecord) -> bool {
        record.header.as_ref().is_some_and(|header| header.raw.is_some())
    }

    /// Bytes of a file from `offset` on, up to `len` and up to 4 MiB; fewer only at its end. Blocks on the disk, and while what
    /// is before them in a compressed file is unpacked.
    ///
    /// # Errors
    /// [`DropError::NotComplete`] where it has not all arrived, or is broken; [`StoreError::Dropped`] where it went to
    /// make room; [`crate::drop::UnpackError`].
    pub fn read(&self, record: &DropRecord, offset: u64, len: usize) -> Result<Vec<u8>, DropError> {
        self.read_until(record, offset, len, &AtomicBool::new(false))
    }

    /// The same, until `stop` is set.
    ///
    /// # Errors
    /// Those of [`Drops::read`], and [`DropError::Stopped`].
    pub fn read_until(
        &self,
        record: &DropRecord,
        offset: u64,
        len: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<u8>, DropError> {
        match record.header.as_ref().and_then(|header| header.raw.as_ref()) {
            None => self.body(record, offset, len),
            Some(raw) => self.unpacked(record, raw.size, offset, len.min(MAX_READ_BYTES), stop),
        }
    }

    /// The same of the body as it travels.
    pub(super) fn body(&self, record: &DropRecord, offset: u64, len: usize) -> Result<Vec<u8>, DropError> {
        if matches!(record.state, RecordState::Incomplete | RecordState::Broken | RecordState::BrokenOff) {
            return Err(DropError::NotComplete { reason: record.reason.clone() });
        }
        let left = record.size.saturating_sub(offset);
        let len = len.min(MAX_READ_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(Vec::new());
        }
        if let Some((parts, 0)) = record.part {
            // To its end, or as much as is wanted: less of it would be taken for all that there is.
            let mut bytes = Vec::with_capacity(len);
            while bytes.len() < len {
                let offset = offset + bytes.len() as u64;
                let found = self.0.store.part_at(record.channel, parts, offset)?;
                let (part, begin) = found.ok_or(DropError::NotComplete { reason: None })?;
                let more = self.body(&part, offset - begin, len - bytes.len())?;
                if more.is_empty() {
                    return Err(DropError::NotComplete { reason: Some("bytes of a part are missing".to_owned()) });
                }
                bytes.extend(more);
            }
            return Ok(bytes);
        }
        if let Some(staging) = &record.staging {
            let path = self.staged(staging);
            match read_at(self.0.store.sealing(), &path, offset, len) {
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
}

fn read_at(sealing: &Sealing, path: &std::path::Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len.min(MAX_READ_BYTES)];
    let count = sealing.open(File::open(path)?)?.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

impl DropError {
    /// Why the file itself is at fault: it is the same on every machine. `None`: this machine is, and it may be tried again.
    pub fn broken(&self) -> Option<String> {
        matches!(self, Self::Unpack(_)).then(|| self.to_string())
    }

    /// Whether the bytes were here and went to make room.
    pub fn is_dropped(&self) -> bool {
        matches!(self, Self::Store(StoreError::Dropped { .. }))
    }
}
