//! Files of a drop that are deleted from the network again: a tombstone over each of their boxes, one at a time.
//!
//! How far it has come is committed after each box. A tombstone takes the place of whatever a replica has, another
//! tombstone included, so the one that was under way at a crash is sent again. The boxes of the contents come first and
//! the header's box last: a reader who finds the header finds tombstones behind it, and one who finds a tombstone in the
//! header's place finds nothing of the file behind that.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::super::network::{Network, Refusal, View};
use super::super::shared::Shared;
use super::super::transfer;
use super::{AGAIN, Commits, Drops};
use crate::bacap::{BoxIndex, WriteCap};
use crate::store::{BoxSeq, Capability, DropRecord, StoreError};

/// Boxes of one file that are deleted before those of another drop have their turn.
const TURN: u64 = 32;

/// How a turn ended.
enum Turned {
    /// There is more to delete at once.
    More,
    /// The file is deleted, or nothing of it may be now.
    Rests,
}

/// Deletes what is to be deleted, until the engine stops.
pub(super) async fn run(
    drops: Drops,
    shared: Arc<Shared>,
    mut view: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) {
    let mut commits = Commits::new(&drops.0.store);
    let deletes = async {
        loop {
            commits.mark_unchanged();
            let network = view.borrow_and_update().any();
            let (mut more, mut failed) = (false, false);
            if let Some(network) = network {
                match drops.0.store.records_to_delete() {
                    Ok(wanted) => {
                        for record in &wanted {
                            match delete(&drops, &shared, record, &network).await {
                                Ok(turned) => more |= matches!(turned, Turned::More),
                                Err(trouble) => {
                                    warn!(%trouble, "a file could not be deleted; trying again");
                                    shared.note(record.channel, &trouble);
                                    failed = true;
                                }
                            }
                        }
                    }
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        warn!(%error, "what is to be deleted could not be looked up");
                        failed = true;
                    }
                }
            }
            if more && !failed {
                continue;
            }
            tokio::select! {
                open = commits.changed(), if !failed => if !open { return },
                changed = view.changed(), if !failed => if changed.is_err() { return },
                () = sleep(AGAIN), if failed => {}
            }
        }
    };
    tokio::select! {
        () = deletes => {}
        _ = stop.wait_for(|&stop| stop) => {}
    }
}

async fn delete(drops: &Drops, shared: &Shared, record: &DropRecord, network: &Arc<Network>) -> Result<Turned, String> {
    let store = &drops.0.store;
    let told = |error: StoreError| error.to_string();
    let (Some(first), Some(end)) = (record.first, record.end) else {
        return Err("a file that was not sent is to be deleted".to_owned());
    };
    let Capability::Write(cap) = store.cap(record.channel).map_err(told)? else {
        return Err("only its read capability is held".to_owned());
    };
    let begin = record.deleted_end.unwrap_or_default().0.max(first.0 + 1);
    // What was dropped to make room has no row; its index is derived anew.
    let mut index = match store.index_of(record.channel, BoxSeq(begin)) {
        Ok(index) => index,
        Err(_) => derived(&cap, begin)?,
    };
    for seq in begin..end.0.min(begin + TURN) {
        if !tombstone(drops, shared, record, network, &cap, (seq, &index)).await? {
            return Ok(Turned::Rests);
        }
        store.deleted_up_to(record.channel, record.id, BoxSeq(seq + 1)).await.map_err(told)?;
        index = index.next().map_err(|error| error.to_string())?;
    }
    if begin + TURN < end.0 {
        return Ok(Turned::More);
    }
    let header = match store.index_of(record.channel, first) {
        Ok(index) => index,
        Err(_) => derived(&cap, first.0)?,
    };
    if !tombstone(drops, shared, record, network, &cap, (first.0, &header)).await? {
        return Ok(Turned::Rests);
    }
    info!(boxes = end.0 - first.0, "a file was deleted from the network");
    match store.delete_record(record.channel, record.id, true).await {
        // The next file of the drop may be to be deleted too.
        Ok(()) | Err(StoreError::NoChannel) => Ok(Turned::More),
        Err(error) => Err(error.to_string()),
    }
}

/// Deletes one box. False: nothing of this channel may be deleted now.
async fn tombstone(
    drops: &Drops,
    shared: &Shared,
    record: &DropRecord,
    network: &Arc<Network>,
    cap: &WriteCap,
    (seq, index): (u64, &BoxIndex),
) -> Result<bool, String> {
    let pass = match network.admit(&drops.0.store, record.channel) {
        Ok(pass) => pass,
        Err(refusal @ Refusal::OtherNetwork) => {
            shared.note(record.channel, &format!("{:?} is not deleted yet: {refusal}", record.name));
            return Ok(false);
        }
        Err(Refusal::Store(StoreError::NoChannel)) => return Ok(false),
        Err(refusal) => return Err(refusal.to_string()),
    };
    transfer::tombstone(&pass, cap, index)
        .await
        .map_err(|error| format!("box {seq} of {:?} could not be deleted: {error}", record.name))?;
    Ok(true)
}

fn derived(cap: &WriteCap, seq: u64) -> Result<BoxIndex, String> {
    let counter = cap.index().counter().checked_add(seq).ok_or_else(|| StoreError::Exhausted.to_string())?;
    cap.index().advance_to(counter).map_err(|error| error.to_string())
}
