//! Tests of the store as a whole.

mod basics;
pub(super) mod crash;
mod disk;
mod drops;
mod holes;
mod inbox;
mod kept;
mod laws;
mod measure;
mod migrate;
mod model;
mod power;
mod private;
mod recovery;
mod room;
mod search;
mod together;

use tempfile::TempDir;

use super::{Channel, ChannelId, ChannelName, Limits, NetworkId, StateDir, Store, StoreError};
use crate::bacap::WriteCap;

/// A store in a directory of its own, with a small reserve.
struct Home {
    store: Store,
    state: StateDir,
    dir: TempDir,
}

const LIMITS: Limits =
    Limits { spool_bytes: 1 << 30, cache_bytes: 1 << 30, cache_channel_bytes: 1 << 30, sent_bytes: 1 << 30 };
const RESERVE_BYTES: u64 = 1 << 20;

impl Home {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap();
        let store = Store::open_with(&state, limits, RESERVE_BYTES).unwrap();
        Self { store, state, dir }
    }

    /// Closes and opens it again. What the catalog knew is what the disk says.
    fn reopened(self) -> Self {
        let known = channels(&self.store);
        self.store.close();
        let Self { state, dir, .. } = self;
        drop(state);
        let state = StateDir::lock(dir.path()).unwrap();
        let store = Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap();
        if let Ok(known) = known {
            assert_eq!(channels(&store).unwrap(), known);
        }
        Self { store, state, dir }
    }

    fn writer(&self, text: &str, seed: u8) -> ChannelId {
        self.store.create_stream(name(text), WriteCap::from_seed(&[seed; 32])).wait().unwrap()
    }
}

/// All of them, but for whether they are paused: that depends on the limits.
fn channels(store: &Store) -> Result<Vec<Channel>, StoreError> {
    let channels = store.channels(None, usize::MAX)?;
    Ok(channels.into_iter().map(|channel| Channel { paused: false, ..channel }).collect())
}

/// `len` bytes that differ from place to place.
fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251 + salt) % 256).unwrap()).collect()
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn network() -> NetworkId {
    NetworkId::new([[1; 32], [2; 32], [3; 32]])
}
