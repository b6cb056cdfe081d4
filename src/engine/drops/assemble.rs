//! From boxes that have arrived into records, and from the parts of a chain into files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, info, warn};

use super::super::shared::Shared;
use super::{DropError, Drops, Turn, Worker};
use crate::drop::chain::{Progress, Standing as ChainStanding};
use crate::drop::{Assembler, Event, Fault, Header, Input, Part, SyncKey, Total};
use crate::model::NetworkId;
use crate::store::{
    Assembled, BoxSeq, Channel, ChannelId, DropBox, DropRecord, RecordId, RecordState, Standing, StoreError,
};

/// Boxes, and bytes of them, that one transaction makes into records.
const SLICE: (u64, usize) = (1024, 1 << 20);
/// Parts that are looked up at once.
const PAGE: usize = 256;
/// Chains whose progress is remembered; that of others is counted again when it is asked for.
const CHAINS: usize = 256;

pub(super) struct Reader {
    drops: Drops,
    shared: Arc<Shared>,
    running: HashMap<ChannelId, Running>,
    chains: HashMap<(ChannelId, [u8; 16]), Progress>,
    /// Whether the chains that an earlier run left were looked at.
    resumed: bool,
}

/// An assembler, and the box that it wants next.
struct Running {
    assembler: Assembler,
    next: BoxSeq,
    /// The Idx64 of box 0.
    base: u64,
}

impl Reader {
    pub(super) fn new(drops: Drops, shared: Arc<Shared>) -> Self {
        Self { drops, shared, running: HashMap::new(), chains: HashMap::new(), resumed: false }
    }

    /// One slice of one drop. False: there was nothing to do.
    fn step(&mut self, id: ChannelId, stop: &AtomicBool) -> Result<(), StoreError> {
        let store = self.drops.0.store.clone();
        let Some(channel) = store.channel(id)? else { return Ok(()) };
        let mut running = match self.running.remove(&id) {
            Some(running) if running.next == channel.assembled => running,
            _ => match self.resume(&channel, stop)? {
                Some(running) => running,
                None => return Ok(()),
            },
        };
        let boxes = store.drop_boxes(id, running.next, SLICE.0, SLICE.1)?;
        let from = running.next;
        let mut standings = Vec::new();
        let mut parts = Vec::new();
        let mut last_part = store.arriving(id)?.and_then(|record| record.header?.part);
        for found in &boxes {
            // A chain is joined before what is behind it: files are in the order in which they were sent.
            if !parts.is_empty() {
                break;
            }
            let (events, begin) = running.feed(found);
            for event in events {
                if let Event::Started { header, .. } = &event {
                    last_part = header.part;
                }
                if matches!(event, Event::Complete { .. }) {
                    parts.extend(last_part);
                }
                standings.push(running.standing(event, begin));
            }
        }
        let assembled = Assembled {
            from,
            next: running.next,
            standings,
            taken: running.assembler.taken(),
            astray: running.assembler.is_astray(),
        };
        if assembled.standings.contains(&Standing::Withdrawn) {
            info!(channel = %channel.name, "a file that was arriving was deleted by its sender");
            self.chains.retain(|(channel, _), _| *channel != id);
        }
        for standing in &assembled.standings {
            if let Standing::Broken { reason } | Standing::Astray { reason, .. } = standing {
                warn!(channel = %channel.name, %reason, "a file in a drop is broken");
                self.shared.note(id, reason);
            }
        }
        match store.assemble(id, assembled).wait() {
            Ok(()) => drop(self.running.insert(id, running)),
            // Its channel went and another run was before us: the next turn begins from what the store has.
            Err(StoreError::Rewritten | StoreError::NoChannel) => debug!("a drop has changed while it was assembled"),
            Err(error) => return Err(error),
        }
        for part in parts {
            self.join(id, part, stop)?;
        }
        Ok(())
    }

