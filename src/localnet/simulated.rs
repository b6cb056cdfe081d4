//! The core over boxes in memory, in virtual time, for simulations of what stands in front of it. Compiled for tests alone.
//!
//! Boxes go in and come out as they are: who simulates says what a sealed box is, and opens it. Frames, sockets, clocks and
//! encryption are not here; what couriers and replicas do with a box is, whole.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::backend::{Backend, Memory};
use super::core::{Action, Control, Core, Event, Reply, Request, Setup, Started};
use super::document::{Identity, courier_hashes, replica_keys};
use super::envelope::{Inner, Query};
use super::faults::Faults;
use super::profile::Profile;
use super::replica::replica_epoch;
use super::shard;
use super::wire::ReadWith;
use crate::bacap::{BoxId, SealedBox, WriteCap};

/// The network's session grace.
const GRACE: Duration = Duration::from_secs(600);

/// A connection of a client.
pub(crate) type Conn = u64;

/// An envelope around one box, fresh for each that is made.
#[derive(Clone)]
pub(crate) struct Envelope(Query);

/// What a client hears.
pub(crate) enum Heard {
    /// One of its requests is done with: another may be put. Two may be outstanding.
    Room(Conn),
    /// An operation ended with a code; whether the answer names a courier.
    Ended { conn: Conn, query: u64, code: u8, courier: bool },
    /// A read ended with a box.
    Box { conn: Conn, query: u64, sealed: SealedBox },
    /// The session is known by its token.
    Token { conn: Conn },
    /// The daemon's link to the mixnet is up or down.
    Link { conn: Conn, up: bool },
    /// The daemon closed the connection.
    Hangup(Conn),
}

/// A network without sockets, files, threads or a clock.
pub(crate) struct Simulated {
    core: Core<Memory>,
    keys: Vec<[u8; 32]>,
    dice: StdRng,
    /// Stands for the capability that a read is opened with, which nobody uses here.
    cap: WriteCap,
    serial: u64,
}

impl Simulated {
    /// A network of boxes of `max_plaintext`, behind so many daemons. The seed decides all that is random in it.
    pub(crate) fn new(profile: Profile, max_plaintext: usize, daemons: usize, seed: u64) -> Self {
        let identity = Identity { envelope_key: [5; 32], authority_key: [6; 32], courier_key: [7; 32] };
        let keys = replica_keys(&identity, profile.replicas);
        let backend = Backend::new(Memory::default(), max_plaintext, &profile, &identity, seed);
        let setup = Setup {
            couriers: courier_hashes(&identity, profile.couriers),
            profile,
            faults: Faults::default(),
            daemons,
            grace: GRACE,
            echoes: Vec::new(),
            seed,
        };
        Self {
            core: Core::new(backend, setup),
            keys,
            dice: StdRng::seed_from_u64(!seed),
            cap: WriteCap::from_seed(&[1; 32]),
            serial: 0,
        }
    }

