//! Keeping: what has expired of a channel is asked for, and sent again where it is gone: the same bytes at the same index.
//!
//! Over all channels, the oldest boxes first, at a share of the network's pace. No box is asked for before the replica
//! epoch in which it can have expired. What came of each is committed, so an end of the process costs one read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::network::{Network, Refusal, View};
use super::shared::Shared;
use super::transfer;
use crate::bacap::{BoxIndex, ReadCap};
use crate::store::{BoxSeq, Capability, ChannelId, KeptBox, Store, StoreError, replica_epoch_begins};
use crate::thin::{self, ReadOutcome, WriteOutcome};

/// How often expired boxes are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// No pause between two boxes is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Packets that a read and a write take, each confirmed.
const PACKETS: f64 = 4.0;
/// Boxes that are asked for or sent at a time.
const IN_FLIGHT: usize = 8;
/// Replicas may begin an epoch later than the document says so. What is found then may be gone a moment later, so it is
/// asked for again after this time.
const EPOCH_BEGINS_LATE: Duration = Duration::from_secs(600);
/// A box for which no answer came is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// While so many boxes of a channel wait to be asked for again, no others of it are.
const MOST_WAITING: usize = 64;

/// Sends expired boxes of a store's channels again.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    /// A verb has asked for it.
    pub(super) asked: Arc<Notify>,
}

/// The result of asking for one box, and of sending it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resent {
    /// It is there.
    There,
    /// It was gone, and is there again.
    SentAgain,
    /// Another writer's bytes stand there, or a tombstone.
    Foreign,
    /// No answer.
    Unknown,
}

/// Boxes that are on their way, or wait to be asked for again: until when.
#[derive(Default)]
struct Waiting(BTreeMap<(ChannelId, BoxSeq), Option<Instant>>);

impl Waiting {
    fn of(&self, id: ChannelId) -> Vec<BoxSeq> {
        self.0.range((id, BoxSeq(0))..=(id, BoxSeq(u64::MAX))).map(|((_, seq), _)| *seq).collect()
    }

    /// Forgets those whose time has come; says when the next one comes.
    fn wake(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|_, until| until.is_none_or(|until| until > now));
        self.0.values().flatten().min().copied()
    }
}

/// The replica epoch that the network tells, and since when.
#[derive(Clone, Copy)]
struct Epoch {
    number: u64,
    seen: Instant,
}

impl Epoch {
    /// When what is found is believed to stay: `None`, at once.
    fn settles(self) -> Option<Instant> {
        let has_settled = SystemTime::now() >= replica_epoch_begins(self.number) + EPOCH_BEGINS_LATE;
        let settles = self.seen + EPOCH_BEGINS_LATE;
        (!has_settled && settles > Instant::now()).then_some(settles)
    }
}

type Done = (ChannelId, KeptBox, u64, Result<Option<Resent>, StoreError>);

