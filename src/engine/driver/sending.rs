//! The writers' side of the driver: what a sender says is done here.

use tracing::{error, warn};

use super::super::{shared, transfer};
use super::{Driver, Message, Writer};
use crate::channel::{Event, Fetched, Foreign, Sender, SenderAction, SenderEvent, Time};
use crate::store::{Binding, BoxSeq, BoxState, Channel, ChannelId, StoreError};

impl Driver {
    /// Makes the sender of a channel that has something to send.
    pub(super) fn start_sender(&mut self, channel: &Channel) {
        let id = channel.id;
        let age = channel.created.elapsed().unwrap_or_default();
        let not_before = self.linger.may_launch(self.now()).saturating_sub(age);
        // What was launched before the store was opened, another life of this state launched too. What was not, it may
        // have taken back.
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
        let Some(network) = self.network.clone() else { return };
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        let mut commit = self.store.set_max_plaintext(id, network.max_plaintext);
        self.spawn(id, async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                warn!(%error, "a channel could not be fitted to the network's boxes; trying again");
                tokio::time::sleep(transfer::pause_before_retry(tries)).await;
                tries += 1;
                commit = store.set_max_plaintext(id, network.max_plaintext);
            }
            let _ = outbox.send(Message::Fits(id, (network.id.clone(), network.max_plaintext))).await;
        });
    }

    /// Does what a sender wants; what can be answered at once is.
    pub(super) fn sender_wants(&mut self, channel: ChannelId, action: SenderAction) -> Option<Event> {
        match action {
            SenderAction::Fetch { from, limit } => return Some(self.fetch(channel, from, limit)),
            SenderAction::Launch { boxes } => self.launch(channel, boxes),
            SenderAction::Confirm { seq } => self.confirm(channel, seq, BoxState::Stored),
            SenderAction::Courier { seq } => self.confirm(channel, seq, BoxState::Couriered),
            SenderAction::Trust => drop(self.trusted.insert(channel)),
            SenderAction::Fence { seq, foreign } => self.fence(channel, seq, foreign),
        }
        None
    }

    fn fetch(&mut self, channel: ChannelId, from: BoxSeq, limit: usize) -> Event {
        let found = match self.store.outgoing_states(channel, from, limit) {
            Ok(found) => found,
            Err(error) => {
                error!(%error, "boxes could not be looked up; trying again");
                self.shared.trouble(channel, Some(error.to_string()));
                return Event::Sender { channel, event: SenderEvent::FetchFailed };
            }
        };
        let now = self.now();
        let boxes = found.into_iter().map(|(seq, state, since)| {
            let age = since.and_then(|since| since.elapsed().ok()).unwrap_or_default();
            let fetched = match state {
                BoxState::Couriered => Fetched::Couriered { since: now.saturating_sub(age) },
                BoxState::Sealed => Fetched::Sealed,
                _ => Fetched::Launched,
            };
            (seq, fetched)
        });
        Event::Sender { channel, event: SenderEvent::Fetched { boxes: boxes.collect() } }
    }

    fn launch(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        let Some(network) = self.network.clone() else {
            return self.post(id, Message::Sender(id, SenderEvent::LaunchFailed { boxes }));
        };
        let Some(writer) = self.writers.get(&id) else { return };
        let commit = self.store.launch(id, writer.rewrites, boxes.clone(), network.id.clone());
        let outbox = self.outbox.clone();
        self.spawn(id, async move {
            let message = match commit.await {
                Ok(Binding::Refused) => Message::Refused(id, shared::other_network()),
                Ok(_) => Message::Sender(id, SenderEvent::Launched { boxes }),
                Err(error) => {
                    warn!(%error, "a launch could not be committed");
                    Message::Sender(id, SenderEvent::LaunchFailed { boxes })
                }
            };
            let _ = outbox.send(message).await;
        });
    }

    fn confirm(&mut self, id: ChannelId, seq: BoxSeq, state: BoxState) {
        let store = self.store.clone();
        let mut commit = self.store.confirm(id, vec![seq], state);
        self.spawn(id, async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                warn!(%error, "a confirmation could not be kept; trying again");
                tokio::time::sleep(transfer::pause_before_retry(tries)).await;
                tries += 1;
                commit = store.confirm(id, vec![seq], state);
            }
        });
    }

    fn fence(&mut self, id: ChannelId, seq: BoxSeq, foreign: Foreign) {
        let reason = match foreign {
            Foreign::Bytes => format!("box {} of this channel holds what another writer wrote", seq.0),
            Foreign::Tombstone => {
                format!("box {} of this channel was deleted by another writer, and takes no bytes any more", seq.0)
            }
        };
        error!(%reason, "the channel is fenced: nothing more is sent, what was accepted stays in the spool");
        self.shared.note(id, &reason);
        let store = self.store.clone();
        let mut commit = self.store.fence(id, reason.clone());
        self.spawn(id, async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                error!(%error, "the fence could not be kept; trying again");
                tokio::time::sleep(transfer::pause_before_retry(tries)).await;
                tries += 1;
                commit = store.fence(id, reason.clone());
            }
        });
    }

    /// When the tail of a channel is due, by its linger.
    pub(super) fn seal_due(&self, id: ChannelId) -> Option<Time> {
        self.tails.get(&id).map(|tail| self.linger.due(tail.first, tail.last))
    }
}
