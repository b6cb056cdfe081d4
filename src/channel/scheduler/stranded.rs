//! What a daemon has under way that another one is to do: the daemon is away, or lets an operation wait for too long.
//!
//! It is the same box with the same bytes under the same index, in a fresh envelope and strict, so nothing is lost or
//! doubled if the first daemon did it after all. A daemon that is away is given a moment to come back, as its sessions
//! live on. One that is there and slow keeps what it has until that has taken some times as long as it should; from then
//! on it is tried with one operation at a time ([`Credit`](super::server::Credit)). Where there is no other daemon, all
//! waits for the only one.

use std::time::Duration;

use super::server::Server;
use super::{Action, DaemonId, OperationId, Scheduler, Stage};
#[cfg(test)]
use crate::channel::bugs::{Bug, has};
use crate::channel::{Operation, ReceiverEvent, SenderEvent, Time};

/// An operation has waited for too long after so many times what it takes where a whole window is under way.
const TIMES: u32 = 3;
/// And this, so that a network that takes no time is not too quick with it. As long, or two round trips, a daemon that is away
/// has to come back.
const AT_LEAST: Duration = Duration::from_secs(2);

impl Scheduler {
    /// Whether a daemon may begin an operation. One that lags may not have more than a trial while others do not lag.
    pub(super) fn may_begin(&self, now: Time, daemon: DaemonId) -> bool {
        let server = self.server(daemon);
        server.credit.allows(now, server.counts.all()) || !self.has_other(daemon)
    }

    /// Whether another daemon could do as well what this one does.
    fn has_other(&self, daemon: DaemonId) -> bool {
        self.online().any(|other| other != daemon && !self.server(other).credit.lags())
    }

    /// Looks at an operation again when it will have waited for too long.
    pub(super) fn watch(&mut self, now: Time, operation: OperationId) {
        if self.servers.len() < 2 {
            return;
        }
        let Some(op) = self.under_way.get_mut(&operation) else { return };
        let server = &self.servers[usize::from(op.daemon.0)];
        let pace = &server.pace;
        let windows = u32::try_from(pace.window_boxes()).unwrap_or(u32::MAX);
        let packet = pace.round_trip() + Duration::from_secs_f64(1.0 / pace.packets_per_second()) * windows;
        let mut takes = op.what.packets() * packet;
        if let Stage::Preparing { behind, .. } = op.stage {
            takes += pace.encrypt() * behind;
        }
        let at = now + takes * TIMES + AT_LEAST;
        if let Some(before) = op.overdue_at.replace(at) {
            self.overdue.remove(&(before, operation));
        }
        self.overdue.insert((at, operation));
    }

    /// When [`Self::move_stranded`] has something to do.
    pub(super) fn next_stranded(&self, now: Time) -> Option<Time> {
        if self.servers.len() < 2 {
            return None;
        }
        let back = self.servers.iter().filter(|server| !server.online && server.counts.all() > 0);
        let back = back.map(given_up_at);
        let tried = self.servers.iter().filter(|server| server.online).filter_map(|server| server.credit.next_try(now));
        let overdue = self.overdue.first().map(|&(at, _)| at);
        back.chain(tried).chain(overdue).min()
    }

    /// Takes from daemons what others are to do. Some daemon is there.
    pub(super) fn move_stranded(&mut self, now: Time, actions: &mut Vec<Action>) {
        for at in 0..self.servers.len() {
            let (daemon, server) = (DaemonId(u8::try_from(at).expect("few")), &self.servers[at]);
            if !server.online && server.counts.all() > 0 && now >= given_up_at(server) {
                self.move_all(now, daemon, |_| true, actions);
            }
        }
        while let Some(&(at, operation)) = self.overdue.first()
            && at <= now
        {
            self.overdue.pop_first();
            let Some(op) = self.under_way.get_mut(&operation) else { continue };
            op.overdue_at = None;
            let daemon = op.daemon;
            if !self.has_other(daemon) {
                self.watch(now, operation);
                continue;
            }
            let server = self.server_mut(daemon);
            // Those that went before it was known to lag tell nothing new.
            if server.credit.next_try(now).is_none() {
                server.credit.lose(now, &server.pace);
                self.probes.set_pace(self.pace_of_probes());
            }
            self.move_one(now, operation, actions);
            // What has not left yet has nothing to wait for there.
            self.move_all(now, daemon, |stage| !matches!(stage, Stage::Transmitted { .. }), actions);
        }
    }

    fn move_all(&mut self, now: Time, daemon: DaemonId, which: impl Fn(Stage) -> bool, actions: &mut Vec<Action>) {
        let all = self.under_way.iter().filter(|(_, op)| op.daemon == daemon && which(op.stage));
        for operation in all.map(|(&operation, _)| operation).collect::<Vec<_>>() {
            self.move_one(now, operation, actions);
        }
    }

    fn move_one(&mut self, now: Time, operation: OperationId, actions: &mut Vec<Action>) {
        let Some(op) = self.take_out(operation) else { return };
        actions.push(Action::GiveUp { operation });
        #[cfg(test)]
        if has(Bug::ForgetWithDaemon) {
            return;
        }
        let (channel, seq) = (op.channel, op.seq);
        match op.what {
            Operation::Read => self.tell_receiver(now, channel, ReceiverEvent::Moved { seq }, actions),
            _ => self.tell_sender(now, channel, SenderEvent::Moved { seq }, actions),
        }
    }
}

/// When what a daemon has under way that is away goes to others.
fn given_up_at(server: &Server) -> Time {
    server.away_since + (2 * server.pace.round_trip()).max(AT_LEAST)
}
