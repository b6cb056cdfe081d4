//! What a started operation goes through, from its first packet to its reply (`thin-client-protocol.md` §4.3–§4.5,
//! `pigeonhole-internals.md` §4.2, §4.3).
//!
//! An operation sticks to its courier, and each of its packets to one SURB: an answer to an earlier one finds nobody.
//! There is no limit and no back-off; only its own end, a cancel or the end of its session ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Action, Conn, Reply, Started, StartedCopy};
use super::session::SessionId;
use super::stats::Kind;
use super::timeline::StepKey;
use super::worker::Outgoing;
use super::{Core, Packet, Step};
use crate::bacap::{BoxId, SealedBox, WriteCap};
use crate::localnet::backend::{BoxStore, COURIER_INVALID_ENVELOPE, COURIER_INVALID_EPOCH, CopyAnswer, CourierAnswer};
use crate::localnet::envelope::{Inner, Query};
use crate::localnet::replica;
use crate::localnet::wire::{INTERNAL_ERROR, ReadWith};
use crate::thin::message::ID_BYTES;

const CACHE_CORRUPTION: u8 = 12;
const PROPAGATION_ERROR: u8 = 13;
pub(super) const CANCELLED: u8 = 24;
const COPY_FAILED: u8 = 26;
const INVALID_ENVELOPE: u8 = 31;
const INVALID_EPOCH: u8 = 32;
/// Operations under way; more are refused. Upstream's daemon takes them until its memory ends.
pub(super) const OPERATIONS: usize = 65_536;
/// Where no packet takes time, a courier that has no answer yet is asked again after this, and not at once for ever.
const BREATH: Duration = Duration::from_millis(10);
/// How often that time is doubled, at most, for a read of a box that is not there: 5.12 s.
const LONGEST_BREATH: u32 = 9;

pub(super) type OpId = u64;

/// What a packet carries to a courier.
#[derive(Clone)]
pub(super) enum Load {
    Envelope(Arc<Envelope>),
    Copy(Arc<WriteCap>),
}

pub(super) struct Envelope {
    query: Option<Query>,
    authentic: bool,
}

/// What a courier answers.
#[derive(Clone)]
pub(super) enum ServiceAnswer {
    Envelope(CourierAnswer),
    Copy(CopyAnswer),
}

enum Work {
    Write { strict: bool },
    Read { read: Box<ReadWith>, no_retry: bool },
    Copy,
}

/// What an operation waits for.
enum Stage {
    /// For an answer, until the step says that it is overdue.
    Sent(StepKey),
    /// For a tick.
    Queued,
    /// For the time to ask again.
    Paused(StepKey),
    /// For nothing: it is being handled.
    Handled,
}

pub(super) struct Operation {
    session: SessionId,
    query_id: [u8; ID_BYTES],
    hash: [u8; 32],
    work: Work,
    load: Load,
    courier: usize,
    stage: Stage,
    /// Whose answer is awaited; 0: nobody's.
    surb: u64,
    packets: u64,
    /// Whether the awaited box was written since a courier was last asked for it.
    news: bool,
}

#[derive(Default)]
pub(super) struct Operations {
    all: BTreeMap<OpId, Operation>,
    /// The latest operation of each hash: an earlier one cannot be cancelled any more.
    by_envelope: BTreeMap<[u8; 32], OpId>,
    by_stream: BTreeMap<[u8; 32], OpId>,
    /// Reads that are to hear of a write to their box, where reads are kind.
    by_box: BTreeMap<BoxId, BTreeSet<OpId>>,
}

impl Operations {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn cancellable(&self) -> usize {
        self.by_envelope.len() + self.by_stream.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.by_box.values().map(BTreeSet::len).sum()
    }

    pub(super) fn belongs_to(&mut self, op: OpId, session: SessionId) {
        if let Some(op) = self.all.get_mut(&op) {
            op.session = session;
        }
    }
}

impl Operation {
    fn kind(&self) -> Kind {
        match self.work {
            Work::Write { strict: false } => Kind::Write,
            Work::Write { strict: true } => Kind::StrictWrite,
            Work::Read { .. } => Kind::Read,
            Work::Copy => Kind::Copy,
        }
    }

    /// The box that a read without an end of its own waits for.
    fn awaited_box(&self) -> Option<BoxId> {
        match (&self.work, &self.load) {
            (Work::Read { no_retry: false, .. }, Load::Envelope(envelope)) => match envelope.query.as_ref()?.inner {
                Inner::Read(box_id) => Some(box_id),
                Inner::Write(_) => None,
            },
            _ => None,
        }
    }
}

