//! The mount: the only room that speaks with the kernel.
//!
//! `kernel` reads its requests and writes the answers; `serve` turns them into calls of [`crate::fs`], and answers each
//! exactly once; a wait whose caller was interrupted ends; a [`Session`] comes and goes without leaving a dead mount
//! behind. What may not enter: what a call means, which is for `fs` to say.

mod attach;
mod death;
mod error;
mod interrupt;
mod kernel;
mod mounts;
mod point;
mod serve;
mod session;
mod waiting;

pub use error::MountError;
pub use point::unmount;
pub use session::{MountOptions, Session};
