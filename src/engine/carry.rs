//! What the delivery machine asks of the store, for whatever shell: nothing is decided here.

use std::time::SystemTime;

use crate::channel::{AdoptionEvent, CommitFailure, DeliveryEvent, Done, Fetched, Request, Time};
use crate::store::{
    Binding, BoxSeq, BoxState, Channel, ChannelId, Commit, Frontier, NetworkId, Role, Store, StoreError,
};

/// A request that is on its way to the disk.
pub(super) enum Submitted {
    Unit(Commit<()>),
    Sealed(Commit<bool>),
    Bound(Commit<Binding>),
    Recorded(Option<Commit<Binding>>, Commit<Frontier>),
}

/// Submits what is to be committed. Commits keep the order in which they are submitted.
pub(super) fn submit(store: &Store, channel: Option<ChannelId>, request: Request) -> Submitted {
    let id = channel.unwrap_or(ChannelId(0));
    match request {
        Request::Seal => Submitted::Sealed(store.seal_tail(id)),
        Request::Fit { max_plaintext } => Submitted::Unit(store.set_max_plaintext(id, max_plaintext)),
        Request::Launch { rewrites, boxes, network } => Submitted::Bound(store.launch(id, rewrites, boxes, network)),
        Request::Confirm { seq, to } => Submitted::Unit(store.confirm(id, vec![seq], to)),
        Request::Fence { reason } => Submitted::Unit(store.fence(id, reason)),
        Request::Record { seq, arrival, bind } => {
            let bound = bind.map(|network| store.bind_network(id, network));
            Submitted::Recorded(bound, store.received(id, vec![(seq, arrival)]))
        }
        Request::Epoch(epoch) => Submitted::Unit(store.set_replica_epoch(epoch)),
    }
}

impl Submitted {
    /// What came of it.
    pub(super) async fn ended(self) -> Result<Done, CommitFailure> {
        match self {
            Self::Unit(commit) => commit.await.map(|()| Done::Made),
            Self::Sealed(commit) => commit.await.map(|_| Done::Made),
            Self::Bound(commit) => commit.await.map(Done::Binding),
            Self::Recorded(bound, recorded) => {
                // A binding that failed is made with the next box.
                let bound = match bound {
                    Some(commit) => commit.await.ok(),
                    None => None,
                };
                recorded.await.map(|_| bound.map_or(Done::Made, Done::Binding))
            }
        }
        .map_err(failure)
    }
}

fn failure(error: StoreError) -> CommitFailure {
    match error {
        StoreError::NoChannel | StoreError::Closed => CommitFailure::Needless,
        error => CommitFailure::Failed(error.to_string()),
    }
}

/// A channel as the store has it, at a time of the wall clock.
pub(super) fn look(store: &Store, id: ChannelId, wall: SystemTime) -> Option<DeliveryEvent> {
    match store.channel(id) {
        Ok(Some(channel)) => {
            let age = wall.duration_since(channel.created).unwrap_or_default();
            Some(DeliveryEvent::Found { channel: Box::new(channel), age })
        }
        Ok(None) => Some(DeliveryEvent::Gone(id)),
        Err(StoreError::Closed) => None,
        Err(_) => Some(DeliveryEvent::LookFailed(id)),
    }
}

/// All channels, in pages: a store of thousands costs no more memory than what is remembered of each.
pub(super) fn list(store: &Store, wall: SystemTime, mut tell: impl FnMut(DeliveryEvent)) {
    let mut after = None;
    loop {
        let page = match store.channels(after.as_ref(), 256) {
            Ok(page) => page,
            Err(StoreError::Closed) => return,
            Err(_) => return tell(DeliveryEvent::Listed(false)),
        };
        let Some(last) = page.last() else { return tell(DeliveryEvent::Listed(true)) };
        after = Some(last.name.clone());
        for channel in page {
            let age = wall.duration_since(channel.created).unwrap_or_default();
            tell(DeliveryEvent::Found { channel: Box::new(channel), age });
        }
    }
}

/// Boxes of a writer that are not stored, from `from` on.
pub(super) fn fetch(
    store: &Store,
    channel: ChannelId,
    from: BoxSeq,
    limit: usize,
    now: Time,
    wall: SystemTime,
) -> DeliveryEvent {
    let Ok(found) = store.outgoing_states(channel, from, limit) else { return DeliveryEvent::FetchFailed(channel) };
    let boxes = found.into_iter().map(|(seq, state, since)| {
        let age = since.and_then(|since| wall.duration_since(since).ok()).unwrap_or_default();
        let fetched = match state {
            BoxState::Couriered => Fetched::Couriered { since: now.saturating_sub(age) },
            BoxState::Sealed => Fetched::Sealed,
            _ => Fetched::Launched,
        };
        (seq, fetched)
    });
    DeliveryEvent::Fetched { channel, boxes: boxes.collect() }
}

/// Where a channel stands that is to be probed.
pub(super) fn load(store: &Store, id: ChannelId) -> DeliveryEvent {
    let Ok(Some(channel)) = store.channel(id) else { return DeliveryEvent::NotLoaded(id) };
    match store.arrived_past(id, channel.frontier) {
        Ok(arrived) => DeliveryEvent::Loaded { channel: Box::new(channel), arrived },
        Err(_) => DeliveryEvent::NotLoaded(id),
    }
}

/// Our own boxes at the next indices of a channel that is being adopted.
pub(super) fn adoption_loaded(
    store: &Store,
    id: ChannelId,
    from: BoxSeq,
    limit: usize,
) -> Result<AdoptionEvent, StoreError> {
    let channel = store.channel(id)?.ok_or(StoreError::NoChannel)?;
    let outgoing = store.outgoing(id, from, limit)?.into_iter().map(|out| (out.seq, out.payload));
    Ok(AdoptionEvent::Loaded {
        boxes: channel.boxes,
        tail: (channel.tail_bytes > 0).then(|| BoxSeq(channel.boxes - 1)),
        outgoing: outgoing.collect(),
    })
}

/// Whether operations of a channel may reach this network (design §5). What a channel writes, it writes to the network that
/// it is bound to; what it reads, it may ask of any network until its first box has bound it.
pub(super) fn admits(present: &NetworkId, channel: &Channel) -> bool {
    match &channel.network {
        Some(bound) => bound.is_same_network_as(present),
        None => channel.role == Role::Reader,
    }
}

/// What an operation takes from the store.
pub(super) struct Content {
    /// What is written, or compared with what is found.
    pub(super) payload: Vec<u8>,
    pub(super) index: crate::bacap::BoxIndex,
}

/// The box of an operation; in words, why it is not to be done.
pub(super) fn content(store: &Store, id: ChannelId, seq: BoxSeq, reads: bool) -> Result<Content, String> {
    let told = |error: StoreError| error.to_string();
    if reads {
        return match store.channel(id).map_err(told)? {
            Some(channel) if channel.paused => {
                Err("the cache is full, so nothing more is fetched: make room with `pigeonfs trim`".to_owned())
            }
            _ => Ok(Content { payload: Vec::new(), index: store.index_of(id, seq).map_err(told)? }),
        };
    }
    let out = store.outgoing(id, seq, 1).map_err(told)?.pop().filter(|out| out.seq == seq);
    let out = out.ok_or_else(|| format!("box {seq} is stored, or gone"))?;
    Ok(Content { payload: out.payload, index: out.index })
}
