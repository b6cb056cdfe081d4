//! Operations that nobody waits for any more and that the daemon may still have.
//!
//! A daemon cancels only what it has taken from the queue of the connection; what still waits there starts later,
//! un-cancelled, and the reply to the cancel does not tell (`thin-client-protocol.md` §4.4). So the operation is
//! remembered until its end was heard (its own reply, or the 24 of a cancel), until a later request of the same
//! connection shows that it had been taken and one more cancel is answered, or until it was cancelled often enough. As
//! long, it keeps its place among the sixteen that the queue holds.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{CancelKey, Id};
use crate::thin::message::RequestFrame;

/// More are forgotten, the oldest first. A connection has at most sixteen; the others are of earlier ones.
const MOST: usize = 64;
/// The last pauses between two cancels: 1, 2, 4 … 60 s, some four minutes in all.
const TRIES: u32 = 9;
/// Those that are left after a reconnect: queues of a lost connection are lost with it.
const TRIES_AFTERWARDS: u32 = 3;

struct Tombstone {
    key: CancelKey,
    /// Under which it was put.
    id: Id,
    order: u64,
    /// Its place in the daemon's queue.
    room: Option<OwnedSemaphorePermit>,
    /// The cancel that is unanswered, and whether its answer is the last word.
    asked: Option<(Id, bool)>,
    /// When it is cancelled again.
    next: Option<Instant>,
    tries: u32,
    /// Whether it is known to have been taken from the queue.
    taken: bool,
}

#[derive(Default)]
pub(super) struct Tombstones(Vec<Tombstone>);

impl Tombstones {
    /// Remembers an operation that was put under `id`, and cancels it from `now` on.
    pub(super) fn bury(
        &mut self,
        key: CancelKey,
        id: Id,
        order: u64,
        room: Option<OwnedSemaphorePermit>,
        now: Instant,
    ) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Tombstone { key, id, order, room, asked: None, next: Some(now), tries: 0, taken: false });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Its own reply was heard, whatever it says. Whether it was one of these.
    pub(super) fn ended(&mut self, id: &Id) -> bool {
        let before = self.0.len();
        self.0.retain(|stone| stone.id != *id);
        self.0.len() != before
    }

    /// A cancel of these was answered.
    pub(super) fn answered(&mut self, id: &Id, now: Instant) {
        let Some(at) = self.0.iter().position(|stone| stone.asked.is_some_and(|(asked, _)| asked == *id)) else {
            return;
        };
        let stone = &mut self.0[at];
        match stone.asked.take() {
            Some((_, true)) => drop(self.0.remove(at)),
            _ if stone.taken => stone.next = Some(now),
            _ if stone.tries >= TRIES => drop(self.0.remove(at)),
            _ => {
                let pause = Duration::from_secs(1 << (stone.tries - 1).min(6));
                stone.next = Some(now + pause.min(Duration::from_secs(60)));
            }
        }
    }

    /// What was put at `order` on this connection has been taken from the queue, and so has all before it.
    pub(super) fn taken(&mut self, order: u64, now: Instant) {
        for stone in self.0.iter_mut().filter(|stone| stone.order < order && !stone.taken) {
            stone.taken = true;
            if stone.asked.is_none() {
                stone.next = Some(now);
            }
        }
    }

    /// Another connection, whose queue has none of these.
    pub(super) fn reconnected(&mut self, now: Instant) {
        for stone in &mut self.0 {
            stone.room = None;
            stone.asked = None;
            stone.order = 0;
            stone.taken = false;
            stone.tries = TRIES - TRIES_AFTERWARDS;
            stone.next = Some(now);
        }
    }

    /// The connection is lost, and its queue with it.
    pub(super) fn lost(&mut self) {
        for stone in &mut self.0 {
            stone.room = None;
            stone.asked = None;
            stone.next = None;
        }
    }

    /// The operation is started again: gives the id that the earlier start may still answer under, and its place.
    pub(super) fn rise(&mut self, key: CancelKey) -> Option<(Id, Option<OwnedSemaphorePermit>)> {
        let at = self.0.iter().position(|stone| stone.key == key)?;
        let stone = self.0.remove(at);
        Some((stone.id, stone.room))
    }

    /// The cancel that is due. Where the daemon takes nothing from its queue, only a first one is.
    pub(super) fn due(&mut self, now: Instant, mixnet: bool, random: &mut StdRng) -> Option<RequestFrame> {
        for stone in &mut self.0 {
            if stone.next.is_some_and(|next| next <= now) {
                if !mixnet && stone.tries > 0 && !stone.taken {
                    stone.next = Some(now + Duration::from_secs(5));
                    continue;
                }
                stone.next = None;
                stone.tries += 1;
                let id = random.random();
                stone.asked = Some((id, stone.taken));
                return Some(stone.key.request(id));
            }
        }
        None
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|stone| stone.next).min()
    }
}
