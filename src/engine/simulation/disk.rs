//! One process's store, as a model: rows that survive a crash, and requests that are not yet in them.
//!
//! What the rows take is what `store` takes (`store/tests/model.rs` holds the two together); here it is memory, so that a run
//! costs little. Requests are applied in their order, and answered after their commit.

use std::collections::{BTreeMap, VecDeque};

use crate::channel::Time;
use crate::channel::bugs::{Bug, has};
use crate::store::{Arrival, BoxSeq, BoxState};

/// A box of a channel that we write.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) bytes: Vec<u8>,
    pub(super) state: BoxState,
    /// Since when a courier has it, by the wall clock.
    pub(super) since: Time,
}

/// A channel that we write.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) boxes: Vec<Row>,
    pub(super) max: usize,
    pub(super) rewrites: u64,
    pub(super) bound: bool,
    pub(super) launched: bool,
    pub(super) fenced: bool,
    pub(super) created: Time,
}

/// A channel that we read.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    pub(super) boxes: BTreeMap<u64, Vec<u8>>,
    pub(super) frontier: u64,
    /// The frontier has a verdict of its own.
    pub(super) verdict: bool,
    /// The bytes before the frontier.
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Channel {
    Written(Written),
    Read(Read),
}

/// A change that is to be committed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create { max: usize, created: Time },
    Append { bytes: Vec<u8> },
    Seal,
    Truncate,
    SetMax { max: usize },
    Bind,
    Launch { rewrites: u64, boxes: Vec<BoxSeq> },
    Confirm { seq: BoxSeq, to: BoxState, since: Time },
    Fence,
    Received { arrivals: Vec<(BoxSeq, Arrival)> },
}

/// Who hears of a commit.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Nobody,
    Sealed { tries: u32 },
    Fenced { tries: u32 },
    Fitted { max: usize, tries: u32 },
    Launched { boxes: Vec<BoxSeq> },
    Confirmed { seq: BoxSeq, to: BoxState, tries: u32 },
    Recorded,
}

pub(super) struct Request {
    pub(super) channel: usize,
    pub(super) change: Change,
    pub(super) answer: Answer,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str);

/// The store of one process, whichever life it is in.
#[derive(Default)]
pub(super) struct Disk {
    /// By number, the same in every life. What was never committed is not there.
    pub(super) channels: BTreeMap<usize, Channel>,
    pub(super) queue: VecDeque<Request>,
}

impl Written {
    fn new(max: usize, created: Time) -> Self {
        Self { boxes: Vec::new(), max, rewrites: 0, bound: false, launched: false, fenced: false, created }
    }

    pub(super) fn tail_bytes(&self) -> usize {
        self.boxes.last().filter(|row| row.state == BoxState::Open).map_or(0, |row| row.bytes.len())
    }

    pub(super) fn size(&self) -> usize {
        self.boxes.iter().map(|row| row.bytes.len()).sum()
    }

    pub(super) fn backlog(&self) -> usize {
        self.boxes.iter().filter(|row| row.state != BoxState::Stored).count()
    }

    pub(super) fn first_unstored(&self) -> BoxSeq {
        let stored = self.boxes.iter().take_while(|row| row.state == BoxState::Stored).count();
        BoxSeq(stored as u64)
    }

