//! The thin client of the Katzenpost daemon.
pub mod frame;
pub mod message;
