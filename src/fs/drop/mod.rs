//! Drops in the mount: directories that take whole files, and that show those which arrived whole.
//!
//! A file in a drop that is written here is a private file on this machine's disk (`staging.rs`), to which anything may be
//! done, until its writers have closed it and it has rested (`settle.rs`). Then it is handed over (`hand.rs`): it becomes a
//! record of the store, is sent as it is, and can only be read. What looks unfinished by its name (`lot.rs`), or is so
//! because its writer died, is kept and never sent by itself.
//!
//! Names (`tree.rs`, `room.rs`) are kept in memory, those of records and those of files on the disk alike. No operation here
//! asks the network anything.

mod change;
mod hand;
mod lot;
mod open;
mod room;
mod settle;
mod staging;
mod tell;
mod tree;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::warn;

use super::Fs;
use crate::engine::drops::{StagedFiles, Unsettled};
use crate::store::ChannelId;
use tell::NAMED;

pub(super) use change::elsewhere;
pub(super) use open::{OpenFile, read_at};
pub(super) use room::Room;
pub(super) use staging::reopen;
pub use tree::EntryId;

/// Files that are closed within so much of their rest, or of this time, are looked at together: a look is at all of them.
const TOGETHER: u32 = 8;
const TOGETHER_AT_MOST: Duration = Duration::from_millis(100);

/// How long a file rests before it is sent.
pub const REST: Duration = Duration::from_secs(2);
/// How often drops that came or went are looked for, at least.
const LOOK: Duration = Duration::from_secs(30);

/// Hands over what has rested, until `ended`; then what was closed by then, rested or not.
pub async fn keep(fs: Arc<Fs>, ended: impl Future<Output = ()> + Send) {
    let mut ended = std::pin::pin!(ended);
    let asked = Arc::downgrade(&fs);
    fs.owner().engine().drops().staged_by(StagedHere(asked));
    loop {
        let next = settle(&fs, fs.options().rest).await;
        let pause = (fs.options().rest / TOGETHER).min(TOGETHER_AT_MOST);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut ended => break,
        }
        let until = next.unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK);
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = fs.room.wake.notified() => {}
            () = &mut ended => break,
        }
    }
    settle(&fs, Duration::ZERO).await;
}

/// What a mount has of drops that is no record yet, for those who ask the engine.
struct StagedHere(Weak<Fs>);

impl StagedFiles for StagedHere {
    fn unsettled(&self, drop: ChannelId) -> Unsettled {
        let told = self.0.upgrade().and_then(|fs| fs.unsettled(drop).ok()).unwrap_or_default();
        Unsettled {
            settling: told.settling.len() as u64,
            unfinished: told.unfinished.into_iter().take(NAMED).map(|(name, _)| name).collect(),
            to_finish: told.to_finish,
        }
    }

    fn finish(&self, drop: ChannelId, path: &str) -> Result<(), String> {
        let fs = self.0.upgrade().ok_or("the mount has ended")?;
        fs.finish(drop, path).map_err(|error| error.message)
    }
}

async fn settle(fs: &Arc<Fs>, rest: Duration) -> Option<Instant> {
    let asked = Arc::clone(fs);
    match tokio::task::spawn_blocking(move || asked.settle(Instant::now(), rest)).await {
        Ok(Ok(next)) => next,
        Ok(Err(error)) => {
            warn!(%error, "files in drops could not be looked after; trying again");
            None
        }
        Err(error) => {
            warn!(%error, "looking after files in drops ended abnormally; trying again");
            None
        }
    }
}

impl Fs {
    /// The drop of a file, and the names that lead to it there.
    pub(super) fn dropped_path(&self, entry: EntryId) -> Option<(ChannelId, Vec<String>)> {
        let state = self.room.lock();
        let drop = state.forest.entry(entry)?.drop;
        Some((drop, state.forest.names(entry).into_iter().map(str::to_owned).collect()))
    }
}
