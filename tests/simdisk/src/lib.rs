//! A disk in memory that SQLite takes for one of the operating system: a VFS. It is for tests: it keeps apart what was
//! synced and what was only written, so that a power cut can take any part of the latter, page by page and sector by
//! sector; and it fails reads, writes, syncs and space on demand, once or for good.
//!
//! ```
//! use rusqlite::{Connection, OpenFlags};
//! use simdisk::{Loss, SimDisk};
//!
//! let disk = SimDisk::new();
//! let open = || Connection::open_with_flags_and_vfs("/a.db", OpenFlags::default(), disk.vfs());
//! let db = open()?;
//! db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (n); INSERT INTO t VALUES (7)")?;
//! disk.cut(Loss::All);
//! drop(db);
//! let n: i64 = open()?.query_row("SELECT n FROM t", [], |row| row.get(0))?;
//! assert_eq!(n, 7);
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! All that is `unsafe` about a VFS is in `vfs.rs`; what a disk is, in `image.rs` and `disk.rs`.

mod disk;
mod image;
mod vfs;

pub use disk::{Fault, Operation, SimDisk};
pub use image::{Event, Image, Loss};