impl<S: BoxStore> Core<S> {
    /// Sends what waited for its first tick. Says whether a packet left.
    pub(super) fn dispatch(&mut self, session: SessionId, conn: Conn, outgoing: Outgoing) -> bool {
        match outgoing {
            Outgoing::Start(started) => self.start(session, *started),
            Outgoing::Copy(copy) => self.start_copy(session, conn, *copy),
            Outgoing::Send(legacy) => self.send_legacy(session, conn, *legacy),
            Outgoing::Empty => false,
        }
    }

    fn start(&mut self, session: SessionId, started: Started) -> bool {
        if self.operations.len() >= OPERATIONS {
            let refused = Reply::Ended { query_id: started.query_id, code: INTERNAL_ERROR, courier: None };
            self.tell(session, refused);
            return false;
        }
        let work = match started.read {
            Some(read) => Work::Read { read, no_retry: started.no_retry },
            None => Work::Write { strict: started.strict },
        };
        let load = Load::Envelope(Arc::new(Envelope { query: started.query, authentic: started.authentic }));
        let courier = self.mixnet.courier(self.couriers.len());
        self.begin(session, started.query_id, started.hash, work, load, courier)
    }

    fn start_copy(&mut self, session: SessionId, conn: Conn, copy: StartedCopy) -> bool {
        let courier = match copy.courier {
            None => Some(self.mixnet.courier(self.couriers.len())),
            Some(pinned) => self.couriers.iter().position(|courier| *courier == pinned),
        };
        let Some(courier) = courier.filter(|_| self.operations.len() < OPERATIONS) else {
            let ended = Reply::CopyEnded { query_id: copy.query_id, code: INTERNAL_ERROR, replica: 0, envelope: 0 };
            self.actions.push(Action::Tell(conn, ended));
            return false;
        };
        self.begin(session, copy.query_id, copy.hash, Work::Copy, Load::Copy(Arc::new(copy.write_cap)), courier)
    }

    fn begin(
        &mut self,
        session: SessionId,
        query_id: [u8; ID_BYTES],
        hash: [u8; 32],
        work: Work,
        load: Load,
        courier: usize,
    ) -> bool {
        let id = self.next_serial();
        let operation = Operation {
            session,
            query_id,
            hash,
            work,
            load,
            courier,
            stage: Stage::Handled,
            surb: 0,
            packets: 0,
            news: false,
        };
        let by_hash = match operation.work {
            Work::Copy => &mut self.operations.by_stream,
            _ => &mut self.operations.by_envelope,
        };
        by_hash.insert(hash, id);
        if self.profile.kind_reads
            && let Some(box_id) = operation.awaited_box()
        {
            self.operations.by_box.entry(box_id).or_default().insert(id);
        }
        self.operations.all.insert(id, operation);
        if let Some(session) = self.clients.sessions.get_mut(&session) {
            session.operations.insert(id);
        }
        self.send(id)
    }

    /// Sends the packet of an operation, and plans when to miss the answer. Says whether there was one to send.
    pub(super) fn send(&mut self, id: OpId) -> bool {
        let (surb, link, now) = (self.next_serial(), self.egress.link, self.timeline.now());
        let Some(op) = self.operations.all.get_mut(&id) else { return false };
        let trip = self.mixnet.round_trip();
        let overdue = now + trip.expected + self.profile.resend_after;
        op.stage = Stage::Sent(self.timeline.plan(overdue, Step::Overdue(id)));
        op.surb = surb;
        op.packets += 1;
        self.counted.packets.add(op.kind());
        for delay in self.mixnet.packet(trip.forward).into_iter().flatten() {
            let (courier, load) = (op.courier, op.load.clone());
            let packet = Packet { op: id, surb, link, courier, back: trip.back, load };
            self.timeline.after(delay, Step::AtCourier(Box::new(packet)));
        }
        true
    }

