//! From staged files into boxes: a bounded way ahead of what replicas have, oldest record first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::super::shared::Shared;
use super::{Drops, Turn, Worker};
use crate::drop::{Cutter, SyncKey};
use crate::model::NetworkId;
use crate::store::{Capability, Channel, ChannelId, Content, DropRecord, DropSlice, RecordId, RecordState, StoreError};

/// How far boxes are made ahead of what is stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Ahead {
    /// Boxes of a drop that are made and not yet stored: from fewer than the first number on more are made, up to the second.
    pub(in crate::engine) boxes: (u64, u64),
    /// Boxes that one transaction makes.
    pub(in crate::engine) slice: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { boxes: (512, 1024), slice: 128 }
    }
}

/// A file that was begun and cannot be read is tried for so long while others wait behind it. One that is gone, or shorter
/// than it was, is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Filler {
    drops: Drops,
    shared: Arc<Shared>,
    ahead: Ahead,
    /// Since when the record that was begun cannot be read.
    unreadable: HashMap<ChannelId, (RecordId, Instant)>,
}

/// Why there is no slice.
enum Trouble {
    /// The file's bytes: they are gone, or may be readable another time.
    Unreadable { reason: String, gone: bool },
    /// Anything else.
    Other(String),
}

impl Trouble {
    fn into_text(self) -> String {
        match self {
            Self::Unreadable { reason, .. } | Self::Other(reason) => reason,
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::Other(text.to_owned())
    }
}

impl Filler {
    pub(super) fn new(drops: Drops, shared: Arc<Shared>, ahead: Ahead) -> Self {
        Self { drops, shared, ahead, unreadable: HashMap::new() }
    }

    /// Fills one drop as far as it may be filled now.
    fn fill(
        &mut self,
        id: ChannelId,
        (network, max_plaintext): (&NetworkId, usize),
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let store = self.drops.0.store.clone();
        let told = |error: StoreError| error.to_string();
        let mut filling = false;
        // A record that cannot be read does not stand in the way of those behind it.
        let (mut after, mut unreadable) = (None, None);
        while !stop.load(Ordering::Relaxed) {
            let Some(channel) = store.channel(id).map_err(told)? else { break };
            let ahead = channel.boxes.saturating_sub(channel.first_unstored.0);
            if channel.fence.is_some() || ahead >= if filling { self.ahead.boxes.1 } else { self.ahead.boxes.0 } {
                break;
            }
            if channel.is_foreign_to(network) {
                break;
            }
            filling = true;
            if channel.max_plaintext != max_plaintext {
                store.set_max_plaintext(id, max_plaintext).wait().map_err(told)?;
                continue;
            }
            let Some(record) = store.unfilled(id, after).map_err(told)? else { break };
            let slice = match self.slice(&channel, &record) {
                Ok(slice) => slice,
                Err(Trouble::Unreadable { reason, gone })
                    if record.state == RecordState::Filling && self.is_in_the_way(id, &record, gone)? =>
                {
                    warn!(%reason, "a file in a drop ends after the part that was sent; those behind it go on");
                    self.shared.note(id, &format!("{reason}; it is broken off, and has to be sent again"));
                    store.break_off(id, record.id, reason).wait().map_err(told)?;
                    continue;
                }
                Err(trouble) if record.state == RecordState::Waiting => {
                    let trouble = trouble.into_text();
                    warn!(%trouble, "a file in a drop cannot be read; those behind it go on");
                    self.shared.note(id, &trouble);
                    (after, unreadable) = (Some(record.id), Some(trouble));
                    continue;
                }
                Err(trouble) => return Err(trouble.into_text()),
            };
            self.unreadable.remove(&id);
            match store.fill(id, slice).wait() {
                Ok(()) => {}
                // Packed anew, or taken back, in between: look again.
                Err(StoreError::Rewritten | StoreError::NoRecord) => debug!("the drop has changed while it was filled"),
                Err(error) => return Err(error.to_string()),
            }
        }
        unreadable.map_or(Ok(()), Err)
    }

