//! The shell around the core: sockets, connections, the clock, and the thread that owns the core and its disk.
//!
//! `state` is the directory; `listen` takes connections; `serve` talks to one client; `run` owns the core.

mod clock;
mod error;
mod listen;
mod run;
mod serve;
mod state;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::backend::{Backend, Disk};
use super::core::{Core, Event, Reply, Setup};
use super::faults::Faults;
use super::profile::Profile;
use super::wire::Network;
use crate::thin::message::ID_BYTES;
use crate::thin::{Address, Config};
pub use error::LocalnetError;
use listen::listen;
use run::run_core;
use state::{lock, write_config};

/// M of the public network and of upstream's test network.
const DEFAULT_MAX_PLAINTEXT: usize = 1549;
/// Events that wait for the core; a connection with more waits for room.
const EVENTS: usize = 1024;
const SESSION_GRACE: Duration = Duration::from_secs(600);
/// The longest path that a socket address holds.
const SOCKET_PATH: usize = 107;

/// Where a localnet listens besides the socket in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Address);

/// What a localnet is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory, made where it is missing.
    pub state: PathBuf,
    /// Further addresses; TCP on loopback only.
    pub listen: Vec<Listen>,
    /// Where a configuration for clients goes, besides the one in the directory. It dials the first of `listen`.
    pub config_out: Option<PathBuf>,
    /// M, for a network that is made now; an older one keeps its own.
    pub max_plaintext: usize,
}

impl Options {
    /// A localnet in `state`, listening at the socket there.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), listen: Vec::new(), config_out: None, max_plaintext: DEFAULT_MAX_PLAINTEXT }
    }
}

/// A running localnet. [`Localnet::shutdown`] ends it in order; dropping it ends it at once.
pub struct Localnet {
    state: PathBuf,
    addresses: Vec<Address>,
    stop: watch::Sender<bool>,
    acceptors: JoinSet<()>,
    core: Option<std::thread::JoinHandle<()>>,
    _lock: File,
}

/// What the connections share.
struct Shared {
    network: Network,
    instance_token: [u8; ID_BYTES],
    events: mpsc::Sender<(Event, Option<mpsc::Sender<Reply>>)>,
    stop: watch::Receiver<bool>,
}

impl Localnet {
    /// Starts a localnet on the current tokio runtime; it takes clients when this returns.
    pub async fn start(options: Options) -> Result<Self, LocalnetError> {
        let lock = lock(&options.state)?;
        let state_error = |error| LocalnetError::State { path: options.state.clone(), error };
        let state = options.state.canonicalize().map_err(state_error)?;
        let database = state.join("localnet.db");
        let disk = Disk::open(&database)?;
        let damaged =
            |error: rusqlite::Error| LocalnetError::Database { path: database.clone(), reason: error.to_string() };
        let identity = disk.identity().map_err(damaged)?;
        let max_plaintext = disk.max_plaintext(options.max_plaintext).map_err(damaged)?;

        let (events, inbox) = mpsc::channel(EVENTS);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            network: Network { identity, max_plaintext },
            instance_token: rand::random(),
            events,
            stop: stopped,
        });
        let socket = state.join("kpclientd.sock");
        let mut acceptors = JoinSet::new();
        let mut listening = vec![Address::Unix(socket)];
        listening.extend(options.listen.iter().map(|listen| listen.0.clone()));
        let mut addresses = Vec::new();
        let conns = Arc::new(std::sync::atomic::AtomicU64::new(0));
        for address in listening {
            addresses.push(listen(&address, &shared, &conns, &mut acceptors).await?);
        }
        let backend = Backend::new(disk, max_plaintext, &Profile::instant(), &shared.network.identity, rand::random());
        let setup = Setup {
            profile: Profile::instant(),
            faults: Faults::default(),
            grace: SESSION_GRACE,
            couriers: vec![shared.network.identity.courier_hash()],
            echoes: Vec::new(),
            seed: rand::random(),
        };
        let core = Core::new(backend, setup);
        let runtime = tokio::runtime::Handle::current();
        let core = std::thread::Builder::new()
            .name("localnet".to_owned())
            .spawn(move || runtime.block_on(run_core(core, inbox)))
            .map_err(state_error)?;
        write_config(&state.join("thinclient.toml"), &addresses[0]).map_err(state_error)?;
        if let Some(path) = &options.config_out {
            let address = addresses.get(1).unwrap_or(&addresses[0]);
            write_config(path, address).map_err(|error| LocalnetError::State { path: path.clone(), error })?;
        }
        warn!("this is localnet, an embedded network: it gives NO ANONYMITY");
        Ok(Self { state, addresses, stop, acceptors, core: Some(core), _lock: lock })
    }

    /// Where it listens: the socket in its directory first, then what was asked for, with real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The configuration by which a client on this machine reaches it.
    pub fn config(&self) -> Config {
        Config::new(self.addresses[0].clone())
    }

    /// Tells the clients, ends the connections, and finishes what was accepted.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        self.acceptors.shutdown().await;
        if let Some(core) = self.core.take() {
            let _ = tokio::task::spawn_blocking(move || core.join()).await;
        }
        if let Err(error) = std::fs::remove_file(self.state.join("kpclientd.sock")) {
            debug!(%error, "the socket could not be removed");
        }
    }
}
