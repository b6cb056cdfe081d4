//! A verb's end: the owner's socket where there is an owner, and the owner itself where there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
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

/// Pauses before the next try. Each time for another while: verbs that come and go in step, as from a script, would
/// otherwise meet whoever waits for the state at the same point of their way, each time.
async fn pause() {
    sleep(PAUSE.mul_f64(rand::random_range(0.1..=1.0))).await;
}

/// What a verb needs to open a state.
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
}

impl Opening {
    /// By what the last mount was told.
    pub fn new(state: PathBuf, daemon: Daemon) -> Self {
        let making = Making::IfEmpty;
        Self { state, making, daemon, choices: None, unlock: Unlock::default() }
    }

    fn owner(&self, kind: OwnerKind) -> Result<Arc<Owner>, Failure> {
        Owner::open_choosing(&self.state, self.making, self.daemon.clone(), kind, self.choices, &self.unlock)
    }
}

/// A verb's hold on a state.
pub struct Link {
    opening: Opening,
    end: End,
}

enum End {
    Owner(Arc<Owner>),
    Client(UnixStream),
    /// Between the two: the next request opens anew.
    None,
}

impl Link {
    /// Connects to the owner of the state, or becomes it.
    pub async fn open(opening: Opening) -> Result<Self, Failure> {
        let end = Self::reach(&opening).await?;
        Ok(Self { opening, end })
    }

    /// Whether this process owns the state for the verb's run: what is queued then leaves only while it runs.
    pub fn is_owner(&self) -> bool {
        matches!(self.end, End::Owner(_))
    }

    /// Asks. Where the owner changes meanwhile, the question is put to the new one under the same number: what was done
    /// is not done again.
    pub async fn request(&mut self, request: Request) -> Result<Response, Failure> {
        let asked = Asked::new(request)?;
        // Patience counts from the first try that failed: an owner may have been asked for hours when it goes.
        let mut failing = None;
        loop {
            match &mut self.end {
                End::None => self.end = Self::reach(&self.opening).await?,
                End::Owner(owner) => {
                    let owner = Arc::clone(owner);
                    let answered = if may_be_cut_short(&asked.request) {
                        tokio::select! {
                            answer = dispatch::dispatch(&owner, asked.clone()) => Some(answer),
                            () = owner.asked_to_yield() => None,
                        }
                    } else {
                        Some(dispatch::dispatch(&owner, asked.clone()).await)
                    };
                    match answered {
                        Some(answer) => return answer,
                        None => self.give_up().await,
                    }
                }
                End::Client(stream) => {
                    let put = Instant::now();
                    match ask(stream, &asked).await {
                        Ok(Answer::Ok(response)) => return Ok(*response),
                        Ok(Answer::Err(failure)) => return Err(failure),
                        Err(error) => {
                            self.end = End::None;
                            let worked_on_it = put.elapsed() > PATIENCE;
                            let since = failing.filter(|_| !worked_on_it).unwrap_or_else(Instant::now);
                            failing = Some(since);
                            if since.elapsed() > PATIENCE {
                                return Err(unreachable(&self.opening.state, &error));
                            }
                            debug!(%error, "the owner of the state went away; looking for the next");
                            pause().await;
                        }
                    }
                }
            }
        }
    }

    /// Waits for something that is not the state's, such as standard input. Where this process owns the state and a mount
    /// asks for it meanwhile, it gets it.
    pub async fn meanwhile<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        if let End::Owner(owner) = &self.end {
            let owner = Arc::clone(owner);
            tokio::select! {
                came = &mut wait => return came,
                () = owner.asked_to_yield() => {}
            }
            self.give_up().await;
        }
        wait.await
    }

    /// Ends the verb's hold; an owner closes in order.
    pub async fn close(self) {
        if let Err(error) = self.finish().await {
            warn!(%error, "what was asked for may not be on the disk");
        }
    }

    /// The same, and says how it ended.
    ///
    /// # Errors
    /// The verb owned the state, and what was asked for may not be on the disk.
    pub async fn finish(self) -> Result<(), Failure> {
        let End::Owner(owner) = self.end else { return Ok(()) };
        owner.close().await;
        owner.check()
    }

    async fn give_up(&mut self) {
        if let End::Owner(owner) = std::mem::replace(&mut self.end, End::None) {
            owner.close().await;
        }
        // The mount that asked takes the lock next; it is looked for with patience.
        pause().await;
    }

    async fn reach(opening: &Opening) -> Result<End, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match opening.owner(OwnerKind::Verb) {
                Ok(owner) => return Ok(End::Owner(owner)),
                Err(failure) if failure.kind != FailureKind::Busy => return Err(failure),
                Err(_) => {}
            }
            match connect(&StateDir::find(&opening.state)?) {
                Ok(stream) => return Ok(End::Client(stream)),
                Err(error) if Instant::now() > until => return Err(unreachable(&opening.state, &error)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Failure::new(FailureKind::Refused, error.to_string()));
                }
                Err(_) => pause().await,
            }
        }
    }
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
            | Request::Adopt { .. }
            | Request::Search { .. }
            | Request::Record { .. }
            | Request::Records { .. }
            | Request::WaitContact { .. }
            | Request::KeepRun { .. }
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
