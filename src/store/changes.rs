//! Who is told that a channel changed: those who watch one, and the engine, which hears of all.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::ChannelId;

/// From how many watched channels on those that nobody watches any more are looked for.
const SWEEP_AT: usize = 256;

/// Wake-ups after commits. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    touched: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Every commit of the store that touched a channel has a number.
    commits: watch::Sender<u64>,
    /// The number of the last one that touched a drop.
    drops: watch::Sender<u64>,
    watched: HashMap<ChannelId, watch::Sender<u64>>,
    touched: BTreeSet<ChannelId>,
}

impl Changes {
    /// A receiver that changes after each commit that touched the channel, its removal included. Subscribe, then look,
    /// then wait: so no change is missed.
    pub fn watch(&self, id: ChannelId) -> watch::Receiver<u64> {
        let mut state = self.lock();
        if state.watched.len() >= SWEEP_AT {
            state.watched.retain(|_, sender| sender.receiver_count() > 0);
        }
        let commits = *state.commits.borrow();
        state.watched.entry(id).or_insert_with(|| watch::Sender::new(commits)).subscribe()
    }

    /// The same for a commit that touched any channel.
    pub fn watch_all(&self) -> watch::Receiver<u64> {
        self.lock().commits.subscribe()
    }

    /// The same for a commit that touched a drop, or a channel that is gone.
    pub fn watch_drops(&self) -> watch::Receiver<u64> {
        self.lock().drops.subscribe()
    }

    /// The channels that commits have touched since the last call, made and removed ones included; waits for the first.
    /// For one consumer. Dropping the future loses nothing.
    pub async fn touched(&self) -> Vec<ChannelId> {
        loop {
            let notified = self.0.touched.notified();
            let touched = std::mem::take(&mut self.lock().touched);
            if !touched.is_empty() {
                return touched.into_iter().collect();
            }
            notified.await;
        }
    }

    /// Tells those who watch the channel to look again, because of what no commit tells: a file of a drop that is no record.
    pub fn tell(&self, id: ChannelId) {
        self.publish(vec![id], true);
    }

    /// `drops`: one of them is a drop, or is gone.
    pub(super) fn publish(&self, touched: Vec<ChannelId>, drops: bool) {
        if touched.is_empty() {
            return;
        }
        let mut state = self.lock();
        let commits = *state.commits.borrow() + 1;
        state.commits.send_replace(commits);
        if drops {
            state.drops.send_replace(commits);
        }
        for id in &touched {
            if let Some(sender) = state.watched.get(id) {
                if sender.receiver_count() == 0 {
                    state.watched.remove(id);
                } else {
                    sender.send_replace(commits);
                }
            }
        }
        state.touched.extend(touched);
        drop(state);
        self.0.touched.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn touched_channels_are_told_once_and_together() {
        let changes = Changes::default();
        changes.publish(vec![ChannelId(2), ChannelId(1)], false);
        changes.publish(vec![ChannelId(2)], false);
        assert_eq!(changes.touched().await, [ChannelId(1), ChannelId(2)]);
        let later = changes.clone();
        let waiting = tokio::spawn(async move { later.touched().await });
        tokio::task::yield_now().await;
        changes.publish(vec![ChannelId(3)], false);
        assert_eq!(waiting.await.unwrap(), [ChannelId(3)]);
    }

    #[tokio::test]
    async fn a_watch_hears_of_its_own_channel_only() {
        let changes = Changes::default();
        let mut watch = changes.watch(ChannelId(1));
        changes.publish(vec![ChannelId(2)], false);
        assert!(!watch.has_changed().unwrap());
        changes.publish(vec![ChannelId(1)], false);
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        assert!(!watch.has_changed().unwrap());
    }

    #[test]
    fn a_watch_of_drops_hears_of_drops_only() {
        let changes = Changes::default();
        let mut watch = changes.watch_drops();
        changes.publish(vec![ChannelId(1)], false);
        assert!(!watch.has_changed().unwrap());
        changes.publish(vec![ChannelId(1), ChannelId(2)], true);
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        changes.tell(ChannelId(2));
        assert!(watch.has_changed().unwrap());
    }

    #[test]
    fn a_watch_of_all_hears_of_each() {
        let changes = Changes::default();
        let watch = changes.watch_all();
        changes.publish(vec![], false);
        assert!(!watch.has_changed().unwrap());
        changes.publish(vec![ChannelId(7)], false);
        assert!(watch.has_changed().unwrap());
    }

    #[test]
    fn watches_that_are_gone_are_swept() {
        let changes = Changes::default();
        for id in 0..1000 {
            drop(changes.watch(ChannelId(id)));
        }
        assert!(changes.lock().watched.len() <= SWEEP_AT);
    }
}
