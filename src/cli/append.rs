//! `pigeonfs append`

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use super::context::{Context, channel_of, misunderstood};
use super::daemon::DaemonArgs;
use super::estimate::Estimate;
use super::progress::beside;
use super::{Stop, milliseconds, name, output, seconds};
use crate::engine::control::{CHUNK_BYTES, Failure, FailureKind, Link, Request, Response};
use crate::engine::status::DurabilityStatus;
use crate::store::ChannelName;

/// Append stdin to a stream, made where it is missing
#[derive(Args, Debug)]
#[command(after_help = "\
What is answered for is safe on this machine's disk. With a mount running, that is all that is waited for: the mount
sends it. Without one, nobody else would, so append stays until all of it is stored, or says with --no-wait that
nobody is sending.

Examples:
  echo hello | pigeonfs append log
  tar c photos | pigeonfs append backup --localnet
  tar c photos | pigeonfs append backup --dry-run     boxes, packets and time")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Say what it would take, and append nothing
    #[arg(long, conflicts_with_all = ["no_wait", "timeout"])]
    dry_run: bool,
    /// Do not wait until it is stored, even where no mount would send it
    #[arg(long)]
    no_wait: bool,
    /// Give up after TIME if it is not stored, with exit code 3 [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let Typed { name, no_wait, timeout, daemon, dry_run } = typed;
    if dry_run {
        return estimate(context, &name, daemon).await;
    }
    context
        .with_state(daemon.meant()?, async |link: &Link| {
            let name = name.to_string();
            // Asked before stdin is read: a channel that takes nothing should not cost a pipeline its output.
            link.request(Request::Append { name: name.clone(), bytes: Vec::new(), making: true }).await?;
            let mut channel = channel_of(link.request(Request::Status { name: Some(name.clone()) }).await?)?;
            let mut chunks = stdin_chunks();
            while let Some(chunk) = chunks.recv().await {
                let bytes = chunk.map_err(|error| {
                    Failure::new(FailureKind::Failed, format!("standard input cannot be read: {error}"))
                        .hint("what was read before is appended")
                })?;
                match link.request(Request::Append { name: name.clone(), bytes, making: true }).await? {
                    Response::Appended { size } => channel.size = size,
                    _ => return Err(misunderstood()),
                }
            }
            if link.is_owner() && no_wait {
                tracing::warn!(%name, "nobody is sending: mount this state, or run `pigeonfs wait`");
            } else if link.is_owner() {
                let timeout_ms = timeout.map(milliseconds);
                let wait =
                    Request::Wait { name: name.clone(), bytes: None, timeout_ms, level: DurabilityStatus::Stored };
                channel = channel_of(beside(context, &name, None, link.request(wait)).await?)?;
            }
            if !context.json {
                return Ok(());
            }
            output::json(&json!({ "name": name, "size": channel.size, "stored_bytes": channel.stored_bytes }))
        })
        .await
}

async fn estimate(context: &Context, name: &ChannelName, daemon: DaemonArgs) -> Result<(), Stop> {
    context
        .with_state(daemon.meant()?, async |link: &Link| {
            let bytes = counted().await?;
            let estimate = Estimate::of(link, name.as_str(), vec![(0, bytes)]).await?;
            estimate.print(context, name.as_str(), None, bytes)
        })
        .await
}

/// How many bytes come on standard input.
pub(super) async fn counted() -> Result<u64, Stop> {
    let (mut bytes, mut chunks) = (0, stdin_chunks());
    while let Some(chunk) = chunks.recv().await {
        let chunk = chunk
            .map_err(|error| Failure::new(FailureKind::Failed, format!("standard input cannot be read: {error}")))?;
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}

/// Standard input, as it comes. Read on a thread of its own, which a signal need not wait for.
pub(super) fn stdin_chunks() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    receiver
}
