//! What is asked about the files of drops.

use std::path::Path;

use super::dispatch::{Patience, find};
use super::{CHUNK_BYTES, Failure, FailureKind, Response};
use crate::drop::Header;
use crate::engine::Owner;
use crate::engine::drops::DropError;
use crate::engine::status::RecordStatus;
use crate::store::{Channel, DropRecord, RecordId, RecordState, Role, Store, StoreError};

/// Records that one answer holds at most.
const MOST: u32 = 1000;

fn find_drop(owner: &Owner, name: &str) -> Result<Channel, Failure> {
    let channel = find(owner, name)?;
    if channel.content.is_drop() {
        return Ok(channel);
    }
    Err(Failure::new(FailureKind::Failed, format!("{name:?} is a stream: it carries bytes and not files"))
        .hint("a drop is made with `pigeonfs new --drop NAME`, and taken in with `pigeonfs add --drop NAME`"))
}

fn find_record(owner: &Owner, channel: &Channel, record: i64) -> Result<DropRecord, Failure> {
    Ok(owner.store.drop_record(channel.id, RecordId(record))?.ok_or(StoreError::NoRecord)?)
}

/// Takes a file in. Where the same file is under way, that is the answer: a verb that was interrupted, or whose answer was
/// lost, does not send it twice. While the spool is full it waits for room.
pub(super) async fn accept(
    owner: &Owner,
    store: &Store,
    name: &str,
    header: &[u8],
    staged: Option<&Path>,
) -> Result<Response, Failure> {
    let channel = find_drop(owner, name)?;
    if let Some(refusal) = owner.engine.refusal(&channel) {
        return Err(Failure::new(FailureKind::Refused, refusal));
    }
    if channel.role == Role::Reader {
        return Err(StoreError::ReadOnly.into());
    }
    let (header, _) = Header::decode(header).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    if let Some(record) = under_way(owner, &channel, &header)? {
        let status = owner.engine.drops().record_status(&channel, &record, true);
        return Ok(Response::Record(RecordStatus { again: true, ..status }));
    }
    let mut commits = owner.store.changes().watch_all();
    let mut patience = Patience::new(None);
    let record = loop {
        commits.mark_unchanged();
        let (drops, asked, path) = (owner.engine.drops().clone(), header.clone(), staged.map(Path::to_owned));
        let store = store.clone();
        let id = channel.id;
        // It blocks until the bytes are safe on the disk.
        let accepted = tokio::task::spawn_blocking(move || drops.accept_into(&store, id, asked, path.as_deref()));
        let commit = accepted.await.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))??;
        match commit.await {
            Ok(record) => break record,
            Err(StoreError::SpoolFull { spooled, limit }) if spooled > 0 && header.size <= limit => {
                patience
                    .check(owner, &format!("the spool is full: {spooled} bytes of at most {limit} wait to be sent"))?;
                tokio::select! {
                    _ = commits.changed() => {}
                    () = tokio::time::sleep_until(patience.next_look()) => {}
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    let record = find_record(owner, &channel, record.0)?;
    Ok(Response::Record(owner.engine.drops().record_status(&channel, &record, true)))
}

/// The same file: the same name in the same directories with the same bytes, and not all of it is stored yet.
fn under_way(owner: &Owner, channel: &Channel, header: &Header) -> Result<Option<DropRecord>, Failure> {
    if header.part.is_some() {
        // A part sent again is harmless, and chains are long.
        return Ok(None);
    }
    let named = owner.store.records_named(channel.id, &header.path, header.file_name())?;
    let same = |record: &DropRecord| {
        let sent = matches!(record.state, RecordState::Waiting | RecordState::Filling | RecordState::Filled);
        sent && !record.stored && record.header.as_ref() == Some(header)
    };
    Ok(named.into_iter().find(same))
}

pub(super) fn record(owner: &Owner, name: &str, record: i64) -> Result<Response, Failure> {
    let channel = find_drop(owner, name)?;
    let record = find_record(owner, &channel, record)?;
    Ok(Response::Record(owner.engine.drops().record_status(&channel, &record, true)))
}

pub(super) fn records(owner: &Owner, name: &str, after: i64, limit: u32) -> Result<Response, Failure> {
    let channel = find_drop(owner, name)?;
    let limit = limit.min(MOST) as usize;
    let records = owner.store.records(channel.id, Some(RecordId(after)), limit)?;
    let show = |record: &DropRecord| owner.engine.drops().record_status(&channel, record, false);
    Ok(Response::Records(records.iter().map(show).collect()))
}

pub(super) async fn fetch(owner: &Owner, name: &str, record: i64, offset: u64) -> Result<Response, Failure> {
    let channel = find_drop(owner, name)?;
    let record = find_record(owner, &channel, record)?;
    let drops = owner.engine.drops().clone();
    // It blocks on the disk, and while a compressed file is unpacked.
    let read = tokio::task::spawn_blocking(move || match drops.read(&record, offset, CHUNK_BYTES) {
        Ok(bytes) => Ok(Response::Bytes { end: bytes.is_empty(), bytes }),
        Err(error) => error.broken().map(|reason| Response::Broken { reason }).ok_or(error),
    });
    Ok(read.await.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))??)
}

impl From<DropError> for Failure {
    fn from(error: DropError) -> Self {
        match error {
            DropError::Store(error) => error.into(),
            error @ DropError::Header(_) => Failure::new(FailureKind::Usage, error.to_string()),
            error => Failure::new(FailureKind::Failed, error.to_string()),
        }
    }
}
