//! A session: the thread that runs it, and the object that Python holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ciborium::Value;
use pigeonfs::thin::message::{ID_BYTES, RequestFrame, SendMessage};
use pigeonfs::thin::{
    Address, Client, ClientOptions, Config, Destination, Error, ErrorKind, Inbound, Operation, TcpNetwork, Trust,
};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::convert::{to_cbor, to_python};
use crate::outcomes::{Outcome, Outcomes};

/// Frames on their way from the client to the queue.
const INBOUND: usize = 16;
/// A deadline for what has none: thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
/// How long a thread that was made for one look-up lives on.
const IDLE_THREADS: Duration = Duration::from_millis(100);

enum Command {
    Put { id: u64, request: Box<RequestFrame>, timeout: Option<Duration> },
    Cancel(u64),
    Close,
    Leave,
}

/// One session with a daemon, on a thread of its own. Dropping it closes it.
#[pyclass(frozen, module = "pigeonfs._native")]
pub(crate) struct Session {
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    outcomes: Arc<Outcomes>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Session {
    /// Starts a session with the daemon at `address` (HOST:PORT, with `network` one of tcp, tcp4, tcp6; or a path or
    /// @NAME, without). With `replies` the frames that answer requests are told as frames too.
    #[new]
    #[pyo3(signature = (address, network, token, *, replies, daemon_user, allow_remote))]
    fn new(
        address: &str,
        network: Option<&str>,
        token: [u8; ID_BYTES],
        replies: bool,
        daemon_user: Option<u32>,
        allow_remote: bool,
    ) -> PyResult<Self> {
        let dial = match network {
            None => match address.strip_prefix('@') {
                Some(name) => Address::Abstract(name.to_owned()),
                None => Address::Unix(address.into()),
            },
            Some(network) => Address::Tcp {
                host_port: address.to_owned(),
                network: match network {
                    "tcp" => TcpNetwork::Any,
                    "tcp4" => TcpNetwork::V4,
                    "tcp6" => TcpNetwork::V6,
                    _ => return Err(PyValueError::new_err(format!("{network:?} is none of tcp, tcp4, tcp6"))),
                },
            },
        };
        let config = Config::new(dial).trusting(Trust { user: daemon_user, remote: allow_remote });
        let outcomes = Arc::new(Outcomes::new().map_err(|error| PyOSError::new_err(error.to_string()))?);
        let (commands, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_keep_alive(IDLE_THREADS)
            .build()
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let queue = Arc::clone(&outcomes);
        let thread = std::thread::Builder::new()
            .name("pigeonfs".to_owned())
            .spawn(move || {
                runtime.block_on(run(config, token, replies, inbox, &queue));
                // A look-up of a name may still hang, and is left alone.
                runtime.shutdown_background();
                queue.push(Outcome::Closed);
            })
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { commands: Mutex::new(Some(commands)), outcomes, thread: Mutex::new(Some(thread)) })
    }

    /// The descriptor that is readable while [`Self::drain`] has something to give.
    fn fileno(&self) -> i32 {
        self.outcomes.descriptor()
    }

    /// Puts a request `{kind: body}`; its end comes as `("answer", id, …)` or `("error", id, …)`.
    #[pyo3(signature = (id, request, timeout))]
    fn put(&self, id: u64, request: &Bound<'_, PyDict>, timeout: Option<f64>) -> PyResult<()> {
        let request = to_cbor(request)?;
        let request = request.deserialized().map_err(|error| PyValueError::new_err(format!("no request: {error}")))?;
        // Infinity is no deadline.
        let timeout = timeout.filter(|seconds| seconds.is_finite());
        let timeout = timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(FAR).min(FAR));
        self.command(Command::Put { id, request: Box::new(request), timeout })
    }

    /// Ends the request of this id, here and at the daemon. It has no end that is told.
    fn cancel(&self, id: u64) {
        // A closed session has nothing to cancel.
        let _ = self.command(Command::Cancel(id));
    }

    /// What happened since the last call, in order: a list of tuples that begin with `"answer"`, `"error"`, `"frame"`,
    /// `"ended"` or `"closed"`.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for outcome in self.outcomes.take() {
            match outcome {
                Outcome::Answered { id, answer } => match *answer {
                    Ok(None) => list.append(("answer", id, py.None()))?,
                    Ok(Some(frame)) => list.append(("answer", id, body(py, &frame)?))?,
                    Err(error) => list.append(("error", id, kind(&error.kind), error.to_string()))?,
                },
                Outcome::Frame(bytes) => {
                    // What the client could read can be read here.
                    let value = pigeonfs::thin::frame::decode(&bytes);
                    let value = value.map_err(|error| PyValueError::new_err(error.to_string()))?;
                    list.append(("frame", to_python(py, value)?))?;
                }
                Outcome::Ended(error) => list.append(("ended", error))?,
                Outcome::Closed => {
                    py.detach(|| self.join());
                    list.append(("closed",))?;
                }
            }
        }
        Ok(list)
    }

    /// Ends the session and its thread; the daemon keeps it if `leave`, and else forgets it. Waits for that as many
    /// seconds at most, and tells whether it is done; it goes on in any case.
    fn close(&self, py: Python<'_>, leave: bool, patience: f64) -> bool {
        let _ = self.command(if leave { Command::Leave } else { Command::Close });
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let patience = Duration::try_from_secs_f64(patience.max(0.0)).unwrap_or_default();
        py.detach(|| {
            let closed = self.outcomes.wait_closed(patience);
            if closed {
                self.join();
            }
            closed
        })
    }
}

