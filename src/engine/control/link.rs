//! The asker's end: the owner's socket where there is an owner, and the owner itself where there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{Answer, Asked, Failure, FailureKind, Request, Response, dispatch};
use crate::engine::{Daemon, Owner, OwnerKind, Unlock};
use crate::store::{Choices, Making, PrivateDir, StateDir, StateError};
use crate::thin::frame;

/// How long a verb tries, while one owner goes and another comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a program that cannot own the state looks again, where there is nobody to hear from.
const AGAIN: Duration = Duration::from_secs(1);
/// Connections to another owner that are kept for the next questions.
const IDLE: usize = 4;

/// Pauses before the next try. Each time for another while: verbs that come and go in step, as from a script, would
/// otherwise meet whoever waits for the state at the same point of their way, each time.
async fn pause() {
    sleep(PAUSE.mul_f64(rand::random_range(0.1..=1.0))).await;
}

/// What a verb, or a program, needs to open a state.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The state directory.
    pub state: PathBuf,
    /// Whether a state is made there where there is none.
    pub making: Making,
    /// The daemon, should the verb become the owner.
    pub daemon: Daemon,
    /// What a mount was told, which is kept for the owners that come. `None`: what the last mount was told.
    pub choices: Option<Choices>,
    /// The key of a sealed state, should the verb become the owner.
    pub unlock: Unlock,
    /// What kind of owner it would be.
    pub kind: OwnerKind,
}

impl Opening {
    /// By what the last mount was told.
    pub fn new(state: PathBuf, daemon: Daemon) -> Self {
        let making = Making::IfEmpty;
        let kind = OwnerKind::Verb;
        Self { state, making, daemon, choices: None, unlock: Unlock::default(), kind }
    }

    fn owner(&self, kind: OwnerKind) -> Result<Arc<Owner>, Failure> {
        Owner::open_choosing(&self.state, self.making, self.daemon.clone(), kind, self.choices, &self.unlock)
    }
}

/// A way to a state: to its owner's socket where another process owns it, and the owner itself where none does. Clones are
/// the same way: requests of one wait for none of another, and when the last is gone, or one was closed, so is the owner.
#[derive(Clone)]
pub struct Link(Arc<Handle>);

struct Handle {
    hold: Arc<Hold>,
    keeper: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hold.closing.send_replace(true);
    }
}

/// What this process has of a state. Whoever needs the owner to stay holds the lock for reading.
struct Hold {
    opening: Opening,
    owner: RwLock<Option<Arc<Owner>>>,
    owns: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    /// Connections to another owner that wait for their next question.
    idle: std::sync::Mutex<Vec<UnixStream>>,
    /// How the owner was closed.
    ended: std::sync::Mutex<Result<(), Failure>>,
}

/// Where a question goes.
enum Way<'a> {
    Owner(RwLockReadGuard<'a, Option<Arc<Owner>>>),
    Client(UnixStream),
}

impl Link {
    /// Connects to the owner of the state, or becomes it.
    pub async fn open(opening: Opening) -> Result<Self, Failure> {
        let hold = Arc::new(Hold {
            opening,
            owner: RwLock::new(None),
            owns: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            idle: std::sync::Mutex::default(),
            ended: std::sync::Mutex::new(Ok(())),
        });
        if let Way::Client(stream) = hold.way().await? {
            hold.put_back(stream);
        }
        let keeper = tokio::spawn(Arc::clone(&hold).keep());
        Ok(Self(Arc::new(Handle { hold, keeper: std::sync::Mutex::new(Some(keeper)) })))
    }

    /// Whether this process owns the state: what is queued then leaves only while it runs.
    pub fn is_owner(&self) -> bool {
        *self.0.hold.owns.borrow()
    }

    /// Asks. Where the owner changes meanwhile, the question is put to the new one under the same number: what was done
    /// is not done again. To drop this takes the question back.
    pub async fn request(&self, request: Request) -> Result<Response, Failure> {
        let (hold, asked) = (Arc::clone(&self.0.hold), Asked::new(request)?);
        apart(Box::pin(async move { hold.ask(asked).await })).await
    }
    /// Ends this process's hold; an owner closes in order.
    pub async fn close(self) {
        if let Err(error) = self.finish().await {
            warn!(%error, "what was asked for may not be on the disk");
        }
    }

