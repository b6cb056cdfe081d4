//! Handing over: what has rested becomes a record.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, warn};

use super::lot::Lot;
use super::room::{Body, Handing, InHandoff, Refused, State};
use super::settle::Round;
use super::staging::{self, MOUNT, Staging};
use super::tree::{EntryId, What};
use crate::drop::{Digest, Header, Kind};
use crate::engine::drops::DropError;
use crate::fs::{Fs, FsError, PAGE};
use crate::store::{ChannelId, ChannelName, Commit, RecordId, Role, StoreError};

/// Files that share a commit.
const BATCH: usize = 64;
/// What was refused is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 1 << 20;

/// A file or directory that is due.
struct Due {
    entry: EntryId,
    drop: ChannelId,
    names: Vec<String>,
    staging: Staging,
    /// `None`: a directory.
    round: Option<Round>,
    at: Instant,
}

/// One that is being handed over.
pub(super) struct Handoff {
    due: Due,
    /// Its second link.
    sent: Option<PathBuf>,
    size: u64,
    modified: SystemTime,
}

impl Fs {
    /// Hands over what has rested for `rest`; says when it is worth another look. What a mount before this one left is
    /// looked for first. Blocks on the disk.
    pub fn settle(&self, now: Instant, rest: Duration) -> Result<Option<Instant>, FsError> {
        if self.options.read_only {
            return Ok(None);
        }
        self.meet_drops()?;
        self.ask_again();
        loop {
            let (due, next) = self.due(now, rest);
            if due.is_empty() || self.is_hurried.load(Ordering::Relaxed) {
                return Ok(next);
            }
            let mut handed = false;
            for batch in due.chunks(BATCH) {
                if self.is_hurried.load(Ordering::Relaxed) {
                    return Ok(next);
                }
                let handoffs: Vec<_> = batch.iter().filter_map(|&entry| self.hand_over(entry, now, rest)).collect();
                handed |= !handoffs.is_empty();
                for (handoff, commit) in handoffs {
                    self.handed_over(handoff, commit);
                }
            }
            if !handed {
                // All of it was touched meanwhile, or could not be read.
                return Ok(Some(now + rest));
            }
        }
    }

    /// Knows all drops that are written, and forgets those that are no more.
    fn meet_drops(&self) -> Result<(), FsError> {
        let listed = self.owner.store().usage()?.listing_changed;
        if self.room.lock().met == Some(listed) {
            return Ok(());
        }
        let mut after: Option<ChannelName> = None;
        let mut there = Vec::new();
        loop {
            let page = self.owner.store().channels(after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            let written = page.iter().filter(|channel| channel.content.is_drop() && channel.role == Role::Writer);
            for channel in written {
                let known = self.room.lock().forest.root(channel.id).is_some();
                if !known && let Err(error) = self.names_in(channel.id) {
                    warn!(channel = %channel.name, %error, "the files of a drop cannot be read");
                }
            }
            there.extend(page.iter().filter(|channel| channel.content.is_drop()).map(|channel| channel.id));
        }
        let mount = self.owner.engine().drops().directory()?.join(MOUNT);
        let known: Vec<_> = self.room.lock().forest.drops().collect();
        for drop in known.into_iter().chain(staging::drops(&mount)?).filter(|drop| !there.contains(drop)) {
            // One that was made since they were listed is there; nothing can be put into it while this is locked.
            let mut state = self.room.lock();
            if self.owner.store().channel(drop)?.is_none() {
                state.forget(drop);
                Staging::of(&mount, drop, self.owner.store().sealing()).remove()?;
            }
        }
        self.room.lock().met = Some(listed);
        Ok(())
    }

    /// What is due, oldest first, and when the next is.
    fn due(&self, now: Instant, rest: Duration) -> (Vec<EntryId>, Option<Instant>) {
        let state = self.room.lock();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for &entry in &state.unsettled {
            let Some(at) = state.due_at(entry, rest) else { continue };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
            } else {
                due.push((at, entry));
            }
        }
        due.sort_unstable();
        (due.into_iter().map(|(_, entry)| entry).collect(), next)
    }

