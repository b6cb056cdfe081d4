//! What stands behind the mixnet: couriers with their caches, and the replicas that keep the boxes.
//!
//! Calls and a time go in, answers come out; what takes time is planned and happens in [`Backend::advance`], each step at
//! the time that it was due. No clock, no sockets, no operations of clients: those are the core's.
//!
//! Source: `pigeonhole-internals.md` §3 to §5, `network-performance.md` A.2, A.5, A.9. Where no delay is set (the profile
//! `instant`), both holders of a box do everything together and at once. Couriers cache as upstream's do, unless reads
//! are to be kind: then a courier that holds a refusal asks the replicas anew at every poll, so that "no such box" is
//! never an old answer, and whoever waits for a box is told by [`Backend::take_written`].

mod copy;
mod courier;
mod disk;
mod replica;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tracing::{info, warn};

pub(super) use disk::Disk;
pub(super) use store::{BoxStore, Memory};

use self::copy::{Copies, CopyId};
use self::courier::{Cache, Look, Terms};
use self::replica::{Reply, Write};
use self::store::Holders;
use super::document::{Identity, replica_keys};
use super::envelope::{Inner, Query};
use super::faults::Faults;
use super::profile::{Profile, exponential};
use super::replica::{
    BOX_ALREADY_EXISTS, BOX_ID_NOT_FOUND, DATABASE_FAILURE, INVALID_EPOCH, SUCCESS, TOMBSTONE, replica_epoch,
};
use super::shard;
use crate::bacap::{BoxId, SealedBox, WriteCap};

/// The courier's codes, as it sends them.
pub(super) const COURIER_INVALID_ENVELOPE: u8 = 1;
pub(super) const COURIER_INVALID_EPOCH: u8 = 4;
/// How long a courier remembers an envelope, how long it waits for an answer to it, and how often it asks again.
const CACHE_AGE: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);
const REDISPATCHES: u32 = 5;
/// Envelopes on their way to and from replicas; a courier drops what is more, acknowledged or not.
const DISPATCHES: usize = 8192;
/// Boxes on their way between holders; what is more is taken up again at the next start.
const REPLICATIONS: usize = 16_384;
/// A holder's tries to give a box to the other one.
const REPLICATION_TRIES: u32 = 5;
/// Expired boxes go so many at a time, with a pause between.
const EXPIRED_AT_ONCE: usize = 256;
const EXPIRY_PAUSE: Duration = Duration::from_millis(20);
/// Boxes that became readable, kept for who asks.
const WRITTEN: usize = 65_536;
/// Where reads are kind, one that was told "no such box" falsely asks again after so long.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What a courier answers to an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CourierAnswer {
    /// It has the envelope, and no replica's answer yet.
    Ack,
    /// A replica's answer: its code, and the box that a read found.
    Payload { code: u8, sealed: Option<SealedBox> },
    /// The courier's own code, 1..=4, as it sends it.
    Error(u8),
}

/// What a courier answers to a copy command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyAnswer {
    InProgress,
    Succeeded,
    /// With the replica's code, 0 where there was none, and the 1-based number of the first envelope that was not completed.
    Failed {
        code: u8,
        envelope: u64,
    },
}

/// What is held, for statistics and for tests of leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BackendCensus {
    /// Envelopes in the couriers' caches; they leave with the first new one that comes 5 minutes after them, or later.
    pub(super) cached: usize,
    /// Envelopes on their way to a replica and back.
    pub(super) dispatches: usize,
    /// Boxes on their way from a holder to the other.
    pub(super) replications: usize,
    /// Copy commands at work.
    pub(super) copies: usize,
    /// Copy commands that ended, whose results are kept for 30 minutes.
    pub(super) copy_results: usize,
}

/// What an envelope asks of the two intermediaries that it names.
struct Errand {
    epoch: u64,
    replicas: [u8; 2],
    inner: Inner,
    authentic: bool,
}

/// Who is told what an intermediary answers.
#[derive(Clone, Copy)]
enum Asker {
    /// A courier's cache, by the envelope's hash.
    Cache { courier: usize, hash: [u8; 32] },
    /// A copy command, in the round of asking that it is in.
    Copy { id: CopyId, round: u64 },
}

enum Step {
    /// An envelope is at the holder of a rank, by way of the intermediary of a number, 0 or 1.
    Arrive { asker: Asker, intermediary: usize, errand: Arc<Errand>, rank: usize },
    /// An intermediary's answer is back.
    Answer { asker: Asker, intermediary: usize, reply: Reply },
    /// A holder's box is at the other holder, of the rank `to`.
    Replicate { box_id: BoxId, to: usize, tries: u32 },
    /// A copy command goes on.
    Copy { id: CopyId },
    /// A copy command has waited long enough for the answers of a round.
    CopyTimeout { id: CopyId, round: u64 },
    /// Expired boxes are deleted.
    Expire,
    /// Reads of a box may ask again.
    Wake { box_id: BoxId },
}

