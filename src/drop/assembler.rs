//! From boxes, in the order of their indices, to records.
//!
//! Holds one header and one hash, whatever comes; the bytes themselves stay where the boxes are.

use super::{Digest, Header, HeaderError, SyncKey};

/// What the channel has at one index.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A box.
    Box(&'a [u8]),
    /// Its writer has deleted it.
    Tombstone,
    /// It is not there, and is not waited for any longer.
    Lost,
}

/// What a box came to. Numbers of boxes are their Idx64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record begins in this box.
    Started {
        /// Its first box.
        first: u64,
        /// What it says of itself.
        header: Box<Header>,
        /// Length of the header: the body begins behind it.
        head_bytes: usize,
    },
    /// The record that was under way is complete, and its digest is right where it has one.
    Complete {
        /// Its first box.
        first: u64,
        /// The box after its last.
        end: u64,
        /// BLAKE3 of its body.
        digest: Digest,
    },
    /// The record that was under way will never be complete.
    Broken {
        /// Its first box.
        first: u64,
        /// The box that broke it, or the box after its last.
        end: u64,
        /// Why.
        fault: Fault,
    },
    /// Here a record should begin, and none does: boxes are passed over until one is found. A record that its writer has
    /// deleted, its header with it, is no event.
    Astray {
        /// This box.
        at: u64,
        /// What there is instead.
        fault: Fault,
    },
}

/// Why a record is broken, or boxes are passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A box is not there any more, or was skipped.
    #[error("box {0} is missing")]
    Missing(u64),
    /// The writer has deleted a box.
    #[error("box {0} was deleted by its sender")]
    Deleted(u64),
    /// Another record begins before this one has all its bytes.
    #[error("its sender broke it off after {bytes} of {size} bytes")]
    BrokenOff {
        /// What has come of the body.
        bytes: u64,
        /// What was promised.
        size: u64,
    },
    /// The bytes are other ones than those that were promised.
    #[error("its bytes are not those that its sender promised: the digests differ")]
    Digest,
    /// No header that can be read.
    #[error("box {at}: {error}")]
    Header {
        /// The box.
        at: u64,
        /// What is wrong with it.
        error: HeaderError,
    },
    /// A header that was made for another place.
    #[error("box {0}: its header was made for another place in a channel")]
    WrongPlace(u64),
}

impl Fault {
    /// The same with boxes counted from the channel's first, whose Idx64 is `first`.
    #[must_use]
    pub fn counted_from(self, first: u64) -> Self {
        match self {
            Self::Missing(at) => Self::Missing(at.wrapping_sub(first)),
            Self::Deleted(at) => Self::Deleted(at.wrapping_sub(first)),
            Self::WrongPlace(at) => Self::WrongPlace(at.wrapping_sub(first)),
            Self::Header { at, error } => Self::Header { at: at.wrapping_sub(first), error },
            Self::BrokenOff { .. } | Self::Digest => self,
        }
    }
}

#[derive(Debug)]
enum State {
    /// The next box begins a record.
    Boundary,
    /// In the boxes of a record that its writer has deleted, its header with them. What is left of it in between is passed
    /// over.
    Deleted,
    /// In the middle of a record.
    Body(Box<Body>),
    /// Looking for a header with the right sync.
    Astray,
}

#[derive(Debug)]
struct Body {
    first: u64,
    size: u64,
    digest: Option<Digest>,
    taken: u64,
    hash: blake3::Hasher,
}

/// Makes records of boxes. Fed in order; what happened before a restart is fed again from the first box of the record
/// that was under way.
#[derive(Debug)]
pub struct Assembler {
    key: SyncKey,
    state: State,
}

impl Assembler {
    /// One that expects a record to begin.
    pub fn new(key: SyncKey) -> Self {
        Self { key, state: State::Boundary }
    }

    /// One that has lost its place.
    pub fn astray(key: SyncKey) -> Self {
        Self { key, state: State::Astray }
    }

    /// Whether it looks for a header.
    pub fn is_astray(&self) -> bool {
        matches!(self.state, State::Astray)
    }

    /// Bytes that have come of the body of the record under way.
    pub fn taken(&self) -> Option<u64> {
        match &self.state {
            State::Body(body) => Some(body.taken),
            _ => None,
        }
    }

    /// What is at the next index. At most three events come of it.
    pub fn feed(&mut self, counter: u64, input: Input<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        match std::mem::replace(&mut self.state, State::Astray) {
            State::Boundary => match input {
                Input::Box(bytes) => match Header::decode(bytes) {
                    Ok((Header { sync: Some(sync), .. }, _)) if sync != self.key.at(counter) => {
                        events.push(Event::Astray { at: counter, fault: Fault::WrongPlace(counter) });
                    }
                    Ok((header, length)) => self.begin(counter, header, length, bytes, &mut events),
                    Err(error) => {
                        events.push(Event::Astray { at: counter, fault: Fault::Header { at: counter, error } });
                    }
                },
                Input::Tombstone => self.state = State::Deleted,
                Input::Lost => events.push(Event::Astray { at: counter, fault: Fault::Missing(counter) }),
            },
            State::Deleted => match input {
                Input::Box(bytes) => match Header::decode(bytes) {
                    Ok((Header { sync: Some(sync), .. }, _)) if sync != self.key.at(counter) => {
                        self.state = State::Deleted;
                    }
                    Ok((header, length)) => self.begin(counter, header, length, bytes, &mut events),
                    Err(_) => self.state = State::Deleted,
                },
                Input::Tombstone => self.state = State::Deleted,
                Input::Lost => events.push(Event::Astray { at: counter, fault: Fault::Missing(counter) }),
            },
            State::Astray => {
                if let Input::Box(bytes) = input
                    && let Some((header, length)) = self.key.find(counter, bytes)
                {
                    self.begin(counter, header, length, bytes, &mut events);
                }
            }
            State::Body(body) => {
                let broken = |fault| Event::Broken { first: body.first, end: counter, fault };
                match input {
                    Input::Tombstone => events.push(broken(Fault::Deleted(counter))),
                    Input::Lost => events.push(broken(Fault::Missing(counter))),
                    Input::Box(bytes) => match self.key.find(counter, bytes) {
                        Some((header, length)) => {
                            events.push(broken(Fault::BrokenOff { bytes: body.taken, size: body.size }));
                            self.begin(counter, header, length, bytes, &mut events);
                        }
                        None => self.go_on(counter, body, bytes, &mut events),
                    },
                }
            }
        }
        events
    }

    fn begin(&mut self, counter: u64, header: Header, length: usize, bytes: &[u8], events: &mut Vec<Event>) {
        let body =
            Body { first: counter, size: header.size, digest: header.digest, taken: 0, hash: blake3::Hasher::new() };
        events.push(Event::Started { first: counter, header: Box::new(header), head_bytes: length });
        self.go_on(counter, Box::new(body), &bytes[length..], events);
    }

    fn go_on(&mut self, counter: u64, mut body: Box<Body>, bytes: &[u8], events: &mut Vec<Event>) {
        let wanted = usize::try_from(body.size - body.taken).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(wanted)];
        body.hash.update(bytes);
        body.taken += bytes.len() as u64;
        if body.taken < body.size {
            self.state = State::Body(body);
            return;
        }
        let (first, end) = (body.first, counter.wrapping_add(1));
        let digest = *body.hash.finalize().as_bytes();
        self.state = State::Boundary;
        events.push(match body.digest {
            Some(promised) if promised != digest => Event::Broken { first, end, fault: Fault::Digest },
            _ => Event::Complete { first, end, digest },
        });
    }
}
