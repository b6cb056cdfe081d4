//! A channel that carries bytes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ChannelStatus, Error, ErrorKind, Named, Result, State, deadline, far, misunderstood};
use crate::engine::control::{CHUNK_BYTES, Request, Response};

/// A [`Reader`] waits so long by itself to learn whether a stream goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A channel that carries bytes: appended to here, or written elsewhere and read here. See [`Named`] for what it has in common
/// with drops.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(super) named: Named,
}

impl Stream {
    pub(super) fn new(state: State, name: String) -> Self {
        Self { named: Named { state, name } }
    }

    /// Appends bytes. What is answered for is safe on this disk, and sent whatever happens. The stream's size, in bytes.
    ///
    /// # Errors
    /// It is read here, fenced, or the spool is full: then none of a piece of at most 1 MiB was taken, and all before it.
    pub async fn append(&self, bytes: impl AsRef<[u8]>) -> Result<u64> {
        let bytes = bytes.as_ref();
        let mut pieces = bytes.chunks(CHUNK_BYTES);
        let mut size = self.append_piece(pieces.next().unwrap_or_default().to_vec()).await?;
        for piece in pieces {
            size = self.append_piece(piece.to_vec()).await?;
        }
        Ok(size)
    }

    async fn append_piece(&self, bytes: Vec<u8>) -> Result<u64> {
        match self.ask(|name| Request::Append { name, bytes, making: false }).await? {
            Response::Appended { size } => Ok(size),
            _ => Err(misunderstood()),
        }
    }

    /// A writer that appends. See [`Writer`].
    pub fn writer(&self) -> Writer {
        Writer { stream: self.clone(), writing: None }
    }

    /// A reader from the first byte that is kept. See [`Reader`].
    pub fn reader(&self) -> Reader {
        let (offset, follow, patience) = (None, false, Some(PATIENCE));
        Reader { stream: self.clone(), offset, follow, patience, piece: Piece::default(), reading: None }
    }

    /// Bytes from an offset on, at most 1 MiB of them; none at the end of what is known to be there. Where it is not known
    /// whether that is the end, it is waited for.
    ///
    /// # Errors
    /// The time is up; or boxes are lost there, or the bytes were dropped from this disk.
    pub async fn read_at(&self, offset: u64, timeout: Option<Duration>) -> Result<Vec<u8>> {
        self.read(offset, Duration::ZERO, timeout).await
    }

    async fn read(&self, offset: u64, follow: Duration, timeout: Option<Duration>) -> Result<Vec<u8>> {
        let follow_ms = u64::try_from(follow.as_millis()).unwrap_or(u64::MAX);
        let name = self.named.name.clone();
        let ask = move |timeout_ms| Request::Read { name: name.clone(), offset, follow_ms, timeout_ms };
        match self.named.state.wait(deadline(timeout), ask).await? {
            Response::Bytes { bytes, .. } => Ok(bytes),
            _ => Err(misunderstood()),
        }
    }

    /// Waits until so many bytes have arrived, counted from its start.
    ///
    /// # Errors
    /// The time is up; or boxes are lost before.
    pub async fn wait_bytes(&self, bytes: u64, timeout: Option<Duration>) -> Result<ChannelStatus> {
        self.named.wait_for(Some(bytes), super::Level::Stored, timeout).await
    }
}

