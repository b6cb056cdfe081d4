//! The core in virtual time: no sockets, no threads, no waiting.

mod clients;
mod faults;
mod model;
mod operations;
mod queues;

use std::time::Duration;

use super::event::{Legacy, StartedCopy};
use super::operation::CANCELLED;
use super::*;
use crate::bacap::{BoxId, BoxIndex, SealedBox, WriteCap};
use crate::localnet::backend::Memory;
use crate::localnet::document::Identity;
use crate::localnet::envelope::{Inner, Query};
use crate::localnet::faults::Faults;
use crate::localnet::replica::{self, replica_epoch};
use crate::localnet::wire::ReadWith;
use crate::thin::message::ID_BYTES;

const M: usize = 100;
/// Some Friday.
const T0: Duration = Duration::from_secs(1_795_800_000);
const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(600);
const ECHO: ([u8; 32], &[u8]) = ([41; 32], b"+echo");

/// A core over boxes in memory, and what it has done.
struct World {
    core: Core<Memory>,
    now: Duration,
    /// What was told, when, and to whom.
    told: Vec<(Duration, Conn, Reply)>,
    /// Requests asked, and done with, by their connections.
    asked: Vec<Conn>,
    reads: Vec<Conn>,
    hangups: Vec<Conn>,
    cap: WriteCap,
    serial: u64,
}

impl World {
    /// With a client at connection 1.
    fn new(profile: Profile) -> Self {
        Self::with(profile, Faults::default(), 1)
    }

    fn with(profile: Profile, faults: Faults, seed: u64) -> Self {
        let identity = Identity { envelope_key: [5; 32], authority_key: [6; 32], courier_key: [7; 32] };
        let backend = Backend::new(Memory::default(), M, &profile, &identity, seed);
        let setup = Setup {
            couriers: (0..profile.couriers).map(|courier| [u8::try_from(courier).expect("few"); 32]).collect(),
            profile,
            faults,
            daemons: 1,
            grace: GRACE,
            echoes: vec![Echo { node: ECHO.0, queue: ECHO.1.to_vec() }],
            seed,
        };
        let mut world = Self {
            core: Core::new(backend, setup),
            now: T0,
            told: Vec::new(),
            asked: Vec::new(),
            reads: Vec::new(),
            hangups: Vec::new(),
            cap: WriteCap::from_seed(&[1; 32]),
            serial: 0,
        };
        world.event(Event::Connected(1, 0));
        world
    }

    fn event(&mut self, event: Event) {
        for action in self.core.handle(self.now, event) {
            match action {
                Action::Tell(conn, reply) => self.told.push((self.now, conn, reply)),
                Action::Read(conn) => self.reads.push(conn),
                Action::Hangup(conn) => self.hangups.push(conn),
            }
        }
    }

    fn ask(&mut self, conn: Conn, request: Request) {
        self.asked.push(conn);
        self.event(Event::Request(conn, request));
    }

    /// Lets time pass, and what is due happen.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Goes to the next thing that is due by `end`, if there is any.
    fn step(&mut self, end: Duration) -> bool {
        let Some(due) = self.core.next_deadline().filter(|due| *due <= end) else { return false };
        self.now = self.now.max(due);
        self.event(Event::Tick);
        true
    }

    /// Lets time pass until `count` replies have come since the last look, and gives them.
    fn replies(&mut self, count: usize) -> Vec<(Conn, Reply)> {
        let end = self.now + Duration::from_secs(100_000);
        while self.told.len() < count {
            assert!(self.step(end), "{} of {count} replies came", self.told.len());
        }
        self.drain()
    }

    fn reply(&mut self) -> Reply {
        let mut replies = self.replies(1);
        assert_eq!(replies.len(), 1, "one reply was expected");
        replies.remove(0).1
    }

    fn drain(&mut self) -> Vec<(Conn, Reply)> {
        self.told.drain(..).map(|(_, conn, reply)| (conn, reply)).collect()
    }

