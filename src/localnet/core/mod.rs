//! The pure core: the daemon as its clients see it, in front of the couriers and replicas.
//!
//! Events and a time go in, actions come out. What takes time is planned as a step, and happens with its due time as the
//! time of now, however late the wake-up comes. The same seed and the same events give the same actions: no clock, no
//! sockets, no other randomness, no order of a hash map may enter.
//!
//! `event` is what goes in and out; `session` keeps clients and their connections apart; `worker` handles a connection's
//! requests in their order; `egress` is the sender of each daemon, a packet a tick; `operation` is what a started operation goes
//! through, `legacy` what a message does; `mixnet` is the way to the couriers and back; `stats` counts.

mod egress;
mod event;
mod legacy;
mod mixnet;
mod operation;
mod session;
mod stats;
#[cfg(test)]
mod tests;
mod timeline;
mod worker;

use std::time::Duration;

pub(super) use self::egress::Daemon;
use self::egress::Egress;
pub(super) use self::event::{Action, Conn, Control, Echo, Event, Legacy, Reply, Request, Setup, Started, StartedCopy};
use self::mixnet::Mixnet;
use self::operation::{Load, OpId, Operations, ServiceAnswer};
use self::session::{Clients, SessionId};
pub(super) use self::stats::Census;
pub use self::stats::{PerKind, Stats};
use self::timeline::Timeline;
use super::backend::{Backend, BoxStore};
use super::profile::Profile;

/// Something that happens at its time.
enum Step {
    /// A daemon sends.
    Tick(Daemon),
    /// A packet is at its courier.
    AtCourier(Box<Packet>),
    /// A courier's answer is at the daemon.
    Answered { op: OpId, surb: u64, link: u64, answer: ServiceAnswer },
    /// No answer came in time.
    Overdue(OpId),
    /// An operation has paused long enough and asks again.
    Again(OpId),
    /// Room in a session's resend queue is given to what waits outside of it.
    Rearm(SessionId),
    /// A connection's worker has its answer.
    Worked(Conn),
    /// The reply to a legacy message is at the daemon.
    Echoed { session: SessionId, link: u64, reply: Reply },
    /// A client has been away for too long.
    Expired(SessionId),
}

/// A packet on its way to a courier, with the SURB for the answer.
struct Packet {
    op: OpId,
    surb: u64,
    /// Which link to the gateway the answer can come back by.
    link: u64,
    courier: usize,
    /// What the answer will take.
    back: Duration,
    load: Load,
}

/// The daemons, the mixnet and what is behind it.
pub(super) struct Core<S> {
    backend: Backend<S>,
    profile: Profile,
    grace: Duration,
    couriers: Vec<[u8; 32]>,
    echoes: Vec<Echo>,
    mixnet: Mixnet,
    timeline: Timeline<Step>,
    egress: Egress,
    clients: Clients,
    operations: Operations,
    counted: Stats,
    serial: u64,
    actions: Vec<Action>,
}

impl<S: BoxStore> Core<S> {
    /// Daemons without clients, their links up and their document there.
    ///
    /// # Panics
    /// If the setup has no courier, or more than the profile.
    pub(super) fn new(mut backend: Backend<S>, setup: Setup) -> Self {
        assert!((1..=setup.profile.couriers).contains(&setup.couriers.len()), "a network without couriers");
        backend.set_faults(&setup.faults);
        Self {
            backend,
            grace: setup.grace,
            couriers: setup.couriers,
            echoes: setup.echoes,
            mixnet: Mixnet::new(&setup.profile, setup.faults, setup.seed),
            profile: setup.profile,
            timeline: Timeline::default(),
            egress: Egress::new(setup.daemons),
            clients: Clients::default(),
            operations: Operations::default(),
            counted: Stats::default(),
            serial: 0,
            actions: Vec::new(),
        }
    }

    pub(super) fn store(&mut self) -> &mut S {
        self.backend.store()
    }

    /// What was done since the last commit is not on the disk, and nobody was told of it: the daemon starts anew, and
    /// every connection is to be closed.
    pub(super) fn rolled_back(&mut self) {
        self.backend.rolled_back();
        self.restart(None);
        self.actions.clear();
    }

