//! pigeonfs: Pigeonhole channels of the Katzenpost mixnet, mounted as files.
//!
//! A box is written and read back through the thin client, on an embedded network that needs no mixnet:
//!
//! ```
//! # #[cfg(feature = "localnet")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use pigeonfs::bacap::WriteCap;
//! use pigeonfs::localnet::{Localnet, Options};
//! use pigeonfs::thin::{Client, ClientOptions, WriteMode};
//!
//! let directory = tempfile::tempdir()?;
//! let network = Localnet::start(Options::new(directory.path())).await?;
//! let client = Client::start(network.config(), ClientOptions::default());
//! client.wait_connected(client.deadline_for(0)).await?;
//!
//! let cap = WriteCap::from_seed(&rand::random());
//! let deadline = client.deadline_for(2);
//! let envelope = client.encrypt_write(&cap, cap.index(), b"hello", deadline).await?;
//! client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await?;
//! // Waits until the box is there, or for as long as the deadline says.
//! let found = client.read(cap.read_cap(), cap.index(), deadline).await?;
//! assert_eq!(found, pigeonfs::thin::ReadOutcome::Box(b"hello".to_vec()));
//!
//! client.close().await;
//! network.shutdown().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "localnet"))]
//! # fn main() {}
//! ```
//!
//! Whole streams and files, with a state on the disk that goes on where it was, are in `state` (feature `engine`).
//!
//! Cargo features choose the parts: `thin` (capabilities and the thin client, without SQLite or a command line),
//! `websocket`, `localnet`, `engine`, `mount`, and `cli`, which is all of it and the default.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod bacap;
#[cfg(feature = "engine")]
pub mod channel;
#[cfg(feature = "cli")]
#[doc(hidden)] // No part of the interface: the program, its tests and its benchmarks use it.
pub mod cli;
#[cfg(feature = "engine")]
pub mod drop;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "mount")]
#[doc(hidden)] // No part of the interface: the program, its tests and its benchmarks use it.
pub mod fs;
#[cfg(test)]
mod layout;
#[cfg(feature = "localnet")]
pub mod localnet;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "mount")]
#[doc(hidden)] // No part of the interface: the program, its tests and its benchmarks use it.
pub mod mount;
#[cfg(feature = "engine")]
pub mod state;
#[cfg(feature = "engine")]
#[doc(hidden)] // No part of the interface: the program, its tests and its benchmarks use it.
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
