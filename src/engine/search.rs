//! Searching: drives the [`Gallop`] of a channel whose frontier may have expired.
//!
//! One search at a time, over all channels, and one read at a time. Reads are as far apart, on average, as a share of the
//! network's pace allows, the share of the probes of idle channels. What each read came to is committed before the next one
//! is asked: a search goes on where it was after a new document, a reconnect or a restart. What a channel's searches may
//! spend in a day is taken from the store before it is spent, and what is left is given back at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::network::{Refusal, View};
use super::shared::Shared;
use super::transfer;
use crate::bacap::BoxIndex;
use crate::channel::{Answer, Gallop, GallopAction, GallopEvent, LEAST_PROBES, SEARCH_PROBES, Time};
use crate::store::{
    Arrival, BoxSeq, Capability, Channel, ChannelId, REPLICA_EPOCH, RETENTION, Searched, Searching, Store, StoreError,
};
use crate::thin::ReadOutcome;

/// How often stale channels are looked for that no verb has told of.
const LOOK: Duration = Duration::from_secs(5);
/// No pause between two reads is longer, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Boxes past the frontier that are looked at, at most: the index of each is derived step by step, some seconds in all.
/// A writer of one box a second comes no further in two weeks.
const LONGEST_SPAN: u64 = 2 << 20;
/// Packets that a read takes.
const PACKETS: f64 = 2.0;

/// The searches of all channels.
#[derive(Clone)]
pub(super) struct Searches {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    /// A verb has asked for one.
    pub(super) asked: Arc<Notify>,
    /// The share of the network's pace that reads of searches may take.
    pub(super) share: f64,
}

impl Searches {
    /// Searches what is stale, until `stop` changes.
    pub(super) async fn run(self, mut view: watch::Receiver<View>, mut stop: watch::Receiver<bool>) {
        let searches = async {
            loop {
                match self.all(&mut view).await {
                    Ok(()) => {}
                    Err(StoreError::Closed) => return,
                    Err(error) => warn!(%error, "a channel could not be searched; trying again"),
                }
                tokio::select! {
                    () = self.asked.notified() => {}
                    () = sleep(LOOK) => {}
                }
            }
        };
        tokio::select! {
            () = searches => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn all(&self, view: &mut watch::Receiver<View>) -> Result<(), StoreError> {
        for id in self.store.stale()? {
            let (network, pace) = {
                let view = view.borrow_and_update();
                (view.any(), view.packets_per_second())
            };
            let Some(network) = network else { return Ok(()) };
            let Some(channel) = self.store.channel(id)?.filter(|channel| !network.is_foreign_to(channel)) else {
                continue;
            };
            // Nothing is fetched for one that has no room.
            if channel.paused {
                continue;
            }
            let span = span(&channel, network.replica_epoch, pace);
            let Some(so_far) = self.store.begin_search(id, SEARCH_PROBES, LEAST_PROBES, span).await? else {
                continue;
            };
            let mut search = Search::new(&self.store, &channel, so_far, pace, self.share)?;
            let came = search.run(self, view).await;
            self.shared.searching(id, None);
            let Some(came) = came? else { continue };
            if came != Searched::Needless {
                let text = told(&came, channel.frontier, search.so_far.span, search.gallop.spent());
                info!(channel = %channel.name, "{text}");
                self.shared.note(id, &text);
            }
            self.store.end_search(id, came).await?;
        }
        Ok(())
    }
}

/// How many boxes past the frontier the writer can have come since it was last seen there. What lives is two replica
/// epochs old at most, but may be behind more than was written in them. By the network's own epochs, where they are known.
// A float that is beyond u64 saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn span(channel: &Channel, epoch: Option<u64>, packets_per_second: f64) -> u64 {
    let away = match (channel.stale_epoch, epoch) {
        (Some(then), Some(now)) => {
            REPLICA_EPOCH.saturating_mul(u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX).saturating_add(1))
        }
        _ => channel.stale_since.and_then(|since| since.elapsed().ok()).unwrap_or_default(),
    };
    ((packets_per_second * away.max(RETENTION).as_secs_f64()) as u64).min(LONGEST_SPAN)
}

/// What came of a search, for a person.
fn told(came: &Searched, frontier: BoxSeq, span: u64, spent: u32) -> String {
    match came {
        Searched::Found { seq, .. } => format!(
            "a search found that boxes live from {seq} on: the {} between are lost, and `pigeonfs skip` goes on behind them",
            seq.0.saturating_sub(frontier.0)
        ),
        _ => format!("a search of {spent} reads over {span} boxes found nothing: what is here is all that there is"),
    }
}

/// The search of one channel.
struct Search {
    id: ChannelId,
    frontier: BoxSeq,
    cap: Capability,
    so_far: Searching,
    gallop: Gallop,
    began: Instant,
    /// Indices that were derived, by their distance from the frontier.
    indices: BTreeMap<u64, BoxIndex>,
}

