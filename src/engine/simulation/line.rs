//! A process's way to the daemon, as the thin client goes it: envelopes made in a while, operations with deadlines, which are
//! put again after every reconnect. Of the two traffic connections the second is dialled when it is needed.

use std::collections::{BTreeMap, VecDeque};

use super::super::transfer;
use super::daemons::{daemon_of, is_main, wire_of};
use super::process::Message;
use super::world::{Happening, World};
use crate::bacap::SealedBox;
use crate::channel::{Answer, End, Ending, Foreign, Line, Operation, OperationId, Outcome, ReadBack, Time};
use crate::localnet::simulated::{Conn, Envelope, Heard};
use crate::store::BoxSeq;
use crate::thin::{self, Error, ErrorKind, ReadOutcome, WriteOutcome};

/// Requests of a connection that the daemon has not given back: one at work, one read ahead.
const OUTSTANDING: usize = 2;

/// What an operation takes from the store.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) channel: usize,
    pub(super) seq: BoxSeq,
    pub(super) what: Operation,
    /// What is written, or compared with what is found.
    pub(super) payload: Vec<u8>,
}

/// An operation that was transmitted.
struct Started {
    parcel: Parcel,
    envelope: Envelope,
    /// Under which it was put last.
    query: Option<u64>,
}

enum Put {
    Start(OperationId),
    Cancel(Envelope),
}

/// One client of the daemon.
pub(super) struct Wire {
    token: u64,
    conn: Option<Conn>,
    dialling: bool,
    /// The daemon knows us, and has a link to the mixnet.
    usable: bool,
    outstanding: usize,
    unput: VecDeque<Put>,
    started: BTreeMap<OperationId, Started>,
    queries: BTreeMap<u64, OperationId>,
}

impl Wire {
    pub(super) fn new(token: u64) -> Self {
        Self {
            token,
            conn: None,
            dialling: false,
            usable: false,
            outstanding: 0,
            unput: VecDeque::new(),
            started: BTreeMap::new(),
            queries: BTreeMap::new(),
        }
    }

    pub(super) fn conn(&self) -> Option<Conn> {
        self.conn
    }

    pub(super) fn unanswered(&self) -> usize {
        self.started.len()
    }
}

impl World {
    fn wire(&mut self, p: usize, n: usize) -> Option<&mut Wire> {
        self.processes[p].life.as_mut().map(|life| &mut life.wires[n])
    }

    /// What [`super::super::transfer::prepare`] does, on the daemon's side of it.
    pub(super) fn envelope(&mut self, p: usize, parcel: &Parcel) -> Result<Envelope, Ending> {
        let wall = self.wall();
        let Parcel { channel, seq, what, payload } = parcel;
        if let Operation::Write { .. } = what {
            if payload.is_empty() || payload.len() > self.max {
                let kind = ErrorKind::InvalidArgument("the box does not fit".to_owned());
                return Err(transfer::failed(*what, &Error { operation: thin::Operation::EncryptWrite, kind }));
            }
            self.oracle_sent(p, *channel, *seq, payload);
            let sealed = self.boxes.seal(*channel, seq.0, payload, self.max);
            return Ok(self.net.envelope_to_write(wall, sealed));
        }
        let box_id = self.boxes.id(*channel, seq.0);
        Ok(self.net.envelope_to_read(wall, box_id))
    }

    /// Starts an operation. Its end comes as a message.
    pub(super) fn start_operation(
        &mut self,
        p: usize,
        id: OperationId,
        (daemon, line): (usize, Line),
        parcel: Parcel,
        envelope: Envelope,
    ) {
        let n = wire_of(daemon, line);
        if line == Line::Second {
            self.see("operations on the second connection");
        }
        let deadline = self.processes[p].life.as_ref().map_or(Time::ZERO, |life| life.deadline(daemon));
        let Some(wire) = self.wire(p, n) else { return };
        wire.started.insert(id, Started { parcel, envelope, query: None });
        wire.unput.push_back(Put::Start(id));
        self.plan_of(p, deadline, Happening::Deadline { p, n, id });
        self.dial(p, n);
        self.flush(p, n);
    }

    /// Nobody waits for an operation any more.
    pub(super) fn give_up(&mut self, p: usize, id: OperationId) {
        let Some(life) = &mut self.processes[p].life else { return };
        let Some(n) = life.wires.iter().position(|wire| wire.started.contains_key(&id)) else { return };
        let wire = &mut life.wires[n];
        if let Some(started) = wire.started.remove(&id)
            && started.query.is_some()
        {
            wire.unput.push_back(Put::Cancel(started.envelope));
        }
        wire.queries.retain(|_, of| *of != id);
        self.flush(p, n);
    }

