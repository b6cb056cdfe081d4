//! The driver: one task that owns the scheduler of all channels, feeds it with events and does what it says.
//!
//! Operations run in tasks of their own and come back as messages; the scheduler bounds how many. What must be on the
//! disk before something else happens is awaited in such a task: a launch before its packets, a box before its readers.

mod operations;
mod receiving;
mod sending;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, warn};

use self::operations::{Errand, Prepared};
use super::network::{Network, View};
use super::shared::Shared;
use super::transfer::{Ending, Parcel, pause_before_retry};
use crate::channel::{Action, Event, Linger, OperationId, Pace, Scheduler, SenderEvent, Time};
use crate::store::{Arrival, BoxSeq, Capability, Channel, ChannelId, Durability, NetworkId, Role, Store, StoreError};
use crate::thin::Envelope;

/// Messages under way from the operations to the driver. Each operation sends one and waits for room.
const INBOX: usize = 1024;
/// The first time is not the beginning, so that what happened within a while before has a time too.
const BEFORE: Time = Time::from_secs(400 * 86_400);

/// What others ask of the driver.
pub(super) enum Command {
    /// Probe a channel often, for so long.
    Follow(ChannelId, Time),
}

enum Message {
    Sender(ChannelId, SenderEvent),
    Fits(ChannelId, (NetworkId, usize)),
    Prepared(Errand, Box<(Arc<Parcel>, Envelope)>),
    Ended(Errand, Ending),
    NotRecorded(ChannelId, StoreError),
    Bound(ChannelId),
    Refused(ChannelId, String),
}

/// What is known of a channel that has a sender.
struct Writer {
    /// Whether its boxes fit the present network.
    fits: bool,
    /// The channel's count of rewrites when its sender was made: its boxes are of that packing.
    rewrites: u64,
    durability: Durability,
}

/// A tail box that is open: when its first and its newest byte came.
#[derive(Clone, Copy)]
struct Tail {
    first: Time,
    last: Time,
    size: u64,
}

/// How a driver goes about its work.
pub(super) struct Manner {
    pub(super) linger: Linger,
    /// Every reader is probed at once.
    pub(super) prompt: bool,
    /// The part of the network's pace that probes of idle channels may take together.
    pub(super) probe_share: f64,
}

pub(super) struct Driver {
    store: Store,
    shared: Arc<Shared>,
    linger: Linger,
    prompt: bool,
    epoch: Instant,
    view: watch::Receiver<View>,
    commands: OwnedMutexGuard<mpsc::Receiver<Command>>,
    network: Option<Arc<Network>>,
    /// The newest network that could be used, and its M.
    known: Option<(NetworkId, usize)>,
    /// The newest replica epoch that the network told.
    replica_epoch: Option<u64>,
    scheduler: Scheduler,
    writers: HashMap<ChannelId, Writer>,
    /// Writers of which a box that was launched since the start is confirmed.
    trusted: HashSet<ChannelId>,
    /// Of the writers that had launched anything at the start: the first box that was not.
    launched_before: HashMap<ChannelId, BoxSeq>,
    /// Readers that are known to belong to the present network.
    bound: HashSet<ChannelId>,
    tails: HashMap<ChannelId, Tail>,
    /// When tails are due.
    seals: BTreeSet<(Time, ChannelId)>,
    /// Readers that found the cache full when they were last looked at.
    paused: HashSet<ChannelId>,
    caps: HashMap<ChannelId, Arc<Capability>>,
    errands: HashMap<OperationId, Errand>,
    prepared: Prepared,
    /// What arrived and is not recorded yet.
    held: HashMap<(ChannelId, BoxSeq), Arrival>,
    /// Channels that the store could not tell of, or whose task panicked: when they are looked at again.
    again: BTreeSet<(Time, ChannelId)>,
    /// How often that has failed in a row.
    tries: HashMap<ChannelId, u32>,
    /// When all channels are looked at again, as they could not be listed, and how often that has failed in a row.
    all_again: Option<(Time, u32)>,
    operations: JoinSet<()>,
    /// Which channel a task is about.
    tasks: HashMap<Id, ChannelId>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
}