pub(super) struct Backend<S> {
    store: S,
    max_plaintext: usize,
    envelope_key: [u8; 32],
    /// The replicas' identity keys, by their number.
    keys: Vec<[u8; 32]>,
    /// Mean time of one of the three links from a courier to a holder and back.
    link: Duration,
    replication_delay: Duration,
    /// Whether nothing takes time.
    at_once: bool,
    /// Whether a read that is repeated in the same envelope sees what was written meanwhile, at once.
    kind_reads: bool,
    scale: f64,
    terms: Terms,
    faults: Faults,
    dice: StdRng,
    couriers: Vec<Cache>,
    copies: Copies,
    steps: BTreeMap<(Duration, u64), Step>,
    serial: u64,
    dispatches: usize,
    replications: usize,
    /// The latest time that was seen.
    now: Duration,
    /// The replica epoch whose expired boxes are deleted, or being deleted.
    swept: Option<u64>,
    written: Vec<BoxId>,
}

impl<S: BoxStore> Backend<S> {
    /// Couriers and replicas of boxes of `max_plaintext` over `store`; `seed` decides what is random in them.
    pub(super) fn new(store: S, max_plaintext: usize, profile: &Profile, identity: &Identity, seed: u64) -> Self {
        let at_once = profile.replica_delay.is_zero() && profile.replication_delay.is_zero();
        let scaled = |time: Duration| time.div_f64(profile.scale);
        Self {
            store,
            max_plaintext,
            envelope_key: identity.envelope_key,
            keys: replica_keys(identity, profile.replicas),
            link: profile.replica_delay / 3,
            replication_delay: profile.replication_delay,
            at_once,
            kind_reads: profile.kind_reads,
            scale: profile.scale,
            terms: Terms {
                age: scaled(CACHE_AGE),
                patience: scaled(PATIENCE),
                redispatches: if profile.kind_reads { u32::MAX } else { REDISPATCHES },
                kind: profile.kind_reads,
            },
            faults: Faults::default(),
            dice: StdRng::seed_from_u64(seed),
            couriers: (0..profile.couriers).map(|_| Cache::default()).collect(),
            copies: Copies::default(),
            steps: BTreeMap::new(),
            serial: 0,
            dispatches: 0,
            replications: 0,
            now: Duration::ZERO,
            swept: None,
            written: Vec::new(),
        }
    }

    pub(super) fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// An envelope reaches a courier, which answers at once (§4.1). `authentic` says whether its box's signature verifies.
    ///
    /// # Panics
    /// If there is no courier of that number.
    pub(super) fn envelope(&mut self, at: Duration, courier: usize, query: &Query, authentic: bool) -> CourierAnswer {
        self.advance(at);
        if query.epoch.abs_diff(replica_epoch(at)) > 1 || self.strikes(self.faults.stale_epoch) {
            return CourierAnswer::Error(COURIER_INVALID_EPOCH);
        }
        let asker = Asker::Cache { courier, hash: query.hash };
        let errand = || {
            let (epoch, replicas, inner) = (query.epoch, query.replicas, query.inner.clone());
            Errand { epoch, replicas, inner, authentic }
        };
        match self.couriers[courier].look(at, &query.hash, self.terms) {
            Look::Miss => {
                // As by a courier that starts anew between its word and its work: nothing of the envelope is left.
                if self.strikes(self.faults.ack_then_lost) {
                    self.couriers[courier].forget(&query.hash);
                } else {
                    self.dispatch(at, asker, errand());
                }
                CourierAnswer::Ack
            }
            Look::Hit { .. } if query.reply_index > 1 => CourierAnswer::Error(COURIER_INVALID_ENVELOPE),
            Look::Hit { again } => {
                if again {
                    self.dispatch(at, asker, errand());
                }
                self.couriers[courier].answer(&query.hash, query.reply_index)
            }
        }
    }

    /// A copy command reaches a courier (§5.2, §5.3): the first time it is in progress, whatever comes of it.
    ///
    /// # Panics
    /// If there is no courier of that number.
    pub(super) fn copy(&mut self, at: Duration, courier: usize, write_cap: &WriteCap) -> CopyAnswer {
        assert!(courier < self.couriers.len(), "a courier");
        self.advance(at);
        let answer = self.copy_command(at, courier, write_cap);
        self.advance(at);
        answer
    }

    /// Lets everything happen that is due by `at`.
    pub(super) fn advance(&mut self, at: Duration) {
        self.follow_the_clock(at);
        while let Some(entry) = self.steps.first_entry() {
            let due = entry.key().0;
            if due > at {
                break;
            }
            let step = entry.remove();
            self.happen(due, step);
        }
        self.copies.prune(at, self.scale);
    }

