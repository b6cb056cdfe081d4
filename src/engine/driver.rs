//! The driver: one task that owns the channel machines, feeds them with events and does what they say.
//!
//! Operations run in tasks of their own and come back as messages, at most a window a channel. What must be on the
//! disk before something else happens is awaited in such a task: a launch before its packets, a box before its readers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::network::{Network, View};
use super::shared::Shared;
use super::transfer::{self, Found};
use crate::bacap::{ReadCap, WriteCap};
use crate::channel::{
    Answer, Linger, Outcome, Pace, Receiver, ReceiverAction, ReceiverEvent, Sender, SenderAction, SenderEvent, Time,
};
use crate::store::{
    Arrival, Binding, BoxSeq, BoxState, Capability, Channel, ChannelId, NetworkId, OutBox, Role, Store, StoreError,
};

/// Messages under way from the operations to the driver. Each operation sends one and waits for room.
const INBOX: usize = 1024;
/// A receiver whose records failed starts anew after this long.
const RECEIVER_AGAIN_MS: u64 = 5_000;

enum Message {
    Sender(ChannelId, SenderEvent),
    Arrived(ChannelId, BoxSeq, Found),
    Recorded(ChannelId, Result<(), StoreError>),
    Trouble(ChannelId, Option<String>),
    Refused(ChannelId, String),
}

struct Writer {
    machine: Sender,
    cap: Arc<WriteCap>,
    boxes: BTreeMap<BoxSeq, Arc<OutBox>>,
    /// Whether the channel is known to belong to the present network.
    bound: bool,
    /// The channel's count of rewrites when this machine was made: its boxes are of that packing.
    rewrites: u64,
}

struct Reader {
    machine: Receiver,
    cap: Arc<ReadCap>,
    held: BTreeMap<BoxSeq, Arrival>,
}

enum Machine {
    Writer(Writer),
    Reader(Reader),
}

/// A tail box that is open: when its first and its newest byte came.
#[derive(Clone, Copy)]
struct Tail {
    first: Time,
    last: Time,
    size: u64,
}

pub(super) struct Driver {
    store: Store,
    shared: Arc<Shared>,
    linger: Linger,
    epoch: Instant,
    view: watch::Receiver<View>,
    network: Option<Arc<Network>>,
    /// The newest network that could be used, and its M.
    known: Option<(NetworkId, usize)>,
    machines: HashMap<ChannelId, Machine>,
    tails: HashMap<ChannelId, Tail>,
    timers: BTreeSet<(Time, ChannelId)>,
    planned: HashMap<ChannelId, Time>,
    operations: JoinSet<()>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
}

impl Driver {
    pub(super) fn new(store: Store, shared: Arc<Shared>, linger: Linger, view: watch::Receiver<View>) -> Self {
        let (outbox, inbox) = mpsc::channel(INBOX);
        Self {
            store,
            shared,
            linger,
            // Times are offsets from a little before now, so that what happened just before has one too.
            epoch: Instant::now(),
            view,
            network: None,
            known: None,
            machines: HashMap::new(),
            tails: HashMap::new(),
            timers: BTreeSet::new(),
            planned: HashMap::new(),
            operations: JoinSet::new(),
            inbox,
            outbox,
        }
    }

