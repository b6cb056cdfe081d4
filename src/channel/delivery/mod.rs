//! Delivery: every decision about the boxes of all channels, for whatever shell carries them out.
//!
//! The shell tells what is there (channels, as the store has them; the network; what commits, envelopes and operations came
//! to) and does what the [`Action`]s say. It decides nothing about the meaning of a channel: when a tail is sealed, what is
//! packed anew, launched, read back, confirmed, fenced, probed, recorded, and what is tried again and when, is decided
//! here. Nothing here does I/O or reads a clock; see [`crate::channel`].
//!
//! Answers to [`Action::Fetch`] and [`Action::Load`] come before any other event. All else may come at any time and in any
//! order: what belongs to a machine that is gone is passed over.

mod commits;
mod pin;
mod readers;
#[cfg(test)]
mod tests;
mod writers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

pub use self::commits::{CommitFailure, CommitId, Done, OTHER_NETWORK, Request, pause_before_retry};
pub use self::pin::{Misfit, Pin};
use self::writers::{Tail, Writer};
use super::scheduler::{self, DaemonId, End, Line, OperationId, Scheduler};
use super::{Answer, Fetched, JointPace, Linger, Operation, Outcome, Pace, ReadBack, SenderEvent, Time};
use crate::model::{Arrival, BoxSeq, Channel, ChannelId, NetworkId, Role};

/// Choices that hold for as long as a machine lives.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryConfig {
    /// When a partly filled box is sealed.
    pub linger: Linger,
    /// Every reader is probed at once.
    pub prompt: bool,
    /// The part of the network's pace that probes of idle channels may take together.
    pub probe_share: f64,
    /// Of all that is random.
    pub seed: u64,
}

/// A network that can be used by a daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkView {
    /// Its directory authorities; those of the [`Pin`], where there are several daemons.
    pub id: NetworkId,
    /// Most plaintext bytes of a box.
    pub max_plaintext: usize,
    /// What its newest document says of its pace.
    pub pace: Pace,
    /// What its newest document says of its own time.
    pub replica_epoch: Option<u64>,
}

/// How an operation ended, what a read found, and what to tell the person where it did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How.
    pub end: End,
    /// What a read found.
    pub arrival: Option<Arrival>,
    /// Why it did not end well.
    pub trouble: Option<String>,
}

impl Ending {
    /// It could not be done, and may be tried again.
    pub fn vain(what: Operation, trouble: String) -> Self {
        let end = match what {
            Operation::Write { .. } => End::Written(Outcome::Again),
            Operation::ReadBack => End::WasRead(ReadBack::Unknown),
            Operation::Read => End::Answered(Answer::Unknown),
        };
        Self { end, arrival: None, trouble: Some(trouble) }
    }
}

/// What the shell tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A channel as the store has it now: at the start, when a commit has touched it, and in answer to [`Action::Look`].
    Found {
        /// The channel.
        channel: Box<Channel>,
        /// How long ago it was made.
        age: Duration,
    },
    /// The channel is not there any more.
    Gone(ChannelId),
    /// The store could not tell of a channel.
    LookFailed(ChannelId),
    /// Answers [`Action::List`]: all channels were told of; or the store could not list them.
    Listed(bool),
    /// The network became reachable by a daemon, ceased to be, or has another document. Daemons that the [`Pin`] has not
    /// are not told of; when another network takes its place, those that go are told first.
    Network(DaemonId, Option<NetworkView>),
    /// Answers [`Action::Fetch`].
    Fetched {
        /// Whose.
        channel: ChannelId,
        /// As in [`SenderEvent::Fetched`].
        boxes: Vec<(BoxSeq, Fetched)>,
    },
    /// Answers [`Action::Fetch`]: the store could not tell.
    FetchFailed(ChannelId),
    /// Answers [`Action::Load`].
    Loaded {
        /// The channel, as the store has it.
        channel: Box<Channel>,
        /// Boxes past the frontier that have arrived.
        arrived: Vec<BoxSeq>,
    },
    /// Answers [`Action::Load`]: the channel is gone, or the store could not tell.
    NotLoaded(ChannelId),
    /// A commit is over.
    Committed {
        /// Which.
        commit: CommitId,
        /// What came of it.
        result: Result<Done, CommitFailure>,
    },
    /// An envelope is made.
    Prepared(OperationId),
    /// An operation is over, before or after it was transmitted.
    Ended {
        /// Which.
        operation: OperationId,
        /// How.
        ending: Ending,
    },
    /// A person wants a channel probed often.
    Follow {
        /// Which.
        channel: ChannelId,
        /// For how long.
        time: Duration,
    },
    /// Nothing but time.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell of all channels.
    List,
    /// Tell of a channel.
    Look(ChannelId),
    /// Have the store commit something. Commits of one channel keep their order.
    Commit {
        /// Under this number.
        commit: CommitId,
        /// For which channel; `None`: for all.
        channel: Option<ChannelId>,
        /// What.
        request: Request,
    },
    /// Look up at most `limit` boxes that are not stored, from `from` on.
    Fetch {
        /// Whose.
        channel: ChannelId,
        /// First box to look at.
        from: BoxSeq,
        /// Most boxes.
        limit: usize,
    },
    /// Look up where a channel stands that is to be probed.
    Load(ChannelId),
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
        /// The daemon that makes the envelope, and that sends it.
        daemon: DaemonId,
        /// On which of its crypto connections, counted from 0.
        crypto: usize,
    },
    /// Send the envelope of an operation by its daemon, and wait for its end.
    Transmit {
        /// Which.
        operation: OperationId,
        /// The daemon that made the envelope.
        daemon: DaemonId,
        /// Over which of its connections.
        line: Line,
    },
    /// Nobody waits for an operation any more: its daemon is away or too slow, and another one does it.
    GiveUp(OperationId),
    /// The second connection to a daemon is needed no longer.
    CloseSecond(DaemonId),
    /// For a person to see.
    Show(ChannelId, Shown),
}

