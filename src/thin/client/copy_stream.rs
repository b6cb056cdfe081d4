//! A copy stream over several calls, that survives a crash between any two of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::elements::{MAX_TOMBSTONES, Part, Payload};
use super::{Client, Courier, Elements, WriteMode, WriteOutcome, malformed};
use crate::bacap::{BoxIndex, WriteCap};
use crate::thin::message::Octets;
use crate::thin::{Error, ErrorKind, Operation};

/// Boxes that a courier reads of one stream.
const MAX_BOXES: usize = 65_536;
/// Boxes of the temporary stream that are written at once.
const WINDOW: usize = 8;

/// A temporary stream in the making: what it is to write, how far it is written itself, and what is over for the next
/// call.
///
/// ```text
/// new ─ add, add, … ─ finish ─ write ─ copy
///        └─ save to_bytes() behind each; after a crash go on from_bytes()
/// ```
///
/// Each method changes it only once all that it asked for has been answered: after an error, a dropped future or a
/// crash it stands where it stood, and the same call can be made again. What was written twice is the same bytes at the
/// same index, which is no conflict. Its bytes hold capabilities: keep them as secret as those.
pub struct CopyStream {
    cap: WriteCap,
    /// Where the first of `unwritten` goes.
    next: BoxIndex,
    /// Elements that were made, and are not written yet.
    unwritten: Vec<Vec<u8>>,
    /// Elements in all.
    made: usize,
    buffer: Vec<u8>,
    finished: bool,
    /// A channel of the last call, to which the end is addressed; with nothing in it.
    last: Option<(WriteCap, BoxIndex)>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    cap: Octets,
    next: Octets,
    unwritten: Vec<Octets>,
    made: usize,
    buffer: Octets,
    finished: bool,
    last: Option<(Octets, Octets)>,
}

impl CopyStream {
    /// A stream under a capability that nothing was ever written under: make its seed at random, and use it once.
    pub fn new(cap: WriteCap) -> Self {
        let next = cap.index().clone();
        Self { cap, next, unwritten: Vec::new(), made: 0, buffer: Vec::new(), finished: false, last: None }
    }

    /// Adds payloads, each for its channel. Gives the index behind each one's last box.
    pub async fn add(
        &mut self,
        client: &Client,
        payloads: &[Payload],
        deadline: Instant,
    ) -> Result<Vec<BoxIndex>, Error> {
        let part = self.part()?;
        let made = client.envelopes_from_multi_payload(payloads, part, &self.buffer, deadline).await?;
        let next = self.take(made)?;
        self.last = payloads.last().zip(next.last()).map(|(payload, at)| (payload.write_cap.clone(), at.clone()));
        Ok(next)
    }

    /// Adds tombstones for `count` boxes of a channel from `start` on. Gives the index behind the last one.
    pub async fn add_tombstones(
        &mut self,
        client: &Client,
        cap: &WriteCap,
        start: &BoxIndex,
        count: u32,
        deadline: Instant,
    ) -> Result<BoxIndex, Error> {
        let mut at = start.clone();
        let mut left = count;
        while left > 0 {
            let some = left.min(MAX_TOMBSTONES);
            let part = self.part()?;
            let made = client.envelopes_from_tombstone_range(cap, &at, some, part, &self.buffer, deadline).await?;
            at = self.take(made)?.pop().ok_or_else(|| malformed(Operation::CourierEnvelopes, "no index"))?;
            self.last = Some((cap.clone(), at.clone()));
            left -= some;
        }
        Ok(at)
    }

