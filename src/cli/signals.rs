//! SIGINT, SIGTERM and SIGHUP: the first ends a verb in order, the second at once.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::engine::control::{Failure, FailureKind};

/// What a shell makes of an end by SIGINT.
const INTERRUPTED: i32 = 130;

pub(super) struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Takes the signals over. Needs a tokio runtime.
    pub(super) fn take() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(FailureKind::Failed, format!("the process's signals could not be taken over: {error}"))
            })
        };
        let (mut int, mut term, mut hup) =
            (take(SignalKind::interrupt())?, take(SignalKind::terminate())?, take(SignalKind::hangup())?);
        let (came, seen) = watch::channel(false);
        tokio::spawn(async move {
            any(&mut int, &mut term, &mut hup).await;
            came.send_replace(true);
            any(&mut int, &mut term, &mut hup).await;
            process::exit(INTERRUPTED);
        });
        Ok(Self(seen))
    }

    /// Resolves once a signal has come.
    pub(super) async fn came(&self) {
        let mut seen = self.0.clone();
        if seen.wait_for(|&came| came).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn any(int: &mut Signal, term: &mut Signal, hup: &mut Signal) {
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
}