    /// An assembler that stands where the store does: boxes of the record under way are fed to it once more.
    fn resume(&self, channel: &Channel, stop: &AtomicBool) -> Result<Option<Running>, StoreError> {
        let store = &self.drops.0.store;
        let cap = match store.cap(channel.id)? {
            crate::store::Capability::Read(cap) => cap,
            crate::store::Capability::Write(_) => return Err(StoreError::NotAReader),
        };
        let key = SyncKey::of(&cap);
        let arriving = store.arriving(channel.id)?.and_then(|record| record.first);
        let assembler = if channel.astray { Assembler::astray(key) } else { Assembler::new(key) };
        let next = arriving.unwrap_or(channel.assembled);
        let mut running = Running { assembler, next, base: cap.index().counter() };
        while running.next < channel.assembled {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let limit = SLICE.0.min(channel.assembled.0 - running.next.0);
            let boxes = store.drop_boxes(channel.id, running.next, limit, SLICE.1)?;
            if boxes.is_empty() {
                break;
            }
            for found in &boxes {
                running.feed(found);
            }
        }
        if arriving.is_some() && running.assembler.taken().is_none() {
            // Its beginning was dropped in between, and with it what its digest is made of.
            let reason = "what had come of it was dropped to make room".to_owned();
            let at = channel.assembled;
            let standings = vec![Standing::Broken { reason }];
            store
                .assemble(channel.id, Assembled { from: at, next: at, standings, taken: None, astray: true })
                .wait()?;
        }
        Ok(Some(running))
    }

    /// Makes a file of a chain whose parts are all there.
    fn join(&mut self, id: ChannelId, part: Part, stop: &AtomicBool) -> Result<(), StoreError> {
        let store = self.drops.0.store.clone();
        let key = (id, part.chain);
        let known = self.chains.get(&key).copied();
        // A part that does not close the gap changes nothing.
        if known.is_some_and(|progress| progress.next() != part.number) {
            return Ok(());
        }
        let mut progress = known.unwrap_or_default();
        let standing = loop {
            let from = progress.next();
            let page = store.parts(id, part.chain, from, PAGE)?;
            let standing = progress.take(page.iter().filter_map(sized));
            if page.len() < PAGE || progress.next() == from || !matches!(standing, ChainStanding::Missing { .. }) {
                break standing;
            }
        };
        let joined = match standing {
            ChainStanding::Missing { .. } => {
                if self.chains.len() >= CHAINS {
                    self.chains.clear();
                }
                self.chains.insert(key, progress);
                return Ok(());
            }
            ChainStanding::Whole(total) => match self.verify(id, part.chain, total, stop)? {
                Some(joined) => joined,
                None => return Ok(()),
            },
            ChainStanding::Wrong { bytes, promised } => {
                Err(format!("its parts have {bytes} bytes, and its sender promised {promised}"))
            }
        };
        self.chains.remove(&key);
        let Some(header) = self.last_header(id, part.chain)? else { return Ok(()) };
        if let Err(reason) = &joined {
            self.shared.note(id, reason);
        }
        debug!(name = header.file_name(), whole = joined.is_ok(), "the parts of a file are all there");
        store.join(id, header, joined).wait()
    }

    fn last_header(&self, id: ChannelId, chain: [u8; 16]) -> Result<Option<Header>, StoreError> {
        let mut from = 1;
        loop {
            let page = self.drops.0.store.parts(id, chain, from, PAGE)?;
            let last = page.iter().filter_map(|record| record.header.clone());
            let found = last.into_iter().find(|header| header.part.is_some_and(|part| part.last.is_some()));
            match page.last().and_then(|record| record.part) {
                _ if found.is_some() => return Ok(found),
                Some((_, number)) if page.len() == PAGE && number >= from => from = number + 1,
                _ => return Ok(None),
            }
        }
    }

