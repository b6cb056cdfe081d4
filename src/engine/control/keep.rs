//! Longer than replicas keep anything: `keep`, `verify` and `resend`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::seq::IteratorRandom as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::dispatch::{Patience, find, parse};
use super::{Failure, FailureKind, Response};
use crate::bacap::ReadCap;
use crate::engine::keep::{self, Resent};
use crate::engine::network::Network;
use crate::engine::status::{RoleStatus, unix_seconds};
use crate::engine::{Owner, OwnerKind};
use crate::store::{
    BoxSeq, Capability, Channel, ChannelId, Content, Durability, Role, replica_epoch_at, replica_epoch_begins,
};
use crate::units::show_date;

/// How long a connection that is being made is waited for, to know the network's pace.
const CONNECTING: Duration = Duration::from_secs(5);
/// Where neither a network nor a channel tells, a box takes so many bytes.
const PROVISIONAL_MAX_PLAINTEXT: u64 = 1549;
/// Boxes that are asked for at a time.
const READS: usize = 4;
/// What runs without a deadline of its own ends after this time.
const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often a box is asked for, where no answer comes.
const TRIES: u32 = 3;

fn writes(owner: &Owner, name: &str) -> Result<Channel, Failure> {
    let channel = find(owner, name)?;
    if channel.role == Role::Reader {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("{name:?} is read here: only its writer can send its boxes again"),
        )
        .hint("ask its writer for `pigeonfs resend`; `pigeonfs verify NAME` shows what is missing"));
    }
    Ok(channel)
}

/// Keeps a channel until then, or says only what that would take.
pub(super) async fn keep(
    owner: &Owner,
    name: &str,
    until: Option<u64>,
    share: Option<f64>,
) -> Result<Response, Failure> {
    let channel = writes(owner, name)?;
    if let Some(until) = until {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(until);
        owner.store.keep(channel.id, until, share).await?;
        owner.engine.keep();
    }
    let counts = owner.store.kept_counts(channel.id)?;
    let share = match share {
        Some(share) => share,
        None => owner.store.keep_share(channel.id)?,
    };
    Ok(Response::Kept {
        boxes: counts.boxes,
        dropped_boxes: counts.dropped_boxes,
        expired_boxes: counts.expired_boxes,
        packets_per_two_weeks: counts.boxes.saturating_mul(4),
        gap_s: gap(owner, channel.id, share)?.as_secs(),
        first_expires_at: counts.oldest_epoch.map(|epoch| unix_seconds(replica_epoch_begins(epoch + 2))),
        sending: owner.kind != OwnerKind::Verb,
    })
}

/// From the moment when the boxes of an epoch expire until the last of them is there again, at most, while the network
/// answers. Boxes of all channels that are kept are sent one after another.
fn gap(owner: &Owner, id: ChannelId, share: f64) -> Result<Duration, Failure> {
    // Where no network was seen yet, its pace is not known.
    let pace = owner.engine.packets_per_second();
    let mut gap = owner.engine.operation_deadline();
    let mut add = |id, share| -> Result<(), Failure> {
        let boxes = u32::try_from(owner.store.kept_counts(id)?.most_in_an_epoch).unwrap_or(u32::MAX);
        gap = gap.saturating_add(keep::pause(pace, share).saturating_mul(boxes));
        Ok(())
    };
    add(id, share)?;
    for (other, share) in owner.store.kept_channels(now(owner)?)? {
        if other != id {
            add(other, share)?;
        }
    }
    Ok(gap)
}

/// Refuses to drop bytes of a channel that are to be sent again.
pub(super) fn check_not_needed(owner: &Owner, channel: &Channel) -> Result<(), Failure> {
    let now = now(owner)?;
    let Some(until) = channel.kept_until.filter(|until| channel.role == Role::Writer && *until > now) else {
        return Ok(());
    };
    let name = channel.name.as_str();
    let text =
        format!("{name:?} is kept on the network until {}: its bytes are needed here", show_date(unix_seconds(until)));
    Err(Failure::new(FailureKind::Refused, text).hint(format!("`pigeonfs keep {name} --for 0` ends that")))
}

/// The network's own time where it is known, to an epoch.
fn now(owner: &Owner) -> Result<SystemTime, Failure> {
    Ok(owner.store.replica_epoch_began()?.unwrap_or_else(SystemTime::now))
}

