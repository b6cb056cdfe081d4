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
//! A [`Client`] keeps one connection alive. Requests that were not answered when it broke are put again on the next one, with
//! new query ids, until their deadlines; every wait has one. A dropped future cancels its operation.
//! Source: `thin-client-protocol.md`; the hazards of its §6 are what this room is built to not have.

mod client;
mod config;
mod discovery;
mod error;
pub mod frame;
pub mod message;
pub mod pki;
mod session;
mod transport;

pub use client::{
    CancelOutcome, Client, ClientOptions, CopyStream, Courier, Destination, Elements, Envelope, Induction, KeyPair,
    MAX_CALL_BYTES, MAX_PAYLOAD_BYTES, MAX_TOMBSTONES, MintedVoucher, Missing, OpenedReply, Part, Payload, ReadOutcome,
    SentMessage, TombstoneRange, Voucher, VoucherStream, WriteMode, WriteOutcome,
};
pub use config::{Address, AddressError, Config, ConfigError, TcpNetwork};
pub use discovery::{Discovery, Environment};
pub use error::{Error, ErrorKind, Operation, ReplyType, error_text};
pub use pki::Document;
pub use session::{Event, Events, Link, Status};
pub use transport::{Dial, Socket};
