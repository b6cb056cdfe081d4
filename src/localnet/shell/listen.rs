//! Where clients connect: TCP, Unix and abstract sockets and WebSockets, and the tasks that take what comes.

use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::serve::{serve, stopped};
use super::{Daemon, Front, LocalnetError};
use crate::thin::Address;
use crate::thin::web_host_port;
use crate::thin::websocket::WebSocket;

/// The longest path that a socket address holds.
pub(super) const SOCKET_PATH: usize = 107;
/// Clients of one address; further ones wait in the socket's backlog.
const CLIENTS: usize = 1024;
/// Connections that wait to be taken.
const BACKLOG: i32 = 128;
/// How long a client of a WebSocket has to ask for the upgrade.
const UPGRADE: Duration = Duration::from_secs(10);
/// How long clients have to take their last words.
const PARTING: Duration = Duration::from_secs(2);

/// Listens at an address; where that turned out to be. `everywhere` allows addresses that other machines reach.
pub(super) async fn listen(
    address: &Address,
    everywhere: bool,
    (front, daemon): (&Arc<Front>, Daemon),
    acceptors: &mut JoinSet<()>,
) -> Result<Address, LocalnetError> {
    let told = |error| LocalnetError::Listen { address: address.to_string(), error };
    let front = (Arc::clone(front), daemon);
    match address {
        Address::Tcp { host_port, network } => {
            let (listener, bound) = bind_tcp(host_port, everywhere, address).await?;
            acceptors.spawn(accept(front, async move || Ok(ready(Ok(accept_tcp(&listener).await?)))));
            Ok(Address::Tcp { host_port: bound.to_string(), network: *network })
        }
        Address::WebSocket(url) => {
            let host_port = web_host_port(url).ok_or_else(|| told(io::ErrorKind::InvalidInput.into()))?;
            let (listener, bound) = bind_tcp(&host_port, everywhere, address).await?;
            // A client that is slow to ask for the upgrade keeps nobody else waiting.
            acceptors.spawn(accept(front, async move || {
                let stream = accept_tcp(&listener).await?;
                Ok(async { timeout(UPGRADE, WebSocket::accept(stream)).await.map_err(io::Error::from)? })
            }));
            Ok(Address::WebSocket(format!("ws://{bound}")))
        }
        Address::Unix(path) => {
            let listener = bind(path)?;
            acceptors.spawn(accept(front, async move || Ok(ready(Ok(listener.accept().await?.0)))));
            Ok(address.clone())
        }
        Address::Abstract(name) => {
            let at = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(told)?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&at).map_err(told)?;
            listener.set_nonblocking(true).map_err(told)?;
            let listener = UnixListener::from_std(listener).map_err(told)?;
            acceptors.spawn(accept(front, async move || Ok(ready(Ok(listener.accept().await?.0)))));
            Ok(address.clone())
        }
    }
}

/// A socket in the file system that only its owner may connect to.
pub(super) fn bind(path: &Path) -> Result<UnixListener, LocalnetError> {
    if path.as_os_str().len() > SOCKET_PATH {
        return Err(LocalnetError::PathTooLong { path: path.to_owned() });
    }
    let told = |error| LocalnetError::Listen { address: path.display().to_string(), error };
    // A socket of ours that nobody answers at is the leftover of a process that is gone. Nothing else is taken away.
    let me = rustix::process::geteuid().as_raw();
    let found = path.symlink_metadata();
    let leftover = found.is_ok_and(|found| found.file_type().is_socket() && found.uid() == me);
    if leftover && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(told)?;
    }
    private_listener(path).and_then(UnixListener::from_std).map_err(told)
}

/// Listens at a path that nobody else may connect to. The file has its mode from the beginning: what stands at the path
/// later may be something else.
fn private_listener(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

async fn bind_tcp(
    host_port: &str,
    everywhere: bool,
    address: &Address,
) -> Result<(TcpListener, SocketAddr), LocalnetError> {
    let told = |error| LocalnetError::Listen { address: address.to_string(), error };
    let found = tokio::net::lookup_host(host_port).await.map_err(told)?.next();
    let at = found.ok_or_else(|| told(io::Error::new(io::ErrorKind::NotFound, "no such host")))?;
    if !at.ip().is_loopback() {
        if !everywhere {
            return Err(LocalnetError::NotLoopback { address: address.to_string() });
        }
        warn!(%at, "listening where other machines reach it: whoever can connect can use this network, unencrypted");
    }
    let listener = TcpListener::bind(at).await.map_err(told)?;
    let bound = listener.local_addr().map_err(told)?;
    Ok((listener, bound))
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes connections until the network stops, and ends when they have. What `next` accepted becomes a stream in the
/// connection's own time.
async fn accept<S, F>((front, daemon): (Arc<Front>, Daemon), next: impl AsyncFn() -> io::Result<F>)
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stop = front.stop.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = next(), if connections.len() < CLIENTS => match accepted {
                Ok(stream) => {
                    let front = Arc::clone(&front);
                    connections.spawn(async move {
                        match stream.await {
                            Ok(stream) => serve(front, daemon, stream).await,
                            Err(error) => debug!(%error, "a connection did not become a client's"),
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let _ = timeout(PARTING, async { while connections.join_next().await.is_some() {} }).await;
}
