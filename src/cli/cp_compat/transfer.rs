//! Box by box, through an engine with a state of its own.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::context::{Context, misunderstood};
use super::super::daemon::DaemonChoice;
use super::super::progress::Progress;
use super::super::{Stop, milliseconds};
use super::{Sent, failed};
use crate::bacap::{ReadCap, WriteCap};
use crate::drop::{Header, SafeName};
use crate::engine::control::{FailureKind, Link, Request, Response, Secret};
use crate::engine::drops::Drops;
use crate::engine::status::{DurabilityStatus, LinkStatus, RecordStatus};
use crate::model::Content;
use crate::state::staging;
use crate::store::StagedFile;

/// The drop's name in the state.
const DROP: &str = "file";
/// How often the progress is shown.
const BEAT: Duration = Duration::from_secs(1);
/// How long a daemon may be missing.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);
/// Longest name that is taken, in bytes.
const LONGEST_NAME: usize = 255;

/// What was received.
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) boxes: u64,
    pub(super) path: PathBuf,
}

pub(super) async fn send(
    place: &Context,
    daemon: DaemonChoice,
    cap: &WriteCap,
    header: Header,
    file: File,
) -> Result<Sent, Stop> {
    let began = Instant::now();
    let secret = Secret::new(cap.to_bytes().to_vec());
    let record = place
        .with_state(daemon, async |link: &Link| {
            open(link, secret).await?;
            let id = accept(link, &place.state, header, file).await?;
            let mut waiting = Waiting::new();
            loop {
                let request = Request::Wait {
                    name: DROP.to_owned(),
                    bytes: None,
                    timeout_ms: Some(milliseconds(BEAT)),
                    level: DurabilityStatus::Stored,
                };
                match link.request(request).await {
                    Ok(_) => break record(link, id).await,
                    Err(failure) if matches!(failure.kind, FailureKind::TimedOut | FailureKind::NoDaemon) => {
                        let record = record(link, id).await?;
                        waiting.look(link, Some(&record)).await?;
                    }
                    Err(failure) => break Err(failure.into()),
                }
            }
        })
        .await?;
    Ok(Sent { bytes: record.size, boxes: record.boxes.unwrap_or_default(), took: began.elapsed() })
}