impl Keeper {
    /// Keeps what is to be kept, until `stop` changes.
    pub(super) async fn run(self, view: watch::Receiver<View>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep(view) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn keep(&self, mut view: watch::Receiver<View>) {
        let (mut under_way, mut waiting) = (JoinSet::<Done>::new(), Waiting::default());
        let mut epoch: Option<Epoch> = None;
        let (mut next, mut sent) = (Instant::now(), 0_u64);
        loop {
            let (network, number, packets_per_second) = {
                let view = view.borrow_and_update();
                (view.any(), view.replica_epoch(), view.packets_per_second())
            };
            if let Some(number) = number.filter(|&number| epoch.is_none_or(|epoch| epoch.number != number)) {
                epoch = Some(Epoch { number, seen: Instant::now() });
            }
            let woken = waiting.wake(Instant::now());
            let mut idle = true;
            if let (Some(network), Some(now)) = (&network, number)
                && under_way.len() < IN_FLIGHT
                && next <= Instant::now()
            {
                match self.oldest(network, now, &waiting) {
                    Ok(Some((id, share, kept))) => {
                        waiting.0.insert((id, kept.seq), None);
                        let (store, network) = (self.store.clone(), Arc::clone(network));
                        next = Instant::now() + pause(packets_per_second, share);
                        idle = false;
                        under_way.spawn(async move {
                            let resent = resend(&store, &network, id, &kept).await;
                            (id, kept, now, resent)
                        });
                    }
                    Ok(None) => {}
                    Err(StoreError::Closed) => return,
                    Err(error) => warn!(%error, "what is to be kept could not be looked up; trying again"),
                }
            } else if number.is_some() && next > Instant::now() {
                idle = false;
            }
            if idle && under_way.is_empty() && sent > 0 {
                info!(boxes = std::mem::take(&mut sent), "expired boxes are on the network again");
            }
            let look = if idle { Instant::now() + LOOK } else { next };
            tokio::select! {
                Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                    // One that panicked waits until this process ends.
                    let Ok((id, kept, now, resent)) = done else { continue };
                    let until = match self.settle(id, &kept, now, epoch, resent).await {
                        Ok(Settled::SentAgain) => { sent += 1; None }
                        Ok(Settled::Done) => None,
                        Ok(Settled::AskAgain(at)) => Some(at),
                        Err(StoreError::Closed) => return,
                        Err(error) => {
                            warn!(%error, "what is kept could not be committed; trying again");
                            Some(Instant::now() + ASK_AGAIN)
                        }
                    };
                    match until {
                        Some(_) => waiting.0.insert((id, kept.seq), until),
                        None => waiting.0.remove(&(id, kept.seq)),
                    };
                }
                () = self.asked.notified() => {}
                changed = view.changed() => if changed.is_err() { return },
                () = sleep_until(woken.map_or(look, |woken| woken.min(look))), if under_way.len() < IN_FLIGHT => {}
            }
        }
    }

    /// The oldest box that has expired, over all channels, and the share of the pace that sending it may take.
    fn oldest(
        &self,
        network: &Arc<Network>,
        epoch: u64,
        waiting: &Waiting,
    ) -> Result<Option<(ChannelId, f64, KeptBox)>, StoreError> {
        let mut oldest: Option<(ChannelId, f64, KeptBox)> = None;
        // By the network's own time: this machine's clock may be wrong.
        for (id, share) in self.store.kept_channels(replica_epoch_begins(epoch))? {
            let passed = waiting.of(id);
            if passed.len() >= MOST_WAITING || network.admit(&self.store, id).is_err() {
                continue;
            }
            let Some(found) = self.store.expired_box(id, epoch, &passed)? else { continue };
            if oldest.as_ref().is_none_or(|(_, _, kept)| (found.epoch, found.seq) < (kept.epoch, kept.seq)) {
                oldest = Some((id, share, found));
            }
        }
        Ok(oldest)
    }

    async fn settle(
        &self,
        id: ChannelId,
        kept: &KeptBox,
        now: u64,
        epoch: Option<Epoch>,
        resent: Result<Option<Resent>, StoreError>,
    ) -> Result<Settled, StoreError> {
        let again = || Settled::AskAgain(Instant::now() + ASK_AGAIN);
        Ok(match resent {
            Ok(Some(Resent::SentAgain)) => {
                self.store.put_in_epoch(id, kept.seq, now).await?;
                Settled::SentAgain
            }
            Ok(Some(Resent::There)) => match epoch.filter(|epoch| epoch.number == now).map(Epoch::settles) {
                // What is there although its time was over was put there later than was known.
                Some(None) => {
                    self.store.put_in_epoch(id, kept.seq, now.saturating_sub(1)).await?;
                    Settled::Done
                }
                Some(Some(settles)) => Settled::AskAgain(settles),
                None => again(),
            },
            Ok(Some(Resent::Foreign)) => {
                fence(&self.store, &self.shared, id, kept.seq).await?;
                again()
            }
            Ok(Some(Resent::Unknown) | None) => again(),
            // It was forgotten meanwhile.
            Err(StoreError::NoChannel) => Settled::Done,
            Err(error) => return Err(error),
        })
    }
}

enum Settled {
    SentAgain,
    Done,
    /// Not before this time.
    AskAgain(Instant),
}

