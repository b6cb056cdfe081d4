//! Where clients connect: TCP, Unix and abstract sockets, and the tasks that take what comes.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tracing::warn;

use super::serve::serve;
use super::{LocalnetError, SOCKET_PATH, Shared};
use crate::thin::Address;

pub(super) async fn listen(
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
