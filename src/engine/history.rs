//! Keeps the history: what each minute has brought, as the channels have grown.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::status::unix_seconds;
use crate::store::{ChannelId, ChannelName, HistoryPoint, Role, Store, StoreError};

/// How often the channels are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Channels that one look at the store gives.
const PAGE: usize = 256;

/// How far each channel was at the last look: boxes and bytes.
#[derive(Default)]
struct Levels(HashMap<ChannelId, (u64, u64)>);

impl Levels {
    /// What has come since the last look, by channel.
    fn grown(&mut self, store: &Store) -> Result<HistoryPoint, StoreError> {
        let mut levels = HashMap::new();
        let mut point = HistoryPoint::default();
        let mut after: Option<ChannelName> = None;
        loop {
            let page = store.channels(after.as_ref(), PAGE)?;
            for channel in &page {
                let level = match channel.role {
                    Role::Writer => (channel.stored_boxes, channel.stored_bytes),
                    Role::Reader => (channel.boxes, channel.size),
                };
                // One that was not there before may have been added with boxes that went long ago.
                let before = self.0.get(&channel.id).copied().unwrap_or_default();
                let (boxes, bytes) = (level.0.saturating_sub(before.0), level.1.saturating_sub(before.1));
                match channel.role {
                    Role::Writer => {
                        point.stored_boxes += boxes;
                        point.stored_bytes += bytes;
                    }
                    Role::Reader => {
                        point.arrived_boxes += boxes;
                        point.arrived_bytes += bytes;
                    }
                }
                levels.insert(channel.id, level);
            }
            match page.last() {
                Some(last) => after = Some(last.name.clone()),
                None => break,
            }
        }
        self.0 = levels;
        point.minute = unix_seconds(SystemTime::now()) / 60;
        point.spool_bytes = store.usage()?.spool_bytes;
        Ok(point)
    }
}

/// Looks once a minute, and once more when `stop` changes. A minute in which nothing has gone or come writes nothing.
pub(super) async fn run(store: Store, mut stop: watch::Receiver<bool>) {
    let mut levels = Levels::default();
    if levels.grown(&store).is_err() {
        return;
    }
    let mut minutes = interval(LOOK);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    minutes.tick().await;
    loop {
        let stopped = tokio::select! {
            _ = minutes.tick() => false,
            _ = stop.wait_for(|&stop| stop) => true,
        };
        let kept = match levels.grown(&store) {
            Ok(point) if point.moved() => store.record_history(point).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => debug!(%error, "the history of this minute could not be kept"),
        }
        if stopped {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bacap::WriteCap;
    use crate::store::{BoxSeq, BoxState, Content, Limits, NetworkId, StateDir};

    #[tokio::test]
    async fn what_was_stored_since_the_last_look_is_kept_and_a_quiet_minute_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&StateDir::lock(dir.path()).expect("ours"), Limits::default()).expect("a store");
        let name = ChannelName::parse("log").expect("a name");
        let id = store.create(name, WriteCap::from_seed(&[1; 32]), Content::Stream).await.expect("made");
        let network = NetworkId::from_bytes(&[9; 32]).expect("a network");
        store.append(id, vec![7; 100], None).await.expect("appended");
        store.seal_tail(id).await.expect("sealed");
        let (stop, stopped) = watch::channel(false);
        let keeping = tokio::spawn(run(store.clone(), stopped));
        tokio::task::yield_now().await;
        store.bind_network(id, network.clone()).await.expect("bound");
        let rewrites = store.channel(id).expect("asked").expect("there").rewrites;
        store.launch(id, rewrites, vec![BoxSeq(0)], network).await.expect("launched");
        store.confirm(id, vec![BoxSeq(0)], BoxState::Stored).await.expect("confirmed");
        stop.send_replace(true);
        keeping.await.expect("no panic");
        let kept = store.history(0).expect("asked");
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!((kept[0].stored_boxes, kept[0].stored_bytes, kept[0].arrived_boxes), (1, 100, 0));

        // Nothing has changed since.
        let (stop, stopped) = watch::channel(false);
        let keeping = tokio::spawn(run(store.clone(), stopped));
        tokio::task::yield_now().await;
        stop.send_replace(true);
        keeping.await.expect("no panic");
        assert_eq!(store.history(0).expect("asked"), kept);
        // What is older than two days goes.
        let later = HistoryPoint { minute: kept[0].minute + crate::store::HISTORY_MINUTES, ..kept[0] };
        store.record_history(later).await.expect("kept");
        assert_eq!(store.history(0).expect("asked"), [later]);
    }
}
