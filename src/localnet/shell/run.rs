//! The loop that owns the core: it takes in what the connections and the console say, and gives out what the core makes
//! of it.
//!
//! Inputs that wait are handled together and committed in one transaction; what was changed is on the disk before any
//! client hears of it. A transaction stays open for what connections have at hand: a client with several writes under way
//! pays for one commit, and nobody waits for a client that is slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info};

use super::Shared;
use super::clock::Jump;
use super::command::{Answer, ClockShown, Command, changed};
use super::ledger::Ledger;
use super::reply::{self, Standing};
use crate::localnet::Faults;
use crate::localnet::core::{Action, Conn, Control, Core, Daemon, Event, Reply, Request};
use crate::localnet::document::{Style, mixnet_epoch};
use crate::localnet::replica::{EPOCH_ZERO, replica_epoch};
use crate::thin::frame;
use crate::thin::message::{ID_BYTES, ResponseFrame, ShutdownEvent};

/// Most inputs of one transaction.
const GROUP: usize = 256;
/// How long nothing may happen before the loop looks at the machine's clock.
const LOOK: Duration = Duration::from_secs(30);

/// What goes into the loop.
pub(super) enum Input {
    /// A client has come: it is to be greeted.
    Arrived(Conn, Daemon, Client),
    /// What a client asks, in its order.
    Requests(Conn, Vec<Request>),
    /// Anything else.
    Event(Event),
    Command(Command, oneshot::Sender<Answer>),
}

/// The loop's end of a connection. Dropping it cuts the client off, in the middle of a frame if need be.
pub(super) struct Client {
    pub(super) daemon: Daemon,
    pub(super) out: mpsc::Sender<Out>,
    /// One for each request that may be outstanding.
    pub(super) turns: Arc<Semaphore>,
    /// Its receiver wakes when this is dropped.
    pub(super) _cut: oneshot::Sender<()>,
}

/// What goes out to a client.
pub(super) enum Out {
    /// Still to be made a frame.
    Reply(Reply),
    /// A frame, the same for every client.
    Frame(Arc<[u8]>),
    /// A frame that takes room in the connection's backlog.
    Local(Vec<u8>),
    /// Nothing more: the connection ends when the rest is written.
    End,
}

/// What is handled together, and what it leads to once it is committed.
#[derive(Default)]
struct Turn {
    inputs: usize,
    effects: Vec<Effect>,
    /// Connections that are over.
    ended: Vec<Conn>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

/// What a turn does, in this order.
enum Effect {
    Act(Action),
    /// The clients of now are told that the daemon ends.
    Shutdown,
}

pub(super) struct Runner<S> {
    core: Core<S>,
    shared: Arc<Shared>,
    clients: BTreeMap<Conn, Client>,
    daemons: Vec<Running>,
    /// Whether the daemons have a link to their gateways, and a document.
    link: bool,
    there: bool,
    /// Where connections see whether there is a document.
    consensus: watch::Sender<bool>,
    faults: Faults,
    /// The mixnet epoch whose document was told.
    epoch: u64,
    dice: StdRng,
}

/// One of the daemons.
struct Running {
    instance_token: [u8; ID_BYTES],
    stopped: bool,
}

impl<S: Ledger> Runner<S> {
    pub(super) fn new(
        core: Core<S>,
        daemons: usize,
        shared: Arc<Shared>,
        consensus: watch::Sender<bool>,
        faults: Faults,
        seed: u64,
    ) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        shared.cuts.set(&faults);
        shared.foreign_writes.set(&faults);
        Self {
            core,
            epoch: mixnet_epoch(&shared.network.profile, shared.clock.now()),
            shared,
            clients: BTreeMap::new(),
            daemons: (0..daemons).map(|_| Running { instance_token: dice.random(), stopped: false }).collect(),
            link: true,
            there: true,
            consensus,
            faults,
            dice,
        }
    }

