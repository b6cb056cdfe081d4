//! One life of a process: what [`super::super::driver`] does, without a runtime. Each function here has its namesake there,
//! and does the same with the same machine; what is a task there is a happening of the world here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt as _;

use super::super::transfer::{Ending, pause_before_retry};
use super::disk::{Answer, Change, Channel, Refused};
use super::line::{Parcel, Wire};
use super::world::{Happening, World};
use crate::channel::{
    Action, Event, Fetched, Linger, Operation, OperationId, PROBE_SHARE, Pace, ReceiverAction, Scheduler, Sender,
    SenderAction, SenderEvent, Time,
};
use crate::localnet::simulated::Envelope;
use crate::store::{Arrival, BoxSeq, BoxState, ChannelId};

/// The first time is not the beginning, so that what happened within a while before has a time too.
pub(super) const BEFORE: Time = Time::from_secs(400 * 86_400);

pub(super) enum Message {
    /// Whether the network can be used has changed; the newest word counts.
    View,
    Touched(usize),
    Sender(usize, SenderEvent),
    Fits(usize),
    Prepared(OperationId, Parcel, Envelope),
    Ended(OperationId, usize, BoxSeq, Ending),
    NotRecorded(usize),
    /// What was not committed is to be tried again.
    Again(usize, Change, Answer),
}

struct Writer {
    bound: bool,
    fits: bool,
    rewrites: u64,
}

#[derive(Clone, Copy)]
struct Tail {
    first: Time,
    last: Time,
    size: usize,
}

/// A process between its start and its crash.
pub(super) struct Life {
    pub(super) scheduler: Scheduler,
    pub(super) wires: [Wire; 2],
    /// What the driver is told of the network.
    pub(super) view: bool,
    online: bool,
    /// The network was seen in this life.
    known: bool,
    writers: BTreeMap<usize, Writer>,
    trusted: BTreeSet<usize>,
    launched_before: BTreeMap<usize, BoxSeq>,
    tails: BTreeMap<usize, Tail>,
    seals: BTreeSet<(Time, usize)>,
    errands: BTreeMap<OperationId, (usize, BoxSeq)>,
    prepared: BTreeMap<OperationId, (Parcel, Envelope)>,
    held: BTreeMap<(usize, BoxSeq), Arrival>,
    linger: Linger,
}

impl Life {
    pub(super) fn new(tokens: [u64; 2], seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(Pace::default(), PROBE_SHARE, seed),
            wires: tokens.map(Wire::new),
            view: false,
            online: false,
            known: false,
            writers: BTreeMap::new(),
            trusted: BTreeSet::new(),
            launched_before: BTreeMap::new(),
            tails: BTreeMap::new(),
            seals: BTreeSet::new(),
            errands: BTreeMap::new(),
            prepared: BTreeMap::new(),
            held: BTreeMap::new(),
            linger: Linger::default(),
        }
    }

    pub(super) fn deadline(&self) -> Time {
        self.scheduler.pace().operation_deadline()
    }

    /// What is kept in memory for what is under way.
    pub(super) fn kept(&self) -> usize {
        self.errands.len() + self.prepared.len() + self.held.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.wires.iter().map(Wire::unanswered).sum()
    }

    pub(super) fn next_timer(&self, now: Time) -> Option<Time> {
        let seal = self.seals.first().map(|&(at, _)| at);
        seal.into_iter().chain(self.scheduler.next_timeout(now)).min()
    }

    fn seal_due(&self, channel: usize) -> Option<Time> {
        self.tails.get(&channel).map(|tail| self.linger.due(tail.first, tail.last))
    }

    fn part_with(&mut self, channel: usize) {
        self.stop(channel);
        if let Some(due) = self.seal_due(channel) {
            self.seals.remove(&(due, channel));
        }
        self.tails.remove(&channel);
    }

    /// Its machine goes; what it had under way is passed over when it comes.
    fn stop(&mut self, channel: usize) {
        self.scheduler.remove(id(channel));
        self.writers.remove(&channel);
        self.errands.retain(|_, (of, _)| *of != channel);
        self.prepared.retain(|operation, _| self.errands.contains_key(operation));
        self.held.retain(|(of, _), _| *of != channel);
    }

    fn watch_tail(&mut self, channel: usize, now: Time, tail_bytes: usize, size: usize) {
        if let Some(due) = self.seal_due(channel) {
            self.seals.remove(&(due, channel));
        }
        if tail_bytes == 0 {
            self.tails.remove(&channel);
            return;
        }
        let tail = self.tails.entry(channel).or_insert(Tail { first: now, last: now, size });
        if tail.size != size {
            if size.checked_sub(tail.size).is_none_or(|more| more >= tail_bytes) {
                tail.first = now;
            }
            (tail.last, tail.size) = (now, size);
        }
        self.seals.extend(self.seal_due(channel).map(|due| (due, channel)));
    }
}