impl Driver {
    pub(super) fn new(
        store: Store,
        shared: Arc<Shared>,
        manner: &Manner,
        view: watch::Receiver<View>,
        commands: OwnedMutexGuard<mpsc::Receiver<Command>>,
    ) -> Self {
        let (outbox, inbox) = mpsc::channel(INBOX);
        let now = Instant::now();
        Self {
            store,
            shared,
            linger: manner.linger,
            prompt: manner.prompt,
            epoch: now.checked_sub(BEFORE).unwrap_or(now),
            view,
            commands,
            network: None,
            known: None,
            replica_epoch: None,
            scheduler: Scheduler::new(Pace::default(), manner.probe_share, rand::random()),
            writers: HashMap::new(),
            trusted: HashSet::new(),
            launched_before: HashMap::new(),
            bound: HashSet::new(),
            tails: HashMap::new(),
            seals: BTreeSet::new(),
            paused: HashSet::new(),
            caps: HashMap::new(),
            errands: HashMap::new(),
            prepared: Prepared::new(),
            held: HashMap::new(),
            again: BTreeSet::new(),
            tries: HashMap::new(),
            all_again: None,
            operations: JoinSet::new(),
            tasks: HashMap::new(),
            inbox,
            outbox,
        }
    }

    /// Runs until `stop` changes. Operations under way are dropped then: what was launched is sent again by the next life.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let changes = self.store.changes();
        // Nothing is launched before it is known what was launched by an earlier life.
        let mut tries = 0;
        while let Err(error) = self.each_channel(|driver, channel| driver.remember(&channel)) {
            warn!(%error, "the channels could not be listed; trying again");
            tokio::select! {
                () = sleep(pause_before_retry(tries)) => tries += 1,
                _ = stop.wait_for(|&stop| stop) => return,
            }
        }
        self.update_all();
        self.network_changed();
        loop {
            let timer = self.next_timer();
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => break,
                changed = self.view.changed() => match changed {
                    Ok(()) => self.network_changed(),
                    Err(_) => break,
                },
                touched = changes.touched() => for id in touched { self.touch(id) },
                Some(message) = self.inbox.recv() => self.take(message),
                Some(command) = self.commands.recv() => self.obey(command),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.ring(),
                Some(ended) = self.operations.join_next_with_id() => match ended {
                    Ok((id, ())) => drop(self.tasks.remove(&id)),
                    Err(error) => self.task_failed(&error),
                },
            }
        }
        self.operations.shutdown().await;
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    /// Has a task do something about a channel that takes a while.
    fn spawn(&mut self, id: ChannelId, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.operations.spawn(task).id();
        self.tasks.insert(task, id);
    }

    /// A task has panicked: whatever its channel waited for from it does not come, so it starts from the store.
    fn task_failed(&mut self, error: &tokio::task::JoinError) {
        let Some(id) = self.tasks.remove(&error.id()) else { return };
        error!(channel = %id, %error, "an operation ended abnormally; its channel is taken up anew");
        self.shared.trouble(id, Some(format!("an operation ended abnormally: {error}")));
        self.stop(id);
        self.look_again(id);
    }

    /// Has the channel looked at again in a while.
    fn look_again(&mut self, id: ChannelId) {
        let tries = self.tries.entry(id).or_default();
        let at = self.epoch.elapsed() + pause_before_retry(*tries);
        *tries = tries.saturating_add(1);
        self.again.insert((at, id));
    }

    fn update_all(&mut self) {
        let tries = self.all_again.map_or(0, |(_, tries)| tries);
        self.all_again = match self.each_channel(Self::update) {
            Ok(()) => None,
            Err(error) => {
                warn!(%error, "the channels could not be listed; trying again");
                Some((self.now() + pause_before_retry(tries), tries.saturating_add(1)))
            }
        };
    }

    /// Channels in pages: a store of thousands costs no more memory than what is remembered of each.
    fn each_channel(&mut self, look: impl Fn(&mut Self, Channel)) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.channels(after.as_ref(), 256)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for channel in page {
                look(self, channel);
            }
        }
    }

    fn remember(&mut self, channel: &Channel) {
        if channel.launched_end > BoxSeq(0) {
            self.launched_before.insert(channel.id, channel.launched_end);
        }
    }

    fn touch(&mut self, id: ChannelId) {
        match self.store.channel(id) {
            Ok(Some(channel)) => {
                self.tries.remove(&id);
                self.update(channel);
            }
            Ok(None) => {
                self.part_with(id);
                self.trusted.remove(&id);
                self.launched_before.remove(&id);
                self.tries.remove(&id);
                self.shared.forget(id);
            }
            Err(StoreError::Closed) => {}
            Err(error) => {
                error!(%error, "a channel could not be looked up; trying again");
                self.look_again(id);
            }
        }
    }

    /// The channel is neither sent nor read from now on.
    fn part_with(&mut self, id: ChannelId) {
        self.stop(id);
        self.paused.remove(&id);
        if let Some(due) = self.seal_due(id) {
            self.seals.remove(&(due, id));
        }
        self.tails.remove(&id);
    }

    /// Its machine goes; what it had under way is passed over when it comes.
    fn stop(&mut self, id: ChannelId) {
        self.scheduler.remove(id);
        self.writers.remove(&id);
        self.bound.remove(&id);
        self.drop_forgotten(id);
        self.shared.next_probe(id, None);
    }

    #[allow(clippy::needless_pass_by_value)] // As the pages give it.
    fn update(&mut self, channel: Channel) {
        let id = channel.id;
        self.shared.see_channel(&channel);
        if channel.fence.is_some() || self.shared.refuses(&channel) {
            self.part_with(id);
            let fits = |unfit| self.known.as_ref().is_some_and(|(_, max_plaintext)| *max_plaintext >= unfit);
            if !self.shared.refuses(&channel) && channel.unfit.is_some_and(fits) {
                self.fit(id);
            }
            return;
        }
        match channel.role {
            Role::Writer => {
                self.watch_tail(&channel);
                if let Some(writer) = self.writers.get(&id)
                    && (writer.rewrites != channel.rewrites || writer.durability != channel.durability)
                {
                    // Truncated or packed anew: what was looked up before is no longer what the store holds.
                    self.stop(id);
                }
                if channel.boxes > channel.stored_boxes {
                    if !self.writers.contains_key(&id) {
                        self.start_sender(&channel);
                    }
                    self.tell(Event::Sender { channel: id, event: SenderEvent::Queued });
                }
            }
            Role::Reader => {
                let resumed = if channel.paused {
                    self.paused.insert(id);
                    false
                } else {
                    self.paused.remove(&id)
                };
                if self.scheduler.frontier(id).is_some_and(|frontier| frontier < channel.frontier) {
                    // What was missing there was given up.
                    self.stop(id);
                    self.scheduler.add_receiver(self.now(), id, true);
                    self.tell(Event::Tick);
                }
                if !self.scheduler.contains(id) {
                    self.start_receiver(&channel);
                } else if resumed {
                    // There is room again, and nothing to wait for.
                    self.scheduler.prompt(id);
                    self.tell(Event::Tick);
                }
            }
        }
    }

    fn watch_tail(&mut self, channel: &Channel) {
        let now = self.now();
        if let Some(due) = self.seal_due(channel.id) {
            self.seals.remove(&(due, channel.id));
        }
        if channel.tail_bytes == 0 {
            self.tails.remove(&channel.id);
            return;
        }
        let tail = self.tails.entry(channel.id).or_insert(Tail { first: now, last: now, size: channel.size });
        if tail.size != channel.size {
            // A box that was filled and sealed since leaves a tail whose first byte is newer than we know.
            if channel.size.checked_sub(tail.size).is_none_or(|more| more >= channel.tail_bytes) {
                tail.first = now;
            }
            tail.last = now;
            tail.size = channel.size;
        }
        self.seals.extend(self.seal_due(channel.id).map(|due| (due, channel.id)));
    }

    fn network_changed(&mut self) {
        let view = self.view.borrow_and_update().clone();
        self.shared.see(view.status);
        let was_online = self.network.is_some();
        if !was_online && view.network.is_none() {
            return;
        }
        self.network = view.network;
        let Some(network) = self.network.clone() else { return self.tell(Event::Online(false)) };
        if self.replica_epoch != network.replica_epoch {
            self.replica_epoch = network.replica_epoch;
            self.set_replica_epoch(network.replica_epoch);
        }
        if !self.scheduler.pace().is_of_same_document_as(&network.pace) {
            self.scheduler.set_pace(network.pace.clone());
        }
        let known = (network.id.clone(), network.max_plaintext);
        let writers: Vec<_> = self.writers.keys().copied().collect();
        if self.known.as_ref() != Some(&known) {
            // Boxes may have to be packed anew and bindings be looked at again: start from the store.
            self.known = Some(known);
            self.shared.set_network(network.id.clone());
            for id in writers {
                self.stop(id);
            }
            self.bound.clear();
            self.tell(Event::Online(true));
            return self.update_all();
        }
        if was_online {
            // The same network with another document.
            return self.tell(Event::Tick);
        }
        self.tell(Event::Online(true));
        for id in writers {
            if self.writers.get(&id).is_some_and(|writer| writer.fits) {
                self.tell(Event::Sender { channel: id, event: SenderEvent::Online(true) });
            } else {
                self.fit(id);
            }
        }
    }

    /// Tells the store what the network says of its own time, before what arrives from it.
    fn set_replica_epoch(&mut self, epoch: Option<u64>) {
        let store = self.store.clone();
        let mut commit = self.store.set_replica_epoch(epoch);
        self.operations.spawn(async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::Closed) {
                    return;
                }
                warn!(%error, "the network's time could not be kept; trying again");
                sleep(pause_before_retry(tries)).await;
                tries += 1;
                commit = store.set_replica_epoch(epoch);
            }
        });
    }

    fn next_timer(&self) -> Option<Instant> {
        let seal = self.seals.first().map(|&(at, _)| at);
        let again = self.again.first().map(|&(at, _)| at).into_iter().chain(self.all_again.map(|(at, _)| at));
        let machines = self.scheduler.next_timeout(self.now());
        seal.into_iter().chain(again).chain(machines).min().map(|at| self.instant(at))
    }

    /// Does what is due by time.
    fn ring(&mut self) {
        let now = self.now();
        while let Some(&(at, id)) = self.seals.first()
            && at <= now
        {
            self.seals.pop_first();
            self.tails.remove(&id);
            self.seal(id);
        }
        while let Some(&(at, id)) = self.again.first()
            && at <= now
        {
            self.again.pop_first();
            self.touch(id);
        }
        if self.all_again.is_some_and(|(at, _)| at <= now) {
            self.update_all();
        }
        self.tell(Event::Tick);
    }

    fn seal(&mut self, id: ChannelId) {
        let store = self.store.clone();
        let mut commit = self.store.seal_tail(id);
        self.spawn(id, async move {
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
            Message::Sender(channel, event) => {
                self.tell(Event::Sender { channel, event });
            }
            Message::Fits(channel, network) => {
                if self.known.as_ref().is_some_and(|known| *known == network)
                    && let Some(writer) = self.writers.get_mut(&channel)
                {
                    writer.fits = true;
                    let online = self.network.is_some();
                    self.tell(Event::Sender { channel, event: SenderEvent::Online(online) });
                }
            }
            Message::Prepared(errand, made) => self.envelope_made(errand, *made),
            Message::Ended(errand, ending) => self.operation_ended(errand, ending),
            Message::NotRecorded(id, error) => {
                warn!(%error, "what arrived could not be kept; it is asked for again");
                self.shared.trouble(id, Some(error.to_string()));
                // The machine believes what the store does not have: start from the store, at its time.
                self.stop(id);
                match self.store.channel(id) {
                    Ok(Some(channel)) => {
                        self.scheduler.add_receiver(self.now(), channel.id, false);
                        self.plan_shown(id);
                    }
                    Ok(None) => {}
                    Err(_) => self.look_again(id),
                }
            }
            Message::Bound(id) => drop(self.bound.insert(id)),
            Message::Refused(id, reason) => {
                warn!(%reason, "a channel does not belong to this network");
                self.shared.trouble(id, Some(reason));
                self.stop(id);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Follow(id, time) => {
                self.scheduler.follow(id, self.now() + time);
                self.tell(Event::Tick);
            }
        }
    }

    /// Tells the machines, and does all that they say.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for action in self.scheduler.handle(now, event) {
                match action {
                    Action::Sender { channel, action } => events.extend(self.sender_wants(channel, action)),
                    Action::Receiver { channel, action } => self.receiver_wants(channel, action),
                    Action::Load { channel } => {
                        self.shared.next_probe(channel, None);
                        events.push_back(self.load(channel));
                    }
                    Action::Rested { channel } => self.plan_shown(channel),
                    Action::Prepare { operation, channel, seq, what, crypto } => {
                        let errand = Errand { operation, channel, seq };
                        self.errands.insert(operation, errand);
                        self.prepare(errand, what, crypto);
                    }
                    Action::Transmit { operation, line } => self.transmit(operation, line),
                    Action::CloseSecond => self.close_second(),
                }
            }
        }
        self.shared.see_pace(self.scheduler.pace());
    }

    /// A message to ourselves; the operations' own ones wait for room, so a task carries it.
    fn post(&mut self, id: ChannelId, message: Message) {
        let outbox = self.outbox.clone();
        self.spawn(id, async move {
            let _ = outbox.send(message).await;
        });
    }

    /// Shows others when the channel is expected to be probed.
    fn plan_shown(&mut self, id: ChannelId) {
        let at = self.scheduler.next_probe(self.now(), id).map(|at| self.instant(at));
        self.shared.next_probe(id, at);
    }
}
