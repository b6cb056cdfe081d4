//! What is told of drops: attributes, states, and what is left to do.

use std::sync::Arc;

use super::lot::Lot;
use super::open::OpenFile;
use super::room::{Body, State, gone};
use super::settle::Fault;
use super::tree::EntryId;
use crate::drop::{SafeName, SafePath};
use crate::fs::{Answer, Attributes, Fs, FsError, Node};
use crate::store::{Channel, ChannelId, DropRecord, RecordState, Role};

/// Files that a status names.
pub(super) const NAMED: usize = 32;

/// Why a file waits whose name looks temporary.
const TEMPORARY: &str = "its name looks temporary";

/// Broken ones that it names.
const BROKEN: usize = 8;

/// How a drop stands, beside what its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fs) struct Unsettled {
    /// Open, or closed and about to be sent.
    pub(in crate::fs) settling: Vec<String>,
    /// Never sent as they are: something shows that they are not whole, or their names look temporary. With why.
    pub(in crate::fs) unfinished: Vec<(String, &'static str)>,
    /// How many of those a person may say to be whole.
    pub(in crate::fs) to_finish: u64,
    /// Of the settling ones those that the store has refused, with why.
    pub(in crate::fs) held: Vec<(String, String)>,
    /// Desktops' and editors' own.
    pub(in crate::fs) local: u64,
    /// For which there is no room in the listing.
    pub(in crate::fs) hidden: u64,
}

impl Fs {
    /// The attributes of something in a drop.
    pub(in crate::fs) fn dropped_attributes(&self, node: Node, open: Option<&OpenFile>) -> Result<Attributes, FsError> {
        let (Node::DropDirectory(entry) | Node::DropFile(entry)) = node else { return Err(gone()) };
        let state = self.room.lock();
        let Some(drop) = state.forest.entry(entry).map(|entry| entry.drop) else {
            // Removed while it was open.
            let kept = state.unlinked.get(&entry).map(|unlinked| Arc::clone(&unlinked.file));
            std::mem::drop(state);
            let file = kept.or_else(|| self.unlinked(open?)).ok_or_else(gone)?;
            return self.unlinked_attributes(node, &file);
        };
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let writable = loaded.role == Role::Writer && !self.options.read_only;
        let mut attributes = if let Some((directory, _)) = state.forest.directory(entry) {
            let mut attributes = Attributes::of_dropped(node, 0, writable, directory.modified, &self.options);
            attributes.mode &= directory.mode.unwrap_or(0o777);
            attributes.changed = directory.changed.max(directory.listed);
            attributes
        } else {
            match state.forest.file(entry).ok_or_else(gone)? {
                Body::Sealed(sealed) => Attributes {
                    changed: sealed.changed,
                    ..Attributes::of_dropped(node, sealed.size, false, sealed.modified, &self.options)
                },
                Body::Staged(_) => {
                    let found = std::fs::symlink_metadata(loaded.staging.path(&state.owned_names(entry))?)?;
                    let length = self.owner.store().sealing().content_len(found.len());
                    Attributes::of_file(node, length, &found, &self.options)
                }
            }
        };
        if let Some(owner) = state.owners.get(&entry) {
            (attributes.uid, attributes.gid) = (owner.uid, owner.gid);
        }
        Ok(attributes)
    }

    /// The root of a drop.
    pub(in crate::fs) fn drop_attributes(&self, channel: &Channel) -> Attributes {
        let writable = channel.role == Role::Writer && !self.options.read_only;
        Attributes::of_dropped(Node::Drop(channel.id), 0, writable, channel.modified, &self.options)
    }

    /// What a directory of a drop lists.
    pub(in crate::fs) fn list_dropped(&self, node: Node) -> Result<Vec<(Node, String)>, FsError> {
        let (drop, directory, state) = self.directory(node)?;
        let parent = state.forest.entry(directory).ok_or_else(gone)?.parent;
        let up = match node {
            Node::Drop(_) => Node::Root,
            _ if state.forest.root(drop) == Some(parent) => Node::Drop(drop),
            _ => Node::DropDirectory(parent),
        };
        let mut entries = vec![(node, ".".to_owned()), (up, "..".to_owned())];
        let (_, children) = state.forest.directory(directory).ok_or_else(gone)?;
        entries.extend(children.iter().map(|(name, &entry)| (state.node(entry), name.clone())));
        Ok(entries)
    }

