//! The driver: one task that owns the [`Delivery`] machine, tells it what happens and does what it says.
//!
//! Operations and commits run in tasks of their own and come back as messages; the machine bounds how many operations
//! there are. Here nothing is decided about the meaning of a channel.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use super::carry;
use super::network::{Network, View};
use super::shared::Shared;
use super::transfer::{self, Parcel};
use crate::channel::{
    CommitFailure, CommitId, DaemonId, Delivery, DeliveryAction as Action, DeliveryConfig, DeliveryEvent as Event,
    Done, Ending, Line, NetworkView, Operation, OperationId, Request, Shown, Time,
};
use crate::store::{BoxSeq, Capability, ChannelId, NetworkId, Store, StoreError};
use crate::thin::Envelope;

/// Messages under way from the tasks to the driver. Each task sends one and waits for room.
const INBOX: usize = 1024;
/// The first time is not the beginning, so that what happened within a while before has a time too.
const BEFORE: Time = Time::from_secs(400 * 86_400);
/// Capabilities that are kept at hand; all of them go when there are more.
const CAPABILITIES: usize = 256;
/// Envelopes of a daemon that wait for their turn; with more, those that nobody waits for are looked for.
const ENVELOPES: usize = 64;

/// What others ask of the driver.
pub(super) enum Command {
    /// Probe a channel often, for so long.
    Follow(ChannelId, Time),
}

enum Message {
    Committed(CommitId, Result<Done, CommitFailure>),
    Prepared(OperationId, Box<(ChannelId, Arc<Parcel>, Envelope)>),
    Ended(OperationId, Ending),
}

/// What a task is for.
#[derive(Clone, Copy)]
enum Task {
    Commit(CommitId),
    Operation(OperationId, Operation),
}

pub(super) struct Driver {
    store: Store,
    shared: Arc<Shared>,
    epoch: Instant,
    view: watch::Receiver<View>,
    commands: OwnedMutexGuard<mpsc::Receiver<Command>>,
    /// The network that is used, with its M, and the daemons by which it is reachable.
    pinned: Option<(NetworkId, usize)>,
    networks: BTreeMap<DaemonId, Arc<Network>>,
    delivery: Delivery,
    caps: HashMap<ChannelId, Arc<Capability>>,
    /// Envelopes that wait for their turn, and whose they are.
    prepared: HashMap<OperationId, (ChannelId, Arc<Parcel>, Envelope)>,
    running: JoinSet<()>,
    tasks: HashMap<Id, Task>,
    /// The tasks of operations, so that one can be given up.
    operations: HashMap<OperationId, AbortHandle>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
}

impl Driver {
    pub(super) fn new(
        store: Store,
        shared: Arc<Shared>,
        config: DeliveryConfig,
        view: watch::Receiver<View>,
        commands: OwnedMutexGuard<mpsc::Receiver<Command>>,
    ) -> Self {
        let (outbox, inbox) = mpsc::channel(INBOX);
        let now = Instant::now();
        Self {
            store,
            shared,
            epoch: now.checked_sub(BEFORE).unwrap_or(now),
            view,
            commands,
            pinned: None,
            networks: BTreeMap::new(),
            delivery: Delivery::new(config),
            caps: HashMap::new(),
            prepared: HashMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            operations: HashMap::new(),
            inbox,
            outbox,
        }
    }

