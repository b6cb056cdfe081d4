//! The table of unanswered requests.
//!
//! A request keeps its place in the order in which it was asked. Each time that it is put it gets a new query id; the one
//! before is remembered, as a daemon may have kept its reply while we were away. A 24 under an old id is the echo of the
//! cancel that goes before a repetition, and no answer (`thin-client-protocol.md` §4.6).

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::{Call, CancelKey, Id};
use crate::thin::ErrorKind;
use crate::thin::frame;

/// A request, what it was put under, and what must go before it.
pub(super) struct Entry {
    pub(super) call: Call,
    /// Under which it was put on this connection.
    pub(super) id: Option<Id>,
    /// Under which it was put before.
    pub(super) old: Option<Id>,
    /// Whether a cancel goes first, for what may survive of an earlier start.
    cancel_first: bool,
    /// Its place among all that was put, if it was put on this connection.
    pub(super) order: u64,
}

impl Entry {
    /// Whether the daemon may have it.
    pub(super) fn sent(&self) -> bool {
        self.id.is_some() || self.old.is_some()
    }
}

#[derive(Default)]
pub(super) struct Calls {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    ids: BTreeMap<Id, u64>,
    /// What is still to be put on this connection.
    unput: BTreeSet<u64>,
    orders: u64,
}

impl Calls {
    /// Takes a request; `earlier` is the id under which the same operation may run already.
    pub(super) fn insert(&mut self, call: Call, earlier: Option<Id>) {
        let seq = self.next;
        self.next += 1;
        if let Some(id) = earlier {
            self.ids.insert(id, seq);
        }
        let cancel_first = earlier.is_some();
        self.entries.insert(seq, Entry { call, id: None, old: earlier, cancel_first, order: 0 });
        self.unput.insert(seq);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of the next thing that is put.
    pub(super) fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    /// The next frame to send: mixnet requests only with `mixnet`.
    pub(super) fn next_frame(&mut self, mixnet: bool, random: &mut StdRng) -> Option<Vec<u8>> {
        loop {
            let eligible = |seq: &&u64| mixnet || self.entries[*seq].call.body.cancel.is_none();
            let seq = *self.unput.iter().find(eligible)?;
            let entry = self.entries.get_mut(&seq).expect("what is unput is in the table");
            if let (true, Some(key)) = (std::mem::take(&mut entry.cancel_first), entry.call.body.cancel) {
                return Some(super::small(&key.request(random.random())));
            }
            self.unput.remove(&seq);
            let id: Id = random.random();
            match frame::encode(&(entry.call.body.frame)(id)) {
                Ok(bytes) => {
                    entry.id = Some(id);
                    self.orders += 1;
                    entry.order = self.orders;
                    self.ids.insert(id, seq);
                    return Some(bytes);
                }
                Err(error) => {
                    let entry = self.remove(seq).expect("just seen");
                    let _ = entry.call.answer.send(Err(ErrorKind::InvalidArgument(error.to_string())));
                }
            }
        }
    }

    /// Whether there is something that [`Self::next_frame`] would give.
    pub(super) fn wants_to_send(&self, mixnet: bool) -> bool {
        self.unput.iter().any(|seq| mixnet || self.entries[seq].call.body.cancel.is_none())
    }

    /// All of it is to be put again, under new ids.
    pub(super) fn again(&mut self) {
        for (&seq, entry) in &mut self.entries {
            if let Some(id) = entry.id.take()
                && let Some(older) = entry.old.replace(id)
            {
                self.ids.remove(&older);
            }
            entry.cancel_first = entry.old.is_some() && entry.call.body.cancel.is_some();
            self.unput.insert(seq);
        }
    }

    /// The request that a reply under `id` may be for.
    pub(super) fn find(&self, id: &Id) -> Option<(u64, &Entry)> {
        let seq = *self.ids.get(id)?;
        Some((seq, &self.entries[&seq]))
    }

    /// The operation that is under way under a key.
    pub(super) fn find_key(&self, key: CancelKey) -> Option<(u64, &Entry)> {
        self.entries.iter().find(|(_, entry)| entry.call.body.cancel == Some(key)).map(|(&seq, entry)| (seq, entry))
    }

    /// Forgets the old id of a request: its echo was heard.
    pub(super) fn forget_old(&mut self, id: &Id) {
        if let Some(seq) = self.ids.remove(id)
            && let Some(entry) = self.entries.get_mut(&seq)
        {
            entry.old = None;
        }
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.unput.remove(&seq);
        for id in entry.id.iter().chain(&entry.old) {
            self.ids.remove(id);
        }
        Some(entry)
    }

    /// Those that nobody waits for, and those whose deadline has passed.
    pub(super) fn over(&self, now: Option<Instant>) -> Vec<u64> {
        let over = |entry: &Entry| entry.call.answer.is_closed() || now.is_some_and(|now| entry.call.deadline <= now);
        self.entries.iter().filter(|(_, entry)| over(entry)).map(|(&seq, _)| seq).collect()
    }

    pub(super) fn is_sent(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_some_and(Entry::sent)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.call.deadline).min()
    }

    /// Whether the daemon is at work on something before it can answer the next question.
    pub(super) fn local_under_way(&self) -> bool {
        self.entries.values().any(|entry| entry.id.is_some() && entry.call.body.cancel.is_none())
    }

    /// Requests of this connection that are not put again on another.
    pub(super) fn fragile(&self) -> Vec<u64> {
        let fragile = |entry: &Entry| entry.call.body.fragile && entry.id.is_some();
        self.entries.iter().filter(|(_, entry)| fragile(entry)).map(|(&seq, _)| seq).collect()
    }

    /// Mixnet requests of this connection that are unanswered.
    pub(super) fn started(&self) -> usize {
        self.entries.values().filter(|entry| entry.id.is_some() && entry.call.body.cancel.is_some()).count()
    }

    pub(super) fn drain(&mut self) -> Vec<Call> {
        let entries = std::mem::take(&mut self.entries).into_values().map(|entry| entry.call).collect();
        self.ids.clear();
        self.unput.clear();
        entries
    }
}
