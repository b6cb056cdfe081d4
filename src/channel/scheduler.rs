//! The scheduler: one machine over all channels, which says what goes over the network next.
//!
//! Every operation takes its slot here: an envelope is [prepared](Action::Prepare) on one of the crypto connections, and
//! [transmitted](Action::Transmit) when fewer than W are unanswered. Envelopes are made ahead, a few more than leave
//! while one is made. What goes next, in this order of thought (`network-performance.md` A.6, A.8):
//!
//! * A short message goes before a backlog, and over a second connection where the first one's queue is long.
//! * Writes and reads share the slots by halves where both wait, and take them all where one does.
//! * Among channels whoever was served least goes next, counted in packets.
//! * Confirmations of what couriers have, and nothing else, wait for idle slots.
//! * Idle channels are probed as the [`Probes`] say; their receivers exist only while something is under way.
//!
//! There may be several daemons, each a [`Server`] with slots, connections and a pace of its own. What goes next goes by the
//! one that has most of its slots free. A probe goes by one that is drawn by lot, whatever the others do, so that each has
//! its part of the probes and no more. What a daemon has under way that is away, or lets an operation wait for too long,
//! is done by another: see `stranded`.
//!
//! The machine waits for nothing and draws its randomness from a seed: the same events at the same times give the same
//! actions. After each event all that can be done now is done.

mod event;
mod server;
mod stranded;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(super) use self::event::{Action, Event};
pub use self::event::{DaemonId, End, Line, MAX_DAEMONS, OperationId};
use self::server::{Counts, Crypto, SECOND, Server};
use super::probes::Probes;
use super::{JointPace, Operation, Pace, Receiver, ReceiverEvent, Sender, SenderEvent, Time, Wants};
use crate::model::{BoxSeq, ChannelId};

/// The part of the probes that ask for the box behind the frontier too.
pub(super) const LOOK_PAST: f64 = 0.25;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Short,
    Bulk,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing { crypto: usize, since: Time, behind: u32 },
    Ready,
    Transmitted { line: Line, since: Time, beside: usize },
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    channel: ChannelId,
    seq: BoxSeq,
    what: Operation,
    class: Class,
    daemon: DaemonId,
    stage: Stage,
    /// When it will have waited for too long, where another daemon could do it.
    overdue_at: Option<Time>,
}

struct Entry<M> {
    machine: M,
    /// Packets that it was given, or as many as others had when it began to want some.
    served: u64,
    wants: Wants,
    timeout: Option<Time>,
    /// By which daemon a receiver probes; `None`: by any.
    probes_by: Option<DaemonId>,
}

impl<M> Entry<M> {
    fn new(machine: M) -> Self {
        Self { machine, served: 0, wants: Wants::default(), timeout: None, probes_by: None }
    }
}

/// The scheduler of all channels. See the module's head.
pub(super) struct Scheduler {
    /// By their numbers; one at least.
    servers: Vec<Server>,
    dice: StdRng,
    senders: HashMap<ChannelId, Entry<Sender>>,
    receivers: HashMap<ChannelId, Entry<Receiver>>,
    probes: Probes,
    loading: HashSet<ChannelId>,
    timers: BTreeSet<(Time, ChannelId)>,
    /// Channels that want something, whoever was served least first.
    shorts: BTreeSet<(u64, ChannelId)>,
    bulks: BTreeSet<(u64, ChannelId)>,
    confirmations: BTreeSet<(u64, ChannelId)>,
    reads: BTreeSet<(u64, ChannelId)>,
    /// What the channel that was chosen last had been served.
    clock: u64,
    next_operation: u64,
    under_way: BTreeMap<OperationId, UnderWay>,
    /// When operations will have waited for too long.
    overdue: BTreeSet<(Time, OperationId)>,
    /// A channel that left has made room, which is to be filled.
    vacated: bool,
}

