//! The thin client of the Katzenpost daemon: configuration, discovery, one session, typed operations and errors.
//!
//! ```text
//!   client                               daemon
//!     |-- connect ------------------------>|
//!     |<-- connection_status_event --------|   geometries, instance token
//!     |<-- new_pki_document_event ---------|
//!     |-- session_token ------------------>|
//!     |<-- session_token_reply ------------|
//!     |== requests and replies, both ways ==|
//! ```
//!
//! The daemon (kpclientd) does the mixing, the encryption and the retransmission; a thin client asks it over a local
//! socket, which is neither encrypted nor authenticated. It gets capabilities and plaintexts, so mind whose it is.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use pigeonfs::thin::{Client, ClientOptions, Config, WriteMode};
//!
//! let client = Client::start(Config::load("thinclient.toml".as_ref())?, ClientOptions::default());
//! client.wait_connected(client.deadline_for(0)).await?;
//! let deadline = client.deadline_for(1);
//! let pair = client.new_keypair(&rand::random(), deadline).await?;
//! let envelope = client.encrypt_write(&pair.write_cap, &pair.first, b"hello", deadline).await?;
//! client.start_write(&pair.write_cap, &envelope, WriteMode::Strict, deadline).await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! More such pages are the crate's `examples/`, one a task.
//!
//! # Life cycle
//!
//! A [`Client`] is a handle on one session; clones share it, and when the last one is dropped, or by [`Client::close`],
//! the daemon is told to forget it. [`Client::start`] returns at once. The session dials, shakes hands, and does so
//! again with growing and jittered pauses whenever the connection breaks. [`Client::status`] holds how it stands
//! ([`Link`]), [`Client::events`] tells what happens ([`Event`]). After each reconnect every request that is unanswered
//! is put again under a new query id, and a started operation is cancelled first, so that no survivor runs beside it;
//! this holds for a daemon that was restarted, too. Legacy messages are the exception: they are sent once. Envelopes
//! outlive the daemon, and go stale with the network's weeks: keep plaintexts, not envelopes.
//!
//! # Deadlines and back-pressure
//!
//! Every call takes a deadline, and waits no longer, whatever it waits for: a connection, room, an answer. At most 16
//! started operations are unanswered at once ([`ClientOptions::started`]), as a daemon stops reading from those with
//! more; further ones wait for their turn, and so do local questions beyond a bound of their own. Nothing is queued
//! without a bound. Who needs more than 16 at once opens a second client; long encryptions are best on one of their
//! own, as a daemon answers a connection's questions in order.
//!
//! # Errors
//!
//! An [`Error`] says which [`Operation`] failed and why ([`ErrorKind`]), whether asking again can help
//! ([`Error::is_retryable`]) and whether it may have happened all the same ([`Error::may_have_happened`]). The daemon's
//! error byte means different things in different replies; it is read as what it is in each, and outcomes that are none
//! of an error are no errors: a box that is not there or was deleted ([`ReadOutcome`]), other contents at an index
//! ([`WriteOutcome`]).
//!
//! # Cancellation
//!
//! Dropping a future cancels its operation, here and at the daemon. [`Client::cancel`] and [`Client::cancel_copy`] do
//! so by key, from anywhere. The daemon does not find what still waits in its queue; the client remembers what it
//! cancelled and does so again when it surfaces. Packets that have left may arrive all the same.
//!
//! Source: `thin-client-protocol.md`; the hazards of its §6 are what this room is built to not have.
//!
#![doc = include_str!("MIGRATION.md")]

mod client;
mod config;
mod discovery;
mod error;
pub mod frame;
pub mod message;
pub mod pki;
mod session;
mod transport;
#[cfg(feature = "websocket")]
pub(crate) mod websocket;
#[cfg(not(feature = "websocket"))]
#[path = "websocket_absent.rs"]
pub(crate) mod websocket;

pub use client::{
    CancelOutcome, Client, ClientOptions, CopyStream, Courier, Destination, Elements, Envelope, Induction, KeyPair,
    MAX_CALL_BYTES, MAX_PAYLOAD_BYTES, MAX_TOMBSTONES, MintedVoucher, Missing, OpenedReply, Part, Payload, ReadOutcome,
    SentMessage, TombstoneRange, Voucher, VoucherStream, WriteMode, WriteOutcome,
};
#[cfg(feature = "localnet")]
pub(crate) use config::web_host_port;
pub use config::{Address, AddressError, Config, ConfigError, TcpNetwork, Trust};
pub use discovery::{Discovery, Environment};
#[cfg(test)]
pub(crate) use error::started;
pub use error::{Error, ErrorKind, Operation, ReplyType, error_text};
pub use pki::Document;
pub use session::{Absence, Event, Events, Inbound, Link, Status};
pub use transport::{Dial, Socket};
