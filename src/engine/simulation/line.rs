//! A process's way to the daemon, as the thin client goes it: operations with deadlines, put again after every reconnect,
//! within the permits that the engine gives out.

use std::collections::{BTreeMap, VecDeque};

use super::super::network::{READS_UNDER_WAY, WRITES_UNDER_WAY};
use super::super::transfer::{Found, PACKETS, Written, compared};
use super::process::Message;
use super::world::{Happening, World};
use crate::bacap::SealedBox;
use crate::channel::{SenderEvent, Time};
use crate::localnet::simulated::{Conn, Envelope, Heard};
use crate::store::BoxSeq;
use crate::thin::{self, Error, ErrorKind, Operation, ReadOutcome, WriteOutcome};

/// Requests of a connection that the daemon has not given back: one at work, one read ahead.
const OUTSTANDING: usize = 2;

/// What an operation is for.
#[derive(Clone)]
pub(super) enum Work {
    Write(Vec<u8>),
    Read,
    /// Of an occupied index, to be compared with these bytes.
    ReadBack(Vec<u8>),
}

pub(super) struct Op {
    channel: usize,
    seq: BoxSeq,
    work: Work,
    /// When it was first put.
    started: Time,
    envelope: Option<Envelope>,
    /// Under which it was put last.
    query: Option<u64>,
}

enum Put {
    Start(u64),
    Cancel(Envelope),
}

/// One life's connection, and what it is asked.
pub(super) struct Line {
    pub(super) token: u64,
    pub(super) conn: Option<Conn>,
    /// The daemon has a link to the mixnet, and knows us.
    pub(super) usable: bool,
    /// What the engine is told of it.
    pub(super) view: bool,
    outstanding: usize,
    unput: VecDeque<Put>,
    pub(super) ops: BTreeMap<u64, Op>,
    queries: BTreeMap<u64, u64>,
    /// Operations that wait for a permit: writes, reads.
    waiting: [VecDeque<u64>; 2],
    permits: [usize; 2],
}

impl Line {
    pub(super) fn new(token: u64) -> Self {
        Self {
            token,
            conn: None,
            usable: false,
            view: false,
            outstanding: 0,
            unput: VecDeque::new(),
            ops: BTreeMap::new(),
            queries: BTreeMap::new(),
            waiting: [VecDeque::new(), VecDeque::new()],
            permits: [WRITES_UNDER_WAY, READS_UNDER_WAY],
        }
    }

    pub(super) fn broken(&mut self) {
        self.conn = None;
        self.usable = false;
        self.outstanding = 0;
        self.unput.clear();
    }
}

impl World {
    /// Begins an operation as soon as there is a permit for it.
    pub(super) fn operate(&mut self, p: usize, channel: usize, seq: BoxSeq, work: Work) {
        let id = self.next_serial();
        let kind = usize::from(!matches!(work, Work::Write(_)));
        let now = self.now;
        let Some(line) = self.line(p) else { return };
        line.ops.insert(id, Op { channel, seq, work, started: now, envelope: None, query: None });
        line.waiting[kind].push_back(id);
        self.give_permits(p);
    }

    fn give_permits(&mut self, p: usize) {
        for kind in 0..2 {
            loop {
                let Some(line) = self.line(p) else { return };
                if line.permits[kind] == 0 {
                    break;
                }
                let Some(id) = line.waiting[kind].pop_front() else { break };
                line.permits[kind] -= 1;
                let encrypt = self.millis(1..20);
                let deadline =
                    self.processes[p].life.as_ref().map_or(Time::ZERO, |life| life.pace.operation_deadline());
                self.plan_of(p, encrypt, Happening::Encrypted { p, op: id });
                self.plan_of(p, deadline, Happening::Deadline { p, op: id });
            }
        }
    }

    pub(super) fn encrypted(&mut self, p: usize, id: u64) {
        let (now, wall) = (self.now, self.wall());
        let Some(op) = self.line(p).and_then(|line| line.ops.get_mut(&id)) else { return };
        op.started = now;
        let (channel, seq, work) = (op.channel, op.seq, op.work.clone());
        let envelope = match &work {
            Work::Write(bytes) => {
                if bytes.is_empty() || bytes.len() > self.max {
                    let text = "the box does not fit".to_owned();
                    return self.end_op(p, id, Err(ErrorKind::InvalidArgument(text)));
                }
                self.oracle_sent(p, channel, seq, bytes);
                let sealed = self.boxes.seal(channel, seq.0, bytes, self.max);
                self.net.envelope_to_write(wall, sealed)
            }
            Work::Read | Work::ReadBack(_) => {
                let box_id = self.boxes.id(channel, seq.0);
                self.net.envelope_to_read(wall, box_id)
            }
        };
        let Some(line) = self.line(p) else { return };
        if let Some(op) = line.ops.get_mut(&id) {
            op.envelope = Some(envelope);
        }
        line.unput.push_back(Put::Start(id));
        self.flush(p);
    }

    /// Puts what may be put on the connection.
    pub(super) fn flush(&mut self, p: usize) {
        loop {
            let (wall, query) = (self.wall(), self.next_serial());
            let Some(line) = self.line(p) else { return };
            let (Some(conn), true, true) = (line.conn, line.usable, line.outstanding < OUTSTANDING) else { return };
            let heard = match line.unput.pop_front() {
                None => return,
                Some(Put::Cancel(envelope)) => {
                    line.outstanding += 1;
                    self.net.cancel(wall, conn, &envelope)
                }
                Some(Put::Start(id)) => {
                    let Some(op) = line.ops.get_mut(&id) else { continue };
                    let Some(envelope) = op.envelope.clone() else { continue };
                    op.query = Some(query);
                    line.queries.insert(query, id);
                    line.outstanding += 1;
                    let strict = matches!(op.work, Work::Write(_));
                    self.net.start(wall, conn, query, &envelope, strict)
                }
            };
            self.hear(heard);
        }
    }

