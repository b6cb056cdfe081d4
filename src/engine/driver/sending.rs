//! The writers' side of the driver: what a sender says is done here.

use tracing::{error, warn};

use super::super::{shared, transfer};
use super::{Driver, Message, Writer};
use crate::channel::{Event, Fetched, Sender, SenderAction, SenderEvent, Time};
use crate::store::{Binding, BoxSeq, BoxState, Channel, ChannelId, NetworkId, Store, StoreError};

impl Driver {
    /// Makes the sender of a channel that has something to send.
    pub(super) fn start_sender(&mut self, channel: &Channel) {
        let id = channel.id;
        let age = channel.created.elapsed().unwrap_or_default();
        let not_before = self.linger.may_launch(self.now()).saturating_sub(age);
        // What was sealed before the store was opened, another life of this state sealed too. What was packed anew
        // since, it may not have.
        let untrusted_from = (!self.trusted.contains(&id)).then(|| match self.sealed_before.get(&id) {
            Some(&(sealed, rewrites)) if rewrites == channel.rewrites => BoxSeq(sealed),
            _ => BoxSeq(0),
        });
        let sender = Sender::new(channel.first_unstored, not_before, untrusted_from, channel.durability);
        self.scheduler.add_sender(id, sender);
        let writer = Writer { bound: false, fits: false, rewrites: channel.rewrites, durability: channel.durability };
        self.writers.insert(id, writer);
        self.fit(id);
    }

    /// Lets the sender go once the boxes that are not launched fit the network.
    pub(super) fn fit(&mut self, id: ChannelId) {
        let Some(network) = self.network.clone() else { return };
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        let mut commit = self.store.set_max_plaintext(id, network.max_plaintext);
        self.operations.spawn(async move {
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
        let found = self.store.outgoing_states(channel, from, limit).unwrap_or_else(|error| {
            error!(%error, "boxes could not be looked up");
            Vec::new()
        });
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
            return self.post(Message::Sender(id, SenderEvent::LaunchFailed { boxes }));
        };
        let Some(writer) = self.writers.get_mut(&id) else { return };
        let binding = (!std::mem::replace(&mut writer.bound, true)).then(|| network.id.clone());
        let rewrites = writer.rewrites;
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        self.operations.spawn(async move {
            let message = match launch(&store, binding, id, rewrites, &boxes).await {
                Ok(None) => Message::Sender(id, SenderEvent::Launched { boxes }),
                Ok(Some(refusal)) => Message::Refused(id, refusal),
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
        self.operations.spawn(async move {
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

    fn fence(&mut self, id: ChannelId, seq: BoxSeq, foreign: bool) {
        let reason = if foreign {
            format!("box {} of this channel holds what another writer wrote", seq.0)
        } else {
            let trouble = self.shared.trouble_of(id).unwrap_or_else(|| "it was refused".to_owned());
            format!("box {} cannot be written: {trouble}", seq.0)
        };
        error!(%reason, "the channel is fenced: nothing more is sent, what was accepted stays in the spool");
        self.shared.note(id, &reason);
        let store = self.store.clone();
        let mut commit = self.store.fence(id, reason.clone());
        self.operations.spawn(async move {
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

/// Binds the channel to the network where it has none yet, and commits that packets of these boxes may leave.
/// A refusal in words where the channel belongs to another network.
async fn launch(
    store: &Store,
    binding: Option<NetworkId>,
    id: ChannelId,
    rewrites: u64,
    boxes: &[BoxSeq],
) -> Result<Option<String>, StoreError> {
    if let Some(network) = binding
        && let Binding::Refused = store.bind_network(id, network).await?
    {
        return Ok(Some(shared::other_network()));
    }
    store.launch(id, rewrites, boxes.to_vec()).await?;
    Ok(None)
}
