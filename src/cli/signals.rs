//! SIGINT, SIGTERM and SIGHUP: the first ends a verb in order, another one a second later ends it at once. What was
//! ignored when the program was started (`nohup`, or `&` in a script) stays ignored. Signals that tell something else
//! end nothing.

use std::process;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::log;
use crate::engine::control::{Failure, FailureKind};

/// What a shell makes of an end by SIGINT.
const INTERRUPTED: i32 = 130;
/// Signals within this time are one: `timeout` sends its own to the process and to its group, and a closing terminal
/// sends SIGHUP and SIGTERM.
const ONE_SIGNAL: Duration = Duration::from_secs(1);
/// How long the log may take to be written when the process ends at once.
const LAST_LINES: Duration = Duration::from_millis(200);
/// A write met the limit of file sizes. It fails with EFBIG then, and whoever wrote is told.
const FILE_SIZE: i32 = libc::SIGXFSZ;

pub(super) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Takes the signals over, once for the process. Needs the tokio runtime that the process keeps.
    pub(super) fn take() -> Result<Self, Failure> {
        static TAKEN: OnceLock<watch::Receiver<bool>> = OnceLock::new();
        if let Some(seen) = TAKEN.get() {
            return Ok(Self(seen.clone()));
        }
        let ignored = Ignored::now();
        let (told, mut heard) = mpsc::channel(1);
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            if !ignored.has(kind) {
                tokio::spawn(forward(handle(kind)?, told.clone()));
            }
        }
        // Their default is the end of the process. A handler of its own is enough to prevent that.
        for kind in [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::from_raw(FILE_SIZE)] {
            if !ignored.has(kind) {
                drop(handle(kind)?);
            }
        }
        let (came, seen) = watch::channel(false);
        tokio::spawn(async move {
            // Kept, so that a process that ignores all three waits here.
            let _told = told;
            let mut first: Option<Instant> = None;
            while heard.recv().await.is_some() {
                match first {
                    None => {
                        first = Some(Instant::now());
                        came.send_replace(true);
                    }
                    Some(first) if first.elapsed() < ONE_SIGNAL => {}
                    Some(_) => {
                        log::flush(Some(LAST_LINES));
                        process::exit(INTERRUPTED);
                    }
                }
            }
        });
        Ok(Self(TAKEN.get_or_init(|| seen).clone()))
    }

    /// Resolves once a signal has come.
    pub(super) async fn came(&self) {
        let mut seen = self.0.clone();
        if seen.wait_for(|&came| came).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn handle(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the process's signals could not be taken over: {error}"))
    })
}

async fn forward(mut signal: Signal, told: mpsc::Sender<()>) {
    while signal.recv().await.is_some() {
        if told.send(()).await.is_err() {
            return;
        }
    }
}

/// The signals that this process ignores, as a mask in which bit 0 is signal 1.
struct Ignored(u64);

impl Ignored {
    /// As it is now. Where /proc cannot be read, none.
    fn now() -> Self {
        Self::in_status(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn in_status(status: &str) -> Self {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(&self, kind: SignalKind) -> bool {
        self.0 & (1 << (kind.as_raw_value() - 1)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let ignored = Ignored::in_status("Name:\tcat\nSigBlk:\tff\nSigIgn:\t0000000000001001\n");
        assert!(ignored.has(SignalKind::hangup()) && ignored.has(SignalKind::pipe()));
        assert!(!ignored.has(SignalKind::interrupt()) && !ignored.has(SignalKind::terminate()));
        assert!(!Ignored::in_status("nonsense").has(SignalKind::hangup()));
    }
}
