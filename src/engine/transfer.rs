//! One box over the network: an envelope made on a crypto connection, sent on a traffic connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::network::Pass;
use crate::bacap::{BoxIndex, ReadCap, WriteCap};
#[cfg(test)]
use crate::channel::bugs::{Bug, has};
use crate::channel::{Answer, End, Ending, Foreign, Line, Operation, Outcome, ReadBack};
use crate::store::{Arrival, Capability};
use crate::thin::{self, Client, Envelope, ErrorKind, Missing, ReadOutcome, WriteMode, WriteOutcome};

/// One box that is to be written or read, and what it takes.
pub(super) struct Parcel {
    pub(super) what: Operation,
    pub(super) cap: Arc<Capability>,
    pub(super) index: BoxIndex,
    /// What is written, or compared with what is found.
    pub(super) payload: Vec<u8>,
}

fn well(end: End) -> Ending {
    Ending { end, arrival: None, trouble: None }
}

/// What the end of a write means for its box.
pub(super) fn written(strict: bool, ended: Result<WriteOutcome, thin::Error>) -> Ending {
    let outcome = match ended {
        Ok(WriteOutcome::AlreadyExists) => Outcome::Occupied,
        Ok(WriteOutcome::Done) if strict => Outcome::Stored,
        #[cfg(test)]
        Ok(WriteOutcome::Done) if has(Bug::CourierIsReplica) => Outcome::Stored,
        Ok(WriteOutcome::Done) => Outcome::Couriered,
        #[cfg(test)]
        Err(thin::Error { kind: ErrorKind::Timeout, .. }) if has(Bug::TimeoutIsSuccess) => Outcome::Stored,
        Err(error) => return failed(Operation::Write { strict }, &error),
    };
    well(End::Written(outcome))
}

/// What the end of a read says of its box; that of an occupied index is compared with what we meant to write.
pub(super) fn read(what: Operation, payload: &[u8], ended: Result<ReadOutcome, thin::Error>) -> Ending {
    let found = match ended {
        Ok(found) => found,
        Err(error) => return failed(what, &error),
    };
    if what == Operation::ReadBack {
        // The same bytes under another padding are our own. No tombstone is: this store orders one only for a box
        // that a replica has confirmed, and such a box is never read back.
        return well(End::WasRead(match found {
            ReadOutcome::Box(bytes) if bytes == payload => ReadBack::Ours,
            ReadOutcome::Box(bytes) if bytes.is_empty() => ReadBack::Foreign(Foreign::Tombstone),
            ReadOutcome::Box(_) => ReadBack::Foreign(Foreign::Bytes),
            ReadOutcome::Tombstone => ReadBack::Foreign(Foreign::Tombstone),
            ReadOutcome::NotFound => ReadBack::Unknown,
        }));
    }
    let arrival = match found {
        ReadOutcome::Box(bytes) => Arrival::Message(bytes),
        ReadOutcome::Tombstone => Arrival::Tombstone,
        ReadOutcome::NotFound => return well(End::Answered(Answer::NotYet)),
    };
    Ending { end: End::Answered(Answer::Arrived), arrival: Some(arrival), trouble: None }
}

pub(super) fn failed(what: Operation, error: &thin::Error) -> Ending {
    let mut ending = Ending::vain(what, error.to_string());
    if let End::Written(outcome) = &mut ending.end {
        *outcome = match error.kind {
            // Whatever refuses is shown, and the box is tried again: neither a replica nor a daemon may stop a
            // channel for good. One that no longer fits was looked up before the boxes were fitted to this network.
            ErrorKind::Courier(31 | 32) | ErrorKind::Unauthentic(22) | ErrorKind::Replica(8) => Outcome::Stale,
            _ => Outcome::Again,
        };
    }
    ending
}

