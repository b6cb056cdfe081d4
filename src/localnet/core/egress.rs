//! The sender of each daemon: a Poisson process whose every tick serves one of its connections, in turn
//! (`network-performance.md` A.1, `thin-client-protocol.md` §4.1).
//!
//! A tick sends what is to be sent again before what is new. While nothing waits no ticks are planned: the process has no
//! memory, so that the next one can be drawn when something does, and those that passed idle are only counted.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Conn, Reply};
use super::operation::OpId;
use super::session::SessionId;
use super::timeline::StepKey;
use super::{Core, Step};
use crate::localnet::backend::BoxStore;

/// Operations of a session that wait to be sent again; more wait outside, and try for room again and again.
const RESENDS: usize = 8;
/// The time between two such tries.
const RETRY: Duration = Duration::from_millis(100);

/// Which of the network's daemons, from 0.
pub(in crate::localnet) type Daemon = usize;

/// What leaves by the daemons. They lose and find the network together.
pub(super) struct Egress {
    link_up: bool,
    consensus: bool,
    /// Counts the daemons' links: what was sent by one is not answered by the next.
    pub(super) link: u64,
    daemons: Vec<Sender>,
}

/// What one of them sends by.
struct Sender {
    /// Connections with something to send, the next one first.
    rotation: VecDeque<Conn>,
    tick: Option<StepKey>,
    /// Since when ticks pass with nothing to send.
    idle_since: Option<Duration>,
    /// How many times as rare as the profile says its ticks are.
    slowness: f64,
}

impl Default for Sender {
    fn default() -> Self {
        Self { rotation: VecDeque::new(), tick: None, idle_since: None, slowness: 1.0 }
    }
}

impl Sender {
    /// The mean time between two of its ticks, where that of the profile is `tick`.
    fn mean(&self, tick: Duration) -> Duration {
        if self.slowness == 1.0 {
            return tick;
        }
        // Every later time is as good as never.
        Duration::try_from_secs_f64(tick.as_secs_f64() * self.slowness).unwrap_or(tick * u32::MAX)
    }
}

impl Egress {
    pub(super) fn new(daemons: usize) -> Self {
        let daemons = (0..daemons).map(|_| Sender::default()).collect();
        Self { link_up: true, consensus: true, link: 0, daemons }
    }

    /// How many connections have something to send.
    pub(super) fn waiting(&self) -> usize {
        self.daemons.iter().map(|daemon| daemon.rotation.len()).sum()
    }
}

impl<S: BoxStore> Core<S> {
    pub(super) fn link(&mut self, up: bool) {
        if std::mem::replace(&mut self.egress.link_up, up) == up {
            return;
        }
        self.broadcast(|| Reply::Status { connected: up });
        // The gateway knows the daemon by a new queue: replies to the old one find nobody.
        self.egress.link += 1;
        self.stop_or_go();
    }

    pub(super) fn consensus(&mut self, known: bool) {
        if std::mem::replace(&mut self.egress.consensus, known) == known {
            return;
        }
        if known {
            self.broadcast(|| Reply::Document);
        }
        self.stop_or_go();
    }

    /// A daemon's ticks are so many times as rare from now on.
    pub(super) fn slow(&mut self, daemon: Daemon, times: f64) {
        let Some(sender) = self.egress.daemons.get_mut(daemon) else { return };
        sender.slowness = times;
        // The next one is drawn anew: the process has no memory.
        if let Some(tick) = sender.tick.take() {
            self.timeline.withdraw(tick);
        }
        self.stop_or_go();
    }

    /// Something of this connection is to be sent.
    pub(super) fn enter_rotation(&mut self, conn: Conn) {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
        let Some(session) = self.clients.sessions.get(&connection.session) else { return };
        if !std::mem::replace(&mut connection.in_rotation, true) {
            self.egress.daemons[session.daemon].rotation.push_back(conn);
            self.stop_or_go();
        }
    }

    pub(super) fn leave_rotation(&mut self, conn: Conn) {
        for daemon in &mut self.egress.daemons {
            daemon.rotation.retain(|other| *other != conn);
        }
        self.stop_or_go();
    }

    /// Plans each daemon's next tick where there is something to send, and withdraws it where there is not.
    pub(super) fn stop_or_go(&mut self) {
        let now = self.timeline.now();
        let open = self.egress.link_up && self.egress.consensus;
        self.count_idle_ticks();
        for (daemon, sender) in self.egress.daemons.iter_mut().enumerate() {
            if open && !sender.rotation.is_empty() {
                sender.idle_since = None;
                if sender.tick.is_none() {
                    let delay = self.mixnet.until_next(sender.mean(self.profile.tick));
                    sender.tick = Some(self.timeline.plan(now + delay, Step::Tick(daemon)));
                }
                continue;
            }
            if let Some(tick) = sender.tick.take() {
                self.timeline.withdraw(tick);
            }
            sender.idle_since = open.then_some(now);
        }
    }

