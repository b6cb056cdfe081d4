//! A connection that can be cut off after so many bytes, in the middle of a frame if that is where they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::localnet::Faults;

/// After how many bytes every connection is cut; the same for all, and changed while they live.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    to_client: AtomicU64,
    from_client: AtomicU64,
}

impl Cuts {
    pub(super) fn set(&self, faults: &Faults) {
        self.to_client.store(faults.disconnect_after_bytes, Ordering::Relaxed);
        self.from_client.store(faults.disconnect_after_bytes_in, Ordering::Relaxed);
    }
}

/// A stream to a client. Exactly as many bytes go through as [`Cuts`] say; then either direction fails.
pub(super) struct Cut<S> {
    stream: S,
    cuts: Arc<Cuts>,
    to_client: u64,
    from_client: u64,
}

impl<S> Cut<S> {
    pub(super) fn new(stream: S, cuts: Arc<Cuts>) -> Self {
        Self { stream, cuts, to_client: 0, from_client: 0 }
    }

    /// How many bytes may still come from the client, and go to it.
    fn left(&self) -> io::Result<(usize, usize)> {
        let left = |limit: &AtomicU64, carried: u64| match limit.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => usize::try_from(limit.saturating_sub(carried)).unwrap_or(usize::MAX),
        };
        match (left(&self.cuts.from_client, self.from_client), left(&self.cuts.to_client, self.to_client)) {
            (0, _) | (_, 0) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off after so many bytes")),
            left => Ok(left),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = this.left()?.0;
        let before = into.filled().len();
        if room >= into.remaining() {
            ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        } else {
            let mut part = ReadBuf::new(into.initialize_unfilled_to(room));
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
            let read = part.filled().len();
            into.advance(read);
        }
        this.from_client += (into.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = this.left()?.1.min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..room]))?;
        this.to_client += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn cut(faults: &Faults) -> (Cut<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let cuts = Arc::new(Cuts::default());
        cuts.set(faults);
        (Cut::new(ours, cuts), theirs)
    }

    #[tokio::test]
    async fn exactly_so_many_bytes_reach_the_client_whatever_the_writes() {
        for limit in 1..9 {
            let (mut ours, mut theirs) = cut(&Faults { disconnect_after_bytes: limit, ..Faults::default() });
            let mut error = ours.write_all(b"abc").await.and(Ok(()));
            if error.is_ok() {
                error = ours.write_all(b"defghij").await;
            }
            assert_eq!(error.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
            drop(ours);
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.expect("read");
            assert_eq!(got, &b"abcdefghij"[..usize::try_from(limit).expect("small")]);
        }
    }

    #[tokio::test]
    async fn exactly_so_many_bytes_come_from_the_client_and_then_nothing_goes_either_way() {
        let (mut ours, mut theirs) = cut(&Faults { disconnect_after_bytes_in: 5, ..Faults::default() });
        theirs.write_all(b"abcdefghij").await.expect("room");
        let mut got = Vec::new();
        let error = ours.read_to_end(&mut got).await.expect_err("cut");
        assert_eq!((&got[..], error.kind()), (&b"abcde"[..], io::ErrorKind::ConnectionAborted));
        assert!(ours.write_all(b"x").await.is_err());
        ours.cuts.set(&Faults::default());
        ours.write_all(b"x").await.expect("no fault any more");
    }
}
