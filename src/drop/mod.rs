//! Drops: whole files through a channel. The record format: bytes in, records out, and back.
//!
//! Pure: no I/O, no clock, no database. A shell ([`crate::engine`]) brings the bytes of files and of boxes, and keeps what
//! comes of them.
//!
//! * [`Header`]: what a record says of its file.
//! * [`SyncKey`]: how a header is found again behind a lost box.
//! * [`Cutter`]: from a record's bytes to boxes; it starts anew at any of them.
//! * [`Assembler`]: from boxes to records.
//! * [`chain`]: records that are parts of one file.
//! * [`SafeName`], [`SafePath`]: what a name from elsewhere may become on a disk.
//! * [`pack`], [`Unpacker`]: compressed bodies.
//!
#![doc = include_str!("FORMAT.md")]

mod assembler;
pub mod chain;
mod compress;
mod cutter;
mod header;
mod safe;
mod sync;

pub use assembler::{Assembler, Event, Fault, Input};
pub use compress::{Packed, UnpackError, Unpacker, is_worth_trying, pack};
pub use cutter::Cutter;
pub use header::{Header, HeaderError, Kind, MAX_PATH_BYTES, MAX_SIZE, Part, Raw, Total};
pub use safe::{MAX_FILE_NAME_BYTES, SafeName, SafePath};
pub use sync::{Sync, SyncKey};

#[cfg(test)]
mod tests;

/// BLAKE3 of some bytes.
pub type Digest = [u8; 32];
