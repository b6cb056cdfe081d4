//! The readers' side of the driver: what a receiver says is done here.

use tracing::error;

use super::super::shared;
use super::{Driver, Message};
use crate::channel::{Event, ReceiverAction};
use crate::store::{Arrival, Binding, BoxSeq, Channel, ChannelId};

impl Driver {
    /// Takes a reader's channel in. Without a verdict a person may be waiting, so that it is probed at once; with one there
    /// is no hurry, and mounting is no burst.
    pub(super) fn start_receiver(&mut self, channel: &Channel) {
        let prompt = channel.verdict.is_none() || self.prompt;
        self.scheduler.add_receiver(self.now(), channel.id, prompt);
        self.plan_shown(channel.id);
    }

    /// Where a channel stands that is to be probed.
    pub(super) fn load(&mut self, channel: ChannelId) -> Event {
        let found = match self.store.channel(channel) {
            Ok(Some(found)) if !found.paused && found.fence.is_none() && !self.shared.refuses(&found) => found,
            Ok(_) => return Event::NotLoaded { channel },
            Err(error) => {
                error!(%error, "a channel could not be looked up");
                return Event::NotLoaded { channel };
            }
        };
        let arrived = match self.store.arrived_past(channel, found.frontier) {
            Ok(arrived) => arrived,
            Err(error) => {
                error!(%error, "the boxes of a channel could not be looked up");
                return Event::NotLoaded { channel };
            }
        };
        Event::Loaded { channel, frontier: found.frontier, lost_end: found.lost_end, arrived }
    }

    pub(super) fn receiver_wants(&mut self, channel: ChannelId, action: ReceiverAction) {
        let record = match action {
            ReceiverAction::Record { seq } => self.held.remove(&(channel, seq)).map(|arrival| (seq, arrival)),
            ReceiverAction::Verdict { seq } => Some((seq, Arrival::NotYet)),
        };
        if let Some(record) = record {
            self.record(channel, vec![record]);
        }
    }

    fn record(&mut self, id: ChannelId, records: Vec<(BoxSeq, Arrival)>) {
        let has_box = records.iter().any(|(_, arrival)| !matches!(arrival, Arrival::NotYet));
        // Submitted here and not in the task, so that the records of one channel keep their order. An answer may come
        // when its network has just gone: it is recorded all the same, as the machine counts on it.
        let bind = (has_box && !self.bound.contains(&id))
            .then(|| self.known.as_ref().map(|(network, _)| self.store.bind_network(id, network.clone())))
            .flatten();
        let commit = self.store.received(id, records);
        let outbox = self.outbox.clone();
        self.spawn(id, async move {
            if let Some(bind) = bind {
                match bind.await {
                    Ok(Binding::Refused) => {
                        let _ = outbox.send(Message::Refused(id, shared::other_network())).await;
                    }
                    Ok(_) => drop(outbox.send(Message::Bound(id)).await),
                    Err(_) => {}
                }
            }
            if let Err(error) = commit.await {
                let _ = outbox.send(Message::NotRecorded(id, error)).await;
            }
        });
    }
}
