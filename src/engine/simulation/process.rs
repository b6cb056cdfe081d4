//! One life of a process: what [`super::super::driver`] does, without a runtime. Each function here has its namesake there,
//! and does the same with the same machines; what is a task there is a happening of the world here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::transfer::{Ending, pause_before_retry};
use super::disk::{Answer, Change, Channel, Refused};
use super::line::Line;
use super::world::{Happening, World};
use crate::channel::{
    Action, Durability, Event, Fetched, Linger, Operation, OperationId, PROBE_SHARE, Pace, ReceiverAction, Scheduler,
    Sender, SenderAction, SenderEvent, Time,
};
use crate::store::{Arrival, BoxSeq, BoxState, ChannelId};

pub(super) enum Message {
    /// Whether the network can be used has changed; the newest word counts.
    View,
    Touched(usize),
    Sender(usize, SenderEvent),
    Fits(usize),
    /// An envelope is made.
    Made(OperationId),
    Ended(OperationId, usize, BoxSeq, Ending),
    Unrecorded(usize),
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
    scheduler: Scheduler,
    pub(super) line: Line,
    writers: BTreeMap<usize, Writer>,
    trusted: BTreeSet<usize>,
    sealed_before: BTreeMap<usize, (u64, u64)>,
    tails: BTreeMap<usize, Tail>,
    seals: BTreeSet<(Time, usize)>,
    held: BTreeMap<(usize, BoxSeq), Vec<u8>>,
    online: bool,
    /// The network was seen in this life.
    known: bool,
    linger: Linger,
    now: Time,
}

impl Life {
    pub(super) fn new(token: u64, pace: Pace) -> Self {
        Self {
            scheduler: Scheduler::new(pace, PROBE_SHARE, token),
            line: Line::new(token),
            writers: BTreeMap::new(),
            trusted: BTreeSet::new(),
            sealed_before: BTreeMap::new(),
            tails: BTreeMap::new(),
            seals: BTreeSet::new(),
            held: BTreeMap::new(),
            online: false,
            known: false,
            linger: Linger::default(),
            now: Time::ZERO,
        }
    }

    /// Boxes kept in memory, of all channels.
    pub(super) fn kept(&self) -> usize {
        self.held.len() + self.line.ops.values().filter(|op| !op.bytes.is_empty()).count()
    }

    /// When time alone is to be told.
    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        let seal = self.seals.first().map(|&(at, _)| at);
        seal.into_iter().chain(self.scheduler.next_timeout(now)).min()
    }

    fn seal_due(&self, channel: usize) -> Option<Time> {
        self.tails.get(&channel).map(|tail| self.linger.due(tail.first, tail.last))
    }

    /// Its machine goes; what it had under way is passed over when it comes.
    fn stop(&mut self, channel: usize) {
        self.scheduler.remove(id(channel));
        self.writers.remove(&channel);
        self.line.ops.retain(|_, op| op.channel != channel || op.transmitted);
        self.held.retain(|(of, _), _| *of != channel);
    }

    fn part_with(&mut self, channel: usize) {
        self.stop(channel);
        if let Some(due) = self.seal_due(channel) {
            self.seals.remove(&(due, channel));
        }
        self.tails.remove(&channel);
    }

    fn watch_tail(&mut self, channel: usize, tail_bytes: usize, size: usize) {
        let now = self.now;
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
    ChannelId(i64::try_from(channel).expect("a handful of channels"))
}

fn number(id: ChannelId) -> usize {
    usize::try_from(id.0).expect("made of a number")
}

/// Whose word lets a channel go on: a third of them do not wait for replicas.
fn durability(channel: usize) -> Durability {
    if channel % 3 == 1 { Durability::Couriered } else { Durability::Stored }
}

impl World {
    fn life(&mut self, p: usize) -> Option<&mut Life> {
        self.processes[p].life.as_mut()
    }

    pub(super) fn line(&mut self, p: usize) -> Option<&mut Line> {
        self.life(p).map(|life| &mut life.line)
    }

    /// What the driver does when it begins.
    pub(super) fn load_all(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if let Some(life) = &mut process.life {
            for (&channel, found) in &process.disk.channels {
                let Channel::Written(written) = found else { continue };
                let sealed = written.boxes.len() - usize::from(written.tail_bytes() > 0);
                life.sealed_before.insert(channel, (sealed as u64, written.rewrites));
            }
        }
        self.each_channel(p);
    }

    fn each_channel(&mut self, p: usize) {
        for channel in self.processes[p].disk.channels.keys().copied().collect::<Vec<_>>() {
            self.update(p, channel);
        }
    }