    /// Looks a name up in a directory of a drop.
    pub(in crate::fs) fn lookup_dropped(&self, parent: Node, name: &str) -> Result<Node, FsError> {
        let (_, directory, state) = self.directory(parent)?;
        let entry = state.forest.child(directory, name).ok_or_else(gone)?;
        Ok(state.node(entry))
    }

    /// Whether replicas have all files of a drop that were closed. Fails where some are never sent as they are.
    pub(in crate::fs) fn reached_in_drop(&self, channel: Channel) -> Result<Answer<Channel>, FsError> {
        let unsettled = self.unsettled(channel.id)?;
        let pending = self.owner.store().drop_counts(channel.id)?.pending;
        let settling = unsettled.settling.len();
        if pending > 0 || settling > 0 {
            let text = format!(
                "{pending} files of {} are on their way and {settling} are not closed yet; nothing is lost",
                channel.name
            );
            return Ok(Answer::Later(self.pause(&channel, text)));
        }
        if unsettled.unfinished.is_empty() {
            return Ok(Answer::Now(channel));
        }
        let named: Vec<_> = unsettled.unfinished.iter().take(NAMED).map(|(name, _)| name.as_str()).collect();
        let text = format!("unfinished, and never sent as they are: {}", named.join(", "));
        Err(self.refused(&channel, libc::EIO, text))
    }

