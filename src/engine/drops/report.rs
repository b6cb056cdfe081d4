//! How a drop and its files stand, for the status and the verbs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing::warn;

use super::Drops;
use crate::drop::Kind;
use crate::engine::status::{FilesStatus, IndexText, RecordStatus};
use crate::store::{Channel, DropRecord, RecordState, Role};

/// Files that the status of a drop names.
const NAMED: usize = 8;

impl Drops {
    /// How the files of a drop stand. `settled` is left to who knows how fresh the frontier's verdict is.
    pub(in crate::engine) fn status(&self, channel: &Channel) -> FilesStatus {
        self.try_status(channel).unwrap_or_else(|error| {
            warn!(%error, "the files of a drop could not be counted");
            FilesStatus::default()
        })
    }

    fn try_status(&self, channel: &Channel) -> Result<FilesStatus, crate::store::StoreError> {
        let store = &self.0.store;
        let counts = store.drop_counts(channel.id)?;
        let reader = channel.role == Role::Reader;
        let current = if reader { store.arriving(channel.id)? } else { store.unstored(channel.id)? };
        let open = if reader { store.open_chains(channel.id, NAMED)? } else { Vec::new() };
        let broken = if counts.broken > 0 { store.newest_broken(channel.id, NAMED)? } else { Vec::new() };
        let show = |record: &DropRecord| self.record_status(channel, record, false);
        let unsettled = if reader { super::Unsettled::default() } else { self.unsettled(channel.id) };
        Ok(FilesStatus {
            settling: unsettled.settling,
            unfinished: unsettled.unfinished,
            to_finish: unsettled.to_finish,
            pending: counts.pending,
            complete: counts.complete,
            incomplete: counts.incomplete + open.len() as u64,
            broken: counts.broken,
            deleted: counts.deleted,
            current: current.as_ref().map(show),
            open_chains: open.iter().map(show).collect(),
            newest_broken: broken.iter().map(show).collect(),
            settled: false,
        })
    }

    /// How one file stands; `with_index` tells where it begins in a form that others understand.
    pub(in crate::engine) fn record_status(
        &self,
        channel: &Channel,
        record: &DropRecord,
        with_index: bool,
    ) -> RecordStatus {
        let header = record.header.as_ref();
        let state = match record.state {
            RecordState::Waiting => "waiting",
            RecordState::Filled if record.stored => "stored",
            RecordState::Filling | RecordState::Filled => "sending",
            RecordState::Deleting => "deleting",
            RecordState::Deleted => "deleted",
            RecordState::Incomplete => "incomplete",
            RecordState::Complete => "complete",
            RecordState::BrokenOff | RecordState::Broken => "broken",
        };
        let done = if channel.role == Role::Reader {
            record.taken
        } else if record.first.is_none() {
            0
        } else {
            channel.stored_bytes.saturating_sub(record.begin + record.head_bytes).min(record.size)
        };
        let index = record.first.filter(|_| with_index).and_then(|first| {
            // One whose box was dropped to make room is no longer known.
            self.0.store.index_of(channel.id, first).ok()
        });
        RecordStatus {
            record: record.id.0,
            name: record.name.clone(),
            path: header.map(|header| header.path.clone()).unwrap_or_default(),
            state: state.to_owned(),
            directory: header.is_some_and(|header| header.kind == Kind::EmptyDirectory),
            size: Self::size(record),
            sent_size: record.size,
            done,
            first_box: record.first.map(|first| first.0),
            index: index.map(|index| IndexText(STANDARD.encode(index.as_bytes()))),
            boxes: record.first.zip(record.end).map(|(first, end)| end.0 - first.0),
            digest: record.digest.map(|digest| blake3::Hash::from(digest).to_hex().to_string()),
            part: record.part.map(|(_, part)| part),
            again: false,
            reason: record.reason.clone(),
            delivered: record.delivered,
            mode: header.and_then(|header| header.mode),
            mtime: header.and_then(|header| header.mtime),
        }
    }
}
