//! What is told of drops: attributes, states, and what is left to do.

use std::time::SystemTime;

use super::lot::Lot;
use super::open::OpenFile;
use super::room::{Body, State, gone};
use super::tree::EntryId;
use crate::drop::{SafeName, SafePath};
use crate::fs::{Answer, Attributes, Fs, FsError, Node};
use crate::store::{Channel, ChannelId, DropRecord, RecordState, Role};

/// Files that a status names.
pub(super) const NAMED: usize = 32;

/// Broken ones that it names.
const BROKEN: usize = 8;

/// How a drop stands, beside what its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fs) struct Unsettled {
    /// Open, or closed and about to be sent.
    pub(in crate::fs) settling: Vec<String>,
    /// Never sent as they are: their writer died, or the mount, or their names look temporary. With why.
    pub(in crate::fs) unfinished: Vec<(String, &'static str)>,
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
            std::mem::drop(state);
            let found = open.and_then(|open| self.open_length(open)).ok_or_else(gone)?;
            return Ok(Attributes::of_staged(node, &found, &self.options));
        };
        let loaded = state.drops.get(&drop).ok_or_else(gone)?;
        let writable = loaded.role == Role::Writer && !self.options.read_only;
        if let Some((directory, _)) = state.forest.directory(entry) {
            return Ok(Attributes::of_dropped(node, 0, writable, directory.modified, &self.options));
        }
        match state.forest.file(entry).ok_or_else(gone)? {
            Body::Sealed(sealed) => {
                Ok(Attributes::of_dropped(node, sealed.size, false, sealed.modified, &self.options))
            }
            Body::Staged(_) => {
                let found = std::fs::symlink_metadata(loaded.staging.path(&state.owned_names(entry)))?;
                Ok(Attributes::of_staged(node, &found, &self.options))
            }
        }
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
            return Ok(Answer::Later(self.patience(&channel, text)));
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
        for &entry in &state.unsettled {
            if state.forest.entry(entry).is_none_or(|entry| entry.drop != drop) {
                continue;
            }
            let name = state.forest.names(entry).join("/");
            match state.standing(entry) {
                Some("local") => told.local += 1,
                Some("writing" | "settling") => told.settling.push(name),
                Some(standing) => told.unfinished.push((name, standing)),
                None => {}
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
            lines.push(("files", format!("{} stored, {} on their way", counts.complete, counts.pending)));
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
                "temporary" => "rename it, write it anew under another name, or remove it",
                _ => "write it anew, or remove it",
            };
            lines.push(("unfinished", format!("{name} ({why}): {what}")));
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
            _ if staged.settling.is_unfinished() => "unfinished",
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
        RecordState::Broken => "broken",
    }
}

impl Attributes {
    fn of_staged(node: Node, found: &std::fs::Metadata, options: &crate::fs::Options) -> Self {
        use std::os::unix::fs::MetadataExt;
        let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            mode: found.mode() & 0o777 & !options.umask & if options.read_only { !0o222 } else { !0 },
            accessed: found.accessed().unwrap_or(modified),
            held: found.blocks() * 512,
            ..Self::of_dropped(node, found.len(), true, modified, options)
        }
    }
}