    /// Whether a record that was begun and cannot be read keeps others from going that can. Where this machine can read
    /// nothing at all, no file is at fault.
    fn is_in_the_way(&mut self, id: ChannelId, record: &DropRecord, gone: bool) -> Result<bool, String> {
        let since = self.unreadable.entry(id).or_insert_with(|| (record.id, Instant::now()));
        if since.0 != record.id {
            *since = (record.id, Instant::now());
        }
        if !gone && since.1.elapsed() < PATIENCE {
            return Ok(false);
        }
        let mut after = record.id;
        while let Some(next) = self.drops.0.store.next_waiting(id, after).map_err(|error| error.to_string())? {
            let readable = next
                .staging
                .as_deref()
                .is_none_or(|staging| next.size == 0 || self.read_exactly(staging, &mut [0], 0).is_ok());
            if readable {
                return Ok(true);
            }
            after = next.id;
        }
        Ok(false)
    }

    fn read_exactly(&self, staging: &str, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let file = File::open(self.drops.staged(staging))?;
        self.drops.0.store.sealing().open(file)?.read_exact_at(bytes, offset)
    }

    /// The next boxes of a record.
    fn slice(&self, channel: &Channel, record: &DropRecord) -> Result<DropSlice, Trouble> {
        let cap = match self.drops.0.store.cap(channel.id)? {
            Capability::Write(cap) => cap,
            Capability::Read(_) => return Err("only its read capability is held".into()),
        };
        let header = record.header.as_ref().ok_or("a record has no header")?;
        let base = cap.index().counter();
        let at = |seq: u64| base.checked_add(seq).ok_or(StoreError::Exhausted);
        let first = record.first.map_or(channel.boxes, |first| first.0);
        let alone = channel.content == Content::Drop { allow_delete: true };
        // What was launched of it is cut as it was: the header stays as long as it is.
        let cutter = Cutter::new(header, at(first)?, channel.max_plaintext, alone, SyncKey::of(cap.read_cap()))
            .map_err(|error| Trouble::Other(format!("{:?}: {error}", record.name)))?;
        let head = cutter.head();
        let position = record.head_bytes + record.taken;
        let wanted = (cutter.total() - position).min(cutter.needs(self.ahead.slice) as u64);
        let mut bytes = vec![0; usize::try_from(wanted).map_err(|error| Trouble::Other(error.to_string()))?];
        let from_head = head.len().saturating_sub(usize::try_from(position).unwrap_or(usize::MAX)).min(bytes.len());
        bytes[..from_head].copy_from_slice(&head[head.len() - from_head..]);
        let body = &mut bytes[from_head..];
        if !body.is_empty() {
            let staging = record.staging.as_deref().ok_or("a record has no file")?;
            let offset = position.saturating_sub(head.len() as u64);
            let path = self.drops.staged(staging);
            self.read_exactly(staging, body, offset).map_err(|error| Trouble::Unreadable {
                reason: format!("the bytes of {:?} cannot be read from {}: {error}", record.name, path.display()),
                gone: matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof),
            })?;
        }
        let boxes = cutter.cut(position, at(channel.boxes)?, &bytes).into_iter().map(<[u8]>::to_vec).collect();
        Ok(DropSlice {
            record: record.id,
            rewrites: channel.rewrites,
            max_plaintext: channel.max_plaintext,
            head_bytes: head.len() as u64,
            position,
            boxes,
        })
    }
}

impl Worker for Filler {
    fn turn(&mut self, network: Option<&(NetworkId, usize)>, stop: &AtomicBool) -> Turn {
        // Boxes are cut for one network, so not before there is one.
        let Some((network, max_plaintext)) = network else { return Turn::Done };
        let ids = match self.drops.0.store.drops_to_fill() {
            Ok(ids) => ids,
            Err(StoreError::Closed) => return Turn::Done,
            Err(error) => {
                warn!(%error, "the drops could not be looked up");
                return Turn::Failed;
            }
        };
        let mut turn = Turn::Done;
        for id in ids {
            if let Err(trouble) = self.fill(id, (network, *max_plaintext), stop) {
                warn!(%trouble, "a drop could not be filled; trying again");
                self.shared.note(id, &trouble);
                turn = Turn::Failed;
            }
        }
        turn
    }
}
