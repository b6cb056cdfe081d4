//! The channel machines: what to send, what to ask for and when.
//!
//! Events and a time go in, actions come out; a shell ([`crate::engine`]) does what the actions say and answers
//! with events. Nothing here does I/O, reads a clock, draws randomness but from a seed that it was given, or waits, so that
//! a test or a simulation owns the world around it. Times are offsets from an epoch that the shell chooses.
//!
//! * [`Delivery`]: the one machine that a shell drives. It takes all decisions about the boxes of all channels.
//! * `Scheduler`: holds the machines of all channels and says what goes over the network next, and by which daemon.
//! * [`Pin`]: which network is used, where daemons are of several.
//! * [`Sender`]: takes the sealed boxes of one channel through *launched* to *stored*.
//! * [`Receiver`]: asks for the boxes of one channel at and past its frontier.
//! * [`Probes`]: when channels at rest are probed.
//! * [`Adoption`]: learns what another writer wrote into a fenced channel.
//! * [`Gallop`]: looks for the living boxes of a channel whose frontier may have expired.
//! * [`Linger`]: when a partial tail box is sealed.
//! * [`Pace`]: what the network's parameters mean for windows, deadlines and back-off.

mod adoption;
#[cfg(test)]
pub(crate) mod bugs;
mod delivery;
mod gallop;
mod linger;
mod pace;
mod probes;
mod receiver;
mod scheduler;
mod sender;

pub use crate::model::Durability;
pub use adoption::{ADOPTION_READS, Adoption, AdoptionAction, AdoptionEvent, Looked};
pub use delivery::{
    Action as DeliveryAction, CommitFailure, CommitId, Delivery, DeliveryConfig, Done, Ending, Event as DeliveryEvent,
    Misfit, NetworkView, OTHER_NETWORK, Pin, Request, Shown, pause_before_retry,
};
pub use gallop::{Gallop, GallopAction, GallopEvent, LEAST_PROBES, SEARCH_PROBES};
pub use linger::Linger;
pub use pace::{JointPace, Pace};
pub use probes::{PROBE_SHARE, Probes};
pub use receiver::{Answer, Receiver, ReceiverAction, ReceiverEvent};
pub use scheduler::{DaemonId, End, Line, MAX_DAEMONS, OperationId};
pub use sender::{
    Fetched, Foreign, MAX_UNCONFIRMED, Operation, Outcome, ReadBack, Sender, SenderAction, SenderEvent,
    UNCONFIRMED_FOR, Wants,
};

/// A time, as the offset from an epoch that the shell chooses.
pub type Time = std::time::Duration;