    pub(super) fn dial(&mut self, p: usize, n: usize) {
        let elsewhere = self.processes[p].elsewhere[daemon_of(n)];
        let Some(wire) = self.wire(p, n) else { return };
        if wire.conn.is_none() && !elsewhere && !std::mem::replace(&mut wire.dialling, true) {
            let after = self.millis(1..300);
            self.plan_of(p, after, Happening::Dial { p, n });
        }
    }

    /// Dials anew, whatever was under way.
    pub(super) fn redial(&mut self, p: usize, n: usize) {
        let needed = is_main(n);
        if let Some(wire) = self.wire(p, n)
            && (needed || !wire.started.is_empty())
        {
            wire.dialling = false;
            self.dial(p, n);
        }
    }

    pub(super) fn dialled(&mut self, p: usize, n: usize) {
        let (conn, wall) = (self.next_serial(), self.wall());
        let (daemon, again) = (daemon_of(n), self.millis(100..10_000));
        let (elsewhere, dead) = (self.processes[p].elsewhere[daemon], self.daemons[daemon].dead);
        let Some(wire) = self.wire(p, n) else { return };
        wire.dialling = false;
        if elsewhere || wire.conn.is_some() {
            return;
        }
        if dead {
            wire.dialling = true;
            return self.plan_of(p, again, Happening::Dial { p, n });
        }
        wire.conn = Some(conn);
        let token = wire.token;
        self.conns.insert(conn, (p, n));
        let heard = self.net.connect(wall, conn, daemon, token);
        self.hear(heard);
    }

    /// Says goodbye on the second connection.
    pub(super) fn hang_up_second(&mut self, p: usize, daemon: usize) {
        let wall = self.wall();
        let Some(wire) = self.wire(p, wire_of(daemon, Line::Second)) else { return };
        let conn = wire.conn.take();
        let token = wire.token;
        *wire = Wire::new(token + (1 << 40));
        if let Some(conn) = conn {
            self.conns.remove(&conn);
            let heard = self.net.close(wall, conn);
            self.hear(heard);
        }
    }

    /// Puts what may be put on the connection.
    fn flush(&mut self, p: usize, n: usize) {
        loop {
            let (wall, query) = (self.wall(), self.next_serial());
            let Some(wire) = self.wire(p, n) else { return };
            let (Some(conn), true, true) = (wire.conn, wire.usable, wire.outstanding < OUTSTANDING) else { return };
            let heard = match wire.unput.pop_front() {
                None => return,
                Some(Put::Cancel(envelope)) => {
                    wire.outstanding += 1;
                    self.net.cancel(wall, conn, &envelope)
                }
                Some(Put::Start(id)) => {
                    let Some(started) = wire.started.get_mut(&id) else { continue };
                    started.query = Some(query);
                    wire.queries.insert(query, id);
                    wire.outstanding += 1;
                    let strict = started.parcel.what == Operation::Write { strict: true };
                    let envelope = started.envelope.clone();
                    self.net.start(wall, conn, query, &envelope, strict)
                }
            };
            self.hear(heard);
        }
    }

    /// The session is there (again): what was put on an earlier connection is put anew, behind a cancel of what may survive.
    fn welcomed(&mut self, p: usize, n: usize) {
        let up = self.plan.link_up;
        let Some(wire) = self.wire(p, n) else { return };
        wire.usable = up;
        wire.unput.clear();
        for (&id, started) in &wire.started {
            if started.query.is_some() {
                wire.unput.push_back(Put::Cancel(started.envelope.clone()));
            }
            wire.unput.push_back(Put::Start(id));
        }
        if let (true, true, Some(conn)) = (is_main(n), up, wire.conn) {
            let after = self.millis(5..500);
            self.plan_of(p, after, Happening::Checked { p, conn });
        }
        self.flush(p, n);
    }

    /// The daemon was asked what it is.
    pub(super) fn checked(&mut self, p: usize, conn: Conn) {
        let Some(&(_, n)) = self.conns.get(&conn) else { return };
        if self.wire(p, n).is_some_and(|wire| wire.conn == Some(conn) && wire.usable) {
            self.view(p, daemon_of(n), true);
        }
    }

    fn linked(&mut self, p: usize, n: usize, up: bool) {
        let Some(wire) = self.wire(p, n) else { return };
        wire.usable = up;
        if is_main(n) {
            self.view(p, daemon_of(n), up);
        }
        self.flush(p, n);
    }

    pub(super) fn room(&mut self, p: usize, n: usize, conn: Conn) {
        let Some(wire) = self.wire(p, n) else { return };
        if wire.conn == Some(conn) {
            wire.outstanding = wire.outstanding.saturating_sub(1);
            self.flush(p, n);
        }
    }

