//! The readers' side of the driver: what a receiver says is done here.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::error;

use super::super::shared;
use super::super::transfer::{self, Found};
use super::{Driver, Machine, Message, Reader};
use crate::bacap::BoxIndex;
use crate::channel::{Answer, Receiver, ReceiverAction, ReceiverEvent, Time};
use crate::store::{Arrival, Binding, BoxSeq, Capability, Channel, ChannelId, Store, StoreError};

impl Driver {
    pub(super) fn start_receiver(&mut self, channel: &Channel, at: Time) {
        let id = channel.id;
        let cap = match self.store.cap(id) {
            Ok(Capability::Read(cap)) => Arc::new(cap),
            Ok(Capability::Write(_)) => return,
            Err(error) => return error!(%error, "a capability could not be loaded"),
        };
        let arrived = self.store.arrived_past(id, channel.frontier).unwrap_or_default();
        let machine = Receiver::new(channel.frontier, arrived, at, &self.pace());
        self.machines.insert(id, Machine::Reader(Reader { machine, cap, held: BTreeMap::new() }));
        if self.network.is_some() {
            self.drive_receiver(id, ReceiverEvent::Online(true));
        }
    }

    pub(super) fn drive_receiver(&mut self, id: ChannelId, event: ReceiverEvent) {
        let now = self.now();
        let pace = self.pace();
        let Some(Machine::Reader(reader)) = self.machines.get_mut(&id) else { return };
        reader.machine.set_pace(&pace);
        let actions = reader.machine.handle(now, rand::random(), event);
        let mut records = Vec::new();
        for action in actions {
            match action {
                ReceiverAction::Ask { seq } => self.ask(id, seq),
                ReceiverAction::Record { seq } => {
                    if let Some(Machine::Reader(reader)) = self.machines.get_mut(&id)
                        && let Some(arrival) = reader.held.remove(&seq)
                    {
                        records.push((seq, arrival));
                    }
                }
                ReceiverAction::Verdict { seq } => records.push((seq, Arrival::NotYet)),
            }
        }
        if !records.is_empty() {
            self.record(id, records);
        }
    }

    pub(super) fn ask(&mut self, id: ChannelId, seq: BoxSeq) {
        let Some(Machine::Reader(reader)) = self.machines.get(&id) else { return };
        let Some(network) = self.network.clone() else {
            return self.post(Message::Arrived(id, seq, Found::Unknown("the network is away".to_owned())));
        };
        let (store, outbox, cap) = (self.store.clone(), self.outbox.clone(), Arc::clone(&reader.cap));
        self.operations.spawn(async move {
            let found = match wanted(&store, id, seq) {
                Ok(index) => transfer::read(&network, &cap, &index).await,
                Err(trouble) => Found::Unknown(trouble),
            };
            let _ = outbox.send(Message::Arrived(id, seq, found)).await;
        });
    }

    pub(super) fn record(&mut self, id: ChannelId, records: Vec<(BoxSeq, Arrival)>) {
        let has_box = records.iter().any(|(_, arrival)| !matches!(arrival, Arrival::NotYet));
        // Submitted here and not in the task, so that the records of one channel keep their order. An answer may come
        // when its network has just gone: it is recorded all the same, as the machine counts on it.
        let bind =
            self.known.as_ref().filter(|_| has_box).map(|(network, _)| self.store.bind_network(id, network.clone()));
        let commit = self.store.received(id, records);
        let outbox = self.outbox.clone();
        self.operations.spawn(async move {
            if let Some(bind) = bind
                && let Ok(Binding::Refused) = bind.await
            {
                let _ = outbox.send(Message::Refused(id, shared::other_network())).await;
            }
            if let Err(error) = commit.await {
                let _ = outbox.send(Message::Recorded(id, Err(error))).await;
            }
        });
    }

    pub(super) fn hold(&mut self, id: ChannelId, seq: BoxSeq, arrival: Arrival) -> Answer {
        self.shared.trouble(id, None);
        if let Some(Machine::Reader(reader)) = self.machines.get_mut(&id) {
            reader.held.insert(seq, arrival);
        }
        Answer::Arrived
    }
}

/// The index of a box that is to be asked for; in words, why it is not.
fn wanted(store: &Store, id: ChannelId, seq: BoxSeq) -> Result<BoxIndex, String> {
    let told = |error: StoreError| error.to_string();
    match store.channel(id).map_err(told)? {
        Some(channel) if channel.paused => {
            Err("the cache is full, so nothing more is fetched: make room with `pigeonfs trim`".to_owned())
        }
        _ => store.index_of(id, seq).map_err(told),
    }
}
