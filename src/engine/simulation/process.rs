//! One life of a process: what [`super::super::driver`] does, without a runtime. Each function here has its namesake there,
//! and does the same with the same machines; what is a task there is a happening of the world here.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::super::transfer::{Found, pause_before_retry};
use super::disk::{Answer, Change, Channel, Refused};
use super::line::{Line, Work};
use super::world::{Happening, World};
use crate::channel::{
    Answer as Asked, Linger, Outcome, Pace, Receiver, ReceiverAction, ReceiverEvent, Sender, SenderAction, SenderEvent,
    Time,
};
use crate::store::{BoxSeq, BoxState};

/// As the driver's.
const RECEIVER_AGAIN: Time = Time::from_millis(super::super::driver::RECEIVER_AGAIN_MS);

pub(super) enum Message {
    /// Whether the network can be used has changed; the newest word counts.
    View,
    Touched(usize),
    Sender(usize, SenderEvent),
    Prepared(usize),
    Arrived(usize, BoxSeq, Found),
    Unrecorded(usize),
    /// What was not committed is to be tried again.
    Again(usize, Change, Answer),
}

struct Writer {
    machine: Sender,
    boxes: BTreeMap<BoxSeq, Vec<u8>>,
    bound: bool,
    rewrites: u64,
}

struct Reader {
    machine: Receiver,
    held: BTreeMap<BoxSeq, Vec<u8>>,
}

enum Machine {
    Writer(Writer),
    Reader(Reader),
}

#[derive(Clone, Copy)]
struct Tail {
    first: Time,
    last: Time,
    size: usize,
}

/// A process between its start and its crash.
pub(super) struct Life {
    pub(super) pace: Pace,
    pub(super) line: Line,
    machines: BTreeMap<usize, Machine>,
    tails: BTreeMap<usize, Tail>,
    pub(super) timers: BTreeSet<(Time, usize)>,
    planned: BTreeMap<usize, Time>,
    online: bool,
    /// The network was seen in this life.
    known: bool,
    linger: Linger,
}

impl Life {
    pub(super) fn new(token: u64) -> Self {
        Self {
            pace: Pace::default(),
            line: Line::new(token),
            machines: BTreeMap::new(),
            tails: BTreeMap::new(),
            timers: BTreeSet::new(),
            planned: BTreeMap::new(),
            online: false,
            known: false,
            linger: Linger::default(),
        }
    }

    /// Boxes kept in memory, of all channels.
    pub(super) fn kept(&self) -> usize {
        let kept = |machine: &Machine| match machine {
            Machine::Writer(writer) => writer.boxes.len(),
            Machine::Reader(reader) => reader.held.len(),
        };
        self.machines.values().map(kept).sum()
    }

    fn writer(&mut self, channel: usize) -> Option<&mut Writer> {
        match self.machines.get_mut(&channel) {
            Some(Machine::Writer(writer)) => Some(writer),
            _ => None,
        }
    }

    fn reader(&mut self, channel: usize) -> Option<&mut Reader> {
        match self.machines.get_mut(&channel) {
            Some(Machine::Reader(reader)) => Some(reader),
            _ => None,
        }
    }
}

impl World {
    fn life(&mut self, p: usize) -> Option<&mut Life> {
        self.processes[p].life.as_mut()
    }

    pub(super) fn line(&mut self, p: usize) -> Option<&mut Line> {
        self.life(p).map(|life| &mut life.line)
    }

    pub(super) fn load_all(&mut self, p: usize) {
        for channel in self.processes[p].disk.channels.keys().copied().collect::<Vec<_>>() {
            self.update(p, channel);
        }
    }

    fn update(&mut self, p: usize, channel: usize) {
        let (now, prompt) = (self.now, self.plan.prompt);
        let scatter: f64 = self.dice.random();
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        match process.disk.channels.get(&channel) {
            None => {}
            Some(Channel::Written(written)) if written.fenced => {
                life.machines.remove(&channel);
                life.tails.remove(&channel);
                return self.plan_timer(p, channel, None);
            }
            Some(Channel::Written(written)) => {
                let (tail_bytes, size, rewrites) = (written.tail_bytes(), written.size(), written.rewrites);
                let behind = !written.is_stored();
                watch_tail(life, channel, now, tail_bytes, size);
                if life.writer(channel).is_some_and(|writer| writer.rewrites != rewrites) {
                    life.machines.remove(&channel);
                }
                if behind {
                    self.start_sender(p, channel);
                    self.drive_sender(p, channel, SenderEvent::Queued);
                }
            }
            Some(Channel::Read(_)) if life.machines.contains_key(&channel) => {}
            Some(Channel::Read(read)) => {
                let at = if read.verdict && !prompt { now + life.pace.probe_cap().mul_f64(scatter) } else { now };
                self.start_receiver(p, channel, at);
            }
        }
        self.replan(p, channel);
    }

