//! The network as the engine sees it by one daemon: the connections to it, what was checked about it, and its pace. What
//! all daemons come to together is in [`View`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::carry;
use super::status::{DaemonStatus, LinkStatus};
pub(super) use super::view::View;
use crate::bacap::WriteCap;
use crate::channel::{DaemonId, Line, MAX_DAEMONS, OTHER_NETWORK, Pace};
use crate::store::{Channel, ChannelId, NetworkId, Store, StoreError};
use crate::thin::{self, Client, ClientOptions, Config, Discovery, Document, Link};

/// How long a local question to the daemon may take.
const QUESTION: Duration = Duration::from_secs(90);
const DISCOVER_AGAIN: Duration = Duration::from_secs(10);

/// Which daemon to use.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// The one that was named.
    Fixed(Config),
    /// Several that were named, of one network: each sends at its own pace. Up to [`MAX_DAEMONS`] are used.
    Several(Vec<Config>),
    /// Whichever is found; looked for again while none is.
    Discover(Discovery),
    /// None: for verbs that need no network, which never connect.
    Unneeded,
}

impl Daemon {
    /// Each of them by itself. One sends at one pace, however often it is named.
    pub(super) fn each(self) -> Vec<Self> {
        match self {
            Self::Several(configs) => {
                let mut each: Vec<Config> = Vec::new();
                for config in configs {
                    if each.len() < MAX_DAEMONS && each.iter().all(|other| other.dial != config.dial) {
                        each.push(config);
                    }
                }
                each.into_iter().map(Self::Fixed).collect()
            }
            one => vec![one],
        }
    }
}

/// The sessions with one daemon, each with a token of its own. They outlive the daemon's restarts.
pub(super) struct Lines {
    config: Config,
    traffic: Client,
    /// Where envelopes are made; opened as they are needed, once the daemon has greeted the first connection.
    crypto: Mutex<Vec<Client>>,
    /// Open while a short message waits beside a backlog: the daemon serves its connections in turn.
    second: Mutex<Option<Client>>,
}

impl Lines {
    fn start(config: Config) -> Self {
        let traffic = Client::start(config.clone(), Self::options());
        Self { config, traffic, crypto: Mutex::default(), second: Mutex::new(None) }
    }

    /// A daemon that was restarted may be of another network: what is under way is held until that was looked at.
    fn options() -> ClientOptions {
        ClientOptions { hold_after_restart: true, ..ClientOptions::default() }
    }

    fn client(&self) -> Client {
        self.traffic.beside(self.config.clone(), Self::options())
    }

    /// What was held goes on: the daemon of this instance is of the network that it was meant for.
    async fn release(&self, instance: Option<[u8; 16]>) {
        let Some(instance) = instance else { return };
        self.traffic.release(instance).await;
        let second = lock(&self.second).clone();
        if let Some(second) = second {
            second.release(instance).await;
        }
    }

    /// The `at`-th connection that makes envelopes.
    fn crypto(&self, at: usize) -> Client {
        let mut crypto = lock(&self.crypto);
        while crypto.len() <= at {
            let client = self.client();
            crypto.push(client);
        }
        crypto[at].clone()
    }

    /// The connection that carries operations.
    fn traffic(&self, line: Line) -> Client {
        match line {
            Line::Main => self.traffic.clone(),
            Line::Second => lock(&self.second).get_or_insert_with(|| self.client()).clone(),
        }
    }

    /// Says goodbye on the second connection.
    async fn close_second(&self) {
        let second = lock(&self.second).take();
        if let Some(client) = second {
            client.close().await;
        }
    }