    pub(super) fn count_idle_ticks(&mut self) {
        let now = self.timeline.now();
        for sender in &mut self.egress.daemons {
            let mean = sender.mean(self.profile.tick);
            if let Some(since) = &mut sender.idle_since {
                self.counted.ticks += self.mixnet.idle_ticks(now - *since, mean);
                *since = now;
            }
        }
    }

    /// One packet, or none where the request is for none.
    pub(super) fn tick(&mut self, daemon: Daemon) {
        let sender = &mut self.egress.daemons[daemon];
        sender.tick = None;
        let sent = match sender.rotation.pop_front() {
            Some(conn) => self.serve(conn),
            None => false,
        };
        self.counted.ticks += 1;
        self.counted.busy_ticks += 1;
        if sent {
            self.counted.ticks_sent += 1;
            self.counted.busy_ticks_sent += 1;
        }
        self.stop_or_go();
    }

    fn serve(&mut self, conn: Conn) -> bool {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return false };
        connection.in_rotation = false;
        let session = connection.session;
        let resend = self.clients.sessions.get_mut(&session).and_then(|session| session.resends.pop_front());
        let sent = match resend {
            Some(op) => {
                self.try_for_room(session);
                self.send(op)
            }
            None => match self.next_outgoing(conn) {
                Some(outgoing) => self.dispatch(session, conn, outgoing),
                None => false,
            },
        };
        self.keep_in_rotation(conn);
        sent
    }

    /// A connection is in the rotation if it has something to send, and only then.
    pub(super) fn keep_in_rotation(&mut self, conn: Conn) {
        let Some(connection) = self.clients.connections.get_mut(&conn) else { return };
        let session = self.clients.sessions.get(&connection.session);
        if !connection.outgoing.is_empty() || session.is_some_and(|session| !session.resends.is_empty()) {
            self.enter_rotation(conn);
        } else if std::mem::replace(&mut connection.in_rotation, false) {
            self.leave_rotation(conn);
        }
    }

    /// An operation is to be sent again. One whose client is away waits until it is back.
    pub(super) fn resend(&mut self, session: SessionId, op: OpId) {
        let now = self.timeline.now();
        let Some(known) = self.clients.sessions.get_mut(&session) else { return };
        match known.conn {
            Some(conn) if known.resends.len() < RESENDS => {
                known.resends.push_back(op);
                self.enter_rotation(conn);
            }
            _ => known.overflow.push_back((now, op)),
        }
    }

    /// An operation that was to be sent again is over, or was answered after all.
    pub(super) fn withdraw_resend(&mut self, session: SessionId, op: OpId) {
        let Some(known) = self.clients.sessions.get_mut(&session) else { return };
        if let Some(at) = known.resends.iter().position(|other| *other == op) {
            known.resends.remove(at);
            let conn = known.conn;
            self.try_for_room(session);
            if let Some(conn) = conn {
                self.keep_in_rotation(conn);
            }
        } else {
            known.overflow.retain(|(_, other)| *other != op);
        }
    }

    /// What waits outside of the resend queue tries for the room there at its next try.
    fn try_for_room(&mut self, id: SessionId) {
        let Some(session) = self.clients.sessions.get_mut(&id) else { return };
        if let (Some(&(since, _)), None) = (session.overflow.front(), session.rearm) {
            let (now, retry) = (self.timeline.now(), RETRY.div_f64(self.profile.scale).as_nanos().max(1));
            // Where a packet leaves at once there is room at once.
            let rest = match self.profile.tick {
                Duration::ZERO => 0,
                _ => retry - (now - since).as_nanos() % retry,
            };
            let rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX));
            session.rearm = Some(self.timeline.plan(now + rest, Step::Rearm(id)));
        }
    }

    /// The room in a session's resend queue goes to what waited longest.
    pub(super) fn rearm(&mut self, id: SessionId) {
        let Some(session) = self.clients.sessions.get_mut(&id) else { return };
        if let Some(rearm) = session.rearm.take() {
            self.timeline.withdraw(rearm);
        }
        let Some(conn) = session.conn else { return };
        while session.resends.len() < RESENDS
            && let Some((_, op)) = session.overflow.pop_front()
        {
            session.resends.push_back(op);
        }
        self.keep_in_rotation(conn);
    }
}
