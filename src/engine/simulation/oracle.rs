//! What must hold after every step, and at the end.

use std::collections::BTreeMap;

use super::drops::Sent;
use super::plan::Deed;
use super::world::World;
use crate::channel::Time;
use crate::store::{Arrival, BoxSeq, BoxState};

/// Boxes that a process keeps in memory of one channel for each daemon at most: two windows, twice where a machine was replaced.
const KEPT: usize = 64;
/// Operations of one life that are unanswered, for each daemon: those of the scheduler, and of machines that are gone already.
const UNDER_WAY: usize = 128;
/// What is planned at once at most; each operation has a deadline that stands until its time.
const PLANNED: usize = 4096;
/// What the daemon and all behind it hold at most when there is nothing but probes, which couriers remember for 5 minutes.
const HELD: usize = 4096;
/// When nothing goes wrong any more, everything is delivered within this: the longest back-off of a sender is a minute, of a
/// receiver's probe three times five minutes, a courier's memory five minutes, an operation's life two and a half.
pub(super) const BOUND: Time = Time::from_secs(3600);

/// What was seen so far.
pub(super) struct Oracle {
    /// Which bytes went out under which index, over all lives. Other ones only where a state was restored from a backup.
    sent: BTreeMap<(usize, BoxSeq), Vec<Vec<u8>>>,
    /// How much of each reader's bytes was compared.
    compared: BTreeMap<(usize, usize), u64>,
    /// From which box on another writer writes too.
    pub(super) foreign: Vec<Option<u64>>,
    /// Streams whose writer was restored from a backup: there are two of it, one after the other.
    pub(super) forked: Vec<bool>,
    /// The bytes of each stream, as they were accepted.
    accepted: Vec<Vec<u8>>,
    /// Streams into which another writer's boxes were taken.
    adopted: Vec<bool>,
    /// The files that were accepted into each drop, in order.
    pub(super) files: Vec<Vec<Sent>>,
    /// How many of them each reader has.
    pub(super) came: BTreeMap<(usize, usize), usize>,
    /// The first law that was broken.
    pub(super) broken: Option<String>,
}

impl Oracle {
    pub(super) fn new(streams: usize) -> Self {
        Self {
            sent: BTreeMap::new(),
            compared: BTreeMap::new(),
            foreign: vec![None; streams],
            forked: vec![false; streams],
            accepted: vec![Vec::new(); streams],
            adopted: vec![false; streams],
            files: vec![Vec::new(); streams],
            came: BTreeMap::new(),
            broken: None,
        }
    }

    /// The state of a process is an earlier one.
    pub(super) fn restored(&mut self, p: usize, stream: usize, writes: bool) {
        self.forked[stream] |= writes;
        self.compared.remove(&(p, stream));
        self.came.remove(&(p, stream));
    }

    pub(super) fn law(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(words());
        }
    }
}

impl World {
    /// A packet with these bytes is about to leave.
    pub(super) fn oracle_sent(&mut self, p: usize, stream: usize, seq: BoxSeq, bytes: &[u8]) {
        let row = self.processes[p].row(stream, seq);
        let row = row.map(|(state, row)| (state >= BoxState::Launched, row == bytes));
        self.oracle.law(row == Some((true, true)), || {
            format!("box {seq} of {stream} is sent, and the disk says (launched, these bytes): {row:?}")
        });
        let forked = self.oracle.forked[stream];
        let before = self.oracle.sent.entry((stream, seq)).or_default();
        if !before.iter().any(|before| before == bytes) {
            before.push(bytes.to_vec());
        }
        let same = before.len() == 1;
        self.oracle.law(same || forked, || format!("box {seq} of {stream} is sent with other bytes than before"));
    }

    /// A box is reported as stored.
    pub(super) fn oracle_confirmed(&mut self, p: usize, stream: usize, seq: BoxSeq) {
        let wall = self.wall();
        let held = self.net.held(wall, &self.boxes.id(stream, seq.0));
        let opened: Vec<_> = held.iter().map(|sealed| self.boxes.open(stream, seq.0, sealed)).collect();
        let bytes = self.processes[p].row(stream, seq).map(|(_, bytes)| bytes);
        self.oracle.law(bytes.is_some() && opened.contains(&bytes), || {
            format!("box {seq} of {stream} is called stored, and the replicas hold {opened:?} for {bytes:?}")
        });
    }

