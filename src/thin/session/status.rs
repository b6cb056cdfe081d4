//! What a subscriber sees of the session: its state, and what happens in it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::thin::Document;
use crate::thin::message::{ID_BYTES, PigeonholeGeometry, SphinxGeometry};
use crate::thin::pki::Documents;

/// Events that wait for one subscriber; a slower one loses the oldest.
pub(super) const EVENTS: usize = 256;

/// The session as it stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How the link stands.
    pub link: Link,
    /// Sizes of the network's boxes, once a daemon told.
    pub pigeonhole: Option<PigeonholeGeometry>,
    /// Sizes of the network's packets.
    pub sphinx: Option<SphinxGeometry>,
    /// The daemon process; another token is another process.
    pub instance_token: Option<[u8; ID_BYTES]>,
    /// The newest PKI document.
    pub pki: Option<Arc<Document>>,
    /// The documents of the last epochs, the newest among them.
    pub documents: Documents,
    /// Grows with each connection that came to work.
    pub generation: u64,
    /// How often another daemon process was met than before. It knows nothing of what was started: all of that was
    /// started again.
    pub restarts: u64,
}

/// How the link to the daemon stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// The first attempt is under way.
    #[default]
    Connecting,
    /// Nothing answers, or what answered has gone.
    NoDaemon {
        /// Why.
        error: String,
    },
    /// What answers is no daemon.
    Refused {
        /// What it did.
        error: String,
    },
    /// The daemon is there, and cannot use the mixnet.
    NoConsensus(Absence),
    /// It can be used. A daemon that was just started may say so wrongly until its first attempt at a gateway has ended
    /// (`thin-client-protocol.md` §3.3); requests then wait in it.
    Connected,
    /// The daemon says that it stops.
    ShuttingDown,
    /// [`Client::disconnect`](crate::thin::Client::disconnect) was called: the next request connects again.
    Disconnected,
}

/// Why a daemon cannot use the mixnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It has not connected since it was started, as far as this session saw.
    NotYet,
    /// It has a gateway, and no PKI document.
    NoDocument,
    /// It was connected before.
    Lost,
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotYet => "the daemon has no connection to the mixnet yet",
            Self::NoDocument => "the daemon has no PKI document, without which it cannot use the mixnet",
            Self::Lost => "the daemon has lost its connection to the mixnet",
        })
    }
}

impl Link {
    /// Whether the daemon has said its status on this connection.
    pub(in crate::thin) fn is_greeted(&self) -> bool {
        matches!(self, Self::Connected | Self::NoConsensus(_) | Self::ShuttingDown)
    }

    /// Why no daemon can be spoken to, where that is so.
    pub(in crate::thin) fn trouble(&self) -> Option<&str> {
        match self {
            Self::NoDaemon { error } | Self::Refused { error } => Some(error),
            _ => None,
        }
    }
}

/// What happened in a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The link stands otherwise than before.
    Link(Link),
    /// A PKI document came: one at each connection, and one an epoch.
    PkiDocument(Arc<Document>),
    /// Another daemon process answers than before.
    Restarted,
    /// The daemon forgot the session, though it was not restarted: its grace period has passed, or it lost it.
    SessionLost,
    /// A legacy message with a reply left, or failed to.
    MessageSent {
        /// As [`Client::send_message`](crate::thin::Client::send_message) gave it.
        surb_id: [u8; ID_BYTES],
        /// How long the reply is expected to take.
        reply_eta: Duration,
        /// Why it did not leave.
        error: Option<String>,
    },
    /// The reply to a legacy message.
    MessageReply {
        /// As [`Client::send_message`](crate::thin::Client::send_message) gave it.
        surb_id: [u8; ID_BYTES],
        /// Zero-padded to the geometry's payload length.
        payload: Arc<[u8]>,
    },
    /// The subscriber was too slow, and so many events before the next one are lost.
    Missed(u64),
}

/// What comes from the daemon, frame by frame, for a program that speaks the protocol itself: see
/// [`ClientOptions::inbound`](crate::thin::ClientOptions::inbound).
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A frame, of the handshake or later.
    Frame {
        /// One CBOR item, as the daemon encoded it.
        body: Vec<u8>,
        /// Whether it answers a request; else it is an event, or a part of the handshake.
        is_reply: bool,
    },
    /// The connection ended, or an attempt at one failed. The next frame, if one comes, is of another connection.
    Ended {
        /// Why.
        error: String,
    },
}

/// A subscription to a session's events. Nothing waits for it: a subscriber that is slow by more than 256 events loses
/// the oldest and is told how many.
#[derive(Debug)]
pub struct Events(pub(in crate::thin) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