pub(super) type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Appends to a stream, as tokio's files do: what `write` has taken is on its way to this disk, and is safe there once
/// `flush` has answered. An error is told by the next call; what it concerns was not taken.
pub struct Writer {
    stream: Stream,
    writing: Option<Pending<u64>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Writer {
    /// Waits for what is on its way to the disk.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(writing) = &mut self.writing {
            let written = ready!(writing.as_mut().poll(cx));
            self.writing = None;
            written?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_settled(cx))?;
        let piece = bytes[..bytes.len().min(CHUNK_BYTES)].to_vec();
        let (count, stream) = (piece.len(), self.stream.clone());
        if count > 0 {
            // Begun now: what is dropped without a flush is written all the same, unless the runtime ends first.
            let task = tokio::spawn(async move { stream.append_piece(piece).await });
            self.writing = Some(Box::pin(async move {
                task.await.unwrap_or_else(|error| Err(Error::new(ErrorKind::Failed, error.to_string())))
            }));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_settled(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Bytes that were read and not asked for yet.
#[derive(Default)]
pub(super) struct Piece(io::Cursor<Vec<u8>>);

impl Piece {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(io::Cursor::new(bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.position() >= self.0.get_ref().len() as u64
    }

    /// Gives as much as there is room for. How much.
    pub(super) fn give(&mut self, into: &mut ReadBuf<'_>) -> u64 {
        let from = usize::try_from(self.0.position()).unwrap_or(usize::MAX);
        let left = self.0.get_ref().get(from..).unwrap_or_default();
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        self.0.set_position((from + count) as u64);
        count as u64
    }
}

/// Reads a stream. It ends where the network has said that nothing more is there yet; where it has not, it is waited for. With
/// [`Reader::follow`] it never ends by itself.
pub struct Reader {
    stream: Stream,
    /// Where it is; `None`: at the first byte that is kept.
    offset: Option<u64>,
    follow: bool,
    patience: Option<Duration>,
    /// What was read and not asked for yet, from `offset` on.
    piece: Piece,
    reading: Option<Pending<(u64, Vec<u8>)>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("stream", &self.stream).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Reader {
    /// From this byte on.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Goes on as more arrives, or is appended.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self.patience = None;
        self
    }

    /// How long it is waited for more, or to learn whether the stream goes on. [60 s; [`Reader::follow`]: for ever]
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.patience = timeout;
        self
    }

    /// The byte that comes next, counted from the stream's start: where a program goes on when it begins anew.
    pub fn position(&self) -> u64 {
        self.offset.unwrap_or_default()
    }

    /// What comes next, and where that is; nothing at the end.
    fn next(&self) -> Pending<(u64, Vec<u8>)> {
        let (stream, offset, follow, patience) = (self.stream.clone(), self.offset, self.follow, self.patience);
        Box::pin(async move {
            let offset = match offset {
                Some(offset) => offset,
                None => stream.status().await?.dropped_bytes,
            };
            if !follow {
                return Ok((offset, stream.read_at(offset, patience).await?));
            }
            let until = deadline(patience);
            loop {
                let left = until.unwrap_or_else(far).saturating_duration_since(tokio::time::Instant::now());
                let bytes = stream.read(offset, left.min(super::SLICE), patience.map(|_| left)).await?;
                if !bytes.is_empty() {
                    return Ok((offset, bytes));
                }
                if left.is_zero() {
                    return Err(Error::new(ErrorKind::TimedOut, format!("nothing more has come after {offset} bytes")));
                }
            }
        })
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.piece.is_empty() {
            if self.reading.is_none() {
                self.reading = Some(self.next());
            }
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                let (offset, bytes) = read?;
                (self.offset, self.piece) = (Some(offset), Piece::new(bytes));
            }
        }
        let given = self.piece.give(into);
        self.offset = self.offset.map(|offset| offset + given);
        Poll::Ready(Ok(()))
    }
}

/// How a channel stands, each time that this changes: see [`Named::watch`].
#[derive(Clone, Debug)]
pub struct Watch {
    named: Named,
    mark: Option<u64>,
}

impl Watch {
    pub(super) fn new(named: Named) -> Self {
        Self { named, mark: None }
    }

    /// How it stands, at once the first time, and then when this has changed. Only the newest is told: what came and went
    /// between two calls is not.
    ///
    /// # Errors
    /// The channel was forgotten, or its owner does not answer.
    pub async fn next(&mut self) -> Result<ChannelStatus> {
        loop {
            let (name, seen) = (self.named.name.clone(), self.mark);
            let ask = move |timeout_ms| Request::Watch { name: name.clone(), mark: seen, timeout_ms };
            match self.named.state.wait(None, ask).await? {
                Response::News { mark, channel } if seen != Some(mark) => {
                    self.mark = Some(mark);
                    return Ok(*channel);
                }
                Response::News { .. } => {}
                _ => return Err(misunderstood()),
            }
        }
    }
}