/// What others may see of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// When it is expected to be probed next.
    NextProbe(Option<Time>),
    /// What went wrong last; `None`: it goes well again.
    Trouble(Option<String>),
    /// What is to be found later.
    Note(String),
    /// A box was confirmed, or has arrived.
    Counted,
    /// It is gone.
    Forgotten,
}

/// Where an operation belongs.
#[derive(Clone, Copy)]
struct Owner {
    channel: ChannelId,
    seq: BoxSeq,
}

/// The machine over all channels. See the module's head.
pub struct Delivery {
    linger: Linger,
    prompt: bool,
    /// The network, by the daemons by which it is reachable.
    networks: BTreeMap<DaemonId, NetworkView>,
    /// The newest network that could be used, and its M.
    known: Option<(NetworkId, usize)>,
    replica_epoch: Option<u64>,
    scheduler: Scheduler,
    writers: BTreeMap<ChannelId, Writer>,
    /// Writers of which a box that was launched since the start is confirmed.
    trusted: HashSet<ChannelId>,
    /// The first box that was not launched when the channel was first told of.
    launched_before: HashMap<ChannelId, BoxSeq>,
    /// Readers that are known to belong to the present network.
    bound: HashSet<ChannelId>,
    tails: HashMap<ChannelId, Tail>,
    /// When tails are due.
    seals: BTreeSet<(Time, ChannelId)>,
    /// Readers that found the cache full when they were last told of.
    paused: HashSet<ChannelId>,
    operations: HashMap<OperationId, Owner>,
    /// What arrived and is not recorded yet.
    held: HashMap<(ChannelId, BoxSeq), Arrival>,
    commits: commits::Commits,
    /// Channels that the store could not tell of: when they are looked at again.
    again: BTreeSet<(Time, ChannelId)>,
    /// How often that has failed in a row.
    tries: HashMap<ChannelId, u32>,
    /// When all channels are listed again, and how often that has failed in a row.
    list_again: (Option<Time>, u32),
    actions: Vec<Action>,
}

impl Delivery {
    /// A machine of no channel. The shell lists all channels first.
    pub fn new(config: DeliveryConfig) -> Self {
        Self {
            linger: config.linger,
            prompt: config.prompt,
            networks: BTreeMap::new(),
            known: None,
            replica_epoch: None,
            scheduler: Scheduler::new(Pace::default(), config.probe_share, config.seed),
            writers: BTreeMap::new(),
            trusted: HashSet::new(),
            launched_before: HashMap::new(),
            bound: HashSet::new(),
            tails: HashMap::new(),
            seals: BTreeSet::new(),
            paused: HashSet::new(),
            operations: HashMap::new(),
            held: HashMap::new(),
            commits: commits::Commits::default(),
            again: BTreeSet::new(),
            tries: HashMap::new(),
            list_again: (None, 0),
            actions: Vec::new(),
        }
    }

    /// The pace of all daemons that are there, as it was measured so far.
    pub fn pace(&self) -> JointPace {
        self.scheduler.pace()
    }

    /// The pace of one daemon, as it was measured so far.
    pub fn pace_of(&self, daemon: DaemonId) -> &Pace {
        self.scheduler.pace_of(daemon)
    }

    /// The pace of each daemon that was ever there, by their numbers.
    pub fn paces(&self) -> impl Iterator<Item = &Pace> {
        self.scheduler.paces()
    }

