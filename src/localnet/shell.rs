//! The shell around the core: sockets, connections, the clock, and the thread that owns the core and its disk.
//!
//! Events that wait are handled together and committed in one transaction; only then do their replies leave, so that
//! what a client was told is on the disk.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::core::{Conn, Core, Event, Pace, Reply};
use super::disk::Disk;
use super::document::{self, COURIER_QUEUE};
use super::replica::{mixnet_epoch, replica_epoch};
use super::wire::{self, Meaning, Network};
use crate::thin::frame;
use crate::thin::message::{
    CancelReply, ConnectionStatusEvent, ID_BYTES, NewPkiDocumentEvent, Octets, ResponseFrame, SessionTokenReply,
    ShutdownEvent, StartResendingReply,
};
use crate::thin::{Address, Config};

/// M of the public network and of upstream's test network.
const DEFAULT_MAX_PLAINTEXT: usize = 1549;
/// Events that wait for the core; a connection with more waits for room.
const EVENTS: usize = 1024;
/// Most events of one transaction.
const GROUP: usize = 256;
/// Replies that wait for one client; a client that lets more wait is cut off.
const REPLIES: usize = 2048;
/// How long a client may take to take one frame.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
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

/// Why a localnet could not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalnetError {
    /// Another process runs it.
    #[error("the network in {} is running already: use it by {}/thinclient.toml, or give --state another path", path.display(), path.display())]
    Busy {
        /// Its directory.
        path: PathBuf,
    },
    /// Its directory cannot be used.
    #[error("the directory {} cannot be used: {error}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its database cannot be used.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A newer version made it.
    #[error("the network in {} has schema {found}, and this version knows schemas up to {known}: use the newer pigeonfs that made it", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// An address that others than this machine reach.
    #[error("{address} is not a loopback address: a localnet gives no anonymity and listens on this machine only")]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// A socket's path that no address holds.
    #[error("the path of the socket {} is longer than {SOCKET_PATH} bytes: use a shorter --state", path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
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
        disk.expire(replica_epoch(wall_clock())).map_err(damaged)?;

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
        let core = Core::new(disk, max_plaintext, Pace::default(), SESSION_GRACE);
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

fn lock(path: &Path) -> Result<File, LocalnetError> {
    let told = |error| LocalnetError::State { path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(told)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
        .map_err(told)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LocalnetError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
}

/// Written whole or not at all: a client that looks at any moment finds a configuration.
fn write_config(path: &Path, address: &Address) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(Config::new(address.clone()).to_toml().as_bytes())?;
    std::fs::rename(&new, path)
}

async fn listen(
    address: &Address,
    shared: &Arc<Shared>,
    conns: &Arc<std::sync::atomic::AtomicU64>,
    acceptors: &mut JoinSet<()>,
) -> Result<Address, LocalnetError> {
    let told = |error| LocalnetError::Listen { address: address.to_string(), error };
    let (shared, conns) = (Arc::clone(shared), Arc::clone(conns));
    match address {
        Address::Tcp { host_port, network } => {
            let found = tokio::net::lookup_host(host_port).await.map_err(told)?.next();
            let at = found.ok_or_else(|| told(io::Error::new(io::ErrorKind::NotFound, "no such host")))?;
            if !at.ip().is_loopback() {
                return Err(LocalnetError::NotLoopback { address: address.to_string() });
            }
            let listener = TcpListener::bind(at).await.map_err(told)?;
            let bound = listener.local_addr().map_err(told)?;
            acceptors.spawn(accept(shared, conns, async move || {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }));
            Ok(Address::Tcp { host_port: bound.to_string(), network: *network })
        }
        Address::Unix(path) => {
            if path.as_os_str().len() > SOCKET_PATH {
                return Err(LocalnetError::PathTooLong { path: path.clone() });
            }
            // What nobody answers at is the leftover of a process that is gone.
            if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
                std::fs::remove_file(path).map_err(told)?;
            }
            let listener = UnixListener::bind(path).map_err(told)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(told)?;
            acceptors.spawn(accept(shared, conns, async move || Ok(listener.accept().await?.0)));
            Ok(address.clone())
        }
        Address::Abstract(name) => {
            let at = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(told)?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&at).map_err(told)?;
            listener.set_nonblocking(true).map_err(told)?;
            let listener = UnixListener::from_std(listener).map_err(told)?;
            acceptors.spawn(accept(shared, conns, async move || Ok(listener.accept().await?.0)));
            Ok(address.clone())
        }
    }
}

