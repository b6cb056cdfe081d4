//! A verb's end: the owner's socket where there is an owner, and the owner itself where there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Answer, Failure, FailureKind, Request, Response, dispatch};
use crate::channel::{Linger, PROBE_SHARE};
use crate::engine::{Daemon, Owner, OwnerKind};
use crate::store::{Limits, Making, PrivateDir, StateDir, StateError};
use crate::thin::frame;

/// How long a verb tries, while one owner goes and another comes.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// What a verb needs to open a state.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The state directory.
    pub state: PathBuf,
    /// Whether a state is made there where there is none.
    pub making: Making,
    /// The daemon, should the verb become the owner.
    pub daemon: Daemon,
    /// When its tails leave, should it become the owner.
    pub linger: Linger,
    /// What its store may take of the disk, should it become the owner.
    pub limits: Limits,
    /// The part of the network's pace that probes of idle channels may take together, should it become the owner.
    pub probe_share: f64,
}

impl Opening {
    /// With the default times and limits.
    pub fn new(state: PathBuf, daemon: Daemon) -> Self {
        let making = Making::IfEmpty;
        Self { state, making, daemon, linger: Linger::default(), limits: Limits::default(), probe_share: PROBE_SHARE }
    }

    fn owner(&self, kind: OwnerKind) -> Result<Arc<Owner>, Failure> {
        let (linger, limits, share) = (self.linger, self.limits, self.probe_share);
        Owner::open_paced(&self.state, self.making, self.daemon.clone(), kind, linger, limits, share)
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

    /// Asks. Where the owner changes meanwhile, the question is put to the new one, unless it was an append whose
    /// answer was lost: that one is never asked twice.
    pub async fn request(&mut self, request: Request) -> Result<Response, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match &mut self.end {
                End::None => self.end = Self::reach(&self.opening).await?,
                End::Owner(owner) => {
                    let owner = Arc::clone(owner);
                    let asked = if may_be_cut_short(&request) {
                        tokio::select! {
                            answer = dispatch::dispatch(&owner, request.clone()) => Some(answer),
                            () = owner.asked_to_yield() => None,
                        }
                    } else {
                        Some(dispatch::dispatch(&owner, request.clone()).await)
                    };
                    match asked {
                        Some(answer) => return answer,
                        None => self.give_up().await,
                    }
                }
                End::Client(stream) => match ask(stream, &request).await {
                    Ok(Answer::Ok(response)) => return Ok(*response),
                    Ok(Answer::Err(failure)) => return Err(failure),
                    Err(error) => {
                        self.end = End::None;
                        if matches!(request, Request::Append { .. }) {
                            return Err(Failure::new(
                                FailureKind::Failed,
                                format!("the owner of the state went away while it took an append: {error}"),
                            )
                            .hint("the bytes may or may not have been taken: compare the size in `pigeonfs status`"));
                        }
                        if Instant::now() > until {
                            return Err(unreachable(&self.opening.state, &error));
                        }
                        debug!(%error, "the owner of the state went away; looking for the next");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Ends the verb's hold; an owner closes in order.
    pub async fn close(self) {
        if let End::Owner(owner) = self.end {
            owner.close().await;
        }
    }

    async fn give_up(&mut self) {
        if let End::Owner(owner) = std::mem::replace(&mut self.end, End::None) {
            owner.close().await;
        }
        // The mount that asked takes the lock next; it is looked for with patience.
        sleep(PAUSE).await;
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
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// Takes a state for a mount: a verb that owns it is asked to yield and becomes the mount's client.
pub async fn take_for_mount(opening: &Opening) -> Result<Arc<Owner>, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match opening.owner(OwnerKind::Mount) {
            Ok(owner) => return Ok(owner),
            Err(failure) if failure.kind == FailureKind::Busy && Instant::now() < until => {
                if let Ok(mut stream) = connect(&StateDir::find(&opening.state)?)
                    && let Ok(Answer::Err(refusal)) = ask(&mut stream, &Request::Yield).await
                {
                    return Err(refusal);
                }
                sleep(PAUSE).await;
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
    )
}

/// Reaches the owner of a state of ours. Nothing is sent to a process of somebody else: capabilities would be.
fn connect(state: &PrivateDir) -> io::Result<UnixStream> {
    let socket = state.through_descriptor().join(StateDir::control_socket());
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
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

async fn ask(stream: &mut UnixStream, request: &Request) -> io::Result<Answer> {
    let bytes = frame::encode(request).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    let body = frame::read_body(stream).await.map_err(io::Error::other)?;
    let body = body.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"))?;
    frame::decode(&body).map_err(io::Error::other)
}

fn unreachable(state: &Path, error: &io::Error) -> Failure {
    let busy = StateError::Busy { path: state.to_owned(), pid: None };
    Failure::new(FailureKind::Busy, format!("{busy}; it does not answer at its control socket: {error}"))
        .hint("if a mount of an older version is running, end it with `pigeonfs umount`")
}