    /// Runs until nobody can say anything any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut group = Vec::with_capacity(GROUP);
        // The network's time begins now, and not with its first client.
        let mut turn = Turn::default();
        self.begin(&mut turn);
        self.end(turn);
        let mut alarm = std::pin::pin!(sleep(self.wait()));
        loop {
            let due = Instant::now() + self.wait();
            // An alarm that comes too early does no harm, and to set it anew for each input would cost more.
            if alarm.is_elapsed() || due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                taken = inbox.recv_many(&mut group, GROUP) => if taken == 0 { return },
                () = &mut alarm => {}
            }
            let mut turn = Turn::default();
            self.begin(&mut turn);
            self.take_in(&mut group, &mut turn);
            while turn.inputs < GROUP && self.core.store().is_changed() {
                // In this order: what was at hand before is in the inbox when nothing is at hand any more.
                let at_hand = self.shared.at_hand.any();
                if !at_hand && inbox.is_empty() {
                    break;
                }
                tokio::select! {
                    biased;
                    taken = inbox.recv_many(&mut group, GROUP - turn.inputs) => if taken == 0 { break },
                    () = self.shared.at_hand.none() => {}
                }
                self.take_in(&mut group, &mut turn);
            }
            self.end(turn);
        }
    }

    /// How long nothing needs to be done.
    fn wait(&self) -> Duration {
        let now = self.shared.clock.now();
        let wait = self.core.next_deadline().map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
        wait.min(self.until_next_epoch(now))
    }

    /// Handles what is due.
    fn begin(&mut self, turn: &mut Turn) {
        if let Some(jump) = self.shared.clock.follow_machine() {
            info!("the machine's clock was set, or the machine slept");
            self.jumped(jump, &mut turn.effects);
        }
        self.handle(Event::Tick, &mut turn.effects);
        self.follow_epoch(&mut turn.effects);
        self.take_safe_effect(turn);
    }

    /// Handles a group of inputs.
    fn take_in(&mut self, group: &mut Vec<Input>, turn: &mut Turn) {
        turn.inputs += group.len();
        for input in group.drain(..) {
            match input {
                // It is cut off again.
                Input::Arrived(_, daemon, _) if self.daemons[daemon].stopped => {}
                Input::Arrived(conn, daemon, client) => {
                    self.greet(&client);
                    self.clients.insert(conn, client);
                    self.handle(Event::Connected(conn, daemon), &mut turn.effects);
                }
                Input::Requests(conn, requests) => {
                    for request in requests {
                        self.handle(Event::Request(conn, request), &mut turn.effects);
                        self.take_safe_effect(turn);
                    }
                }
                Input::Event(event) => {
                    if let Event::Disconnected(conn) | Event::Closed(conn) = &event {
                        turn.ended.push(*conn);
                    }
                    self.handle(event, &mut turn.effects);
                }
                Input::Command(command, asker) => {
                    let answer = self.command(command, &mut turn.effects);
                    turn.answers.push((asker, answer));
                }
            }
            self.take_safe_effect(turn);
        }
    }

    /// What rests on nothing that is still to be committed, a read above all, waits for no disk.
    fn take_safe_effect(&mut self, turn: &mut Turn) {
        if !self.core.store().is_changed() {
            self.take_effect(std::mem::take(&mut turn.effects));
        }
    }

    /// Commits, and then lets everything take effect.
    fn end(&mut self, turn: Turn) {
        if let Err(error) = self.core.store().commit() {
            // Whoever asked waits for an answer that cannot be given; a client asks again on its next connection.
            error!(error, "boxes could not be kept; clients are cut off and nothing was confirmed to them");
            self.core.rolled_back();
            self.clients.clear();
        }
        self.take_effect(turn.effects);
        for conn in turn.ended {
            self.clients.remove(&conn);
        }
        for (asker, answer) in turn.answers {
            // Who does not wait for it does not need it.
            let _ = asker.send(answer);
        }
    }

    /// How things stand for the clients of a daemon.
    fn standing(&self, daemon: Daemon) -> Standing {
        Standing { instance_token: self.daemons[daemon].instance_token, link: self.link, consensus: self.there }
    }

    fn greet(&self, client: &Client) {
        let standing = self.standing(client.daemon);
        let frames = [reply::status(&self.shared, standing), reply::document(&self.shared, standing, Style::Canonical)];
        for frame in frames {
            if let Some(bytes) = encoded(&frame) {
                let _ = client.out.try_send(Out::Frame(bytes));
            }
        }
    }

    fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) {
        effects.extend(self.core.handle(self.shared.clock.now(), event).into_iter().map(Effect::Act));
    }

    fn take_effect(&mut self, effects: Vec<Effect>) {
        let mut document = None;
        for effect in effects {
            match effect {
                Effect::Act(Action::Tell(conn, Reply::Document)) => {
                    let frame = document
                        .get_or_insert_with(|| {
                            encoded(&reply::document(&self.shared, self.standing(0), Style::Declared))
                        })
                        .clone();
                    self.tell(conn, frame.map(Out::Frame));
                }
                Effect::Act(Action::Tell(conn, Reply::Status { connected })) => {
                    let Some(daemon) = self.clients.get(&conn).map(|client| client.daemon) else { continue };
                    let standing = Standing { link: connected, ..self.standing(daemon) };
                    self.tell(conn, encoded(&reply::status(&self.shared, standing)).map(Out::Frame));
                }
                Effect::Act(Action::Tell(conn, reply)) => self.tell(conn, Some(Out::Reply(reply))),
                Effect::Act(Action::Read(conn)) => {
                    if let Some(client) = self.clients.get(&conn) {
                        client.turns.add_permits(1);
                    }
                }
                Effect::Act(Action::Hangup(conn)) => self.tell(conn, Some(Out::End)),
                Effect::Shutdown => {
                    let frame = encoded(&ShutdownEvent {}.into());
                    for conn in self.clients.keys().copied().collect::<Vec<_>>() {
                        self.tell(conn, frame.clone().map(Out::Frame));
                    }
                }
            }
        }
    }

    fn tell(&mut self, conn: Conn, out: Option<Out>) {
        if let (Some(client), Some(out)) = (self.clients.get(&conn), out)
            && client.out.try_send(out).is_err()
        {
            debug!(conn, "a client does not take its replies and is cut off");
            self.clients.remove(&conn);
        }
    }

    fn command(&mut self, command: Command, effects: &mut Vec<Effect>) -> Answer {
        match command {
            Command::Stats => return Answer::Stats(self.core.stats(self.shared.clock.now())),
            Command::Census => {
                let census = serde_json::to_value(self.core.census()).and_then(serde_json::from_value);
                return census.map_or_else(|error| Answer::Error(error.to_string()), Answer::Census);
            }
            Command::Faults => return Answer::Faults(self.faults.clone()),
            Command::SetFaults { set } => match changed(&self.faults, &set) {
                Ok(faults) => return self.set_faults(faults, effects),
                Err(error) => return Answer::Error(error),
            },
            Command::ClearFaults => return self.set_faults(Faults::default(), effects),
            Command::Link { up } => {
                self.link = up;
                self.control(Control::Link(up), effects);
            }
            Command::Consensus { there } => {
                self.there = there;
                self.control(Control::Consensus(there), effects);
                self.consensus.send_replace(there);
            }
            Command::Clock => return self.clock_shown(),
            Command::Jump { by_ms } => {
                let jump = self.shared.clock.jump(by_ms);
                self.jumped(jump, effects);
                self.follow_epoch(effects);
                return self.clock_shown();
            }
            Command::ResetClock => {
                let by_ms = -self.shared.clock.moved_ms();
                return self.command(Command::Jump { by_ms }, effects);
            }
            Command::Restart { killed } => {
                if killed {
                    self.clients.clear();
                } else {
                    effects.push(Effect::Shutdown);
                }
                for daemon in &mut self.daemons {
                    daemon.instance_token = self.dice.random();
                }
                self.control(Control::Restart, effects);
            }
            Command::Stop { daemon } | Command::Start { daemon } | Command::Slow { daemon, .. }
                if !(1..=self.daemons.len()).contains(&daemon) =>
            {
                return Answer::Error(format!("there are {} daemons, and none is number {daemon}", self.daemons.len()));
            }
            Command::Stop { daemon } => {
                let daemon = daemon - 1;
                self.clients.retain(|_, client| client.daemon != daemon);
                self.daemons[daemon] = Running { instance_token: self.dice.random(), stopped: true };
                self.control(Control::RestartOne(daemon), effects);
            }
            Command::Start { daemon } => self.daemons[daemon - 1].stopped = false,
            Command::Slow { times, .. } if !(times.is_finite() && times > 0.0) => {
                return Answer::Error(format!("a daemon is slower by a number above 0, and not {times}"));
            }
            Command::Slow { daemon, times } => self.control(Control::Slow(daemon - 1, times), effects),
            Command::Disconnect => self.clients.clear(),
            Command::Epoch => self.control(Control::Epoch, effects),
        }
        Answer::Done {}
    }

    fn control(&mut self, control: Control, effects: &mut Vec<Effect>) {
        self.handle(Event::Control(control), effects);
    }

    fn set_faults(&mut self, faults: Faults, effects: &mut Vec<Effect>) -> Answer {
        self.shared.cuts.set(&faults);
        self.shared.foreign_writes.set(&faults);
        self.faults = faults;
        self.control(Control::Faults(Box::new(self.faults.clone())), effects);
        Answer::Faults(self.faults.clone())
    }

    fn jumped(&mut self, Jump { from, to }: Jump, effects: &mut Vec<Effect>) {
        self.control(Control::Jumped { from, to }, effects);
    }

    /// Tells every client the document of an epoch that has begun.
    fn follow_epoch(&mut self, effects: &mut Vec<Effect>) {
        let epoch = mixnet_epoch(&self.shared.network.profile, self.shared.clock.now());
        if std::mem::replace(&mut self.epoch, epoch) != epoch && self.there {
            debug!(epoch, "an epoch begins");
            self.control(Control::Epoch, effects);
        }
    }

    fn until_next_epoch(&self, now: Duration) -> Duration {
        let length = self.shared.network.profile.epoch.as_nanos().max(1);
        let since = now.saturating_sub(Duration::from_secs(EPOCH_ZERO)).as_nanos();
        Duration::from_nanos(u64::try_from(length - since % length).unwrap_or(u64::MAX))
    }

    fn clock_shown(&self) -> Answer {
        let now = self.shared.clock.now();
        Answer::Clock(ClockShown {
            unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            moved_ms: self.shared.clock.moved_ms(),
            epoch: mixnet_epoch(&self.shared.network.profile, now),
            replica_epoch: replica_epoch(now),
        })
    }
}

fn encoded(response: &ResponseFrame) -> Option<Arc<[u8]>> {
    frame::encode(response).map(Into::into).ok()
}
