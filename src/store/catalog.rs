//! What each channel is, in memory: loaded when the store opens, and changed by the one function that commits.
//!
//! Most of what a file system is asked is how channels stand: their names, sizes, times. Nobody else changes the
//! database, so a query would only find what the writer thread knew when it committed. What enters here are rows that
//! were read inside the transaction that wrote them; boxes and capabilities never do. It takes some 500 bytes a channel.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::UNIX_EPOCH;

use super::{Channel, ChannelId, ChannelName, Limits, Role, StoreError, Usage};

/// All channels as the last commit left them.
pub(super) struct Catalog {
    limits: Limits,
    state: RwLock<State>,
}

struct State {
    channels: HashMap<ChannelId, Channel>,
    /// For each channel the number of the last commit that touched it.
    versions: HashMap<ChannelId, u64>,
    commits: u64,
    names: BTreeMap<ChannelName, ChannelId>,
    usage: Usage,
    closed: bool,
}

/// What a transaction changes here, once it is committed.
pub(super) struct News {
    /// Channels that it touched; `None` is one that it removed.
    pub(super) channels: Vec<(ChannelId, Option<Channel>)>,
    pub(super) usage: Usage,
}

impl Catalog {
    pub(super) fn new(limits: Limits) -> Self {
        let usage = Usage { spool_bytes: 0, cache_bytes: 0, sent_bytes: 0, listing_changed: UNIX_EPOCH };
        let state = State {
            channels: HashMap::new(),
            versions: HashMap::new(),
            commits: 0,
            names: BTreeMap::new(),
            usage,
            closed: false,
        };
        Self { limits, state: RwLock::new(state) }
    }

    /// Takes what was committed, before anybody is told of the commit.
    pub(super) fn take(&self, news: News) {
        let mut state = self.change();
        state.usage = news.usage;
        state.commits += 1;
        let version = state.commits;
        // Old names go first: two channels may have taken each other's.
        for (id, _) in &news.channels {
            if let Some(old) = state.channels.remove(id) {
                state.names.remove(&old.name);
            }
        }
        for (id, channel) in news.channels {
            match channel {
                Some(channel) => {
                    state.names.insert(channel.name.clone(), id);
                    state.channels.insert(id, channel);
                    state.versions.insert(id, version);
                }
                None => drop(state.versions.remove(&id)),
            }
        }
    }

    /// Takes what the database holds after it was opened anew, in place of what was known. Says which channels there are
    /// or were.
    pub(super) fn replace(&self, news: News) -> Vec<ChannelId> {
        let mut state = self.change();
        let mut ids: Vec<_> = state.channels.keys().copied().chain(news.channels.iter().map(|(id, _)| *id)).collect();
        ids.sort_unstable();
        ids.dedup();
        state.usage = news.usage;
        state.names.clear();
        state.channels.clear();
        for (id, channel) in news.channels {
            if let Some(channel) = channel {
                state.names.insert(channel.name.clone(), id);
                state.channels.insert(id, channel);
            }
        }
        ids
    }

    /// All channels there are.
    pub(super) fn ids(&self) -> Vec<ChannelId> {
        self.change().channels.keys().copied().collect()
    }

    pub(super) fn close(&self) {
        let mut state = self.change();
        state.closed = true;
        state.channels = HashMap::new();
        state.names = BTreeMap::new();
    }

    pub(super) fn version(&self, id: ChannelId) -> Result<Option<u64>, StoreError> {
        Ok(self.look()?.versions.get(&id).copied())
    }

    /// Whether one of these is a drop, or is gone.
    pub(super) fn concerns_drops(&self, ids: &[ChannelId]) -> bool {
        let is_drop = |state: &State, id| state.channels.get(id).is_none_or(|channel| channel.content.is_drop());
        // Whoever waits is told of the end too.
        self.look().map_or(true, |state| ids.iter().any(|id| is_drop(&state, id)))
    }

    pub(super) fn channel(&self, id: ChannelId) -> Result<Option<Channel>, StoreError> {
        let state = self.look()?;
        Ok(state.channels.get(&id).map(|channel| self.told(channel, &state)))
    }

    pub(super) fn by_name(&self, name: &ChannelName) -> Result<Option<Channel>, StoreError> {
        let state = self.look()?;
        let channel = state.names.get(name).and_then(|id| state.channels.get(id));
        Ok(channel.map(|channel| self.told(channel, &state)))
    }

    pub(super) fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Result<Vec<Channel>, StoreError> {
        let state = self.look()?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = state.names.range::<ChannelName, _>((after, Bound::Unbounded)).take(limit);
        Ok(names.filter_map(|(_, id)| state.channels.get(id)).map(|channel| self.told(channel, &state)).collect())
    }

    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        Ok(self.look()?.usage)
    }

    /// Whether a channel is paused depends on all of them.
    fn told(&self, channel: &Channel, state: &State) -> Channel {
        let full =
            channel.held_bytes >= self.limits.cache_channel_bytes || state.usage.cache_bytes >= self.limits.cache_bytes;
        Channel { paused: channel.role == Role::Reader && full, ..channel.clone() }
    }

    fn look(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        // Nothing panics while it is held.
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(StoreError::Closed) } else { Ok(state) }
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
