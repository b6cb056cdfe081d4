//! The engine: drives the channel machines with the thin client and the store, and answers the verbs.
//!
//! ```text
//!   verbs ── control ──▶ owner ─▶ store ◀── fs ── mount
//!                          │        │ changes
//!                          ▼        ▼
//!                        engine: driver ─▶ channel machines
//!                          │  ▲
//!                 envelopes│  │answers
//!                          ▼  │
//!             thin clients (crypto ×n, traffic, a second) ── daemon, for each daemon
//! ```
//!
//! An [`Owner`] is one process's hold on a state directory: the lock, the store, an [`Engine`] and the control socket.
//! What the network is asked is decided by the machines alone; nothing that a person does with files changes it.
//!
#![doc = include_str!("README.md")]

mod adopt;
mod carry;
mod contacts;
pub mod control;
mod driver;
pub mod drops;
mod history;
mod keep;
mod network;
mod owner;
mod search;
mod shared;
#[cfg(all(test, feature = "localnet"))]
mod simulation;
pub mod status;
mod supervise;
mod transfer;
mod unlock;
mod view;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use network::Daemon;
pub use owner::{Owner, OwnerKind};
pub use unlock::Unlock;

use crate::bacap::WriteCap;
use crate::channel::{DaemonId, DeliveryConfig, Linger, MAX_DAEMONS};
use crate::store::{
    BoxSeq, Channel, ChannelId, ChannelName, Durability, NetworkId, REPLICA_EPOCH, Role, Store, StoreError,
    replica_epoch_at, replica_epoch_begins,
};
use control::{Failure, FailureKind};
use status::{ChannelStatus, DaemonStatus, DurabilityStatus, RoleStatus, STATUS_VERSION, Status, unix_seconds};

/// How long a stop waits for the connections to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Channels that one look-up of the status takes from the store at a time.
const PAGE: usize = 256;
/// Commands that wait for the driver.
const COMMANDS: usize = 16;

/// What keeps the connections to each daemon, as a person is told of it.
const CONNECTIONS: [&str; MAX_DAEMONS] = [
    "the connection to the daemon",
    "the connection to the second daemon",
    "the connection to the third daemon",
    "the connection to the fourth daemon",
    "the connection to the fifth daemon",
    "the connection to the sixth daemon",
    "the connection to the seventh daemon",
    "the connection to the eighth daemon",
];

