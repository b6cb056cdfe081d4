//! A process's way to the daemon, as the thin client goes it: operations with deadlines, put again after every reconnect.
//! How many there are, and when each is put first, is the scheduler's.

use std::collections::{BTreeMap, VecDeque};

use super::super::transfer::Ending;
use super::process::Message;
use super::world::{Happening, World};
use crate::bacap::SealedBox;
use crate::channel::{Operation as What, OperationId, Time};
use crate::localnet::simulated::{Conn, Envelope, Heard};
use crate::store::BoxSeq;
use crate::thin::{self, Error, ErrorKind, Operation, ReadOutcome, WriteOutcome};

/// Requests of a connection that the daemon has not given back: one at work, one read ahead.
const OUTSTANDING: usize = 2;

pub(super) struct Op {
    pub(super) channel: usize,
    seq: BoxSeq,
    what: What,
    /// What is written, or compared with what is found.
    pub(super) bytes: Vec<u8>,
    envelope: Option<Envelope>,
    /// Whether the scheduler let it go.
    pub(super) transmitted: bool,
    /// Under which it was put last.
    query: Option<u64>,
}

enum Put {
    Start(OperationId),
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
    pub(super) ops: BTreeMap<OperationId, Op>,
    queries: BTreeMap<u64, OperationId>,
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
    /// Makes the envelope of an operation, which takes a moment.
    pub(super) fn operate(
        &mut self,
        p: usize,
        id: OperationId,
        (channel, seq): (usize, BoxSeq),
        what: What,
        bytes: Vec<u8>,
    ) {
        let encrypt = self.millis(1..20);
        let Some(line) = self.line(p) else { return };
        line.ops.insert(id, Op { channel, seq, what, bytes, envelope: None, transmitted: false, query: None });
        self.plan_of(p, encrypt, Happening::Encrypted { p, op: id });
    }

    pub(super) fn encrypted(&mut self, p: usize, id: OperationId) {
        let wall = self.wall();
        let Some(op) = self.line(p).and_then(|line| line.ops.get_mut(&id)) else { return };
        let (channel, seq, what, bytes) = (op.channel, op.seq, op.what, op.bytes.clone());
        let envelope = if matches!(what, What::Write { .. }) {
            if bytes.is_empty() || bytes.len() > self.max {
                let text = "the box does not fit".to_owned();
                return self.end_op(p, id, Err(ErrorKind::InvalidArgument(text)));
            }
            let sealed = self.boxes.seal(channel, seq.0, &bytes, self.max);
            self.net.envelope_to_write(wall, sealed)
        } else {
            let box_id = self.boxes.id(channel, seq.0);
            self.net.envelope_to_read(wall, box_id)
        };
        if let Some(op) = self.line(p).and_then(|line| line.ops.get_mut(&id)) {
            op.envelope = Some(envelope);
        }
        self.tell(p, Message::Made(id));
    }

    /// The scheduler lets an operation go.
    pub(super) fn transmit(&mut self, p: usize, id: OperationId, deadline: Time) {
        let Some(line) = self.line(p) else { return };
        let Some(op) = line.ops.get_mut(&id) else { return };
        op.transmitted = true;
        let (channel, seq, what, bytes) = (op.channel, op.seq, op.what, op.bytes.clone());
        line.unput.push_back(Put::Start(id));
        if matches!(what, What::Write { .. }) {
            self.oracle_sent(p, channel, seq, &bytes);
        }
        self.plan_of(p, deadline, Happening::Deadline { p, op: id });
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
                    let strict = op.what != (What::Write { strict: false });
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
            if op.transmitted {
                line.unput.push_back(Put::Start(id));
            }
        }
        self.flush(p);
    }

    pub(super) fn room(&mut self, p: usize) {
        if let Some(line) = self.line(p) {
            line.outstanding = line.outstanding.saturating_sub(1);
        }
        self.flush(p);
    }

    pub(super) fn overdue(&mut self, p: usize, id: OperationId) {
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

    fn end_op(&mut self, p: usize, id: OperationId, result: Result<Option<SealedBox>, ErrorKind>) {
        let Some(line) = self.line(p) else { return };
        let Some(op) = line.ops.remove(&id) else { return };
        line.queries.retain(|_, of| *of != id);
        let (channel, seq) = (op.channel, op.seq);
        self.trace(|| {
            format!(
                "{p}: {channel}/{seq} ended: {}",
                result.as_ref().map_or_else(ToString::to_string, |_| "well".to_owned())
            )
        });
        let error = |kind, operation| Error { operation, kind };
        let ending = if let What::Write { strict } = op.what {
            let written = match result {
                Ok(_) => Ok(WriteOutcome::Done),
                Err(ErrorKind::Replica(10)) => Ok(WriteOutcome::AlreadyExists),
                Err(kind) => Err(error(kind, Operation::Write)),
            };
            Ending::written(strict, written)
        } else {
            let found = match result {
                Ok(Some(sealed)) => match self.boxes.open(channel, seq.0, &sealed) {
                    Some(bytes) => Ok(ReadOutcome::Box(bytes)),
                    None => Err(error(ErrorKind::Unauthentic(22), Operation::Read)),
                },
                Ok(None) => Err(error(ErrorKind::MalformedReply("no box"), Operation::Read)),
                Err(ErrorKind::Replica(1)) => Ok(ReadOutcome::NotFound),
                Err(kind) => Err(error(kind, Operation::Read)),
            };
            Ending::read(op.what, &op.bytes, found)
        };
        self.tell(p, Message::Ended(id, channel, seq, ending));
    }

    /// The network has gone between the envelope and its turn.
    pub(super) fn away(&mut self, p: usize, id: OperationId) {
        let Some(op) = self.line(p).and_then(|line| line.ops.remove(&id)) else { return };
        let ending = Ending::vain(op.what, "the network is away".to_owned());
        self.tell(p, Message::Ended(id, op.channel, op.seq, ending));
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
