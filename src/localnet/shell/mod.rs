//! The shell around the core: sockets, connections, the clock, and the loop that owns the core and its boxes.
//!
//! `state` is the directory; `listen` takes connections, and `cut` breaks them; `serve` talks to one client, in the
//! frames of `reply`; `run` owns the core, `ledger` is what it needs of a store, and `at_hand` what it waits for; `command` is what a network is told
//! while it runs, and `ctl` the socket for it; `memory` is a network without any of the machine's things.

mod at_hand;
mod clock;
mod command;
mod ctl;
mod cut;
mod error;
mod ledger;
mod listen;
mod memory;
mod reply;
mod run;
mod serve;
mod state;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::backend::{Backend, Disk};
use super::core::{Core, Daemon, Setup};
use super::document;
use super::faults::Faults;
use super::profile::Profile;
use super::wire::Network;
use crate::thin::{Address, Config};
use at_hand::AtHand;
use clock::Clock;
pub use command::{Answer, ClockShown, Command, CommandError, Console};
pub use ctl::ask;
use cut::Cuts;
pub use error::LocalnetError;
use ledger::Ledger;
use listen::listen;
pub use memory::InMemory;
use run::{Input, Runner};
use state::{lock, write_config};

/// M of the public network and of upstream's test network.
const DEFAULT_MAX_PLAINTEXT: usize = 1549;
/// An envelope and a copy stream's element need some room, and a frame must hold several boxes.
const MAX_PLAINTEXT: std::ops::RangeInclusive<usize> = 64..=1_000_000;
/// The socket of a daemon, and the configuration for its clients; those of others than the first are numbered.
const SOCKET: &str = "kpclientd.sock";
const CONFIG: &str = "thinclient.toml";
/// Most daemons of one network.
pub const MAX_DAEMONS: usize = 16;
/// Inputs that wait for the core; a connection with more waits for room.
const INPUTS: usize = 1024;
/// How long a client is not spoken to while there is no PKI document (§2.4).
const CONSENSUS_WAIT: Duration = Duration::from_secs(30);
const SESSION_GRACE: Duration = Duration::from_secs(600);
/// How long the connections have to end when the network does.
const ENDING: Duration = Duration::from_secs(5);

/// Where a localnet listens besides the socket in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Address);

/// What a network is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Rates, delays and costs, [`Profile::scaled`] where that is wanted.
    pub profile: Profile,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// Daemons of the network, up to [`MAX_DAEMONS`]. Each sends at the profile's pace and has its own sessions; what is behind
    /// them is one network.
    pub daemons: usize,
    /// How long a session outlives its connection, in real time.
    pub session_grace: Duration,
    /// M, the longest plaintext of a box in bytes. `None`: the network's own, which is that of the public network for one
    /// that is made now.
    pub max_plaintext: Option<usize>,
    /// Decides all that is random in the network but its keys. `None`: another one each time.
    pub seed: Option<u64>,
}

impl Default for Settings {
    /// The profile `instant`, and nothing goes wrong.
    fn default() -> Self {
        Self {
            profile: Profile::instant(),
            faults: Faults::default(),
            daemons: 1,
            session_grace: SESSION_GRACE,
            max_plaintext: None,
            seed: None,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), LocalnetError> {
        self.faults.check().map_err(LocalnetError::Setting)?;
        if !(1..=MAX_DAEMONS).contains(&self.daemons) {
            let daemons = self.daemons;
            return Err(LocalnetError::Setting(format!(
                "a network has from 1 to {MAX_DAEMONS} daemons, and not {daemons}"
            )));
        }
        match self.max_plaintext {
            Some(asked) if !MAX_PLAINTEXT.contains(&asked) => Err(LocalnetError::Setting(format!(
                "a box holds from {} to {} bytes, and not {asked}",
                MAX_PLAINTEXT.start(),
                MAX_PLAINTEXT.end()
            ))),
            _ => Ok(()),
        }
    }
}

/// What a localnet is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory, made where it is missing.
    pub state: PathBuf,
    /// Further addresses: the first is the first daemon's, the next one the next daemon's, in turn.
    pub listen: Vec<Listen>,
    /// Whether they may be such as other machines reach.
    pub allow_non_loopback: bool,
    /// Where a configuration for clients goes, besides the one in the directory. It dials the first of `listen`. That of a
    /// second daemon goes beside it: `name-2.toml` beside `name.toml`.
    pub config_out: Option<PathBuf>,
    /// What the network is like.
    pub settings: Settings,
}

