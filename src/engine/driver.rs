//! The driver: one task that owns the channel machines, feeds them with events and does what they say.
//!
//! Operations run in tasks of their own and come back as messages, at most a window a channel. What must be on the
//! disk before something else happens is awaited in such a task: a launch before its packets, a box before its readers.

mod receiving;
mod sending;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use super::network::{Network, View};
use super::shared::Shared;
use super::transfer::{Found, pause_before_retry};
use crate::bacap::{ReadCap, WriteCap};
use crate::channel::{Answer, Linger, Pace, Receiver, ReceiverEvent, Sender, SenderEvent, Time};
use crate::store::{Arrival, BoxSeq, Channel, ChannelId, NetworkId, OutBox, Role, Store, StoreError};

/// Messages under way from the operations to the driver. Each operation sends one and waits for room.
const INBOX: usize = 1024;
/// A receiver whose records failed starts anew after this long.
pub(super) const RECEIVER_AGAIN_MS: u64 = 5_000;

enum Message {
    Sender(ChannelId, SenderEvent),
    /// The boxes of this channel that are not launched fit the network.
    Prepared(ChannelId),
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
    prompt: bool,
    epoch: Instant,
    view: watch::Receiver<View>,
    network: Option<Arc<Network>>,
    /// The newest network that could be used, and its M.
    known: Option<(NetworkId, usize)>,
    machines: HashMap<ChannelId, Machine>,
    tails: HashMap<ChannelId, Tail>,
    timers: BTreeSet<(Time, ChannelId)>,
    planned: HashMap<ChannelId, Time>,
    /// Readers that found the cache full when they were last looked at.
    paused: HashSet<ChannelId>,
    operations: JoinSet<()>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
}

impl Driver {
    pub(super) fn new(
        store: Store,
        shared: Arc<Shared>,
        linger: Linger,
        prompt: bool,
        view: watch::Receiver<View>,
    ) -> Self {
        let (outbox, inbox) = mpsc::channel(INBOX);
        Self {
            store,
            shared,
            linger,
            prompt,
            // Times are offsets from a little before now, so that what happened just before has one too.
            epoch: Instant::now(),
            view,
            network: None,
            known: None,
            machines: HashMap::new(),
            tails: HashMap::new(),
            timers: BTreeSet::new(),
            planned: HashMap::new(),
            paused: HashSet::new(),
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
        self.paused.remove(&id);
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
                if channel.paused {
                    self.paused.insert(id);
                } else if self.paused.remove(&id) {
                    // There is room again, and nothing to wait for.
                    self.machines.remove(&id);
                }
                if let Some(Machine::Reader(reader)) = self.machines.get(&id)
                    && reader.machine.frontier() < channel.frontier
                {
                    // What was missing there was given up.
                    self.machines.remove(&id);
                }
                if !self.machines.contains_key(&id) {
                    let now = self.now();
                    // Without a verdict a person may be waiting; with one there is no hurry, and mounting is no burst.
                    let at = if channel.verdict.is_some() && !self.prompt {
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
                // One that was made while the network was away was not fitted to it.
                Some(Machine::Writer(_)) if online => self.prepare(id),
                Some(Machine::Writer(_)) => self.drive_sender(id, SenderEvent::Online(false)),
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
        let store = self.store.clone();
        let mut commit = self.store.seal_tail(id);
        self.operations.spawn(async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                warn!(%error, "a tail could not be sealed; trying again");
                tokio::time::sleep(pause_before_retry(tries)).await;
                tries += 1;
                commit = store.seal_tail(id);
            }
        });
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Sender(id, event) => {
                if let (SenderEvent::LaunchFailed { .. }, Some(Machine::Writer(writer))) =
                    (&event, self.machines.get_mut(&id))
                {
                    // The binding to the network may have failed with it.
                    writer.bound = false;
                }
                self.drive_sender(id, event);
                self.replan(id);
            }
            Message::Prepared(id) => {
                if self.network.is_some() {
                    self.drive_sender(id, SenderEvent::Online(true));
                    self.replan(id);
                }
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