impl Scheduler {
    /// A scheduler of no channel. `probe_share` is the part of the pace that probes of idle channels may take together.
    pub(super) fn new(pace: Pace, probe_share: f64, seed: u64) -> Self {
        Self {
            probes: Probes::new(probe_share, &pace),
            servers: vec![Server::new(pace)],
            dice: StdRng::seed_from_u64(seed),
            senders: HashMap::new(),
            receivers: HashMap::new(),
            loading: HashSet::new(),
            timers: BTreeSet::new(),
            shorts: BTreeSet::new(),
            bulks: BTreeSet::new(),
            confirmations: BTreeSet::new(),
            reads: BTreeSet::new(),
            clock: 0,
            next_operation: 0,
            under_way: BTreeMap::new(),
            overdue: BTreeSet::new(),
            vacated: false,
        }
    }

    /// The pace of all daemons that are there together, as it was measured so far; where none is, of all that were.
    pub(super) fn pace(&self) -> JointPace {
        let online = self.is_online();
        JointPace::of(self.servers.iter().filter(|server| server.online || !online).map(|server| &server.pace))
    }

    /// The pace of the daemons that probes are drawn for: one that lags has its part done by nobody.
    fn pace_of_probes(&self) -> JointPace {
        let mut drawn = self.online().filter(|&daemon| !self.server(daemon).credit.lags()).peekable();
        if drawn.peek().is_none() {
            return self.pace();
        }
        JointPace::of(drawn.map(|daemon| &self.server(daemon).pace))
    }

    /// The pace of one daemon, as it was measured so far.
    pub(super) fn pace_of(&self, daemon: DaemonId) -> &Pace {
        &self.servers.get(usize::from(daemon.0)).unwrap_or(&self.servers[0]).pace
    }

    /// The same of all that were ever there, by their numbers.
    pub(super) fn paces(&self) -> impl Iterator<Item = &Pace> {
        self.servers.iter().map(|server| &server.pace)
    }

    /// Takes in what a daemon's newest document says. What was measured stands, where the document says the same as before.
    ///
    /// # Panics
    /// If it is beyond [`MAX_DAEMONS`].
    pub(super) fn set_document(&mut self, daemon: DaemonId, pace: Pace) {
        let server = self.server_mut(daemon);
        if !server.pace.is_of_same_document_as(&pace) {
            server.pace = pace;
            self.probes.set_pace(self.pace_of_probes());
        }
    }

    fn server(&self, daemon: DaemonId) -> &Server {
        &self.servers[usize::from(daemon.0)]
    }

    fn server_mut(&mut self, daemon: DaemonId) -> &mut Server {
        let at = usize::from(daemon.0);
        assert!(at < MAX_DAEMONS, "there are no more than {MAX_DAEMONS} daemons");
        while self.servers.len() <= at {
            self.servers.push(Server::new(Pace::default()));
        }
        &mut self.servers[at]
    }

    fn is_online(&self) -> bool {
        self.servers.iter().any(|server| server.online)
    }

    /// The daemons that are there.
    fn online(&self) -> impl Iterator<Item = DaemonId> {
        let all = (0..).map(DaemonId).zip(&self.servers);
        all.filter(|(_, server)| server.online).map(|(daemon, _)| daemon)
    }

    /// Takes the sender of a channel in, in place of one that it may have.
    pub(super) fn add_sender(&mut self, channel: ChannelId, sender: Sender) {
        self.remove(channel);
        self.senders.insert(channel, Entry::new(sender));
    }

    /// Takes a channel in that is read, at rest. See [`Probes::insert`].
    pub(super) fn add_receiver(&mut self, now: Time, channel: ChannelId, prompt: bool) {
        self.remove(channel);
        self.probes.insert(now, channel, prompt, &mut self.dice);
    }

    /// Whether the channel has a sender, or is read.
    pub(super) fn contains(&self, channel: ChannelId) -> bool {
        self.senders.contains_key(&channel) || self.probes.contains(channel)
    }

    /// Has a channel that is at rest probed at once.
    pub(super) fn prompt(&mut self, channel: ChannelId) {
        self.probes.prompt(channel, &mut self.dice);
    }

    /// Has a channel probed at the shortest pause until a time.
    pub(super) fn follow(&mut self, channel: ChannelId, until: Time) {
        self.probes.follow(channel, until, &mut self.dice);
    }

    /// When a channel is expected to be probed next; `None` while its receiver is at work.
    pub(super) fn next_probe(&self, now: Time, channel: ChannelId) -> Option<Time> {
        self.probes.next_probe(now, channel)
    }

