//! What the engine sees of the network over time, by all daemons together.

use std::sync::Arc;

use rand::seq::IteratorRandom as _;
use tracing::warn;

use super::network::Network;
use super::status::{DaemonStatus, LinkStatus};
use crate::channel::{DaemonId, Pin};
use crate::model::NetworkId;

/// The daemons and what is behind them. Those of another network than the one that is used are as if they were not there.
#[derive(Clone, Default)]
pub(super) struct View {
    /// By their numbers.
    daemons: Vec<Seen>,
    pin: Pin,
}

/// What is seen of one daemon.
#[derive(Clone, Default)]
struct Seen {
    /// The network, while it can be used by this daemon.
    network: Option<Arc<Network>>,
    /// Which one it was when it could be used last, and its M.
    last: Option<(NetworkId, usize)>,
    status: DaemonStatus,
    /// Whether it was told that it is not used.
    is_refused: bool,
}

impl View {
    /// So many daemons, of which nothing is seen yet.
    pub(super) fn new(daemons: usize) -> Self {
        Self { daemons: vec![Seen::default(); daemons], pin: Pin::default() }
    }

    /// Takes in what is seen of one of them.
    pub(super) fn set(&mut self, daemon: DaemonId, network: Option<Arc<Network>>, status: DaemonStatus) {
        let Some(seen) = self.daemons.get_mut(usize::from(daemon.0)) else { return };
        if let Some(network) = &network {
            seen.last = Some((network.id.clone(), network.max_plaintext));
        }
        (seen.network, seen.status) = (network, status);
        let known = self.daemons.iter().filter_map(|seen| seen.last.as_ref());
        self.pin = Pin::of(known.map(|(id, max_plaintext)| (id, *max_plaintext)));
        for seen in &mut self.daemons {
            let misfit = seen.network.as_ref().and_then(|of| self.pin.misfit(&of.id, of.max_plaintext));
            if !std::mem::replace(&mut seen.is_refused, misfit.is_some())
                && let Some(misfit) = misfit
            {
                warn!(address = seen.status.address, "this daemon cannot be used: {misfit}");
            }
        }
    }

    /// The network that is used, and its M.
    pub(super) fn network(&self) -> Option<&(NetworkId, usize)> {
        self.pin.network()
    }

    /// The daemons by which it can be used.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.daemons.iter().filter(|seen| !seen.is_refused).filter_map(|seen| seen.network.as_ref())
    }

    /// Whether it can be used at all.
    pub(super) fn is_there(&self) -> bool {
        self.all().next().is_some()
    }

    /// The network by one daemon, while it can be used so.
    pub(super) fn by(&self, daemon: DaemonId) -> Option<&Arc<Network>> {
        self.all().find(|network| network.daemon == daemon)
    }

    /// The network by a daemon that is drawn by lot: what is asked beside the scheduler is spread over all, and each has
    /// its share of it.
    pub(super) fn any(&self) -> Option<Arc<Network>> {
        self.all().choose(&mut rand::rng()).cloned()
    }

    /// Packets a second that the daemons can send together.
    pub(super) fn packets_per_second(&self) -> f64 {
        self.all().map(|network| network.pace.packets_per_second()).sum()
    }

    /// The newest replica epoch that a daemon has a document of.
    pub(super) fn replica_epoch(&self) -> Option<u64> {
        self.all().filter_map(|network| network.replica_epoch).max()
    }

    /// How the daemons stand.
    pub(super) fn statuses(&self) -> Vec<DaemonStatus> {
        let status = |seen: &Seen| {
            let misfit = seen.network.as_ref().and_then(|of| self.pin.misfit(&of.id, of.max_plaintext));
            let mut status = seen.status.clone();
            if let Some(misfit) = misfit {
                (status.link, status.error) = (LinkStatus::Refused, Some(misfit.to_string()));
                status.max_plaintext = None;
            }
            status
        };
        self.daemons.iter().map(status).collect()
    }
}