    /// Whether an operation is under way still, so that its end is of interest.
    pub fn is_under_way(&self, operation: OperationId) -> bool {
        self.scheduler.is_under_way(operation)
    }

    /// Operations that are remembered, and boxes that have arrived and are not recorded.
    pub fn kept(&self) -> usize {
        self.operations.len() + self.held.len()
    }

    /// When [`Event::Tick`] is due.
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        let seal = self.seals.first().map(|&(at, _)| at);
        let again = self.again.first().map(|&(at, _)| at);
        let own = [seal, again, self.list_again.0, self.commits.next_retry()];
        own.into_iter().flatten().chain(self.scheduler.next_timeout(now)).min()
    }

    /// Takes an event in and says what is to be done.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        match event {
            Event::Found { channel, age } => self.found(now, &channel, age),
            Event::Gone(id) => self.gone(id),
            Event::LookFailed(id) => self.look_again(now, id),
            Event::Listed(true) => self.list_again = (None, 0),
            Event::Listed(false) => {
                let tries = self.list_again.1;
                self.list_again = (Some(now + pause_before_retry(tries)), tries.saturating_add(1));
            }
            Event::Network(daemon, view) => self.network_changed(now, daemon, view),
            Event::Fetched { channel, boxes } => self.tell_sender(now, channel, SenderEvent::Fetched { boxes }),
            Event::FetchFailed(channel) => self.tell_sender(now, channel, SenderEvent::FetchFailed),
            Event::Loaded { channel, arrived } => self.loaded(now, &channel, arrived),
            Event::NotLoaded(channel) => self.tell(now, scheduler::Event::NotLoaded { channel }),
            Event::Committed { commit, result } => self.committed(now, commit, result),
            Event::Prepared(operation) => {
                if self.scheduler.is_under_way(operation) {
                    self.tell(now, scheduler::Event::Prepared { operation });
                }
            }
            Event::Ended { operation, ending } => self.ended(now, operation, ending),
            Event::Follow { channel, time } => {
                self.scheduler.follow(channel, now + time);
                self.tell(now, scheduler::Event::Tick);
            }
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    /// Does what is due by time.
    fn tick(&mut self, now: Time) {
        while let Some(&(at, id)) = self.seals.first()
            && at <= now
        {
            self.seals.pop_first();
            self.tails.remove(&id);
            self.commit(id, Request::Seal);
        }
        while let Some(&(at, id)) = self.again.first()
            && at <= now
        {
            self.again.pop_first();
            self.actions.push(Action::Look(id));
        }
        if self.list_again.0.is_some_and(|at| at <= now) {
            self.list_again.0 = None;
            self.actions.push(Action::List);
        }
        self.retry_commits(now);
        self.tell(now, scheduler::Event::Tick);
    }

    fn found(&mut self, now: Time, channel: &Channel, age: Duration) {
        let id = channel.id;
        self.tries.remove(&id);
        // What was launched before, another life of this state launched too. What was not, it may have taken back.
        self.launched_before.entry(id).or_insert(channel.launched_end);
        if channel.fence.is_some() || self.refuses(channel) {
            self.part_with(id);
            if channel.unfit.is_some_and(|unfit| self.known.as_ref().is_some_and(|(_, max)| *max >= unfit))
                && !self.refuses(channel)
            {
                self.fit(id);
            }
            return;
        }
        match channel.role {
            Role::Writer => self.writer_found(now, channel, age),
            Role::Reader => self.reader_found(now, channel),
        }
    }

    /// Whether the channel belongs to another network than the newest that was there.
    fn refuses(&self, channel: &Channel) -> bool {
        self.known.as_ref().is_some_and(|(present, _)| channel.is_foreign_to(present))
    }

    fn gone(&mut self, id: ChannelId) {
        self.part_with(id);
        self.trusted.remove(&id);
        self.launched_before.remove(&id);
        self.tries.remove(&id);
        self.show(id, Shown::Forgotten);
    }

    /// Has the channel looked at again in a while.
    fn look_again(&mut self, now: Time, id: ChannelId) {
        let tries = self.tries.entry(id).or_default();
        self.again.insert((now + pause_before_retry(*tries), id));
        *tries = tries.saturating_add(1);
    }

    /// The channel is neither sent nor read from now on.
    fn part_with(&mut self, id: ChannelId) {
        self.stop(id);
        self.paused.remove(&id);
        self.forget_tail(id);
    }

    /// Its machine goes; what it had under way is passed over when it comes.
    fn stop(&mut self, id: ChannelId) {
        self.scheduler.remove(id);
        self.writers.remove(&id);
        self.bound.remove(&id);
        self.commits.forget_launches(id);
        self.operations.retain(|_, owner| owner.channel != id);
        self.held.retain(|(of, _), _| *of != id);
        self.show(id, Shown::NextProbe(None));
    }

    fn network_changed(&mut self, now: Time, daemon: DaemonId, view: Option<NetworkView>) {
        let (was_there, was_online) = (self.networks.contains_key(&daemon), !self.networks.is_empty());
        let Some(network) = view else {
            if self.networks.remove(&daemon).is_some() {
                self.tell(now, scheduler::Event::Online(daemon, false));
            }
            return;
        };
        let beside = self.networks.iter().find(|(other, _)| **other != daemon).map(|(_, beside)| beside);
        assert!(
            beside.is_none_or(|beside| (&beside.id, beside.max_plaintext) == (&network.id, network.max_plaintext)),
            "the pin is of one network"
        );
        self.networks.insert(daemon, network.clone());
        // A daemon may be behind the others by a document.
        let epoch = self.networks.values().filter_map(|network| network.replica_epoch).max();
        if self.replica_epoch != epoch {
            self.replica_epoch = epoch;
            self.commit_for_all(Request::Epoch(epoch));
        }
        self.scheduler.set_document(daemon, network.pace);
        let known = (network.id, network.max_plaintext);
        let writers: Vec<_> = self.writers.keys().copied().collect();
        if self.known.as_ref() != Some(&known) {
            // Boxes may have to be packed anew and bindings be looked at again: start from the store.
            self.known = Some(known);
            for id in writers {
                self.stop(id);
            }
            self.bound.clear();
            self.tell(now, scheduler::Event::Online(daemon, true));
            self.actions.push(Action::List);
            return;
        }
        if was_there {
            // The same network with another document.
            return self.tell(now, scheduler::Event::Tick);
        }
        self.tell(now, scheduler::Event::Online(daemon, true));
        if was_online {
            return;
        }
        for id in writers {
            if self.writers.get(&id).is_some_and(|writer| writer.fits) {
                self.tell_sender(now, id, SenderEvent::Online(true));
            } else {
                self.fit(id);
            }
        }
    }

    /// An operation is over: its result goes to the machines, unless they have forgotten it.
    fn ended(&mut self, now: Time, operation: OperationId, ending: Ending) {
        let owner = self.operations.remove(&operation);
        let Some(Owner { channel, seq }) = owner.filter(|_| self.scheduler.is_under_way(operation)) else { return };
        let Ending { end, arrival, trouble } = ending;
        let counts = matches!(
            end,
            End::Written(Outcome::Stored | Outcome::Couriered)
                | End::WasRead(ReadBack::Ours)
                | End::Answered(Answer::Arrived)
        );
        self.show(channel, Shown::Trouble(trouble));
        if counts {
            self.show(channel, Shown::Counted);
        }
        if let Some(arrival) = arrival {
            self.held.insert((channel, seq), arrival);
        }
        self.tell(now, scheduler::Event::Ended { operation, end });
    }

    fn tell_sender(&mut self, now: Time, channel: ChannelId, event: SenderEvent) {
        self.tell(now, scheduler::Event::Sender { channel, event });
    }

    /// Tells the machines, and has all done that they say.
    fn tell(&mut self, now: Time, event: scheduler::Event) {
        for action in self.scheduler.handle(now, event) {
            match action {
                scheduler::Action::Sender { channel, action } => self.sender_wants(channel, action),
                scheduler::Action::Receiver { channel, action } => self.receiver_wants(channel, action),
                scheduler::Action::Load { channel } => {
                    self.show(channel, Shown::NextProbe(None));
                    self.actions.push(Action::Load(channel));
                }
                scheduler::Action::Rested { channel } => self.show_plan(now, channel),
                scheduler::Action::Prepare { operation, channel, seq, what, daemon, crypto } => {
                    self.operations.insert(operation, Owner { channel, seq });
                    self.actions.push(Action::Prepare { operation, channel, seq, what, daemon, crypto });
                }
                scheduler::Action::Transmit { operation, daemon, line } => {
                    self.actions.push(Action::Transmit { operation, daemon, line });
                }
                scheduler::Action::GiveUp { operation } => {
                    self.operations.remove(&operation);
                    self.actions.push(Action::GiveUp(operation));
                }
                scheduler::Action::CloseSecond { daemon } => self.actions.push(Action::CloseSecond(daemon)),
            }
        }
    }

    fn show(&mut self, id: ChannelId, shown: Shown) {
        self.actions.push(Action::Show(id, shown));
    }

    /// Shows when the channel is expected to be probed.
    fn show_plan(&mut self, now: Time, id: ChannelId) {
        let at = self.scheduler.next_probe(now, id);
        self.show(id, Shown::NextProbe(at));
    }
}
