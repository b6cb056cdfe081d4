//! One client: its frames understood, what needs no network answered at once, its replies written.
//!
//! As many requests are read ahead as a client may have unanswered; the core handles them in their order, one after the
//! other (`thin-client-protocol.md` §4.1). What the daemon answers by itself, at no cost and with nothing else at work, is
//! answered here: the order is the same, and no other thread is asked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::debug;

use super::cut::Cut;
use super::reply;
use super::run::{Client, Input, Out};
use super::{Daemon, Front};
use crate::localnet::core::{Conn, Control, Event, Reply, Request};
use crate::localnet::wire::{self, Answer, Made, Meaning, Network, Present};
use crate::thin::frame;
use crate::thin::message::{ResponseFrame, ShutdownEvent};

/// Requests that may be outstanding: the queue of 16, the one at work and one behind it. The daemon itself reads no
/// further than that one, which a client cannot tell from a longer socket buffer.
const TURNS: usize = 18;
/// Requests that the core is given at once: fewer hops from thread to thread, and yet both are at work.
const AT_ONCE: usize = 4;
/// Replies that wait for one client; a client that lets more wait is cut off.
const REPLIES: usize = 2048;
/// What may wait for a client of what the daemon answered by itself, in KiB; a client that has more waiting is not read
/// from.
const BACKLOG_KIB: usize = 64 * 1024;
/// How long a client may take to take what was written at once.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Most bytes of several frames that are written at once.
const WRITE_BYTES: usize = 64 * 1024;
const READ_BUFFER: usize = 16 * 1024;

/// One client, from its handshake to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(front: Arc<Front>, daemon: Daemon, stream: S) {
    let (shared, conn) = (&front.shared, front.next_conn());
    let mut stop = front.stop.clone();
    let mut consensus = front.consensus.clone();
    tokio::select! {
        biased;
        () = stopped(&mut stop) => return,
        () = front.admit(daemon, &mut consensus) => {}
    }
    let (read, write) = tokio::io::split(Cut::new(stream, Arc::clone(&shared.cuts)));
    let (out, outgoing) = mpsc::channel(REPLIES);
    let (kept, mut cut) = oneshot::channel();
    let turns = Arc::new(Semaphore::new(TURNS));
    let backlog = Semaphore::new(BACKLOG_KIB);
    let client = Client { daemon, out: out.clone(), turns: Arc::clone(&turns), _cut: kept };
    if front.inputs.send(Input::Arrived(conn, daemon, client)).await.is_err() {
        return;
    }
    let reader = Reader { front: &front, conn, turns: &turns, backlog: &backlog, out };
    let end = tokio::select! {
        biased;
        _ = &mut cut => Event::Disconnected(conn),
        end = reader.run(BufReader::with_capacity(READ_BUFFER, read)) => end,
        () = write_all(&front, &backlog, outgoing, write) => Event::Disconnected(conn),
    };
    let _ = front.inputs.send(Input::Event(end)).await;
}

pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop the network is gone, which is the same.
    let _ = stop.wait_for(|&stop| stop).await;
}

struct Reader<'a> {
    front: &'a Front,
    conn: Conn,
    turns: &'a Semaphore,
    backlog: &'a Semaphore,
    out: mpsc::Sender<Out>,
}