    pub(super) fn take(&mut self, p: usize, message: Message) {
        match message {
            Message::View => self.network_changed(p),
            Message::Touched(channel) => self.update(p, channel),
            Message::Sender(channel, event) => {
                if let (SenderEvent::LaunchFailed { .. }, Some(life)) = (&event, self.life(p))
                    && let Some(writer) = life.writer(channel)
                {
                    writer.bound = false;
                }
                self.drive_sender(p, channel, event);
                self.replan(p, channel);
            }
            Message::Arrived(channel, seq, found) => {
                let answer = match found {
                    Found::Message(bytes) => {
                        if let Some(reader) = self.life(p).and_then(|life| life.reader(channel)) {
                            reader.held.insert(seq, bytes);
                        }
                        Asked::Arrived
                    }
                    Found::Tombstone | Found::NotYet => Asked::NotYet,
                    Found::Unknown(_) => Asked::Unknown,
                };
                self.drive_receiver(p, channel, ReceiverEvent::Answered { seq, answer });
                self.replan(p, channel);
            }
            Message::Unrecorded(channel) => {
                if let Some(life) = self.life(p) {
                    life.machines.remove(&channel);
                    let at = self.now + RECEIVER_AGAIN;
                    self.start_receiver(p, channel, at);
                    self.replan(p, channel);
                }
            }
            Message::Prepared(channel) => {
                if self.life(p).is_some_and(|life| life.online) {
                    self.drive_sender(p, channel, SenderEvent::Online(true));
                    self.replan(p, channel);
                }
            }
            Message::Again(channel, change, answer) => self.submit(p, channel, change, answer),
        }
    }

    fn network_changed(&mut self, p: usize) {
        let pace = self.plan.pace.clone();
        let Some(life) = self.life(p) else { return };
        let online = life.line.view;
        if life.online == online {
            return;
        }
        life.online = online;
        self.trace(|| format!("{p}: the network is there: {online}"));
        let Some(life) = self.life(p) else { return };
        if online {
            life.pace = pace;
            if !std::mem::replace(&mut life.known, true) {
                life.machines.clear();
                return self.load_all(p);
            }
        }
        let Some(life) = self.life(p) else { return };
        for channel in life.machines.keys().copied().collect::<Vec<_>>() {
            if online && self.life(p).is_some_and(|life| life.writer(channel).is_some()) {
                self.prepare(p, channel);
            } else {
                self.drive_sender(p, channel, SenderEvent::Online(online));
                self.drive_receiver(p, channel, ReceiverEvent::Online(online));
            }
            self.replan(p, channel);
        }
    }

    pub(super) fn ring(&mut self, p: usize) {
        let now = self.now;
        while let Some(life) = self.life(p)
            && let Some(&(at, channel)) = life.timers.first()
            && at <= now
        {
            let linger = life.linger;
            let due = life.tails.get(&channel).is_some_and(|tail| linger.due(tail.first, tail.last) <= now);
            if due {
                life.tails.remove(&channel);
            }
            self.plan_timer(p, channel, None);
            if due {
                self.submit(p, channel, Change::Seal, Answer::Sealed { tries: 0 });
            }
            self.drive_sender(p, channel, SenderEvent::Tick);
            self.drive_receiver(p, channel, ReceiverEvent::Tick);
            self.replan(p, channel);
        }
    }

    fn start_sender(&mut self, p: usize, channel: usize) {
        let (now, wall) = (self.now, self.wall());
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        let Some(Channel::Written(written)) = process.disk.channels.get(&channel) else { return };
        if life.machines.contains_key(&channel) {
            return;
        }
        let age = wall.saturating_sub(written.created);
        let machine = Sender::new(BoxSeq(0), life.linger.may_launch(now).saturating_sub(age));
        let writer = Writer { machine, boxes: BTreeMap::new(), bound: false, rewrites: written.rewrites };
        life.machines.insert(channel, Machine::Writer(writer));
        self.prepare(p, channel);
    }

