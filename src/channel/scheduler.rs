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
//! The machine waits for nothing and draws its randomness from a seed: the same events at the same times give the same
//! actions. After each event all that can be done now is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::probes::Probes;
use super::{
    Answer, Operation, Outcome, Pace, ReadBack, Receiver, ReceiverAction, ReceiverEvent, Sender, SenderAction,
    SenderEvent, Time, Wants,
};
use crate::model::{BoxSeq, ChannelId};

/// Operations whose first packet has probably not left; with more, the daemon would cease to read us (A.6).
const UNSENT: f64 = 12.0;
/// Unanswered operations of the second connection.
const SECOND: usize = 4;
/// An encrypt that takes longer has its connection for itself.
const SLOW_ENCRYPT: Duration = Duration::from_millis(20);
/// Encrypts that are under way at once on a connection, where they are quick.
const QUICK_ENCRYPTS: usize = 8;

/// The part of the probes that ask for the box behind the frontier too.
pub(super) const LOOK_PAST: f64 = 0.25;

/// The number of an operation: never used again by this scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// Which connection an operation goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// The first.
    Main,
    /// The one that is open while a short message and a backlog both wait.
    Second,
}

/// What the shell tells the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The network became reachable, or ceased to be. A sender then needs its own [`SenderEvent::Online`], once its boxes
    /// fit the network.
    Online(bool),
    /// To one channel's sender; [`SenderEvent::Ended`] and [`SenderEvent::WasRead`] come as [`Event::Ended`].
    Sender {
        /// Whose.
        channel: ChannelId,
        /// What happened.
        event: SenderEvent,
    },
    /// Answers [`Action::Load`].
    Loaded {
        /// Which channel.
        channel: ChannelId,
        /// The first box that has not arrived.
        frontier: BoxSeq,
        /// What is missing before this box is lost.
        lost_end: BoxSeq,
        /// Boxes past the frontier that have arrived.
        arrived: Vec<BoxSeq>,
    },
    /// Answers [`Action::Load`]: the channel cannot be read now.
    NotLoaded {
        /// Which channel.
        channel: ChannelId,
    },
    /// An envelope is made.
    Prepared {
        /// For which operation.
        operation: OperationId,
    },
    /// An operation has ended, before or after it was transmitted.
    Ended {
        /// Which.
        operation: OperationId,
        /// How.
        end: End,
    },
    /// Nothing but time.
    Tick,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A write.
    Written(Outcome),
    /// A read of an occupied index.
    WasRead(ReadBack),
    /// A read.
    Answered(Answer),
}

/// What the scheduler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// What a sender wants committed or looked up.
    Sender {
        /// Whose.
        channel: ChannelId,
        /// What.
        action: SenderAction,
    },
    /// What a receiver wants committed.
    Receiver {
        /// Whose.
        channel: ChannelId,
        /// What.
        action: ReceiverAction,
    },
    /// Look up where a channel stands that is to be probed.
    Load {
        /// Which.
        channel: ChannelId,
    },
    /// A channel that was probed is at rest again, with its next probe planned.
    Rested {
        /// Which.
        channel: ChannelId,
    },
    /// Make the envelope of an operation, fresh.
    Prepare {
        /// Which.
        operation: OperationId,
        /// Whose box.
        channel: ChannelId,
        /// Which box.
        seq: BoxSeq,
        /// What is to be done with it.
        what: Operation,
        /// On which crypto connection, counted from 0.
        crypto: usize,
    },
    /// Send the envelope of an operation and wait for its end.
    Transmit {
        /// Which.
        operation: OperationId,
        /// Over which connection.
        line: Line,
    },
    /// The second connection is needed no longer.
    CloseSecond,
}

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
    stage: Stage,
}

struct Entry<M> {
    machine: M,
    /// Packets that it was given, or as many as others had when it began to want some.
    served: u64,
    wants: Wants,
    timeout: Option<Time>,
}

impl<M> Entry<M> {
    fn new(machine: M) -> Self {
        Self { machine, served: 0, wants: Wants::default(), timeout: None }
    }
}

/// The scheduler of all channels. See the module's head.
pub(super) struct Scheduler {
    pace: Pace,
    dice: StdRng,
    online: bool,
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
    ready: VecDeque<OperationId>,
    ready_shorts: VecDeque<OperationId>,
    counts: Counts,
    /// How many are probably unsent, and when that was so.
    unsent: (f64, Time),
    second_open: bool,
    /// A channel that left has made room, which is to be filled.
    vacated: bool,
}