/// Takes connections until the network stops; they end with it.
async fn accept<S>(shared: Arc<Shared>, conns: Arc<std::sync::atomic::AtomicU64>, next: impl AsyncFn() -> io::Result<S>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = next() => match accepted {
                Ok(stream) => {
                    let conn = conns.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    connections.spawn(serve(Arc::clone(&shared), conn, stream));
                }
                Err(error) => {
                    warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One client, from its handshake to its end.
async fn serve<S: AsyncRead + AsyncWrite>(shared: Arc<Shared>, conn: Conn, stream: S) {
    let (mut read, write) = tokio::io::split(stream);
    let (from_core, mut replies) = mpsc::channel::<Reply>(REPLIES);
    let (answers, mut local) = mpsc::channel::<ResponseFrame>(64);
    if shared.events.send((Event::Connected(conn), Some(from_core))).await.is_err() {
        return;
    }
    for greeting in greetings(&shared) {
        let _ = answers.send(greeting).await;
    }
    let reading = async {
        loop {
            let body = match frame::read_body(&mut read).await {
                Ok(Some(body)) => body,
                Ok(None) => return Event::Disconnected(conn),
                Err(error) => {
                    debug!(conn, %error, "a client is hung up on");
                    return Event::Disconnected(conn);
                }
            };
            // A null is no request; the daemon must not be brought down by one.
            let request = match frame::decode(&body) {
                Ok(request) => request,
                Err(error) => {
                    debug!(conn, %error, "a client is hung up on");
                    return Event::Disconnected(conn);
                }
            };
            match wire::understand(&shared.network, wall_clock(), request) {
                Meaning::Answer(answer) => {
                    if answers.send(*answer).await.is_err() {
                        return Event::Disconnected(conn);
                    }
                }
                Meaning::Ask(ask) => {
                    if shared.events.send((Event::Ask(conn, ask), None)).await.is_err() {
                        return Event::Disconnected(conn);
                    }
                }
                Meaning::Close => return Event::Closed(conn),
                Meaning::Nothing => {}
                Meaning::Hangup(what) => {
                    debug!(conn, what, "a client is hung up on: wrong length");
                    return Event::Disconnected(conn);
                }
            }
        }
    };
    let writing = async {
        let mut write = write;
        let mut stop = shared.stop.clone();
        loop {
            let frame = tokio::select! {
                biased;
                Some(answer) = local.recv() => answer,
                reply = replies.recv() => match reply {
                    Some(reply) => response(&shared.network, reply),
                    // The core has cut this client off.
                    None => return,
                },
                () = stopped(&mut stop) => {
                    if let Ok(bytes) = frame::encode(&ResponseFrame::from(ShutdownEvent {})) {
                        let _ = timeout(Duration::from_secs(1), write.write_all(&bytes)).await;
                    }
                    return;
                }
            };
            let Ok(bytes) = frame::encode(&frame) else { return };
            match timeout(WRITE_DEADLINE, write.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    };
    let end = tokio::select! {
        end = reading => end,
        () = writing => Event::Disconnected(conn),
    };
    let _ = shared.events.send((end, None)).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop the network is gone, which is the same.
    let _ = stop.wait_for(|&stop| stop).await;
}

fn greetings(shared: &Shared) -> [ResponseFrame; 2] {
    let wall = wall_clock();
    let network = &shared.network;
    let document = document::pki_document(&network.identity, mixnet_epoch(wall), replica_epoch(wall));
    let status = ConnectionStatusEvent {
        is_connected: true,
        err: None,
        instance_token: Some(Octets::from(shared.instance_token)),
        sphinx_geometry: Some(document::sphinx_geometry(network.max_plaintext)),
        pigeonhole_geometry: Some(document::pigeonhole_geometry(network.max_plaintext)),
    };
    [status.into(), NewPkiDocumentEvent { payload: Some(document.into()) }.into()]
}

fn response(network: &Network, reply: Reply) -> ResponseFrame {
    let ended = |query_id: [u8; ID_BYTES], error_code, plaintext: Option<Vec<u8>>| StartResendingReply {
        query_id: Some(Octets::from(query_id)),
        plaintext: plaintext.map(Octets),
        error_code,
        courier_identity_hash: Some(Octets::from(network.identity.courier_hash())),
        courier_queue_id: Some(Octets::from(COURIER_QUEUE)),
    };
    match reply {
        Reply::Token { app_id, resumed } => SessionTokenReply { app_id: Some(Octets::from(app_id)), resumed }.into(),
        Reply::Ended { query_id, code } => ended(query_id, code, None).into(),
        Reply::Box { query_id, read, sealed } => {
            let (code, plaintext) = read.open(&sealed);
            ended(query_id, code, plaintext).into()
        }
        Reply::Cancelled { query_id } => ResponseFrame {
            cancel_resending_encrypted_message_reply: Some(CancelReply {
                query_id: Some(Octets::from(query_id)),
                error_code: 0,
            }),
            ..ResponseFrame::default()
        },
    }
}

/// The core's thread: groups of events, one transaction each, then their replies.
async fn run_core(mut core: Core<Disk>, mut inbox: mpsc::Receiver<(Event, Option<mpsc::Sender<Reply>>)>) {
    let mut clients: HashMap<Conn, mpsc::Sender<Reply>> = HashMap::new();
    let mut epoch = replica_epoch(wall_clock());
    loop {
        let mut group = Vec::new();
        let now = wall_clock();
        let until = core.next_deadline().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        match timeout(until, inbox.recv_many(&mut group, GROUP)).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => group.push((Event::Tick, None)),
        }
        let wall = wall_clock();
        if replica_epoch(wall) != epoch {
            epoch = replica_epoch(wall);
            match core.store().expire(epoch) {
                Ok(boxes) => info!(epoch, boxes, "a replica epoch began; boxes have expired"),
                Err(error) => error!(%error, "expired boxes could not be deleted"),
            }
        }
        if let Err(error) = core.store().begin() {
            // Whoever asked waits for an answer that cannot be given; a client asks again on its next connection.
            error!(%error, "the network's database cannot be written; clients are cut off");
            clients.clear();
            continue;
        }
        let mut told = Vec::new();
        let mut ended = Vec::new();
        for (event, client) in group {
            match (&event, client) {
                (Event::Connected(conn), Some(client)) => drop(clients.insert(*conn, client)),
                (Event::Disconnected(conn) | Event::Closed(conn), _) => ended.push(*conn),
                _ => {}
            }
            told.extend(core.handle(wall, event));
        }
        if let Err(error) = core.store().commit() {
            error!(%error, "boxes could not be kept; clients are cut off and nothing was confirmed to them");
            clients.clear();
            continue;
        }
        for (conn, reply) in told {
            if let Some(client) = clients.get(&conn)
                && client.try_send(reply).is_err()
            {
                debug!(conn, "a client does not take its replies and is cut off");
                clients.remove(&conn);
            }
        }
        for conn in ended {
            clients.remove(&conn);
        }
    }
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
