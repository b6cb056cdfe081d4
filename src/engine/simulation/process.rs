//! One process: the real store on its own directory, and the lives of the delivery machine over it. What is a task of the
//! driver is a happening of the world here; nothing is decided here either.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use rand::RngExt as _;

use super::super::carry;
use super::super::drops::Drops;
use super::adopting::Keeping;
use super::daemons::{Known, number};
use super::drops::{Hands, copy_staged};
use super::line::{Parcel, Wire};
use super::plan::Deed;
use super::world::{Happening, World};
use crate::bacap::WriteCap;
use crate::channel::{
    Adoption, AdoptionEvent, CommitFailure, CommitId, Delivery, DeliveryAction as Action, DeliveryConfig,
    DeliveryEvent as Event, Done, Ending, Linger, Operation, OperationId, PROBE_SHARE, Request, Shown, Time,
};
use crate::localnet::simulated::Envelope;
use crate::store::{
    BoxSeq, BoxState, Channel, ChannelId, ChannelName, Clock, Content, Limits, NetworkId, RecordId, StateDir, Store,
};

/// The first time is not the beginning, so that what happened within a while before has a time too.
pub(super) const BEFORE: Time = Time::from_secs(400 * 86_400);

const LIMITS: Limits =
    Limits { spool_bytes: 1 << 30, cache_bytes: 1 << 30, cache_channel_bytes: 1 << 30, sent_bytes: 1 << 30 };
/// What a state directory has besides its lock.
const FILES: [&str; 2] = ["pigeonfs.db", "pigeonfs.db-wal"];

pub(super) enum Message {
    /// Whether the network can be used has changed; the newest word counts.
    View,
    /// A commit has touched a channel.
    Touched(ChannelId),
    Committed(CommitId, Result<Done, CommitFailure>),
    Prepared(OperationId, Parcel, Envelope),
    Ended(OperationId, Ending),
    AdoptionKept(ChannelId, Keeping, Result<Done, CommitFailure>),
}

/// What waits for the store's writer thread.
#[derive(Clone, Debug)]
pub(super) enum Queued {
    Machine { commit: CommitId, channel: Option<ChannelId>, request: Request },
    Person { stream: usize, deed: Deed },
    Adoption { id: ChannelId, keeping: Keeping },
}

/// A process: its store, and the life that it is in.
pub(super) struct Process {
    /// Below it, each state of each life has a directory of its own.
    root: PathBuf,
    states: u64,
    clock: Clock,
    store: Store,
    drops: Drops,
    /// The record that the newest deed was about.
    pub(super) last_record: Option<RecordId>,
    backup: Option<PathBuf>,
    /// Which channel is which stream's.
    channels: BTreeMap<usize, ChannelId>,
    /// What its wall clock is ahead of the others', in seconds.
    pub(super) wrong_s: i64,
    /// Which daemons are another network's.
    pub(super) elsewhere: Vec<bool>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) life: Option<Life>,
    /// Counts its lives: what was planned in one does not happen in the next.
    pub(super) lives: u64,
    pub(super) committing: bool,
}

/// A process between its start and its crash.
pub(super) struct Life {
    pub(super) delivery: Delivery,
    /// Two for each daemon.
    pub(super) wires: Vec<Wire>,
    pub(super) known: Known,
    prepared: BTreeMap<OperationId, (Parcel, Envelope)>,
    pub(super) adoptions: BTreeMap<ChannelId, Adoption>,
    /// Reads of adoptions that are under way.
    pub(super) looks: BTreeMap<OperationId, (ChannelId, BoxSeq)>,
    /// What works on drops.
    pub(super) hands: Hands,
}

impl Life {
    pub(super) fn new(tokens: Vec<u64>, seed: u64, prompt: bool, hands: Hands) -> Self {
        let config = DeliveryConfig { linger: Linger::default(), prompt, probe_share: PROBE_SHARE, seed };
        Self {
            delivery: Delivery::new(config),
            known: Known::new(tokens.len() / 2),
            wires: tokens.into_iter().map(Wire::new).collect(),
            prepared: BTreeMap::new(),
            adoptions: BTreeMap::new(),
            looks: BTreeMap::new(),
            hands,
        }
    }

    pub(super) fn next_timer(&self, now: Time) -> Option<Time> {
        let adoptions = self.adoptions.values().filter_map(Adoption::next_timeout);
        adoptions.chain(self.delivery.next_timeout(now)).min()
    }