impl Options {
    /// A localnet in `state`, listening at the socket there.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            listen: Vec::new(),
            allow_non_loopback: false,
            config_out: None,
            settings: Settings::default(),
        }
    }
}

/// A running localnet. [`Localnet::shutdown`] ends it in order; dropping it ends it at once.
pub struct Localnet {
    state: PathBuf,
    addresses: Vec<Address>,
    daemons: usize,
    console: Console,
    stop: watch::Sender<bool>,
    acceptors: JoinSet<()>,
    core: Option<std::thread::JoinHandle<()>>,
    _lock: File,
}

/// What the loop and the connections share.
struct Shared {
    network: Network,
    clock: Clock,
    cuts: Arc<Cuts>,
    foreign_writes: ForeignWrites,
    at_hand: AtHand,
}

/// How probable it is that another writer takes the place of a box first: set by the loop, seen by the connections.
#[derive(Default)]
struct ForeignWrites(AtomicU64);

impl ForeignWrites {
    fn set(&self, faults: &Faults) {
        self.0.store(faults.conflicting_writer.to_bits(), Ordering::Relaxed);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// What connections have of the network; while it is there, the loop runs.
struct Front {
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
    stop: watch::Receiver<bool>,
    /// Whether there is a PKI document.
    consensus: watch::Receiver<bool>,
    connections: AtomicU64,
    /// One for each daemon, held by the client that it is letting in.
    doors: Vec<tokio::sync::Mutex<()>>,
    /// Decides, with a connection's number, what is random in its answers.
    seed: u64,
}

impl Front {
    /// Lets a client in. While there is no PKI document one is let in after the other, each after its own wait, as
    /// upstream's daemon accepts them; one that has hung up meanwhile keeps its place.
    async fn admit(&self, daemon: Daemon, consensus: &mut watch::Receiver<bool>) {
        let _door = self.doors[daemon].lock().await;
        let _ = timeout(CONSENSUS_WAIT, consensus.wait_for(|&there| there)).await;
    }

    fn next_conn(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The parts of a network that is about to run.
struct Parts<S> {
    front: Arc<Front>,
    runner: Runner<S>,
    inbox: mpsc::Receiver<Input>,
    stop: watch::Sender<bool>,
    console: Console,
}

fn parts<S: Ledger>(store: S, network: Network, clock: Clock, settings: Settings) -> Parts<S> {
    let mut seeds = StdRng::seed_from_u64(settings.seed.unwrap_or_else(rand::random));
    let Settings { profile, faults, daemons, session_grace, .. } = settings;
    let backend = Backend::new(store, network.max_plaintext, &profile, &network.identity, seeds.random());
    let setup = Setup {
        profile,
        faults: faults.clone(),
        daemons,
        grace: session_grace,
        couriers: network.couriers.clone(),
        echoes: document::echoes(&network.couriers),
        seed: seeds.random(),
    };
    let core = Core::new(backend, setup);
    let shared = Arc::new(Shared {
        network,
        clock,
        cuts: Arc::default(),
        foreign_writes: ForeignWrites::default(),
        at_hand: AtHand::default(),
    });
    let (inputs, inbox) = mpsc::channel(INPUTS);
    let (stop, stopped) = watch::channel(false);
    let (consensus, there) = watch::channel(true);
    let seed = seeds.random();
    let runner = Runner::new(core, daemons, Arc::clone(&shared), consensus, faults, seeds.random());
    let console = Console::new(&inputs);
    let front = Arc::new(Front {
        shared,
        inputs,
        stop: stopped,
        consensus: there,
        connections: AtomicU64::default(),
        doors: (0..daemons).map(|_| tokio::sync::Mutex::default()).collect(),
        seed,
    });
    Parts { front, runner, inbox, stop, console }
}

impl Localnet {
    /// Starts a localnet on the current tokio runtime; it takes clients when this returns.
    pub async fn start(options: Options) -> Result<Self, LocalnetError> {
        options.settings.check()?;
        let lock = lock(&options.state)?;
        let state_error = |error| LocalnetError::State { path: options.state.clone(), error };
        let state = options.state.canonicalize().map_err(state_error)?;
        let database = state.join("localnet.db");
        let disk = Disk::open(&database)?;
        let damaged =
            |error: rusqlite::Error| LocalnetError::Database { path: database.clone(), reason: error.to_string() };
        let identity = disk.identity().map_err(damaged)?;
        let asked = options.settings.max_plaintext;
        let kept = disk.max_plaintext(asked.unwrap_or(DEFAULT_MAX_PLAINTEXT)).map_err(damaged)?;
        if let Some(asked) = asked.filter(|asked| *asked != kept) {
            return Err(LocalnetError::MaxPlaintext { path: state, kept, asked });
        }
        let network = Network::new(identity, kept, options.settings.profile.clone());
        let daemons = options.settings.daemons;
        let Parts { front, runner, inbox, stop, console } = parts(disk, network, Clock::of_machine(), options.settings);

        let mut acceptors = JoinSet::new();
        let sockets = (0..daemons).map(|daemon| Address::Unix(numbered(&state.join(SOCKET), daemon)));
        let mut listening: Vec<_> = sockets.enumerate().collect();
        let asked = options.listen.iter().map(|listen| listen.0.clone());
        listening.extend(asked.enumerate().map(|(at, address)| (at % daemons, address)));
        let mut addresses = Vec::new();
        for (daemon, address) in listening {
            let everywhere = options.allow_non_loopback;
            addresses.push(listen(&address, everywhere, (&front, daemon), &mut acceptors).await?);
        }
        acceptors.spawn(ctl::serve(listen::bind(&state.join(ctl::SOCKET))?, console.clone(), front.stop.clone()));
        let runtime = tokio::runtime::Handle::current();
        let core = std::thread::Builder::new()
            .name("localnet".to_owned())
            .spawn(move || runtime.block_on(runner.run(inbox)))
            .map_err(state_error)?;
        let config = state.join(CONFIG);
        for daemon in 0..daemons {
            write_config(&numbered(&config, daemon), &addresses[daemon]).map_err(state_error)?;
            if let Some(path) = &options.config_out {
                let path = numbered(path, daemon);
                let address = addresses.get(daemons + daemon).unwrap_or(&addresses[daemon]);
                write_config(&path, address).map_err(|error| LocalnetError::State { path: path.clone(), error })?;
            }
        }
        // Those of a run with more daemons lead nowhere.
        for daemon in daemons..MAX_DAEMONS {
            let _ = std::fs::remove_file(numbered(&config, daemon));
        }
        warn!("this is localnet, an embedded network: it gives NO ANONYMITY");
        Ok(Self { state, addresses, daemons, console, stop, acceptors, core: Some(core), _lock: lock })
    }

    /// Where it listens: the sockets in its directory first, one for each daemon, then what was asked for, with real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The configuration by which a client on this machine reaches it, by its first daemon.
    pub fn config(&self) -> Config {
        Config::new(self.addresses[0].clone())
    }

    /// The same for each of its daemons.
    pub fn configs(&self) -> Vec<Config> {
        self.addresses[..self.daemons].iter().cloned().map(Config::new).collect()
    }

    /// The files in its directory that say so, in the same order.
    pub fn config_files(&self) -> Vec<PathBuf> {
        (0..self.daemons).map(|daemon| numbered(&self.state.join(CONFIG), daemon)).collect()
    }

    /// The names that its daemons' files have in its directory, however many daemons it has.
    pub fn daemon_files() -> impl Iterator<Item = PathBuf> {
        (0..MAX_DAEMONS).flat_map(|daemon| [SOCKET, CONFIG].map(|name| numbered(Path::new(name), daemon)))
    }

    /// Where it takes commands; they also come by the control socket in its directory.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Tells the clients, ends the connections, and finishes what was accepted.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let _ = timeout(ENDING, async { while self.acceptors.join_next().await.is_some() {} }).await;
        self.acceptors.shutdown().await;
        if let Some(core) = self.core.take() {
            let _ = tokio::task::spawn_blocking(move || core.join()).await;
        }
        let sockets = self.addresses.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            _ => None,
        });
        for socket in sockets.chain([self.state.join(ctl::SOCKET)]) {
            if let Err(error) = std::fs::remove_file(&socket) {
                debug!(%error, socket = %socket.display(), "a socket could not be removed");
            }
        }
    }
}

/// The file of a daemon: `name.ext` is the first one's, `name-2.ext` the second one's.
fn numbered(path: &Path, daemon: Daemon) -> PathBuf {
    if daemon == 0 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", daemon + 1));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
