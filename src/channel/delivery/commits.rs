//! What the store is to commit, and what is tried again when that fails.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Action, Delivery, Shown};
use crate::channel::{SenderEvent, Time};
use crate::model::{Arrival, Binding, BoxSeq, BoxState, ChannelId, NetworkId};

/// The number of a commit: never used again by this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// What the store is to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fix the bytes of the open tail.
    Seal,
    /// Pack what was not launched for boxes of so many bytes.
    Fit {
        /// M.
        max_plaintext: usize,
    },
    /// Packets of these boxes may leave from then on, on this network.
    Launch {
        /// The channel's count of rewrites when they were looked up.
        rewrites: u64,
        /// Which.
        boxes: Vec<BoxSeq>,
        /// Where.
        network: NetworkId,
    },
    /// A courier or a replica has the box.
    Confirm {
        /// Which.
        seq: BoxSeq,
        /// [`BoxState::Couriered`] or [`BoxState::Stored`].
        to: BoxState,
    },
    /// The channel has failed for good.
    Fence {
        /// Why, in words for the person.
        reason: String,
    },
    /// Keep what the network said about a box.
    Record {
        /// Which.
        seq: BoxSeq,
        /// What.
        arrival: Arrival,
        /// Bind the channel to this network before.
        bind: Option<NetworkId>,
    },
    /// What the network says of its own time.
    Epoch(Option<u64>),
}

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is made.
    Made,
    /// The channel was bound, or compared, too.
    Binding(Binding),
}

/// Why a commit was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// The channel is gone, or the store is closed: nobody needs it any more.
    Needless,
    /// In words; it may be tried again.
    Failed(String),
}

/// Waits that a retry of bookkeeping makes: short at first, never longer than half a minute.
pub fn pause_before_retry(tries: u32) -> Duration {
    (Duration::from_millis(200) * 2_u32.pow(tries.min(8))).min(Duration::from_secs(30))
}

struct Pending {
    channel: Option<ChannelId>,
    request: Request,
    tries: u32,
    /// For which network a channel is fitted.
    known: Option<(NetworkId, usize)>,
}

/// Commits that are under way, and those that are tried again.
#[derive(Default)]
pub(super) struct Commits {
    next: u64,
    pending: HashMap<CommitId, Pending>,
    retries: BTreeMap<(Time, u64), Pending>,
}

impl Commits {
    pub(super) fn next_retry(&self) -> Option<Time> {
        self.retries.first_key_value().map(|(&(at, _), _)| at)
    }

    /// The sender that asked for them is gone: another looks at what came of them.
    pub(super) fn forget_launches(&mut self, id: ChannelId) {
        self.pending.retain(|_, of| of.channel != Some(id) || !matches!(of.request, Request::Launch { .. }));
    }
}

impl Delivery {
    pub(super) fn commit(&mut self, id: ChannelId, request: Request) {
        self.submit(Pending { channel: Some(id), request, tries: 0, known: self.known.clone() });
    }

    pub(super) fn commit_for_all(&mut self, request: Request) {
        self.submit(Pending { channel: None, request, tries: 0, known: None });
    }

    fn submit(&mut self, pending: Pending) {
        let commit = CommitId(self.commits.next);
        self.commits.next += 1;
        self.actions.push(Action::Commit { commit, channel: pending.channel, request: pending.request.clone() });
        self.commits.pending.insert(commit, pending);
    }

    pub(super) fn retry_commits(&mut self, now: Time) {
        while let Some(entry) = self.commits.retries.first_entry()
            && entry.key().0 <= now
        {
            let pending = entry.remove();
            // The network's time goes on meanwhile.
            if !matches!(pending.request, Request::Epoch(epoch) if epoch != self.replica_epoch) {
                self.submit(pending);
            }
        }
    }

    pub(super) fn committed(&mut self, now: Time, commit: CommitId, result: Result<Done, CommitFailure>) {
        let Some(mut pending) = self.commits.pending.remove(&commit) else { return };
        let id = pending.channel;
        match (result, id) {
            (Ok(Done::Binding(Binding::Refused)), Some(id)) => {
                self.show(id, Shown::Trouble(Some(OTHER_NETWORK.to_owned())));
                self.stop(id);
            }
            (Ok(done), Some(id)) => match pending.request {
                Request::Launch { boxes, .. } => self.tell_sender(now, id, SenderEvent::Launched { boxes }),
                Request::Fit { .. } => self.fits(now, id, pending.known),
                Request::Record { .. } if matches!(done, Done::Binding(_)) => drop(self.bound.insert(id)),
                _ => {}
            },
            (Ok(_), None) | (Err(CommitFailure::Needless), _) => {}
            (Err(CommitFailure::Failed(trouble)), Some(id)) if matches!(pending.request, Request::Launch { .. }) => {
                self.show(id, Shown::Trouble(Some(trouble)));
                if let Request::Launch { boxes, .. } = pending.request {
                    self.tell_sender(now, id, SenderEvent::LaunchFailed { boxes });
                }
            }
            (Err(CommitFailure::Failed(trouble)), Some(id)) if matches!(pending.request, Request::Record { .. }) => {
                self.not_recorded(now, id, trouble);
            }
            (Err(CommitFailure::Failed(trouble)), id) => {
                if let Some(id) = id {
                    self.show(id, Shown::Trouble(Some(trouble)));
                }
                let at = now + pause_before_retry(pending.tries);
                pending.tries = pending.tries.saturating_add(1);
                self.commits.retries.insert((at, commit.0), pending);
            }
        }
    }
}

/// Why a channel of another network is refused.
pub const OTHER_NETWORK: &str = "the channel belongs to another network than the one behind this daemon. Use the daemon of \
                                 its own network (--config or --daemon); nothing was sent";