    pub(super) fn deadline(&self, daemon: usize) -> Time {
        self.delivery.pace_of(number(daemon)).operation_deadline()
    }

    /// What is kept in memory for what is under way.
    pub(super) fn kept(&self) -> usize {
        self.delivery.kept() + self.prepared.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.wires.iter().map(Wire::unanswered).sum()
    }
}

/// The write capability of a stream.
pub(super) fn cap(stream: usize) -> WriteCap {
    WriteCap::from_seed(&[u8::try_from(stream).expect("few streams"); 32])
}

fn name(stream: usize) -> ChannelName {
    ChannelName::parse(&format!("s{stream}")).expect("a name")
}

fn refused(error: crate::store::StoreError) -> CommitFailure {
    CommitFailure::Failed(error.to_string())
}

fn other_name(stream: usize) -> ChannelName {
    ChannelName::parse(&format!("renamed-{stream}")).expect("a name")
}

impl Process {
    pub(super) fn new(root: PathBuf, daemons: usize) -> Self {
        std::fs::create_dir(&root).expect("a directory of its own");
        let clock = Clock::simulated();
        let store = open(&root.join("0"), &clock);
        let drops = Drops::new(store.clone());
        Self {
            drops,
            last_record: None,
            root,
            states: 0,
            clock,
            store,
            backup: None,
            channels: BTreeMap::new(),
            wrong_s: 0,
            elsewhere: vec![false; daemons],
            queue: VecDeque::new(),
            life: None,
            lives: 0,
            committing: false,
        }
    }

    /// A copy of a process's state goes on as another process.
    pub(super) fn twin_of(other: &Self, root: PathBuf) -> Self {
        let mut twin = Self::new(root, other.elsewhere.len());
        twin.go_on_with(&other.root.join(other.states.to_string()));
        twin
    }

    pub(super) fn add_reader(&mut self, stream: usize, content: Content) {
        let id = self.store.add(name(stream), cap(stream).read_cap().clone(), content).wait().expect("added");
        self.channels.insert(stream, id);
    }

    /// Its wall clock, where the others' shows this.
    pub(super) fn wall(&self, others: Time) -> std::time::SystemTime {
        let others = std::time::UNIX_EPOCH + others;
        let wrong = Time::from_secs(self.wrong_s.unsigned_abs());
        if self.wrong_s < 0 { others - wrong } else { others + wrong }
    }

    pub(super) fn set_wall(&self, others: Time) {
        self.clock.set(self.wall(others));
    }

    /// The channel of a stream, where the process has it.
    pub(super) fn channel(&self, stream: usize) -> Option<Channel> {
        self.store.channel(*self.channels.get(&stream)?).expect("an open store")
    }

    /// The boxes of a stream that are here.
    pub(super) fn boxes(&self, stream: usize) -> Vec<(BoxSeq, BoxState, Vec<u8>)> {
        self.channel(stream).map(|channel| self.store.rows(channel.id, BoxSeq(0), usize::MAX >> 1)).unwrap_or_default()
    }

    pub(super) fn row(&self, stream: usize, seq: BoxSeq) -> Option<(BoxState, Vec<u8>)> {
        let rows = self.store.rows(self.channel(stream)?.id, seq, 1);
        rows.into_iter().find(|(of, ..)| *of == seq).map(|(_, state, bytes)| (state, bytes))
    }

    /// Bytes of a stream from an offset on.
    pub(super) fn read(&self, stream: usize, offset: u64) -> Vec<u8> {
        let Some(channel) = self.channel(stream) else { return Vec::new() };
        self.store.read(channel.id, offset, usize::MAX >> 1).expect("what is here can be read")
    }