    /// Ends the stream: nothing can be added any more. One with nothing in it is refused, as it could never be copied.
    pub async fn finish(&mut self, client: &Client, deadline: Instant) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let Some((write_cap, start)) = self.last.clone().filter(|_| !self.buffer.is_empty()) else {
            return Err(refused("nothing was added to the stream, and one without an element has no end"));
        };
        let nothing = [Payload { write_cap, start, bytes: Vec::new() }];
        let part = Part { is_last: true, ..self.part()? };
        let made = client.envelopes_from_multi_payload(&nothing, part, &self.buffer, deadline).await?;
        self.take(made)?;
        self.finished = true;
        Ok(())
    }

    /// Writes what was made and is not written yet, so that replicas have confirmed it. Save the stream before: a crash
    /// in here then leaves only boxes that are written again with the same bytes.
    pub async fn write(&mut self, client: &Client, deadline: Instant) -> Result<(), Error> {
        while !self.unwritten.is_empty() {
            let some = self.unwritten.len().min(WINDOW);
            let mut at = self.next.clone();
            let mut writing = JoinSet::new();
            for element in &self.unwritten[..some] {
                let next = at.next().map_err(|error| refused(&error.to_string()))?;
                let (client, cap, element, at) =
                    (client.clone(), self.cap.clone(), element.clone(), std::mem::replace(&mut at, next));
                writing.spawn(async move {
                    let envelope = client.encrypt_write(&cap, &at, &element, deadline).await?;
                    match client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await? {
                        WriteOutcome::Done => Ok(()),
                        WriteOutcome::AlreadyExists => {
                            Err(Error { operation: Operation::Write, kind: ErrorKind::Replica(10) })
                        }
                    }
                });
            }
            while let Some(written) = writing.join_next().await {
                written.map_err(|_| Error { operation: Operation::Write, kind: ErrorKind::Closed })??;
            }
            self.unwritten.drain(..some);
            self.next = at;
        }
        Ok(())
    }

    /// Has a courier carry the stream out: see [`Client::start_copy`]. It must be finished and written.
    pub async fn copy(&self, client: &Client, courier: Courier, deadline: Instant) -> Result<(), Error> {
        if !self.finished || !self.unwritten.is_empty() {
            return Err(refused("the stream is not finished, or not all of it is written"));
        }
        client.start_copy(&self.cap, courier, deadline).await
    }

    /// The capability of the stream itself, by which its copy command is cancelled.
    pub fn cap(&self) -> &WriteCap {
        &self.cap
    }

    /// Elements that [`Self::write`] is still to write.
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// All that has to be kept to go on after a crash.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let saved = Saved {
            cap: Octets::from(&self.cap.to_bytes()[..]),
            next: Octets::from(&self.next.as_bytes()[..]),
            unwritten: self.unwritten.iter().map(|element| Octets::from(element.as_slice())).collect(),
            made: self.made,
            buffer: Octets::from(self.buffer.as_slice()),
            finished: self.finished,
            last: self
                .last
                .as_ref()
                .map(|(cap, at)| (Octets::from(&cap.to_bytes()[..]), Octets::from(&at.as_bytes()[..]))),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        ciborium::into_writer(&saved, &mut *bytes).expect("into memory");
        bytes
    }

    /// What [`Self::to_bytes`] kept; `None` where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let saved: Saved = ciborium::from_reader(bytes).ok()?;
        let last = match saved.last {
            Some((cap, at)) => Some((WriteCap::from_bytes(&cap).ok()?, BoxIndex::from_bytes(&at).ok()?)),
            None => None,
        };
        Some(Self {
            cap: WriteCap::from_bytes(&saved.cap).ok()?,
            next: BoxIndex::from_bytes(&saved.next).ok()?,
            unwritten: saved.unwritten.into_iter().map(|element| element.0).collect(),
            made: saved.made,
            buffer: saved.buffer.0,
            finished: saved.finished,
            last,
        })
    }

    fn part(&self) -> Result<Part, Error> {
        if self.finished {
            return Err(refused("the stream is finished"));
        }
        // The first *element* starts the stream, and a call may make none.
        Ok(if self.made == 0 { Part::FIRST } else { Part::MIDDLE })
    }

    fn take(&mut self, made: Elements) -> Result<Vec<BoxIndex>, Error> {
        if self.made + made.elements.len() > MAX_BOXES {
            return Err(refused("the stream has more boxes than a courier reads: start another one"));
        }
        self.made += made.elements.len();
        self.unwritten.extend(made.elements);
        self.buffer = made.buffer;
        Ok(made.next)
    }
}

impl fmt::Debug for CopyStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CopyStream({} boxes, {} unwritten, finished: {})", self.made, self.unwritten.len(), self.finished)
    }
}

fn refused(text: &str) -> Error {
    Error { operation: Operation::CourierEnvelopes, kind: ErrorKind::InvalidArgument(text.to_owned()) }
}