/// Makes the envelope, fresh.
pub(super) async fn prepare(parcel: &Parcel, crypto: &Client, deadline: Instant) -> Result<Envelope, Ending> {
    let made = match (parcel.what, &*parcel.cap) {
        (Operation::Write { .. }, Capability::Write(cap)) => {
            crypto.encrypt_write(cap, &parcel.index, &parcel.payload, deadline).await
        }
        (Operation::Write { .. }, Capability::Read(_)) => {
            return Err(Ending::vain(parcel.what, "only the read capability is here".to_owned()));
        }
        (_, Capability::Write(cap)) => crypto.encrypt_read(cap.read_cap(), &parcel.index, deadline).await,
        (_, Capability::Read(cap)) => crypto.encrypt_read(cap, &parcel.index, deadline).await,
    };
    made.map_err(|error| failed(parcel.what, &error))
}

/// Sends the envelope and waits for the end.
pub(super) async fn transmit(parcel: &Parcel, envelope: &Envelope, traffic: &Client, deadline: Instant) -> Ending {
    if let (Operation::Write { strict }, Capability::Write(cap)) = (parcel.what, &*parcel.cap) {
        let mode = if strict { WriteMode::Strict } else { WriteMode::Default };
        return written(strict, traffic.start_write(cap, envelope, mode, deadline).await);
    }
    let cap = match &*parcel.cap {
        Capability::Write(cap) => cap.read_cap(),
        Capability::Read(cap) => cap,
    };
    let found = traffic.start_read(cap, &parcel.index, envelope, Missing::Report, deadline).await;
    read(parcel.what, &parcel.payload, found)
}

/// Reads one box once, in a fresh envelope, beside what the scheduler does: for what a person has asked for by a verb.
pub(super) async fn look(pass: &Pass, cap: &ReadCap, index: &BoxIndex) -> Result<ReadOutcome, thin::Error> {
    let deadline = pass.deadline();
    let asked = async {
        let envelope = pass.crypto(0).encrypt_read(cap, index, deadline).await?;
        pass.traffic(Line::Main).start_read(cap, index, &envelope, Missing::Report, deadline).await
    };
    pass.unless_moved(thin::Operation::Read, asked).await
}

/// After a box that could not be asked for or sent, nothing else is asked for so long.
pub(super) const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Writes one box, until a replica has confirmed it or has said that it holds something else.
pub(super) async fn put(
    pass: &Pass,
    cap: &WriteCap,
    index: &BoxIndex,
    payload: &[u8],
) -> Result<WriteOutcome, thin::Error> {
    let deadline = pass.deadline();
    let written = async {
        let envelope = pass.crypto(0).encrypt_write(cap, index, payload, deadline).await?;
        pass.traffic(Line::Main).start_write(cap, &envelope, WriteMode::Strict, deadline).await
    };
    pass.unless_moved(thin::Operation::Write, written).await
}

/// Puts a tombstone over one box, until a replica has confirmed it.
pub(super) async fn tombstone(pass: &Pass, cap: &WriteCap, index: &BoxIndex) -> Result<(), thin::Error> {
    let deadline = pass.deadline();
    let written = async {
        let envelope = pass.crypto(0).encrypt_tombstone(cap, index, deadline).await?;
        pass.traffic(Line::Main).start_write(cap, &envelope, WriteMode::Strict, deadline).await.map(drop)
    };
    pass.unless_moved(thin::Operation::Write, written).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With somebody else's tombstones ahead, `append` and `wait` said "stored", and the reader had none of it.
    #[test]
    fn what_is_read_back_is_ours_only_if_its_bytes_are() {
        let found = |found| read(Operation::ReadBack, b"ours", Ok(found)).end;
        let was_read = |found| End::WasRead(ReadBack::Foreign(found));
        assert_eq!(found(ReadOutcome::Box(b"ours".to_vec())), End::WasRead(ReadBack::Ours));
        assert_eq!(found(ReadOutcome::Box(b"theirs".to_vec())), was_read(Foreign::Bytes));
        assert_eq!(found(ReadOutcome::Box(Vec::new())), was_read(Foreign::Tombstone));
        assert_eq!(found(ReadOutcome::Tombstone), was_read(Foreign::Tombstone));
        assert_eq!(found(ReadOutcome::NotFound), End::WasRead(ReadBack::Unknown));
    }
}
