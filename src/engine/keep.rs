//! Keeping: what has expired of a channel is asked for, and sent again where it is gone: the same bytes at the same index.
//!
//! One box at a time over all channels, oldest first, at a share of the network's pace. No box is asked for before the
//! replica epoch in which it can have expired. What came of each is committed, so an end of the process costs one read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::network::{Network, Refusal, View};
use super::shared::Shared;
use super::transfer;
use crate::bacap::{BoxIndex, ReadCap};
use crate::store::{Capability, ChannelId, KeptBox, Store, StoreError, replica_epoch_begins};
use crate::thin::{self, ReadOutcome, WriteOutcome};

/// How often it is looked for what has expired.
const LOOK: Duration = Duration::from_secs(5);
/// No pause between two boxes is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Packets that a read and a write take, each confirmed.
pub(super) const PACKETS: f64 = 4.0;

/// What keeps the channels of a store.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    /// A verb has asked for it.
    pub(super) asked: Arc<Notify>,
}

/// What came of asking for one box, and of sending it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is there.
    There,
    /// It was gone, and is there again.
    SentAgain,
    /// Another writer's bytes stand there.
    Foreign,
    /// No answer.
    Unknown,
}

impl Keeper {
    /// Keeps what is to be kept, until `stop` changes.
    pub(super) async fn run(self, mut view: watch::Receiver<View>, mut stop: watch::Receiver<bool>) {
        let keeping = async {
            loop {
                let network = view.borrow_and_update().network.clone();
                let worked = match network {
                    Some(network) => self.all(&network, &view).await,
                    None => Ok(()),
                };
                match worked {
                    Ok(()) => {}
                    Err(StoreError::Closed) => return,
                    Err(error) => warn!(%error, "a channel could not be kept; trying again"),
                }
                tokio::select! {
                    () = self.asked.notified() => {}
                    changed = view.changed() => if changed.is_err() { return },
                    () = sleep(LOOK) => {}
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn all(&self, network: &Arc<Network>, view: &watch::Receiver<View>) -> Result<(), StoreError> {
        let Some(epoch) = network.replica_epoch else { return Ok(()) };
        for id in self.store.kept_channels()? {
            let mut sent = 0;
            while let Some(channel) = self.store.channel(id)? {
                // By the network's own time: this machine's clock may be wrong.
                if channel.kept_until.is_none_or(|until| until <= replica_epoch_begins(epoch))
                    || channel.fence.is_some()
                {
                    break;
                }
                let Some(expired) = self.store.expired_box(id, epoch)? else { break };
                match put(&self.store, network, id, &expired).await? {
                    Some(came @ (Came::There | Came::SentAgain)) => {
                        // What is there although its time was over was put there later than was known.
                        let since = if came == Came::There { epoch.saturating_sub(1) } else { epoch };
                        self.store.put_in_epoch(id, expired.seq, since).await?;
                        sent += u64::from(came == Came::SentAgain);
                    }
                    Some(Came::Foreign) => {
                        let reason = format!("box {} of this channel holds what another writer wrote", expired.seq.0);
                        self.shared.note(id, &reason);
                        self.store.fence(id, reason).await?;
                        break;
                    }
                    Some(Came::Unknown) => sleep(transfer::PAUSE_AFTER_FAILURE).await,
                    None => break,
                }
                // A new document or a reconnect: begin from what is known then.
                if view.has_changed().unwrap_or(true) {
                    break;
                }
                let share = self.store.keep_share(id)?;
                sleep(pause(network.pace.packets_per_second(), share)).await;
            }
            if sent > 0 {
                info!(boxes = sent, "expired boxes of a channel are on the network again");
            }
        }
        Ok(())
    }
}

/// How far apart boxes are, so that they take this share of the network's pace.
pub(super) fn pause(packets_per_second: f64, share: f64) -> Duration {
    Duration::try_from_secs_f64(PACKETS / (share * packets_per_second)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

/// Asks for a box, and sends it again where it is gone. `None`: the channel belongs to another network.
pub(super) async fn put(
    store: &Store,
    network: &Arc<Network>,
    id: ChannelId,
    kept: &KeptBox,
) -> Result<Option<Came>, StoreError> {
    let pass = match network.admit(store, id) {
        Ok(pass) => pass,
        Err(Refusal::OtherNetwork) => return Ok(None),
        Err(Refusal::Store(error)) => return Err(error),
    };
    let Capability::Write(cap) = store.cap(id)? else { return Err(StoreError::ReadOnly) };
    let found = |found: Result<ReadOutcome, thin::Error>| match found {
        Ok(ReadOutcome::Box(bytes)) if bytes == kept.payload => Some(Came::There),
        Ok(ReadOutcome::Box(_) | ReadOutcome::Tombstone) => Some(Came::Foreign),
        Ok(ReadOutcome::NotFound) => None,
        Err(_) => Some(Came::Unknown),
    };
    if let Some(came) = found(transfer::look(&pass, cap.read_cap(), &kept.index).await) {
        return Ok(Some(came));
    }
    Ok(Some(match transfer::put(&pass, &cap, &kept.index, &kept.payload).await {
        Ok(WriteOutcome::Done) => Came::SentAgain,
        // A read may have been told wrongly that it is not there.
        Ok(WriteOutcome::AlreadyExists) => {
            found(transfer::look(&pass, cap.read_cap(), &kept.index).await).unwrap_or(Came::Unknown)
        }
        Err(_) => Came::Unknown,
    }))
}

/// Asks once whether a box is there; `None`: no answer, or the channel belongs to another network.
pub(super) async fn is_there(
    store: &Store,
    network: &Arc<Network>,
    id: ChannelId,
    cap: &ReadCap,
    index: &BoxIndex,
) -> Option<bool> {
    let pass = network.admit(store, id).ok()?;
    match transfer::look(&pass, cap, index).await {
        Ok(ReadOutcome::Box(_) | ReadOutcome::Tombstone) => Some(true),
        Ok(ReadOutcome::NotFound) => Some(false),
        Err(_) => None,
    }
}