    /// Holds the bytes of all parts against the digest of the whole. `None`: stopped in between.
    #[expect(clippy::type_complexity, reason = "what the store takes")]
    fn verify(
        &self,
        id: ChannelId,
        chain: [u8; 16],
        total: Total,
        stop: &AtomicBool,
    ) -> Result<Option<Result<Vec<(RecordId, u64)>, String>>, StoreError> {
        let mut hash = blake3::Hasher::new();
        let (mut next, mut begin) = (1, 0);
        let mut begins = Vec::new();
        while begin < total.size || begins.is_empty() {
            let page = self.drops.0.store.parts(id, chain, next, PAGE)?;
            let before = next;
            for record in page.iter().filter(|record| record.state == RecordState::Complete) {
                if record.part.is_none_or(|(_, number)| number != next) {
                    continue;
                }
                let mut offset = 0;
                while offset < record.size {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    match self.drops.body(record, offset, SLICE.1) {
                        Ok(bytes) if !bytes.is_empty() => {
                            hash.update(&bytes);
                            offset += bytes.len() as u64;
                        }
                        Ok(_) => return Ok(Some(Err("bytes of a part are missing".to_owned()))),
                        // A disk that fails now says nothing about the file.
                        Err(DropError::Store(error)) if !matches!(error, StoreError::Dropped { .. }) => {
                            return Err(error);
                        }
                        Err(error) => return Ok(Some(Err(error.to_string()))),
                    }
                }
                begins.push((record.id, begin));
                begin += record.size;
                next += 1;
            }
            if next == before {
                break;
            }
        }
        let right = begin == total.size && *hash.finalize().as_bytes() == total.digest;
        Ok(Some(if right { Ok(begins) } else { Err(crate::drop::Fault::Digest.to_string()) }))
    }

    /// Chains whose last part came just before the end of an earlier run.
    fn resume_chains(&mut self, stop: &AtomicBool) -> Result<(), StoreError> {
        for id in self.drops.0.store.read_drops()? {
            for record in self.drops.0.store.open_chains(id, CHAINS)? {
                if let Some(part) = record.header.and_then(|header| header.part) {
                    self.join(id, part, stop)?;
                }
            }
        }
        Ok(())
    }

    fn work(&mut self, stop: &AtomicBool) -> Result<bool, StoreError> {
        if !self.resumed {
            self.resume_chains(stop)?;
            self.resumed = true;
        }
        let ids = self.drops.0.store.drops_to_assemble()?;
        for &id in &ids {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.step(id, stop)?;
        }
        Ok(!ids.is_empty())
    }
}

impl Worker for Reader {
    fn turn(&mut self, _: Option<&(NetworkId, usize)>, stop: &AtomicBool) -> Turn {
        match self.work(stop) {
            Ok(true) => Turn::More,
            Ok(false) | Err(StoreError::Closed) => Turn::Done,
            Err(error) => {
                warn!(%error, "what arrived in a drop could not be made into files; trying again");
                Turn::Failed
            }
        }
    }
}

impl Running {
    fn feed(&mut self, found: &DropBox) -> (Vec<Event>, u64) {
        let counter = self.base.wrapping_add(self.next.0);
        self.next = BoxSeq(self.next.0 + 1);
        match found {
            DropBox::Bytes(bytes, begin) => (self.assembler.feed(counter, Input::Box(bytes)), *begin),
            DropBox::Tombstone => (self.assembler.feed(counter, Input::Tombstone), 0),
            DropBox::Lost => (self.assembler.feed(counter, Input::Lost), 0),
        }
    }

    fn standing(&self, event: Event, begin: u64) -> Standing {
        let seq = |counter: u64| BoxSeq(counter.wrapping_sub(self.base));
        match event {
            Event::Started { first, header, head_bytes } => {
                Standing::Started { first: seq(first), begin, head_bytes: head_bytes as u64, header }
            }
            Event::Complete { end, digest, .. } => Standing::Complete { end: seq(end), digest },
            Event::Broken { fault: Fault::Deleted(_), .. } => Standing::Withdrawn,
            Event::Broken { fault, .. } => Standing::Broken { reason: fault.counted_from(self.base).to_string() },
            Event::Astray { at, fault } => {
                Standing::Astray { at: seq(at), reason: fault.counted_from(self.base).to_string() }
            }
        }
    }
}

fn sized(record: &DropRecord) -> Option<(Part, u64)> {
    Some((record.header.as_ref()?.part?, record.size))
}