impl Session {
    /// Waits for the end of a thread that has said its last.
    fn join(&self) {
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // If it panicked, that was printed.
            let _ = thread.join();
        }
    }

    fn command(&self, command: Command) -> PyResult<()> {
        let closed = || PyRuntimeError::new_err("the session is closed");
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.as_ref().ok_or_else(closed)?.send(command).map_err(|_| closed())
    }
}

/// The thread of a session, until it is closed.
async fn run(
    config: Config,
    token: [u8; ID_BYTES],
    replies: bool,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    outcomes: &Arc<Outcomes>,
) {
    let (sender, mut inbound) = mpsc::channel(INBOUND);
    let client =
        Client::start(config, ClientOptions { token: Some(token), inbound: Some(sender), ..ClientOptions::default() });
    let mut tasks = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    let leave = loop {
        tokio::select! {
            biased;
            command = inbox.recv() => match command {
                Some(Command::Put { id, request, timeout }) => {
                    let (client, outcomes) = (client.clone(), Arc::clone(outcomes));
                    let deadline = Instant::now() + timeout.unwrap_or(FAR);
                    let task = tasks.spawn(async move {
                        let answer = Box::new(put(&client, *request, deadline).await);
                        outcomes.push(Outcome::Answered { id, answer });
                        id
                    });
                    running.insert(id, task);
                }
                Some(Command::Cancel(id)) => if let Some(task) = running.remove(&id) {
                    task.abort();
                },
                Some(Command::Leave) => break true,
                Some(Command::Close) | None => break false,
            },
            Some(ended) = tasks.join_next() => if let Ok(id) = ended {
                running.remove(&id);
            },
            Some(came) = inbound.recv() => match came {
                Inbound::Frame { is_reply: true, .. } if !replies => {}
                Inbound::Frame { body, .. } => outcomes.push_frame(body).await,
                Inbound::Ended { error } => outcomes.push(Outcome::Ended(error)),
            },
        }
    };
    // The client waits for nobody who looks at frames.
    drop(inbound);
    if leave {
        client.leave().await;
    } else {
        client.close().await;
    }
    // Each has its answer by now: the client is closed.
    while tasks.join_next().await.is_some() {}
}

async fn put(
    client: &Client,
    request: RequestFrame,
    deadline: Instant,
) -> Result<Option<pigeonfs::thin::message::ResponseFrame>, Error> {
    match request.send_message {
        Some(message) => send(client, message, deadline).await.map(|()| None),
        None => client.exchange(request, deadline).await.map(Some),
    }
}

async fn send(client: &Client, message: SendMessage, deadline: Instant) -> Result<(), Error> {
    let refused =
        |text: &str| Error { operation: Operation::SendMessage, kind: ErrorKind::InvalidArgument(text.to_owned()) };
    let identity_hash = message.destination_id_hash.unwrap_or_default().0;
    let to = Destination {
        identity_hash: identity_hash.try_into().map_err(|_| refused("a destination is a hash of 32 bytes"))?,
        queue_id: message.recipient_queue_id.unwrap_or_default().0,
    };
    let payload = message.payload.unwrap_or_default();
    if !message.with_surb {
        return client.send_message_without_reply(&to, &payload, deadline).await;
    }
    let surb_id = message.surbid.unwrap_or_default().0;
    let surb_id = surb_id.try_into().map_err(|_| refused("a SURB id has 16 bytes"))?;
    client.hand_over_message(surb_id, &to, &payload, deadline).await
}

/// The body of the reply that a frame holds.
fn body<'py>(py: Python<'py>, frame: &pigeonfs::thin::message::ResponseFrame) -> PyResult<Bound<'py, PyAny>> {
    let value = Value::serialized(frame).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let entries = value.into_map().unwrap_or_default();
    let body = entries.into_iter().map(|(_, body)| body).find(|body| !body.is_null());
    to_python(py, body.unwrap_or(Value::Null))
}

/// What kind of error Python makes of it.
fn kind(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::NoDaemon(_) | ErrorKind::NoConsensus(_) | ErrorKind::Busy | ErrorKind::Timeout => "timeout",
        ErrorKind::Lost(_) | ErrorKind::Closed => "lost",
        ErrorKind::InvalidArgument(_) => "invalid",
        ErrorKind::Cancelled => "cancelled",
        _ => "other",
    }
}