    /// The same, and says how it ended.
    ///
    /// # Errors
    /// This process owned the state, and what was asked for may not be on the disk.
    pub async fn finish(self) -> Result<(), Failure> {
        self.0.hold.closing.send_replace(true);
        let keeper = lock(&self.0.keeper).take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
        lock(&self.0.hold.ended).clone()
    }
}

/// Does something as a task, which ends with whoever waits for it. It goes on where that one does not poll for a while, as
/// those do who follow several things: it may hold what others wait for.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Ok(answer)) => answer,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        _ => Err(closed()),
    }
}

impl Hold {
    async fn ask(&self, asked: Asked) -> Result<Response, Failure> {
        // Patience counts from the first try that failed: an owner may have been asked for hours when it goes.
        let mut failing = None;
        loop {
            match self.way().await? {
                Way::Owner(owner) => {
                    let Some(owner) = owner.as_ref() else { continue };
                    if !may_be_cut_short(&asked.request) {
                        return dispatch::dispatch(owner, asked).await;
                    }
                    tokio::select! {
                        answer = dispatch::dispatch(owner, asked.clone()) => return answer,
                        () = owner.asked_to_yield() => {}
                        () = self.closes() => return Err(closed()),
                    }
                }
                Way::Client(mut stream) => {
                    let put = Instant::now();
                    let answer = tokio::select! {
                        answer = ask(&mut stream, &asked) => answer,
                        () = self.closes() => return Err(closed()),
                    };
                    match answer {
                        Ok(answer) => {
                            self.put_back(stream);
                            return match answer {
                                Answer::Ok(response) => Ok(*response),
                                Answer::Err(failure) => Err(failure),
                            };
                        }
                        Err(error) => {
                            lock(&self.idle).clear();
                            let worked_on_it = put.elapsed() > PATIENCE;
                            let since = failing.filter(|_| !worked_on_it).unwrap_or_else(Instant::now);
                            failing = Some(since);
                            if since.elapsed() > PATIENCE {
                                return Err(unreachable(&self.opening.state, &error));
                            }
                            debug!(%error, "the owner of the state went away; looking for the next");
                            pause().await;
                            continue;
                        }
                    }
                }
            }
            // The keeper gives it to whoever asked.
            let _ = self.owns.subscribe().wait_for(|&owns| !owns).await;
        }
    }

