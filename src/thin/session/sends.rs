//! Legacy messages: each is put once at most, whatever happens to the connection.
//!
//! One with a reply is known by the id of its SURB: the daemon tells when it left, and gives the reply, also one that
//! came while we were away, as long as it knows the session. One without is never heard of again, so it is taken to lie in
//! the daemon's queue until a later request shows otherwise, or until the queue has had time for it at the network's pace
//! (`thin-client-protocol.md` §4.1, §4.8).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Answer, Id};
use crate::thin::message::{Octets, RequestFrame, SendMessage};
use crate::thin::{ErrorKind, frame};

/// What the sender of a legacy message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::thin) enum Awaits {
    /// Its way to the daemon; there is no reply.
    Nothing,
    /// The daemon's word that it left; the reply comes as an event.
    Sent,
    /// The reply.
    Reply,
}

/// How a legacy message went.
#[derive(Debug)]
pub(in crate::thin) enum Sending {
    HandedOver,
    Sent { surb_id: Id, reply_eta: Duration },
    Reply(Vec<u8>),
}

/// A legacy message on its way through the session.
pub(in crate::thin) struct Send {
    pub(in crate::thin) destination: [u8; 32],
    pub(in crate::thin) queue: Vec<u8>,
    pub(in crate::thin) payload: Vec<u8>,
    /// Under which its reply comes. With `None` the session makes one where a reply is awaited.
    pub(in crate::thin) surb_id: Option<Id>,
    pub(in crate::thin) awaits: Awaits,
    pub(in crate::thin) deadline: Instant,
    pub(in crate::thin) answer: Answer<Sending>,
    pub(in crate::thin) room: OwnedSemaphorePermit,
}

/// A message that was put and waits.
struct Put {
    awaits: Awaits,
    deadline: Instant,
    answer: Answer<Sending>,
    order: u64,
}

#[derive(Default)]
pub(super) struct Sends {
    unput: VecDeque<Send>,
    put: BTreeMap<Id, Put>,
    /// Places in the daemon's queue: by whose order, and until when at the latest.
    places: VecDeque<(u64, Instant, OwnedSemaphorePermit)>,
}

impl Sends {
    pub(super) fn insert(&mut self, send: Send) {
        self.unput.push_back(send);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unput.is_empty() && self.put.is_empty()
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.unput.is_empty()
    }

    /// Messages that the daemon's queue may hold.
    pub(super) fn queued(&self) -> usize {
        self.places.len()
    }

    /// The next message, as the `order`-th thing on this connection; its place is held until `until` at the latest.
    pub(super) fn next_frame(&mut self, surb_id: Id, order: u64, until: Instant) -> Option<Vec<u8>> {
        loop {
            let send = self.unput.pop_front()?;
            if send.answer.is_closed() {
                continue;
            }
            let awaited = send.awaits != Awaits::Nothing;
            let surb_id = send.surb_id.or(awaited.then_some(surb_id));
            let message = SendMessage {
                id: None,
                with_surb: surb_id.is_some(),
                // Never null with a SURB: a daemon was brought down by that.
                surbid: surb_id.map(Octets::from),
                destination_id_hash: Some(Octets::from(send.destination)),
                recipient_queue_id: Some(Octets::from(send.queue)),
                payload: Some(Octets::from(send.payload)),
            };
            let bytes = match frame::encode(&RequestFrame::from(message)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let _ = send.answer.send(Err(ErrorKind::InvalidArgument(error.to_string())));
                    continue;
                }
            };
            self.places.push_back((order, until, send.room));
            if let Some(surb_id) = surb_id.filter(|_| awaited) {
                let Send { awaits, deadline, answer, .. } = send;
                self.put.insert(surb_id, Put { awaits, deadline, answer, order });
            } else {
                let _ = send.answer.send(Ok(Sending::HandedOver));
            }
            return Some(bytes);
        }
    }

    /// The daemon told that a message left, or why not. Gives its place in the order of this connection.
    pub(super) fn sent(&mut self, surb_id: Id, reply_eta: Duration, error: Option<&str>) -> Option<u64> {
        let put = self.put.get(&surb_id)?;
        let order = put.order;
        if let Some(error) = error {
            let put = self.put.remove(&surb_id).expect("just seen");
            let _ = put.answer.send(Err(ErrorKind::NotSent(error.to_owned())));
        } else if put.awaits == Awaits::Sent {
            let put = self.put.remove(&surb_id).expect("just seen");
            let _ = put.answer.send(Ok(Sending::Sent { surb_id, reply_eta }));
        }
        Some(order)
    }

    pub(super) fn replied(&mut self, surb_id: Id, payload: &[u8]) {
        if let Some(put) = self.put.remove(&surb_id) {
            let outcome = match put.awaits {
                Awaits::Reply => Sending::Reply(payload.to_vec()),
                // The word that it left was lost, and it did leave.
                _ => Sending::Sent { surb_id, reply_eta: Duration::ZERO },
            };
            let _ = put.answer.send(Ok(outcome));
        }
    }

    /// What was put at `order` has been taken from the daemon's queue, and so has all before it.
    pub(super) fn taken(&mut self, order: u64) {
        self.places.retain(|(place, ..)| *place > order);
    }

    /// The connection is lost: the daemon's queue with it, and its word on what left.
    pub(super) fn lost(&mut self, why: &str) {
        self.places.clear();
        self.fail(|put| put.awaits == Awaits::Sent, &ErrorKind::Lost(why.to_owned()));
    }

    /// The session is another one: replies to the last one's messages will not come.
    pub(super) fn forgotten(&mut self) {
        let why = "the daemon does not know the session any more in which it was sent".to_owned();
        self.fail(|_| true, &ErrorKind::Lost(why));
    }

    fn fail(&mut self, which: impl Fn(&Put) -> bool, why: &ErrorKind) {
        let gone: Vec<Id> = self.put.iter().filter(|(_, put)| which(put)).map(|(&id, _)| id).collect();
        for put in gone.iter().filter_map(|id| self.put.remove(id)).collect::<Vec<_>>() {
            let _ = put.answer.send(Err(why.clone()));
        }
    }

    /// Ends what nobody waits for, or no longer; `unsent` says why an unsent one has not left.
    pub(super) fn expire(&mut self, now: Instant, unsent: impl Fn() -> ErrorKind) {
        self.places.retain(|(_, until, _)| *until > now);
        self.put.retain(|_, put| !put.answer.is_closed());
        self.unput.retain(|send| !send.answer.is_closed());
        self.fail(|put| put.deadline <= now, &ErrorKind::Timeout);
        for send in std::mem::take(&mut self.unput) {
            if send.deadline <= now {
                let _ = send.answer.send(Err(unsent()));
            } else {
                self.unput.push_back(send);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let put = self.put.values().map(|put| put.deadline);
        let unput = self.unput.iter().map(|send| send.deadline);
        put.chain(unput).chain(self.places.iter().map(|(_, until, _)| *until)).min()
    }

    pub(super) fn close(&mut self) {
        let unput = std::mem::take(&mut self.unput).into_iter().map(|send| send.answer);
        for answer in unput.chain(std::mem::take(&mut self.put).into_values().map(|put| put.answer)) {
            let _ = answer.send(Err(ErrorKind::Closed));
        }
        self.places.clear();
    }
}
