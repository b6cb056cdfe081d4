//! Where clients connect: TCP, Unix and abstract sockets, and the tasks that take what comes.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::serve::{serve, stopped};
use super::{Front, LocalnetError};
use crate::thin::Address;

/// The longest path that a socket address holds.
pub(super) const SOCKET_PATH: usize = 107;
/// Clients of one address; further ones wait in the socket's backlog.
const CLIENTS: usize = 1024;
/// How long clients have to take their last words.
const PARTING: Duration = Duration::from_secs(2);

/// Listens at an address; where that turned out to be. `everywhere` allows addresses that other machines reach.
pub(super) async fn listen(
    address: &Address,
    everywhere: bool,
    front: &Arc<Front>,
    acceptors: &mut JoinSet<()>,
) -> Result<Address, LocalnetError> {
    let told = |error| LocalnetError::Listen { address: address.to_string(), error };
    let front = Arc::clone(front);
    match address {
        Address::Tcp { host_port, network } => {
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
            acceptors.spawn(accept(front, async move || {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }));
            Ok(Address::Tcp { host_port: bound.to_string(), network: *network })
        }
        Address::Unix(path) => {
            let listener = bind(path)?;
            acceptors.spawn(accept(front, async move || Ok(listener.accept().await?.0)));
            Ok(address.clone())
        }
        Address::Abstract(name) => {
            let at = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(told)?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&at).map_err(told)?;
            listener.set_nonblocking(true).map_err(told)?;
            let listener = UnixListener::from_std(listener).map_err(told)?;
            acceptors.spawn(accept(front, async move || Ok(listener.accept().await?.0)));
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
    // A socket that nobody answers at is the leftover of a process that is gone. Nothing else is taken away.
    let socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(told)?;
    }
    let listener = UnixListener::bind(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(told)?;
    Ok(listener)
}

/// Takes connections until the network stops, and ends when they have.
async fn accept<S>(front: Arc<Front>, next: impl AsyncFn() -> io::Result<S>)
where
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
                Ok(stream) => drop(connections.spawn(serve(Arc::clone(&front), stream))),
                Err(error) => {
                    warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let _ = timeout(PARTING, async { while connections.join_next().await.is_some() {} }).await;
}
