//! A WebSocket as a stream of bytes: binary messages one after another, their borders without meaning
//! (`thin-client-protocol.md` §1.1). It serves the client and localnet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "localnet")]
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::frame::MAX_BODY_BYTES;

/// Most bytes that one message of ours carries: common libraries refuse messages of over 32 KiB unless told otherwise.
const MESSAGE: usize = 16 * 1024;

/// The bytes that a WebSocket carries. Text is an error; pings are answered on the way.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    messages: WebSocketStream<S>,
    /// What is left of the message that is being read.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks the other end of `stream` for an upgrade.
    pub(crate) async fn connect(url: &str, stream: S) -> io::Result<Self> {
        let (messages, _) = client_async_with_config(url, stream, Some(limits())).await.map_err(told)?;
        Ok(Self { messages, rest: Bytes::new() })
    }

    /// Waits for the other end to ask for an upgrade, and grants it.
    #[cfg(feature = "localnet")]
    pub(crate) async fn accept(stream: S) -> io::Result<Self> {
        let messages = accept_async_with_config(stream, Some(limits())).await.map_err(told)?;
        Ok(Self { messages, rest: Bytes::new() })
    }
}

/// A message may hold a whole frame, and what is written waits for no more than one.
fn limits() -> WebSocketConfig {
    let whole = MAX_BODY_BYTES + size_of::<u32>();
    WebSocketConfig::default()
        .max_message_size(Some(whole))
        .max_frame_size(Some(whole))
        .write_buffer_size(MESSAGE)
        .max_write_buffer_size(4 * MESSAGE)
}

fn told(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An empty message is no end.
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => this.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "text where bytes belong")));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(told(error))),
            }
        }
        into.put_slice(&this.rest.split_to(this.rest.len().min(into.remaining())));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut messages = Pin::new(&mut self.get_mut().messages);
        ready!(messages.as_mut().poll_ready(context)).map_err(told)?;
        let taken = &bytes[..bytes.len().min(MESSAGE)];
        if !taken.is_empty() {
            messages.start_send(Message::Binary(Bytes::copy_from_slice(taken))).map_err(told)?;
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().messages).poll_flush(context).map_err(told)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().messages).poll_close(context).map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::SinkExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// A client's end as bytes, and the daemon's end as messages.
    async fn pair() -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (near, far) = duplex(1024);
        let (client, daemon) = tokio::join!(WebSocket::connect("ws://daemon/", near), WebSocket::accept(far));
        (client.expect("upgraded"), daemon.expect("granted").messages)
    }

    #[tokio::test]
    async fn the_borders_of_messages_pings_and_empty_messages_are_no_bytes() {
        let (mut client, mut daemon) = pair().await;
        let sent = async {
            for message in [
                Message::binary(b"pig".to_vec()),
                Message::binary(Vec::new()),
                Message::Ping(Bytes::from_static(b"still there?")),
                Message::binary(b"eon".to_vec()),
            ] {
                daemon.send(message).await.expect("sent");
            }
            daemon.close(None).await.expect("closed");
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(client.read_to_end(&mut got), sent);
        assert_eq!((read.expect("a clean end"), &got[..]), (6, &b"pigeon"[..]));
    }

    #[tokio::test]
    async fn text_is_an_error_and_so_is_a_connection_that_breaks() {
        let (mut client, mut daemon) = pair().await;
        daemon.send(Message::text("hello")).await.expect("sent");
        let error = client.read_u8().await.expect_err("no byte");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (mut client, daemon) = pair().await;
        drop(daemon);
        client.read_u8().await.expect_err("no byte");
        let broken = async {
            client.write_all(b"x").await?;
            client.flush().await
        };
        broken.await.expect_err("nobody takes it");
    }

    #[tokio::test]
    async fn a_long_write_travels_in_messages_that_other_libraries_take() {
        let (mut client, daemon) = pair().await;
        let mut daemon = WebSocket { messages: daemon, rest: Bytes::new() };
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let write = async {
            client.write_all(&bytes).await.expect("written");
            client.shutdown().await.expect("closed");
        };
        let read = async {
            let mut lengths = Vec::new();
            let mut got = Vec::new();
            while let Some(Ok(Message::Binary(message))) =
                std::future::poll_fn(|context| Pin::new(&mut daemon.messages).poll_next(context)).await
            {
                lengths.push(message.len());
                got.extend_from_slice(&message);
            }
            (lengths, got)
        };
        let ((), (lengths, got)) = tokio::join!(write, read);
        assert_eq!(got, bytes);
        assert!(lengths.iter().all(|&length| length <= MESSAGE), "{lengths:?}");
    }
}