    pub(super) fn stream_of(&self, id: ChannelId) -> Option<usize> {
        self.channels.iter().find(|(_, of)| **of == id).map(|(&stream, _)| stream)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn drops(&self) -> &Drops {
        &self.drops
    }

    pub(super) fn ids(&self) -> Vec<ChannelId> {
        self.channels.values().copied().collect()
    }

    /// What is to be adopted, and how far that has come.
    pub(super) fn adoptions(&self) -> Vec<(ChannelId, crate::store::Adoption)> {
        let wanted = self.store.adoptions().expect("an open store").into_iter();
        wanted.filter_map(|id| Some((id, self.store.adoption(id).expect("an open store")?))).collect()
    }

    /// Whether operations of a channel may reach this network.
    pub(super) fn admits(&self, network: &NetworkId, id: ChannelId) -> bool {
        self.store.channel(id).expect("an open store").is_some_and(|channel| carry::admits(network, &channel))
    }

    /// Commits the next thing that waits, and says what came of it.
    pub(super) fn commit_one(&mut self) -> Option<(Queued, Result<Done, CommitFailure>)> {
        let queued = self.queue.pop_front()?;
        let result = match queued.clone() {
            Queued::Machine { channel, request, .. } => wait(carry::submit(&self.store, channel, request).ended()),
            Queued::Person { stream, deed } => self.deed(stream, deed),
            Queued::Adoption { id, keeping: Keeping::Findings(from, findings) } => {
                self.store.found(id, from, findings).wait().map(|()| Done::Made).map_err(refused)
            }
            Queued::Adoption { id, keeping: Keeping::Finish } => {
                self.store.finish_adoption(id).wait().map(|_| Done::Made).map_err(refused)
            }
        };
        Some((queued, result))
    }

    fn deed(&mut self, stream: usize, deed: Deed) -> Result<Done, CommitFailure> {
        let store = self.store.clone();
        match (deed, self.channel(stream)) {
            (Deed::Create { durability, max, content }, None) => {
                let id = store.create(name(stream), cap(stream), content).wait().map_err(refused)?;
                self.channels.insert(stream, id);
                store.set_max_plaintext(id, max).wait().map_err(refused)?;
                store.set_durability(id, durability).wait().map_err(refused)?;
            }
            (Deed::Add(content), None) => self.add_reader(stream, content),
            (_, None) | (Deed::Create { .. } | Deed::Add(_), _) => {
                return Err(CommitFailure::Failed("there is none, or there is one".to_owned()));
            }
            (Deed::Append(bytes), Some(channel)) => {
                store.append(channel.id, bytes, None).wait().map_err(refused)?;
            }
            (Deed::Seal, Some(channel)) => drop(store.seal_tail(channel.id).wait().map_err(refused)?),
            (Deed::Truncate, Some(channel)) => store.truncate(channel.id).wait().map_err(refused)?,
            (Deed::Unlink, Some(channel)) => store.unlink(channel.id).wait().map_err(refused)?,
            (Deed::Rename, Some(channel)) => {
                let other = if channel.name == name(stream) { other_name(stream) } else { name(stream) };
                store.rename(channel.name, other).wait().map_err(refused)?;
            }
            (Deed::Durability(durability), Some(channel)) => {
                store.set_durability(channel.id, durability).wait().map_err(refused)?;
            }
            (Deed::Trim { keep }, Some(channel)) => drop(store.trim(channel.id, keep).wait().map_err(refused)?),
            (Deed::Skip, Some(channel)) => drop(store.skip(channel.id).wait().map_err(refused)?),
            (Deed::Adopt, Some(channel)) => store.adopt(channel.id).wait().map_err(refused)?,
            (Deed::Send(file), Some(channel)) => {
                self.last_record = Some(self.send(channel.id, &file).map_err(CommitFailure::Failed)?);
            }
            (Deed::Leave(body), Some(_)) => {
                self.stage(&body).map_err(|error| CommitFailure::Failed(error.to_string()))?;
            }
            (Deed::TakeBack, Some(channel)) => {
                self.last_record = Some(self.take_back(channel.id).map_err(CommitFailure::Failed)?);
            }
            (Deed::Deliver, Some(channel)) => self.deliver(channel.id).map_err(CommitFailure::Failed)?,
            (Deed::Forget, Some(channel)) => store.forget(channel.name).wait().map_err(refused)?,
        }
        Ok(Done::Made)
    }

    /// The state as it is on the disk now goes on in another directory, as after SIGKILL: what was not committed is gone.
    pub(super) fn killed(&mut self) {
        let from = self.root.join(self.states.to_string());
        self.go_on_with(&from);
    }

    fn go_on_with(&mut self, from: &Path) {
        let old = self.root.join(self.states.to_string());
        self.states += 1;
        let to = self.root.join(self.states.to_string());
        self.store.while_it_rests(|| copy(from, &to));
        self.store.close();
        self.store = open(&to, &self.clock);
        self.drops = Drops::new(self.store.clone());
        // Names are of the stream, whatever the channel's number is.
        let channels = self.store.channels(None, 100).expect("an open store").into_iter();
        let stream = |name: &str| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a stream's");
        self.channels = channels.map(|channel| (stream(channel.name.as_str()), channel.id)).collect();
        std::fs::remove_dir_all(old).expect("ours");
    }

    pub(super) fn back_up(&mut self) {
        let to = self.root.join(format!("backup-{}", self.states));
        let _ = std::fs::remove_dir_all(&to);
        self.store.while_it_rests(|| copy(&self.root.join(self.states.to_string()), &to));
        self.backup = Some(to);
    }

    /// The state is that of the backup, where there is one.
    pub(super) fn restore(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.go_on_with(&backup);
        }
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }
}