    /// Runs until `stop` changes. Operations under way are dropped then: what was launched is sent again by the next life.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let changes = self.store.changes();
        self.do_all(vec![Action::List]);
        self.network_changed();
        loop {
            let timer = self.delivery.next_timeout(self.now()).map(|at| self.instant(at));
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => break,
                changed = self.view.changed() => match changed {
                    Ok(()) => self.network_changed(),
                    Err(_) => break,
                },
                touched = changes.touched() => self.do_all(touched.into_iter().map(Action::Look).collect()),
                Some(message) = self.inbox.recv() => self.take(message),
                Some(Command::Follow(channel, time)) = self.commands.recv() => {
                    self.tell(Event::Follow { channel, time });
                }
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.tell(Event::Tick),
                Some(ended) = self.running.join_next_with_id() => match ended {
                    Ok((id, ())) => drop(self.task_ended(id)),
                    Err(error) => self.task_failed(&error),
                },
            }
        }
        self.running.shutdown().await;
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    /// A time of the machine as this process' own.
    fn instant(&self, at: Time) -> Instant {
        self.epoch + at
    }

    fn network_changed(&mut self) {
        let view = self.view.borrow_and_update().clone();
        self.shared.see(view.statuses());
        let pinned = view.network().cloned();
        let networks: BTreeMap<_, _> = view.all().map(|network| (network.daemon, Arc::clone(network))).collect();
        // Before another network takes its place, the one before is gone.
        let is_other = self.pinned != pinned;
        let gone: Vec<_> =
            self.networks.keys().copied().filter(|daemon| is_other || !networks.contains_key(daemon)).collect();
        for daemon in gone {
            self.networks.remove(&daemon);
            self.tell(Event::Network(daemon, None));
        }
        self.pinned = pinned;
        let Some((id, max_plaintext)) = self.pinned.clone() else { return };
        self.shared.set_network(id.clone());
        for (daemon, network) in networks {
            let view = NetworkView {
                id: id.clone(),
                max_plaintext,
                pace: network.pace.clone(),
                replica_epoch: network.replica_epoch,
            };
            let before = self.networks.insert(daemon, Arc::clone(&network));
            if before.is_none_or(|before| !Arc::ptr_eq(&before, &network)) {
                self.tell(Event::Network(daemon, Some(view)));
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Committed(commit, result) => self.tell(Event::Committed { commit, result }),
            Message::Prepared(operation, made) => {
                if self.prepared.len() >= ENVELOPES * self.networks.len().max(1) {
                    let delivery = &self.delivery;
                    self.prepared.retain(|of, _| delivery.is_under_way(*of));
                }
                if self.delivery.is_under_way(operation) {
                    self.prepared.insert(operation, *made);
                    self.tell(Event::Prepared(operation));
                }
            }
            Message::Ended(operation, ending) => {
                if let Some(trouble) = &ending.trouble {
                    debug!(?operation, %trouble, "an operation did not end well");
                }
                self.tell(Event::Ended { operation, ending });
            }
        }
    }

    /// Tells the machine, and does all that it says.
    fn tell(&mut self, event: Event) {
        let actions = self.delivery.handle(self.now(), event);
        self.do_all(actions);
        self.shared.see_pace(&self.delivery);
    }

    /// Does what is said, and tells the answers that are there at once before anything else.
    fn do_all(&mut self, actions: Vec<Action>) {
        let mut events = VecDeque::new();
        for action in actions {
            self.do_one(action, &mut events);
        }
        while let Some(event) = events.pop_front() {
            if let Event::Found { channel, .. } = &event {
                self.shared.see_channel(channel);
            }
            for action in self.delivery.handle(self.now(), event) {
                self.do_one(action, &mut events);
            }
        }
    }

    fn do_one(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::List => carry::list(&self.store, SystemTime::now(), |event| events.push_back(event)),
            Action::Look(id) => events.extend(carry::look(&self.store, id, SystemTime::now())),
            Action::Commit { commit, channel, request } => self.commit(commit, channel, request),
            Action::Fetch { channel, from, limit } => {
                let (now, wall) = (self.now(), SystemTime::now());
                events.push_front(carry::fetch(&self.store, channel, from, limit, now, wall));
            }
            Action::Load(id) => events.push_front(carry::load(&self.store, id)),
            Action::Prepare { operation, channel, seq, what, daemon, crypto } => {
                self.prepare((operation, what), (channel, seq), (daemon, crypto));
            }
            Action::Transmit { operation, daemon, line } => self.transmit(operation, daemon, line),
            Action::GiveUp(operation) => {
                self.prepared.remove(&operation);
                // With the task goes what its daemon was told.
                if let Some(task) = self.operations.remove(&operation) {
                    task.abort();
                }
            }
            Action::CloseSecond(daemon) => {
                if let Some(network) = self.networks.get(&daemon).cloned() {
                    self.running.spawn(async move { network.close_second().await });
                }
            }
            Action::Show(id, shown) => self.show(id, shown),
        }
    }

    fn show(&mut self, id: ChannelId, shown: Shown) {
        match shown {
            Shown::NextProbe(at) => {
                let at = at.map(|at| self.instant(at));
                self.shared.next_probe(id, at);
            }
            Shown::Trouble(trouble) => self.shared.trouble(id, trouble),
            Shown::Note(text) => {
                warn!(channel = %id, "{text}");
                self.shared.note(id, &text);
            }
            Shown::Counted => self.shared.count_box(id),
            Shown::Forgotten => {
                self.caps.remove(&id);
                self.shared.forget(id);
            }
        }
    }

    fn spawn(&mut self, task: Task, work: impl Future<Output = Message> + Send + 'static) {
        let outbox = self.outbox.clone();
        let running = self.running.spawn(async move {
            let _ = outbox.send(work.await).await;
        });
        self.tasks.insert(running.id(), task);
        if let Task::Operation(operation, _) = task {
            self.operations.insert(operation, running);
        }
    }

    /// What a task was for that has ended.
    fn task_ended(&mut self, id: Id) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        // By now the operation may have another one.
        if let Task::Operation(operation, _) = task
            && self.operations.get(&operation).is_some_and(|running| running.id() == id)
        {
            self.operations.remove(&operation);
        }
        Some(task)
    }

    /// A task has panicked: what was waited for from it has failed. One that was given up is waited for by nobody.
    fn task_failed(&mut self, panic: &JoinError) {
        let task = self.task_ended(panic.id());
        if panic.is_cancelled() {
            return;
        }
        error!(%panic, "an operation ended abnormally; it is done anew");
        let trouble = format!("an operation ended abnormally: {panic}");
        match task {
            Some(Task::Commit(commit)) => {
                self.tell(Event::Committed { commit, result: Err(CommitFailure::Failed(trouble)) });
            }
            Some(Task::Operation(operation, what)) => {
                self.tell(Event::Ended { operation, ending: Ending::vain(what, trouble) });
            }
            None => {}
        }
    }

    fn commit(&mut self, commit: CommitId, channel: Option<ChannelId>, request: Request) {
        if let Request::Fence { reason } = &request {
            error!(%reason, "the channel is fenced: nothing more is sent, what was accepted stays in the spool");
        }
        // Submitted here and not in the task, so that the commits of one channel keep their order.
        let submitted = carry::submit(&self.store, channel, request);
        self.spawn(Task::Commit(commit), async move {
            let result = submitted.ended().await;
            if let Err(CommitFailure::Failed(error)) = &result {
                warn!(%error, "a commit failed");
            }
            Message::Committed(commit, result)
        });
    }

    fn vain(&mut self, operation: OperationId, what: Operation, trouble: String) {
        let ended = Message::Ended(operation, Ending::vain(what, trouble));
        self.spawn(Task::Operation(operation, what), async move { ended });
    }

    fn prepare(
        &mut self,
        (operation, what): (OperationId, Operation),
        (id, seq): (ChannelId, BoxSeq),
        (daemon, crypto): (DaemonId, usize),
    ) {
        let Some(network) = self.networks.get(&daemon).cloned() else {
            return self.vain(operation, what, "the network is away".to_owned());
        };
        let cap = match self.cap(id) {
            Ok(cap) => cap,
            Err(error) => return self.vain(operation, what, error.to_string()),
        };
        let (store, deadline) = (self.store.clone(), self.deadline(daemon));
        self.spawn(Task::Operation(operation, what), async move {
            let begun = network.admit(&store, id).map_err(|refusal| refusal.to_string());
            let begun = begun.and_then(|pass| Ok((pass, carry::content(&store, id, seq, what == Operation::Read)?)));
            let (pass, content) = match begun {
                Ok(begun) => begun,
                Err(trouble) => return Message::Ended(operation, Ending::vain(what, trouble)),
            };
            let parcel = Parcel { what, cap, index: content.index, payload: content.payload };
            match transfer::prepare(&parcel, &pass.crypto(crypto), deadline).await {
                Ok(envelope) => Message::Prepared(operation, Box::new((id, Arc::new(parcel), envelope))),
                Err(ending) => Message::Ended(operation, ending),
            }
        });
    }

    fn transmit(&mut self, operation: OperationId, daemon: DaemonId, line: Line) {
        let Some((id, parcel, envelope)) = self.prepared.remove(&operation) else { return };
        let what = parcel.what;
        let Some(network) = self.networks.get(&daemon).cloned() else {
            return self.vain(operation, what, "the network is away".to_owned());
        };
        let pass = match network.admit(&self.store, id) {
            Ok(pass) => pass,
            Err(refusal) => return self.vain(operation, what, refusal.to_string()),
        };
        let deadline = self.deadline(daemon);
        self.spawn(Task::Operation(operation, what), async move {
            let traffic = pass.traffic(line);
            Message::Ended(operation, transfer::transmit(&parcel, &envelope, &traffic, deadline).await)
        });
    }

    fn cap(&mut self, id: ChannelId) -> Result<Arc<Capability>, StoreError> {
        if let Some(cap) = self.caps.get(&id) {
            return Ok(Arc::clone(cap));
        }
        let cap = Arc::new(self.store.cap(id)?);
        if self.caps.len() >= CAPABILITIES {
            self.caps.clear();
        }
        self.caps.insert(id, Arc::clone(&cap));
        Ok(cap)
    }

    /// When an operation that a daemon begins now is given up.
    fn deadline(&self, daemon: DaemonId) -> Instant {
        Instant::now() + self.delivery.pace_of(daemon).operation_deadline()
    }
}
