//! What the daemon has counted, and what it holds.

use serde::{Deserialize, Serialize};

use crate::localnet::backend::BackendCensus;

/// What a localnet's daemon has done since it was started.
///
/// `packets` over `ended` of a kind is the k of `network-performance.md` A.7: packets per operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Stats {
    /// Times at which the daemon could send.
    pub ticks: u64,
    /// Of them, those that carried a packet of a client.
    pub ticks_sent: u64,
    /// Of the ticks, those that found something waiting.
    pub busy_ticks: u64,
    /// Of those, the ones that carried a packet.
    pub busy_ticks_sent: u64,
    /// Packets sent, by what they were sent for.
    pub packets: PerKind,
    /// Operations that came to their own end; cancelled and forgotten ones are not among them.
    pub ended: PerKind,
    /// Operations that were cancelled.
    pub cancelled: u64,
    /// Packets sent again because no answer came in time.
    pub resent: u64,
    /// Packets lost on their way to a service, by the fault of that name.
    pub lost: u64,
    /// Replies lost on their way back, by the fault of that name or with the daemon's link.
    pub replies_lost: u64,
    /// Packets and replies that came twice.
    pub duplicated: u64,
    /// Packets and replies that were held up.
    pub delayed: u64,
    /// Connections now.
    pub connections: u64,
    /// Sessions now, those of clients that are away included.
    pub sessions: u64,
    /// Operations under way now.
    pub operations: u64,
}

/// A count for each kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct PerKind {
    /// Writes that a courier's word ends.
    pub write: u64,
    /// Writes that a replica's word ends.
    pub strict_write: u64,
    /// Reads.
    pub read: u64,
    /// Copy commands.
    pub copy: u64,
    /// Legacy messages.
    pub legacy: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Write,
    StrictWrite,
    Read,
    Copy,
    Legacy,
}

impl PerKind {
    pub(super) fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Write => &mut self.write,
            Kind::StrictWrite => &mut self.strict_write,
            Kind::Read => &mut self.read,
            Kind::Copy => &mut self.copy,
            Kind::Legacy => &mut self.legacy,
        } += 1;
    }
}

/// How much of everything the core holds: what must be nothing again when every client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::localnet) struct Census {
    pub(in crate::localnet) connections: usize,
    pub(in crate::localnet) sessions: usize,
    pub(in crate::localnet) tokens: usize,
    pub(in crate::localnet) operations: usize,
    /// Hashes by which operations can be cancelled.
    pub(in crate::localnet) cancellable: usize,
    /// Reads that wait for a box to be written.
    pub(in crate::localnet) parked: usize,
    /// Requests that wait for their connection's worker, or keep it.
    pub(in crate::localnet) requests: usize,
    /// Requests that wait to be sent.
    pub(in crate::localnet) outgoing: usize,
    /// Operations that wait to be sent again.
    pub(in crate::localnet) resends: usize,
    /// Replies kept for clients that are away.
    pub(in crate::localnet) away: usize,
    /// Connections that wait for a tick.
    pub(in crate::localnet) rotation: usize,
    /// Timers, and packets on their way.
    pub(in crate::localnet) steps: usize,
    /// What is behind the mixnet; it outlives the clients.
    #[serde(flatten)]
    pub(in crate::localnet) backend: BackendCensus,
}

impl Census {
    /// Whether the daemon holds nothing.
    #[cfg(test)]
    pub(in crate::localnet) fn is_empty(&self) -> bool {
        Self { backend: BackendCensus::default(), ..*self } == Self::default()
    }
}
