//! Operations on their way: each envelope made, and each sent, in a task that comes back with a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::super::transfer::{self, Ending, Parcel};
use super::{Driver, Message};
use crate::channel::{Answer, End, Event, Line, Operation, OperationId, Outcome, ReadBack, Time};
use crate::store::{BoxSeq, Capability, ChannelId, Store, StoreError};
use crate::thin::Envelope;

/// Capabilities that are kept at hand; all of them go when there are more.
const CAPABILITIES: usize = 256;

/// Envelopes that wait for their turn, and whose they are. The scheduler bounds them.
pub(super) type Prepared = HashMap<OperationId, (Arc<Parcel>, Envelope)>;

/// Where an operation belongs.
#[derive(Clone, Copy)]
pub(super) struct Errand {
    pub(super) operation: OperationId,
    pub(super) channel: ChannelId,
    pub(super) seq: BoxSeq,
}

impl Driver {
    pub(super) fn prepare(&mut self, errand: Errand, what: Operation, crypto: usize) {
        let Some(network) = self.network.clone() else {
            return self
                .post(errand.channel, Message::Ended(errand, Ending::vain(what, "the network is away".to_owned())));
        };
        let cap = match self.cap(errand.channel) {
            Ok(cap) => cap,
            Err(error) => {
                return self.post(errand.channel, Message::Ended(errand, Ending::vain(what, error.to_string())));
            }
        };
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        let deadline = self.deadline();
        self.spawn(errand.channel, async move {
            let begun = network.admit(&store, errand.channel).map_err(|refusal| refusal.to_string());
            let message = match begun.and_then(|pass| Ok((pass, parcel(&store, errand, what, cap)?))) {
                Err(trouble) => Message::Ended(errand, Ending::vain(what, trouble)),
                Ok((pass, parcel)) => {
                    match transfer::prepare(&parcel, &pass.crypto(crypto), Instant::now() + deadline).await {
                        Ok(envelope) => Message::Prepared(errand, Box::new((Arc::new(parcel), envelope))),
                        Err(ending) => Message::Ended(errand, ending),
                    }
                }
            };
            let _ = outbox.send(message).await;
        });
    }

    pub(super) fn transmit(&mut self, operation: OperationId, line: Line) {
        let Some(errand) = self.errands.get(&operation).copied() else { return };
        let Some((parcel, envelope)) = self.prepared.remove(&operation) else { return };
        let Some(network) = self.network.clone() else {
            return self.post(
                errand.channel,
                Message::Ended(errand, Ending::vain(parcel.what, "the network is away".to_owned())),
            );
        };
        let pass = match network.admit(&self.store, errand.channel) {
            Ok(pass) => pass,
            Err(refusal) => {
                return self
                    .post(errand.channel, Message::Ended(errand, Ending::vain(parcel.what, refusal.to_string())));
            }
        };
        let (outbox, deadline) = (self.outbox.clone(), self.deadline());
        self.spawn(errand.channel, async move {
            let traffic = pass.traffic(line);
            let ending = transfer::transmit(&parcel, &envelope, &traffic, Instant::now() + deadline).await;
            let _ = outbox.send(Message::Ended(errand, ending)).await;
        });
    }

    pub(super) fn close_second(&mut self) {
        let Some(network) = self.network.clone() else { return };
        self.operations.spawn(async move { network.close_second().await });
    }

    /// An operation has ended: its result goes to the machines, unless they have forgotten it.
    pub(super) fn operation_ended(&mut self, errand: Errand, ending: Ending) {
        self.errands.remove(&errand.operation);
        self.prepared.remove(&errand.operation);
        if !self.scheduler.is_under_way(errand.operation) {
            return;
        }
        let Errand { operation, channel, seq } = errand;
        let Ending { end, arrival, trouble } = ending;
        if let Some(trouble) = &trouble {
            debug!(%channel, %seq, %trouble, "an operation did not end well");
        }
        let counts = matches!(
            end,
            End::Written(Outcome::Stored | Outcome::Couriered)
                | End::WasRead(ReadBack::Ours)
                | End::Answered(Answer::Arrived)
        );
        self.shared.trouble(channel, trouble);
        if counts {
            self.shared.count_box(channel);
        }
        if let Some(arrival) = arrival {
            self.held.insert((channel, seq), arrival);
        }
        self.tell(Event::Ended { operation, end });
    }

    pub(super) fn envelope_made(&mut self, errand: Errand, made: (Arc<Parcel>, Envelope)) {
        let operation = errand.operation;
        if self.scheduler.is_under_way(operation) {
            self.prepared.insert(operation, made);
            self.tell(Event::Prepared { operation });
        }
    }

    /// What belongs to operations that the scheduler has forgotten.
    pub(super) fn drop_forgotten(&mut self, channel: ChannelId) {
        self.errands.retain(|_, errand| errand.channel != channel);
        self.prepared.retain(|operation, _| self.errands.contains_key(operation));
        self.held.retain(|(of, _), _| *of != channel);
        self.caps.remove(&channel);
    }

    fn cap(&mut self, channel: ChannelId) -> Result<Arc<Capability>, StoreError> {
        if let Some(cap) = self.caps.get(&channel) {
            return Ok(Arc::clone(cap));
        }
        let cap = Arc::new(self.store.cap(channel)?);
        if self.caps.len() >= CAPABILITIES {
            self.caps.clear();
        }
        self.caps.insert(channel, Arc::clone(&cap));
        Ok(cap)
    }

    fn deadline(&self) -> Duration {
        self.scheduler.pace().operation_deadline()
    }

    /// A time of the machines as this process' own.
    pub(super) fn instant(&self, at: Time) -> Instant {
        self.epoch + at
    }
}

/// What an operation takes from the store; in words, why it is not to be done.
fn parcel(store: &Store, errand: Errand, what: Operation, cap: Arc<Capability>) -> Result<Parcel, String> {
    let told = |error: StoreError| error.to_string();
    let Errand { channel, seq, .. } = errand;
    if what == Operation::Read {
        return match store.channel(channel).map_err(told)? {
            Some(channel) if channel.paused => {
                Err("the cache is full, so nothing more is fetched: make room with `pigeonfs trim`".to_owned())
            }
            _ => {
                let index = store.index_of(channel, seq).map_err(told)?;
                Ok(Parcel { what, cap, index, payload: Vec::new() })
            }
        };
    }
    let out = store.outgoing(channel, seq, 1).map_err(told)?.pop().filter(|out| out.seq == seq);
    let out = out.ok_or_else(|| format!("box {seq} is stored, or gone"))?;
    Ok(Parcel { what, cap, index: out.index, payload: out.payload })
}
