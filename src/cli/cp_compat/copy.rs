//! Sending by a courier's copy command: no reader sees a box before all are there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use super::super::Stop;
use super::super::signals::Signals;
use super::{Sent, failed};
use crate::bacap::WriteCap;
use crate::drop::Header;
use crate::engine::control::{Failure, FailureKind};
use crate::thin::{Client, ClientOptions, Config, CopyStream, Courier, Payload};

/// Most bytes of header and file together. The daemon takes 10 MiB in one call.
const LIMIT: u64 = 9 << 20;
/// The copy stream, in the directory of the transfer.
const STREAM: &str = "copy";

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
    let signals = Signals::take()?;
    let client = Client::start(config, ClientOptions::default());
    let result = tokio::select! {
        sent = copied(&client, place, cap, bytes) => sent,
        () = signals.came() => Err(Failure::new(FailureKind::Interrupted, "interrupted")
            .hint("the same command goes on with it")),
    };
    client.close().await;
    Ok(Sent { bytes: header.size, ..result? })
}

async fn copied(client: &Client, place: &Path, cap: &WriteCap, bytes: Vec<u8>) -> Result<Sent, Failure> {
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
fn kept(place: &Path) -> Result<Option<CopyStream>, Failure> {
    match std::fs::read(place.join(STREAM)) {
        Ok(bytes) => {
            let bytes = zeroize::Zeroizing::new(bytes);
            Ok(CopyStream::from_bytes(&bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(format!("{} cannot be read: {error}", place.join(STREAM).display()))),
    }
}

/// Keeps the stream before its first box is written.
fn keep(place: &Path, stream: &CopyStream) -> Result<(), Failure> {
    let write = || {
        std::fs::create_dir_all(place)?;
        let mut file = tempfile::NamedTempFile::new_in(place)?;
        file.write_all(&stream.to_bytes())?;
        file.as_file().sync_all()?;
        file.persist(place.join(STREAM))?;
        File::open(place)?.sync_all()
    };
    write().map_err(|error: std::io::Error| failed(format!("{} cannot be written: {error}", place.display())))
}
