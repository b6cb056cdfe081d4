//! The mount: the only room that names `fuser` types.
//!
//! An adapter turns requests of the kernel into calls of [`crate::fs`] and answers each exactly once; a watcher ends
//! waits whose caller was signalled; a [`Session`] comes and goes without leaving a dead mount behind. fuser 0.18 has
//! traps in all three (`fuse-semantics.md` §1), which are met here and nowhere else.

mod adapter;
mod interrupt;
mod mounts;
mod session;

pub use session::{MountError, MountOptions, Session, unmount};