    pub(super) fn launched_end(&self) -> BoxSeq {
        let last = self.boxes.iter().rposition(|row| row.state >= BoxState::Launched);
        BoxSeq(last.map_or(0, |at| at as u64 + 1))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.boxes.iter().all(|row| row.state == BoxState::Stored)
    }

    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.boxes.iter().flat_map(|row| row.bytes.iter().copied())
    }

    fn pack(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.tail_bytes() == 0 {
                self.boxes.push(Row { bytes: Vec::new(), state: BoxState::Open, since: Time::ZERO });
            }
            let max = self.max;
            let tail = self.boxes.last_mut().expect("just made");
            let (now, later) = bytes.split_at((max - tail.bytes.len()).min(bytes.len()));
            tail.bytes.extend_from_slice(now);
            if tail.bytes.len() == max {
                tail.state = BoxState::Sealed;
            }
            bytes = later;
        }
    }

    fn seal(&mut self) {
        if let Some(row) = self.boxes.last_mut()
            && row.state == BoxState::Open
        {
            row.state = BoxState::Sealed;
        }
    }

    fn set_max(&mut self, max: usize) {
        if max == self.max {
            return;
        }
        let end = usize::try_from(self.launched_end().0).unwrap_or(usize::MAX);
        if self.boxes[..end].iter().any(|row| row.state < BoxState::Stored && row.bytes.len() > max) {
            self.fenced = true;
            return;
        }
        self.max = max;
        let rest = self.boxes.split_off(end);
        if let Some(last) = rest.last() {
            let open = last.state == BoxState::Open;
            self.pack(&rest.iter().flat_map(|row| row.bytes.clone()).collect::<Vec<_>>());
            if !open {
                self.seal();
            }
            self.rewrites += 1;
        }
    }

    fn apply(&mut self, change: Change) -> Result<(), Refused> {
        match change {
            Change::Append { .. } | Change::Launch { .. } if self.fenced => return Err(Refused("fenced")),
            Change::Append { bytes } => self.pack(&bytes),
            Change::Seal => self.seal(),
            Change::Truncate if self.launched && !has(Bug::ReplanIndex) => return Err(Refused("launched")),
            Change::Truncate => {
                self.boxes.clear();
                self.rewrites += 1;
            }
            Change::SetMax { max } => self.set_max(max),
            Change::Bind => self.bound = true,
            Change::Launch { rewrites, .. } if rewrites != self.rewrites => return Err(Refused("rewritten")),
            Change::Launch { .. } if !self.bound => return Err(Refused("unbound")),
            Change::Launch { boxes, .. } => {
                for seq in boxes {
                    let row = self.row(seq)?;
                    if row.state == BoxState::Open {
                        return Err(Refused("open"));
                    }
                    row.state = row.state.max(BoxState::Launched);
                    self.launched = true;
                }
            }
            Change::Confirm { seq, to, since } => {
                let row = self.row(seq)?;
                if row.state < BoxState::Launched {
                    return Err(Refused("not launched"));
                }
                if row.state < to {
                    (row.state, row.since) = (to, since);
                }
            }
            Change::Fence => self.fenced = true,
            Change::Create { .. } | Change::Received { .. } => return Err(Refused("not a reader")),
        }
        Ok(())
    }

    fn row(&mut self, seq: BoxSeq) -> Result<&mut Row, Refused> {
        usize::try_from(seq.0).ok().and_then(|at| self.boxes.get_mut(at)).ok_or(Refused("no such box"))
    }
}

impl Read {
    fn received(&mut self, arrivals: Vec<(BoxSeq, Arrival)>) {
        let before = self.frontier;
        let mut missing = Vec::new();
        for (seq, arrival) in arrivals {
            match arrival {
                Arrival::Message(bytes) if seq.0 >= self.frontier => drop(self.boxes.entry(seq.0).or_insert(bytes)),
                Arrival::Message(_) | Arrival::Tombstone => {}
                Arrival::NotYet => missing.push(seq.0),
            }
        }
        while let Some(bytes) = self.boxes.get(&self.frontier) {
            self.bytes.extend_from_slice(bytes);
            self.frontier += 1;
        }
        if missing.contains(&self.frontier) {
            self.verdict = true;
        } else if self.frontier != before {
            self.verdict = false;
        }
    }
}

impl Disk {
    /// Makes the next change of the queue, if there is one, and says what came of it.
    pub(super) fn commit_one(&mut self) -> Option<(usize, Answer, Change, Result<(), Refused>)> {
        let Request { channel, change, answer } = self.queue.pop_front()?;
        let result = match (self.channels.get_mut(&channel), change.clone()) {
            (None, Change::Create { max, created }) => {
                self.channels.insert(channel, Channel::Written(Written::new(max, created)));
                Ok(())
            }
            (Some(Channel::Written(written)), change) => written.apply(change),
            (Some(Channel::Read(read)), Change::Received { arrivals }) => {
                read.received(arrivals);
                Ok(())
            }
            (Some(Channel::Read(_)), Change::Bind) => Ok(()),
            _ => Err(Refused("no such channel")),
        };
        Some((channel, answer, change, result))
    }

    pub(super) fn written(&self, channel: usize) -> Option<&Written> {
        match self.channels.get(&channel) {
            Some(Channel::Written(written)) => Some(written),
            _ => None,
        }
    }

    pub(super) fn read(&self, channel: usize) -> Option<&Read> {
        match self.channels.get(&channel) {
            Some(Channel::Read(read)) => Some(read),
            _ => None,
        }
    }
}