    fn control(&mut self, control: Control) {
        self.event(Event::Control(control));
    }

    fn faults(&mut self, faults: Faults) {
        self.control(Control::Faults(Box::new(faults)));
    }

    /// A fresh envelope.
    fn started(&mut self, inner: Inner, read: Option<&BoxIndex>) -> Started {
        self.serial += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.serial.to_be_bytes());
        Started {
            query_id: id(self.serial),
            hash,
            query: Some(Query { epoch: replica_epoch(self.now), hash, inner, replicas: [0, 1], reply_index: 0 }),
            authentic: true,
            read: read.map(|index| Box::new(ReadWith::new(self.cap.read_cap().clone(), index.clone()))),
            no_retry: false,
            strict: false,
        }
    }

    /// A write of a box that nobody reads back.
    fn write(&mut self, number: u64, text: u8, strict: bool) -> Started {
        Started { strict, ..self.started(Inner::Write(sealed(number, text)), None) }
    }

    fn read(&mut self, number: u64, no_retry: bool) -> Started {
        let index = self.cap.index().clone();
        Started { no_retry, ..self.started(Inner::Read(box_id(number)), Some(&index)) }
    }

    /// A box that is there.
    fn plant(&mut self, number: u64) {
        self.control(Control::Foreign(Box::new(sealed(number, 1))));
    }

    /// Somebody else's envelope comes to each courier, which then forgets what is older than 5 minutes.
    fn pass_by(&mut self) {
        for courier in 0..self.core.couriers.len() {
            let query = self.started(Inner::Read(box_id(u64::MAX)), None).query.expect("a query");
            self.core.backend.envelope(self.core.timeline.wall(), courier, &query, true);
        }
    }

    /// Everybody says goodbye, and what is on its way arrives.
    fn end(mut self) {
        for conn in 0..100 {
            self.event(Event::Closed(conn));
        }
        self.pass(Duration::from_secs(3600));
        let census = self.core.census();
        assert!(census.is_empty(), "something is left: {census:?}");
    }
}

fn start(started: Started) -> Request {
    Request::Start(Box::new(started))
}

fn local(cost: Duration) -> Request {
    Request::Local { answer: Box::default(), cost }
}

fn id(number: u64) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn box_id(number: u64) -> BoxId {
    let mut id = [9; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    BoxId(id)
}

fn sealed(number: u64, text: u8) -> SealedBox {
    SealedBox { box_id: box_id(number), payload: vec![text; M + 20], signature: [text; 64] }
}

/// The query, and the code by which it ended; a box that was found is a success.
fn ended(reply: &Reply) -> ([u8; ID_BYTES], u8) {
    match reply {
        Reply::Ended { query_id, code, courier: Some(_) } => (*query_id, *code),
        Reply::Box { query_id, .. } => (*query_id, 0),
        other => panic!("not the end of an operation: {}", name(other)),
    }
}

fn code(reply: &Reply) -> u8 {
    ended(reply).1
}

fn name(reply: &Reply) -> String {
    match reply {
        Reply::Token { resumed, .. } => format!("token {resumed}"),
        Reply::Local(_) => "local".to_owned(),
        Reply::Ended { query_id, code, courier } => {
            format!("ended {} {code} {}", query_id[7], courier.map_or(-1, |courier| courier as i64))
        }
        Reply::Box { query_id, courier, .. } => format!("box {} {courier}", query_id[7]),
        Reply::Cancelled { .. } => "cancelled".to_owned(),
        Reply::CopyEnded { code, replica, envelope, .. } => format!("copy {code} {replica} {envelope}"),
        Reply::CopyCancelled { .. } => "copy cancelled".to_owned(),
        Reply::Sent { error, .. } => format!("sent {}", error.is_some()),
        Reply::Replied { payload, .. } => format!("replied {}", payload.len()),
        Reply::Status { connected } => format!("status {connected}"),
        Reply::Document => "document".to_owned(),
    }
}