    async fn close(&self) {
        // What waits for the first connection has nobody to say goodbye to.
        if matches!(
            self.traffic.status().borrow().link,
            Link::NoDaemon { .. } | Link::Refused { .. } | Link::Connecting
        ) {
            return self.traffic.close().await;
        }
        let crypto = std::mem::take(&mut *lock(&self.crypto));
        let second = lock(&self.second).take();
        let mut closing = tokio::task::JoinSet::new();
        for client in crypto.into_iter().chain(second).chain([self.traffic.clone()]) {
            closing.spawn(async move { client.close().await });
        }
        closing.join_all().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network that can be used: the daemon is connected and was checked. Its connections are behind [`Network::admit`].
#[derive(Clone)]
pub(super) struct Network {
    lines: Arc<Lines>,
    pub(super) daemon: DaemonId,
    /// What is seen of this daemon and of the others.
    view: Weak<watch::Sender<View>>,
    pub(super) id: NetworkId,
    pub(super) max_plaintext: usize,
    localnet: bool,
    /// What the PKI document says.
    pub(super) pace: Pace,
    /// The replica epoch of the PKI document, in weeks of the network's own time; `None` where it does not tell.
    pub(super) replica_epoch: Option<u64>,
}

/// Why nothing of a channel may reach the network.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It is bound to another network than the one that is connected, or to none though it writes.
    #[error("{OTHER_NETWORK}")]
    OtherNetwork,
    /// It could not be looked up, or is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Network {
    /// The one gate between channels and the network (design §5): every operation of a channel, whatever it is for, takes
    /// its connections from the [`Pass`] that this gives. What passes says [`carry::admits`].
    pub(super) fn admit(self: &Arc<Self>, store: &Store, id: ChannelId) -> Result<Pass, Refusal> {
        let channel = store.channel(id)?.ok_or(StoreError::NoChannel)?;
        if carry::admits(&self.id, &channel) { Ok(Pass(Arc::clone(self))) } else { Err(Refusal::OtherNetwork) }
    }

    /// The same for what belongs to no channel any more, by the network that it is on.
    pub(super) fn admit_to(self: &Arc<Self>, network: &NetworkId) -> Result<Pass, Refusal> {
        if self.id.is_same_network_as(network) { Ok(Pass(Arc::clone(self))) } else { Err(Refusal::OtherNetwork) }
    }

    /// Whether the channel belongs to another network.
    pub(super) fn is_foreign_to(&self, channel: &Channel) -> bool {
        channel.is_foreign_to(&self.id)
    }

    /// Says goodbye on the second connection.
    pub(super) async fn close_second(&self) {
        self.lines.close_second().await;
    }

    /// The same network with the numbers of another document.
    fn with_document(&self, document: Option<&Document>) -> Self {
        Self { pace: pace(document), replica_epoch: document.and_then(replica_epoch), ..self.clone() }
    }
}

/// The leave of one channel to use the network's connections.
#[derive(Clone)]
pub(super) struct Pass(Arc<Network>);

impl Pass {
    /// The `at`-th connection that makes envelopes.
    pub(super) fn crypto(&self, at: usize) -> Client {
        self.0.lines.crypto(at)
    }

    /// The connection that carries operations.
    pub(super) fn traffic(&self, line: Line) -> Client {
        self.0.lines.traffic(line)
    }

    /// When an operation that begins now is given up.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.pace.operation_deadline()
    }

    /// Has something done, unless the daemon goes meanwhile and another one is there, which can be asked instead.
    pub(super) async fn unless_moved<T>(
        &self,
        operation: thin::Operation,
        done: impl Future<Output = Result<T, thin::Error>>,
    ) -> Result<T, thin::Error> {
        tokio::select! {
            done = done => done,
            () = self.is_for_others() => {
                let kind = thin::ErrorKind::Lost("the daemon is away, and another one is there".to_owned());
                Err(thin::Error { operation, kind })
            }
        }
    }

    async fn is_for_others(&self) {
        let Some(view) = self.0.view.upgrade() else { return std::future::pending().await };
        let mut seen = view.subscribe();
        drop(view);
        let others_only = |view: &View| view.is_there() && view.by(self.0.daemon).is_none();
        loop {
            if seen.wait_for(others_only).await.is_err() {
                return std::future::pending().await;
            }
            // Its sessions live on for a while.
            sleep(self.0.pace.probe_floor()).await;
            if others_only(&seen.borrow()) {
                return;
            }
        }
    }
}

fn pace(document: Option<&Document>) -> Pace {
    document.map_or_else(Pace::default, |of| Pace::from_document(of.lambda_p, of.mu, of.layers()))
}

/// The replica epoch of a document: replicas publish the keys of the present epoch and of the next ones.
fn replica_epoch(document: &Document) -> Option<u64> {
    document.replicas.iter().filter_map(|replica| replica.envelope_keys.keys().next().copied()).max()
}