/// A task of the engine.
type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The running engine of one store.
pub struct Engine {
    store: Store,
    shared: Arc<shared::Shared>,
    drops: drops::Drops,
    commands: mpsc::Sender<driver::Command>,
    stop: watch::Sender<bool>,
    /// A verb has begun an adoption.
    adopting: Arc<Notify>,
    /// A verb has asked for a search.
    searching: Arc<Notify>,
    /// A verb has said that a channel is to be kept.
    keeping: Arc<Notify>,
    /// A verb has asked for an invitation, or accepts one.
    contacting: Arc<Notify>,
    /// What is seen of the network. A sender: the connections are closed once nobody receives any more.
    view: Arc<watch::Sender<network::View>>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the engine on the current tokio runtime. `prompt` has every reader probed at once, as a verb's short run
    /// wants it; a mount takes its time, so that mounting is no burst. Probes of idle channels take `probe_share` of the
    /// network's pace at most.
    pub fn start(store: Store, daemon: Daemon, linger: Linger, prompt: bool, probe_share: f64) -> Self {
        let shared = Arc::new(shared::Shared::new(store.clone()));
        let (stop, stopped) = watch::channel(false);
        let daemons = daemon.each();
        let (view, seen) = watch::channel(network::View::new(daemons.len()));
        let view = Arc::new(view);
        let drops = drops::Drops::new(store.clone());
        let (adopting, searching) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (keeping, contacting) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (commands, obeyed) = mpsc::channel(COMMANDS);
        let run = |part, task: Box<dyn FnMut() -> Task + Send>| {
            tokio::spawn(supervise::supervise(part, Arc::clone(&shared), stopped.clone(), task))
        };
        let keep = {
            let (drops, shared, seen, stopped) = (drops.clone(), Arc::clone(&shared), seen.clone(), stopped.clone());
            move || -> Task { Box::pin(drops::keep(drops.clone(), Arc::clone(&shared), seen.clone(), stopped.clone())) }
        };
        let adopt = {
            let (store, shared, seen, stopped) = (store.clone(), Arc::clone(&shared), seen.clone(), stopped.clone());
            let asked = Arc::clone(&adopting);
            move || -> Task {
                let (shared, asked) = (Arc::clone(&shared), Arc::clone(&asked));
                Box::pin(adopt::run(store.clone(), shared, seen.clone(), asked, stopped.clone()))
            }
        };
        let search = {
            let (seen, stopped) = (seen.clone(), stopped.clone());
            let searches = search::Searches {
                store: store.clone(),
                shared: Arc::clone(&shared),
                asked: Arc::clone(&searching),
                share: probe_share,
            };
            move || -> Task { Box::pin(searches.clone().run(seen.clone(), stopped.clone())) }
        };
        let resend = {
            let (seen, stopped) = (seen.clone(), stopped.clone());
            let keeper =
                keep::Keeper { store: store.clone(), shared: Arc::clone(&shared), asked: Arc::clone(&keeping) };
            move || -> Task { Box::pin(keeper.clone().run(seen.clone(), stopped.clone())) }
        };
        let contact = {
            let (seen, stopped) = (seen.clone(), stopped.clone());
            let contacts = contacts::Contacts { store: store.clone(), asked: Arc::clone(&contacting) };
            move || -> Task { Box::pin(contacts.clone().run(seen.clone(), stopped.clone())) }
        };
        let history = {
            let (store, stopped) = (store.clone(), stopped.clone());
            move || -> Task { Box::pin(history::run(store.clone(), stopped.clone())) }
        };
        let drive = {
            let (store, shared, stopped) = (store.clone(), Arc::clone(&shared), stopped.clone());
            let obeyed = Arc::new(tokio::sync::Mutex::new(obeyed));
            move || -> Task {
                let (store, shared, seen) = (store.clone(), Arc::clone(&shared), seen.clone());
                let (obeyed, stopped) = (Arc::clone(&obeyed), stopped.clone());
                let config = DeliveryConfig { linger, prompt, probe_share, seed: rand::random() };
                Box::pin(async move {
                    let commands = obeyed.lock_owned().await;
                    driver::Driver::new(store, shared, config, seen, commands).run(stopped).await;
                })
            }
        };
        let connections = (0..).map(DaemonId).zip(daemons).map(|(id, daemon)| {
            let view = Arc::clone(&view);
            let keep = move || -> Task { Box::pin(network::keep(daemon.clone(), id, Arc::clone(&view))) };
            run(CONNECTIONS[usize::from(id.0)], Box::new(keep))
        });
        let tasks = connections.collect::<Vec<_>>().into_iter().chain([
            run("the work on drops", Box::new(keep)),
            run("adopting", Box::new(adopt)),
            run("searching", Box::new(search)),
            run("keeping", Box::new(resend)),
            run("invitations", Box::new(contact)),
            run("the history", Box::new(history)),
            run("the delivery of boxes", Box::new(drive)),
        ]);
        let tasks = tasks.collect();
        Self {
            store,
            shared,
            drops,
            commands,
            stop,
            adopting,
            searching,
            keeping,
            contacting,
            view,
            tasks: std::sync::Mutex::new(tasks),
        }
    }