fn id(channel: usize) -> ChannelId {
    ChannelId(i64::try_from(channel).expect("few channels"))
}

fn channel(id: ChannelId) -> usize {
    usize::try_from(id.0).expect("ours")
}

impl World {
    fn life(&mut self, p: usize) -> Option<&mut Life> {
        self.processes[p].life.as_mut()
    }

    /// The beginning of a life.
    pub(super) fn begin(&mut self, p: usize) {
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        for (&channel, of) in &process.disk.channels {
            if let Channel::Written(written) = of {
                life.launched_before.insert(channel, written.launched_end());
            }
        }
        self.update_all(p);
        self.network_changed(p);
    }

    fn update_all(&mut self, p: usize) {
        for channel in self.processes[p].disk.channels.keys().copied().collect::<Vec<_>>() {
            self.update(p, channel);
        }
    }

    fn update(&mut self, p: usize, channel: usize) {
        let (now, prompt) = (self.now, self.plan.prompt);
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        match process.disk.channels.get(&channel) {
            None => {}
            Some(Channel::Written(written)) if written.fenced => life.part_with(channel),
            Some(Channel::Written(written)) => {
                life.watch_tail(channel, now, written.tail_bytes(), written.size());
                if life.writers.get(&channel).is_some_and(|writer| writer.rewrites != written.rewrites) {
                    life.stop(channel);
                }
                if !written.is_stored() {
                    if !life.writers.contains_key(&channel) {
                        self.start_sender(p, channel);
                    }
                    self.drive(p, Event::Sender { channel: id(channel), event: SenderEvent::Queued });
                }
            }
            Some(Channel::Read(_)) if life.scheduler.contains(id(channel)) => {}
            Some(Channel::Read(read)) => life.scheduler.add_receiver(now, id(channel), !read.verdict || prompt),
        }
    }

    pub(super) fn take(&mut self, p: usize, message: Message) {
        match message {
            Message::View => self.network_changed(p),
            Message::Touched(channel) => self.update(p, channel),
            Message::Sender(channel, event) => {
                if let (SenderEvent::LaunchFailed { .. }, Some(life)) = (&event, self.life(p))
                    && let Some(writer) = life.writers.get_mut(&channel)
                {
                    writer.bound = false;
                }
                self.drive(p, Event::Sender { channel: id(channel), event });
            }
            Message::Fits(channel) => {
                let Some(life) = self.life(p) else { return };
                let online = life.online;
                if let Some(writer) = life.writers.get_mut(&channel) {
                    writer.fits = true;
                    self.drive(p, Event::Sender { channel: id(channel), event: SenderEvent::Online(online) });
                }
            }
            Message::Prepared(operation, parcel, envelope) => {
                let Some(life) = self.life(p) else { return };
                if life.scheduler.is_under_way(operation) {
                    life.prepared.insert(operation, (parcel, envelope));
                    self.drive(p, Event::Prepared { operation });
                }
            }
            Message::Ended(operation, channel, seq, ending) => {
                let Some(life) = self.life(p) else { return };
                life.errands.remove(&operation);
                life.prepared.remove(&operation);
                if !life.scheduler.is_under_way(operation) {
                    return;
                }
                if let Some(arrival) = ending.arrival {
                    life.held.insert((channel, seq), arrival);
                }
                self.drive(p, Event::Ended { operation, end: ending.end });
            }
            Message::NotRecorded(channel) => {
                self.see("records that failed");
                let now = self.now;
                if let Some(life) = self.life(p) {
                    life.stop(channel);
                    life.scheduler.add_receiver(now, id(channel), false);
                }
            }
            Message::Again(channel, change, answer) => self.submit(p, channel, change, answer),
        }
    }