    /// Takes an event in at `wall`, a time since the Unix epoch, and gives what is to be done, in its order.
    pub(super) fn handle(&mut self, wall: Duration, event: Event) -> Vec<Action> {
        let wall = match &event {
            Event::Control(Control::Jumped { from, .. }) => *from,
            _ => wall,
        };
        self.run_until(wall);
        self.timeline.reach(wall);
        match event {
            Event::Connected(conn, daemon) => self.connected(conn, daemon),
            Event::Request(conn, request) => self.requested(conn, request),
            Event::Disconnected(conn) => self.disconnected(conn),
            Event::Closed(conn) => self.closed(conn),
            Event::Control(control) => self.changed(control),
            Event::Tick => {}
        }
        self.run_until(self.timeline.wall());
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.timeline.next_deadline().into_iter().chain(self.backend.next_deadline()).min()
    }

    /// What was counted until `wall`.
    pub(super) fn stats(&mut self, wall: Duration) -> Stats {
        self.timeline.reach(self.next_deadline().map_or(wall, |due| wall.min(due)));
        self.count_idle_ticks();
        let mishaps = self.mixnet.mishaps;
        Stats {
            lost: mishaps.lost,
            replies_lost: self.counted.replies_lost + mishaps.replies_lost,
            duplicated: mishaps.duplicated,
            delayed: mishaps.delayed,
            connections: self.clients.connections.len() as u64,
            sessions: self.clients.sessions.len() as u64,
            operations: self.operations.len() as u64,
            ..self.counted
        }
    }

    /// How much of everything is held.
    pub(super) fn census(&self) -> Census {
        let (connections, sessions) = (self.clients.connections.values(), self.clients.sessions.values());
        Census {
            connections: connections.len(),
            sessions: sessions.len(),
            tokens: self.clients.tokens.len(),
            operations: self.operations.len(),
            cancellable: self.operations.cancellable(),
            parked: self.operations.parked(),
            requests: connections.clone().map(worker::Connection::requests).sum(),
            outgoing: connections.map(|connection| connection.outgoing.len()).sum(),
            resends: sessions.clone().map(|session| session.resends.len() + session.overflow.len()).sum(),
            away: sessions.map(|session| session.away.len()).sum(),
            rotation: self.egress.waiting(),
            steps: self.timeline.len(),
            backend: self.backend.census(),
        }
    }

    fn run_until(&mut self, wall: Duration) {
        loop {
            if let Some(step) = self.timeline.pop_now() {
                self.step(step);
                continue;
            }
            let (step, behind) = (self.timeline.next_deadline(), self.backend.next_deadline());
            let Some(due) = step.into_iter().chain(behind).min().filter(|due| *due <= wall) else { return };
            if behind.is_some_and(|behind| behind <= due) {
                self.timeline.reach(due);
                self.backend.advance(due);
                self.wake_parked();
            } else if let Some(step) = self.timeline.pop() {
                self.step(step);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Tick(daemon) => self.tick(daemon),
            Step::AtCourier(packet) => self.at_courier(*packet),
            Step::Answered { op, surb, link, answer } => self.answered(op, surb, link, answer),
            Step::Overdue(op) => self.overdue(op),
            Step::Again(op) => self.again(op),
            Step::Rearm(session) => self.rearm(session),
            Step::Worked(conn) => self.worked(conn),
            Step::Echoed { session, link, reply } => self.echoed(session, link, reply),
            Step::Expired(session) => self.expired(session),
        }
    }

    fn changed(&mut self, control: Control) {
        match control {
            Control::Faults(faults) => {
                self.backend.set_faults(&faults);
                self.mixnet.set_faults(*faults);
            }
            Control::Link(up) => self.link(up),
            Control::Consensus(known) => self.consensus(known),
            Control::Restart => self.restart(None),
            Control::RestartOne(daemon) => self.restart(Some(daemon)),
            Control::Slow(daemon, times) => self.slow(daemon, times),
            Control::Epoch => self.broadcast(|| Reply::Document),
            Control::Jumped { from, to } => {
                self.backend.jumped(from, to);
                self.timeline.jump(from, to);
            }
            Control::Foreign(sealed) => {
                self.backend.plant(self.timeline.wall(), &sealed);
                self.wake_parked();
            }
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}
