//! Adopting: asks the network what stands at the indices of a fenced channel, box by box, and has the store rewrite the
//! channel when all is known.
//!
//! Only a verb begins it. What was learned is committed as it comes, so that an end of this process at any point costs
//! a few reads at most; the next one goes on by itself. One channel at a time, a few reads at a time. An index counts as
//! free once two reads, each in a fresh envelope, have said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::network::{Network, Pass, Refusal, View};
use super::shared::Shared;
use super::transfer;
use crate::bacap::{BoxIndex, WriteCap};
use crate::channel::pause_before_retry;
use crate::store::{Adopted, BoxSeq, BoxState, Capability, ChannelId, Finding, Store, StoreError};
use crate::thin::ReadOutcome;

/// Indices that are asked for at a time.
const READS: usize = 4;
/// Reads that must have said that nothing is there.
const NOT_FOUNDS: u32 = 2;

/// Adopts what is to be adopted, until `stop` changes. `asked` tells that a verb has begun one.
pub(super) async fn run(
    store: Store,
    shared: Arc<Shared>,
    mut view: watch::Receiver<View>,
    asked: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let adoptions = async {
        let mut tries = 0;
        loop {
            // A new document or a reconnect breaks nothing off: reads wait until the network is there again.
            let network = view.borrow_and_update().network.clone();
            let worked = match network {
                Some(network) => all(&store, &shared, &network).await,
                None => Ok(()),
            };
            let again = match worked {
                Ok(()) => None,
                Err(error) => {
                    warn!(%error, "a channel could not be adopted; trying again");
                    tries += 1;
                    Some(pause_before_retry(tries))
                }
            };
            tokio::select! {
                () = asked.notified() => tries = 0,
                changed = view.changed() => if changed.is_err() { return },
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    };
    tokio::select! {
        () = adoptions => {}
        _ = stop.wait_for(|&stop| stop) => {}
    }
}

async fn all(store: &Store, shared: &Shared, network: &Arc<Network>) -> Result<(), StoreError> {
    // One that fails does not stand in the way of the others.
    let mut failed = Ok(());
    for id in store.adoptions()? {
        match one(store, shared, network, id).await {
            Ok(Some(adopted)) => {
                shared.trouble(id, None);
                shared.note(id, &in_words(&adopted));
                info!(?adopted, "a channel was adopted");
            }
            Ok(None) => {}
            Err(error) => failed = Err(error),
        }
    }
    failed
}

/// Asks on from where the store is, and has it finish; `None` where the channel belongs to another network.
async fn one(
    store: &Store,
    shared: &Shared,
    network: &Arc<Network>,
    id: ChannelId,
) -> Result<Option<Adopted>, StoreError> {
    let cap = match store.cap(id)? {
        Capability::Write(cap) => Arc::new(cap),
        Capability::Read(_) => return Err(StoreError::ReadOnly),
    };
    let adoption = store.adoption(id)?.ok_or(StoreError::NotAdopting)?;
    let mut next = adoption.next;
    let mut index = store.index_of(id, adoption.first)?;
    for _ in adoption.first.0..next.0 {
        index = index.next()?;
    }
    loop {
        let pass = match network.admit(store, id) {
            Ok(pass) => pass,
            Err(refusal @ Refusal::OtherNetwork) => {
                shared.trouble(id, Some(refusal.to_string()));
                return Ok(None);
            }
            Err(Refusal::Store(error)) => return Err(error),
        };
        let ours = Ours::load(store, id, next)?;
        let mut reads = JoinSet::new();
        for at in 0..READS as u64 {
            let seq = BoxSeq(next.0 + at);
            if !ours.is_stored(seq) {
                let (pass, cap, index, ours) =
                    (pass.clone(), Arc::clone(&cap), index.clone(), ours.payloads.get(&seq).cloned());
                reads.spawn(async move { (seq, learn(&pass, &cap, &index, ours.as_deref()).await) });
            }
            index = index.next()?;
        }
        let mut found: BTreeMap<BoxSeq, Finding> = BTreeMap::new();
        while let Some(read) = reads.join_next().await {
            match read {
                Ok((seq, Ok(finding))) => drop(found.insert(seq, finding)),
                Ok((_, Err(trouble))) => {
                    shared.trouble(id, Some(trouble.clone()));
                    return Err(StoreError::Io { reason: trouble });
                }
                Err(error) => return Err(StoreError::Io { reason: error.to_string() }),
            }
        }
        let findings: Vec<_> =
            (next.0..next.0 + READS as u64).map(|seq| found.remove(&BoxSeq(seq)).unwrap_or(Finding::Ours)).collect();
        // Where nothing was ever launched and nothing is, the other writer has ended.
        let over = (next.0..)
            .zip(&findings)
            .position(|(seq, finding)| seq >= adoption.launched_end.0 && *finding == Finding::Nothing);
        let kept = over.map_or(READS, |at| at + 1);
        store.found(id, next, findings[..kept].to_vec()).await?;
        if over.is_some() {
            return store.finish_adoption(id).await.map(Some);
        }
        next = BoxSeq(next.0 + READS as u64);
    }
}

/// Our own boxes at the next indices.
struct Ours {
    boxes: u64,
    tail: Option<u64>,
    /// Those that are not stored; the open tail has no bytes to compare.
    payloads: BTreeMap<BoxSeq, Vec<u8>>,
}

impl Ours {
    fn load(store: &Store, id: ChannelId, from: BoxSeq) -> Result<Self, StoreError> {
        let channel = store.channel(id)?.ok_or(StoreError::NoChannel)?;
        let outgoing = store.outgoing(id, from, READS)?;
        debug_assert!(outgoing.iter().all(|out| out.state < BoxState::Stored));
        Ok(Self {
            boxes: channel.boxes,
            tail: (channel.tail_bytes > 0).then(|| channel.boxes - 1),
            payloads: outgoing.into_iter().map(|out| (out.seq, out.payload)).collect(),
        })
    }

    /// A replica has confirmed it, so nobody has to ask.
    fn is_stored(&self, seq: BoxSeq) -> bool {
        seq.0 < self.boxes && self.tail != Some(seq.0) && !self.payloads.contains_key(&seq)
    }
}

/// What stands at one index; in words, why it could not be learned.
async fn learn(pass: &Pass, cap: &WriteCap, index: &BoxIndex, ours: Option<&[u8]>) -> Result<Finding, String> {
    let until = pass.deadline();
    let (mut not_founds, mut tries) = (0, 0);
    loop {
        match transfer::look(pass, cap.read_cap(), index).await {
            Ok(ReadOutcome::Box(bytes)) if ours == Some(&bytes[..]) => return Ok(Finding::Ours),
            Ok(ReadOutcome::Box(bytes)) if !bytes.is_empty() => return Ok(Finding::Foreign(bytes)),
            Ok(ReadOutcome::Box(_) | ReadOutcome::Tombstone) => return Ok(Finding::Tombstone),
            Ok(ReadOutcome::NotFound) => {
                not_founds += 1;
                if not_founds == NOT_FOUNDS {
                    return Ok(Finding::Nothing);
                }
            }
            Err(error) if Instant::now() >= until => return Err(error.to_string()),
            Err(_) => {
                sleep(pause_before_retry(tries)).await;
                tries += 1;
            }
        }
    }
}

/// What came of it, for a person.
pub(super) fn in_words(adopted: &Adopted) -> String {
    if adopted.foreign_boxes == 0 {
        return "nothing of another writer was found; the fence is lifted".to_owned();
    }
    format!(
        "{} boxes ({} bytes) of another writer are part of the channel now; {} boxes ({} bytes) of ours that met them go \
         behind them",
        adopted.foreign_boxes, adopted.foreign_bytes, adopted.replanned_boxes, adopted.replanned_bytes
    )
}
