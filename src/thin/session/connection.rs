//! One attempt at a connection and its stream: a task that dials and reads, and a task that writes.
//!
//! The reader decodes frames and hands them to the session, which never waits for a consumer. The writer takes whole
//! frames, one write each; nobody's dropped future can cut one short, as only the end of the connection ends the task.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::heard::Heard;
use crate::thin::frame::{self, FrameError};
use crate::thin::message::ResponseFrame;
use crate::thin::{Dial, Inbound};

const DIAL: Duration = Duration::from_secs(20);
const READ_BUFFER: usize = 16 * 1024;

/// What an attempt tells the session, under its number.
pub(super) enum Wire {
    Dialled,
    Frame(Box<ResponseFrame>),
    /// It ended: in order, by an error of the stream, or because what came is no frame.
    Ended {
        error: String,
        malformed: bool,
    },
}

pub(super) struct Connection {
    writer: Option<mpsc::Sender<Vec<u8>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    pub(super) fn start<D: Dial>(
        dialer: &Arc<D>,
        address: &str,
        attempt: u64,
        wire: &mpsc::Sender<(u64, Wire)>,
        inbound: Option<mpsc::Sender<Inbound>>,
    ) -> Self {
        // One frame on its way and one behind it: what is not yet due to leave stays in the session, which may think
        // better of it.
        let (writer, mut frames) = mpsc::channel::<Vec<u8>>(1);
        let (hand_over, stream) = oneshot::channel();
        let (dialer, wire, address) = (Arc::clone(dialer), wire.clone(), address.to_owned());
        let reader = tokio::spawn(async move {
            let (error, malformed) = read(&*dialer, &address, attempt, &wire, inbound, hand_over).await;
            let _ = wire.send((attempt, Wire::Ended { error, malformed })).await;
        });
        let sender = tokio::spawn(async move {
            let Ok(mut write) = stream.await else { return };
            while let Some(bytes) = frames.recv().await {
                let written = async {
                    write.write_all(&bytes).await?;
                    write.flush().await
                };
                if let Err(error) = written.await {
                    return debug!(%error, "a frame could not be written");
                }
            }
            let _ = write.shutdown().await;
        });
        Self { writer: Some(writer), tasks: [reader, sender] }
    }

    /// Where frames go, one for each permit.
    pub(super) fn writer(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.writer.clone()
    }

    /// Lets the writer end once it has written what it was given.
    pub(super) fn finish(&mut self) {
        self.writer = None;
    }
}

/// Dials and reads until the end, and tells why it ended and whether it was no daemon.
async fn read<D: Dial>(
    dialer: &D,
    address: &str,
    attempt: u64,
    wire: &mpsc::Sender<(u64, Wire)>,
    inbound: Option<mpsc::Sender<Inbound>>,
    hand_over: oneshot::Sender<tokio::io::WriteHalf<D::Stream>>,
) -> (String, bool) {
    dialer.ready().await;
    let stream = match timeout(DIAL, dialer.dial()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (format!("nothing answers at {address}: {error}"), false),
        Err(_) => return (format!("{address} does not answer"), false),
    };
    let (read, write) = tokio::io::split(stream);
    // Several replies come at once where several requests are under way.
    let mut read = BufReader::with_capacity(READ_BUFFER, read);
    let _ = hand_over.send(write);
    if wire.send((attempt, Wire::Dialled)).await.is_err() {
        return (String::new(), false);
    }
    loop {
        let frame = match frame::read_body(&mut read).await {
            Ok(Some(body)) => frame::decode::<ResponseFrame>(&body).map(|frame| (frame, body)),
            Ok(None) => return (format!("{address} hung up"), false),
            Err(error) => Err(error),
        };
        match frame {
            Ok((frame, body)) => {
                if let Some(inbound) = &inbound {
                    let is_reply = Heard::of(&frame).is_some();
                    // Whoever does not look at frames any more has dropped the other end.
                    let _ = inbound.send(Inbound::Frame { body, is_reply }).await;
                }
                if wire.send((attempt, Wire::Frame(Box::new(frame)))).await.is_err() {
                    return (String::new(), false);
                }
            }
            Err(FrameError::Io(error)) => return (format!("the connection to {address} broke: {error}"), false),
            Err(error) => return (format!("what answers at {address} is no Katzenpost daemon: {error}"), true),
        }
    }
}