    fn network_changed(&mut self, p: usize) {
        let pace = self.plan.pace.clone();
        let Some(life) = self.life(p) else { return };
        let online = life.view;
        if life.online == online {
            return;
        }
        life.online = online;
        self.trace(|| format!("{p}: the network is there: {online}"));
        if !online {
            return self.drive(p, Event::Online(false));
        }
        let Some(life) = self.life(p) else { return };
        if !life.scheduler.pace().is_of_same_document_as(&pace) {
            life.scheduler.set_pace(pace);
        }
        let writers: Vec<_> = life.writers.keys().copied().collect();
        if !std::mem::replace(&mut life.known, true) {
            writers.into_iter().for_each(|channel| life.stop(channel));
            self.drive(p, Event::Online(true));
            return self.update_all(p);
        }
        self.drive(p, Event::Online(true));
        for channel in writers {
            if self.life(p).and_then(|life| life.writers.get(&channel)).is_some_and(|writer| writer.fits) {
                self.drive(p, Event::Sender { channel: id(channel), event: SenderEvent::Online(true) });
            } else {
                self.fit(p, channel);
            }
        }
    }

    pub(super) fn ring(&mut self, p: usize) {
        let now = self.now;
        while let Some(life) = self.life(p)
            && let Some(&(at, channel)) = life.seals.first()
            && at <= now
        {
            life.seals.pop_first();
            life.tails.remove(&channel);
            self.submit(p, channel, Change::Seal, Answer::Sealed { tries: 0 });
        }
        self.drive(p, Event::Tick);
    }

