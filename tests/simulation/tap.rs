//! What was said in a run, as one hash: every byte on every connection, either way, and how each operation ended, all with
//! their virtual times.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use pigeonfs::localnet::InMemory;
use pigeonfs::thin::Dial;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Instant;

/// Lines that are kept to be shown; the hash has all of them.
const LINES: usize = 400;

/// The transcript of a run.
pub(crate) struct Transcript {
    began: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    hash: Blake2b<U32>,
    lines: Vec<String>,
    connections: u64,
}

impl Transcript {
    /// One that begins now.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), kept: Mutex::default() })
    }

    /// Writes down what happened.
    pub(crate) fn tell(&self, line: &str) {
        let line = format!("{:>14?} {line}", self.began.elapsed());
        let mut kept = self.kept.lock().expect("nobody panics with it");
        kept.hash.update(&line);
        if kept.lines.len() == LINES {
            kept.lines.remove(0);
        }
        kept.lines.push(line);
    }

    fn bytes(&self, connection: u64, way: u8, bytes: &[u8]) {
        let at = self.began.elapsed().as_nanos().to_be_bytes();
        let hash = &mut self.kept.lock().expect("nobody panics with it").hash;
        hash.update(at);
        hash.update(connection.to_be_bytes());
        hash.update([way]);
        hash.update(bytes);
    }

    /// The hash of all of it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.kept.lock().expect("nobody panics with it").hash.clone().finalize().into()
    }

    /// The last of what happened, a line each.
    pub(crate) fn text(&self) -> String {
        self.kept.lock().expect("nobody panics with it").lines.join("\n")
    }
}

/// A way to a network on which all is written down.
pub(crate) struct Tapped {
    pub(crate) network: InMemory,
    pub(crate) transcript: Arc<Transcript>,
}

impl Dial for Tapped {
    type Stream = Tap;

    async fn dial(&self) -> io::Result<Tap> {
        let stream = self.network.connect()?;
        let number = {
            let mut kept = self.transcript.kept.lock().expect("nobody panics with it");
            kept.connections += 1;
            kept.connections
        };
        Ok(Tap { stream, number, transcript: Arc::clone(&self.transcript) })
    }

    fn name(&self) -> String {
        self.network.name()
    }
}

/// A connection on which all is written down.
pub(crate) struct Tap {
    stream: DuplexStream,
    number: u64,
    transcript: Arc<Transcript>,
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        if polled.is_ready() {
            self.transcript.bytes(self.number, b'<', &into.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.transcript.bytes(self.number, b'>', &bytes[..*written]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