    fn prepare(&mut self, p: usize, channel: usize) {
        if self.life(p).is_some_and(|life| life.online) {
            let max = self.max;
            self.submit(p, channel, Change::SetMax { max }, Answer::Prepared { max, tries: 0 });
        }
    }

    fn drive_sender(&mut self, p: usize, channel: usize, event: SenderEvent) {
        let now = self.now;
        let mut events = vec![event];
        let mut confirmed = Vec::new();
        while let Some(event) = events.pop() {
            let Some(life) = self.life(p) else { return };
            let window = life.pace.window_boxes();
            let Some(writer) = life.writer(channel) else { return };
            writer.machine.set_window(window);
            for action in writer.machine.handle(now, event) {
                self.trace(|| format!("{p}: {channel} {action:?}"));
                match action {
                    SenderAction::Fetch { from, limit } => events.push(self.fetch(p, channel, from, limit)),
                    SenderAction::Launch { boxes } => self.launch(p, channel, boxes),
                    SenderAction::Send { seq } => self.send(p, channel, seq, false),
                    SenderAction::ReadBack { seq } => self.send(p, channel, seq, true),
                    SenderAction::Confirm { seq } => confirmed.push(seq),
                    SenderAction::Fence { seq, foreign } => self.fence(p, channel, seq, foreign),
                }
            }
        }
        if !confirmed.is_empty() {
            self.confirm(p, channel, confirmed);
        }
    }

    fn fetch(&mut self, p: usize, channel: usize, from: BoxSeq, limit: usize) -> SenderEvent {
        let process = &mut self.processes[p];
        let (Some(life), Some(written)) = (&mut process.life, process.disk.written(channel)) else {
            return SenderEvent::Fetched { boxes: Vec::new() };
        };
        let rows = (0..).zip(&written.boxes).skip_while(|(seq, _)| *seq < from.0);
        let outgoing = rows.filter(|(_, row)| (BoxState::Sealed..BoxState::Stored).contains(&row.state)).take(limit);
        let mut boxes = Vec::new();
        for (seq, row) in outgoing {
            boxes.push((BoxSeq(seq), row.state != BoxState::Sealed));
            if let Some(Machine::Writer(writer)) = life.machines.get_mut(&channel) {
                writer.boxes.insert(BoxSeq(seq), row.bytes.clone());
            }
        }
        SenderEvent::Fetched { boxes }
    }

    fn launch(&mut self, p: usize, channel: usize, boxes: Vec<BoxSeq>) {
        let Some(life) = self.life(p) else { return };
        if !life.online {
            return self.tell(p, Message::Sender(channel, SenderEvent::LaunchFailed { boxes }));
        }
        let Some(writer) = life.writer(channel) else { return };
        let rewrites = writer.rewrites;
        if !std::mem::replace(&mut writer.bound, true) {
            self.submit(p, channel, Change::Bind, Answer::Nobody);
        }
        let answer = Answer::Launched { boxes: boxes.clone() };
        self.submit(p, channel, Change::Launch { rewrites, boxes }, answer);
    }

    /// Sends a box, or reads its index back; where the network has just gone, the machine is told that it did not work.
    fn send(&mut self, p: usize, channel: usize, seq: BoxSeq, back: bool) {
        let Some(life) = self.life(p) else { return };
        let online = life.online;
        let Some(bytes) = life.writer(channel).and_then(|writer| writer.boxes.get(&seq).cloned()) else { return };
        if !online {
            let event = SenderEvent::Ended { seq, outcome: Outcome::Again };
            return self.tell(p, Message::Sender(channel, event));
        }
        self.operate(p, channel, seq, if back { Work::ReadBack(bytes) } else { Work::Write(bytes) });
    }

    fn confirm(&mut self, p: usize, channel: usize, boxes: Vec<BoxSeq>) {
        for &seq in &boxes {
            self.oracle_confirmed(p, channel, seq);
            if let Some(writer) = self.life(p).and_then(|life| life.writer(channel)) {
                writer.boxes.remove(&seq);
            }
        }
        let answer = Answer::Confirmed { boxes: boxes.clone(), tries: 0 };
        self.submit(p, channel, Change::Confirm { boxes }, answer);
    }

    fn fence(&mut self, p: usize, channel: usize, seq: BoxSeq, foreign: bool) {
        self.oracle_fenced(p, channel, seq, foreign);
        self.submit(p, channel, Change::Fence, Answer::Nobody);
    }