    /// How a file of a drop stands, in one word; `None` for a directory.
    pub(in crate::fs) fn dropped_standing(&self, entry: EntryId) -> Result<Option<&'static str>, FsError> {
        let state = self.room.lock();
        let drop = state.forest.entry(entry).ok_or_else(gone)?.drop;
        let record = match state.forest.file(entry) {
            None => return Ok(None),
            Some(Body::Staged(_)) => return Ok(state.standing(entry)),
            Some(Body::Sealed(sealed)) => sealed.record,
        };
        std::mem::drop(state);
        let record = self.owner.store().drop_record(drop, record)?.ok_or_else(gone)?;
        Ok(Some(standing_of(&record)))
    }

    /// What a drop that is written here holds and does not send yet, or never.
    pub(in crate::fs) fn unsettled(&self, drop: ChannelId) -> Result<Unsettled, FsError> {
        let state = self.names_in(drop)?;
        let mut told =
            Unsettled { hidden: state.drops.get(&drop).map_or(0, |loaded| loaded.hidden), ..Unsettled::default() };
        let limit = self.owner.store().limits().spool_bytes;
        for &entry in &state.unsettled {
            if state.forest.entry(entry).is_none_or(|entry| entry.drop != drop) {
                continue;
            }
            let Some(Body::Staged(staged)) = state.forest.file(entry) else { continue };
            let standing = state.standing(entry);
            let name = || state.forest.names(entry).join("/");
            match (standing, staged.settling.fault()) {
                (Some("local"), _) => told.local += 1,
                // It is refused each time that it is handed over.
                (Some("settling"), _) if staged.length > limit => {
                    told.unfinished.push((name(), "it is larger than the spool's limit"));
                }
                (Some("writing" | "settling"), _) => {
                    told.settling.push(name());
                    if let Some(refused) = &staged.refused {
                        told.held.push((name(), refused.reason.clone()));
                    }
                }
                (Some("unfinished"), fault) => {
                    told.to_finish += 1;
                    told.unfinished.push((name(), fault.map_or("unfinished", Fault::reason)));
                }
                (Some(_), _) => told.unfinished.push((name(), TEMPORARY)),
                (None, _) => {}
            }
        }
        Ok(told)
    }

    /// Lines for a person on the files of a drop.
    pub(in crate::fs) fn dropped_lines(&self, channel: &Channel) -> Result<Vec<(&'static str, String)>, FsError> {
        let store = self.owner.store();
        let counts = store.drop_counts(channel.id)?;
        let mut lines = Vec::new();
        if channel.role == Role::Writer {
            let broken = if counts.broken > 0 { format!(", {} broken off", counts.broken) } else { String::new() };
            lines.push(("files", format!("{} stored, {} on their way{broken}", counts.complete, counts.pending)));
        } else {
            lines.push(("files", format!("{} complete, {} broken", counts.complete, counts.broken)));
        }
        if counts.deleted > 0 {
            lines.push(("deleted", format!("{} files", counts.deleted)));
        }
        if let Some(record) = store.arriving(channel.id)? {
            lines.push(("arriving", format!("{}: {} of {} bytes", shown(&record), record.taken, record.size)));
        }
        for record in store.open_chains(channel.id, NAMED)? {
            lines.push(("incomplete", format!("{}: parts of it are missing", shown(&record))));
        }
        for record in store.newest_broken(channel.id, BROKEN)? {
            let reason = record.reason.as_deref().unwrap_or_default();
            lines.push(("broken", format!("{}: {reason}", shown(&record))));
        }
        let unsettled = self.unsettled(channel.id)?;
        for name in unsettled.settling.iter().take(NAMED) {
            lines.push(("settling", name.clone()));
        }
        for (name, why) in unsettled.unfinished.iter().take(NAMED) {
            let what = match *why {
                TEMPORARY => "rename it, write it anew under another name, or remove it".to_owned(),
                _ => format!(
                    "write it anew, remove it, or send it as it is: pigeonfs send --finish {}/{name}",
                    channel.name
                ),
            };
            lines.push(("unfinished", format!("{name} ({why}): {what}")));
        }
        for (name, reason) in unsettled.held.iter().take(NAMED) {
            lines.push(("held", format!("{name}: {reason}")));
        }
        if unsettled.to_finish > 0 {
            let text =
                format!("{} files wait for `pigeonfs send --finish`, or to be written anew", unsettled.to_finish);
            lines.push(("to finish", text));
        }
        let left = unsettled.unfinished.len().saturating_sub(NAMED);
        if left > 0 {
            lines.push(("unfinished", format!("and {left} more")));
        }
        if unsettled.local > 0 {
            lines.push(("local", format!("{} files of desktops and editors, which stay here", unsettled.local)));
        }
        if unsettled.hidden > 0 {
            lines.push(("hidden", format!("{} files more than can be listed: `pigeonfs receive`", unsettled.hidden)));
        }
        Ok(lines)
    }
}

impl State {
    fn node(&self, entry: EntryId) -> Node {
        if self.forest.directory(entry).is_some() { Node::DropDirectory(entry) } else { Node::DropFile(entry) }
    }

    /// How a staged file stands.
    fn standing(&self, entry: EntryId) -> Option<&'static str> {
        let Some(Body::Staged(staged)) = self.forest.file(entry) else { return None };
        Some(match Lot::of(self.forest.names(entry)) {
            Lot::Local => "local",
            _ if staged.settling.is_open() => "writing",
            _ if staged.settling.fault().is_some() => "unfinished",
            Lot::Temporary => "temporary",
            Lot::Sent => "settling",
        })
    }
}

/// What a record is called to a person: what its sender says may hold anything.
fn shown(record: &DropRecord) -> String {
    if record.name.is_empty() {
        return format!("from box {} on", record.first.map_or(0, |first| first.0));
    }
    let path = record.header.as_ref().map(|header| SafePath::of(&header.path).to_string()).unwrap_or_default();
    let name = SafeName::of(&record.name);
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

fn standing_of(record: &DropRecord) -> &'static str {
    match record.state {
        RecordState::Filled if record.stored => "stored",
        RecordState::Waiting => "waiting",
        RecordState::Filling | RecordState::Filled => "sending",
        RecordState::Deleting | RecordState::Deleted => "deleted",
        RecordState::Complete => "complete",
        RecordState::Incomplete => "arriving",
        RecordState::BrokenOff | RecordState::Broken => "broken",
    }
}