    /// When the network wants to be woken, by its wall clock.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.core.next_deadline()
    }

    /// What is due by `wall` happens.
    pub(crate) fn tick(&mut self, wall: Duration) -> Vec<Heard> {
        self.event(wall, Event::Tick)
    }

    /// A client connects to a daemon; its session is the one of the token, or a new one.
    pub(crate) fn connect(&mut self, wall: Duration, conn: Conn, daemon: usize, token: u64) -> Vec<Heard> {
        let mut heard = self.event(wall, Event::Connected(conn, daemon));
        heard.extend(self.event(wall, Event::Request(conn, Request::Token(id(token)))));
        heard
    }

    /// The connection breaks; the session lives on for a while.
    pub(crate) fn disconnect(&mut self, wall: Duration, conn: Conn) -> Vec<Heard> {
        self.event(wall, Event::Disconnected(conn))
    }

    /// The client says goodbye; its session is over.
    pub(crate) fn close(&mut self, wall: Duration, conn: Conn) -> Vec<Heard> {
        self.event(wall, Event::Closed(conn))
    }

    /// An envelope to write a box, as of the epoch at `wall`.
    pub(crate) fn envelope_to_write(&mut self, wall: Duration, sealed: SealedBox) -> Envelope {
        self.envelope(wall, Inner::Write(sealed))
    }

    /// An envelope to read a box.
    pub(crate) fn envelope_to_read(&mut self, wall: Duration, box_id: BoxId) -> Envelope {
        self.envelope(wall, Inner::Read(box_id))
    }

    /// Starts what the envelope says: a write strict or not, a read that says so where there is no box.
    pub(crate) fn start(
        &mut self,
        wall: Duration,
        conn: Conn,
        query: u64,
        envelope: &Envelope,
        strict: bool,
    ) -> Vec<Heard> {
        let read = matches!(envelope.0.inner, Inner::Read(_));
        let started = Started {
            query_id: id(query),
            hash: envelope.0.hash,
            query: Some(envelope.0.clone()),
            authentic: true,
            read: read.then(|| Box::new(ReadWith::new(self.cap.read_cap().clone(), self.cap.index().clone()))),
            no_retry: true,
            strict,
        };
        self.event(wall, Event::Request(conn, Request::Start(Box::new(started))))
    }

    /// Cancels what was started with the envelope, if it still runs.
    pub(crate) fn cancel(&mut self, wall: Duration, conn: Conn, envelope: &Envelope) -> Vec<Heard> {
        self.event(wall, Event::Request(conn, Request::Cancel { query_id: id(0), hash: envelope.0.hash }))
    }

    pub(crate) fn set_faults(&mut self, wall: Duration, faults: Faults) -> Vec<Heard> {
        self.control(wall, Control::Faults(Box::new(faults)))
    }

    /// The daemon's link to its gateway.
    pub(crate) fn link(&mut self, wall: Duration, up: bool) -> Vec<Heard> {
        self.control(wall, Control::Link(up))
    }

    /// Every daemon starts anew: sessions and operations are forgotten, boxes are not.
    pub(crate) fn restart(&mut self, wall: Duration) -> Vec<Heard> {
        self.control(wall, Control::Restart)
    }

    /// One daemon does.
    pub(crate) fn restart_one(&mut self, wall: Duration, daemon: usize) -> Vec<Heard> {
        self.control(wall, Control::RestartOne(daemon))
    }

    /// A daemon's packets leave so many times as rarely.
    pub(crate) fn slow(&mut self, wall: Duration, daemon: usize, times: f64) -> Vec<Heard> {
        self.control(wall, Control::Slow(daemon, times))
    }

    /// The wall clock jumps.
    pub(crate) fn jump(&mut self, from: Duration, to: Duration) -> Vec<Heard> {
        self.control(to, Control::Jumped { from, to })
    }

    /// Another writer's box is at both of its holders.
    pub(crate) fn plant(&mut self, wall: Duration, sealed: SealedBox) -> Vec<Heard> {
        self.control(wall, Control::Foreign(Box::new(sealed)))
    }

    /// What the replicas hold of a box, whoever of them.
    pub(crate) fn held(&mut self, wall: Duration, box_id: &BoxId) -> Vec<SealedBox> {
        self.core.store().held(box_id, replica_epoch(wall))
    }

    /// Operations that the daemon has, and all else that it and what is behind it hold.
    pub(crate) fn load(&self) -> (usize, usize) {
        let census = self.core.census();
        let behind = census.backend;
        let other = census.outgoing + census.resends + census.away + census.steps + census.requests;
        (census.operations, other + behind.cached + behind.dispatches + behind.replications)
    }

    fn envelope(&mut self, wall: Duration, inner: Inner) -> Envelope {
        self.serial += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.serial.to_be_bytes());
        let (Inner::Read(box_id) | Inner::Write(SealedBox { box_id, .. })) = &inner;
        let replicas = shard::intermediaries(&self.keys, box_id, &mut self.dice)
            .map(|number| u8::try_from(number).expect("few replicas"));
        Envelope(Query { epoch: replica_epoch(wall), hash, replicas, reply_index: 0, inner })
    }

    fn control(&mut self, wall: Duration, control: Control) -> Vec<Heard> {
        self.event(wall, Event::Control(control))
    }

    fn event(&mut self, wall: Duration, event: Event) -> Vec<Heard> {
        self.core.handle(wall, event).into_iter().filter_map(heard).collect()
    }
}

fn heard(action: Action) -> Option<Heard> {
    let (conn, reply) = match action {
        Action::Tell(conn, reply) => (conn, reply),
        Action::Read(conn) => return Some(Heard::Room(conn)),
        Action::Hangup(conn) => return Some(Heard::Hangup(conn)),
    };
    match reply {
        Reply::Ended { query_id, code, courier } => {
            Some(Heard::Ended { conn, query: number(query_id), code, courier: courier.is_some() })
        }
        Reply::Box { query_id, sealed, .. } => Some(Heard::Box { conn, query: number(query_id), sealed }),
        Reply::Token { .. } => Some(Heard::Token { conn }),
        Reply::Status { connected } => Some(Heard::Link { conn, up: connected }),
        _ => None,
    }
}

fn id(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn number(id: [u8; 16]) -> u64 {
    u64::try_from(u128::from_be_bytes(id)).unwrap_or(u64::MAX)
}