    /// A packet is at its courier, be its operation over or not.
    pub(super) fn at_courier(&mut self, packet: Packet) {
        let Packet { op, surb, link, courier, back, load } = packet;
        if let Some(op) = self.operations.all.get_mut(&op) {
            op.news = false;
        }
        let wall = self.timeline.wall();
        let answer = match &load {
            Load::Envelope(envelope) => ServiceAnswer::Envelope(match &envelope.query {
                None => CourierAnswer::Error(COURIER_INVALID_ENVELOPE),
                Some(query) => self.backend.envelope(wall, courier, query, envelope.authentic),
            }),
            Load::Copy(write_cap) => ServiceAnswer::Copy(self.backend.copy(wall, courier, write_cap)),
        };
        self.wake_parked();
        let [first, second] = self.mixnet.reply(back);
        if let Some(delay) = second {
            self.timeline.after(delay, Step::Answered { op, surb, link, answer: answer.clone() });
        }
        if let Some(delay) = first {
            self.timeline.after(delay, Step::Answered { op, surb, link, answer });
        }
    }

    /// A courier's answer is at the daemon.
    pub(super) fn answered(&mut self, id: OpId, surb: u64, link: u64, answer: ServiceAnswer) {
        if link != self.egress.link {
            self.counted.replies_lost += 1;
            return;
        }
        match self.operations.all.get_mut(&id) {
            Some(op) if op.surb == surb => op.surb = 0,
            _ => return,
        }
        self.stop_waiting(id);
        match answer {
            ServiceAnswer::Envelope(answer) => self.answered_envelope(id, answer),
            ServiceAnswer::Copy(answer) => self.answered_copy(id, answer),
        }
    }

    fn answered_envelope(&mut self, id: OpId, answer: CourierAnswer) {
        let Some(op) = self.operations.all.get(&id) else { return };
        match (&op.work, answer) {
            (_, CourierAnswer::Error(code)) => self.end(id, thin_code(code)),
            (Work::Write { strict: false }, CourierAnswer::Ack) => self.end(id, replica::SUCCESS),
            (_, CourierAnswer::Ack) if self.is_instant() && op.packets > 1 => self.pause(id, BREATH),
            (_, CourierAnswer::Ack) => self.again(id),
            (Work::Read { no_retry: false, .. }, CourierAnswer::Payload { code: replica::BOX_ID_NOT_FOUND, .. }) => {
                self.not_found(id);
            }
            (Work::Read { .. }, CourierAnswer::Payload { sealed: Some(sealed), .. }) => self.end_with_box(id, sealed),
            // The answer to a write, told to a read.
            (Work::Read { .. }, CourierAnswer::Payload { code: replica::SUCCESS, .. }) => self.end(id, INTERNAL_ERROR),
            (Work::Write { strict: false }, CourierAnswer::Payload { code: replica::BOX_ALREADY_EXISTS, .. }) => {
                self.end(id, replica::SUCCESS);
            }
            (_, CourierAnswer::Payload { code, .. }) => self.end(id, code),
        }
    }

    fn answered_copy(&mut self, id: OpId, answer: CopyAnswer) {
        let Some(op) = self.operations.all.get(&id) else { return };
        let (code, replica, envelope) = match answer {
            CopyAnswer::InProgress if self.is_instant() && op.packets > 1 => {
                return self.pause(id, self.profile.copy_poll.max(BREATH));
            }
            CopyAnswer::InProgress if self.profile.copy_poll.is_zero() => return self.again(id),
            CopyAnswer::InProgress => return self.pause(id, self.profile.copy_poll),
            CopyAnswer::Succeeded => (0, 0, 0),
            CopyAnswer::Failed { code, envelope } => (COPY_FAILED, code, envelope),
        };
        if let Some(op) = self.finish(id) {
            self.counted.ended.add(Kind::Copy);
            self.tell(op.session, Reply::CopyEnded { query_id: op.query_id, code, replica, envelope });
        }
    }

    /// A read that has no end of its own asks on. Where no packet takes time it pauses before, longer each time, so that
    /// it does not go round and round; where reads are kind, a write of its box ends the pause.
    fn not_found(&mut self, id: OpId) {
        let Some(op) = self.operations.all.get(&id) else { return };
        if !self.is_instant() || op.news {
            self.again(id);
        } else {
            let doublings = u32::try_from(op.packets).unwrap_or(u32::MAX).min(LONGEST_BREATH);
            self.pause(id, BREATH * 2_u32.pow(doublings));
        }
    }

    /// Reads whose box has been written ask again.
    pub(super) fn wake_parked(&mut self) {
        for box_id in self.backend.take_written() {
            for id in self.operations.by_box.get(&box_id).cloned().unwrap_or_default() {
                let Some(op) = self.operations.all.get_mut(&id) else { continue };
                op.news = true;
                if let Stage::Paused(_) = op.stage {
                    self.stop_waiting(id);
                    self.again(id);
                }
            }
        }
    }