/// Fences a channel in which another writer's box was found; but not where its own file was deleted meanwhile. False: it was
/// not fenced.
pub(super) async fn fence(store: &Store, shared: &Shared, id: ChannelId, seq: BoxSeq) -> Result<bool, StoreError> {
    if store.stored_box(id, seq)?.is_none() {
        return Ok(false);
    }
    let reason = format!("box {seq} of this channel holds what another writer wrote");
    shared.note(id, &reason);
    store.fence(id, reason).await?;
    Ok(true)
}

/// How far apart boxes are, so that they take this share of the network's pace.
pub(super) fn pause(packets_per_second: f64, share: f64) -> Duration {
    Duration::try_from_secs_f64(PACKETS / (share * packets_per_second)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

/// Asks for a box, and sends it again where it is gone. `None`: the channel belongs to another network.
pub(super) async fn resend(
    store: &Store,
    network: &Arc<Network>,
    id: ChannelId,
    kept: &KeptBox,
) -> Result<Option<Resent>, StoreError> {
    let pass = match network.admit(store, id) {
        Ok(pass) => pass,
        Err(Refusal::OtherNetwork) => return Ok(None),
        Err(Refusal::Store(error)) => return Err(error),
    };
    let Capability::Write(cap) = store.cap(id)? else { return Err(StoreError::ReadOnly) };
    let found = |found: Result<ReadOutcome, thin::Error>| match found {
        Ok(ReadOutcome::Box(bytes)) if bytes == kept.payload => Some(Resent::There),
        Ok(ReadOutcome::Box(_) | ReadOutcome::Tombstone) => Some(Resent::Foreign),
        Ok(ReadOutcome::NotFound) => None,
        Err(_) => Some(Resent::Unknown),
    };
    if let Some(resent) = found(transfer::look(&pass, cap.read_cap(), &kept.index).await) {
        return Ok(Some(resent));
    }
    // A file that was deleted while the answer was on its way stays deleted.
    if store.stored_box(id, kept.seq)?.is_none() {
        return Ok(Some(Resent::Unknown));
    }
    Ok(Some(match transfer::put(&pass, &cap, &kept.index, &kept.payload).await {
        Ok(WriteOutcome::Done) => Resent::SentAgain,
        // A read may have been told wrongly that it is not there.
        Ok(WriteOutcome::AlreadyExists) => {
            found(transfer::look(&pass, cap.read_cap(), &kept.index).await).unwrap_or(Resent::Unknown)
        }
        Err(_) => Resent::Unknown,
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
        Err(_) => {
            sleep(transfer::PAUSE_AFTER_FAILURE).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_far_apart_as_their_share_allows() {
        assert_eq!(
            pause(1.0, 0.25),
            Duration::from_secs(16),
            "the docker network: a read and a write are four packets"
        );
        assert_eq!(pause(1.0, 1.0), Duration::from_secs(4));
        assert_eq!(pause(1e-9, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(0.0, 1.0), LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_passed_until_its_time_comes() {
        let (one, other) = (ChannelId(1), ChannelId(2));
        let mut waiting = Waiting::default();
        let later = Instant::now() + ASK_AGAIN;
        waiting.0.insert((one, BoxSeq(0)), Some(later));
        waiting.0.insert((one, BoxSeq(7)), None);
        waiting.0.insert((other, BoxSeq(3)), None);
        assert_eq!(waiting.wake(Instant::now()), Some(later));
        assert_eq!(waiting.of(one), [BoxSeq(0), BoxSeq(7)]);
        tokio::time::advance(ASK_AGAIN).await;
        assert_eq!(waiting.wake(Instant::now()), None);
        assert_eq!(waiting.of(one), [BoxSeq(7)], "what is on its way stays");
    }

    /// A box that was still there in the first minutes of an epoch was taken for one that had been sent later: it went a
    /// moment afterwards, and readers missed it for a week.
    #[tokio::test(start_paused = true)]
    async fn what_is_found_when_an_epoch_has_just_begun_is_asked_for_again() {
        let far = Epoch { number: 1 << 20, seen: Instant::now() };
        assert_eq!(far.settles(), Some(far.seen + EPOCH_BEGINS_LATE));
        tokio::time::advance(EPOCH_BEGINS_LATE).await;
        assert_eq!(far.settles(), None);
        let long_ago = Epoch { number: 1, seen: Instant::now() };
        assert_eq!(long_ago.settles(), None);
    }
}