    fn update(&mut self, p: usize, channel: usize) {
        let (now, prompt) = (self.now, self.plan.prompt);
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        life.now = now;
        match process.disk.channels.get(&channel) {
            None => {}
            Some(Channel::Written(written)) if written.fenced => life.part_with(channel),
            Some(Channel::Written(written)) => {
                let rewrites = written.rewrites;
                life.watch_tail(channel, written.tail_bytes(), written.size());
                if life.writers.get(&channel).is_some_and(|writer| writer.rewrites != rewrites) {
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
            Some(Channel::Read(read)) => {
                life.scheduler.add_receiver(now, id(channel), !read.verdict || prompt);
                self.drive(p, Event::Tick);
            }
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
            Message::Made(operation) => {
                let Some(life) = self.life(p) else { return };
                if life.scheduler.is_under_way(operation) {
                    self.drive(p, Event::Prepared { operation });
                } else {
                    life.line.ops.remove(&operation);
                }
            }
            Message::Ended(operation, channel, seq, ending) => {
                let Some(life) = self.life(p) else { return };
                life.line.ops.remove(&operation);
                if !life.scheduler.is_under_way(operation) {
                    return;
                }
                if let Some(Arrival::Message(bytes)) = ending.arrival {
                    life.held.insert((channel, seq), bytes);
                }
                self.drive(p, Event::Ended { operation, end: ending.end });
            }
            Message::Unrecorded(channel) => {
                let now = self.now;
                if let Some(life) = self.life(p) {
                    life.stop(channel);
                    life.scheduler.add_receiver(now, id(channel), false);
                    self.drive(p, Event::Tick);
                }
            }
            Message::Fits(channel) => {
                let Some(life) = self.life(p) else { return };
                let online = life.online;
                if let Some(writer) = life.writers.get_mut(&channel) {
                    writer.fits = true;
                    self.drive(p, Event::Sender { channel: id(channel), event: SenderEvent::Online(online) });
                }
            }
            Message::Again(channel, change, answer) => self.submit(p, channel, change, answer),
        }
    }

    fn network_changed(&mut self, p: usize) {
        let Some(life) = self.life(p) else { return };
        let online = life.line.view;
        if life.online == online {
            return;
        }
        life.online = online;
        self.trace(|| format!("{p}: the network is there: {online}"));
        let Some(life) = self.life(p) else { return };
        let writers: Vec<_> = life.writers.keys().copied().collect();
        let again = life.known;
        life.known |= online;
        if online && !again {
            for channel in writers {
                life.stop(channel);
            }
            self.drive(p, Event::Online(true));
            return self.each_channel(p);
        }
        self.drive(p, Event::Online(online));
        for channel in writers.into_iter().filter(|_| online) {
            if self.life(p).is_some_and(|life| life.writers.get(&channel).is_some_and(|writer| writer.fits)) {
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

    fn start_sender(&mut self, p: usize, channel: usize) {
        let (now, wall) = (self.now, self.wall());
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        let Some(Channel::Written(written)) = process.disk.channels.get(&channel) else { return };
        let age = wall.saturating_sub(written.created);
        let not_before = life.linger.may_launch(now).saturating_sub(age);
        let untrusted_from = (!life.trusted.contains(&channel)).then(|| match life.sealed_before.get(&channel) {
            Some(&(sealed, rewrites)) if rewrites == written.rewrites => BoxSeq(sealed),
            _ => BoxSeq(0),
        });
        let sender = Sender::new(BoxSeq(0), not_before, untrusted_from, durability(channel));
        life.scheduler.add_sender(id(channel), sender);
        life.writers.insert(channel, Writer { bound: false, fits: false, rewrites: written.rewrites });
        self.fit(p, channel);
    }

    fn fit(&mut self, p: usize, channel: usize) {
        if self.life(p).is_some_and(|life| life.online) {
            let max = self.max;
            self.submit(p, channel, Change::SetMax { max }, Answer::Prepared { max, tries: 0 });
        }
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
                    Action::Sender { channel, action } => {
                        events.extend(self.sender_wants(p, number(channel), action));
                    }
                    Action::Receiver { channel, action } => self.receiver_wants(p, number(channel), action),
                    Action::Load { channel } => {
                        let read = self.processes[p].disk.read(number(channel));
                        events.push_back(read.map_or(Event::NotLoaded { channel }, |read| Event::Loaded {
                            channel,
                            frontier: BoxSeq(read.frontier),
                            arrived: read.boxes.range(read.frontier..).map(|(&seq, _)| BoxSeq(seq)).collect(),
                        }));
                    }
                    Action::Prepare { operation, channel, seq, what, .. } => {
                        self.prepare(p, operation, (number(channel), seq), what);
                    }
                    Action::Transmit { operation, .. } => {
                        let Some(life) = self.life(p) else { return };
                        let (online, deadline) = (life.online, life.scheduler.pace().operation_deadline());
                        if online {
                            self.transmit(p, operation, deadline);
                        } else {
                            self.away(p, operation);
                        }
                    }
                    Action::Rested { .. } | Action::CloseSecond => {}
                }
            }
        }
    }

    fn sender_wants(&mut self, p: usize, channel: usize, action: SenderAction) -> Option<Event> {
        match action {
            SenderAction::Fetch { from, limit } => return Some(self.fetch(p, channel, from, limit)),
            SenderAction::Launch { boxes } => self.launch(p, channel, boxes),
            SenderAction::Confirm { seq } => self.confirm(p, channel, seq, BoxState::Stored),
            SenderAction::Courier { seq } => self.confirm(p, channel, seq, BoxState::Couriered),
            SenderAction::Trust => {
                if let Some(life) = self.life(p) {
                    life.trusted.insert(channel);
                }
            }
            SenderAction::Fence { seq, foreign } => {
                self.oracle_fenced(p, channel, seq, foreign);
                self.submit(p, channel, Change::Fence, Answer::Nobody);
            }
        }
        None
    }

    fn fetch(&mut self, p: usize, channel: usize, from: BoxSeq, limit: usize) -> Event {
        let since = self.now;
        let written = self.processes[p].disk.written(channel);
        let rows = (0..).zip(written.map(|written| &written.boxes[..]).unwrap_or_default());
        let outgoing = rows
            .skip_while(|(seq, _)| *seq < from.0)
            .filter(|(_, row)| (BoxState::Sealed..BoxState::Stored).contains(&row.state))
            .take(limit);
        let boxes = outgoing.map(|(seq, row)| {
            let fetched = match row.state {
                BoxState::Sealed => Fetched::Sealed,
                BoxState::Couriered => Fetched::Couriered { since },
                _ => Fetched::Launched,
            };
            (BoxSeq(seq), fetched)
        });
        Event::Sender { channel: id(channel), event: SenderEvent::Fetched { boxes: boxes.collect() } }
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

    fn confirm(&mut self, p: usize, channel: usize, seq: BoxSeq, state: BoxState) {
        if state == BoxState::Stored {
            self.oracle_confirmed(p, channel, seq);
        }
        let boxes = vec![seq];
        let answer = Answer::Confirmed { boxes: boxes.clone(), state, tries: 0 };
        self.submit(p, channel, Change::Confirm { boxes, state }, answer);
    }

    fn receiver_wants(&mut self, p: usize, channel: usize, action: ReceiverAction) {
        let arrival = match action {
            ReceiverAction::Record { seq } => {
                self.life(p).and_then(|life| life.held.remove(&(channel, seq))).map(|bytes| (seq, Some(bytes)))
            }
            ReceiverAction::Verdict { seq } => Some((seq, None)),
        };
        if let Some(arrival) = arrival {
            self.submit(p, channel, Change::Received { arrivals: vec![arrival] }, Answer::Recorded);
        }
    }

    /// Makes an envelope; where the network has just gone, or the box with it, the machine is told that it did not work.
    fn prepare(&mut self, p: usize, operation: OperationId, (channel, seq): (usize, BoxSeq), what: Operation) {
        let online = self.life(p).is_some_and(|life| life.online);
        let row = self.processes[p].disk.written(channel).and_then(|written| {
            let at = usize::try_from(seq.0).ok()?;
            written.boxes.get(at).filter(|row| (BoxState::Sealed..BoxState::Stored).contains(&row.state))
        });
        match row.map(|row| row.bytes.clone()) {
            _ if !online => {
                let ending = Ending::vain(what, "the network is away".to_owned());
                self.tell(p, Message::Ended(operation, channel, seq, ending));
            }
            Some(bytes) => self.operate(p, operation, (channel, seq), what, bytes),
            None if what == Operation::Read => self.operate(p, operation, (channel, seq), what, Vec::new()),
            None => {
                let ending = Ending::vain(what, "it is stored, or gone".to_owned());
                self.tell(p, Message::Ended(operation, channel, seq, ending));
            }
        }
    }

    /// What the driver's task does when its commit is over.
    pub(super) fn settled(&mut self, p: usize, channel: usize, answer: Answer, result: Result<(), Refused>) {
        let mut again = |tries, change, answer| {
            let message = Message::Again(channel, change, answer);
            self.plan_of(p, pause_before_retry(tries), Happening::Message { p, message });
        };
        match (answer, result) {
            (Answer::Nobody, _) | (Answer::Sealed { .. } | Answer::Confirmed { .. } | Answer::Recorded, Ok(())) => {}
            (Answer::Sealed { tries }, Err(_)) => again(tries, Change::Seal, Answer::Sealed { tries: tries + 1 }),
            (Answer::Prepared { .. }, Ok(())) => self.tell(p, Message::Fits(channel)),
            (Answer::Prepared { max, tries }, Err(_)) => {
                again(tries, Change::SetMax { max }, Answer::Prepared { max, tries: tries + 1 });
            }
            (Answer::Launched { boxes }, Ok(())) => {
                self.tell(p, Message::Sender(channel, SenderEvent::Launched { boxes }));
            }
            (Answer::Launched { boxes }, Err(_)) => {
                self.tell(p, Message::Sender(channel, SenderEvent::LaunchFailed { boxes }));
            }
            (Answer::Confirmed { boxes, state, tries }, Err(_)) => {
                let answer = Answer::Confirmed { boxes: boxes.clone(), state, tries: tries + 1 };
                again(tries, Change::Confirm { boxes, state }, answer);
            }
            (Answer::Recorded, Err(_)) => self.tell(p, Message::Unrecorded(channel)),
        }
    }
}