/// Keeps the connections to one daemon and publishes what it sees, until nobody looks any more.
pub(super) async fn keep(daemon: Daemon, id: DaemonId, view: Arc<watch::Sender<View>>) {
    let publish = |network, status| view.send_modify(|view| view.set(id, network, status));
    let config = tokio::select! {
        config = found(daemon, publish) => config,
        () = view.closed() => return,
    };
    let address = config.dial.to_string();
    let mut lines = Arc::new(Lines::start(config.clone()));
    // The network that what is under way on these lines is meant for.
    let mut meant: Option<NetworkId> = None;
    let mut seen = lines.traffic.status();
    let mut checked: Option<(u64, Arc<Network>)> = None;
    let mut document: Option<Arc<Document>> = None;
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
            Link::NoConsensus(absence) => {
                told.link = LinkStatus::NoConsensus;
                told.error = Some(absence.to_string());
            }
            Link::Connected => {
                if checked.as_ref().is_none_or(|(generation, _)| *generation != status.generation) {
                    let check = tokio::select! {
                        check = check((id, &view), &lines, &status) => check,
                        // A new document is no reason to begin anew.
                        () = is_lost(&mut seen, status.generation) => continue,
                        () = view.closed() => break,
                    };
                    match check {
                        Ok(network) if meant.as_ref().is_some_and(|meant| *meant != network.id) => {
                            warn!(%address, "the daemon is of another network than before");
                            // With these lines ends what was held: it was meant for the other network.
                            publish(None, told);
                            lines.close().await;
                            lines = Arc::new(Lines::start(config.clone()));
                            seen = lines.traffic.status();
                            (meant, checked, document) = (None, None, None);
                            continue;
                        }
                        Ok(network) => {
                            meant = Some(network.id.clone());
                            lines.release(status.instance_token).await;
                            info!(%address, max_plaintext = network.max_plaintext, "connected to the network");
                            checked = Some((status.generation, Arc::new(network)));
                            document.clone_from(&status.pki);
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
                if let Some((_, network)) = &mut checked {
                    let newest = seen.borrow().pki.clone();
                    if newest.as_ref().map(Arc::as_ptr) != document.as_ref().map(Arc::as_ptr) {
                        *network = Arc::new(network.with_document(newest.as_deref()));
                        document = newest;
                    }
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
        publish(network, told);
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { break },
            () = sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
            () = view.closed() => break,
        }
    }
    lines.close().await;
}

/// Waits until the connection of this generation is no longer the one that works.
async fn is_lost(seen: &mut watch::Receiver<thin::Status>, generation: u64) {
    let works = |status: &thin::Status| status.link == Link::Connected && status.generation == generation;
    // Where the client has ended, it will not come back either.
    let _ = seen.wait_for(|status| !works(status)).await;
}

/// The daemon's address, looked for until there is one.
async fn found(daemon: Daemon, publish: impl Fn(Option<Arc<Network>>, DaemonStatus)) -> Config {
    let missing = |error: String| publish(None, DaemonStatus { error: Some(error), ..DaemonStatus::default() });
    let discovery = match daemon {
        Daemon::Fixed(config) => return config,
        // It is one of them only.
        Daemon::Several(_) => return std::future::pending().await,
        Daemon::Discover(discovery) => discovery,
        Daemon::Unneeded => {
            missing("nothing runs that would send and fetch: this state is not mounted".to_owned());
            return std::future::pending().await;
        }
    };
    loop {
        match Config::discover(&discovery) {
            Ok(config) => return config,
            Err(error) => missing(error.to_string()),
        }
        sleep(DISCOVER_AGAIN).await;
    }
}

/// Asks the daemon what it is. Capabilities are made and indices are derived on our side too, so the daemon must do
/// both as we do: a daemon that steps an index otherwise would write where no reader looks.
async fn check(
    (daemon, view): (DaemonId, &Arc<watch::Sender<View>>),
    lines: &Arc<Lines>,
    status: &thin::Status,
) -> Result<Network, String> {
    let (crypto, traffic) = (lines.crypto(0), lines.traffic(Line::Main));
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
    Ok(Network {
        lines: Arc::clone(lines),
        daemon,
        view: Arc::downgrade(view),
        id: NetworkId::new(keys).embedded(pki.is_some_and(|document| document.localnet)),
        max_plaintext,
        localnet: pki.is_some_and(|document| document.localnet),
        pace: pace(pki.map(Arc::as_ref)),
        replica_epoch: pki.and_then(|document| replica_epoch(document)),
    })
}
