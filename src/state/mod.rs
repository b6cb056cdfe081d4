//! The engine as a library: a state directory with its channels, as a program uses it.
//!
//! ```
//! # #[cfg(feature = "localnet")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use pigeonfs::state::{Kind, Options, State};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # let directory = tempfile::tempdir()?;
//! # let network = pigeonfs::localnet::Localnet::start(pigeonfs::localnet::Options::new(&directory.path().join("net"))).await?;
//! # let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
//! let alice = State::open(Options::new(ours).daemon(network.config())).await?;
//! let log = alice.create("log", Kind::Stream).await?.stream()?;
//! let mut writer = log.writer();
//! writer.write_all(b"hello\n").await?;
//! writer.flush().await?; // It is safe on this disk, and will be sent whatever happens.
//! log.wait_stored(None).await?; // Replicas have it.
//!
//! let bob = State::open(Options::new(theirs).daemon(network.config())).await?;
//! let log = bob.add("log", &log.share().await?).await?.stream()?;
//! log.wait_bytes(6, None).await?;
//! let mut text = String::new();
//! log.reader().read_to_string(&mut text).await?;
//! assert_eq!(text, "hello\n");
//!
//! alice.close().await?;
//! bob.close().await?;
//! # network.shutdown().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "localnet"))]
//! # fn main() {}
//! ```
//!
//! * A [`State`] is a way to a state directory. The first process that opens one owns it, sends and fetches; all others ask
//!   the owner, and one of them takes over when it ends. A mount that begins takes the state from a program, which goes on
//!   as the mount's client. Nothing of that is seen here: calls go on where they were.
//! * Handles ([`Stream`], [`Outbox`], [`Inbox`]) are cheap, can be cloned, and name a channel; a call that waits holds up no
//!   other. Dropping a future ends what it waits for, and nothing that was accepted is lost.
//! * A [`Capability`] is one type at every door: what [`Named::share`] gives, [`State::add`] takes; it is read from any of
//!   its texts with `parse`, and made of a [`ReadCap`](crate::bacap::ReadCap) or a [`WriteCap`](crate::bacap::WriteCap) of the thin client with `from`.
//! * Times without end are `None`: then a wait goes on through restarts, and without a daemon too. An [`Error`] says what
//!   happened, with what, and what to do.

pub(crate) mod disk;
mod inbox;
mod outbox;
pub(crate) mod staging;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use crate::bacap::Capability;
pub use crate::engine::control::{Failure as Error, FailureKind as ErrorKind};
pub use crate::engine::status::{
    ChannelStatus, DaemonStatus, DurabilityStatus as Level, FilesStatus, LinkStatus, RecordStatus, RoleStatus as Role,
    Status,
};
pub use inbox::{Arrival, FileReader, Inbox, Incoming, Saving};
pub use outbox::{Outbox, Outgoing, Sent};
pub use staging::Compress;
pub use stream::{Reader, Stream, Watch, Writer};

use crate::engine::control::{Link, Opening, Request, Response, Secret, apart};
use crate::engine::{Daemon, OwnerKind, Unlock};
use crate::store::{Content, Making, Passphrase};
use crate::thin::{Config, Discovery, Environment, Trust};

/// What this module's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A wait asks its owner anew after so long: the owner answers only so many at once.
const SLICE: Duration = Duration::from_secs(10);
/// Waits that one state has under way at its owner; more take turns.
const WAITS: usize = 24;

/// How a state is opened.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    opening: Opening,
}

impl Options {
    /// The state in this directory, which is made where it is missing. The daemon is looked for as `pigeonfs` does.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let (trust, environment) = (Trust::default(), Environment::of_process());
        let daemon = Daemon::Discover(Discovery { daemon: None, config: None, trust, environment });
        Self { opening: Opening { kind: OwnerKind::Program, ..Opening::new(state.into(), daemon) } }
    }

    /// The daemon that is used while this process owns the state.
    pub fn daemon(mut self, daemon: Config) -> Self {
        self.opening.daemon = Daemon::Fixed(daemon);
        self
    }

    /// The same with several daemons of one network, which share the work; at most 8.
    pub fn daemons(mut self, daemons: Vec<Config>) -> Self {
        self.opening.daemon = Daemon::Several(daemons);
        self
    }

    /// No daemon: nothing is sent and nothing arrives while this process owns the state.
    pub fn offline(mut self) -> Self {
        self.opening.daemon = Daemon::Unneeded;
        self
    }

    /// A state that is not there is an error.
    pub fn existing(mut self) -> Self {
        self.opening.making = Making::Never;
        self
    }

    /// What opens the state if it is sealed.
    pub fn passphrase(mut self, passphrase: impl Into<Zeroizing<String>>) -> Self {
        let passphrase = passphrase.into();
        self.opening.unlock = Unlock::by(move |header| {
            let typed = Zeroizing::new(passphrase.as_bytes().to_vec());
            Ok(header.open(&Passphrase::new(typed)?)?)
        });
        self
    }
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, one after the other: [`Stream`].
    Stream,
    /// Whole files: [`Outbox`] and [`Inbox`].
    Drop,
    /// Whole files, which can be deleted from the network again.
    DeletableDrop,
}