/// Of all that is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    preparing: [usize; 16],
    shorts: usize,
    bulks: usize,
    reads: usize,
    main: usize,
    second: usize,
}

impl Counts {
    fn class(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Short => &mut self.shorts,
            Class::Bulk => &mut self.bulks,
            Class::Read => &mut self.reads,
        }
    }

    fn line(&mut self, line: Line) -> &mut usize {
        match line {
            Line::Main => &mut self.main,
            Line::Second => &mut self.second,
        }
    }
}

impl Scheduler {
    /// A scheduler of no channel. `probe_share` is the part of the pace that probes of idle channels may take together.
    pub(super) fn new(pace: Pace, probe_share: f64, seed: u64) -> Self {
        Self {
            probes: Probes::new(probe_share, &pace),
            pace,
            dice: StdRng::seed_from_u64(seed),
            online: false,
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
            ready: VecDeque::new(),
            ready_shorts: VecDeque::new(),
            counts: Counts::default(),
            unsent: (0.0, Time::ZERO),
            second_open: false,
            vacated: false,
        }
    }

    /// The network's pace, as it was measured so far.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Starts from another document's numbers.
    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.probes.set_pace(&self.pace);
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
    pub(super) fn unanswered(&self) -> usize {
        self.counts.main + self.counts.second
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
        if !self.online {
            return timer;
        }
        if self.vacated {
            return Some(now);
        }
        let unsent =
            (!self.ready.is_empty() || !self.ready_shorts.is_empty()).then(|| self.unsent_until(now)).flatten();
        let probe = self.may_load().then(|| self.probes.next_timeout()).flatten();
        [timer, unsent, probe].into_iter().flatten().min()
    }