    pub(super) fn oracle_fenced(&mut self, stream: usize) {
        let forked = self.oracle.sent.iter().any(|((of, _), variants)| *of == stream && variants.len() > 1);
        let expected = self.oracle.foreign[stream].is_some() || forked;
        self.oracle.law(expected, || format!("{stream} is fenced, and nobody else wrote into it"));
    }

    /// What arrived for a box is on the disk.
    pub(super) fn oracle_recorded(&mut self, p: usize, stream: usize, seq: BoxSeq, arrival: &Arrival) {
        let ours = self.oracle.foreign[stream].is_none_or(|from| seq.0 < from);
        let sent = self.oracle.sent.get(&(stream, seq)).is_some_and(|sent| match arrival {
            Arrival::Message(bytes) => sent.contains(bytes),
            _ => false,
        });
        self.oracle.law(sent || !ours || *arrival == Arrival::NotYet, || {
            format!("{p} reads box {seq} of {stream} as nobody sent it")
        });
        if self.oracle.forked[stream] || self.oracle.foreign[stream].is_some() {
            return;
        }
        let Some(read) = self.processes[p].channel(stream) else { return };
        self.oracle.law(!read.is_lost() && read.stale_since.is_none(), || {
            format!("{p} calls boxes of {stream} lost, or its end unknown, and the network has them")
        });
        if self.plan.drops {
            return;
        }
        let compared = self.oracle.compared.get(&(p, stream)).copied().unwrap_or_default().max(read.dropped_bytes);
        // What was skipped is missing from then on.
        if read.size <= compared || read.skipped_boxes > 0 {
            return;
        }
        let arrived = self.processes[p].read(stream, compared);
        let from = usize::try_from(compared).unwrap_or(usize::MAX);
        let expected = self.oracle.accepted[stream].iter().skip(from).take(arrived.len());
        let same = expected.eq(&arrived);
        self.oracle.compared.insert((p, stream), read.size);
        self.oracle.law(same, || format!("{p} reads other bytes of {stream} than were written, from {compared} on"));
    }

    /// What a person had done is on the disk.
    pub(super) fn oracle_done(&mut self, p: usize, stream: usize, deed: &Deed) {
        match deed {
            Deed::Append(bytes) => self.oracle.accepted[stream].extend_from_slice(bytes),
            Deed::Truncate => self.oracle.accepted[stream].clear(),
            Deed::Unlink => {
                self.see("streams that were unlinked");
                self.oracle.accepted[stream].clear();
            }
            Deed::Forget => {
                self.see("streams that were forgotten");
                self.oracle.compared.remove(&(p, stream));
                self.oracle.came.remove(&(p, stream));
            }
            Deed::Rename => self.see("streams that were renamed"),
            Deed::Durability(_) => self.see("changes of durability"),
            Deed::Trim { .. } => self.see("streams that were trimmed"),
            Deed::Skip => self.see("boxes that were skipped"),
            Deed::Send(file) => self.oracle_sent_file(p, stream, file),
            Deed::TakeBack => self.oracle_took_back(p, stream),
            Deed::Create { .. } | Deed::Seal | Deed::Add(_) | Deed::Adopt | Deed::Leave(_) | Deed::Deliver => {}
        }
    }

    /// Another writer's boxes are part of a stream now.
    pub(super) fn oracle_adopted(&mut self, stream: Option<usize>) {
        self.see("streams that were adopted");
        if let Some(stream) = stream {
            self.oracle.adopted[stream] = true;
        }
    }

    /// An operation has reached the other network.
    pub(super) fn oracle_elsewhere(&mut self, stream: usize, is_bound_here: bool) {
        self.oracle.law(!is_bound_here, || format!("{stream} is sent or asked for on a network that is not its own"));
    }

