//! Channels that we write.

use std::time::Duration;

use super::commits::Request;
use super::{Action, Delivery, Shown};
use crate::channel::{Foreign, Sender, SenderAction, SenderEvent, Time};
use crate::model::{BoxSeq, BoxState, Channel, ChannelId, Durability, NetworkId};

/// What is known of a channel that has a sender.
pub(super) struct Writer {
    /// Whether its boxes fit the present network.
    pub(super) fits: bool,
    /// The channel's count of rewrites when its sender was made: its boxes are of that packing.
    rewrites: u64,
    durability: Durability,
}

/// A tail box that is open: when its first and its newest byte came.
#[derive(Clone, Copy)]
pub(super) struct Tail {
    first: Time,
    last: Time,
    size: u64,
}

impl Delivery {
    pub(super) fn writer_found(&mut self, now: Time, channel: &Channel, age: Duration) {
        let id = channel.id;
        self.watch_tail(now, channel);
        if let Some(writer) = self.writers.get(&id)
            && (writer.rewrites != channel.rewrites || writer.durability != channel.durability)
        {
            // Truncated or packed anew: what was looked up before is no longer what the store holds.
            self.stop(id);
        }
        if channel.boxes > channel.stored_boxes && !channel.is_at_home() {
            if !self.writers.contains_key(&id) {
                self.start_sender(now, channel, age);
            }
            self.tell_sender(now, id, SenderEvent::Queued);
        }
    }

    /// Makes the sender of a channel that has something to send.
    fn start_sender(&mut self, now: Time, channel: &Channel, age: Duration) {
        let id = channel.id;
        let not_before = self.linger.may_launch(now).saturating_sub(age);
        let launched = self.launched_before.get(&id).copied().unwrap_or_default();
        let untrusted_from = (!self.trusted.contains(&id)).then_some(launched);
        let sender = Sender::new(channel.first_unstored, not_before, untrusted_from, channel.durability);
        self.scheduler.add_sender(id, sender);
        let writer = Writer { fits: false, rewrites: channel.rewrites, durability: channel.durability };
        self.writers.insert(id, writer);
        self.fit(id);
    }

    /// Lets the sender go once the boxes that are not launched fit the network.
    pub(super) fn fit(&mut self, id: ChannelId) {
        if let Some(network) = self.networks.values().next() {
            let max_plaintext = network.max_plaintext;
            self.commit(id, Request::Fit { max_plaintext });
        }
    }

    pub(super) fn fits(&mut self, now: Time, id: ChannelId, of: Option<(NetworkId, usize)>) {
        if self.known == of
            && let Some(writer) = self.writers.get_mut(&id)
        {
            writer.fits = true;
            let online = !self.networks.is_empty();
            self.tell_sender(now, id, SenderEvent::Online(online));
        }
    }

    pub(super) fn sender_wants(&mut self, id: ChannelId, action: SenderAction) {
        match action {
            SenderAction::Fetch { from, limit } => self.actions.push(Action::Fetch { channel: id, from, limit }),
            SenderAction::Launch { boxes } => self.launch(id, boxes),
            SenderAction::Confirm { seq } => self.commit(id, Request::Confirm { seq, to: BoxState::Stored }),
            SenderAction::Courier { seq } => self.commit(id, Request::Confirm { seq, to: BoxState::Couriered }),
            SenderAction::Trust => drop(self.trusted.insert(id)),
            SenderAction::Fence { seq, foreign } => self.fence(id, seq, foreign),
        }
    }

    fn launch(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        let (Some((network, _)), Some(writer)) = (&self.known, self.writers.get(&id)) else { return };
        let request = Request::Launch { rewrites: writer.rewrites, boxes, network: network.clone() };
        self.commit(id, request);
    }

    fn fence(&mut self, id: ChannelId, seq: BoxSeq, foreign: Foreign) {
        let reason = match foreign {
            Foreign::Bytes => format!("box {} of this channel holds what another writer wrote", seq.0),
            Foreign::Tombstone => {
                format!("box {} of this channel was deleted by another writer, and takes no bytes any more", seq.0)
            }
        };
        self.show(id, Shown::Note(reason.clone()));
        self.commit(id, Request::Fence { reason });
    }

    fn watch_tail(&mut self, now: Time, channel: &Channel) {
        if let Some(due) = self.seal_due(channel.id) {
            self.seals.remove(&(due, channel.id));
        }
        if channel.tail_bytes == 0 {
            self.tails.remove(&channel.id);
            return;
        }
        let tail = self.tails.entry(channel.id).or_insert(Tail { first: now, last: now, size: channel.size });
        if tail.size != channel.size {
            // A box that was filled and sealed since leaves a tail whose first byte is newer than we know.
            if channel.size.checked_sub(tail.size).is_none_or(|more| more >= channel.tail_bytes) {
                tail.first = now;
            }
            tail.last = now;
            tail.size = channel.size;
        }
        self.seals.extend(self.seal_due(channel.id).map(|due| (due, channel.id)));
    }

    pub(super) fn forget_tail(&mut self, id: ChannelId) {
        if let Some(due) = self.seal_due(id) {
            self.seals.remove(&(due, id));
        }
        self.tails.remove(&id);
    }

    /// When the tail of a channel is due, by its linger.
    fn seal_due(&self, id: ChannelId) -> Option<Time> {
        self.tails.get(&id).map(|tail| self.linger.due(tail.first, tail.last))
    }
}