    /// No answer came in time. One that still comes before the operation is sent again counts.
    pub(super) fn overdue(&mut self, id: OpId) {
        self.counted.resent += 1;
        self.again(id);
    }

    /// The operation goes where it waits for a tick.
    pub(super) fn again(&mut self, id: OpId) {
        let Some(op) = self.operations.all.get_mut(&id) else { return };
        op.stage = Stage::Queued;
        let session = op.session;
        self.resend(session, id);
    }

    fn pause(&mut self, id: OpId, delay: Duration) {
        let at = self.timeline.now() + delay;
        if let Some(op) = self.operations.all.get_mut(&id) {
            op.stage = Stage::Paused(self.timeline.plan(at, Step::Again(id)));
        }
    }

    fn end(&mut self, id: OpId, code: u8) {
        if let Some(op) = self.finish(id) {
            self.counted.ended.add(op.kind());
            self.tell(op.session, Reply::Ended { query_id: op.query_id, code, courier: Some(op.courier) });
        }
    }

    fn end_with_box(&mut self, id: OpId, sealed: SealedBox) {
        let Some(op) = self.finish(id) else { return };
        self.counted.ended.add(op.kind());
        if let Work::Read { read, .. } = op.work {
            self.tell(op.session, Reply::Box { query_id: op.query_id, read, sealed, courier: op.courier });
        }
    }

    /// Cancels the latest operation of an envelope, if it was sent and is not over. Its end is told to who cancels,
    /// whoever started it.
    pub(super) fn cancel(&mut self, conn: Conn, hash: [u8; 32]) {
        if let Some(id) = self.operations.by_envelope.get(&hash).copied()
            && let Some(op) = self.finish(id)
        {
            self.counted.cancelled += 1;
            let ended = Reply::Ended { query_id: op.query_id, code: CANCELLED, courier: Some(op.courier) };
            self.actions.push(Action::Tell(conn, ended));
        }
    }

    /// The same for a copy command, by the hash of its write capability.
    pub(super) fn cancel_copy(&mut self, conn: Conn, hash: [u8; 32]) {
        if let Some(id) = self.operations.by_stream.get(&hash).copied()
            && let Some(op) = self.finish(id)
        {
            self.counted.cancelled += 1;
            let ended = Reply::CopyEnded { query_id: op.query_id, code: CANCELLED, replica: 0, envelope: 0 };
            self.actions.push(Action::Tell(conn, ended));
        }
    }

    /// Forgets an operation. What is on its way for it finds nobody.
    pub(super) fn finish(&mut self, id: OpId) -> Option<Operation> {
        self.stop_waiting(id);
        let op = self.operations.all.remove(&id)?;
        let by_hash = match op.work {
            Work::Copy => &mut self.operations.by_stream,
            _ => &mut self.operations.by_envelope,
        };
        if by_hash.get(&op.hash) == Some(&id) {
            by_hash.remove(&op.hash);
        }
        if let Some(session) = self.clients.sessions.get_mut(&op.session) {
            session.operations.remove(&id);
        }
        if let Some(box_id) = op.awaited_box()
            && let Some(waiting) = self.operations.by_box.get_mut(&box_id)
        {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.operations.by_box.remove(&box_id);
            }
        }
        Some(op)
    }

    fn stop_waiting(&mut self, id: OpId) {
        let Some(op) = self.operations.all.get_mut(&id) else { return };
        let session = op.session;
        match std::mem::replace(&mut op.stage, Stage::Handled) {
            Stage::Sent(step) | Stage::Paused(step) => drop(self.timeline.withdraw(step)),
            Stage::Queued => self.withdraw_resend(session, id),
            Stage::Handled => {}
        }
    }

    /// Whether an operation's rounds take no time at all, so that it must not go round and round.
    fn is_instant(&self) -> bool {
        self.profile.tick.is_zero() && self.mixnet.is_instant()
    }
}

/// What the daemon makes of a courier's own code.
fn thin_code(code: u8) -> u8 {
    match code {
        2 => CACHE_CORRUPTION,
        3 => PROPAGATION_ERROR,
        COURIER_INVALID_EPOCH => INVALID_EPOCH,
        _ => INVALID_ENVELOPE,
    }
}