    /// Looks at everything that has a bound.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let channels = self.plan.streams.len();
        for (p, process) in self.processes.iter().enumerate() {
            let Some(life) = &process.life else { continue };
            let (kept, under_way) = (life.kept(), life.unanswered());
            self.oracle.law(kept <= KEPT * channels * self.daemons.len(), || format!("{p} keeps {kept} boxes"));
            self.oracle.law(under_way <= UNDER_WAY * self.daemons.len(), || format!("{p} has {under_way} operations"));
        }
        let planned = self.planned();
        self.oracle.law(planned <= PLANNED, || format!("{planned} things are planned"));
        match self.oracle.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    /// Whether everything that was accepted is where it belongs, and every reader knows it.
    pub(super) fn delivered(&self) -> bool {
        self.undelivered().is_none()
    }

    /// What is not yet where it belongs.
    pub(super) fn undelivered(&self) -> Option<String> {
        for (stream, of) in self.plan.streams.iter().enumerate() {
            let writer = &self.processes[of.writer];
            if !writer.queue.is_empty() {
                return Some(format!("requests to the store of {}", of.writer));
            }
            let Some(written) = writer.channel(stream) else { continue };
            let home = self.network_view(false).id;
            let elsewhere = written.network.as_ref().is_some_and(|bound| *bound != home);
            if written.fence.is_some() || elsewhere {
                continue;
            }
            if let Some(foreign) = self.oracle.foreign[stream].filter(|_| !self.oracle.adopted[stream]) {
                if written.boxes > foreign {
                    return Some(format!("{stream} is not fenced, and box {foreign} is another writer's"));
                }
                continue;
            }
            if written.boxes != written.stored_boxes {
                return Some(format!("{stream}: {} of {} boxes are stored", written.stored_boxes, written.boxes));
            }
            // What the other one of the two wrote, its readers have.
            let readers = if self.oracle.forked[stream] { &[][..] } else { &of.readers };
            for &p in readers {
                let Some(read) = self.processes[p].channel(stream) else { continue };
                if read.network.as_ref().is_some_and(|bound| *bound != home) {
                    continue;
                }
                if read.skipped_boxes > 0 && read.frontier.0 == written.boxes {
                    continue;
                }
                if read.size != written.size {
                    return Some(format!("{p} has {} of {} bytes of {stream}", read.size, written.size));
                }
                if !read.end_is_known() {
                    return Some(format!("{p} has no verdict at the end of {stream}"));
                }
            }
            if let Some(files) = self.undelivered_files(stream, readers) {
                return Some(files);
            }
        }
        None
    }

    /// What the replicas hold in the end is what was written, and nothing else.
    pub(super) fn check_replicas(&mut self) -> Result<(), String> {
        let wall = self.wall();
        for stream in 0..self.plan.streams.len() {
            let writer = &self.processes[self.plan.streams[stream].writer];
            if writer.channel(stream).is_none() || self.oracle.foreign[stream].is_some() || self.oracle.forked[stream] {
                continue;
            }
            let Some(written) = writer.channel(stream) else { continue };
            if written.network.as_ref().is_some_and(|bound| *bound != self.network_view(false).id) {
                continue;
            }
            let boxes: Vec<_> = writer.boxes(stream).into_iter().map(|(seq, _, bytes)| (seq.0, Some(bytes))).collect();
            for (seq, bytes) in boxes.into_iter().chain([(written.boxes, None), (written.boxes + 1, None)]) {
                let held = self.net.held(wall, &self.boxes.id(stream, seq));
                let right = match &bytes {
                    Some(_) => !held.is_empty(),
                    None => held.is_empty(),
                };
                let opened = held.iter().all(|sealed| self.boxes.open(stream, seq, sealed) == bytes);
                if !right || !opened {
                    return Err(format!(
                        "the replicas hold {} rows of box {seq} of {stream}, not what was written",
                        held.len()
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is left when nobody has anything to do: nothing but the probes.
    pub(super) fn check_rest(&mut self) -> Result<(), String> {
        let (operations, held) = self.net.load();
        let (probes, live) = (self.plan.streams.len() * 4, self.processes.iter().filter_map(|p| p.life.as_ref()));
        let under_way: usize = live.map(super::process::Life::unanswered).sum();
        if operations.max(under_way) > probes || held > HELD {
            return Err(format!(
                "{under_way} operations are left, {operations} at the daemon, and {held} of other things"
            ));
        }
        Ok(())
    }
}
