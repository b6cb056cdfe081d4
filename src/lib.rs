//! pigeonfs: Pigeonhole channels of the Katzenpost mixnet, mounted as files.

pub mod bacap;
#[cfg(feature = "engine")]
pub mod channel;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "engine")]
pub mod drop;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "mount")]
pub mod fs;
#[cfg(test)]
mod layout;
#[cfg(feature = "localnet")]
pub mod localnet;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "mount")]
pub mod mount;
#[cfg(feature = "engine")]
pub mod store;
// What is shown to a person; the command shows most.
#[cfg(feature = "engine")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod text;
#[cfg(feature = "thin")]
pub mod thin;
#[cfg(feature = "engine")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod units;
