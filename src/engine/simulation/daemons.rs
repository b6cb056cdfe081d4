//! The daemons of the simulated world: which of them are there and how quick they are, which are another network's, and what
//! a process is told of them.

use rand::RngExt as _;

use super::process::Life;
use super::world::World;
use crate::channel::{DaemonId, DeliveryEvent as Event, Line, Pin};
use crate::model::NetworkId;

/// How things stand with a daemon, whoever uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemon {
    /// Nobody answers there.
    pub(super) dead: bool,
    /// How many times as rarely its packets leave.
    pub(super) slow: u32,
}

impl Default for Daemon {
    fn default() -> Self {
        Self { dead: false, slow: 1 }
    }
}

/// What a process knows of the daemons.
#[derive(Debug)]
pub(super) struct Known {
    /// Whether the network can be used by each.
    there: Vec<bool>,
    /// Whether the machine was told so, and of which network.
    told: Vec<bool>,
    pin: Pin,
}

impl Known {
    pub(super) fn new(daemons: usize) -> Self {
        Self { there: vec![false; daemons], told: vec![false; daemons], pin: Pin::default() }
    }

    /// Whether operations may go by a daemon.
    pub(super) fn uses(&self, daemon: usize) -> bool {
        self.told[daemon]
    }

    /// The network that is used, and its M.
    pub(super) fn network(&self) -> Option<&(NetworkId, usize)> {
        self.pin.network()
    }

    /// Those by which they may.
    pub(super) fn used(&self) -> Vec<usize> {
        (0..self.told.len()).filter(|&daemon| self.told[daemon]).collect()
    }
}

/// The number of a process's wire: each daemon has two.
pub(super) fn wire_of(daemon: usize, line: Line) -> usize {
    2 * daemon + usize::from(line == Line::Second)
}

/// Which daemon a wire goes to.
pub(super) fn daemon_of(wire: usize) -> usize {
    wire / 2
}

/// Whether it is the one that is always needed.
pub(super) fn is_main(wire: usize) -> bool {
    wire.is_multiple_of(2)
}

pub(super) fn number(daemon: usize) -> DaemonId {
    DaemonId(u8::try_from(daemon).expect("few daemons"))
}

impl World {
    /// What is known of the network by a daemon changes; the other network is always there.
    pub(super) fn view(&mut self, p: usize, daemon: usize, there: bool) {
        let there = there || self.processes[p].elsewhere[daemon];
        if let Some(life) = &mut self.processes[p].life {
            life.known.there[daemon] = there;
            self.tell(p, super::process::Message::View);
        }
    }

    /// The machine is told what is there now, as the driver tells it: those that go first.
    pub(super) fn network_changed(&mut self, p: usize) {
        let elsewhere = self.processes[p].elsewhere.clone();
        let views: Vec<_> = elsewhere.iter().map(|&elsewhere| self.network_view(elsewhere)).collect();
        let Some(known) = self.known(p) else { return };
        let there = views.iter().zip(&known.there).filter(|(_, there)| **there);
        let pin = Pin::of(there.map(|(view, _)| (&view.id, view.max_plaintext)));
        let is_other = known.pin != pin;
        let used: Vec<bool> = views
            .iter()
            .zip(&known.there)
            .map(|(view, &there)| there && pin.misfit(&view.id, view.max_plaintext).is_none())
            .collect();
        known.pin = pin;
        if known.there.iter().zip(&used).any(|(there, used)| there != used) {
            self.see("daemons of another network beside ours");
        }
        for (daemon, &is_used) in used.iter().enumerate() {
            let Some(known) = self.known(p) else { return };
            if known.told[daemon] && (is_other || !is_used) {
                known.told[daemon] = false;
                self.drive(p, Event::Network(number(daemon), None));
            }
        }
        for (daemon, view) in views.into_iter().enumerate().filter(|(daemon, _)| used[*daemon]) {
            let Some(known) = self.known(p) else { return };
            known.told[daemon] = true;
            self.drive(p, Event::Network(number(daemon), Some(view)));
        }
    }

    fn known(&mut self, p: usize) -> Option<&mut Known> {
        self.processes[p].life.as_mut().map(|life: &mut Life| &mut life.known)
    }

    /// The gate of the driver.
    pub(super) fn admits(&self, p: usize, daemon: usize, stream: usize) -> bool {
        let process = &self.processes[p];
        let network = self.network_view(process.elsewhere[daemon]).id;
        process.channel(stream).is_some_and(|channel| process.admits(&network, channel.id))
    }

    /// One daemon of a process, or all of them, are another network's from now on.
    pub(super) fn elsewhere(&mut self, p: usize) {
        let count = self.daemons.len();
        let one = self.dice.random_range(0..count);
        let which = if self.dice.random() { 0..count } else { one..one + 1 };
        for daemon in which {
            if self.processes[p].elsewhere[daemon] || self.processes[p].life.is_none() {
                continue;
            }
            self.see("other networks");
            let wall = self.wall();
            for n in [Line::Main, Line::Second].map(|line| wire_of(daemon, line)) {
                if let Some(conn) = self.processes[p].life.as_ref().and_then(|life| life.wires[n].conn()) {
                    let heard = self.net.disconnect(wall, conn);
                    self.lost(p, n);
                    self.hear(heard);
                }
            }
            self.processes[p].elsewhere[daemon] = true;
            self.view(p, daemon, true);
        }
    }

    /// And they are the right one's again.
    pub(super) fn home(&mut self, p: usize) {
        for daemon in 0..self.daemons.len() {
            if std::mem::take(&mut self.processes[p].elsewhere[daemon]) {
                self.view(p, daemon, false);
                for line in [Line::Main, Line::Second] {
                    self.redial(p, wire_of(daemon, line));
                }
            }
        }
    }

    /// A daemon dies: sessions and operations are forgotten, and nobody answers any more.
    pub(super) fn kill(&mut self, daemon: usize) {
        if !std::mem::replace(&mut self.daemons[daemon].dead, true) {
            self.see("daemons that died");
            let heard = self.net.restart_one(self.wall(), daemon);
            self.hear(heard);
        }
    }

    pub(super) fn slow(&mut self, daemon: usize, times: u32) {
        if times > 1 {
            self.see("daemons that lagged");
        }
        self.daemons[daemon].slow = times;
        let heard = self.net.slow(self.wall(), daemon, f64::from(times));
        self.hear(heard);
    }

    /// Nothing goes wrong any more: but of several daemons some stay dead, or slow, for ever.
    pub(super) fn mend_daemons(&mut self) {
        let well = |daemon: &Daemon| !daemon.dead && daemon.slow == 1;
        for daemon in (0..self.daemons.len()).rev() {
            let stays =
                self.dice.random() && self.daemons.iter().enumerate().any(|(other, of)| other != daemon && well(of));
            if !stays {
                self.daemons[daemon].dead = false;
                self.slow(daemon, 1);
            }
        }
    }
}
