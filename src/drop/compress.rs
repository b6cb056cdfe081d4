//! Compressed bodies: one zstd frame. A frame may claim anything, so the reader of one is bounded by what the record
//! promises and by what its caller has room for.

use std::io::{self, BufReader, Read, Seek, Write};

use super::Digest;

/// A window of at most 8 MiB is unpacked: all levels up to 19 stay within it.
const MAX_WINDOW_LOG: u32 = 23;
const CHUNK_BYTES: usize = 64 << 10;
/// More than that many bytes cannot come out of one: a block of zstd has 128 KiB at most, and 4 bytes at least.
const MOST_FOR_A_BYTE: u64 = 1 << 15;
/// What a frame has beside its blocks.
const FRAME_BYTES: u64 = 1;

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
    /// More or fewer bytes come out than were promised.
    #[error("more or fewer than the {promised} bytes that its sender promised come out of it")]
    Size {
        /// What was promised.
        promised: u64,
    },
    /// It is no zstd frame.
    #[error("it cannot be unpacked: {0}")]
    Frame(io::Error),
}

/// Compresses all of `from` into `to`.
pub fn pack(from: &mut impl Read, to: &mut impl Write) -> io::Result<Packed> {
    let mut hashed = Hashed { to, hash: blake3::Hasher::new(), bytes: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(&mut hashed, 0)?;
    let raw_size = io::copy(from, &mut encoder)?;
    encoder.finish()?;
    Ok(Packed { raw_size, size: hashed.bytes, digest: *hashed.hash.finalize().as_bytes() })
}

/// How much of a file is tried before all of it is compressed.
const TRIED_BYTES: usize = 64 << 10;
/// A file is worth compressing where that saves a box, about as long as this, and one byte in twenty of what is tried.
const LEAST_SAVED: u64 = 1536;
const LEAST_SHARE: usize = 20;

/// Whether the beginning of a file, up to 64 KiB, gets so much smaller that all of it is worth trying. It is at its
/// beginning afterwards.
pub fn is_worth_trying(from: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut tried = Vec::with_capacity(TRIED_BYTES);
    from.take(TRIED_BYTES as u64).read_to_end(&mut tried)?;
    from.rewind()?;
    let packed = zstd::bulk::compress(&tried, 0)?;
    Ok(packed.len() + tried.len() / LEAST_SHARE < tried.len())
}

impl Packed {
    /// Whether a box less travels than as it was.
    pub fn is_worth_it(&self) -> bool {
        self.size.saturating_add(LEAST_SAVED) <= self.raw_size
    }
}

/// Whether so many bytes can come out of a body of this size at all.
pub(super) fn may_hold(size: u64, raw_size: u64) -> bool {
    raw_size <= size.saturating_add(FRAME_BYTES).saturating_mul(MOST_FOR_A_BYTE)
}

/// Unpacks a body piece by piece. Nothing is kept of what came out.
pub struct Unpacker<R: Read> {
    decoder: zstd::stream::read::Decoder<'static, BufReader<R>>,
    chunk: Vec<u8>,
    promised: u64,
    position: u64,
    is_at_end: bool,
}

impl<R: Read> Unpacker<R> {
    /// Of a body that holds `promised` bytes, from its beginning.
    pub fn new(from: R, promised: u64) -> Result<Self, UnpackError> {
        let mut decoder = zstd::stream::read::Decoder::new(from).map_err(UnpackError::Frame)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(UnpackError::Frame)?;
        Ok(Self { decoder, chunk: vec![0; CHUNK_BYTES], promised, position: 0, is_at_end: false })
    }

    /// The next bytes, up to 64 KiB; none at the end. Whether as many came out as were promised is known with the last of them.
    pub fn piece(&mut self) -> Result<&[u8], UnpackError> {
        let count = if self.is_at_end { 0 } else { self.decoder.read(&mut self.chunk).map_err(UnpackError::Frame)? };
        self.position += count as u64;
        self.is_at_end = count == 0;
        let differs = if self.is_at_end { self.position < self.promised } else { self.position > self.promised };
        if differs {
            return Err(UnpackError::Size { promised: self.promised });
        }
        Ok(&self.chunk[..count])
    }

    /// What the body is read from.
    pub fn source(&mut self) -> &mut R {
        self.decoder.get_mut().get_mut()
    }
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
