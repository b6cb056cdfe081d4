//! A courier's cache: which envelopes it has seen, what the replicas answered, and when it asks them again
//! (`pigeonhole-internals.md` §4.1, `network-performance.md` A.9).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::CourierAnswer;
use super::replica::Reply;
use crate::localnet::replica::{INTERNAL_ERROR, REPLICATION_FAILED, SUCCESS};

/// Envelopes that one courier remembers at most, and bytes of boxes in their answers. Beyond, the oldest are forgotten:
/// to whoever asks for one of those it is a new one.
pub(super) const ENTRIES: usize = 8192;
const PAYLOAD_BYTES: usize = 4 << 20;

/// What a courier goes by.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// How long an entry lives.
    pub(super) age: Duration,
    /// How long an answer may take before the replicas are asked again.
    pub(super) patience: Duration,
    /// Times that the replicas are asked again for one entry.
    pub(super) redispatches: u32,
    /// Whether they are asked again for as long as one of the two answers is an error.
    pub(super) kind: bool,
}

/// A courier's cache, by the hash of the envelope.
#[derive(Default)]
pub(super) struct Cache {
    entries: BTreeMap<[u8; 32], Entry>,
    /// In the order of their coming.
    order: VecDeque<(Duration, [u8; 32])>,
    payload_bytes: usize,
}

struct Entry {
    since: Duration,
    /// When the replicas were asked last.
    asked: Duration,
    redispatches: u32,
    /// What the two intermediaries answered.
    replies: [Option<Reply>; 2],
}

/// What a courier makes of an envelope that comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is new: it goes out to the replicas, and is acknowledged.
    Miss,
    /// It is known.
    Hit {
        /// Whether it goes out to the replicas again, besides the answer.
        again: bool,
    },
}

impl Cache {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes note of an envelope.
    ///
    /// What is older than its age is forgotten when an envelope comes that is new, as by upstream's courier. So one that
    /// only hears the same envelope again and again answers it from its cache for ever (§4.1, A.9).
    pub(super) fn look(&mut self, at: Duration, hash: &[u8; 32], terms: Terms) -> Look {
        let Some(entry) = self.entries.get_mut(hash) else {
            self.prune(at, terms);
            while self.order.len() >= ENTRIES {
                self.forget_oldest();
            }
            self.entries.insert(*hash, Entry { since: at, asked: at, redispatches: 0, replies: [None, None] });
            self.order.push_back((at, *hash));
            return Look::Miss;
        };
        let mut failed = entry.replies.iter().flatten().map(|(code, _)| *code != SUCCESS).peekable();
        let again = entry.redispatches < terms.redispatches
            && match failed.peek() {
                None => at >= entry.asked + terms.patience,
                Some(_) if terms.kind => failed.any(|failed| failed),
                Some(_) => failed.all(|failed| failed),
            };
        if again {
            entry.redispatches += 1;
            entry.asked = at;
        }
        Look::Hit { again }
    }

    /// What the cache holds for an envelope: the answer at its reply index where there is one, else the other one.
    ///
    /// So a "no such box" of the first intermediary is served although the second one has the box: real, and the likelier
    /// the fresher the box is (A.9).
    pub(super) fn answer(&self, hash: &[u8; 32], reply_index: u8) -> CourierAnswer {
        let Some(entry) = self.entries.get(hash) else { return CourierAnswer::Ack };
        let first = usize::from(reply_index);
        let answers = [first, 1 - first].into_iter().filter_map(|index| entry.replies[index].as_ref());
        match answers.filter(|(code, _)| has_body(*code)).map(Clone::clone).next() {
            Some((code, sealed)) => CourierAnswer::Payload { code, sealed },
            None => CourierAnswer::Ack,
        }
    }

    /// Takes in what an intermediary answered. A success that is there is final; an error makes way.
    pub(super) fn reply(&mut self, hash: &[u8; 32], index: usize, reply: Reply) {
        // It may have been forgotten meanwhile.
        let Some(entry) = self.entries.get_mut(hash) else { return };
        if entry.replies[index].as_ref().is_some_and(|(code, _)| *code == SUCCESS) {
            return;
        }
        let added = bytes(&reply);
        let removed = entry.replies[index].replace(reply).as_ref().map_or(0, bytes);
        self.payload_bytes = self.payload_bytes + added - removed;
        while self.payload_bytes > PAYLOAD_BYTES && self.entries.len() > 1 {
            self.forget_oldest();
        }
    }

    /// Forgets one envelope, as if it had never come.
    pub(super) fn forget(&mut self, hash: &[u8; 32]) {
        if let Some(entry) = self.entries.remove(hash) {
            self.payload_bytes -= entry.replies.iter().flatten().map(bytes).sum::<usize>();
        }
    }

    /// The clock jumped: every time is another one.
    pub(super) fn shift(&mut self, shifted: impl Fn(Duration) -> Duration) {
        for (since, _) in &mut self.order {
            *since = shifted(*since);
        }
        for entry in self.entries.values_mut() {
            entry.since = shifted(entry.since);
            entry.asked = shifted(entry.asked);
        }
    }

    /// Forgets what is older than its age.
    pub(super) fn prune(&mut self, at: Duration, terms: Terms) {
        while self.order.front().is_some_and(|(since, _)| since.saturating_add(terms.age) <= at) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((since, hash)) = self.order.pop_front() else { return };
        // One that was forgotten and came again stands further behind.
        if self.entries.get(&hash).is_some_and(|entry| entry.since == since) {
            self.forget(&hash);
        }
    }
}

/// Answers with these codes come without a body, and a courier that has none acknowledges (§3.7).
fn has_body(code: u8) -> bool {
    !(INTERNAL_ERROR..=REPLICATION_FAILED).contains(&code)
}

fn bytes(reply: &Reply) -> usize {
    reply.1.as_ref().map_or(0, |sealed| sealed.payload.len())
}