    /// Tells the machines, and does all that they say.
    fn drive(&mut self, p: usize, event: Event) {
        let now = self.now;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(life) = self.life(p) else { return };
            for action in life.scheduler.handle(now, event) {
                self.trace(|| format!("{p}: {action:?}"));
                match action {
                    Action::Sender { channel: of, action } => events.extend(self.sender_wants(p, channel(of), action)),
                    Action::Receiver { channel: of, action } => self.receiver_wants(p, channel(of), action),
                    Action::Load { channel: of } => events.push_back(self.load(p, channel(of))),
                    Action::Rested { .. } => {}
                    Action::Prepare { operation, channel: of, seq, what, .. } => {
                        self.prepare(p, operation, channel(of), seq, what);
                    }
                    Action::Transmit { operation, line } => {
                        let Some(life) = self.life(p) else { return };
                        let Some((parcel, envelope)) = life.prepared.remove(&operation) else { continue };
                        if life.online {
                            self.start_operation(p, operation, line, parcel, envelope);
                        } else {
                            self.vain(p, operation, parcel.channel, parcel.seq, parcel.what);
                        }
                    }
                    Action::CloseSecond => self.hang_up_second(p),
                }
            }
        }
    }

    fn vain(&mut self, p: usize, operation: OperationId, channel: usize, seq: BoxSeq, what: Operation) {
        let ending = Ending::vain(what, "it could not be begun".to_owned());
        self.tell(p, Message::Ended(operation, channel, seq, ending));
    }

    fn prepare(&mut self, p: usize, operation: OperationId, channel: usize, seq: BoxSeq, what: Operation) {
        let encrypt = self.plan.encrypt.mul_f64(self.dice.random_range(0.5..1.5));
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        life.errands.insert(operation, (channel, seq));
        let payload = if what == Operation::Read {
            Some(Vec::new())
        } else {
            let row = process.disk.written(channel).and_then(|written| written.boxes.get(at(seq)));
            let outgoing = row.filter(|row| (BoxState::Sealed..BoxState::Stored).contains(&row.state));
            outgoing.map(|row| row.bytes.clone())
        };
        let (Some(payload), true) = (payload, life.online) else {
            return self.vain(p, operation, channel, seq, what);
        };
        let parcel = Parcel { channel, seq, what, payload };
        self.plan_of(p, encrypt, Happening::Encrypted { p, id: operation, parcel });
    }

    pub(super) fn encrypted(&mut self, p: usize, operation: OperationId, parcel: Parcel) {
        let message = match self.envelope(p, &parcel) {
            Ok(envelope) => Message::Prepared(operation, parcel, envelope),
            Err(ending) => Message::Ended(operation, parcel.channel, parcel.seq, ending),
        };
        self.tell(p, message);
    }

    fn start_sender(&mut self, p: usize, channel: usize) {
        let (now, wall) = (self.now, self.wall());
        let durability = self.plan.streams[channel].durability;
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        let Some(written) = process.disk.written(channel) else { return };
        let age = wall.saturating_sub(written.created);
        let not_before = life.linger.may_launch(now).saturating_sub(age);
        let launched = life.launched_before.get(&channel).copied().unwrap_or_default();
        let untrusted_from = (!life.trusted.contains(&channel)).then_some(launched);
        let sender = Sender::new(written.first_unstored(), not_before, untrusted_from, durability);
        life.scheduler.add_sender(id(channel), sender);
        life.writers.insert(channel, Writer { bound: false, fits: false, rewrites: written.rewrites });
        self.fit(p, channel);
    }

    fn fit(&mut self, p: usize, channel: usize) {
        if self.life(p).is_some_and(|life| life.online) {
            let max = self.max;
            self.submit(p, channel, Change::SetMax { max }, Answer::Fitted { max, tries: 0 });
        }
    }

    fn sender_wants(&mut self, p: usize, channel: usize, action: SenderAction) -> Option<Event> {
        match action {
            SenderAction::Fetch { from, limit } => return Some(self.fetch(p, channel, from, limit)),
            SenderAction::Launch { boxes } => self.launch(p, channel, boxes),
            SenderAction::Confirm { seq } => {
                self.oracle_confirmed(p, channel, seq);
                self.confirm(p, channel, seq, BoxState::Stored);
            }
            SenderAction::Courier { seq } => self.confirm(p, channel, seq, BoxState::Couriered),
            SenderAction::Trust => {
                self.life(p)?.trusted.insert(channel);
            }
            SenderAction::Fence { seq, .. } => {
                self.oracle_fenced(channel, seq);
                self.submit(p, channel, Change::Fence, Answer::Fenced { tries: 0 });
            }
        }
        None
    }

    fn fetch(&mut self, p: usize, channel: usize, from: BoxSeq, limit: usize) -> Event {
        let (now, wall) = (self.now, self.wall());
        let mut boxes = Vec::new();
        if let Some(written) = self.processes[p].disk.written(channel) {
            let rows = (0..).zip(&written.boxes).skip_while(|(seq, _)| *seq < from.0);
            let outgoing = rows.filter(|(_, row)| (BoxState::Sealed..BoxState::Stored).contains(&row.state));
            boxes.extend(outgoing.take(limit).map(|(seq, row)| {
                let fetched = match row.state {
                    BoxState::Couriered => {
                        Fetched::Couriered { since: now.saturating_sub(wall.saturating_sub(row.since)) }
                    }
                    BoxState::Sealed => Fetched::Sealed,
                    _ => Fetched::Launched,
                };
                (BoxSeq(seq), fetched)
            }));
        }
        Event::Sender { channel: id(channel), event: SenderEvent::Fetched { boxes } }
    }

    fn launch(&mut self, p: usize, channel: usize, boxes: Vec<BoxSeq>) {
        let Some(life) = self.life(p) else { return };
        if !life.online {
            return self.tell(p, Message::Sender(channel, SenderEvent::LaunchFailed { boxes }));
        }
        let Some(writer) = life.writers.get_mut(&channel) else { return };
        let rewrites = writer.rewrites;
        if !std::mem::replace(&mut writer.bound, true) {
            self.submit(p, channel, Change::Bind, Answer::Nobody);
        }
        let answer = Answer::Launched { boxes: boxes.clone() };
        self.submit(p, channel, Change::Launch { rewrites, boxes }, answer);
    }

    fn confirm(&mut self, p: usize, channel: usize, seq: BoxSeq, to: BoxState) {
        let since = self.wall();
        self.submit(p, channel, Change::Confirm { seq, to, since }, Answer::Confirmed { seq, to, tries: 0 });
    }

    fn load(&mut self, p: usize, channel: usize) -> Event {
        match self.processes[p].disk.read(channel) {
            Some(read) => {
                let arrived = read.boxes.range(read.frontier..).map(|(&seq, _)| BoxSeq(seq)).collect();
                Event::Loaded { channel: id(channel), frontier: BoxSeq(read.frontier), lost_end: BoxSeq(0), arrived }
            }
            None => Event::NotLoaded { channel: id(channel) },
        }
    }

    fn receiver_wants(&mut self, p: usize, channel: usize, action: ReceiverAction) {
        let record = match action {
            ReceiverAction::Record { seq } => {
                self.life(p).and_then(|life| life.held.remove(&(channel, seq))).map(|arrival| (seq, arrival))
            }
            ReceiverAction::Verdict { seq } => Some((seq, Arrival::NotYet)),
        };
        if let Some(arrival) = record {
            self.submit(p, channel, Change::Received { arrivals: vec![arrival] }, Answer::Recorded);
        }
    }

    /// What the driver's task does when its commit is over.
    pub(super) fn settled(&mut self, p: usize, channel: usize, answer: Answer, result: Result<(), Refused>) {
        let since = self.wall();
        let mut again = |tries, change, answer| {
            let message = Message::Again(channel, change, answer);
            self.plan_of(p, pause_before_retry(tries), Happening::Message { p, message });
        };
        match (answer, result) {
            (Answer::Nobody, _)
            | (Answer::Sealed { .. } | Answer::Fenced { .. } | Answer::Confirmed { .. } | Answer::Recorded, Ok(())) => {
            }
            (Answer::Sealed { tries }, Err(_)) => again(tries, Change::Seal, Answer::Sealed { tries: tries + 1 }),
            (Answer::Fenced { tries }, Err(_)) => again(tries, Change::Fence, Answer::Fenced { tries: tries + 1 }),
            (Answer::Fitted { .. }, Ok(())) => self.tell(p, Message::Fits(channel)),
            (Answer::Fitted { max, tries }, Err(_)) => {
                again(tries, Change::SetMax { max }, Answer::Fitted { max, tries: tries + 1 });
            }
            (Answer::Launched { boxes }, Ok(())) => {
                self.tell(p, Message::Sender(channel, SenderEvent::Launched { boxes }));
            }
            (Answer::Launched { boxes }, Err(_)) => {
                self.tell(p, Message::Sender(channel, SenderEvent::LaunchFailed { boxes }));
            }
            (Answer::Confirmed { seq, to, tries }, Err(_)) => {
                let answer = Answer::Confirmed { seq, to, tries: tries + 1 };
                again(tries, Change::Confirm { seq, to, since }, answer);
            }
            (Answer::Recorded, Err(_)) => self.tell(p, Message::NotRecorded(channel)),
        }
    }
}

fn at(seq: BoxSeq) -> usize {
    usize::try_from(seq.0).unwrap_or(usize::MAX)
}
