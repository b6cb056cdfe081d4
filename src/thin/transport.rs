//! How a stream to the daemon comes about: [`Dial`], and the sockets that a daemon may listen on as one kind of stream.

use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::config::is_here;
use super::config::web_host_port;
use super::websocket::WebSocket;
use super::{Address, Config, TcpNetwork, Trust};

/// Gives a client its stream to the daemon, at the start and again after each loss. [`Config`] dials sockets; anything
/// else that carries bytes both ways in order will do: a pipe in memory, a tunnel.
///
/// A client gives up an attempt that takes too long (its future is dropped) and pauses between attempts, so an
/// implementation need do neither.
pub trait Dial: Send + Sync + 'static {
    /// What carries the frames, whole and in order. Dropping it hangs up.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Resolves when an attempt makes sense, however long that takes. By default it does at once.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// One attempt at a fresh stream.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Where the daemon is, for the status and for error texts.
    fn name(&self) -> String;
}

impl Dial for Config {
    type Stream = Socket;

    async fn dial(&self) -> io::Result<Socket> {
        Stream::connect(&self.dial, self.trust).await.map(Socket)
    }

    fn name(&self) -> String {
        self.dial.to_string()
    }
}

/// A socket that a daemon listens on.
#[derive(Debug)]
pub struct Socket(Stream);

impl Socket {
    /// The user whose process listens at the other end; `None` where the kernel does not know, as of TCP.
    pub fn peer_user(&self) -> Option<u32> {
        match &self.0 {
            Stream::Unix(stream) => Some(rustix::net::sockopt::socket_peercred(stream).ok()?.uid.as_raw()),
            Stream::Tcp(_) | Stream::WebSocket(_) => None,
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    WebSocket(Box<WebSocket<TcpStream>>),
}

impl Stream {
    async fn connect(address: &Address, trust: Trust) -> io::Result<Self> {
        match address {
            Address::Tcp { host_port, network } => connect_tcp(host_port, *network, trust).await.map(Self::Tcp),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                check_peer(&stream, trust, service_user(path))?;
                Ok(Self::Unix(stream))
            }
            Address::Abstract(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                // Connecting to a local socket does not wait, but for a backlog that is full.
                let stream = tokio::task::spawn_blocking(move || {
                    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                    stream.set_nonblocking(true)?;
                    Ok::<_, io::Error>(stream)
                });
                let stream = stream.await.map_err(io::Error::other)?.and_then(UnixStream::from_std)?;
                check_peer(&stream, trust, None)?;
                Ok(Self::Unix(stream))
            }
            Address::WebSocket(url) => {
                let told = || io::Error::new(io::ErrorKind::InvalidInput, "no ws://HOST:PORT");
                let stream = connect_tcp(&web_host_port(url).ok_or_else(told)?, TcpNetwork::Any, trust).await?;
                WebSocket::connect(url, stream).await.map(Box::new).map(Self::WebSocket)
            }
        }
    }
}

/// Asks the kernel whose process is at the other end of this very connection.
fn check_peer(stream: &UnixStream, trust: Trust, service: Option<u32>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
    let me = rustix::process::geteuid().as_raw();
    if peer == me || peer == 0 || Some(peer) == trust.user || Some(peer) == service {
        return Ok(());
    }
    let text = format!(
        "the process that listens there belongs to user {peer}, and is given nothing; if the daemon runs as that user, say \
         so with --daemon-user {peer}"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// The user of a system service: root has made the directory of its socket for it, as `RuntimeDirectory=` does, and nobody
/// else can have put the socket there.
fn service_user(socket: &Path) -> Option<u32> {
    let socket = std::path::absolute(socket).ok()?;
    let directory = socket.parent()?;
    let is_closed = |path: &Path| {
        let found = std::fs::symlink_metadata(path).ok()?;
        (found.is_dir() && found.mode() & 0o022 == 0).then_some(found.uid())
    };
    let mut above = directory.parent()?.ancestors();
    above.all(|path| is_closed(path) == Some(0)).then(|| is_closed(directory))?
}

async fn connect_tcp(host_port: &str, network: TcpNetwork, trust: Trust) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address of that family");
    for address in lookup_host(host_port).await? {
        let fits = match network {
            TcpNetwork::Any => true,
            TcpNetwork::V4 => address.is_ipv4(),
            TcpNetwork::V6 => address.is_ipv6(),
        };
        if fits && !trust.remote && !is_here(address.ip()) {
            let text = format!("{} is on another machine: --allow-remote-daemon allows it", address.ip());
            last = io::Error::new(io::ErrorKind::PermissionDenied, text);
        } else if fits {
            if !is_here(address.ip()) {
                tracing::warn!(%address, "the daemon is on another machine: whoever is on the way can read everything");
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Frames leave whole, so waiting for more only costs time.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, into),
            Stream::WebSocket(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::WebSocket(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::WebSocket(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::WebSocket(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
