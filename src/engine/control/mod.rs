//! The control socket: how the verbs reach the owner of a state directory, and what they may ask.
//!
//! One process owns a state directory. A verb that finds an owner asks it over `control.sock` (0600, in the state
//! directory); a verb that finds none becomes the owner for its own run and answers itself: [`Link`] hides the
//! difference. Frames are those of [`crate::thin::frame`], one [`Request`] and one [`Answer`] at a time.

mod contacts;
mod dispatch;
mod files;
mod handover;
mod keep;
mod link;
mod message;
mod server;

#[cfg(any(test, feature = "cli"))]
pub(crate) use contacts::voucher;
pub(crate) use link::apart;
pub use link::{Link, Opening, is_owned, look, take_for_mount};
pub use message::{Answer, Asked, Failure, FailureKind, LogEntry, Request, Response, Secret};
pub(crate) use server::serve;

/// Most bytes that one [`Request::Append`] or [`Response::Bytes`] carries.
pub const CHUNK_BYTES: usize = 1 << 20;
