//! What goes into the core and what comes out of it: the daemon's conversation with its clients, understood, without
//! bytes or sockets.

use std::time::Duration;

use super::egress::Daemon;
use crate::bacap::{SealedBox, WriteCap};
use crate::localnet::envelope::Query;
use crate::localnet::faults::Faults;
use crate::localnet::profile::Profile;
use crate::localnet::wire::ReadWith;
use crate::thin::message::{ID_BYTES, ResponseFrame};

/// What a core is started with.
pub(in crate::localnet) struct Setup {
    pub(in crate::localnet) profile: Profile,
    pub(in crate::localnet) faults: Faults,
    /// How many daemons there are, each with its own clients and its own pace.
    pub(in crate::localnet) daemons: usize,
    /// How long a session outlives its connection.
    pub(in crate::localnet) grace: Duration,
    /// The identity hashes of the couriers' nodes; their place here is their number.
    pub(in crate::localnet) couriers: Vec<[u8; 32]>,
    /// The services that answer legacy messages with the message itself.
    pub(in crate::localnet) echoes: Vec<Echo>,
    /// Decides all that is random in the daemon and the mixnet.
    pub(in crate::localnet) seed: u64,
}

/// A service that answers a legacy message with the message itself.
pub(in crate::localnet) struct Echo {
    /// The identity hash of its node.
    pub(in crate::localnet) node: [u8; 32],
    /// Its queue there.
    pub(in crate::localnet) queue: Vec<u8>,
}

/// A connection, numbered by the shell; a number is never used again.
pub(in crate::localnet) type Conn = u64;

/// What happens.
pub(in crate::localnet) enum Event {
    /// A client has been greeted.
    Connected(Conn, Daemon),
    /// A frame of this connection, understood. Two may be outstanding: the one at work and one that was read ahead
    /// (`thin-client-protocol.md` §4.1); each is given back by an [`Action::Read`].
    Request(Conn, Request),
    /// The socket is gone; the session may come back.
    Disconnected(Conn),
    /// The client said goodbye (`thin_close`).
    Closed(Conn),
    /// The network changes.
    Control(Control),
    /// Nothing but time.
    Tick,
}

/// What a client asks.
pub(in crate::localnet) enum Request {
    /// `session_token`.
    Token([u8; ID_BYTES]),
    /// Something that the daemon answers by itself, and how long that keeps the connection.
    Local { answer: Box<ResponseFrame>, cost: Duration },
    /// `start_resending_encrypted_message`.
    Start(Box<Started>),
    /// `cancel_resending_encrypted_message`.
    Cancel { query_id: [u8; ID_BYTES], hash: [u8; 32] },
    /// `start_resending_copy_command`.
    Copy(Box<StartedCopy>),
    /// `cancel_resending_copy_command`.
    CancelCopy { query_id: [u8; ID_BYTES], hash: [u8; 32] },
    /// `send_message`.
    Send(Box<Legacy>),
    /// A frame that asks nothing: it takes a place among what waits to be sent, and has no answer.
    Empty,
}

/// A started operation, its envelope opened and its signature checked beforehand.
pub(in crate::localnet) struct Started {
    pub(in crate::localnet) query_id: [u8; ID_BYTES],
    /// The envelope's hash as the client states it: the daemon trusts it.
    pub(in crate::localnet) hash: [u8; 32],
    /// `None` where the envelope is none of this network's.
    pub(in crate::localnet) query: Option<Query>,
    /// Whether the signature of a write verifies.
    pub(in crate::localnet) authentic: bool,
    /// Set for reads.
    pub(in crate::localnet) read: Option<Box<ReadWith>>,
    /// `no_retry_on_box_id_not_found`.
    pub(in crate::localnet) no_retry: bool,
    /// `no_idempotent_box_already_exists`.
    pub(in crate::localnet) strict: bool,
}