impl Search {
    fn new(store: &Store, channel: &Channel, so_far: Searching, pace: f64, share: f64) -> Result<Self, StoreError> {
        let pause = Duration::try_from_secs_f64(PACKETS / (share * pace)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        let answers: Vec<_> = so_far.answers.iter().map(|&code| answer(code)).collect();
        Ok(Self {
            id: channel.id,
            frontier: channel.frontier,
            cap: store.cap(channel.id)?,
            gallop: Gallop::resumed(Time::ZERO, so_far.span, so_far.budget, pause, &answers),
            so_far,
            began: Instant::now(),
            indices: BTreeMap::from([(0, store.index_of(channel.id, channel.frontier)?)]),
        })
    }

    /// Searches to the end; `None`: it cannot go on now. What was learned is kept for then.
    async fn run(
        &mut self,
        searches: &Searches,
        view: &mut watch::Receiver<View>,
    ) -> Result<Option<Searched>, StoreError> {
        let mut event = GallopEvent::Tick;
        loop {
            // The next box may come by itself: then there is nothing to look for.
            let Some(channel) = searches.store.channel(self.id)? else { return Ok(None) };
            if channel.stale_since.is_none() || channel.frontier != self.frontier {
                return Ok(Some(Searched::Needless));
            }
            let action = self.gallop.handle(self.began.elapsed(), rand::random(), event);
            searches.shared.searching(self.id, Some((self.gallop.spent(), self.so_far.budget)));
            event = match action {
                Some(GallopAction::Ask { offset }) => {
                    let Some(answer) = self.ask(searches, view, offset).await? else { return Ok(None) };
                    searches.store.searched_so_far(self.id, self.so_far.clone()).await?;
                    GallopEvent::Answered(answer)
                }
                Some(GallopAction::Ended { living: None }) => return Ok(Some(Searched::Nothing)),
                Some(GallopAction::Ended { living: Some(offset) }) => {
                    return Ok(self.so_far.found.take().filter(|(at, ..)| *at == offset).map(
                        |(at, index, arrival)| Searched::Found { seq: BoxSeq(self.frontier.0 + at), index, arrival },
                    ));
                }
                None => {
                    let at = self.gallop.next_timeout().unwrap_or_default();
                    sleep_until(self.began + at).await;
                    GallopEvent::Tick
                }
            };
        }
    }

    /// Reads one box; `None` where nothing of the channel may reach the network that is there.
    async fn ask(
        &mut self,
        searches: &Searches,
        view: &mut watch::Receiver<View>,
        offset: u64,
    ) -> Result<Option<Answer>, StoreError> {
        let index = self.index(offset).await?;
        // A network that is away comes back, or another one does.
        let Ok(network) = view.wait_for(View::is_there).await.map(|view| view.any()) else {
            return Ok(None);
        };
        let pass = match network.map(|network| network.admit(&searches.store, self.id)) {
            Some(Ok(pass)) => pass,
            Some(Err(Refusal::Store(error))) => return Err(error),
            Some(Err(Refusal::OtherNetwork)) | None => return Ok(None),
        };
        let cap = match &self.cap {
            Capability::Read(cap) => cap,
            Capability::Write(cap) => cap.read_cap(),
        };
        let arrival = match transfer::look(&pass, cap, &index).await {
            Ok(ReadOutcome::Box(bytes)) => Some(Arrival::Message(bytes)),
            Ok(ReadOutcome::Tombstone) => Some(Arrival::Tombstone),
            Ok(ReadOutcome::NotFound) => {
                self.so_far.answers.push(NOT_YET);
                return Ok(Some(Answer::NotYet));
            }
            Err(_) => None,
        };
        self.so_far.answers.push(if arrival.is_some() { ARRIVED } else { UNKNOWN });
        Ok(Some(match arrival {
            Some(arrival) => {
                self.so_far.found = Some((offset, index, arrival));
                Answer::Arrived
            }
            None => Answer::Unknown,
        }))
    }

    /// The index of a box, from the nearest that was derived before it: up to a million steps, so not on this thread.
    async fn index(&mut self, offset: u64) -> Result<BoxIndex, StoreError> {
        let near = self.indices.range(..=offset).next_back().map(|(&at, index)| (at, index.clone()));
        let (near, index) = near.expect("that of the frontier is there");
        let derived =
            tokio::task::spawn_blocking(move || (near..offset).try_fold(index, |index, _| index.next())).await;
        let index = derived.map_err(|error| StoreError::Io { reason: error.to_string() })??;
        self.indices.insert(offset, index.clone());
        Ok(index)
    }
}

// How the store keeps what a read came to.
const UNKNOWN: u8 = 0;
const NOT_YET: u8 = 1;
const ARRIVED: u8 = 2;

fn answer(code: u8) -> Answer {
    match code {
        NOT_YET => Answer::NotYet,
        ARRIVED => Answer::Arrived,
        _ => Answer::Unknown,
    }
}
