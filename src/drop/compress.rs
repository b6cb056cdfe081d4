//! Compressed bodies: one zstd frame. A frame may claim anything, so the reader of one is bounded by what the record
//! promises and by what its caller has room for.

use std::io::{self, Read, Write};

use super::Digest;

/// A window of at most 8 MiB is unpacked: all levels up to 19 stay within it.
const MAX_WINDOW_LOG: u32 = 23;
const CHUNK_BYTES: usize = 64 << 10;

/// What [`pack`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes that went in.
    pub raw_size: u64,
    /// Bytes that came out.
    pub size: u64,
    /// BLAKE3 of what came out.
    pub digest: Digest,
}

/// Why a body cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// More bytes than there is room for were promised.
    #[error("it would take {bytes} bytes once it is unpacked, and there is room for {limit}")]
    TooLarge {
        /// What was promised.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More or fewer bytes come out than were promised.
    #[error("more or fewer than the {promised} bytes that its sender promised come out of it")]
    Size {
        /// What was promised.
        promised: u64,
    },
    /// It is no zstd frame.
    #[error("it cannot be unpacked: {0}")]
    Frame(io::Error),
    /// What came out could not be written here.
    #[error("what comes out of it cannot be written: {0}")]
    Write(io::Error),
}

impl UnpackError {
    /// Whether the body itself is at fault, on every machine; all else can be tried again.
    pub fn is_in_the_body(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Frame(_))
    }
}

/// Compresses all of `from` into `to`.
pub fn pack(from: &mut impl Read, to: &mut impl Write) -> io::Result<Packed> {
    let mut hashed = Hashed { to, hash: blake3::Hasher::new(), bytes: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(&mut hashed, 0)?;
    let raw_size = io::copy(from, &mut encoder)?;
    encoder.finish()?;
    Ok(Packed { raw_size, size: hashed.bytes, digest: *hashed.hash.finalize().as_bytes() })
}

/// Unpacks `from` into `to`: exactly `raw_size` bytes, and no more than `limit`.
pub fn unpack(from: &mut impl Read, to: &mut impl Write, raw_size: u64, limit: u64) -> Result<(), UnpackError> {
    if raw_size > limit {
        return Err(UnpackError::TooLarge { bytes: raw_size, limit });
    }
    let mut decoder = zstd::stream::read::Decoder::new(from).map_err(UnpackError::Frame)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(UnpackError::Frame)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = raw_size;
    loop {
        let count = decoder.read(&mut chunk).map_err(UnpackError::Frame)?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or(UnpackError::Size { promised: raw_size })?;
        to.write_all(&chunk[..count]).map_err(UnpackError::Write)?;
    }
    if left > 0 { Err(UnpackError::Size { promised: raw_size }) } else { Ok(()) }
}

struct Hashed<'a, W> {
    to: &'a mut W,
    hash: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
