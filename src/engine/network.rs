//! The network as the engine sees it: two connections to one daemon, what was checked about it, and its pace.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::status::{DaemonStatus, LinkStatus};
use crate::bacap::WriteCap;
use crate::channel::Pace;
use crate::store::NetworkId;
use crate::thin::{self, Client, ClientOptions, Config, Discovery, Link};

/// Unanswered operations of the two kinds together stay within the daemon's 16 a connection; reads get fewer, as the
/// daemon serves them before writes (`network-performance.md` A.6).
pub(super) const WRITES_UNDER_WAY: usize = 10;
pub(super) const READS_UNDER_WAY: usize = 6;
/// How long a local question to the daemon may take.
const QUESTION: Duration = Duration::from_secs(90);
const DISCOVER_AGAIN: Duration = Duration::from_secs(10);

/// Which daemon to use.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// The one that was named.
    Fixed(Config),
    /// Whichever is found; looked for again while none is.
    Discover(Discovery),
    /// None: for verbs that need no network, which never connect.
    Unneeded,
}

/// A network that can be used: the daemon is connected and was checked.
pub(super) struct Network {
    crypto: Client,
    traffic: Client,
    pub(super) id: NetworkId,
    pub(super) max_plaintext: usize,
    localnet: bool,
    pace: Mutex<Pace>,
    writes: Semaphore,
    reads: Semaphore,
}

impl Network {
    pub(super) fn crypto(&self) -> &Client {
        &self.crypto
    }

    pub(super) fn traffic(&self) -> &Client {
        &self.traffic
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn measure(&self, elapsed: Duration, packets: u32) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).measure(elapsed, packets);
    }

    pub(super) fn operation_deadline(&self) -> Duration {
        self.pace().operation_deadline()
    }

    pub(super) async fn write_permit(&self) -> SemaphorePermit<'_> {
        self.writes.acquire().await.expect("the semaphore is never closed")
    }

    pub(super) async fn read_permit(&self) -> SemaphorePermit<'_> {
        self.reads.acquire().await.expect("the semaphore is never closed")
    }
}

/// What the engine sees of the network over time.
#[derive(Clone, Default)]
pub(super) struct View {
    /// The network, while it can be used.
    pub(super) network: Option<Arc<Network>>,
    pub(super) status: DaemonStatus,
}

/// Keeps the connections to the daemon and publishes what it sees, until nobody looks any more.
pub(super) async fn keep(daemon: Daemon, view: watch::Sender<View>) {
    let config = tokio::select! {
        config = found(daemon, &view) => config,
        () = view.closed() => return,
    };
    let address = config.dial.to_string();
    let traffic = Client::start(config.clone(), ClientOptions::default());
    let crypto = Client::start(config, ClientOptions::default());
    let mut seen = traffic.status();
    let mut checked: Option<(u64, Arc<Network>)> = None;
    let mut said = None;
    loop {
        let status = seen.borrow_and_update().clone();
        let mut told = DaemonStatus { address: Some(address.clone()), ..DaemonStatus::default() };
        let mut retry = None;
        match &status.link {
            Link::NoDaemon { error } => told.error = Some(error.clone()),
            Link::Connecting | Link::Disconnected => {}
            Link::ShuttingDown => told.error = Some("the daemon is shutting down".to_owned()),
            Link::Refused { error } => {
                told.link = LinkStatus::Refused;
                told.error = Some(error.clone());
            }
            Link::NoConsensus => {
                told.link = LinkStatus::NoConsensus;
                told.error = Some("the daemon has no connection to the mixnet yet".to_owned());
            }
            Link::Connected => {
                if checked.as_ref().is_none_or(|(generation, _)| *generation != status.generation) {
                    let check = tokio::select! {
                        check = check(&crypto, &traffic, &status) => check,
                        _ = seen.changed() => continue,
                        () = view.closed() => break,
                    };
                    match check {
                        Ok(network) => {
                            info!(%address, max_plaintext = network.max_plaintext, "connected to the network");
                            checked = Some((status.generation, Arc::new(network)));
                        }
                        Err(reason) => {
                            warn!(%address, %reason, "this daemon cannot be used");
                            checked = None;
                            told.link = LinkStatus::Refused;
                            told.error = Some(reason);
                            retry = Some(DISCOVER_AGAIN);
                        }
                    }
                }
                if let Some((_, network)) = &checked {
                    told.link = LinkStatus::Connected;
                    told.localnet = network.localnet;
                    told.max_plaintext = Some(network.max_plaintext as u64);
                }
            }
        }
        let network = checked.as_ref().filter(|_| told.link == LinkStatus::Connected).map(|(_, net)| Arc::clone(net));
        // Once for each way in which it is not there; the attempts in between are the thin client's own log.
        if status.link != Link::Connecting
            && said.replace(told.link) != Some(told.link)
            && let Some(error) = &told.error
        {
            warn!("{error}; what is written is kept and sent later");
        }
        view.send_replace(View { network, status: told });
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { break },
            () = sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
            () = view.closed() => break,
        }
    }
    tokio::join!(traffic.close(), crypto.close());
}

