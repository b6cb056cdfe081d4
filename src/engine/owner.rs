//! One process's hold on a state directory: the lock, the store, the engine and the control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::control::{self, Failure, FailureKind};
use super::unlock::Unlock;
use super::{Daemon, Engine};
use crate::channel::Linger;
use crate::store::{
    Channel, Choices, Limits, Making, PrivateDir, PrivateDirError, StateDir, StateError, Store, StoreError,
};

/// What kind of process owns the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// A mount: it owns the state until it ends.
    Mount,
    /// A verb, for its own run: it gives the state up to a mount that asks.
    Verb,
    /// A program that uses the library, for as long as it runs: it gives the state up to a mount that asks too.
    Program,
}

/// The owner of a state directory. Dropping it without [`Owner::close`] releases the lock with the process only.
pub struct Owner {
    pub(super) store: Store,
    pub(super) engine: Engine,
    pub(super) kind: OwnerKind,
    opened: SystemTime,
    yielded: watch::Sender<bool>,
    /// Where it is mounted, for whoever asks for the state meanwhile.
    mounted: std::sync::OnceLock<PathBuf>,
    leaving: AtomicBool,
    dir: PrivateDir,
    server: std::sync::Mutex<Option<JoinHandle<()>>>,
    /// Released last.
    state: std::sync::Mutex<Option<StateDir>>,
}

impl Owner {
    /// Takes the state at `path`, opens its store, starts the engine and answers verbs. Needs a tokio runtime. A mount works
    /// by the defaults, a verb by what the last mount was told.
    pub fn open(path: &Path, daemon: Daemon, kind: OwnerKind) -> Result<Arc<Self>, Failure> {
        let choices = (kind == OwnerKind::Mount).then(Choices::default);
        Self::open_choosing(path, Making::IfEmpty, daemon, kind, choices, &Unlock::default())
    }

    /// [`Owner::open`] with other times and limits than the defaults.
    pub fn open_with(
        path: &Path,
        daemon: Daemon,
        kind: OwnerKind,
        linger: Linger,
        limits: Limits,
    ) -> Result<Arc<Self>, Failure> {
        let choices = Choices { linger, limits, ..Choices::default() };
        Self::open_choosing(path, Making::IfEmpty, daemon, kind, Some(choices), &Unlock::default())
    }

    /// [`Owner::open`] with all that can be chosen; `None`: as the last mount was told. `making` says what happens where
    /// there is no state, `unlock` where the key of a sealed one comes from.
    pub fn open_choosing(
        path: &Path,
        making: Making,
        daemon: Daemon,
        kind: OwnerKind,
        choices: Option<Choices>,
        unlock: &Unlock,
    ) -> Result<Arc<Self>, Failure> {
        let state = StateDir::take(path, making)?;
        unlock.open(&state)?;
        let (store, choices) = Store::open_choosing(&state, choices)?;
        let Choices { linger, probe_share, .. } = choices;
        let engine = Engine::start(store.clone(), daemon, linger, kind != OwnerKind::Mount, probe_share);
        let dir = state.dir().clone();
        let owner = Arc::new(Self {
            store,
            engine,
            kind,
            opened: SystemTime::now(),
            yielded: watch::Sender::new(false),
            mounted: std::sync::OnceLock::new(),
            leaving: AtomicBool::new(kind != OwnerKind::Mount),
            dir,
            server: std::sync::Mutex::new(None),
            state: std::sync::Mutex::new(Some(state)),
        });
        let server = control::serve(&owner, &owner.dir).map_err(|error| {
            let socket = owner.dir.path().join(StateDir::control_socket());
            Failure::new(FailureKind::Failed, format!("the control socket {socket:?} could not be made: {error}"))
        })?;
        *lock(&owner.server) = Some(server);
        Ok(owner)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Resolves once a mount has asked for the state; a verb then closes, and goes on as its client.
    pub async fn asked_to_yield(&self) {
        let mut yielded = self.yielded.subscribe();
        let _ = yielded.wait_for(|&yielded| yielded).await;
    }

    /// Whether nothing more is known to follow what has arrived. A mount probes all the time, so its newest verdict
    /// stands; a verb that owns the state for its own run has looked only since then.
    pub(super) fn end_is_known(&self, channel: &Channel) -> bool {
        let fresh = |at| self.kind == OwnerKind::Mount || at >= self.opened;
        channel.verdict.is_some_and(fresh) && channel.end_is_known()
    }

    /// Says where the state is mounted, for whoever asks for it meanwhile.
    pub fn mounted_at(&self, path: &Path) {
        let _ = self.mounted.set(path.to_owned());
    }

    /// From here on a mount gives the state up when another asks for it, as a verb does: it is only sending what is
    /// left.
    pub fn yield_when_asked(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// A mount asks for the state. Refused while this one is in use.
    pub(super) fn ask_to_yield(&self) -> Result<(), Failure> {
        if self.leaving.load(Ordering::Acquire) {
            self.yielded.send_replace(true);
            return Ok(());
        }
        let place = self.mounted.get().map_or_else(String::new, |path| format!(" at {}", path.display()));
        let text = format!("the state directory is mounted{place} already, by process {}", std::process::id());
        Err(Failure::new(FailureKind::Busy, text)
            .hint("unmount it first (`pigeonfs umount MNT`), or give this mount another --state"))
    }

    /// Whether the state can be written; asked after [`Owner::close`], whether all of it is on the disk.
    ///
    /// # Errors
    /// What failed.
    pub fn check(&self) -> Result<(), Failure> {
        self.store.trouble().map_or(Ok(()), |reason| Err(StoreError::Unavailable { reason }.into()))
    }

    /// Stops answering, stops the engine, closes the store and releases the lock, in this order. Bounded.
    pub async fn close(&self) {
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.abort();
            // Its connections end with it; each holds the owner only while it answers.
            let _ = server.await;
        }
        match self.dir.remove_file(StateDir::control_socket()) {
            Ok(()) | Err(PrivateDirError::Missing { .. }) => {}
            Err(error) => warn!(%error, "the control socket could not be removed"),
        }
        self.engine.stop().await;
        let store = self.store.clone();
        // The store's last commits are waited for; that blocks, so not here.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
        drop(lock(&self.state).take());
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let kind = if matches!(error, StateError::Busy { .. }) { FailureKind::Busy } else { FailureKind::Failed };
        let failure = Failure::new(kind, error.to_string());
        if let StateError::Missing { .. } = error {
            return failure.hint("correct --state, or make a state with `pigeonfs mount` or `pigeonfs new`");
        }
        failure
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Sealed(error) => return error.into(),
            StoreError::NameTaken { .. } | StoreError::CapKnown { .. } => FailureKind::Busy,
            StoreError::Fenced { .. }
            | StoreError::AlreadyLaunched { .. }
            | StoreError::Invited { .. }
            | StoreError::NotInvited { .. }
            | StoreError::ReadOnly
            | StoreError::NotAReader
            | StoreError::NotFenced { .. }
            | StoreError::Moved { .. }
            | StoreError::FencedDrop { .. }
            | StoreError::BeingAdopted { .. }
            | StoreError::LaterKnown { .. }
            | StoreError::NoHole { .. } => FailureKind::Refused,
            _ => FailureKind::Failed,
        };
        Failure::new(kind, error.to_string())
    }
}
