//! Drops in the simulated world: the workers that ship, turn by turn, over staged files in the process's own directory. It
//! may die between any two turns; what it had staged and filled goes with its state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::RngExt as _;

use super::super::drops::{Ahead, Drops, Turn, Worker, workers};
use super::super::shared::Shared;
use super::plan::File;
use super::process::{Message, Process};
use super::world::{Happening, World};
use crate::channel::Time;
use crate::drop::Header;
use crate::model::NetworkId;
use crate::store::{Channel, ChannelId, DropRecord, RecordId, RecordState, Store};

/// Small, so that a process has many turns to die between.
const AHEAD: Ahead = Ahead { boxes: (4, 9), slice: 3 };
/// Which of the workers deletes what nobody needs.
const SWEEPER: usize = 2;
/// What failed for a reason of its own is tried again after so long.
const AGAIN: Time = Time::from_secs(5);

/// A file that was accepted into a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    record: RecordId,
    name: String,
    bytes: Vec<u8>,
}

/// The workers of one life.
pub(super) struct Hands {
    workers: [Box<dyn Worker>; 3],
    /// Which of them may have something to do.
    wanted: [bool; 3],
    planned: bool,
    store: Store,
}

impl Hands {
    pub(super) fn new(store: &Store, drops: &Drops) -> Self {
        let shared = Arc::new(Shared::new(store.clone()));
        let workers = workers(drops, &shared, AHEAD);
        Self { workers, wanted: [true; 3], planned: false, store: store.clone() }
    }
}

impl Process {
    /// Stages a file and hands it over, as a verb does in one go.
    pub(super) fn send(&self, id: ChannelId, file: &File) -> Result<RecordId, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let path = self.stage(&file.body).map_err(|error| told(&error))?;
        let header = Header {
            name: file.name.clone(),
            size: file.body.len() as u64,
            digest: Some(*blake3::hash(&file.body).as_bytes()),
            part: file.part,
            ..Header::default()
        };
        let staged = (!file.body.is_empty()).then_some(path.as_path());
        let accepted = self.drops().accept(id, header, staged).map_err(|error| told(&error))?;
        accepted.wait().map_err(|error| told(&error))
    }

    /// Stages a file and dies before it is handed over.
    pub(super) fn stage(&self, body: &[u8]) -> std::io::Result<PathBuf> {
        let directory = self.drops().incoming().map_err(std::io::Error::other)?;
        let at = std::fs::read_dir(&directory)?.count();
        let path = (at..).map(|at| directory.join(at.to_string())).find(|path| !path.exists()).expect("a free name");
        std::fs::write(&path, body)?;
        Ok(path)
    }

    /// Takes back the newest file of a drop of which no packet has left.
    pub(super) fn take_back(&self, id: ChannelId) -> Result<RecordId, String> {
        let records = self.store().records(id, None, 1000).map_err(|error| error.to_string())?;
        let alone = |record: &&DropRecord| record.part.is_none();
        let newest = records.iter().rev().find(alone).ok_or("there is no file")?;
        self.store().take_back(id, newest.id).wait().map_err(|error| error.to_string())?;
        Ok(newest.id)
    }

    /// Takes the first file that has come and was not taken.
    pub(super) fn deliver(&self, id: ChannelId) -> Result<(), String> {
        let records = self.store().records(id, None, 1000).map_err(|error| error.to_string())?;
        let whole = |record: &&DropRecord| record.state == RecordState::Complete && !record.delivered;
        let Some(first) = records.iter().find(whole) else { return Err("nothing has come".to_owned()) };
        self.store().deliver(id, first.id).wait().map_err(|error| error.to_string())
    }

    /// The files that have come whole, parts left out, and whether one came broken.
    fn came(&self, id: ChannelId) -> (Vec<DropRecord>, Option<String>) {
        let records = self.store().records(id, None, 1000).expect("an open store");
        let broken = records.iter().find(|record| record.state == RecordState::Broken);
        let broken = broken.map(|record| record.reason.clone().unwrap_or_default());
        let whole = |record: &DropRecord| {
            record.state == RecordState::Complete && record.part.is_none_or(|(_, number)| number == 0)
        };
        (records.into_iter().filter(whole).collect(), broken)
    }

    /// What a drop has to do still, or has left behind.
    fn unfinished(&self, id: ChannelId) -> Option<String> {
        let pending = self.store().drop_counts(id).expect("an open store").pending;
        if pending > 0 {
            return Some(format!("{pending} files are not stored"));
        }
        let staged = self.store().records_to_unstage().expect("an open store").len();
        (staged > 0).then(|| format!("{staged} staged files are left"))
    }

    /// Staged files that are left when a process starts that has nothing to send, though no file needs them.
    fn leftovers(&self) -> usize {
        let mut hands = Hands::new(self.store(), self.drops());
        while matches!(hands.workers[SWEEPER].turn(None, &AtomicBool::new(false)), Turn::More) {}
        self.drops().incoming().ok().and_then(|path| std::fs::read_dir(path).ok()).map_or(0, Iterator::count)
    }
}

/// How all drops stand, for comparison.
fn standing(store: &Store) -> Vec<(Channel, Vec<DropRecord>)> {
    let all = store.channels(None, 100).expect("an open store").into_iter();
    all.map(|channel| (channel.clone(), store.records(channel.id, None, 1000).unwrap_or_default())).collect()
}