/// The daemon's address, looked for until there is one.
async fn found(daemon: Daemon, view: &watch::Sender<View>) -> Config {
    let discovery = match daemon {
        Daemon::Fixed(config) => return config,
        Daemon::Discover(discovery) => discovery,
        Daemon::Unneeded => {
            let error = Some("nothing runs that would send and fetch: this state is not mounted".to_owned());
            view.send_replace(View { network: None, status: DaemonStatus { error, ..DaemonStatus::default() } });
            return std::future::pending().await;
        }
    };
    loop {
        match Config::discover(&discovery) {
            Ok(config) => return config,
            Err(error) => {
                let status = DaemonStatus { error: Some(error.to_string()), ..DaemonStatus::default() };
                view.send_replace(View { network: None, status });
            }
        }
        sleep(DISCOVER_AGAIN).await;
    }
}

/// Asks the daemon what it is. Capabilities are made and indices are derived on our side too, so the daemon must do
/// both as we do: a daemon that steps an index otherwise would write where no reader looks.
async fn check(crypto: &Client, traffic: &Client, status: &thin::Status) -> Result<Network, String> {
    let deadline = Instant::now() + QUESTION;
    let geometry = status.pigeonhole.as_ref().ok_or("the daemon did not tell its geometry")?;
    let max_plaintext = usize::try_from(geometry.max_plaintext_payload_length)
        .ok()
        .filter(|&bytes| bytes > 0)
        .ok_or("the daemon told a geometry without room for a plaintext")?;
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("this machine gives no randomness: {error}"))?;
    let ours = WriteCap::from_seed(&seed);
    let theirs = crypto.next_index(ours.index(), deadline).await.map_err(|error| error.to_string())?;
    let expected = ours.index().next().map_err(|error| error.to_string())?;
    if theirs != expected {
        return Err("the daemon derives box indices in another way than we do: it speaks another generation of the \
                    protocol, and what it wrote no reader of ours would find. Use a current kpclientd"
            .to_owned());
    }
    let pair = crypto.new_keypair(&seed, deadline).await.map_err(|error| error.to_string())?;
    if pair.write_cap != ours {
        warn!("the daemon derives key pairs from a seed in another way than we do; ours are used, which it accepts");
    }
    let authorities = traffic.directory_authorities(deadline).await.map_err(|error| error.to_string())?;
    let keys = authorities.iter().filter_map(|authority| {
        let hash: &[u8] = authority.identity_key_hash.as_deref()?;
        <[u8; 32]>::try_from(hash).ok()
    });
    let pki = status.pki.as_ref();
    let pace = pki
        .map_or_else(Pace::default, |document| Pace::from_document(document.lambda_p, document.mu, document.layers()));
    Ok(Network {
        crypto: crypto.clone(),
        traffic: traffic.clone(),
        id: NetworkId::new(keys),
        max_plaintext,
        localnet: pki.is_some_and(|document| document.localnet),
        pace: Mutex::new(pace),
        writes: Semaphore::new(WRITES_UNDER_WAY),
        reads: Semaphore::new(READS_UNDER_WAY),
    })
}