/// A started copy command.
pub(in crate::localnet) struct StartedCopy {
    pub(in crate::localnet) query_id: [u8; ID_BYTES],
    /// BLAKE2b-256 of the write capability's bytes, by which it is cancelled.
    pub(in crate::localnet) hash: [u8; 32],
    /// Of the temporary stream.
    pub(in crate::localnet) write_cap: WriteCap,
    /// The identity hash of the courier that the client pinned, if it did.
    pub(in crate::localnet) courier: Option<[u8; 32]>,
}

/// A legacy message: one packet, sent once.
pub(in crate::localnet) struct Legacy {
    pub(in crate::localnet) message_id: Option<[u8; ID_BYTES]>,
    /// Set where a reply is asked for.
    pub(in crate::localnet) surb_id: Option<[u8; ID_BYTES]>,
    /// The identity hash of the service's node.
    pub(in crate::localnet) destination: Option<[u8; 32]>,
    /// The service's queue there.
    pub(in crate::localnet) queue: Vec<u8>,
    /// Not longer than the geometry allows; the shell has seen to that.
    pub(in crate::localnet) payload: Vec<u8>,
}

/// How the network changes while it runs.
pub(in crate::localnet) enum Control {
    /// Other faults, from now on.
    Faults(Box<Faults>),
    /// The daemon's link to its gateway is up, or down: while it is down nothing is sent.
    Link(bool),
    /// The daemon has a PKI document, or none: without one nothing is sent.
    Consensus(bool),
    /// Every daemon restarts: sessions and operations are forgotten, connections end. What couriers and replicas hold stays.
    Restart,
    /// One daemon does.
    RestartOne(Daemon),
    /// A daemon's packets leave so many times as rarely.
    Slow(Daemon, f64),
    /// A new PKI document, which every client is told.
    Epoch,
    /// The clock was at `from` and is at `to`, without any time having passed: what was to happen in a minute still
    /// happens in a minute.
    Jumped { from: Duration, to: Duration },
    /// Another writer of the same channel stores a box.
    Foreign(Box<SealedBox>),
}

/// What is to be done.
pub(in crate::localnet) enum Action {
    /// A client is told something.
    Tell(Conn, Reply),
    /// A request of this connection is done with: another may be read.
    Read(Conn),
    /// The connection is to be closed; nothing more is said to it.
    Hangup(Conn),
}

/// What a client is told.
#[derive(Clone)]
pub(in crate::localnet) enum Reply {
    /// `session_token_reply`.
    Token { app_id: [u8; ID_BYTES], resumed: bool },
    /// What the daemon answered by itself.
    Local(Box<ResponseFrame>),
    /// The end of a started operation with a code, and by which courier; `None` where it never got that far, and then
    /// the reply has no courier and its code is the thin client's.
    Ended { query_id: [u8; ID_BYTES], code: u8, courier: Option<usize> },
    /// The end of a read with a box, which is still to be opened.
    Box { query_id: [u8; ID_BYTES], read: Box<ReadWith>, sealed: SealedBox, courier: usize },
    /// The answer to a cancel.
    Cancelled { query_id: [u8; ID_BYTES] },
    /// The end of a copy command. `replica` and `envelope` belong to code 26 (`pigeonhole-internals.md` §5.3).
    CopyEnded { query_id: [u8; ID_BYTES], code: u8, replica: u8, envelope: u64 },
    /// The answer to a cancel of a copy command.
    CopyCancelled { query_id: [u8; ID_BYTES] },
    /// `message_sent_event`.
    Sent {
        message_id: Option<[u8; ID_BYTES]>,
        surb_id: [u8; ID_BYTES],
        /// Since the Unix epoch.
        sent_at: Duration,
        reply_eta: Duration,
        error: Option<String>,
    },
    /// `message_reply_event`; its payload is padded to the geometry's by the shell.
    Replied { message_id: Option<[u8; ID_BYTES]>, surb_id: [u8; ID_BYTES], payload: Vec<u8> },
    /// `connection_status_event`: the link is up or down.
    Status { connected: bool },
    /// `new_pki_document_event`, with the document of now.
    Document,
}