/// Copies what is staged below a state to another.
pub(super) fn copy_staged(from: &Path, to: &Path) {
    let (from, to) = (from.join("drops/incoming"), to.join("drops/incoming"));
    let Ok(found) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(&to).expect("a new directory");
    for directory in [to.parent().expect("it has one"), &to] {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    }
    for entry in found {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

impl World {
    /// There may be something to do for the workers.
    pub(super) fn wake_hands(&mut self, p: usize) {
        if !self.plan.drops {
            return;
        }
        let Some(life) = &mut self.processes[p].life else { return };
        life.hands.wanted = [true; 3];
        if !std::mem::replace(&mut life.hands.planned, true) {
            let after = self.millis(0..600);
            self.plan_of(p, after, Happening::Work { p });
        }
    }

    /// One of the workers has a turn.
    pub(super) fn work(&mut self, p: usize) {
        let drops = self.processes[p].ids();
        let network: Option<(NetworkId, usize)> =
            self.processes[p].life.as_ref().and_then(|life| life.known.network().cloned());
        let which = self.dice.random_range(0..3);
        let Some(life) = &mut self.processes[p].life else { return };
        life.hands.planned = false;
        let Some(which) = (0..3).map(|at| (which + at) % 3).find(|&at| life.hands.wanted[at]) else { return };
        let before = standing(&life.hands.store);
        let turn = life.hands.workers[which].turn(network.as_ref(), &AtomicBool::new(false));
        life.hands.wanted[which] = !matches!(turn, Turn::Done);
        let changed = standing(&life.hands.store) != before;
        if changed {
            life.hands.wanted = [true; 3];
        }
        let more = life.hands.wanted.contains(&true);
        life.hands.planned = more;
        self.trace(|| format!("{p}: worker {which} has had its turn, and there is more: {more}"));
        if changed {
            for id in drops {
                self.tell(p, Message::Touched(id));
            }
        }
        if more {
            let after = if matches!(turn, Turn::Failed) { AGAIN } else { self.millis(0..20) };
            self.plan_of(p, after, Happening::Work { p });
        }
        self.oracle_files(p);
    }

    /// What was accepted into a drop is on the disk.
    pub(super) fn oracle_sent_file(&mut self, p: usize, stream: usize, file: &File) {
        let Some(record) = self.processes[p].last_record.take() else { return };
        self.see("files that were sent");
        if let Some(whole) = &file.whole {
            let (name, bytes) = (file.name.clone(), whole.clone());
            let name = crate::drop::chain::whole_name(&name).to_owned();
            self.oracle.files[stream].push(Sent { record, name, bytes });
        }
    }

    pub(super) fn oracle_took_back(&mut self, p: usize, stream: usize) {
        let Some(record) = self.processes[p].last_record.take() else { return };
        self.see("files that were taken back");
        self.oracle.files[stream].retain(|sent| sent.record != record);
    }

    /// Files come whole, in the order in which they were sent, each once.
    fn oracle_files(&mut self, p: usize) {
        for stream in 0..self.plan.streams.len() {
            let Some(channel) = self.processes[p].channel(stream).filter(|_| self.reads(p, stream)) else { continue };
            if self.is_disturbed(stream) || channel.skipped_boxes > 0 {
                continue;
            }
            let (came, broken) = self.processes[p].came(channel.id);
            self.oracle.law(broken.is_none(), || format!("{p} calls a file of {stream} broken: {broken:?}"));
            let before = self.oracle.came.get(&(p, stream)).copied().unwrap_or_default();
            self.oracle
                .law(came.len() >= before, || format!("{p} had {before} files of {stream}, and has {}", came.len()));
            for (at, record) in came.iter().enumerate().skip(before) {
                self.see("files that have come");
                let bytes = self.processes[p].drops().read(record, 0, usize::MAX >> 1);
                let sent = self.oracle.files[stream].get(at);
                let same = sent.is_some_and(|sent| {
                    sent.name == record.name && bytes.as_ref().is_ok_and(|bytes| *bytes == sent.bytes)
                });
                let sent: Vec<_> =
                    self.oracle.files[stream].iter().map(|sent| (&sent.name, sent.bytes.len())).collect();
                let words = format!(
                    "file {at} of {stream} is {:?} at {p}, {:?}; sent were {sent:?}",
                    record.name,
                    bytes.map(|bytes| bytes.len())
                );
                self.oracle.law(same, || words);
            }
            self.oracle.came.insert((p, stream), came.len());
        }
    }

    /// Whether somebody else may have written into a stream.
    fn is_disturbed(&self, stream: usize) -> bool {
        self.oracle.forked[stream] || self.oracle.foreign[stream].is_some()
    }

    fn reads(&self, p: usize, stream: usize) -> bool {
        self.plan.drops && self.plan.streams[stream].readers.contains(&p)
    }

    /// Nothing is left of files that are where they belong.
    pub(super) fn check_leftovers(&self) -> Result<(), String> {
        for (p, process) in self.processes.iter().enumerate().filter(|_| self.plan.drops) {
            let needed =
                process.ids().into_iter().any(|id| process.store().drop_counts(id).expect("an open store").pending > 0);
            let left = if needed { 0 } else { process.leftovers() };
            if left > 0 {
                return Err(format!("{left} staged files of {p} are left, and no file needs them"));
            }
        }
        Ok(())
    }

    /// What of the files is not yet where it belongs.
    pub(super) fn undelivered_files(&self, stream: usize, readers: &[usize]) -> Option<String> {
        if !self.plan.drops {
            return None;
        }
        let writer = &self.processes[self.plan.streams[stream].writer];
        if let Some(unfinished) = writer.channel(stream).and_then(|channel| writer.unfinished(channel.id)) {
            return Some(format!("{unfinished} of {stream}"));
        }
        for &p in readers {
            let Some(channel) = self.processes[p].channel(stream).filter(|channel| channel.skipped_boxes == 0) else {
                continue;
            };
            let (came, sent) = (self.processes[p].came(channel.id).0.len(), self.oracle.files[stream].len());
            if came != sent {
                return Some(format!("{p} has {came} of {sent} files of {stream}"));
            }
        }
        None
    }
}
