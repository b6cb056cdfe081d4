//! Who is woken when a channel has changed: those that watch it, and the engine.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::ChannelId;

/// Wake-ups after commits.
#[derive(Clone, Default)]
pub struct Changes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    watched: Mutex<HashMap<ChannelId, watch::Sender<u64>>>,
    touched: Mutex<BTreeSet<ChannelId>>,
    wake: Notify,
}

impl Changes {
    /// A receiver that changes with each commit that touches the channel.
    pub fn watch(&self, id: ChannelId) -> watch::Receiver<u64> {
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.entry(id).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The channels that were touched since the last call; waits until there are some. For one consumer: the engine.
    pub async fn touched(&self) -> Vec<ChannelId> {
        loop {
            let woken = self.0.wake.notified();
            let touched = std::mem::take(&mut *self.0.touched.lock().unwrap_or_else(PoisonError::into_inner));
            if !touched.is_empty() {
                return touched.into_iter().collect();
            }
            woken.await;
        }
    }

    pub(super) fn announce(&self, ids: &BTreeSet<ChannelId>) {
        if ids.is_empty() {
            return;
        }
        self.0.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        self.0.wake.notify_one();
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if let Some(sender) = watched.get(id) {
                if sender.receiver_count() == 0 {
                    watched.remove(id);
                } else {
                    sender.send_modify(|version| *version += 1);
                }
            }
        }
    }
}