impl Reader<'_> {
    /// Reads until the client is gone, says goodbye, or says what the daemon hangs up on.
    async fn run<R: AsyncRead + Unpin>(&self, mut read: BufReader<R>) -> Event {
        let mut ahead = Vec::new();
        let end = self.read_on(&mut read, &mut ahead).await;
        self.hand_over(&mut ahead).await;
        end
    }

    async fn read_on<R: AsyncRead + Unpin>(&self, read: &mut BufReader<R>, ahead: &mut Vec<Request>) -> Event {
        let gone = Event::Disconnected(self.conn);
        let network = &self.front.shared.network;
        let mut rng = StdRng::seed_from_u64(self.front.seed.wrapping_add(self.conn));
        let mut holding = None;
        loop {
            // Nobody is kept waiting for the rest of a frame, or for a turn.
            let at_hand = holds_frame(read.buffer()) && self.turns.available_permits() > 0;
            if !at_hand || ahead.len() == AT_ONCE {
                self.hand_over(ahead).await;
            }
            if !at_hand {
                holding = None;
            }
            let turn = tokio::select! {
                biased;
                turn = self.turns.acquire() => turn.expect("never closed"),
                () = hung_up(read) => return gone,
            };
            let body = match frame::read_body(read).await {
                Ok(Some(body)) => body,
                Ok(None) => return gone,
                Err(error) => {
                    debug!(conn = self.conn, %error, "a client is hung up on");
                    return gone;
                }
            };
            if body.len() <= READ_BUFFER {
                holding.get_or_insert_with(|| self.front.shared.at_hand.hold());
            }
            // A null is no request; the daemon must not be brought down by one.
            let request = match wire::decode(&body) {
                Ok(request) => request,
                Err(error) => {
                    debug!(conn = self.conn, %error, "a client is hung up on");
                    return gone;
                }
            };
            let request = match wire::understand(network, &self.present(), &mut rng, request) {
                Meaning::Ask(request) => request,
                Meaning::Close => return Event::Closed(self.conn),
                Meaning::Hangup(what) => {
                    debug!(conn = self.conn, what, "a client is hung up on: wrong length");
                    return gone;
                }
                meaning => {
                    self.hand_over(ahead).await;
                    holding = None;
                    let answer = answer(network, &mut rng, meaning).await;
                    let Ok(bytes) = frame::encode(&*answer.frame) else { return gone };
                    let Ok(room) = self.backlog.acquire_many(kib(bytes.len())).await else { return gone };
                    room.forget();
                    if let Some(sealed) = answer.foreign {
                        let control = Event::Control(Control::Foreign(sealed));
                        if self.front.inputs.send(Input::Event(control)).await.is_err() {
                            return gone;
                        }
                    }
                    // The turn that was just taken is the only one.
                    if answer.cost.is_zero() && self.turns.available_permits() == TURNS - 1 {
                        if self.out.send(Out::Local(bytes)).await.is_err() {
                            return gone;
                        }
                        continue;
                    }
                    Request::Local { answer: answer.frame, cost: answer.cost }
                }
            };
            turn.forget();
            ahead.push(request);
        }
    }

    /// Gives the core what was understood. Where the core has ended, so will the connection.
    async fn hand_over(&self, ahead: &mut Vec<Request>) {
        if !ahead.is_empty() {
            let _ = self.front.inputs.send(Input::Requests(self.conn, std::mem::take(ahead))).await;
        }
    }

    /// How things stand now.
    fn present(&self) -> Present {
        Present {
            wall: self.front.shared.clock.now(),
            consensus: *self.front.consensus.borrow(),
            conflicting_writer: self.front.shared.foreign_writes.rate(),
        }
    }
}

/// What the daemon answers by itself, at once or after some work; others have their turn meanwhile.
async fn answer(network: &Network, rng: &mut StdRng, meaning: Meaning) -> Answer {
    let mut making = match meaning {
        Meaning::Answer(answer) => return answer,
        Meaning::Make(making) => making,
        _ => unreachable!("nothing else is answered here"),
    };
    loop {
        match making.step(network, rng) {
            Made::Answer(answer) => return answer,
            Made::More(more) => making = more,
        }
        tokio::task::yield_now().await;
    }
}

/// Whether bytes begin with a whole frame.
fn holds_frame(bytes: &[u8]) -> bool {
    bytes.split_first_chunk::<4>().is_some_and(|(length, body)| u32::from_be_bytes(*length) as usize <= body.len())
}

/// Resolves when the client has gone; it is noticed although no request may be read, unless one waits to be.
async fn hung_up<R: AsyncRead + Unpin>(read: &mut BufReader<R>) {
    match read.fill_buf().await {
        Ok([]) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// Writes until the connection is to end.
async fn write_all<W: AsyncWrite + Unpin>(
    front: &Front,
    backlog: &Semaphore,
    mut outgoing: mpsc::Receiver<Out>,
    mut write: W,
) {
    let mut stop = front.stop.clone();
    let mut bytes = Vec::new();
    loop {
        let mut next = tokio::select! {
            biased;
            out = outgoing.recv() => out,
            () = stopped(&mut stop) => {
                if let Ok(bytes) = frame::encode(&ResponseFrame::from(ShutdownEvent {})) {
                    let _ = timeout(Duration::from_secs(1), send(&mut write, &bytes)).await;
                }
                return;
            }
        };
        bytes.clear();
        let (mut local, mut last) = (0, false);
        while let Some(out) = next {
            match out {
                Out::Frame(frame) => bytes.extend_from_slice(&frame),
                Out::Local(frame) => {
                    local += kib(frame.len());
                    bytes.extend_from_slice(&frame);
                }
                Out::Reply(reply) => {
                    let answered_itself = matches!(reply, Reply::Local(_));
                    let Some(Ok(frame)) = reply::frame(&front.shared, reply).map(|reply| frame::encode(&reply)) else {
                        return;
                    };
                    if answered_itself {
                        local += kib(frame.len());
                    }
                    bytes.extend_from_slice(&frame);
                }
                Out::End => {
                    last = true;
                    break;
                }
            }
            next = if bytes.len() < WRITE_BYTES { outgoing.try_recv().ok() } else { None };
        }
        if !matches!(timeout(WRITE_DEADLINE, send(&mut write, &bytes)).await, Ok(Ok(()))) || last {
            return;
        }
        backlog.add_permits(local as usize);
        // One big answer must not keep its memory for as long as the connection lives.
        bytes.shrink_to(WRITE_BYTES);
    }
}

async fn send<W: AsyncWrite + Unpin>(write: &mut W, bytes: &[u8]) -> io::Result<()> {
    write.write_all(bytes).await?;
    write.flush().await
}

/// What a frame takes of the backlog; the longest that there may be still fits.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).min(BACKLOG_KIB)).expect("the backlog is small")
}