    /// The connection is there again: what was put on an earlier one is put anew, behind a cancel of what may survive of it.
    pub(super) fn put_again(&mut self, p: usize) {
        let Some(line) = self.line(p) else { return };
        for (&id, op) in &line.ops {
            let Some(envelope) = &op.envelope else { continue };
            if op.query.is_some() {
                line.unput.push_back(Put::Cancel(envelope.clone()));
            }
            line.unput.push_back(Put::Start(id));
        }
        self.flush(p);
    }

    pub(super) fn room(&mut self, p: usize) {
        if let Some(line) = self.line(p) {
            line.outstanding = line.outstanding.saturating_sub(1);
        }
        self.flush(p);
    }

    pub(super) fn overdue(&mut self, p: usize, id: u64) {
        let Some(line) = self.line(p) else { return };
        let Some(op) = line.ops.get(&id) else { return };
        if let (Some(envelope), Some(_)) = (&op.envelope, op.query) {
            line.unput.push_back(Put::Cancel(envelope.clone()));
        }
        self.end_op(p, id, Err(ErrorKind::Timeout));
        self.flush(p);
    }

    pub(super) fn answered(&mut self, p: usize, query: u64, result: Result<Option<SealedBox>, (u8, bool)>) {
        let Some(line) = self.line(p) else { return };
        let Some(&id) = line.queries.get(&query) else { return };
        let Some(op) = line.ops.get(&id) else { return };
        if op.query != Some(query) && matches!(result, Err((24, _))) {
            return;
        }
        self.end_op(p, id, result.map_err(|(code, courier)| thin::started(code, courier)));
    }

    fn end_op(&mut self, p: usize, id: u64, result: Result<Option<SealedBox>, ErrorKind>) {
        let now = self.now;
        let Some(line) = self.line(p) else { return };
        let Some(op) = line.ops.remove(&id) else { return };
        line.queries.retain(|_, of| *of != id);
        let kind = usize::from(!matches!(op.work, Work::Write(_)));
        line.permits[kind] += 1;
        let (channel, seq) = (op.channel, op.seq);
        self.trace(|| {
            format!(
                "{p}: {channel}/{seq} ended: {}",
                result.as_ref().map_or_else(ToString::to_string, |_| "well".to_owned())
            )
        });
        if !matches!(result, Err(ErrorKind::Timeout | ErrorKind::Cancelled))
            && let Some(life) = &mut self.processes[p].life
        {
            life.pace.measure(now.saturating_sub(op.started), PACKETS);
        }
        let error = |kind, operation| Error { operation, kind };
        let read = |result: Result<Option<SealedBox>, ErrorKind>, boxes: &mut super::boxes::Boxes| {
            Found::of(match result {
                Ok(Some(sealed)) => match boxes.open(channel, seq.0, &sealed) {
                    Some(bytes) => Ok(ReadOutcome::Box(bytes)),
                    None => Err(error(ErrorKind::Unauthentic(22), Operation::Read)),
                },
                Ok(None) => Err(error(ErrorKind::MalformedReply("no box"), Operation::Read)),
                Err(ErrorKind::Replica(1)) => Ok(ReadOutcome::NotFound),
                Err(kind) => Err(error(kind, Operation::Read)),
            })
        };
        let message = match op.work {
            Work::Write(_) => {
                let written = Written::of(match result {
                    Ok(_) => Ok(WriteOutcome::Done),
                    Err(ErrorKind::Replica(10)) => Ok(WriteOutcome::AlreadyExists),
                    Err(kind) => Err(error(kind, Operation::Write)),
                });
                Message::Sender(channel, SenderEvent::Ended { seq, outcome: written.outcome })
            }
            Work::Read => Message::Arrived(channel, seq, read(result, &mut self.boxes)),
            Work::ReadBack(bytes) => {
                let found = compared(read(result, &mut self.boxes), &bytes);
                Message::Sender(channel, SenderEvent::WasRead { seq, found })
            }
        };
        self.tell(p, message);
        self.give_permits(p);
    }

    /// Takes what the network says to whom it concerns.
    pub(super) fn hear(&mut self, heard: Vec<Heard>) {
        for heard in heard {
            let conn = match &heard {
                Heard::Room(conn)
                | Heard::Ended { conn, .. }
                | Heard::Box { conn, .. }
                | Heard::Token { conn }
                | Heard::Link { conn, .. }
                | Heard::Hangup(conn) => *conn,
            };
            let Some(&p) = self.conns.get(&conn) else { continue };
            match heard {
                Heard::Room(_) => self.plan_of(p, Time::ZERO, Happening::Room { p, conn }),
                Heard::Ended { query, code: 0, .. } => self.answered(p, query, Ok(None)),
                Heard::Ended { query, code, courier, .. } => self.answered(p, query, Err((code, courier))),
                Heard::Box { query, sealed, .. } => self.answered(p, query, Ok(Some(sealed))),
                Heard::Token { .. } => self.connected(p),
                Heard::Link { up, .. } => self.linked(p, up),
                Heard::Hangup(_) => self.lost(p),
            }
        }
    }
}