    async fn way(&self) -> Result<Way<'_>, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let owner = self.owner.read().await;
            if owner.is_some() {
                return Ok(Way::Owner(owner));
            }
            drop(owner);
            let idle = lock(&self.idle).pop();
            if let Some(stream) = idle {
                return Ok(Way::Client(stream));
            }
            match self.take().await {
                Ok(()) => continue,
                Err(failure) if failure.kind != FailureKind::Busy => return Err(failure),
                Err(_) => {}
            }
            match connect(&StateDir::find(&self.opening.state)?) {
                Ok(stream) => return Ok(Way::Client(stream)),
                Err(error) if Instant::now() > until => return Err(unreachable(&self.opening.state, &error)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Failure::new(FailureKind::Refused, error.to_string()));
                }
                Err(_) => pause().await,
            }
        }
    }

    /// Becomes the owner.
    async fn take(&self) -> Result<(), Failure> {
        let mut owner = self.owner.write().await;
        if *self.closing.borrow() {
            return Err(closed());
        }
        if owner.is_none() {
            *owner = Some(self.opening.owner(self.opening.kind)?);
            self.owns.send_replace(true);
        }
        Ok(())
    }

    /// Gives the state to a mount that asks for it, and where a program is to have it for long, takes it again when its
    /// owner has gone; until this is closed.
    async fn keep(self: Arc<Self>) {
        let goes_on = async {
            loop {
                self.owned().await;
                let owner = self.owner.read().await.clone();
                if let Some(owner) = owner {
                    owner.asked_to_yield().await;
                    self.give_up().await;
                }
            }
        };
        tokio::select! {
            () = goes_on => {}
            () = self.closes() => {}
        }
        lock(&self.idle).clear();
        let owner = self.owner.write().await.take();
        if let Some(owner) = owner {
            owner.close().await;
            *lock(&self.ended) = owner.check();
            self.owns.send_replace(false);
        }
    }

    /// Resolves once this process owns the state.
    async fn owned(&self) {
        if self.opening.kind != OwnerKind::Program {
            let _ = self.owns.subscribe().wait_for(|&owns| owns).await;
            return;
        }
        while let Err(failure) = self.take().await {
            debug!(%failure, "another process owns the state");
            match StateDir::find(&self.opening.state).map_err(io::Error::other).and_then(|state| connect(&state)) {
                // Nothing comes before it goes.
                Ok(owner) => drop(owner.readable().await),
                Err(_) => sleep(AGAIN).await,
            }
            pause().await;
        }
    }

    /// Whoever has no owner meanwhile waits: the mount that asked takes the lock next.
    async fn give_up(&self) {
        let mut held = self.owner.write().await;
        if let Some(owner) = held.take() {
            // It is closed whole, whoever ends meanwhile.
            let closing = tokio::spawn(async move { owner.close().await });
            let _ = closing.await;
            self.owns.send_replace(false);
        }
        pause().await;
    }

    async fn closes(&self) {
        let _ = self.closing.subscribe().wait_for(|&closing| closing).await;
    }

    fn put_back(&self, stream: UnixStream) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE && !*self.closing.borrow() {
            idle.push(stream);
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn closed() -> Failure {
    Failure::new(FailureKind::Interrupted, "the state was closed here meanwhile")
}

/// Asks the owner of a state where one is running, and never becomes it: for looks beside a longer request.
pub async fn look(state: &Path, request: &Request) -> Option<Response> {
    let mut stream = connect(&StateDir::find(state).ok()?).ok()?;
    match ask(&mut stream, &Asked::new(request.clone()).ok()?).await {
        Ok(Answer::Ok(response)) => Some(*response),
        _ => None,
    }
}

/// Whether a process owns the state and answers for it.
pub fn is_owned(state: &Path) -> bool {
    StateDir::find(state).is_ok_and(|dir| connect_blocking(&dir).is_ok())
}

/// Takes a state for a mount: a verb that owns it is asked to yield and becomes the mount's client.
pub async fn take_for_mount(opening: &Opening) -> Result<Arc<Owner>, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match opening.owner(OwnerKind::Mount) {
            Ok(owner) => return Ok(owner),
            Err(failure) if failure.kind == FailureKind::Busy && Instant::now() < until => {
                if let Ok(mut stream) = connect(&StateDir::find(&opening.state)?)
                    && let Ok(Answer::Err(refusal)) = ask(&mut stream, &Asked::new(Request::Yield)?).await
                {
                    return Err(refusal);
                }
                pause().await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether the question may be dropped and asked again: it changes nothing until it is answered, or goes on where it was.
fn may_be_cut_short(request: &Request) -> bool {
    matches!(
        request,
        Request::Wait { .. }
            | Request::Read { .. }
            | Request::Watch { .. }
            | Request::Adopt { .. }
            | Request::Search { .. }
            | Request::Record { .. }
            | Request::Records { .. }
            | Request::WaitContact { .. }
            | Request::KeepRun { .. }
            | Request::Accept { .. }
            | Request::Verify { .. }
    )
}

/// Reaches the owner of a state of ours. Nothing is sent to a process of somebody else: capabilities would be.
fn connect(state: &PrivateDir) -> io::Result<UnixStream> {
    let stream = connect_blocking(state)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let (peer, us) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if peer == us || peer == 0 {
        return Ok(stream);
    }
    let text = format!(
        "the control socket of {:?} is served by user {peer}, and this process runs as user {us}: nothing is sent to it",
        state.path()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn connect_blocking(state: &PrivateDir) -> io::Result<std::os::unix::net::UnixStream> {
    std::os::unix::net::UnixStream::connect(state.through_descriptor().join(StateDir::control_socket()))
}

async fn ask(stream: &mut UnixStream, asked: &Asked) -> io::Result<Answer> {
    // Both may hold a capability.
    let bytes = Zeroizing::new(frame::encode(asked).map_err(io::Error::other)?);
    stream.write_all(&bytes).await?;
    let body = frame::read_body(stream).await.map_err(io::Error::other)?;
    let body = body.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"))?;
    frame::decode(&Zeroizing::new(body)).map_err(io::Error::other)
}

fn unreachable(state: &Path, error: &io::Error) -> Failure {
    let busy = StateError::Busy { path: state.to_owned(), pid: None };
    Failure::new(FailureKind::Busy, format!("{busy}; it does not answer at its control socket: {error}"))
        .hint("if a mount of an older version is running, end it with `pigeonfs umount`")
}
