//! The channel machines: what to send, what to ask for and when.
//!
//! Events and a time go in, actions come out; a shell ([`crate::engine`]) does what the actions say and answers
//! with events. Nothing here does I/O, reads a clock, draws randomness of its own or waits, so that a test or a
//! simulation owns the world around it. Times are offsets from an epoch that the shell chooses.
//!
//! * [`Sender`]: takes the sealed boxes of one channel through *launched* to *stored*, a window at a time.
//! * [`Receiver`]: asks for the boxes of one channel at and past its frontier.
//! * [`Linger`]: when a partial tail box is sealed.
//! * [`Pace`]: what the network's parameters mean for windows, deadlines and back-off.

#[cfg(test)]
pub(crate) mod bugs;
mod linger;
mod pace;
mod receiver;
mod sender;

pub use linger::Linger;
pub use pace::Pace;
pub use receiver::{Answer, Receiver, ReceiverAction, ReceiverEvent};
pub use sender::{Outcome, ReadBack, Sender, SenderAction, SenderEvent};

/// A time, as the offset from an epoch that the shell chooses.
pub type Time = std::time::Duration;
