//! What stands behind the mixnet: couriers with their caches, and the replicas that keep the boxes.
//!
//! Calls and a time go in, answers come out; what takes time is planned and happens in [`Backend::advance`], each step at
//! the time that it was due. No clock, no sockets, no operations of clients: those are the core's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::document::Identity;
use super::envelope::{Inner, Query};
use super::faults::Faults;
use super::profile::Profile;
use super::replica::{self, BoxStore, replica_epoch};
use crate::bacap::{BoxId, SealedBox, WriteCap};

/// The courier's codes, as it sends them.
pub(super) const COURIER_INVALID_ENVELOPE: u8 = 1;
pub(super) const COURIER_INVALID_EPOCH: u8 = 4;
/// Envelopes that a courier remembers, and for how long.
const CACHE_ENTRIES: usize = 65_536;
const CACHE_AGE: Duration = Duration::from_secs(300);

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendCensus {
    /// Envelopes in the couriers' caches.
    pub(super) cached: usize,
    /// Envelopes on their way to a replica.
    pub(super) dispatches: usize,
    /// Boxes on their way from a holder to the other.
    pub(super) replications: usize,
    /// Copy commands at work.
    pub(super) copies: usize,
}

enum Step {
    /// A dispatched envelope is at the replica, and its answer back in the courier's cache.
    Dispatch { hash: [u8; 32], inner: Inner, authentic: bool },
}

struct Cached {
    at: Duration,
    /// The replica's answer, once it is there.
    answer: Option<(u8, Option<SealedBox>)>,
}

pub(super) struct Backend<S> {
    store: S,
    max_plaintext: usize,
    replica_delay: Duration,
    cache: BTreeMap<[u8; 32], Cached>,
    cached: VecDeque<(Duration, [u8; 32])>,
    steps: BTreeMap<(Duration, u64), Step>,
    serial: u64,
    written: Vec<BoxId>,
}

impl<S: BoxStore> Backend<S> {
    /// Couriers and replicas of boxes of `max_plaintext` over `store`; `seed` decides what is random in them.
    pub(super) fn new(store: S, max_plaintext: usize, profile: &Profile, _identity: &Identity, _seed: u64) -> Self {
        Self {
            store,
            max_plaintext,
            replica_delay: profile.replica_delay,
            cache: BTreeMap::new(),
            cached: VecDeque::new(),
            steps: BTreeMap::new(),
            serial: 0,
            written: Vec::new(),
        }
    }

    pub(super) fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// An envelope reaches a courier, which answers at once. `authentic` says whether its box's signature verifies.
    pub(super) fn envelope(&mut self, at: Duration, _courier: usize, query: &Query, authentic: bool) -> CourierAnswer {
        self.advance(at);
        if query.epoch.abs_diff(replica_epoch(at)) > 1 {
            return CourierAnswer::Error(COURIER_INVALID_EPOCH);
        }
        let answer = match self.cache.get(&query.hash) {
            None => {
                self.remember(at, query.hash);
                self.dispatch(at, query, authentic);
                return CourierAnswer::Ack;
            }
            Some(cached) => cached.answer.as_ref().map(|(code, _)| *code),
        };
        if answer == Some(replica::BOX_ID_NOT_FOUND) {
            self.dispatch(at, query, authentic);
        }
        match self.cache.get(&query.hash).and_then(|cached| cached.answer.clone()) {
            None => CourierAnswer::Ack,
            Some((code, sealed)) => CourierAnswer::Payload { code, sealed },
        }
    }

    /// A copy command reaches a courier.
    pub(super) fn copy(&mut self, _at: Duration, _courier: usize, _write_cap: &WriteCap) -> CopyAnswer {
        CopyAnswer::Failed { code: 0, envelope: 0 }
    }

    /// Lets everything happen that is due by `at`.
    pub(super) fn advance(&mut self, at: Duration) {
        while let Some(entry) = self.steps.first_entry() {
            let due = entry.key().0;
            if due > at {
                break;
            }
            match entry.remove() {
                Step::Dispatch { hash, inner, authentic } => {
                    let answer = self.at_replica(due, &inner, authentic);
                    if let Some(cached) = self.cache.get_mut(&hash) {
                        cached.answer = Some(answer);
                    }
                }
            }
        }
    }

    /// When [`Self::advance`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.steps.keys().next().map(|&(at, _)| at)
    }

    pub(super) fn set_faults(&mut self, _faults: &Faults) {}

    /// A box that is there all of a sudden, as another writer's would be.
    pub(super) fn plant(&mut self, at: Duration, sealed: &SealedBox) {
        self.advance(at);
        self.at_replica(at, &Inner::Write(sealed.clone()), true);
    }

    /// Boxes that became readable since the last call, for reads that wait where nothing takes time.
    pub(super) fn take_written(&mut self) -> Vec<BoxId> {
        std::mem::take(&mut self.written)
    }

    pub(super) fn census(&self) -> BackendCensus {
        BackendCensus { cached: self.cache.len(), dispatches: self.steps.len(), ..BackendCensus::default() }
    }

    fn dispatch(&mut self, at: Duration, query: &Query, authentic: bool) {
        self.serial += 1;
        let step = Step::Dispatch { hash: query.hash, inner: query.inner.clone(), authentic };
        self.steps.insert((at + self.replica_delay, self.serial), step);
        self.advance(at);
    }

    fn at_replica(&mut self, at: Duration, inner: &Inner, authentic: bool) -> (u8, Option<SealedBox>) {
        let epoch = replica_epoch(at);
        match inner {
            Inner::Read(box_id) => replica::read(&mut self.store, box_id, epoch),
            Inner::Write(sealed) => {
                let code = replica::write(&mut self.store, sealed, authentic, self.max_plaintext, epoch);
                if code == replica::SUCCESS {
                    self.written.push(sealed.box_id);
                }
                (code, None)
            }
        }
    }

    fn remember(&mut self, at: Duration, hash: [u8; 32]) {
        while let Some(&(since, oldest)) = self.cached.front() {
            if self.cached.len() < CACHE_ENTRIES && since + CACHE_AGE > at {
                break;
            }
            self.cached.pop_front();
            if self.cache.get(&oldest).is_some_and(|cached| cached.at == since) {
                self.cache.remove(&oldest);
            }
        }
        self.cache.insert(hash, Cached { at, answer: None });
        self.cached.push_back((at, hash));
    }
}