    /// Reads a file that is due, and offers it to the store. None: it was touched meanwhile.
    fn hand_over(
        &self,
        entry: EntryId,
        now: Instant,
        rest: Duration,
    ) -> Option<(Handoff, Result<Commit<RecordId>, DropError>)> {
        let due = self.room.lock().due(entry, rest).filter(|due| due.at <= now)?;
        let (size, digest, modified) = match &due.round {
            None => (0, *blake3::hash(b"").as_bytes(), SystemTime::now()),
            Some(_) => match read(&due) {
                Ok(read) => read,
                Err(error) => {
                    self.hold(&due, &error.to_string());
                    return None;
                }
            },
        };
        let (name, path) = due.names.split_last()?;
        let header = Header {
            name: name.clone(),
            path: path.join("/"),
            size,
            digest: Some(digest),
            kind: if due.round.is_some() { Kind::File } else { Kind::EmptyDirectory },
            ..Header::default()
        };
        let mut state = self.room.lock();
        // What it is now may be something else than what was read.
        let same = state
            .due(due.entry, Duration::ZERO)
            .is_some_and(|now| now.round == due.round && now.names == due.names && now.drop == due.drop);
        if !same {
            return None;
        }
        let sent = match due.round.map(|_| due.staging.link(&due.names)).transpose() {
            Ok(sent) => sent,
            Err(error) => {
                std::mem::drop(state);
                self.hold(&due, &error.to_string());
                return None;
            }
        };
        let staging = sent.as_deref().and_then(|sent| self.below_drops(sent));
        let handing = InHandoff { staging, path: header.path.clone(), name: header.name.clone(), digest };
        state.drops.get_mut(&due.drop)?.handing.insert(due.entry, handing);
        state.set_handing(due.entry, Handing::Asked);
        std::mem::drop(state);
        let commit = self.owner.engine().drops().accept(due.drop, header, sent.as_deref());
        Some((Handoff { due, sent, size, modified }, commit))
    }

    /// The name of a file below the directory of drops, as rows have it.
    fn below_drops(&self, path: &std::path::Path) -> Option<String> {
        let directory = self.owner.engine().drops().directory().ok()?;
        path.strip_prefix(directory).ok()?.to_str().map(str::to_owned)
    }

    /// Waits for the store's answer, and has it hold.
    fn handed_over(&self, handoff: Handoff, commit: Result<Commit<RecordId>, DropError>) {
        let committed = commit.and_then(|commit| Ok(commit.wait()?));
        let result = match committed {
            Err(DropError::Store(error)) if error.leaves_outcome_open() => self.outcome(&handoff, error),
            Err(error) => Outcome::Refused(error.to_string()),
            Ok(record) => Outcome::Accepted(record),
        };
        let drop = handoff.due.drop;
        self.conclude(handoff, result);
        self.room.handed.notify_all();
        // Its commit may have been looked at before it was known here whose it is.
        self.owner.store().changes().tell(drop);
    }

    /// Something may be due, and those who wait for the drop may have what they wait for.
    pub(super) fn look_again(&self, drop: ChannelId) {
        self.room.wake.notify_one();
        self.owner.store().changes().tell(drop);
    }

    /// What became of a hand-over whose answer was lost: the store is asked whether it has the record.
    fn outcome(&self, handoff: &Handoff, error: StoreError) -> Outcome {
        let Some(staging) = handoff.sent.as_deref().and_then(|sent| self.below_drops(sent)) else {
            // A directory has no bytes to lose: it is told of once more at worst.
            return Outcome::Refused(error.to_string());
        };
        match self.owner.store().staged_record(handoff.due.drop, &staging).wait() {
            Ok(Some(record)) => Outcome::Accepted(record),
            Ok(None) | Err(StoreError::NoChannel) => Outcome::Refused(error.to_string()),
            Err(_) => Outcome::Open(error.to_string()),
        }
    }

    /// Asks once more what became of hand-overs that the store could not tell of.
    fn ask_again(&self) {
        let open = std::mem::take(&mut self.room.lock().open);
        for handoff in open {
            let result = self.outcome(&handoff, StoreError::Closed);
            self.conclude(handoff, result);
        }
        self.room.handed.notify_all();
    }

