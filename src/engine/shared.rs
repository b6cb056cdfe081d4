//! What the driver knows and others may look at: the daemon's state, the next probes, the newest trouble.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::status::DaemonStatus;
use crate::store::{Channel, ChannelId, NetworkId};

/// Why a channel of another network is refused.
pub(super) fn other_network() -> String {
    "the channel belongs to another network than the one behind this daemon. Use the daemon of its own network \
     (--config or --daemon); nothing was sent"
        .to_owned()
}

#[derive(Default)]
struct Seen {
    daemon: DaemonStatus,
    network: Option<NetworkId>,
    next_probe: HashMap<ChannelId, Instant>,
    trouble: HashMap<ChannelId, String>,
}

#[derive(Default)]
pub(super) struct Shared(Mutex<Seen>);

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn see(&self, daemon: DaemonStatus) {
        self.seen().daemon = daemon;
    }

    pub(super) fn daemon(&self) -> DaemonStatus {
        self.seen().daemon.clone()
    }

    pub(super) fn set_network(&self, network: NetworkId) {
        self.seen().network = Some(network);
    }

    /// Whether the channel is bound to another network than the newest that was seen.
    pub(super) fn refuses(&self, channel: &Channel) -> bool {
        match (&self.seen().network, &channel.network) {
            (Some(present), Some(bound)) => !bound.is_same_network_as(present),
            _ => false,
        }
    }

    pub(super) fn next_probe(&self, id: ChannelId, at: Option<Instant>) {
        match at {
            Some(at) => self.seen().next_probe.insert(id, at),
            None => self.seen().next_probe.remove(&id),
        };
    }

    pub(super) fn next_probe_of(&self, id: ChannelId) -> Option<Instant> {
        self.seen().next_probe.get(&id).copied()
    }

    pub(super) fn trouble(&self, id: ChannelId, trouble: Option<String>) {
        match trouble {
            Some(trouble) => self.seen().trouble.insert(id, trouble),
            None => self.seen().trouble.remove(&id),
        };
    }

    pub(super) fn trouble_of(&self, id: ChannelId) -> Option<String> {
        self.seen().trouble.get(&id).cloned()
    }

    pub(super) fn forget(&self, id: ChannelId) {
        let mut seen = self.seen();
        seen.next_probe.remove(&id);
        seen.trouble.remove(&id);
    }
}