fn open(dir: &Path, clock: &Clock) -> Store {
    let state = StateDir::lock(dir).expect("nobody else's");
    Store::open_simulated(&state, LIMITS, clock.clone()).expect("a sound state")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    for file in FILES {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).expect("copied");
        }
    }
    copy_staged(from, to);
}

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for what another thread does.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

impl World {
    fn life(&mut self, p: usize) -> Option<&mut Life> {
        self.processes[p].life.as_mut()
    }

    /// The beginning of a life.
    pub(super) fn begin(&mut self, p: usize) {
        self.do_all(p, vec![Action::List]);
        self.network_changed(p);
        self.adopt(p);
        self.wake_hands(p);
    }

    /// What is due by time.
    pub(super) fn ring(&mut self, p: usize) {
        self.drive(p, Event::Tick);
        let adopted: Vec<_> = self.life(p).map(|life| life.adoptions.keys().copied().collect()).unwrap_or_default();
        for id in adopted {
            self.tell_adoption(p, id, AdoptionEvent::Tick);
        }
    }

    pub(super) fn take(&mut self, p: usize, message: Message) {
        match message {
            Message::View => {
                self.network_changed(p);
                self.wake_hands(p);
            }
            Message::Touched(id) => self.do_all(p, vec![Action::Look(id)]),
            Message::AdoptionKept(id, keeping, result) => self.adoption_kept(p, id, &keeping, &result),
            Message::Committed(commit, result) => self.drive(p, Event::Committed { commit, result }),
            Message::Prepared(operation, parcel, envelope) => {
                let Some(life) = self.life(p) else { return };
                life.prepared.retain(|of, _| life.delivery.is_under_way(*of));
                if life.delivery.is_under_way(operation) {
                    life.prepared.insert(operation, (parcel, envelope));
                    self.drive(p, Event::Prepared(operation));
                }
            }
            Message::Ended(operation, ending) => {
                if !self.looked(p, operation, &ending) {
                    self.drive(p, Event::Ended { operation, ending });
                }
            }
        }
    }

    /// Tells the machine, and does all that it says.
    pub(super) fn drive(&mut self, p: usize, event: Event) {
        let now = self.now;
        let Some(life) = self.life(p) else { return };
        let actions = life.delivery.handle(now, event);
        self.do_all(p, actions);
    }

    fn do_all(&mut self, p: usize, actions: Vec<Action>) {
        let mut events = VecDeque::new();
        for action in actions {
            self.do_one(p, action, &mut events);
        }
        while let Some(event) = events.pop_front() {
            let now = self.now;
            let Some(life) = self.life(p) else { return };
            for action in life.delivery.handle(now, event) {
                self.do_one(p, action, &mut events);
            }
        }
    }