    fn conclude(&self, handoff: Handoff, result: Outcome) {
        let Handoff { due, sent, size, modified } = &handoff;
        let mut state = self.room.lock();
        match result {
            Outcome::Accepted(record) => {
                if let Some(loaded) = state.drops.get_mut(&due.drop) {
                    loaded.handed_over(due.entry, Some(record));
                }
                if due.round.is_some() {
                    // A crash before this leaves both names; the record then decides.
                    if let Err(error) = due.staging.remove_file(&due.names) {
                        warn!(%error, "a file that was handed over keeps its old name until the next start");
                    }
                    state.seal(due.entry, record, *size, *modified);
                } else if let Some(directory) = state.forest.directory_mut(due.entry) {
                    directory.handing = Handing::No;
                    directory.known = true;
                    directory.record = Some(record);
                    state.unsettled.remove(&due.entry);
                    state.known(due.entry);
                }
                debug!(bytes = size, "a file in a drop is complete, and on its way");
            }
            Outcome::Refused(reason) => {
                if let Some(loaded) = state.drops.get_mut(&due.drop) {
                    loaded.handed_over(due.entry, None);
                }
                std::mem::drop(state);
                if let Some(sent) = sent
                    && let Err(error) = staging::allow_missing(std::fs::remove_file(sent))
                {
                    warn!(%error, "a second name of a file is left until the next start");
                }
                self.hold(due, &reason);
            }
            Outcome::Open(reason) => {
                // Both names stay: the row, once it can be looked for, says which of them goes.
                state.set_handing(due.entry, Handing::Open);
                let drop = due.drop;
                state.open.push(handoff);
                std::mem::drop(state);
                self.owner.engine().note(drop, &format!("whether a file was accepted is not known: {reason}"));
            }
        }
    }

    /// It was refused: told once, and tried again later.
    fn hold(&self, due: &Due, reason: &str) {
        let mut state = self.room.lock();
        let refused = Refused { until: Instant::now() + AGAIN, reason: reason.to_owned() };
        let known = match state.forest.entry_mut(due.entry).map(|entry| &mut entry.what) {
            Some(What::File(Body::Staged(staged))) => {
                staged.handing = Handing::No;
                let known = staged.refused.as_ref().is_some_and(|before| before.reason == reason);
                staged.refused = Some(refused);
                // Handing it over took the bits and the mark.
                if let Err(error) =
                    due.staging.set_mode(&due.names, 0o600).and_then(|()| due.staging.mark(&due.names, true))
                {
                    warn!(%error, "a file of a drop could not be marked as closed; after a crash it is unfinished");
                }
                known
            }
            Some(What::Directory(directory, _)) => {
                directory.handing = Handing::No;
                directory.made = refused.until;
                false
            }
            _ => true,
        };
        std::mem::drop(state);
        if !known {
            let text = format!("{} cannot be sent yet: {reason}", due.names.join("/"));
            warn!("{text}");
            self.owner.engine().note(due.drop, &text);
        }
    }
}

/// What became of a hand-over.
enum Outcome {
    Accepted(RecordId),
    /// It is no record; why.
    Refused(String),
    /// The store cannot tell now; why.
    Open(String),
}

impl State {
    /// When a file or directory has rested for `rest`; `None`: never, as it is.
    fn due_at(&self, entry: EntryId, rest: Duration) -> Option<Instant> {
        let at = match &self.forest.entry(entry)?.what {
            What::File(Body::Staged(staged)) if staged.handing == Handing::No => {
                let rested = staged.settling.due(rest)?;
                let held = staged.refused.as_ref().map(|refused| refused.until);
                held.map_or(rested, |held| held.max(rested))
            }
            What::Directory(directory, children)
                if children.is_empty()
                    && !directory.known
                    && directory.record.is_none()
                    && directory.handing == Handing::No =>
            {
                directory.made + rest
            }
            _ => return None,
        };
        (Lot::of(self.forest.names(entry)) == Lot::Sent).then_some(at)
    }

    /// The same with what is needed to hand it over.
    fn due(&self, entry: EntryId, rest: Duration) -> Option<Due> {
        let at = self.due_at(entry, rest)?;
        let there = self.forest.entry(entry)?;
        let round = match &there.what {
            What::File(Body::Staged(staged)) => Some(staged.settling.round()),
            _ => None,
        };
        let staging = self.drops.get(&there.drop)?.staging.clone();
        Some(Due { entry, drop: there.drop, names: self.owned_names(entry), staging, round, at })
    }
}

/// The bytes of a file, their digest, and when they were changed.
fn read(due: &Due) -> std::io::Result<(u64, Digest, SystemTime)> {
    let staged = due.staging.open(&due.names, false)?;
    let mut file = staged.sequential();
    let mut hash = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            let modified = staged.metadata()?.modified()?;
            return Ok((size, *hash.finalize().as_bytes(), modified));
        }
        hash.update(&chunk[..count]);
        size += count as u64;
    }
}