    /// When [`Self::advance`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.steps.keys().next().map(|&(at, _)| at)
    }

    pub(super) fn set_faults(&mut self, faults: &Faults) {
        self.faults = faults.clone();
    }

    /// A box is at both of its holders all of a sudden, as another writer's would be.
    pub(super) fn plant(&mut self, at: Duration, sealed: &SealedBox) {
        self.advance(at);
        let write = Write { sealed, authentic: true, max_plaintext: self.max_plaintext, full: false };
        replica::write(&mut self.store, &write, Holders::BOTH, replica_epoch(at));
        self.readable(sealed.box_id);
    }

    /// What was done since the last commit is not on the disk: the couriers forget what they were told of it, so that
    /// nobody hears of a success that there is none of.
    pub(super) fn rolled_back(&mut self) {
        self.couriers.fill_with(Cache::default);
        self.copies.rolled_back();
        self.steps.retain(|_, step| !matches!(step, Step::Copy { .. } | Step::CopyTimeout { .. }));
    }

    /// The clock was at `from` and is at `to`, without any time having passed.
    pub(super) fn jumped(&mut self, from: Duration, to: Duration) {
        let shifted = |time: Duration| (time + to).saturating_sub(from);
        let steps = std::mem::take(&mut self.steps);
        self.steps = steps.into_iter().map(|((due, serial), step)| ((shifted(due), serial), step)).collect();
        self.couriers.iter_mut().for_each(|cache| cache.shift(shifted));
        self.copies.shift(shifted);
        self.now = to;
    }

    /// Boxes that became readable since the last call, for reads that wait where reads are kind.
    pub(super) fn take_written(&mut self) -> Vec<BoxId> {
        std::mem::take(&mut self.written)
    }

    pub(super) fn census(&self) -> BackendCensus {
        BackendCensus {
            cached: self.couriers.iter().map(Cache::len).sum(),
            dispatches: self.dispatches,
            replications: self.replications,
            copies: self.copies.running(),
            copy_results: self.copies.ended(),
        }
    }

    /// Takes note of the time, and of a replica epoch that began.
    fn follow_the_clock(&mut self, at: Duration) {
        // A clock that was put back: what was to happen in a minute still happens in a minute.
        if at < self.now {
            self.jumped(self.now, at);
        }
        self.now = at;
        let epoch = replica_epoch(at);
        if self.swept == Some(epoch) {
            return;
        }
        if self.swept.is_none() {
            for (box_id, rank) in self.store.unreplicated(REPLICATIONS) {
                self.replicate(at, box_id, 1 - rank, 0);
            }
        }
        self.swept = Some(epoch);
        if !self.steps.values().any(|step| matches!(step, Step::Expire)) {
            self.plan(at, Step::Expire);
        }
    }

    fn happen(&mut self, at: Duration, step: Step) {
        match step {
            Step::Arrive { asker, intermediary, errand, rank } => {
                let reply = self.at_holder(at, &errand, rank);
                let back = self.link();
                self.plan(at + back, Step::Answer { asker, intermediary, reply });
            }
            Step::Answer { asker, intermediary, reply } => {
                self.dispatches -= 1;
                self.answered(at, asker, intermediary, reply);
            }
            Step::Replicate { box_id, to, tries } => {
                self.replications -= 1;
                self.replicated(at, box_id, to, tries);
            }
            Step::Copy { id } => self.copy_on(at, id),
            Step::CopyTimeout { id, round } => self.copy_timeout(at, id, round),
            Step::Expire => {
                let oldest = replica::oldest_kept(replica_epoch(at));
                let expired = self.store.expire(oldest, EXPIRED_AT_ONCE);
                if expired > 0 {
                    info!(expired, "boxes have expired");
                }
                if expired == EXPIRED_AT_ONCE {
                    self.plan(at + EXPIRY_PAUSE, Step::Expire);
                }
            }
            Step::Wake { box_id } => self.readable(box_id),
        }
    }

    /// Sends an errand to both intermediaries, and says how many of them answer.
    ///
    /// The time to an answer is a sum of exponential ones of a third of the mean each, as a sender's pace makes it on the
    /// three links courier, intermediary, holder and back (A.5); an intermediary that holds the box itself spares one.
    fn dispatch(&mut self, at: Duration, asker: Asker, errand: Errand) -> usize {
        if self.at_once {
            let reply = self.at_both(at, &errand);
            self.answered(at, asker, 0, reply);
            return 1;
        }
        if self.dispatches + 2 > DISPATCHES {
            warn!("couriers have too many envelopes on their way to replicas; one is dropped");
            return 0;
        }
        let (Inner::Read(box_id) | Inner::Write(SealedBox { box_id, .. })) = &errand.inner;
        let holders = shard::holders(&self.keys, box_id);
        let errand = Arc::new(errand);
        let mut asked = 0;
        for (intermediary, replica) in errand.replicas.into_iter().map(usize::from).enumerate() {
            if replica >= self.keys.len() {
                continue;
            }
            let mut there = self.link();
            let rank = holders.iter().position(|holder| *holder == replica).unwrap_or_else(|| {
                there += self.link();
                self.dice.random_range(0..2)
            });
            let errand = Arc::clone(&errand);
            self.plan(at + there, Step::Arrive { asker, intermediary, errand, rank });
            asked += 1;
        }
        self.dispatches += asked;
        asked
    }

    fn answered(&mut self, at: Duration, asker: Asker, intermediary: usize, reply: Reply) {
        match asker {
            Asker::Cache { courier, hash } => self.couriers[courier].reply(&hash, intermediary, reply),
            Asker::Copy { id, round } => self.copy_answered(at, id, round, reply.0),
        }
    }

    fn at_holder(&mut self, at: Duration, errand: &Errand, rank: usize) -> Reply {
        let epoch = replica_epoch(at);
        if errand.epoch.abs_diff(epoch) > 1 {
            return (INVALID_EPOCH, None);
        }
        match &errand.inner {
            Inner::Read(box_id) => self.read(at, box_id, rank),
            Inner::Write(sealed) => {
                let code = self.write(at, sealed, errand.authentic, Holders::only(rank))[rank];
                if code == SUCCESS {
                    self.replicate(at, sealed.box_id, 1 - rank, 0);
                }
                (code, None)
            }
        }
    }

    /// Both holders, where nothing takes time. They agree.
    fn at_both(&mut self, at: Duration, errand: &Errand) -> Reply {
        if errand.epoch.abs_diff(replica_epoch(at)) > 1 {
            return (INVALID_EPOCH, None);
        }
        match &errand.inner {
            Inner::Read(box_id) => self.read(at, box_id, 0),
            Inner::Write(sealed) => {
                let [code, _] = self.write(at, sealed, errand.authentic, Holders::BOTH);
                if code == SUCCESS {
                    self.readable(sealed.box_id);
                }
                (code, None)
            }
        }
    }

    fn read(&mut self, at: Duration, box_id: &BoxId, rank: usize) -> Reply {
        let reply = replica::read(&mut self.store, box_id, rank, replica_epoch(at));
        if matches!(reply.0, SUCCESS | TOMBSTONE) && self.strikes(self.faults.false_not_found) {
            if self.kind_reads {
                self.plan(at + SECOND_LOOK.div_f64(self.scale), Step::Wake { box_id: *box_id });
            }
            return (BOX_ID_NOT_FOUND, None);
        }
        reply
    }

    fn write(&mut self, at: Duration, sealed: &SealedBox, authentic: bool, holders: Holders) -> [u8; 2] {
        let write = Write { sealed, authentic, max_plaintext: self.max_plaintext, full: self.faults.storage_full };
        replica::write(&mut self.store, &write, holders, replica_epoch(at))
    }

    /// A holder gives what it has of a box to the other one, of the rank `to`.
    fn replicate(&mut self, at: Duration, box_id: BoxId, to: usize, tries: u32) {
        if self.replications >= REPLICATIONS {
            warn!("too many boxes are on their way between replicas; one stays at one holder for now");
            return;
        }
        self.replications += 1;
        let due = at + exponential(&mut self.dice, self.replication_delay);
        self.plan(due, Step::Replicate { box_id, to, tries });
    }

    /// At the other holder: a box and a refusal as of other contents are both the end of it, a broken database is not.
    fn replicated(&mut self, at: Duration, box_id: BoxId, to: usize, tries: u32) {
        let code = match replica::read(&mut self.store, &box_id, 1 - to, replica_epoch(at)) {
            (SUCCESS | TOMBSTONE, Some(sealed)) => self.write(at, &sealed, true, Holders::only(to))[to],
            (code, _) => code,
        };
        match code {
            SUCCESS => self.readable(box_id),
            DATABASE_FAILURE if tries < REPLICATION_TRIES => self.replicate(at, box_id, to, tries + 1),
            BOX_ALREADY_EXISTS | BOX_ID_NOT_FOUND => {}
            code => warn!(code, "a box stays at one holder"),
        }
    }

    fn readable(&mut self, box_id: BoxId) {
        if self.kind_reads && self.written.len() < WRITTEN {
            self.written.push(box_id);
        }
    }

    /// Whether a fault of a rate strikes now.
    fn strikes(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.dice.random_bool(rate.min(1.0))
    }

    fn link(&mut self) -> Duration {
        exponential(&mut self.dice, self.link)
    }

    fn plan(&mut self, at: Duration, step: Step) {
        self.serial += 1;
        self.steps.insert((at, self.serial), step);
    }
}

#[cfg(test)]
mod tests;