    /// Runs until `stop` changes. Operations under way are dropped then: what was launched is sent again by the next life.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let changes = self.store.changes();
        self.load_all();
        self.network_changed();
        loop {
            let timer = self.timers.first().map(|&(at, _)| self.epoch + at);
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => break,
                changed = self.view.changed() => match changed {
                    Ok(()) => self.network_changed(),
                    Err(_) => break,
                },
                touched = changes.touched() => for id in touched { self.touch(id) },
                Some(message) = self.inbox.recv() => self.take(message),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.ring(),
                Some(ended) = self.operations.join_next() => if let Err(error) = ended {
                    error!(%error, "an operation ended abnormally; its box goes again at the next start");
                },
            }
        }
        self.operations.shutdown().await;
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    /// Channels in pages: a store of thousands costs no more memory than its machines.
    fn load_all(&mut self) {
        let mut after = None;
        loop {
            let page = match self.store.channels(after.as_ref(), 256) {
                Ok(page) => page,
                Err(error) => return error!(%error, "the channels could not be listed"),
            };
            let Some(last) = page.last() else { return };
            after = Some(last.name.clone());
            for channel in page {
                self.update(channel);
            }
        }
    }

    fn touch(&mut self, id: ChannelId) {
        match self.store.channel(id) {
            Ok(Some(channel)) => self.update(channel),
            Ok(None) => self.forget(id),
            Err(error) => error!(%error, "a channel could not be looked up"),
        }
    }

    fn forget(&mut self, id: ChannelId) {
        self.machines.remove(&id);
        self.tails.remove(&id);
        self.shared.forget(id);
        self.plan(id, None);
    }

    fn update(&mut self, channel: Channel) {
        let id = channel.id;
        if channel.fence.is_some() || self.shared.refuses(&channel) {
            self.machines.remove(&id);
            self.tails.remove(&id);
            return self.plan(id, None);
        }
        match channel.role {
            Role::Writer => {
                self.watch_tail(&channel);
                if let Some(Machine::Writer(writer)) = self.machines.get(&id)
                    && writer.rewrites != channel.rewrites
                {
                    // Truncated or packed anew: what was looked up before is no longer what the store holds.
                    self.machines.remove(&id);
                }
                if channel.boxes > channel.stored_boxes && self.writer(&channel).is_some() {
                    self.drive_sender(id, SenderEvent::Queued);
                }
            }
            Role::Reader => {
                if !self.machines.contains_key(&id) {
                    let now = self.now();
                    // Without a verdict a person may be waiting; with one there is no hurry, and mounting is no burst.
                    let at = if channel.verdict.is_some() {
                        now + self.pace().probe_cap().mul_f64(rand::random::<f64>())
                    } else {
                        now
                    };
                    self.start_receiver(&channel, at);
                }
            }
        }
        self.replan(id);
    }

    /// The sender of a channel that has something to send; made when there is none.
    fn writer(&mut self, channel: &Channel) -> Option<&mut Writer> {
        let id = channel.id;
        if !self.machines.contains_key(&id) {
            let cap = match self.store.cap(id) {
                Ok(Capability::Write(cap)) => Arc::new(cap),
                Ok(Capability::Read(_)) => return None,
                Err(error) => {
                    error!(%error, "a capability could not be loaded");
                    return None;
                }
            };
            let age = channel.created.elapsed().unwrap_or_default();
            let not_before = self.linger.may_launch(self.now()).saturating_sub(age);
            let machine = Sender::new(BoxSeq(0), not_before);
            self.machines.insert(
                id,
                Machine::Writer(Writer {
                    machine,
                    cap,
                    boxes: BTreeMap::new(),
                    bound: false,
                    rewrites: channel.rewrites,
                }),
            );
            self.prepare(id);
        }
        match self.machines.get_mut(&id) {
            Some(Machine::Writer(writer)) => Some(writer),
            _ => None,
        }
    }

    /// Lets the sender go once the boxes that are not launched fit the network.
    fn prepare(&mut self, id: ChannelId) {
        let Some(network) = self.network.clone() else { return };
        let commit = self.store.set_max_plaintext(id, network.max_plaintext);
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            match commit.await {
                Ok(()) => drop(outbox.send(Message::Sender(id, SenderEvent::Online(true))).await),
                Err(error) => warn!(%error, "a channel could not be fitted to the network's boxes"),
            }
        });
    }

    fn start_receiver(&mut self, channel: &Channel, at: Time) {
        let id = channel.id;
        let cap = match self.store.cap(id) {
            Ok(Capability::Read(cap)) => Arc::new(cap),
            Ok(Capability::Write(_)) => return,
            Err(error) => return error!(%error, "a capability could not be loaded"),
        };
        let arrived = self.store.arrived_past(id, channel.frontier).unwrap_or_default();
        let machine = Receiver::new(channel.frontier, arrived, at, &self.pace());
        self.machines.insert(id, Machine::Reader(Reader { machine, cap, held: BTreeMap::new() }));
        if self.network.is_some() {
            self.drive_receiver(id, ReceiverEvent::Online(true));
        }
    }

    fn watch_tail(&mut self, channel: &Channel) {
        let now = self.now();
        if channel.tail_bytes == 0 {
            self.tails.remove(&channel.id);
            return;
        }
        let tail = self.tails.entry(channel.id).or_insert(Tail { first: now, last: now, size: channel.size });
        if tail.size != channel.size {
            // A box that was filled and sealed since leaves a tail whose first byte is newer than we know.
            if channel.size - tail.size >= channel.tail_bytes {
                tail.first = now;
            }
            tail.last = now;
            tail.size = channel.size;
        }
    }

    fn pace(&self) -> Pace {
        self.network.as_ref().map_or_else(Pace::default, |network| network.pace())
    }

    fn network_changed(&mut self) {
        let view = self.view.borrow_and_update().clone();
        self.shared.see(view.status);
        let same = match (&self.network, &view.network) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        self.network = view.network;
        let online = self.network.is_some();
        if let Some(network) = &self.network {
            let known = (network.id.clone(), network.max_plaintext);
            if self.known.as_ref() != Some(&known) {
                // Boxes may have to be packed anew and bindings be looked at again: start from the store.
                self.known = Some(known);
                self.shared.set_network(network.id.clone());
                self.machines.clear();
                return self.load_all();
            }
        }
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            match self.machines.get_mut(&id) {
                Some(Machine::Writer(_)) => self.drive_sender(id, SenderEvent::Online(online)),
                Some(Machine::Reader(_)) => self.drive_receiver(id, ReceiverEvent::Online(online)),
                None => {}
            }
            self.replan(id);
        }
    }

    /// Does what is due by time.
    fn ring(&mut self) {
        let now = self.now();
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.plan(id, None);
            if self.tails.get(&id).is_some_and(|tail| self.linger.due(tail.first, tail.last) <= now) {
                self.tails.remove(&id);
                self.seal(id);
            }
            match self.machines.get(&id) {
                Some(Machine::Writer(_)) => self.drive_sender(id, SenderEvent::Tick),
                Some(Machine::Reader(_)) => self.drive_receiver(id, ReceiverEvent::Tick),
                None => {}
            }
            self.replan(id);
        }
    }

    fn seal(&mut self, id: ChannelId) {
        let commit = self.store.seal_tail(id);
        self.operations.spawn(async move {
            if let Err(error) = commit.await {
                warn!(%error, "a tail could not be sealed; the next write or fsync tries again");
            }
        });
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Sender(id, event) => {
                self.drive_sender(id, event);
                self.replan(id);
            }
            Message::Arrived(id, seq, found) => {
                let answer = match found {
                    Found::Message(bytes) => self.hold(id, seq, Arrival::Message(bytes)),
                    Found::Tombstone => self.hold(id, seq, Arrival::Tombstone),
                    Found::NotYet => {
                        self.shared.trouble(id, None);
                        Answer::NotYet
                    }
                    Found::Unknown(trouble) => {
                        debug!(?seq, %trouble, "a box could not be asked for");
                        self.shared.trouble(id, Some(trouble));
                        Answer::Unknown
                    }
                };
                self.drive_receiver(id, ReceiverEvent::Answered { seq, answer });
                self.replan(id);
            }
            Message::Recorded(id, result) => {
                if let Err(error) = result {
                    warn!(%error, "what arrived could not be kept; it is asked for again");
                    self.shared.trouble(id, Some(error.to_string()));
                    // The machine believes what the store does not have: start from the store.
                    self.machines.remove(&id);
                    let at = self.now() + Time::from_millis(RECEIVER_AGAIN_MS);
                    if let Ok(Some(channel)) = self.store.channel(id) {
                        self.start_receiver(&channel, at);
                        self.replan(id);
                    }
                }
            }
            Message::Trouble(id, trouble) => self.shared.trouble(id, trouble),
            Message::Refused(id, reason) => {
                warn!(%reason, "a channel does not belong to this network");
                self.shared.trouble(id, Some(reason));
                self.machines.remove(&id);
                self.plan(id, None);
            }
        }
    }

    fn hold(&mut self, id: ChannelId, seq: BoxSeq, arrival: Arrival) -> Answer {
        self.shared.trouble(id, None);
        if let Some(Machine::Reader(reader)) = self.machines.get_mut(&id) {
            reader.held.insert(seq, arrival);
        }
        Answer::Arrived
    }

    fn drive_sender(&mut self, id: ChannelId, event: SenderEvent) {
        let now = self.now();
        let mut events = vec![event];
        let mut confirmed = Vec::new();
        while let Some(event) = events.pop() {
            let window = self.pace().window_boxes();
            let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) else { return };
            writer.machine.set_window(window);
            for action in writer.machine.handle(now, event) {
                match action {
                    SenderAction::Fetch { from, limit } => events.push(self.fetch(id, from, limit)),
                    SenderAction::Launch { boxes } => self.launch(id, boxes),
                    SenderAction::Send { seq } => self.send(id, seq),
                    SenderAction::ReadBack { seq } => self.read_back(id, seq),
                    SenderAction::Confirm { seq } => confirmed.push(seq),
                    SenderAction::Fence { seq, foreign } => self.fence(id, seq, foreign),
                }
            }
        }
        if !confirmed.is_empty() {
            self.confirm(id, confirmed);
        }
    }

    fn fetch(&mut self, id: ChannelId, from: BoxSeq, limit: usize) -> SenderEvent {
        let boxes = self.store.outgoing(id, from, limit).unwrap_or_else(|error| {
            error!(%error, "boxes could not be looked up");
            Vec::new()
        });
        let told = boxes.iter().map(|out| (out.seq, out.state != BoxState::Sealed)).collect();
        if let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) {
            writer.boxes.extend(boxes.into_iter().map(|out| (out.seq, Arc::new(out))));
        }
        SenderEvent::Fetched { boxes: told }
    }

    fn launch(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        let Some(network) = self.network.clone() else {
            return self.post(Message::Sender(id, SenderEvent::LaunchFailed { boxes }));
        };
        let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) else { return };
        let binding = (!std::mem::replace(&mut writer.bound, true)).then(|| network.id.clone());
        let rewrites = writer.rewrites;
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        self.operations.spawn(async move {
            let message = match launch(&store, binding, id, rewrites, &boxes).await {
                Ok(None) => Message::Sender(id, SenderEvent::Launched { boxes }),
                Ok(Some(refusal)) => Message::Refused(id, refusal),
                Err(error) => {
                    warn!(%error, "a launch could not be committed");
                    Message::Sender(id, SenderEvent::LaunchFailed { boxes })
                }
            };
            let _ = outbox.send(message).await;
        });
    }

    fn send(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some((network, cap, out)) = self.sending(id, seq) else { return };
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            let written = transfer::write(&network, &cap, &out.index, &out.payload).await;
            if let Some(trouble) = &written.trouble {
                debug!(?seq, %trouble, "a write did not end well");
            }
            let _ = outbox.send(Message::Trouble(id, written.trouble)).await;
            let event = SenderEvent::Ended { seq, outcome: written.outcome };
            let _ = outbox.send(Message::Sender(id, event)).await;
        });
    }

    fn read_back(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some((network, cap, out)) = self.sending(id, seq) else { return };
        let outbox = self.outbox.clone();
        info!(?seq, "the box's index is occupied; reading it back");
        self.operations.spawn(async move {
            let found = transfer::read_back(&network, &cap, &out.index, &out.payload).await;
            let _ = outbox.send(Message::Sender(id, SenderEvent::WasRead { seq, found })).await;
        });
    }

    /// What a write of this box needs; where the network has just gone, the machine is told that it did not work.
    fn sending(&mut self, id: ChannelId, seq: BoxSeq) -> Option<(Arc<Network>, Arc<WriteCap>, Arc<OutBox>)> {
        let Some(Machine::Writer(writer)) = self.machines.get(&id) else { return None };
        let (cap, out) = (Arc::clone(&writer.cap), Arc::clone(writer.boxes.get(&seq)?));
        match self.network.clone() {
            Some(network) => Some((network, cap, out)),
            None => {
                self.post(Message::Sender(id, SenderEvent::Ended { seq, outcome: Outcome::Again }));
                None
            }
        }
    }

    fn confirm(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        if let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) {
            for seq in &boxes {
                writer.boxes.remove(seq);
            }
        }
        let store = self.store.clone();
        let mut commit = self.store.confirm(id, boxes.clone(), BoxState::Stored);
        self.operations.spawn(async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                warn!(%error, "a confirmation could not be kept; trying again");
                tokio::time::sleep(transfer::pause_before_retry(tries)).await;
                tries += 1;
                commit = store.confirm(id, boxes.clone(), BoxState::Stored);
            }
        });
    }

    fn fence(&mut self, id: ChannelId, seq: BoxSeq, foreign: bool) {
        let reason = if foreign {
            format!("box {} of this channel holds what another writer wrote", seq.0)
        } else {
            let trouble = self.shared.trouble_of(id).unwrap_or_else(|| "it was refused".to_owned());
            format!("box {} cannot be written: {trouble}", seq.0)
        };
        error!(%reason, "the channel is fenced: nothing more is sent, what was accepted stays in the spool");
        let commit = self.store.fence(id, reason);
        self.operations.spawn(async move {
            if let Err(error) = commit.await {
                error!(%error, "the fence could not be kept; the next start meets the same box again");
            }
        });
    }

    fn drive_receiver(&mut self, id: ChannelId, event: ReceiverEvent) {
        let now = self.now();
        let pace = self.pace();
        let Some(Machine::Reader(reader)) = self.machines.get_mut(&id) else { return };
        reader.machine.set_pace(&pace);
        let actions = reader.machine.handle(now, rand::random(), event);
        let mut records = Vec::new();
        for action in actions {
            match action {
                ReceiverAction::Ask { seq } => self.ask(id, seq),
                ReceiverAction::Record { seq } => {
                    if let Some(Machine::Reader(reader)) = self.machines.get_mut(&id)
                        && let Some(arrival) = reader.held.remove(&seq)
                    {
                        records.push((seq, arrival));
                    }
                }
                ReceiverAction::Verdict { seq } => records.push((seq, Arrival::NotYet)),
            }
        }
        if !records.is_empty() {
            self.record(id, records);
        }
    }

    fn ask(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some(Machine::Reader(reader)) = self.machines.get(&id) else { return };
        let Some(network) = self.network.clone() else {
            return self.post(Message::Arrived(id, seq, Found::Unknown("the network is away".to_owned())));
        };
        let (store, outbox, cap) = (self.store.clone(), self.outbox.clone(), Arc::clone(&reader.cap));
        self.operations.spawn(async move {
            let found = match store.index_of(id, seq) {
                Ok(index) => transfer::read(&network, &cap, &index).await,
                Err(error) => Found::Unknown(error.to_string()),
            };
            let _ = outbox.send(Message::Arrived(id, seq, found)).await;
        });
    }

    fn record(&mut self, id: ChannelId, records: Vec<(BoxSeq, Arrival)>) {
        let has_box = records.iter().any(|(_, arrival)| !matches!(arrival, Arrival::NotYet));
        // Submitted here and not in the task, so that the records of one channel keep their order. An answer may come
        // when its network has just gone: it is recorded all the same, as the machine counts on it.
        let bind =
            self.known.as_ref().filter(|_| has_box).map(|(network, _)| self.store.bind_network(id, network.clone()));
        let commit = self.store.received(id, records);
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            if let Some(bind) = bind
                && let Ok(Binding::Refused) = bind.await
            {
                let _ = outbox.send(Message::Refused(id, super::shared::other_network())).await;
            }
            if let Err(error) = commit.await {
                let _ = outbox.send(Message::Recorded(id, Err(error))).await;
            }
        });
    }

    /// A message to ourselves; the operations' own ones wait for room, so a task carries it.
    fn post(&mut self, message: Message) {
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            let _ = outbox.send(message).await;
        });
    }

    /// Plans the channel's next timer.
    fn replan(&mut self, id: ChannelId) {
        let tail = self.tails.get(&id).map(|tail| self.linger.due(tail.first, tail.last));
        let machine = match self.machines.get(&id) {
            Some(Machine::Writer(writer)) => writer.machine.next_timeout(),
            Some(Machine::Reader(reader)) => {
                self.shared.next_probe(id, reader.machine.next_probe().map(|at| self.epoch + at));
                reader.machine.next_timeout()
            }
            None => None,
        };
        self.plan(id, tail.into_iter().chain(machine).min());
    }

    fn plan(&mut self, id: ChannelId, at: Option<Time>) {
        if let Some(old) = self.planned.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
            self.planned.insert(id, at);
        }
    }
}

/// Binds the channel to the network where it has none yet, and commits that packets of these boxes may leave.
/// A refusal in words where the channel belongs to another network.
async fn launch(
    store: &Store,
    binding: Option<NetworkId>,
    id: ChannelId,
    rewrites: u64,
    boxes: &[BoxSeq],
) -> Result<Option<String>, StoreError> {
    if let Some(network) = binding
        && let Binding::Refused = store.bind_network(id, network).await?
    {
        return Ok(Some(super::shared::other_network()));
    }
    store.launch(id, rewrites, boxes.to_vec()).await?;
    Ok(None)
}