/// What sending so many bytes would take.
// Boxes are fewer than a float counts.
#[allow(clippy::cast_precision_loss)]
pub(super) async fn estimate(owner: &Owner, name: &str, lengths: &[(u64, u64)]) -> Result<Response, Failure> {
    let until = Instant::now() + CONNECTING;
    while owner.engine.connected().is_none() && owner.engine.daemon().error.is_none() && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
    }
    let network = owner.engine.connected();
    let channel = owner.store.by_name(&parse(name)?)?;
    let max = network.as_ref().map(|network| network.max_plaintext as u64);
    let max = max
        .or(channel.as_ref().map(|channel| channel.max_plaintext as u64))
        .unwrap_or(PROVISIONAL_MAX_PLAINTEXT)
        .max(1);
    let header_alone = channel.as_ref().is_some_and(|channel| channel.content == Content::Drop { allow_delete: true });
    let of_one = |&(head, body): &(u64, u64)| {
        if header_alone { head.div_ceil(max) + body.div_ceil(max) } else { head.saturating_add(body).div_ceil(max) }
    };
    let boxes: u64 = lengths.iter().map(of_one).sum();
    let packets_a_box = match &channel {
        Some(channel) if channel.durability == Durability::Couriered => 1,
        _ => 2,
    };
    let status = owner.engine.status()?;
    let writers = status.channels.iter().filter(|channel| channel.role == RoleStatus::Writer);
    let boxes_before: u64 = writers.map(|channel| channel.boxes.saturating_sub(channel.stored_boxes)).sum();
    let packets = boxes.saturating_mul(packets_a_box);
    let all = packets.saturating_add(boxes_before.saturating_mul(2));
    let seconds = all as f64 / owner.engine.packets_per_second();
    let epoch = network.as_ref().and_then(|network| network.replica_epoch);
    let epoch = epoch.unwrap_or_else(|| replica_epoch_at(SystemTime::now()));
    Ok(Response::Estimated {
        boxes,
        packets,
        boxes_before,
        seconds: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs(),
        pace_is_known: network.is_some(),
        first_expires_at: unix_seconds(replica_epoch_begins(epoch + 2)),
        kept_until: channel.and_then(|channel| channel.kept_until).map(unix_seconds),
    })
}

/// Stays and keeps all that is to be kept, until the time is up or nothing is.
pub(super) async fn run(owner: &Owner, deadline: Option<Instant>) -> Result<Response, Failure> {
    // One that stays does so without a daemon too.
    let mut patience = Patience::new(Some(deadline.unwrap_or_else(|| Instant::now() + LONG)));
    loop {
        if owner.store.kept_channels(now(owner)?)?.is_empty() {
            return Err(Failure::new(FailureKind::Failed, "no channel is to be kept")
                .hint("`pigeonfs keep NAME --for 90d` says which, and for how long"));
        }
        patience.check(owner, "channels are being kept")?;
        sleep(Duration::from_millis(500)).await;
    }
}

