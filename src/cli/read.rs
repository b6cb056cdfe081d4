//! `pigeonfs read`

use std::time::Duration;

use clap::Args;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::progress::beside;
use super::{Stop, byte_count, milliseconds, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response};
use crate::store::ChannelName;

/// A read whose end is not known waits so long by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// `--follow` asks anew after so long.
const BEAT_MS: u64 = 10_000;

/// Write what has arrived to stdout
#[derive(Args, Debug)]
#[command(after_help = "\
Ends where the network has said that nothing more is there yet. Where it has not said so, read waits, and then fails:
what it printed is never a short file with exit code 0. With --follow it never ends by itself.

Examples:
  pigeonfs read notes > notes.txt
  pigeonfs read --follow log | grep --line-buffered error")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Go on as more arrives, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Start after this many bytes, such as 10k
    #[arg(long, value_name = "SIZE", value_parser = byte_count, default_value = "0")]
    offset: u64,
    /// Give up after TIME if the network has not answered, with exit code 3 [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let Typed { name, follow, mut offset, timeout, daemon } = typed;
    let name = name.to_string();
    let timeout_ms = milliseconds(timeout.unwrap_or(PATIENCE));
    let follow_ms = if follow { BEAT_MS } else { 0 };
    context
        .with_state(daemon.meant()?, async |link: &Link| {
            loop {
                let question = Request::Read { name: name.clone(), offset, follow_ms, timeout_ms };
                // Where something comes at once, nothing is shown beside it.
                match beside(context, &name, None, link.request(question)).await {
                    Ok(Response::Bytes { end: true, .. }) if !follow => return Ok(()),
                    Ok(Response::Bytes { bytes, .. }) => {
                        offset += bytes.len() as u64;
                        // Whoever reads our output may take its time.
                        let written = tokio::task::spawn_blocking(move || output::bytes(&bytes));
                        written.await.map_err(|error| {
                            Failure::new(FailureKind::Failed, format!("what was read could not be written: {error}"))
                        })??;
                    }
                    Ok(_) => return Err(misunderstood()),
                    // Who follows has all the time there is, unless it was limited.
                    Err(failure) if follow && timeout.is_none() && failure.kind == FailureKind::TimedOut => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
        })
        .await
}
