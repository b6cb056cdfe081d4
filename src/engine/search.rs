//! Searching: drives the [`Gallop`] of a channel whose frontier may have expired.
//!
//! One search at a time, over all channels, and one read at a time. Reads are as far apart, on average, as a share of the
//! network's pace allows, the share of the probes of idle channels. What a channel's searches may spend in a day is taken
//! from the store before it is spent, and what is left is given back at the end: a process that is killed has spent the
//! day's budget, and the next one waits for the next day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::network::{Network, View};
use super::shared::Shared;
use super::transfer;
use crate::bacap::BoxIndex;
use crate::channel::{Answer, Gallop, GallopAction, GallopEvent, LEAST_PROBES, SEARCH_PROBES, Time};
use crate::store::{Arrival, BoxSeq, Capability, Channel, ChannelId, Searched, Store, StoreError};
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
        loop {
            let network = view.borrow_and_update().network.clone();
            if let Some(network) = network {
                let gone = async {
                    tokio::select! {
                        _ = view.changed() => {}
                        _ = stop.wait_for(|&stop| stop) => {}
                    }
                };
                tokio::pin!(gone);
                if let Err(error) = self.all(&network, gone.as_mut()).await {
                    warn!(%error, "a channel could not be searched");
                }
            }
            tokio::select! {
                () = self.asked.notified() => {}
                () = sleep(LOOK) => {}
                _ = stop.wait_for(|&stop| stop) => return,
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    async fn all(
        &self,
        network: &Network,
        mut gone: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), StoreError> {
        for id in self.store.stale()? {
            let Some(channel) = self.store.channel(id)?.filter(|channel| !self.shared.refuses(channel)) else {
                continue;
            };
            // Nothing is fetched for one that has no room.
            if channel.paused || channel.search_budget(SystemTime::now(), SEARCH_PROBES) < LEAST_PROBES {
                continue;
            }
            let granted = self.store.begin_search(id, SEARCH_PROBES, LEAST_PROBES).await?;
            if granted == 0 {
                continue;
            }
            let mut search = Search::new(&self.store, &channel, network, granted, self.share)?;
            let came = tokio::select! {
                came = search.run(self, network) => came?,
                () = &mut gone => Searched::BrokenOff,
            };
            let spent = search.gallop.spent();
            self.shared.searching(id, None);
            let over = came == Searched::BrokenOff;
            if !over {
                let text = told(&came, channel.frontier, search.span, spent);
                info!(channel = %channel.name, "{text}");
                self.shared.note(id, &text);
            }
            self.store.end_search(id, granted.saturating_sub(spent), came).await?;
            if over {
                return Ok(());
            }
        }
        Ok(())
    }
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
    span: u64,
    granted: u32,
    gallop: Gallop,
    began: Instant,
    /// Indices that were derived, by their distance from the frontier.
    indices: BTreeMap<u64, BoxIndex>,
    /// The lowest that has arrived.
    living: Option<(u64, Arrival)>,
}

impl Search {
    fn new(store: &Store, channel: &Channel, network: &Network, granted: u32, share: f64) -> Result<Self, StoreError> {
        let away = channel.stale_since.and_then(|since| since.elapsed().ok()).unwrap_or_default();
        let pace = network.pace.packets_per_second();
        // A writer can have come no further. A float that is beyond u64 saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let span = ((pace * away.as_secs_f64()) as u64).min(LONGEST_SPAN);
        let pause = Duration::try_from_secs_f64(PACKETS / (share * pace)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        Ok(Self {
            id: channel.id,
            frontier: channel.frontier,
            cap: store.cap(channel.id)?,
            span,
            granted,
            gallop: Gallop::new(Time::ZERO, span, granted, pause),
            began: Instant::now(),
            indices: BTreeMap::from([(0, store.index_of(channel.id, channel.frontier)?)]),
            living: None,
        })
    }

    async fn run(&mut self, searches: &Searches, network: &Network) -> Result<Searched, StoreError> {
        let mut event = GallopEvent::Tick;
        loop {
            // The next box may come by itself: then there is nothing to look for.
            if searches.store.channel(self.id)?.is_none_or(|channel| channel.stale_since.is_none()) {
                return Ok(Searched::BrokenOff);
            }
            let action = self.gallop.handle(self.began.elapsed(), rand::random(), event);
            searches.shared.searching(self.id, Some((self.gallop.spent(), self.granted)));
            event = match action {
                Some(GallopAction::Ask { offset }) => GallopEvent::Answered(self.ask(network, offset).await?),
                Some(GallopAction::Ended { living: None }) => return Ok(Searched::Nothing),
                Some(GallopAction::Ended { living: Some(offset) }) => {
                    let Some((_, arrival)) = self.living.take().filter(|(at, _)| *at == offset) else {
                        return Ok(Searched::BrokenOff);
                    };
                    let index = self.index(offset).await?;
                    return Ok(Searched::Found { seq: BoxSeq(self.frontier.0 + offset), index, arrival });
                }
                None => {
                    let at = self.gallop.next_timeout().unwrap_or_default();
                    sleep_until(self.began + at).await;
                    GallopEvent::Tick
                }
            };
        }
    }

    async fn ask(&mut self, network: &Network, offset: u64) -> Result<Answer, StoreError> {
        let index = self.index(offset).await?;
        let cap = match &self.cap {
            Capability::Read(cap) => cap,
            Capability::Write(cap) => cap.read_cap(),
        };
        let arrival = match transfer::look(network, cap, &index).await {
            Ok(ReadOutcome::Box(bytes)) => Arrival::Message(bytes),
            Ok(ReadOutcome::Tombstone) => Arrival::Tombstone,
            Ok(ReadOutcome::NotFound) => return Ok(Answer::NotYet),
            Err(_) => return Ok(Answer::Unknown),
        };
        self.living = Some((offset, arrival));
        Ok(Answer::Arrived)
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