    /// The connection is gone, by whoever's doing. The thin client dials again.
    pub(super) fn lost(&mut self, p: usize, n: usize) {
        let Some(wire) = self.wire(p, n) else { return };
        let Some(conn) = wire.conn.take() else { return };
        (wire.usable, wire.outstanding, wire.dialling) = (false, 0, true);
        wire.unput.clear();
        self.conns.remove(&conn);
        self.trace(|| format!("{p}: loses connection {n}"));
        let after = self.millis(1..10_000);
        self.plan_of(p, after, Happening::Dial { p, n });
        if is_main(n) {
            self.view(p, daemon_of(n), false);
        }
    }

    /// An operation has taken too long.
    pub(super) fn overdue(&mut self, p: usize, n: usize, id: OperationId) {
        let Some(wire) = self.wire(p, n) else { return };
        let Some(started) = wire.started.get(&id) else { return };
        if started.query.is_some() {
            wire.unput.push_back(Put::Cancel(started.envelope.clone()));
        }
        self.see("operations that took too long");
        self.end_operation(p, n, id, Err(ErrorKind::Timeout));
        self.flush(p, n);
    }

    fn answered(&mut self, p: usize, n: usize, query: u64, result: Result<Option<SealedBox>, ErrorKind>) {
        let Some(wire) = self.wire(p, n) else { return };
        let Some(&id) = wire.queries.get(&query) else { return };
        let current = wire.started.get(&id).is_some_and(|started| started.query == Some(query));
        // Under an old query it is the echo of the cancel that went before the repetition.
        if current || !matches!(result, Err(ErrorKind::Cancelled)) {
            self.end_operation(p, n, id, result);
        }
    }

    fn end_operation(&mut self, p: usize, n: usize, id: OperationId, result: Result<Option<SealedBox>, ErrorKind>) {
        let Some(wire) = self.wire(p, n) else { return };
        let Some(Started { parcel, .. }) = wire.started.remove(&id) else { return };
        wire.queries.retain(|_, of| *of != id);
        let Parcel { channel, seq, what, payload } = parcel;
        self.trace(|| {
            let end = result.as_ref().map_or_else(ToString::to_string, |_| "well".to_owned());
            format!("{p}: {channel}/{seq} {what:?} ended: {end}")
        });
        let error = |operation, kind| Error { operation, kind };
        let ending = if let Operation::Write { strict } = what {
            transfer::written(
                strict,
                match result {
                    Ok(_) => Ok(WriteOutcome::Done),
                    Err(ErrorKind::Replica(10)) => Ok(WriteOutcome::AlreadyExists),
                    Err(kind) => Err(error(thin::Operation::Write, kind)),
                },
            )
        } else {
            let found = match result {
                Ok(Some(sealed)) if sealed.payload.is_empty() => Ok(ReadOutcome::Tombstone),
                Ok(sealed) => sealed
                    .and_then(|sealed| self.boxes.open(channel, seq.0, &sealed))
                    .map(ReadOutcome::Box)
                    .ok_or(ErrorKind::Unauthentic(22)),
                Err(ErrorKind::Replica(1)) => Ok(ReadOutcome::NotFound),
                Err(ErrorKind::Replica(11)) => Ok(ReadOutcome::Tombstone),
                Err(kind) => Err(kind),
            };
            transfer::read(what, &payload, found.map_err(|kind| error(thin::Operation::Read, kind)))
        };
        if let Some(what) = match ending.end {
            End::Written(Outcome::Couriered) => Some("boxes that a courier has"),
            End::Written(Outcome::Stored) => Some("boxes that a replica has"),
            End::Written(Outcome::Occupied) => Some("places that were taken"),
            End::Written(Outcome::Stale) => Some("stale envelopes"),
            End::WasRead(ReadBack::Ours) => Some("places that were taken by ourselves"),
            End::WasRead(ReadBack::Foreign(Foreign::Bytes)) => Some("places that were taken by others"),
            End::WasRead(ReadBack::Foreign(Foreign::Tombstone)) => Some("places that others deleted"),
            End::Answered(Answer::NotYet) => Some("boxes that were not there"),
            _ => None,
        } {
            self.see(what);
        }
        self.tell(p, Message::Ended(id, ending));
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
            let Some(&(p, n)) = self.conns.get(&conn) else { continue };
            match heard {
                Heard::Room(_) => self.plan_of(p, Time::ZERO, Happening::Room { p, n, conn }),
                Heard::Ended { query, code: 0, .. } => self.answered(p, n, query, Ok(None)),
                Heard::Ended { query, code, courier, .. } => {
                    self.answered(p, n, query, Err(thin::started(code, courier)));
                }
                Heard::Box { query, sealed, .. } => self.answered(p, n, query, Ok(Some(sealed))),
                Heard::Token { .. } => self.welcomed(p, n),
                Heard::Link { up, .. } => self.linked(p, n, up),
                Heard::Hangup(_) => self.lost(p, n),
            }
        }
    }
}
