//! Sending by a courier's copy command: no reader sees a box before all are there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use rustix::fs::OFlags;

use super::super::Stop;
use super::super::signals::Signals;
use super::{Sent, failed};
use crate::bacap::WriteCap;
use crate::drop::Header;
use crate::engine::control::{Failure, FailureKind};
use crate::store::{PrivateDir, PrivateDirError};
use crate::thin::{Client, ClientOptions, Config, CopyStream, Courier, Payload};

/// Most bytes of header and file together. The daemon takes 10 MiB in one call.
const LIMIT: u64 = 9 << 20;
/// The copy stream, in the directory of the transfer.
const STREAM: &str = "copy";
/// The same before it is whole.
const NEW: &str = "copy.new";

pub(super) async fn send(
    place: &Path,
    config: Config,
    cap: &WriteCap,
    header: &Header,
    file: &mut File,
) -> Result<Sent, Stop> {
    // As upstream's: its receiver reads name and size, and what is no file of ours needs no more.
    let plain = Header { name: header.name.clone(), size: header.size, ..Header::default() };
    let mut bytes = plain.encode(usize::MAX).map_err(|error| failed(error.to_string()))?;
    let total = bytes.len() as u64 + header.size;
    if total > LIMIT {
        return Err(failed(format!(
            "payload of {total} bytes exceeds COPY mode limit of {LIMIT} bytes; rerun with --no-copy to stream it"
        ))
        .into());
    }
    file.take(LIMIT).read_to_end(&mut bytes).map_err(|error| failed(format!("the file cannot be read: {error}")))?;
    if bytes.len() as u64 != total {
        return Err(failed("the file changed while it was read".to_owned()).into());
    }
    let (place, _) = PrivateDir::open_or_make(place).map_err(|error| failed(error.to_string()))?;
    let signals = Signals::take()?;
    let client = Client::start(config, ClientOptions::default());
    let result = tokio::select! {
        sent = copied(&client, &place, cap, bytes) => sent,
        () = signals.came() => Err(Failure::new(FailureKind::Interrupted, "interrupted")
            .hint("the same command goes on with it")),
    };
    client.close().await;
    Ok(Sent { bytes: header.size, ..result? })
}

async fn copied(client: &Client, place: &PrivateDir, cap: &WriteCap, bytes: Vec<u8>) -> Result<Sent, Failure> {
    let told = |error: crate::thin::Error| failed(error.to_string());
    let began = Instant::now();
    client
        .wait_connected(client.deadline_for(0))
        .await
        .map_err(|error| failed(format!("the daemon cannot be reached: {error}")))?;
    let mut stream = match kept(place)? {
        Some(stream) => stream,
        None => {
            let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
            getrandom::fill(&mut *seed)
                .map_err(|error| failed(format!("this machine gives no randomness: {error}")))?;
            let mut stream = CopyStream::new(WriteCap::from_seed(&seed));
            let payload = Payload { write_cap: cap.clone(), start: cap.index().clone(), bytes };
            stream.add(client, &[payload], client.deadline_for(64)).await.map_err(told)?;
            stream.finish(client, client.deadline_for(8)).await.map_err(told)?;
            keep(place, &stream)?;
            stream
        }
    };
    let boxes = stream.unwritten();
    let deadline = client.deadline_for(u32::try_from(boxes).unwrap_or(u32::MAX).saturating_mul(2));
    stream.write(client, deadline).await.map_err(told)?;
    stream.copy(client, Courier::Random, deadline).await.map_err(told)?;
    Ok(Sent { bytes: 0, boxes: boxes as u64, took: began.elapsed() })
}

/// The stream of the same transfer, where it was cut off after it was made.
fn kept(place: &PrivateDir) -> Result<Option<CopyStream>, Failure> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read = match place.file(STREAM, OFlags::RDONLY) {
        Ok(mut file) => file.read_to_end(&mut bytes),
        Err(PrivateDirError::Missing { .. }) => return Ok(None),
        Err(error) => Err(error.into()),
    };
    match read {
        Ok(_) => Ok(CopyStream::from_bytes(&bytes)),
        Err(error) => Err(failed(format!("{} cannot be read: {error}", place.path().join(STREAM).display()))),
    }
}

/// Keeps the stream before its first box is written.
fn keep(place: &PrivateDir, stream: &CopyStream) -> Result<(), Failure> {
    let write = || {
        let mut file = place.file(NEW, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_all(&stream.to_bytes())?;
        file.sync_all()?;
        place.rename(NEW, STREAM)?;
        Ok(place.sync()?)
    };
    write().map_err(|error: std::io::Error| failed(format!("{} cannot be written: {error}", place.path().display())))
}