impl Kind {
    fn content(self) -> Content {
        match self {
            Self::Stream => Content::Stream,
            Self::Drop => Content::Drop { allow_delete: false },
            Self::DeletableDrop => Content::Drop { allow_delete: true },
        }
    }
}

/// A state directory. Clones are the same; when the last one and all of its handles are gone, it is closed. See the
/// [module](self).
#[derive(Clone)]
pub struct State {
    link: Link,
    path: Arc<PathBuf>,
    waits: Arc<Semaphore>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("path", &self.path).field("owns", &self.link.is_owner()).finish()
    }
}

impl State {
    /// Opens a state: as its owner where nobody is, otherwise as a client of whoever owns it. Needs a tokio runtime, on
    /// which all of its work is done.
    ///
    /// # Errors
    /// The directory cannot be used, or is sealed and there is no key; or its owner does not answer.
    pub async fn open(options: Options) -> Result<Self> {
        let path = Arc::new(options.opening.state.clone());
        let link = Link::open(options.opening).await?;
        Ok(Self { link, path, waits: Arc::new(Semaphore::new(WAITS)) })
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Whether this process owns the state now: what is queued then leaves only while it runs.
    pub fn is_owner(&self) -> bool {
        self.link.is_owner()
    }

    /// Makes a channel that is written here. One that is there already, of this kind and written here, is taken.
    ///
    /// # Errors
    /// The name cannot be one, or belongs to another channel ([`ErrorKind::Busy`]).
    pub async fn create(&self, name: &str, kind: Kind) -> Result<Channel> {
        let content = kind.content();
        let durability = Level::Stored;
        match self.link.request(Request::New { name: name.to_owned(), durability, content }).await {
            Ok(Response::Channel(status)) => Ok(self.handle(status)),
            Ok(_) => Err(misunderstood()),
            Err(error) if error.kind == ErrorKind::Busy => {
                let status = self.channel_status(name).await?;
                if status.role == Role::Writer && status.files.is_some() == content.is_drop() {
                    return Ok(self.handle(status));
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a capability in. What it is of, a stream or a drop, its text tells; of one without, as of upstream's base64, it is
    /// taken for a stream until its first box tells otherwise: [`State::add_as`] says it beforehand.
    ///
    /// # Errors
    /// The name belongs to another channel; or the capability is of another network than the one that is connected.
    pub async fn add(&self, name: &str, capability: &Capability) -> Result<Channel> {
        let kind = match capability {
            Capability::Text(text) if text.kind == crate::bacap::TextKind::Drop => Kind::Drop,
            _ => Kind::Stream,
        };
        self.add_as(name, capability, kind).await
    }

    /// The same of a channel of this kind.
    ///
    /// # Errors
    /// Those of [`State::add`]; or its text says that it is of another kind.
    pub async fn add_as(&self, name: &str, capability: &Capability, kind: Kind) -> Result<Channel> {
        let capability = Secret::new(capability.to_text().as_bytes().to_vec());
        let (content, name) = (kind.content(), name.to_owned());
        let add = Request::Add { name, capability, content, strict_network: false, kept_until: None };
        match self.link.request(add).await? {
            Response::Added { channel, .. } => Ok(self.handle(*channel)),
            _ => Err(misunderstood()),
        }
    }

    /// A channel by its name.
    ///
    /// # Errors
    /// There is none.
    pub async fn channel(&self, name: &str) -> Result<Channel> {
        Ok(self.handle(self.channel_status(name).await?))
    }

    /// A channel that carries bytes, by its name.
    ///
    /// # Errors
    /// There is none, or it is a drop.
    pub async fn stream(&self, name: &str) -> Result<Stream> {
        self.channel(name).await?.stream()
    }

    /// A drop that is written here, by its name.
    ///
    /// # Errors
    /// There is none, or it is a stream, or is read here.
    pub async fn outbox(&self, name: &str) -> Result<Outbox> {
        self.channel(name).await?.outbox()
    }

    /// A drop that is read here, by its name.
    ///
    /// # Errors
    /// There is none, or it is a stream, or is written here.
    pub async fn inbox(&self, name: &str) -> Result<Inbox> {
        self.channel(name).await?.inbox()
    }

    /// How everything stands: the daemon, the limits, and all channels in the order of their names.
    ///
    /// # Errors
    /// The state cannot be read, or its owner does not answer.
    pub async fn status(&self) -> Result<Status> {
        match self.link.request(Request::Status { name: None }).await? {
            Response::Status(status) => Ok(status),
            _ => Err(misunderstood()),
        }
    }

    /// Closes it, in order: its clones and handles give errors from now on.
    ///
    /// # Errors
    /// This process owned the state, and what was accepted may not be on the disk.
    pub async fn close(self) -> Result<()> {
        self.link.finish().await
    }

    fn handle(&self, status: ChannelStatus) -> Channel {
        Channel { state: self.clone(), status }
    }

    async fn channel_status(&self, name: &str) -> Result<ChannelStatus> {
        match self.link.request(Request::Status { name: Some(name.to_owned()) }).await? {
            Response::Channel(status) => Ok(status),
            _ => Err(misunderstood()),
        }
    }

    /// Asks something that may take long, in pieces; `ask` makes a piece of so many milliseconds. It goes on where a piece
    /// has ended in vain, to its deadline.
    async fn wait(
        &self,
        deadline: Option<Instant>,
        ask: impl Fn(u64) -> Request + Send + Sync + 'static,
    ) -> Result<Response> {
        let (link, waits) = (self.link.clone(), Arc::clone(&self.waits));
        // Its turn is over when it is, and not when somebody polls again.
        apart(Box::pin(async move {
            let mut vain = None;
            loop {
                let turn = tokio::time::timeout_at(deadline.unwrap_or_else(far), waits.acquire());
                let Ok(turn) = turn.await else {
                    return Err(vain.unwrap_or_else(|| Error::new(ErrorKind::TimedOut, "the time is up")));
                };
                let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
                let piece = u64::try_from(left.min(SLICE).as_millis()).unwrap_or(u64::MAX);
                let answer = link.request(ask(piece)).await;
                drop(turn);
                match answer {
                    Err(error) if matches!(error.kind, ErrorKind::TimedOut | ErrorKind::NoDaemon) && left > SLICE => {
                        vain = Some(error);
                    }
                    Err(error) if error.kind == ErrorKind::TimedOut && deadline.is_none() => {}
                    Err(error) if error.kind == ErrorKind::NoDaemon && deadline.is_none() => {}
                    answer => return answer,
                }
            }
        }))
        .await
    }
}

/// A channel of either kind.
#[derive(Clone, Debug)]
pub struct Channel {
    state: State,
    status: ChannelStatus,
}

impl Channel {
    /// How it stood when it was looked up.
    pub fn status(&self) -> &ChannelStatus {
        &self.status
    }

    /// As a stream.
    ///
    /// # Errors
    /// It is a drop.
    pub fn stream(self) -> Result<Stream> {
        self.check(false, None, "a drop, which carries whole files")?;
        Ok(Stream::new(self.state, self.status.name))
    }

    /// As a drop that is written here.
    ///
    /// # Errors
    /// It is a stream, or is read here.
    pub fn outbox(self) -> Result<Outbox> {
        self.check(true, Some(Role::Writer), "a stream, which carries bytes")?;
        Outbox::new(self.state, self.status.name)
    }

    /// As a drop that is read here.
    ///
    /// # Errors
    /// It is a stream, or is written here.
    pub fn inbox(self) -> Result<Inbox> {
        self.check(true, Some(Role::Reader), "a stream, which carries bytes")?;
        Ok(Inbox::new(self.state, self.status.name))
    }

    fn check(&self, drop: bool, role: Option<Role>, otherwise: &str) -> Result<()> {
        let name = &self.status.name;
        if self.status.files.is_some() != drop {
            return Err(Error::new(ErrorKind::Failed, format!("{name:?} is {otherwise}")));
        }
        match role {
            Some(Role::Writer) if self.status.role == Role::Reader => {
                Err(Error::new(ErrorKind::Refused, format!("{name:?} is read here: nothing can be sent through it")))
            }
            Some(Role::Reader) if self.status.role == Role::Writer => {
                Err(Error::new(ErrorKind::Refused, format!("{name:?} is written here: nothing arrives in it")))
            }
            _ => Ok(()),
        }
    }
}

impl std::ops::Deref for Stream {
    type Target = Named;

    fn deref(&self) -> &Named {
        &self.named
    }
}

impl std::ops::Deref for Outbox {
    type Target = Named;

    fn deref(&self) -> &Named {
        &self.named
    }
}

impl std::ops::Deref for Inbox {
    type Target = Named;

    fn deref(&self) -> &Named {
        &self.named
    }
}

/// What all channels have in common. [`Stream`], [`Outbox`] and [`Inbox`] lead here.
#[derive(Clone, Debug)]
pub struct Named {
    state: State,
    name: String,
}

impl Named {
    /// Its name here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state that it is in.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How it stands.
    ///
    /// # Errors
    /// It was forgotten, or its owner does not answer.
    pub async fn status(&self) -> Result<ChannelStatus> {
        self.state.channel_status(&self.name).await
    }

    /// How it stands, each time that this changes.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }

    /// Its read capability, which lets others read it; for ever.
    ///
    /// # Errors
    /// It was forgotten, or its owner does not answer.
    pub async fn share(&self) -> Result<Capability> {
        self.give(false, false).await
    }

    /// The same for what comes from now on.
    ///
    /// # Errors
    /// Those of [`Named::share`].
    pub async fn share_from_here(&self) -> Result<Capability> {
        self.give(false, true).await
    }

    /// Its write capability, which lets others write it, and read it; for ever.
    ///
    /// # Errors
    /// Those of [`Named::share`]; or the channel is read here.
    pub async fn share_write(&self) -> Result<Capability> {
        self.give(true, false).await
    }

    async fn give(&self, write: bool, from_here: bool) -> Result<Capability> {
        match self.ask(|name| Request::Share { name, write, from_here }).await? {
            Response::Capability(text) => Capability::parse(text.expose()).map_err(|_| misunderstood()),
            _ => Err(misunderstood()),
        }
    }

    /// Waits until replicas have all that was accepted of a channel that is written here.
    ///
    /// # Errors
    /// The time is up, or it cannot come to that: it is fenced, or a file was broken off.
    pub async fn wait_stored(&self, timeout: Option<Duration>) -> Result<ChannelStatus> {
        self.wait_level(Level::Stored, timeout).await
    }

    /// The same, until replicas or only couriers have it.
    ///
    /// # Errors
    /// Those of [`Named::wait_stored`].
    pub async fn wait_level(&self, level: Level, timeout: Option<Duration>) -> Result<ChannelStatus> {
        self.wait_for(None, level, timeout).await
    }

    /// Waits until the network has said that nothing more is there yet of a channel that is read here.
    ///
    /// # Errors
    /// The time is up, or it cannot come to that: boxes are lost, or it belongs to another network.
    pub async fn wait_settled(&self, timeout: Option<Duration>) -> Result<ChannelStatus> {
        self.wait_for(None, Level::Stored, timeout).await
    }

    async fn wait_for(&self, bytes: Option<u64>, level: Level, timeout: Option<Duration>) -> Result<ChannelStatus> {
        let name = self.name.clone();
        let ask = move |ms| Request::Wait { name: name.clone(), bytes, timeout_ms: Some(ms), level };
        match self.state.wait(deadline(timeout), ask).await? {
            Response::Channel(status) => Ok(status),
            _ => Err(misunderstood()),
        }
    }

    /// Has a channel that is read here looked at often for a while. Whoever watches the network may see that it is of
    /// interest.
    ///
    /// # Errors
    /// It is written here.
    pub async fn follow(&self, time: Duration) -> Result<()> {
        let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ask(|name| Request::Follow { name, for_ms }).await.map(drop)
    }

    /// Gives up the boxes that are missing at its frontier, and goes on behind them. How many.
    ///
    /// # Errors
    /// None is missing.
    pub async fn skip(&self) -> Result<u64> {
        match self.ask(|name| Request::Skip { name }).await? {
            Response::Skipped { boxes, .. } => Ok(boxes),
            _ => Err(misunderstood()),
        }
    }

    /// Drops the oldest bytes that are stored, or have arrived, from this disk; so many of them stay. How many went.
    ///
    /// # Errors
    /// They are kept for the network.
    pub async fn trim(&self, keep_bytes: u64) -> Result<u64> {
        match self.ask(|name| Request::Trim { name, keep_bytes }).await? {
            Response::Trimmed { bytes } => Ok(bytes),
            _ => Err(misunderstood()),
        }
    }

    /// Drops the channel with its capability and its bytes. What was not sent is lost.
    ///
    /// # Errors
    /// Its owner does not answer.
    pub async fn forget(self) -> Result<()> {
        self.ask(|name| Request::Forget { name }).await.map(drop)
    }

    async fn ask(&self, request: impl FnOnce(String) -> Request) -> Result<Response> {
        self.state.link.request(request(self.name.clone())).await
    }
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.map(|timeout| Instant::now().checked_add(timeout).unwrap_or_else(far))
}

/// A time that does not come.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600)
}

/// The owner has answered another question.
pub(crate) fn misunderstood() -> Error {
    Error::new(ErrorKind::Failed, "the owner of the state answered another question than the one that was put")
        .hint("it may be of another version: unmount it, and mount it again with this one")
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind {
            ErrorKind::TimedOut => Io::TimedOut,
            ErrorKind::NoDaemon => Io::NotConnected,
            ErrorKind::Refused => Io::PermissionDenied,
            ErrorKind::Usage => Io::InvalidInput,
            ErrorKind::Busy => Io::ResourceBusy,
            ErrorKind::Failed | ErrorKind::Interrupted => Io::Other,
        };
        Self::new(kind, error)
    }
}