    /// Takes an event in and says what is to be done.
    pub(super) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.vacated = false;
        match event {
            Event::Online(online) => self.set_online(now, online, &mut actions),
            Event::Sender { channel, event } => self.tell_sender(now, channel, event, &mut actions),
            Event::Loaded { channel, frontier, lost_end, arrived } => {
                if self.loading.remove(&channel) {
                    let past = self.dice.random_bool(LOOK_PAST);
                    let receiver = Receiver::new(frontier, lost_end, arrived, past, now, &self.pace);
                    self.receivers.insert(channel, Entry::new(receiver));
                    self.tell_receiver(now, channel, ReceiverEvent::Online(self.online), &mut actions);
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
        if self.online {
            self.fill(now, &mut actions);
        }
        actions
    }

    fn set_online(&mut self, now: Time, online: bool, actions: &mut Vec<Action>) {
        self.online = online;
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
        // One channel launches a window ahead; many launch less each, as each is served less.
        let window = (self.pace.window_boxes() / self.bulks.len().max(1)).max(4);
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
        let Some(entry) = self.receivers.get_mut(&channel) else { return };
        entry.machine.set_pace(&self.pace);
        let told = entry.machine.handle(now, event);
        actions.extend(told.into_iter().map(|action| Action::Receiver { channel, action }));
        if entry.machine.is_at_rest() {
            let entry = self.receivers.remove(&channel).expect("just seen");
            self.unlist(channel, entry.served, entry.timeout);
            self.probes.set_pace(&self.pace);
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
        if op.class == Class::Short { &mut self.ready_shorts } else { &mut self.ready }.push_back(operation);
        self.counts.preparing[crypto] -= 1;
        self.pace.measure_encrypt(now.saturating_sub(since) / behind);
    }

    fn ended(&mut self, now: Time, operation: OperationId, end: End, actions: &mut Vec<Action>) {
        let Some(op) = self.take_out(operation) else { return };
        if let Stage::Transmitted { since, beside, .. } = op.stage
            && !matches!(
                end,
                End::Written(Outcome::Again | Outcome::Stale)
                    | End::WasRead(ReadBack::Unknown)
                    | End::Answered(Answer::Unknown)
            )
        {
            self.pace.measure(now.saturating_sub(since), op.what.packets(), beside);
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
        *self.counts.class(op.class) -= 1;
        match op.stage {
            Stage::Preparing { crypto, .. } => self.counts.preparing[crypto] -= 1,
            Stage::Ready => {
                self.ready.retain(|&other| other != operation);
                self.ready_shorts.retain(|&other| other != operation);
            }
            Stage::Transmitted { line, .. } => *self.counts.line(line) -= 1,
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
            if self.transmit(now, actions) {
                continue;
            }
            if !self.prepare(now, actions) {
                break;
            }
        }
        if self.second_open && self.counts.second == 0 && self.counts.shorts == 0 && self.counts.bulks == 0 {
            self.second_open = false;
            actions.push(Action::CloseSecond);
        }
    }

    /// Channels are woken only as fast as their probes find slots.
    fn may_load(&self) -> bool {
        self.loading.len() + self.reads.len() < self.pace.window_boxes()
    }

    fn transmit(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        if self.unsent_until(now).is_some() {
            return false;
        }
        let window = self.pace.window_boxes();
        let room = self.counts.main < window;
        let taken = if self.ready_shorts.is_empty() {
            room.then(|| self.ready.pop_front()).flatten().map(|operation| (operation, Line::Main))
        } else if self.counts.main + 3 < window {
            // The queue before it is short.
            self.ready_shorts.pop_front().map(|operation| (operation, Line::Main))
        } else if self.counts.second < SECOND {
            self.ready_shorts.pop_front().map(|operation| (operation, Line::Second))
        } else {
            room.then(|| self.ready.pop_front()).flatten().map(|operation| (operation, Line::Main))
        };
        let Some((operation, line)) = taken else { return false };
        self.second_open |= line == Line::Second;
        *self.counts.line(line) += 1;
        self.unsent = (self.unsent_at(now) + 1.0, now);
        let beside = self.unanswered();
        if let Some(op) = self.under_way.get_mut(&operation) {
            op.stage = Stage::Transmitted { line, since: now, beside };
        }
        actions.push(Action::Transmit { operation, line });
        true
    }

    /// Begins one more operation, where there is room to make its envelope.
    fn prepare(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        let connections = self.pace.crypto_connections();
        let (crypto, load) = (0..connections)
            .map(|at| (at, self.counts.preparing[at]))
            .min_by_key(|&(_, load)| load)
            .expect("one connection at least");
        let quick = self.pace.encrypt() < SLOW_ENCRYPT;
        if load >= if quick { QUICK_ENCRYPTS } else { 1 } {
            return false;
        }
        let Some((class, channel, confirms)) = self.choose() else { return false };
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
            self.relist(now, channel, class);
            return true;
        };
        self.count_served(channel, class, what.packets());
        self.relist(now, channel, class);
        let operation = OperationId(self.next_operation);
        self.next_operation += 1;
        let behind = u32::try_from(load).unwrap_or(u32::MAX) + 1;
        let stage = Stage::Preparing { crypto, since: now, behind };
        self.under_way.insert(operation, UnderWay { channel, seq, what, class, stage });
        self.counts.preparing[crypto] += 1;
        *self.counts.class(class) += 1;
        actions.push(Action::Prepare { operation, channel, seq, what, crypto });
        true
    }

    /// Who is next, and whether it is for a confirmation in an idle slot.
    fn choose(&self) -> Option<(Class, ChannelId, bool)> {
        let slots = self.pace.window_boxes() + self.pace.reserve_boxes();
        let Counts { shorts, bulks, reads, .. } = self.counts;
        let (write, read) = (self.bulks.first(), self.reads.first());
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

    /// How many operations' first packets wait in the daemon, as its ticks go; never more than are unanswered.
    fn unsent_at(&self, now: Time) -> f64 {
        let (unsent, at) = self.unsent;
        let sent = now.saturating_sub(at).as_secs_f64() * self.pace.packets_per_second();
        let unanswered = u32::try_from(self.unanswered()).unwrap_or(u32::MAX);
        (unsent - sent).clamp(0.0, f64::from(unanswered))
    }

    /// When there will be room for one more; `None`: there is.
    fn unsent_until(&self, now: Time) -> Option<Time> {
        let excess = self.unsent_at(now) - (UNSENT - 1.0);
        // A hundredth of an operation is no reason to wait; it keeps rounding from waiting for ever.
        (excess > 0.01).then(|| now + Duration::from_secs_f64(excess / self.pace.packets_per_second()))
    }
}

#[cfg(test)]
mod tests;