pub(super) async fn receive(
    place: &Context,
    daemon: DaemonChoice,
    cap: &ReadCap,
    into: &Path,
) -> Result<Received, Stop> {
    let secret = Secret::new(cap.to_bytes().to_vec());
    place
        .with_state(daemon, async |link: &Link| {
            open(link, secret).await?;
            let mut waiting = Waiting::new();
            loop {
                let request = Request::Records { name: DROP.to_owned(), after: 0, limit: 1 };
                let Response::Records(records) = link.request(request).await? else { return Err(misunderstood()) };
                match records.into_iter().next() {
                    Some(record) if record.state == "complete" => return bring_out(link, record, into).await,
                    Some(record) if record.state == "broken" => {
                        let reason = record.reason.unwrap_or_default();
                        return Err(failed(format!("what is there is no file: {reason}")).into());
                    }
                    record => waiting.look(link, record.as_ref()).await?,
                }
                let Response::Channel(channel) = link.request(Request::Status { name: Some(DROP.to_owned()) }).await?
                else {
                    return Err(misunderstood());
                };
                let request = Request::Wait {
                    name: DROP.to_owned(),
                    bytes: Some(channel.size + 1),
                    timeout_ms: Some(milliseconds(BEAT)),
                    level: DurabilityStatus::Stored,
                };
                match link.request(request).await {
                    Ok(_) => {}
                    Err(failure) if matches!(failure.kind, FailureKind::TimedOut | FailureKind::NoDaemon) => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
        })
        .await
}

/// The drop is there: made now, or by a run that was cut off.
async fn open(link: &Link, capability: Secret) -> Result<(), Stop> {
    let there = link.request(Request::Status { name: Some(DROP.to_owned()) }).await;
    if there.is_ok() {
        return Ok(());
    }
    let content = Content::Drop { allow_delete: false };
    let name = DROP.to_owned();
    link.request(Request::Add { name, capability, content, strict_network: false, kept_until: None }).await?;
    Ok(())
}

/// Hands the file over, unless an earlier run has.
async fn accept(link: &Link, state: &Path, header: Header, mut file: File) -> Result<i64, Stop> {
    let request = Request::Records { name: DROP.to_owned(), after: 0, limit: 1 };
    let Response::Records(records) = link.request(request).await? else { return Err(misunderstood()) };
    if let Some(record) = records.first() {
        return Ok(record.record);
    }
    let incoming = Drops::incoming_of(state).map_err(crate::engine::control::Failure::from)?;
    let key = staging::key(link).await?;
    let copied = tokio::task::spawn_blocking(move || {
        let copy = tempfile::NamedTempFile::new_in(incoming)?;
        // Locked, so that nobody takes it for a leftover.
        copy.as_file().lock()?;
        let staged = StagedFile::create(copy.as_file().try_clone()?, key.as_ref().map(Secret::expose))?;
        io::copy(&mut file, &mut staged.sequential())?;
        Ok::<_, io::Error>(copy)
    });
    let cannot = |error: String| failed(format!("the file cannot be copied to {}: {error}", state.display()));
    let copy = copied.await.map_err(|error| cannot(error.to_string()))?.map_err(|error| cannot(error.to_string()))?;
    // From here on it may belong to the drop; what is not taken is swept by the state's owner.
    let (_locked, path) = copy.keep().map_err(|error| cannot(error.to_string()))?;
    let header = header.encode(usize::MAX).map_err(|error| failed(error.to_string()))?;
    let request = Request::Accept { name: DROP.to_owned(), header, staged: Some(path) };
    let Response::Record(record) = link.request(request).await? else { return Err(misunderstood()) };
    Ok(record.record)
}

async fn record(link: &Link, id: i64) -> Result<RecordStatus, Stop> {
    match link.request(Request::Record { name: DROP.to_owned(), record: id }).await? {
        Response::Record(record) => Ok(record),
        _ => Err(misunderstood()),
    }
}

/// Writes the file under the name that its sender gave, and never over another.
async fn bring_out(link: &Link, record: RecordStatus, into: &Path) -> Result<Received, Stop> {
    let name = record.name.as_str();
    let sound = !name.is_empty() && name.len() <= LONGEST_NAME && !matches!(name, "." | "..");
    if !sound || name.contains(['/', '\\']) || name.chars().any(char::is_control) {
        return Err(failed(format!("the file is called {name:?}, which is not taken as a name")).into());
    }
    // As `pigeonfs receive` does it: a stranger plants neither a hidden file nor an option of a command.
    let path = into.join(SafeName::outside(name, false).as_str());
    let cannot = |error: io::Error| failed(format!("{} cannot be written: {error}", crate::text::shown_path(&path)));
    let mut file = tempfile::NamedTempFile::new_in(into).map_err(cannot)?;
    let mut offset = 0;
    loop {
        let request = Request::Fetch { name: DROP.to_owned(), record: record.record, offset };
        match link.request(request).await? {
            Response::Bytes { bytes, .. } if bytes.is_empty() => break,
            Response::Bytes { bytes, .. } => {
                file.write_all(&bytes).map_err(cannot)?;
                offset += bytes.len() as u64;
            }
            Response::Broken { reason } => return Err(failed(format!("the file is broken: {reason}")).into()),
            _ => return Err(misunderstood()),
        }
    }
    file.as_file().sync_all().map_err(cannot)?;
    file.persist_noclobber(&path).map_err(|error| cannot(error.error))?;
    File::open(into).and_then(|directory| directory.sync_all()).map_err(cannot)?;
    Ok(Received { bytes: offset, boxes: record.boxes.unwrap_or_default(), path })
}

/// What is looked at, while a transfer goes on.
struct Waiting {
    /// On a terminal only: scripts read what the tool prints.
    progress: Option<Progress>,
    no_daemon_since: Option<Instant>,
}

impl Waiting {
    fn new() -> Self {
        let progress = io::stderr().is_terminal().then(|| Progress::new(false, true));
        Self { progress, no_daemon_since: None }
    }

    /// Shows the progress, and fails where no daemon has been there for long.
    async fn look(&mut self, link: &Link, record: Option<&RecordStatus>) -> Result<(), Stop> {
        let Response::Status(status) = link.request(Request::Status { name: None }).await? else {
            return Err(misunderstood());
        };
        if let (Some(progress), Some(record)) = (&mut self.progress, record) {
            progress.at(&record.name, record.done, record.sent_size)?;
        }
        if matches!(status.daemon.link, LinkStatus::Connected | LinkStatus::NoConsensus) {
            self.no_daemon_since = None;
            return Ok(());
        }
        if self.no_daemon_since.get_or_insert_with(Instant::now).elapsed() < DAEMON_PATIENCE {
            return Ok(());
        }
        let why = status.daemon.error.unwrap_or_else(|| "no daemon was found".to_owned());
        Err(failed(why).hint("nothing is lost: the same command goes on with it").into())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.end();
        }
    }
}
