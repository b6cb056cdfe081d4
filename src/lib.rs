//! pigeonfs: Pigeonhole channels of the Katzenpost mixnet, mounted as files.

pub mod bacap;
pub mod channel;
pub mod cli;
pub mod drop;
pub mod engine;
pub mod fs;
pub mod localnet;
pub mod model;
pub mod mount;
pub mod store;
mod text;
pub mod thin;
mod units;