    fn start_receiver(&mut self, p: usize, channel: usize, at: Time) {
        let process = &mut self.processes[p];
        let Some(life) = &mut process.life else { return };
        let Some(Channel::Read(read)) = process.disk.channels.get(&channel) else { return };
        let arrived = read.boxes.range(read.frontier..).map(|(&seq, _)| BoxSeq(seq));
        let machine = Receiver::new(BoxSeq(read.frontier), arrived, at, &life.pace);
        life.machines.insert(channel, Machine::Reader(Reader { machine, held: BTreeMap::new() }));
        if life.online {
            self.drive_receiver(p, channel, ReceiverEvent::Online(true));
        }
    }

    fn drive_receiver(&mut self, p: usize, channel: usize, event: ReceiverEvent) {
        let (now, chance) = (self.now, self.dice.random());
        let Some(life) = self.life(p) else { return };
        let (pace, online) = (life.pace.clone(), life.online);
        let Some(reader) = life.reader(channel) else { return };
        reader.machine.set_pace(&pace);
        let actions = reader.machine.handle(now, chance, event);
        let mut arrivals = Vec::new();
        for action in actions {
            self.trace(|| format!("{p}: {channel} {action:?}"));
            match action {
                ReceiverAction::Ask { seq } if online => self.operate(p, channel, seq, Work::Read),
                ReceiverAction::Ask { seq } => {
                    self.tell(p, Message::Arrived(channel, seq, Found::Unknown("the network is away".to_owned())));
                }
                ReceiverAction::Record { seq } => {
                    let held = self.life(p).and_then(|life| life.reader(channel)?.held.remove(&seq));
                    arrivals.extend(held.map(|bytes| (seq, Some(bytes))));
                }
                ReceiverAction::Verdict { seq } => arrivals.push((seq, None)),
            }
        }
        if !arrivals.is_empty() {
            self.submit(p, channel, Change::Received { arrivals }, Answer::Recorded);
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
            (Answer::Prepared { .. }, Ok(())) => self.tell(p, Message::Prepared(channel)),
            (Answer::Prepared { max, tries }, Err(_)) => {
                again(tries, Change::SetMax { max }, Answer::Prepared { max, tries: tries + 1 });
            }
            (Answer::Launched { boxes }, Ok(())) => {
                self.tell(p, Message::Sender(channel, SenderEvent::Launched { boxes }));
            }
            (Answer::Launched { boxes }, Err(_)) => {
                self.tell(p, Message::Sender(channel, SenderEvent::LaunchFailed { boxes }));
            }
            (Answer::Confirmed { boxes, tries }, Err(_)) => {
                let answer = Answer::Confirmed { boxes: boxes.clone(), tries: tries + 1 };
                again(tries, Change::Confirm { boxes }, answer);
            }
            (Answer::Recorded, Err(_)) => self.tell(p, Message::Unrecorded(channel)),
        }
    }

    fn replan(&mut self, p: usize, channel: usize) {
        let Some(life) = self.life(p) else { return };
        let linger = life.linger;
        let tail = life.tails.get(&channel).map(|tail| linger.due(tail.first, tail.last));
        let machine = match life.machines.get(&channel) {
            Some(Machine::Writer(writer)) => writer.machine.next_timeout(),
            Some(Machine::Reader(reader)) => reader.machine.next_timeout(),
            None => None,
        };
        self.plan_timer(p, channel, tail.into_iter().chain(machine).min());
    }

    fn plan_timer(&mut self, p: usize, channel: usize, at: Option<Time>) {
        let Some(life) = self.life(p) else { return };
        if let Some(old) = life.planned.remove(&channel) {
            life.timers.remove(&(old, channel));
        }
        if let Some(at) = at {
            life.timers.insert((at, channel));
            life.planned.insert(channel, at);
        }
    }
}

fn watch_tail(life: &mut Life, channel: usize, now: Time, tail_bytes: usize, size: usize) {
    if tail_bytes == 0 {
        life.tails.remove(&channel);
        return;
    }
    let tail = life.tails.entry(channel).or_insert(Tail { first: now, last: now, size });
    if tail.size != size {
        if size.saturating_sub(tail.size) >= tail_bytes {
            tail.first = now;
        }
        (tail.last, tail.size) = (now, size);
    }
}