    /// Stops: nothing more is launched, the sessions at the daemon are closed. Bounded; safe to call twice.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for mut task in tasks.into_iter().rev() {
            if timeout(GOODBYE, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    /// The files of drops.
    pub fn drops(&self) -> &drops::Drops {
        &self.drops
    }

    /// How the daemon stands.
    pub fn daemon(&self) -> DaemonStatus {
        self.shared.daemon()
    }

    /// What of the engine does not run though it should: a part of it has ended abnormally, and is not started again yet.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Why the channel cannot work for now: it belongs to another network. A fence stands in the channel itself.
    pub fn refusal(&self, channel: &Channel) -> Option<String> {
        self.shared.refusal(channel)
    }

    /// The newest network that was connected.
    pub(crate) fn network(&self) -> Option<NetworkId> {
        self.shared.network()
    }

    /// A channel is to be adopted: see [`Store::adopt`].
    pub(crate) fn adopt(&self) {
        self.adopting.notify_one();
    }

    /// A channel is to be searched: see [`Store::search`].
    pub(crate) fn search(&self) {
        self.searching.notify_one();
    }

    /// A channel is to be kept: see [`Store::keep`].
    pub(crate) fn keep(&self) {
        self.keeping.notify_one();
    }

    /// An invitation was asked for, or a code was accepted.
    pub(crate) fn contact(&self) {
        self.contacting.notify_one();
    }

    /// The network by one of the daemons, while it can be used.
    fn connected(&self) -> Option<Arc<network::Network>> {
        self.view.borrow().any()
    }

    /// Fences a channel in which another writer's box was found; false where its file was deleted meanwhile.
    async fn fence(&self, id: ChannelId, seq: BoxSeq) -> Result<bool, StoreError> {
        keep::fence(&self.store, &self.shared, id, seq).await
    }

    /// When an operation is given up.
    fn operation_deadline(&self) -> Duration {
        let paces = self.view.borrow().all().map(|network| network.pace.operation_deadline()).max();
        paces.unwrap_or_else(|| crate::channel::Pace::default().operation_deadline())
    }

    /// How many packets a second the network takes of us, or is expected to.
    fn packets_per_second(&self) -> f64 {
        let view = self.view.borrow();
        if view.is_there() { view.packets_per_second() } else { self.shared.packets_per_second() }
    }

    /// Whether the search of a channel is under way.
    pub(crate) fn is_searching(&self, id: ChannelId) -> bool {
        self.shared.search_of(id).is_some()
    }

    /// Has a channel that is read probed often for a while; nothing where the engine has stopped.
    pub async fn follow(&self, id: ChannelId, time: Duration) {
        if self.commands.send(driver::Command::Follow(id, time)).await.is_ok() {
            self.shared.follow(id, tokio::time::Instant::now() + time);
        }
    }

    /// Keeps what went wrong with a channel, for a person to find: the newest few.
    pub fn note(&self, id: ChannelId, text: &str) {
        self.shared.note(id, text);
    }

    /// What went wrong with a channel, newest last.
    pub fn notes(&self, id: ChannelId) -> Vec<(SystemTime, String)> {
        self.shared.notes_of(id)
    }

    /// The state of everything.
    pub fn status(&self) -> Result<Status, StoreError> {
        let mut channels = Vec::new();
        let mut after: Option<ChannelName> = None;
        loop {
            let page = self.store.channels(after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            channels.extend(page.iter().map(|channel| self.channel_status(channel)));
        }
        let (usage, limits) = (self.store.usage()?, self.store.limits());
        // What cannot be looked up is told in its place: the rest of the status is what a person needs then.
        let (contacts, unreadable) = match self.contacts() {
            Ok(contacts) => (contacts, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(Status {
            version: STATUS_VERSION,
            state_error: self.store.trouble().or(unreadable),
            daemon: self.daemon(),
            daemons: self.shared.daemons(),
            engine_error: self.failure(),
            spool_bytes: usage.spool_bytes,
            spool_limit: limits.spool_bytes,
            cache_bytes: usage.cache_bytes,
            cache_limit: limits.cache_bytes,
            sent_bytes: usage.sent_bytes,
            sent_limit: limits.sent_bytes,
            channels,
            contacts,
        })
    }

    /// The state of one channel.
    pub fn channel_status(&self, channel: &Channel) -> ChannelStatus {
        let reader = channel.role == Role::Reader;
        let state_error = self.store.trouble();
        let hole = self.store.hole(channel.id).ok().flatten();
        let arrived = channel.frontier.0 - channel.skipped_boxes;
        let adoption = channel.fence.as_ref().and_then(|_| self.store.adoption(channel.id).ok().flatten());
        let adoption = adoption.filter(|adoption| adoption.adopted.is_none());
        let next_probe = self.shared.next_probe_of(channel.id).filter(|_| reader);
        let unstored = channel.boxes > channel.stored_boxes && !reader;
        let oldest = if unstored { self.store.oldest_unstored(channel.id).ok().flatten() } else { None };
        let stored = if channel.stored_boxes > 0 { self.store.oldest_stored(channel.id).ok().flatten() } else { None };
        let kept = channel.kept_until.filter(|_| !reader).and_then(|_| self.store.kept_counts(channel.id).ok());
        // What was sent again is newer than the first time that it was stored.
        let sent_again = kept.and_then(|counts| counts.oldest_epoch).map(|epoch| replica_epoch_begins(epoch + 2));
        let oldest_expires = sent_again.or(stored.map(|since| since + REPLICA_EPOCH));
        let (couriered_bytes, couriered_boxes) = (channel.couriered_bytes, channel.couriered_boxes);
        let in_sum = |unstored: u64, couriered| if reader { 0 } else { unstored.saturating_sub(couriered) };
        ChannelStatus {
            name: channel.name.to_string(),
            role: if reader { RoleStatus::Reader } else { RoleStatus::Writer },
            kind: if channel.content.is_drop() { "drop" } else { "stream" }.to_owned(),
            size: channel.size,
            stored_bytes: if reader { channel.size } else { channel.stored_bytes },
            boxes: if reader { arrived } else { channel.boxes },
            stored_boxes: if reader { arrived } else { channel.stored_boxes },
            queued_bytes: in_sum(channel.size - channel.stored_bytes.min(channel.size), couriered_bytes),
            queued_boxes: in_sum(channel.boxes - channel.stored_boxes.min(channel.boxes), couriered_boxes),
            couriered_bytes,
            couriered_boxes,
            durability: (!reader).then_some(match channel.durability {
                Durability::Stored => DurabilityStatus::Stored,
                Durability::Couriered => DurabilityStatus::Couriered,
            }),
            boxes_per_minute: (self.shared.rate(channel.id) * 600.0).round() / 10.0,
            eta_ms: self
                .shared
                .time_left(channel)
                .filter(|_| unstored && !channel.invited && state_error.is_none())
                .map(milliseconds),
            oldest_unstored_ms: oldest.and_then(|since| since.elapsed().ok()).map(milliseconds),
            oldest_expires_at: oldest_expires.map(unix_seconds),
            invited: channel.invited,
            kind_is_told: channel.kind_is_told,
            unfetched_until: unfetched_until(channel).map(unix_seconds),
            kept_until: channel.kept_until.map(unix_seconds),
            expired_boxes: kept.map_or(0, |counts| counts.expired_boxes),
            launched: channel.launched,
            shared: channel.shown,
            not_there_yet_at: channel.verdict.map(unix_seconds),
            waiting_for_late_box: channel.later_known,
            missing_boxes: hole.map_or(0, |hole| hole.boxes()),
            missing_since: hole.and_then(|hole| hole.since).map(unix_seconds),
            lost: channel.is_lost(),
            stale: channel.stale_since.is_some(),
            search_probes: self.shared.search_of(channel.id).map(|(spent, _)| spent),
            skipped_boxes: channel.skipped_boxes,
            followed_ms: self
                .shared
                .follows(channel.id)
                .map(|until| milliseconds(until.saturating_duration_since(tokio::time::Instant::now()))),
            dropped_bytes: channel.dropped_bytes,
            paused: channel.paused,
            next_probe_ms: next_probe.map(|at| milliseconds(at.saturating_duration_since(tokio::time::Instant::now()))),
            fenced: channel.fence.clone(),
            adopting: adoption.map(|adoption| adoption.next.0 - adoption.first.0),
            error: state_error.clone().or_else(|| self.refusal(channel)).or_else(|| self.shared.trouble_of(channel.id)),
            only_copy: !reader && !channel.cap_elsewhere,
            state_error,
            created: unix_seconds(channel.created),
            modified: unix_seconds(channel.modified),
            files: channel.content.is_drop().then(|| Box::new(self.drops.status(channel))),
        }
    }
}

/// A write capability from fresh randomness. Made here rather than by the daemon, so that it works with none at hand.
pub(crate) fn fresh_write_cap() -> Result<WriteCap, Failure> {
    let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *seed)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
    Ok(WriteCap::from_seed(&seed))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Until when what a reader has not fetched can be had, at least: it was written after the network said last that it was not
/// there, and lives for the epoch of its writing and the next; or for as long as its writer keeps it.
fn unfetched_until(channel: &Channel) -> Option<SystemTime> {
    let since = channel.verdict.filter(|_| !channel.later_known && !channel.is_lost());
    let expires = since.map(|since| replica_epoch_begins(replica_epoch_at(since) + 2));
    expires.max(channel.kept_until).filter(|_| channel.role == Role::Reader)
}
