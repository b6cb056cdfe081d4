//! What every verb runs in: the state directory, how to print, the runtime, the signals, and the way to the state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::DaemonChoice;
use super::key::Keys;
use super::signals::Signals;
use super::{Stop, Verb};
use crate::engine::control::{Failure, FailureKind, Link, Opening, Request, Response, is_owned};
use crate::engine::status::ChannelStatus;
use crate::store::{Making, SealHeader, StateDir};

/// Tasks that are left when a verb has ended get so long to end too.
const LEFTOVERS: Duration = Duration::from_secs(1);

pub(super) struct Context {
    pub(super) state: PathBuf,
    /// Whether nobody named it.
    pub(super) state_is_default: bool,
    /// Whether the verb makes a state where there is none.
    pub(super) making: Making,
    pub(super) json: bool,
    /// Where the key comes from, should the state be sealed.
    pub(super) keys: Keys,
    /// What to tell whoever interrupts the verb: what is kept, and what to type.
    pub(super) kept: &'static str,
}

impl Context {
    /// With the state that was typed, or the one that the environment or the configuration file names. `makes_state`:
    /// whether the verb may make one where there is none.
    pub(super) fn new(state: Option<PathBuf>, makes_state: bool, json: bool, keys: Keys) -> Result<Self, Failure> {
        let state_is_default = state.is_none();
        let making = match (makes_state, state_is_default) {
            (false, _) => Making::Never,
            (true, false) => Making::IfEmpty,
            (true, true) => Making::Always,
        };
        let state = state_directory(state, super::config::state())?;
        let kept = "nothing is lost: the same command can be typed again";
        Ok(Self { state, state_is_default, making, json, keys, kept })
    }

    /// Where the network of `--localnet` lives.
    pub(super) fn localnet_dir(&self) -> PathBuf {
        self.state.join("localnet")
    }

    /// Runs a verb on a runtime of its own.
    pub(super) fn run(&self, verb: Verb) -> Result<(), Stop> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(FailureKind::Failed, format!("the runtime could not be started: {error}")))?;
        let result = runtime.block_on(super::run(self, verb));
        runtime.shutdown_timeout(LEFTOVERS);
        result
    }

    /// Whether the state may be used, or made; asked before anything is made in it, such as an embedded network.
    pub(super) fn check_state(&self) -> Result<(), Failure> {
        Ok(StateDir::check(&self.state, self.making)?)
    }

    /// Whether the state is there and sealed.
    pub(super) fn is_sealed(&self) -> bool {
        StateDir::find(&self.state).is_ok_and(|dir| !matches!(SealHeader::read(&dir), Ok(None)))
    }

    /// Has the person type the key of a sealed state, where it has to be opened here and no other source has it. Before
    /// anything else is begun: an interruption then ends the verb as it should.
    pub(super) fn ask_for_key(&self) -> Result<(), Failure> {
        let sealed = StateDir::find(&self.state).ok().and_then(|dir| SealHeader::read(&dir).transpose());
        match sealed.transpose()? {
            Some(header) => self.keys.ask(&header),
            None => Ok(()),
        }
    }

    /// Opens the state, as its owner's client or as its owner for this run, and closes it again whatever comes, a
    /// signal included.
    pub(super) async fn with_state<T>(
        &self,
        daemon: DaemonChoice,
        act: impl AsyncFnOnce(&Link) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.check_state()?;
        if self.is_sealed() && !is_owned(&self.state) {
            self.ask_for_key()?;
        }
        let signals = Signals::take()?;
        let chosen = Box::pin(daemon.choose(self)).await?;
        let opening = Opening {
            making: self.making,
            unlock: self.keys.unlock(),
            ..Opening::new(self.state.clone(), chosen.engine.clone())
        };
        let result = match Link::open(opening).await {
            Ok(link) => {
                let result = tokio::select! {
                    result = act(&link) => result,
                    () = signals.came() => Err(self.interrupted()),
                };
                let closed = link.finish().await;
                result.and_then(|result| Ok(closed.map(|()| result)?))
            }
            Err(failure) => Err(failure.into()),
        };
        chosen.close().await;
        result
    }

    /// A signal has ended the verb; what it leaves behind is told.
    pub(super) fn interrupted(&self) -> Stop {
        Failure::new(FailureKind::Interrupted, "interrupted").hint(self.kept).into()
    }

    /// Puts one question that needs no network.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, Stop> {
        self.with_state(DaemonChoice::Unneeded, async |link: &Link| Ok(link.request(request).await?)).await
    }
}

/// The answer was to another question: the owner is of a version that understands it otherwise.
pub(super) fn misunderstood() -> Stop {
    crate::state::misunderstood().into()
}

/// The channel that an answer is about.
pub(super) fn channel_of(response: Response) -> Result<ChannelStatus, Stop> {
    match response {
        Response::Channel(channel) => Ok(channel),
        _ => Err(misunderstood()),
    }
}

/// The state directory: as it was typed, else $PIGEONFS_STATE, else that of the configuration file, else the default.
pub(super) fn state_directory(typed: Option<PathBuf>, configured: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let environment = std::env::var_os("PIGEONFS_STATE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = typed.or(environment).or(configured);
    let state = named.map_or_else(default_state, Ok)?;
    std::path::absolute(&state)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("--state {}: {error}", state.display())))
}

/// The home directory that the system's table of users names: mount(8) runs its helpers without $HOME.
fn home_of_user() -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let table = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields =
        table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line.get(2) == Some(&&*user))?;
    fields.get(5).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn default_state() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The XDG specification: a path that is not absolute is to be ignored.
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").or_else(home_of_user).map(|home| home.join(".local/state")))
        .map(|home: PathBuf| home.join(Path::new("pigeonfs")))
        .ok_or_else(|| {
            Failure::new(FailureKind::Usage, "there is neither $XDG_STATE_HOME nor $HOME to keep the state in")
                .hint("give a directory with --state")
        })
}
