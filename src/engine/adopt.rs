//! Adopting: carries out what the [`Adoption`] of a fenced channel says, and has the store rewrite the channel when all is
//! known.
//!
//! Only a verb begins it. What was learned is committed as it comes, so that an end of this process at any point costs
//! a few reads at most; the next one goes on by itself. One channel at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::network::{Pass, Refusal, View};
use super::shared::Shared;
use super::{carry, transfer};
use crate::bacap::{BoxIndex, WriteCap};
use crate::channel::{Adoption, AdoptionAction, AdoptionEvent, Looked, pause_before_retry};
use crate::store::{Adopted, BoxSeq, Capability, ChannelId, Store, StoreError};
use crate::thin::ReadOutcome;

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
            let there = view.borrow_and_update().is_there();
            let worked = if there { all(&store, &shared, &mut view).await } else { Ok(()) };
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

async fn all(store: &Store, shared: &Shared, view: &mut watch::Receiver<View>) -> Result<(), StoreError> {
    // One that fails does not stand in the way of the others.
    let mut failed = Ok(());
    for id in store.adoptions()? {
        match one(store, shared, view, id).await {
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
    view: &mut watch::Receiver<View>,
    id: ChannelId,
) -> Result<Option<Adopted>, StoreError> {
    let cap = match store.cap(id)? {
        Capability::Write(cap) => Arc::new(cap),
        Capability::Read(_) => return Err(StoreError::ReadOnly),
    };
    let kept = store.adoption(id)?.ok_or(StoreError::NotAdopting)?;
    // An index at or before those that are asked for.
    let mut near = (kept.first, store.index_of(id, kept.first)?);
    let mut adoption = Adoption::new(kept.next, kept.launched_end);
    let began = Instant::now();
    let mut reads: JoinSet<(BoxSeq, Result<Looked, String>)> = JoinSet::new();
    let mut actions = VecDeque::from([adoption.load()]);
    loop {
        while let Some(action) = actions.pop_front() {
            let event = match action {
                AdoptionAction::Load { from, limit } => {
                    near = stepped(near, from)?;
                    carry::adoption_loaded(store, id, from, limit)?
                }
                AdoptionAction::Read { seq } => {
                    let Some(pass) = admitted(store, shared, view, id).await? else { return Ok(None) };
                    let (cap, (_, index)) = (Arc::clone(&cap), stepped(near.clone(), seq)?);
                    reads.spawn(async move { (seq, look(&pass, &cap, &index).await) });
                    continue;
                }
                AdoptionAction::Keep { from, findings } => {
                    store.found(id, from, findings).await?;
                    AdoptionEvent::Kept
                }
                AdoptionAction::Finish => return store.finish_adoption(id).await.map(Some),
            };
            actions.extend(adoption.handle(began.elapsed(), event));
        }
        let timer = adoption.next_timeout();
        let event = tokio::select! {
            Some(read) = reads.join_next() => match read {
                Ok((seq, Ok(found))) => AdoptionEvent::Read { seq, found },
                Ok((seq, Err(trouble))) => {
                    shared.trouble(id, Some(trouble));
                    AdoptionEvent::Read { seq, found: Looked::Unknown }
                }
                Err(error) => return Err(StoreError::Io { reason: error.to_string() }),
            },
            () = sleep_until(began + timer.unwrap_or_default()), if timer.is_some() => AdoptionEvent::Tick,
            else => return Err(StoreError::NotAdopting),
        };
        actions.extend(adoption.handle(began.elapsed(), event));
    }
}

/// The index of a box, from one at or before it.
fn stepped((at, mut index): (BoxSeq, BoxIndex), seq: BoxSeq) -> Result<(BoxSeq, BoxIndex), StoreError> {
    for _ in at.0..seq.0 {
        index = index.next()?;
    }
    Ok((seq, index))
}

/// The leave to use the network, as soon as one is there; `None` where the channel belongs to another one.
async fn admitted(
    store: &Store,
    shared: &Shared,
    view: &mut watch::Receiver<View>,
    id: ChannelId,
) -> Result<Option<Pass>, StoreError> {
    let seen = view.wait_for(View::is_there).await.map(|view| view.any());
    let Ok(Some(network)) = seen else { return Ok(None) };
    match network.admit(store, id) {
        Ok(pass) => Ok(Some(pass)),
        Err(refusal @ Refusal::OtherNetwork) => {
            shared.trouble(id, Some(refusal.to_string()));
            Ok(None)
        }
        Err(Refusal::Store(error)) => Err(error),
    }
}

/// What stands at one index; in words, why it could not be learned this time.
async fn look(pass: &Pass, cap: &WriteCap, index: &BoxIndex) -> Result<Looked, String> {
    match transfer::look(pass, cap.read_cap(), index).await {
        Ok(ReadOutcome::Box(bytes)) => Ok(Looked::Box(bytes)),
        Ok(ReadOutcome::Tombstone) => Ok(Looked::Tombstone),
        Ok(ReadOutcome::NotFound) => Ok(Looked::NotFound),
        Err(error) => Err(error.to_string()),
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
