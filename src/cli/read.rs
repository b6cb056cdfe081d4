//! `pigeonfs read`

use std::time::{Duration, Instant};

use clap::Args;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::{Stop, name, output, seconds};
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
    /// Start after so many bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u64,
    /// Wait so many seconds for what is not known yet [default: 60]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let Typed { name, follow, mut offset, timeout, daemon } = typed;
    let name = name.to_string();
    let patience = timeout.unwrap_or(PATIENCE);
    context
        .with_state(daemon.meant(), async |link: &mut Link| {
            let mut until = Instant::now() + patience;
            loop {
                let wait_ms = if follow { BEAT_MS } else { 0 };
                match link.request(Request::Read { name: name.clone(), offset, wait_ms }).await {
                    Ok(Response::Bytes { end: true, .. }) if !follow => return Ok(()),
                    Ok(Response::Bytes { bytes, .. }) => {
                        offset += bytes.len() as u64;
                        output::bytes(&bytes)?;
                        until = Instant::now() + patience;
                    }
                    Ok(_) => return Err(misunderstood()),
                    Err(failure) if !not_known_yet(&failure) => return Err(failure.into()),
                    // Who follows has time; without a daemon, only as much as anybody else.
                    Err(failure) if follow && failure.kind == FailureKind::TimedOut => until = Instant::now() + patience,
                    Err(failure) if follow && Instant::now() >= until => return Err(failure.into()),
                    Err(_) if follow => {}
                    Err(_) => verdict(link, &name, until).await?,
                }
            }
        })
        .await
}

/// Waits until the network has said where the channel ends for now.
async fn verdict(link: &mut Link, name: &str, until: Instant) -> Result<(), Failure> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    link.request(Request::Wait { name: name.to_owned(), bytes: None, timeout_ms }).await.map(drop)
}

fn not_known_yet(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::TimedOut | FailureKind::NoDaemon)
}
