//! The mount: the only room that names `fuser` types.
//!
//! An adapter turns requests of the kernel into calls of [`crate::fs`] and answers each exactly once; a watcher ends
//! waits whose caller was signalled; a [`Session`] comes and goes without leaving a dead mount behind. fuser 0.18 has
//! traps in all three (`fuse-semantics.md` §1), which are met here and nowhere else.

mod adapter;
mod attach;
mod attr;
mod error;
mod interrupt;
mod mounts;
mod point;
mod session;
mod waiting;

pub use error::MountError;
pub use point::unmount;
pub use session::{MountOptions, Session};
