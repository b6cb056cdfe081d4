//! Files of a drop that are deleted from the network again: a tombstone over each of their data boxes, one at a time.
//!
//! A tombstone takes the place of whatever a replica has, another tombstone included, so one that was sent before a crash
//! is sent again. The header's box stays: readers see from it what was deleted.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::super::network::{Network, View};
use super::super::shared::Shared;
use super::{AGAIN, Drops};
use crate::bacap::{BoxIndex, WriteCap};
use crate::channel::Line;
use crate::store::{BoxSeq, Capability, DropRecord, StoreError};
use crate::thin::{self, WriteMode};

/// Deletes what is to be deleted, until the engine stops.
pub(super) async fn run(
    drops: Drops,
    shared: Arc<Shared>,
    mut view: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) {
    let mut commits = drops.0.store.changes().watch_all();
    let deletes = async {
        loop {
            commits.mark_unchanged();
            view.mark_unchanged();
            let wanted = match drops.0.store.records_to_delete() {
                Ok(wanted) => wanted,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    warn!(%error, "what is to be deleted could not be looked up");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            let Some(record) = wanted.first() else {
                if commits.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Err(trouble) = delete(&drops, record, &mut view).await {
                warn!(%trouble, "a file could not be deleted; trying again");
                shared.note(record.channel, &trouble);
                sleep(AGAIN).await;
            }
        }
    };
    tokio::select! {
        () = deletes => {}
        _ = stop.wait_for(|&stop| stop) => {}
    }
}

async fn delete(drops: &Drops, record: &DropRecord, view: &mut watch::Receiver<View>) -> Result<(), String> {
    let store = &drops.0.store;
    let told = |error: StoreError| error.to_string();
    let (Some(first), Some(end)) = (record.first, record.end) else {
        return Err("a file that was not sent is to be deleted".to_owned());
    };
    let Capability::Write(cap) = store.cap(record.channel).map_err(told)? else {
        return Err("only its read capability is held".to_owned());
    };
    // What was dropped to make room has no row; its index is derived anew.
    let mut index = match store.index_of(record.channel, BoxSeq(first.0 + 1)) {
        Ok(index) => index,
        Err(_) => derived(&cap, first.0 + 1)?,
    };
    for seq in first.0 + 1..end.0 {
        loop {
            let network = network(view).await?;
            let Err(error) = tombstone(&network, &cap, &index).await else { break };
            warn!(%error, box_seq = seq, "a box could not be deleted; trying again");
            sleep(AGAIN).await;
        }
        index = index.next().map_err(|error| error.to_string())?;
    }
    info!(boxes = end.0 - first.0 - 1, "a file was deleted from the network");
    match store.delete_record(record.channel, record.id, true).await {
        Ok(()) | Err(StoreError::NoChannel) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The network, as soon as there is one.
async fn network(view: &mut watch::Receiver<View>) -> Result<Arc<Network>, String> {
    let seen = view.wait_for(|view| view.network.is_some()).await;
    let seen = seen.map_err(|_| "the engine has stopped".to_owned())?;
    seen.network.clone().ok_or_else(|| "the network is away".to_owned())
}

async fn tombstone(network: &Network, cap: &WriteCap, index: &BoxIndex) -> Result<(), thin::Error> {
    let deadline = Instant::now() + network.pace.operation_deadline();
    let envelope = network.lines.crypto(0).encrypt_tombstone(cap, index, deadline).await?;
    network.lines.traffic(Line::Main).start_write(cap, &envelope, WriteMode::Strict, deadline).await.map(drop)
}

fn derived(cap: &WriteCap, seq: u64) -> Result<BoxIndex, String> {
    let counter = cap.index().counter().checked_add(seq).ok_or_else(|| StoreError::Exhausted.to_string())?;
    cap.index().advance_to(counter).map_err(|error| error.to_string())
}