/// Asks the network for boxes of a channel, each once; with `repair`, what is gone of ours is sent again.
pub(super) async fn verify(
    owner: &Owner,
    name: &str,
    sample: Option<u64>,
    repair: Option<u64>,
    deadline: Option<Instant>,
) -> Result<Response, Failure> {
    let channel = if repair.is_some() { writes(owner, name)? } else { find(owner, name)? };
    let end = match channel.role {
        Role::Writer => channel.first_unstored.0,
        Role::Reader => channel.frontier.0,
    };
    let from = match repair {
        Some(offset) if offset > 0 => owner.store.box_at(channel.id, offset)?.0,
        _ => 0,
    };
    let deleted = owner.store.deleted_boxes(channel.id)?;
    let of_interest = (from..end).filter(|seq| {
        let at = deleted.partition_point(|range| range.end <= *seq);
        deleted.get(at).is_none_or(|range| !range.contains(seq))
    });
    let wanted: Vec<u64> = match sample {
        Some(count) => {
            let mut some = of_interest.sample(&mut rand::rng(), usize::try_from(count).unwrap_or(usize::MAX));
            some.sort_unstable();
            some
        }
        None => of_interest.collect(),
    };
    let cap = match owner.store.cap(channel.id)? {
        Capability::Write(cap) => cap.read_cap().clone(),
        Capability::Read(cap) => cap,
    };
    let mut patience = Patience::new(deadline);
    let network = loop {
        if let Some(refusal) = owner.engine.refusal(&channel) {
            return Err(Failure::new(FailureKind::Refused, refusal));
        }
        if let Some(network) = owner.engine.connected() {
            break network;
        }
        patience.check(owner, &format!("no box of {name:?} was asked for"))?;
        sleep(Duration::from_millis(50)).await;
    };
    let mut verifying = Verifying { there: 0, gone: Vec::new(), sent_again: 0, not_held: 0, unknown: 0 };
    let mut index = cap.index().clone();
    let mut at = 0;
    for page in wanted.chunks(READS) {
        // By whichever daemon, where there are several.
        let network = owner.engine.connected().unwrap_or_else(|| Arc::clone(&network));
        let mut asked = JoinSet::new();
        for &seq in page {
            while at < seq {
                index = index.next().map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
                at += 1;
            }
            let (store, network, cap, index) = (owner.store.clone(), Arc::clone(&network), cap.clone(), index.clone());
            asked.spawn(async move { (seq, ask(&store, &network, channel.id, &cap, &index).await) });
        }
        while let Some(answered) = asked.join_next().await {
            let (seq, is_there) = answered.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
            match is_there {
                Some(true) => verifying.there += 1,
                Some(false) => verifying.gone.push(seq),
                None => verifying.unknown += 1,
            }
        }
        if repair.is_some() {
            verifying.repair(owner, &network, &channel).await?;
        }
        let progress = format!("{} of {} boxes of {name:?} were asked for", verifying.asked(), wanted.len());
        patience.check(owner, &progress)?;
    }
    let boxes = end.max(channel.boxes);
    Ok(Response::Verified {
        there: verifying.there,
        gone: verifying.gone.len() as u64,
        first_gone: verifying.gone.iter().min().copied(),
        sent_again: verifying.sent_again,
        not_held: verifying.not_held,
        unanswered: verifying.unknown,
        not_asked: boxes.saturating_sub(verifying.asked()),
    })
}

struct Verifying {
    there: u64,
    gone: Vec<u64>,
    sent_again: u64,
    /// Gone, and its bytes are no longer here.
    not_held: u64,
    /// No answer came.
    unknown: u64,
}

impl Verifying {
    fn asked(&self) -> u64 {
        self.there + self.gone.len() as u64 + self.unknown + self.sent_again
    }

    /// Sends again what was found to be gone.
    async fn repair(&mut self, owner: &Owner, network: &Arc<Network>, channel: &Channel) -> Result<(), Failure> {
        let mut left = Vec::new();
        for seq in std::mem::take(&mut self.gone) {
            let Some(kept) = owner.store.stored_box(channel.id, BoxSeq(seq))? else {
                self.not_held += 1;
                left.push(seq);
                continue;
            };
            match keep::resend(&owner.store, network, channel.id, &kept).await? {
                Some(Resent::SentAgain) => {
                    self.sent_again += 1;
                    if let Some(epoch) = network.replica_epoch {
                        owner.store.put_in_epoch(channel.id, kept.seq, epoch).await?;
                    }
                }
                Some(Resent::There) => self.there += 1,
                Some(Resent::Foreign) => {
                    if !owner.engine.fence(channel.id, kept.seq).await? {
                        self.there += 1;
                        continue;
                    }
                    let reason = format!("box {seq} of this channel holds what another writer wrote");
                    return Err(Failure::new(FailureKind::Refused, reason).hint("`pigeonfs status` says what to do"));
                }
                Some(Resent::Unknown) | None => left.push(seq),
            }
        }
        self.gone = left;
        Ok(())
    }
}

/// Asks for one box, again where no answer comes.
async fn ask(
    store: &crate::store::Store,
    network: &Arc<Network>,
    id: crate::store::ChannelId,
    cap: &ReadCap,
    index: &crate::bacap::BoxIndex,
) -> Option<bool> {
    for _ in 0..TRIES {
        if let Some(is_there) = keep::is_there(store, network, id, cap, index).await {
            return Some(is_there);
        }
    }
    None
}
