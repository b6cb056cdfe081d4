//! The mount: the only room that speaks with the kernel.
//!
//! fuser reads its requests and writes the answers, behind a `relay` that hears of interrupts; `serve` turns them into
//! calls of [`crate::fs`], and answers each exactly once; a wait whose caller was interrupted ends; a [`Session`] comes
//! and goes without leaving a dead mount behind. Types of fuser are named here only. What may not enter: what a call
//! means, which is for `fs` to say.

mod attach;
mod death;
mod departure;
mod error;
mod holders;
mod interrupt;
mod memory;
mod mounts;
mod point;
mod relay;
mod serve;
mod session;
mod waiting;

pub use error::MountError;
pub use holders::{Holder, Holders};
pub use point::unmount;
pub use session::{MountOptions, Session};
