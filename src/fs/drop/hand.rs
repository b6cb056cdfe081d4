//! Handing over: what has rested becomes a record.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, warn};

use super::lot::Lot;
use super::room::{Body, Refused, State};
use super::settle::Round;
use super::staging::{self, MOUNT, Staging};
use super::tree::{EntryId, What};
use crate::drop::{Digest, Header, Kind};
use crate::engine::drops::DropError;
use crate::fs::{Fs, FsError, PAGE};
use crate::store::{ChannelId, ChannelName, Commit, RecordId, Role};

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
struct Handing {
    due: Due,
    sent: Option<PathBuf>,
    size: u64,
    modified: SystemTime,
    commit: Result<Commit<RecordId>, DropError>,
}

impl Fs {
    /// Hands over what has rested for `rest`; says when it is worth another look. What a mount before this one left is
    /// looked for first. Blocks on the disk.
    pub fn settle(&self, now: Instant, rest: Duration) -> Result<Option<Instant>, FsError> {
        if self.options.read_only {
            return Ok(None);
        }
        self.meet_drops()?;
        loop {
            let (due, next) = self.due(now, rest);
            if due.is_empty() || self.is_hurried.load(Ordering::Relaxed) {
                return Ok(next);
            }
            let handing: Vec<Handing> = due.into_iter().filter_map(|due| self.hand_over(due)).collect();
            if handing.is_empty() {
                // All of it was touched meanwhile, or could not be read.
                return Ok(Some(now + rest));
            }
            for handing in handing {
                self.handed_over(handing);
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
        let mut state = self.room.lock();
        let gone: Vec<_> = state.forest.drops().filter(|drop| !there.contains(drop)).collect();
        gone.into_iter().for_each(|drop| state.forget(drop));
        std::mem::drop(state);
        let mount = self.owner.engine().drops().directory()?.join(MOUNT);
        for drop in staging::drops(&mount)? {
            if !there.contains(&drop) {
                Staging::of(&mount, drop).remove()?;
            }
        }
        self.room.lock().met = Some(listed);
        Ok(())
    }

    /// What is due, oldest first, and when the next is.
    fn due(&self, now: Instant, rest: Duration) -> (Vec<Due>, Option<Instant>) {
        let state = self.room.lock();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for &entry in &state.unsettled {
            let Some(found) = state.due(entry, rest) else { continue };
            if found.at > now {
                next = Some(next.map_or(found.at, |next| next.min(found.at)));
            } else {
                due.push(found);
            }
        }
        due.sort_by_key(|due| due.at);
        due.truncate(BATCH);
        (due, next)
    }

    /// Reads a file that is due, and offers it to the store. None: it was touched meanwhile.
    fn hand_over(&self, due: Due) -> Option<Handing> {
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
        match state.forest.entry_mut(due.entry).map(|entry| &mut entry.what) {
            Some(What::File(Body::Staged(staged))) => staged.handing = sent.clone(),
            Some(What::Directory(directory, _)) => directory.handing = true,
            _ => return None,
        }
        std::mem::drop(state);
        let (name, path) = due.names.split_last()?;
        let header = Header {
            name: name.clone(),
            path: path.join("/"),
            size,
            digest: Some(digest),
            kind: if due.round.is_some() { Kind::File } else { Kind::EmptyDirectory },
            ..Header::default()
        };
        let commit = self.owner.engine().drops().accept(due.drop, header, sent.as_deref());
        Some(Handing { due, sent, size, modified, commit })
    }

    /// Waits for the store's word, and has it hold.
    fn handed_over(&self, handing: Handing) {
        let Handing { due, sent, size, modified, commit } = handing;
        match commit.and_then(|commit| Ok(commit.wait()?)) {
            Ok(record) => {
                let mut state = self.room.lock();
                if let Some(loaded) = state.drops.get_mut(&due.drop) {
                    loaded.listed.insert(record);
                }
                if due.round.is_some() {
                    // A crash before this leaves both names; the record then decides.
                    if let Err(error) = due.staging.remove_file(&due.names) {
                        warn!(%error, "a file that was handed over keeps its old name until the next start");
                    }
                    state.seal(due.entry, record, size, modified);
                } else if let Some(directory) = state.forest.directory_mut(due.entry) {
                    directory.handing = false;
                    directory.known = true;
                    directory.record = Some(record);
                    state.unsettled.remove(&due.entry);
                    state.known(due.entry);
                }
                debug!(file = due.names.join("/"), bytes = size, "a file in a drop is complete, and on its way");
            }
            Err(error) => {
                if let Some(sent) = sent
                    && let Err(error) = staging::allow_missing(std::fs::remove_file(sent))
                {
                    warn!(%error, "a second name of a file is left until the next start");
                }
                self.hold(&due, &error.to_string());
            }
        }
        self.room.handed.notify_all();
    }

    /// It was refused: told once, and tried again later.
    fn hold(&self, due: &Due, reason: &str) {
        let mut state = self.room.lock();
        let refused = Refused { until: Instant::now() + AGAIN, reason: reason.to_owned() };
        let known = match state.forest.entry_mut(due.entry).map(|entry| &mut entry.what) {
            Some(What::File(Body::Staged(staged))) => {
                staged.handing = None;
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
                directory.handing = false;
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

impl State {
    /// When a file or directory has rested for `rest`; none: never, as it is.
    fn due(&self, entry: EntryId, rest: Duration) -> Option<Due> {
        let there = self.forest.entry(entry)?;
        let (at, round) = match &there.what {
            What::File(Body::Staged(staged)) if staged.handing.is_none() => {
                let rested = staged.settling.due(rest)?;
                let held = staged.refused.as_ref().map(|refused| refused.until);
                (held.map_or(rested, |held| held.max(rested)), Some(staged.settling.round()))
            }
            What::Directory(directory, children)
                if children.is_empty() && !directory.known && directory.record.is_none() && !directory.handing =>
            {
                (directory.made + rest, None)
            }
            _ => return None,
        };
        if Lot::of(self.forest.names(entry)) != Lot::Sent {
            return None;
        }
        let staging = self.drops.get(&there.drop)?.staging.clone();
        Some(Due { entry, drop: there.drop, names: self.owned_names(entry), staging, round, at })
    }
}

/// The bytes of a file, their digest, and when they were changed.
fn read(due: &Due) -> std::io::Result<(u64, Digest, SystemTime)> {
    let mut file: File = due.staging.open(&due.names, false)?;
    let mut hash = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            let modified = file.metadata()?.modified()?;
            return Ok((size, *hash.finalize().as_bytes(), modified));
        }
        hash.update(&chunk[..count]);
        size += count as u64;
    }
}
