//! The writers' side of the driver: what a sender says is done here.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::super::network::Network;
use super::super::{shared, transfer};
use super::{Driver, Machine, Message, Writer};
use crate::bacap::WriteCap;
use crate::channel::{Outcome, Sender, SenderAction, SenderEvent};
use crate::store::{Binding, BoxSeq, BoxState, Capability, Channel, ChannelId, NetworkId, OutBox, Store, StoreError};

impl Driver {
    /// The sender of a channel that has something to send; made when there is none.
    pub(super) fn writer(&mut self, channel: &Channel) -> Option<&mut Writer> {
        let id = channel.id;
        if !self.machines.contains_key(&id) {
            let cap = match self.store.cap(id) {
                Ok(Capability::Write(cap)) => Arc::new(cap),
                Ok(Capability::Read(_)) => return None,
                Err(error) => {
                    error!(%error, "a capability could not be loaded");
                    return None;
                }
            };
            let age = channel.created.elapsed().unwrap_or_default();
            let not_before = self.linger.may_launch(self.now()).saturating_sub(age);
            let machine = Sender::new(BoxSeq(0), not_before);
            self.machines.insert(
                id,
                Machine::Writer(Writer {
                    machine,
                    cap,
                    boxes: BTreeMap::new(),
                    bound: false,
                    rewrites: channel.rewrites,
                }),
            );
            self.prepare(id);
        }
        match self.machines.get_mut(&id) {
            Some(Machine::Writer(writer)) => Some(writer),
            _ => None,
        }
    }

    /// Lets the sender go once the boxes that are not launched fit the network.
    pub(super) fn prepare(&mut self, id: ChannelId) {
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
            let _ = outbox.send(Message::Prepared(id)).await;
        });
    }

    pub(super) fn drive_sender(&mut self, id: ChannelId, event: SenderEvent) {
        let now = self.now();
        let mut events = vec![event];
        let mut confirmed = Vec::new();
        while let Some(event) = events.pop() {
            let window = self.pace().window_boxes();
            let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) else { return };
            writer.machine.set_window(window);
            for action in writer.machine.handle(now, event) {
                match action {
                    SenderAction::Fetch { from, limit } => events.push(self.fetch(id, from, limit)),
                    SenderAction::Launch { boxes } => self.launch(id, boxes),
                    SenderAction::Send { seq } => self.send(id, seq),
                    SenderAction::ReadBack { seq } => self.read_back(id, seq),
                    SenderAction::Confirm { seq } => confirmed.push(seq),
                    SenderAction::Fence { seq, foreign } => self.fence(id, seq, foreign),
                }
            }
        }
        if !confirmed.is_empty() {
            self.confirm(id, confirmed);
        }
    }

    pub(super) fn fetch(&mut self, id: ChannelId, from: BoxSeq, limit: usize) -> SenderEvent {
        let boxes = self.store.outgoing(id, from, limit).unwrap_or_else(|error| {
            error!(%error, "boxes could not be looked up");
            Vec::new()
        });
        let told = boxes.iter().map(|out| (out.seq, out.state != BoxState::Sealed)).collect();
        if let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) {
            writer.boxes.extend(boxes.into_iter().map(|out| (out.seq, Arc::new(out))));
        }
        SenderEvent::Fetched { boxes: told }
    }

    pub(super) fn launch(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        let Some(network) = self.network.clone() else {
            return self.post(Message::Sender(id, SenderEvent::LaunchFailed { boxes }));
        };
        let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) else { return };
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

    pub(super) fn send(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some((network, cap, out)) = self.sending(id, seq) else { return };
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            let written = transfer::write(&network, &cap, &out.index, &out.payload).await;
            if let Some(trouble) = &written.trouble {
                debug!(?seq, %trouble, "a write did not end well");
            }
            let _ = outbox.send(Message::Trouble(id, written.trouble)).await;
            let event = SenderEvent::Ended { seq, outcome: written.outcome };
            let _ = outbox.send(Message::Sender(id, event)).await;
        });
    }

    pub(super) fn read_back(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some((network, cap, out)) = self.sending(id, seq) else { return };
        let outbox = self.outbox.clone();
        info!(?seq, "the box's index is occupied; reading it back");
        self.operations.spawn(async move {
            let found = transfer::read_back(&network, &cap, &out.index, &out.payload).await;
            let _ = outbox.send(Message::Sender(id, SenderEvent::WasRead { seq, found })).await;
        });
    }

    /// What a write of this box needs; where the network has just gone, the machine is told that it did not work.
    pub(super) fn sending(&mut self, id: ChannelId, seq: BoxSeq) -> Option<(Arc<Network>, Arc<WriteCap>, Arc<OutBox>)> {
        let Some(Machine::Writer(writer)) = self.machines.get(&id) else { return None };
        let (cap, out) = (Arc::clone(&writer.cap), Arc::clone(writer.boxes.get(&seq)?));
        match self.network.clone() {
            Some(network) => Some((network, cap, out)),
            None => {
                self.post(Message::Sender(id, SenderEvent::Ended { seq, outcome: Outcome::Again }));
                None
            }
        }
    }

    pub(super) fn confirm(&mut self, id: ChannelId, boxes: Vec<BoxSeq>) {
        if let Some(Machine::Writer(writer)) = self.machines.get_mut(&id) {
            for seq in &boxes {
                writer.boxes.remove(seq);
            }
        }
        let store = self.store.clone();
        let mut commit = self.store.confirm(id, boxes.clone(), BoxState::Stored);
        self.operations.spawn(async move {
            let mut tries = 0;
            while let Err(error) = commit.await {
                if matches!(error, StoreError::NoChannel) {
                    return;
                }
                warn!(%error, "a confirmation could not be kept; trying again");
                tokio::time::sleep(transfer::pause_before_retry(tries)).await;
                tries += 1;
                commit = store.confirm(id, boxes.clone(), BoxState::Stored);
            }
        });
    }

    pub(super) fn fence(&mut self, id: ChannelId, seq: BoxSeq, foreign: bool) {
        let reason = if foreign {
            format!("box {} of this channel holds what another writer wrote", seq.0)
        } else {
            let trouble = self.shared.trouble_of(id).unwrap_or_else(|| "it was refused".to_owned());
            format!("box {} cannot be written: {trouble}", seq.0)
        };
        error!(%reason, "the channel is fenced: nothing more is sent, what was accepted stays in the spool");
        self.shared.note(id, &reason);
        let commit = self.store.fence(id, reason);
        self.operations.spawn(async move {
            if let Err(error) = commit.await {
                error!(%error, "the fence could not be kept; the next start meets the same box again");
            }
        });
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
