//! A network without sockets, files, threads or the machine's clock: for simulations.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::command::Console;
use super::serve::serve;
use super::{DEFAULT_MAX_PLAINTEXT, Front, LocalnetError, Parts, Settings, parts};
use crate::localnet::backend::Memory;
use crate::localnet::document::Identity;
use crate::localnet::wire::Network;
use crate::thin::Dial;

/// Bytes on their way in one direction of a connection.
const PIPE_BYTES: usize = 64 * 1024;
/// When its time begins, since the Unix epoch: some Friday.
const BEGINNING: Duration = Duration::from_secs(1_795_800_000);

/// A localnet on the current tokio runtime, with tokio's time for a clock and its boxes in memory. On a runtime of one
/// thread whose time is paused, a run takes no time and is decided by its seed: the same seed and the same clients give
/// the same bytes.
///
/// Clones are the same network. It ends when the last one is dropped, its clients' included, or by
/// [`Self::shutdown`].
#[derive(Clone)]
pub struct InMemory(Arc<Inner>);

struct Inner {
    console: Console,
    stop: watch::Sender<bool>,
    /// `None` once it has ended.
    running: Mutex<Option<Running>>,
}

struct Running {
    front: Arc<Front>,
    tasks: JoinSet<()>,
}

impl InMemory {
    /// Starts a network. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LocalnetError::Setting`] where a setting makes no sense.
    pub fn start(mut settings: Settings) -> Result<Self, LocalnetError> {
        settings.check()?;
        let mut dice = StdRng::seed_from_u64(settings.seed.unwrap_or_else(rand::random));
        settings.seed = Some(dice.random());
        let identity =
            Identity { envelope_key: dice.random(), authority_key: dice.random(), courier_key: dice.random() };
        let max_plaintext = settings.max_plaintext.unwrap_or(DEFAULT_MAX_PLAINTEXT);
        let network = Network::new(identity, max_plaintext, settings.profile.clone());
        let Parts { front, runner, inbox, stop, console } =
            parts(Memory::default(), network, Clock::starting_at(BEGINNING), settings);
        let mut tasks = JoinSet::new();
        tasks.spawn(runner.run(inbox));
        let running = Mutex::new(Some(Running { front, tasks }));
        Ok(Self(Arc::new(Inner { console, stop, running })))
    }

    /// A fresh connection to its daemon.
    ///
    /// # Errors
    /// `ConnectionRefused` once it was shut down.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        self.connect_to(0)
    }

    /// The same to one of its daemons, from 0.
    ///
    /// # Errors
    /// `ConnectionRefused` once it was shut down, and where there is no such daemon.
    pub fn connect_to(&self, daemon: usize) -> io::Result<DuplexStream> {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_mut().ok_or(io::ErrorKind::ConnectionRefused)?;
        if daemon >= running.front.doors.len() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        while running.tasks.try_join_next().is_some() {}
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        running.tasks.spawn(serve(Arc::clone(&running.front), daemon, ours));
        Ok(theirs)
    }

    /// Where it takes commands.
    pub fn console(&self) -> &Console {
        &self.0.console
    }

    /// Tells the clients, and ends when all its tasks have.
    pub async fn shutdown(&self) {
        self.0.stop.send_replace(true);
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { front, mut tasks }) = running {
            drop(front);
            while tasks.join_next().await.is_some() {}
        }
    }
}

impl Dial for InMemory {
    type Stream = DuplexStream;

    async fn dial(&self) -> io::Result<DuplexStream> {
        self.connect()
    }

    fn name(&self) -> String {
        "localnet in memory".to_owned()
    }
}
