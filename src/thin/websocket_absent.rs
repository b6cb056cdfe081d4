//! Stands for WebSockets in a build without the feature `websocket`: no connection is made, and the error says why.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A WebSocket, which cannot exist in this build.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    never: Infallible,
    stream: PhantomData<S>,
}

impl<S> WebSocket<S> {
    pub(crate) async fn connect(_: &str, _: S) -> io::Result<Self> {
        Err(unsupported())
    }

    #[cfg(feature = "localnet")]
    pub(crate) async fn accept(_: S) -> io::Result<Self> {
        Err(unsupported())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this build has no WebSockets: enable the feature `websocket`")
}

impl<S> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.never {}
    }
}

impl<S> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.never {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.never {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.never {}
    }
}
