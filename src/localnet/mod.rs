#![doc = include_str!("README.md")]
//!
//! The room's parts: `wire` turns frames into what is meant and answers what needs no network; `core` is the pure
//! daemon behind it, and `backend` the couriers and replicas behind that, which also keeps the boxes; `shell` has
//! the sockets and the clock.

mod backend;
mod copy_stream;
mod core;
mod document;
mod envelope;
mod faults;
mod profile;
mod replica;
mod shard;
mod shell;
#[cfg(test)]
pub(crate) mod simulated;
pub mod testing;
mod voucher;
mod wire;

pub use self::core::{PerKind, Stats};
pub use faults::Faults;
pub use profile::Profile;
pub use shell::{
    Answer, ClockShown, Command, CommandError, Console, InMemory, Listen, Localnet, LocalnetError, MAX_DAEMONS,
    Options, Settings, ask,
};

use crate::thin::message::RequestFrame;

/// Reads the body of a client's frame as the daemon's own decoder does, lenient where that is and strict where that is
/// (`thin-client-protocol.md` §2.2). What is refused here costs a client its connection.
pub fn decode_request(body: &[u8]) -> Result<RequestFrame, String> {
    wire::decode(body).map_err(|malformed: wire::Malformed| malformed.to_string())
}