    /// Where the receiver of a channel stands; `None` while it is at rest.
    pub(super) fn frontier(&self, channel: ChannelId) -> Option<BoxSeq> {
        self.receivers.get(&channel).map(|entry| entry.machine.frontier())
    }

    /// Whether an operation is under way still, so that its end is of interest.
    pub(super) fn is_under_way(&self, operation: OperationId) -> bool {
        self.under_way.contains_key(&operation)
    }

    /// Operations that were transmitted and are unanswered.
    #[cfg(test)]
    fn unanswered(&self) -> usize {
        self.servers.iter().map(|server| server.counts.unanswered()).sum()
    }

    /// Forgets a channel; the ends of its operations are passed over from now on.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        if let Some(entry) = self.senders.remove(&channel) {
            self.unlist(channel, entry.served, entry.timeout);
        }
        if let Some(entry) = self.receivers.remove(&channel) {
            self.unlist(channel, entry.served, entry.timeout);
        }
        self.probes.remove(channel);
        self.loading.remove(&channel);
        let gone: Vec<_> = self.under_way.iter().filter(|(_, op)| op.channel == channel).map(|(&id, _)| id).collect();
        self.vacated |= !gone.is_empty();
        for operation in gone {
            self.take_out(operation);
        }
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        let timer = self.timers.first().map(|&(at, _)| at);
        if !self.is_online() {
            return timer;
        }
        if self.vacated {
            return Some(now);
        }
        let room = self.servers.iter().filter(|server| server.online).filter_map(|server| server.next_room(now));
        let probe = self.may_load().then(|| self.probes.next_timeout()).flatten();
        timer.into_iter().chain(room).chain(probe).chain(self.next_stranded(now)).min()
    }

    /// Takes an event in and says what is to be done.
    pub(super) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.vacated = false;
        match event {
            Event::Online(daemon, online) => self.set_online(now, daemon, online, &mut actions),
            Event::Sender { channel, event } => self.tell_sender(now, channel, event, &mut actions),
            Event::Loaded { channel, frontier, lost_end, arrived } => {
                if self.loading.remove(&channel) {
                    let past = self.dice.random_bool(LOOK_PAST);
                    let receiver = Receiver::new(frontier, lost_end, arrived, past, now, self.pace());
                    let probes_by = self.draw_daemon();
                    self.receivers.insert(channel, Entry { probes_by, ..Entry::new(receiver) });
                    self.tell_receiver(now, channel, ReceiverEvent::Online(self.is_online()), &mut actions);
                }
            }
            Event::NotLoaded { channel } => {
                if self.loading.remove(&channel) {
                    self.probes.rest(now, channel, false, &mut self.dice);
                    actions.push(Action::Rested { channel });
                }
            }
            Event::Prepared { operation } => self.prepared(now, operation),
            Event::Ended { operation, end } => self.ended(now, operation, end, &mut actions),
            Event::Tick => {}
        }
        while let Some(&(at, channel)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if self.senders.contains_key(&channel) {
                self.tell_sender(now, channel, SenderEvent::Tick, &mut actions);
            } else {
                self.tell_receiver(now, channel, ReceiverEvent::Tick, &mut actions);
            }
        }
        if self.is_online() {
            self.move_stranded(now, &mut actions);
            self.fill(now, &mut actions);
        }
        actions
    }

    fn set_online(&mut self, now: Time, daemon: DaemonId, online: bool, actions: &mut Vec<Action>) {
        self.server_mut(daemon).set_online(now, online);
        self.probes.set_pace(self.pace_of_probes());
        let online = self.is_online();
        if !online {
            let mut channels: Vec<_> = self.senders.keys().copied().collect();
            channels.sort_unstable();
            for channel in channels {
                self.tell_sender(now, channel, SenderEvent::Online(false), actions);
            }
        }
        let mut channels: Vec<_> = self.receivers.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            self.tell_receiver(now, channel, ReceiverEvent::Online(online), actions);
        }
    }

    fn tell_sender(&mut self, now: Time, channel: ChannelId, event: SenderEvent, actions: &mut Vec<Action>) {
        // One channel launches a window ahead; many launch less each, as each is served less. What several daemons have under
        // way is never quite even, so that the envelopes that wait at one are no use to another that has none.
        let (pace, several) = (self.pace(), self.online().nth(1).is_some());
        let window = pace.window_boxes() + if several { pace.reserve_boxes() } else { 0 };
        let window = (window / self.bulks.len().max(1)).max(4);
        let Some(entry) = self.senders.get_mut(&channel) else { return };
        entry.machine.set_window(window);
        let told = entry.machine.handle(now, event);
        actions.extend(told.into_iter().map(|action| Action::Sender { channel, action }));
        self.relist_sender(now, channel);
    }

    fn relist_sender(&mut self, now: Time, channel: ChannelId) {
        let Some(entry) = self.senders.get_mut(&channel) else { return };
        let (before, wants) = (entry.wants, entry.machine.wants(now));
        let old = (entry.served, entry.timeout);
        if before == Wants::default() && wants != before {
            entry.served = entry.served.max(self.clock);
        }
        entry.wants = wants;
        entry.timeout = entry.machine.next_timeout(now);
        let (served, timeout) = (entry.served, entry.timeout);
        self.unlist(channel, old.0, old.1);
        if wants.write {
            if wants.short { &mut self.shorts } else { &mut self.bulks }.insert((served, channel));
        }
        if wants.confirm {
            self.confirmations.insert((served, channel));
        }
        self.timers.extend(timeout.map(|at| (at, channel)));
    }

    fn tell_receiver(&mut self, now: Time, channel: ChannelId, event: ReceiverEvent, actions: &mut Vec<Action>) {
        let pace = self.pace();
        let Some(entry) = self.receivers.get_mut(&channel) else { return };
        entry.machine.set_pace(pace);
        let told = entry.machine.handle(now, event);
        actions.extend(told.into_iter().map(|action| Action::Receiver { channel, action }));
        if entry.machine.is_at_rest() {
            let entry = self.receivers.remove(&channel).expect("just seen");
            self.unlist(channel, entry.served, entry.timeout);
            self.probes.set_pace(self.pace_of_probes());
            self.probes.rest(now, channel, entry.machine.has_hit(), &mut self.dice);
            actions.push(Action::Rested { channel });
        } else {
            self.relist_receiver(now, channel);
        }
    }

    fn relist_receiver(&mut self, now: Time, channel: ChannelId) {
        let Some(entry) = self.receivers.get_mut(&channel) else { return };
        let (before, wants) = (entry.wants.write, entry.machine.wants(now));
        let old = (entry.served, entry.timeout);
        if !before && wants {
            entry.served = entry.served.max(self.clock);
        }
        entry.wants.write = wants;
        entry.timeout = entry.machine.next_timeout(now);
        let (served, timeout) = (entry.served, entry.timeout);
        self.unlist(channel, old.0, old.1);
        if wants {
            self.reads.insert((served, channel));
        }
        self.timers.extend(timeout.map(|at| (at, channel)));
    }

    fn unlist(&mut self, channel: ChannelId, served: u64, timeout: Option<Time>) {
        for list in [&mut self.shorts, &mut self.bulks, &mut self.confirmations, &mut self.reads] {
            list.remove(&(served, channel));
        }
        if let Some(at) = timeout {
            self.timers.remove(&(at, channel));
        }
    }

    fn prepared(&mut self, now: Time, operation: OperationId) {
        let Some(op) = self.under_way.get_mut(&operation) else { return };
        let Stage::Preparing { crypto, since, behind } = op.stage else { return };
        op.stage = Stage::Ready;
        let server = &mut self.servers[usize::from(op.daemon.0)];
        if op.class == Class::Short { &mut server.ready_shorts } else { &mut server.ready }.push_back(operation);
        server.counts.preparing[crypto] -= 1;
        server.pace.measure_encrypt(now.saturating_sub(since) / behind);
    }

    fn ended(&mut self, now: Time, operation: OperationId, end: End, actions: &mut Vec<Action>) {
        let Some(op) = self.take_out(operation) else { return };
        if let Stage::Transmitted { since, beside, .. } = op.stage
            && end.is_answer()
        {
            let server = self.server_mut(op.daemon);
            server.pace.measure(now.saturating_sub(since), op.what.packets(), beside);
            let lagged = server.credit.lags();
            server.credit.gain(server.slots());
            if lagged {
                self.probes.set_pace(self.pace_of_probes());
            }
        }
        let (channel, seq) = (op.channel, op.seq);
        match end {
            End::Written(outcome) => {
                self.tell_sender(now, channel, SenderEvent::Ended { seq, outcome }, actions);
            }
            End::WasRead(found) => self.tell_sender(now, channel, SenderEvent::WasRead { seq, found }, actions),
            End::Answered(answer) => {
                self.tell_receiver(now, channel, ReceiverEvent::Answered { seq, answer }, actions);
            }
        }
    }

    fn take_out(&mut self, operation: OperationId) -> Option<UnderWay> {
        let op = self.under_way.remove(&operation)?;
        if let Some(at) = op.overdue_at {
            self.overdue.remove(&(at, operation));
        }
        let server = self.server_mut(op.daemon);
        *server.counts.class(op.class) -= 1;
        match op.stage {
            Stage::Preparing { crypto, .. } => server.counts.preparing[crypto] -= 1,
            Stage::Ready => {
                server.ready.retain(|&other| other != operation);
                server.ready_shorts.retain(|&other| other != operation);
            }
            Stage::Transmitted { line, .. } => *server.counts.line(line) -= 1,
        }
        Some(op)
    }

    /// Does all that there is room for.
    fn fill(&mut self, now: Time, actions: &mut Vec<Action>) {
        while self.may_load()
            && let Some(channel) = self.probes.take(now, &mut self.dice)
        {
            self.loading.insert(channel);
            actions.push(Action::Load { channel });
        }
        loop {
            for daemon in self.online().collect::<Vec<_>>() {
                self.transmit(now, daemon, actions);
            }
            if !self.prepare(now, actions) {
                break;
            }
        }
        for (daemon, server) in (0..).map(DaemonId).zip(&mut self.servers) {
            if server.online && server.close_second() {
                actions.push(Action::CloseSecond { daemon });
            }
        }
    }

    /// Channels are woken only as fast as their probes find slots.
    fn may_load(&self) -> bool {
        self.loading.len() + self.reads.len() < self.pace().window_boxes()
    }

    /// By which daemon a channel is probed, by lot: each has its part of the probes, as its pace is of that of all.
    /// `None`: there is no choice.
    fn draw_daemon(&mut self) -> Option<DaemonId> {
        let of_all: Vec<_> = self.online().filter(|&daemon| !self.server(daemon).credit.lags()).collect();
        if of_all.len() < 2 {
            return None;
        }
        let pace = |daemon: &DaemonId| self.server(*daemon).pace.packets_per_second();
        let sum: f64 = of_all.iter().map(pace).sum();
        let mut left = self.dice.random::<f64>() * sum;
        let drawn = of_all.iter().find(|daemon| {
            left -= self.server(**daemon).pace.packets_per_second();
            left < 0.0
        });
        drawn.or(of_all.last()).copied()
    }

    /// By which daemon a channel is to be read, where that was drawn and is so still.
    fn probes_by(&self, channel: ChannelId) -> Option<DaemonId> {
        let entry = self.receivers.get(&channel)?;
        let usable = |daemon: &DaemonId| self.server(*daemon).online && !self.server(*daemon).credit.lags();
        entry.probes_by.filter(|daemon| !entry.machine.has_hit() && usable(daemon))
    }

    /// Has a daemon send all that it has room for.
    fn transmit(&mut self, now: Time, daemon: DaemonId, actions: &mut Vec<Action>) {
        while let Some((operation, line)) = self.server_mut(daemon).transmit(now) {
            let beside = self.server(daemon).counts.unanswered();
            if let Some(op) = self.under_way.get_mut(&operation) {
                op.stage = Stage::Transmitted { line, since: now, beside };
            }
            self.watch(now, operation);
            actions.push(Action::Transmit { operation, daemon, line });
        }
    }

    /// Begins one more operation, where there is room to make its envelope.
    fn prepare(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        for daemon in self.by_load(now) {
            if let Some(crypto) = self.server(daemon).crypto()
                && let Some(chosen) = self.choose(daemon)
            {
                self.begin(now, daemon, crypto, chosen, actions);
                return true;
            }
        }
        false
    }

    /// The daemons that may begin something, the one first that has most of its slots free; among equals by lot.
    fn by_load(&mut self, now: Time) -> Vec<DaemonId> {
        let mut all: Vec<_> = self.online().filter(|&daemon| self.may_begin(now, daemon)).collect();
        if all.len() > 1 {
            let mut keyed: Vec<(f64, u32, DaemonId)> =
                all.iter().map(|&daemon| (self.server(daemon).load(), self.dice.random(), daemon)).collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            all = keyed.into_iter().map(|(.., daemon)| daemon).collect();
        }
        all
    }

    fn begin(
        &mut self,
        now: Time,
        daemon: DaemonId,
        Crypto { connection: crypto, load }: Crypto,
        (class, channel, confirms): (Class, ChannelId, bool),
        actions: &mut Vec<Action>,
    ) {
        let taken = match class {
            Class::Read => {
                let entry = self.receivers.get_mut(&channel).expect("it is listed");
                entry.machine.take(now).map(|seq| (seq, Operation::Read))
            }
            _ => {
                let entry = self.senders.get_mut(&channel).expect("it is listed");
                if confirms { entry.machine.take_confirmation(now) } else { entry.machine.take_write(now) }
            }
        };
        let Some((seq, what)) = taken else {
            // Time has passed since it was listed.
            return self.relist(now, channel, class);
        };
        self.count_served(channel, class, what.packets());
        self.relist(now, channel, class);
        let operation = OperationId(self.next_operation);
        self.next_operation += 1;
        let behind = u32::try_from(load).unwrap_or(u32::MAX) + 1;
        let stage = Stage::Preparing { crypto, since: now, behind };
        let op = UnderWay { channel, seq, what, class, daemon, stage, overdue_at: None };
        self.under_way.insert(operation, op);
        let counts = &mut self.server_mut(daemon).counts;
        counts.preparing[crypto] += 1;
        *counts.class(class) += 1;
        self.watch(now, operation);
        actions.push(Action::Prepare { operation, channel, seq, what, daemon, crypto });
    }

    /// Who is next to be served by a daemon, and whether it is for a confirmation in an idle slot.
    fn choose(&self, daemon: DaemonId) -> Option<(Class, ChannelId, bool)> {
        let server = self.server(daemon);
        let slots = server.slots();
        let Counts { shorts, bulks, reads, .. } = server.counts;
        let write = self.bulks.first();
        let read = self.reads.iter().find(|(_, channel)| self.probes_by(*channel).is_none_or(|by| by == daemon));
        let others_wait = write.is_some() || read.is_some();
        // Many short messages are a backlog too.
        if let Some(&(_, channel)) = self.shorts.first()
            && shorts < if others_wait { SECOND.max(slots / 2) } else { slots }
        {
            return Some((Class::Short, channel, false));
        }
        if bulks + reads >= slots {
            return None;
        }
        match (write, read) {
            (Some(&(_, channel)), None) => Some((Class::Bulk, channel, false)),
            (None, Some(&(_, channel))) => Some((Class::Read, channel, false)),
            // By halves.
            (Some(&(_, channel)), Some(_)) if bulks <= reads => Some((Class::Bulk, channel, false)),
            (Some(_), Some(&(_, channel))) => Some((Class::Read, channel, false)),
            (None, None) => self.confirmations.first().map(|&(_, channel)| (Class::Bulk, channel, true)),
        }
    }

    fn relist(&mut self, now: Time, channel: ChannelId, class: Class) {
        if class == Class::Read {
            self.relist_receiver(now, channel);
        } else {
            self.relist_sender(now, channel);
        }
    }

    fn count_served(&mut self, channel: ChannelId, class: Class, packets: u32) {
        let (served, timeout) = if class == Class::Read {
            let entry = self.receivers.get_mut(&channel).expect("it is listed");
            (&mut entry.served, entry.timeout)
        } else {
            let entry = self.senders.get_mut(&channel).expect("it is listed");
            (&mut entry.served, entry.timeout)
        };
        let before = *served;
        *served += u64::from(packets);
        self.clock = self.clock.max(before);
        self.unlist(channel, before, timeout);
    }
}

#[cfg(test)]
mod tests;
