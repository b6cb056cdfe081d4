//! What goes into the scheduler and comes out of it.

use std::fmt;

use crate::channel::{Answer, Operation, Outcome, ReadBack, ReceiverAction, SenderAction, SenderEvent};
use crate::model::{BoxSeq, ChannelId};

/// Most daemons that are used at once.
pub const MAX_DAEMONS: usize = 8;

/// One of the daemons of a network, counted from 0 in the order in which they were named; fewer than [`MAX_DAEMONS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DaemonId(pub u8);

impl fmt::Display for DaemonId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The number of an operation: never used again by this scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// Which connection to its daemon an operation goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// The first.
    Main,
    /// The one that is open while a short message and a backlog both wait.
    Second,
}

/// What the shell tells the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::channel) enum Event {
    /// The network became reachable by a daemon, or ceased to be. A sender then needs its own [`SenderEvent::Online`], once
    /// its boxes fit the network.
    Online(DaemonId, bool),
    /// To one channel's sender; [`SenderEvent::Ended`] and [`SenderEvent::WasRead`] come as [`Event::Ended`].
    Sender {
        /// Whose.
        channel: ChannelId,
        /// What happened.
        event: SenderEvent,
    },
    /// Answers [`Action::Load`].
    Loaded {
        /// Which channel.
        channel: ChannelId,
        /// The first box that has not arrived.
        frontier: BoxSeq,
        /// What is missing before this box is lost.
        lost_end: BoxSeq,
        /// Boxes past the frontier that have arrived.
        arrived: Vec<BoxSeq>,
    },
    /// Answers [`Action::Load`]: the channel cannot be read now.
    NotLoaded {
        /// Which channel.
        channel: ChannelId,
    },
    /// An envelope is made.
    Prepared {
        /// For which operation.
        operation: OperationId,
    },
    /// An operation has ended, before or after it was transmitted.
    Ended {
        /// Which.
        operation: OperationId,
        /// How.
        end: End,
    },
    /// Nothing but time.
    Tick,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A write.
    Written(Outcome),
    /// A read of an occupied index.
    WasRead(ReadBack),
    /// A read.
    Answered(Answer),
}

impl End {
    /// Whether the network has answered: how long that took tells of its pace.
    pub(super) fn is_answer(self) -> bool {
        !matches!(
            self,
            Self::Written(Outcome::Again | Outcome::Stale)
                | Self::WasRead(ReadBack::Unknown)
                | Self::Answered(Answer::Unknown)
        )
    }
}

/// What the scheduler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::channel) enum Action {
    /// What a sender wants committed or looked up.
    Sender {
        /// Whose.
        channel: ChannelId,
        /// What.
        action: SenderAction,
    },
    /// What a receiver wants committed.
    Receiver {
        /// Whose.
        channel: ChannelId,
        /// What.
        action: ReceiverAction,
    },
    /// Look up where a channel stands that is to be probed.
    Load {
        /// Which.
        channel: ChannelId,
    },
    /// A channel that was probed is at rest again, with its next probe planned.
    Rested {
        /// Which.
        channel: ChannelId,
    },
    /// Make the envelope of an operation, fresh.
    Prepare {
        /// Which.
        operation: OperationId,
        /// Whose box.
        channel: ChannelId,
        /// Which box.
        seq: BoxSeq,
        /// What is to be done with it.
        what: Operation,
        /// The daemon that makes the envelope, and that sends it.
        daemon: DaemonId,
        /// On which of its crypto connections, counted from 0.
        crypto: usize,
    },
    /// Send the envelope of an operation by its daemon, and wait for its end.
    Transmit {
        /// Which.
        operation: OperationId,
        /// The daemon that made the envelope.
        daemon: DaemonId,
        /// Over which of its connections.
        line: Line,
    },
    /// Nobody waits for an operation any more: its daemon is away, or too slow.
    GiveUp {
        /// Which.
        operation: OperationId,
    },
    /// The second connection to a daemon is needed no longer.
    CloseSecond {
        /// Which daemon.
        daemon: DaemonId,
    },
}