    fn do_one(&mut self, p: usize, action: Action, events: &mut VecDeque<Event>) {
        self.trace(|| format!("{p}: {action:?}"));
        let (now, wall) = (self.now, self.processes[p].wall(self.wall()));
        let fails = self.troubled && self.dice.random_bool(self.plan.disk_errors);
        let store = self.processes[p].store.clone();
        match action {
            Action::List if fails => events.push_back(Event::Listed(false)),
            Action::List => carry::list(&store, wall, |event| events.push_back(event)),
            Action::Look(id) if fails => events.push_back(Event::LookFailed(id)),
            Action::Look(id) => events.extend(carry::look(&store, id, wall)),
            Action::Fetch { channel, .. } if fails => {
                self.see("reads of the store that failed");
                events.push_front(Event::FetchFailed(channel));
            }
            Action::Fetch { channel, from, limit } => {
                events.push_front(carry::fetch(&store, channel, from, limit, now, wall));
            }
            Action::Load(id) if fails => events.push_front(Event::NotLoaded(id)),
            Action::Load(id) => events.push_front(carry::load(&store, id)),
            Action::Commit { commit, channel, request } => {
                self.judge(p, channel, &request);
                self.submit(p, Queued::Machine { commit, channel, request });
            }
            Action::Prepare { operation, channel, seq, what, daemon, .. } => {
                self.prepare(p, (operation, what), (channel, seq), usize::from(daemon.0));
            }
            Action::Transmit { operation, daemon, line } => {
                let daemon = usize::from(daemon.0);
                let Some(life) = self.life(p) else { return };
                let Some((parcel, envelope)) = life.prepared.remove(&operation) else { return };
                if !life.known.uses(daemon) || !self.admits(p, daemon, parcel.channel) {
                    self.vain(p, operation, parcel.what);
                } else if self.processes[p].elsewhere[daemon] {
                    self.go_nowhere(p, operation, daemon, &parcel);
                } else {
                    self.start_operation(p, operation, (daemon, line), parcel, envelope);
                }
            }
            Action::GiveUp(operation) => {
                self.see("operations that another daemon took over");
                if let Some(life) = self.life(p) {
                    life.prepared.remove(&operation);
                }
                self.give_up(p, operation);
            }
            Action::CloseSecond(daemon) => self.hang_up_second(p, usize::from(daemon.0)),
            Action::Show(
                _,
                Shown::Trouble(_) | Shown::Note(_) | Shown::NextProbe(_) | Shown::Counted | Shown::Forgotten,
            ) => {}
        }
    }

    /// What the oracle says of a decision.
    fn judge(&mut self, p: usize, channel: Option<ChannelId>, request: &Request) {
        let Some(stream) = channel.and_then(|id| self.processes[p].stream_of(id)) else { return };
        match request {
            Request::Confirm { seq, to: BoxState::Stored } => self.oracle_confirmed(p, stream, *seq),
            Request::Fence { .. } => self.oracle_fenced(stream),
            _ => {}
        }
    }

    fn vain(&mut self, p: usize, operation: OperationId, what: Operation) {
        let ending = Ending::vain(what, "it could not be begun".to_owned());
        self.tell(p, Message::Ended(operation, ending));
    }

    fn prepare(
        &mut self,
        p: usize,
        (operation, what): (OperationId, Operation),
        (id, seq): (ChannelId, BoxSeq),
        daemon: usize,
    ) {
        let encrypt = self.plan.encrypt.mul_f64(self.dice.random_range(0.5..1.5));
        let online = self.life(p).is_some_and(|life| life.known.uses(daemon));
        let content = carry::content(&self.processes[p].store, id, seq, what == Operation::Read);
        let stream = self.processes[p].stream_of(id).filter(|&stream| self.admits(p, daemon, stream));
        let (Some(stream), Ok(content), true) = (stream, content, online) else {
            return self.vain(p, operation, what);
        };
        let parcel = Parcel { channel: stream, seq, what, payload: content.payload };
        self.plan_of(p, encrypt, Happening::Encrypted { p, id: operation, parcel });
    }

    /// An operation reaches the other network, which never answers.
    fn go_nowhere(&mut self, p: usize, operation: OperationId, daemon: usize, parcel: &Parcel) {
        self.see("operations on another network");
        let home = self.network_view(false).id;
        let bound = self.processes[p].channel(parcel.channel).and_then(|channel| channel.network);
        self.oracle_elsewhere(parcel.channel, bound.as_ref() == Some(&home));
        let after = self.life(p).map_or(Time::ZERO, |life| life.deadline(daemon));
        let message = Message::Ended(operation, Ending::vain(parcel.what, "nobody answers".to_owned()));
        self.plan_of(p, after, Happening::Message { p, message });
    }

    pub(super) fn encrypted(&mut self, p: usize, operation: OperationId, parcel: Parcel) {
        let message = match self.envelope(p, &parcel) {
            Ok(envelope) => Message::Prepared(operation, parcel, envelope),
            Err(ending) => Message::Ended(operation, ending),
        };
        self.tell(p, message);
    }
}
