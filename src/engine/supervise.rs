//! The tasks of the engine: one that panics is told of, and is started again from what the store has.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tracing::error;

use super::shared::Shared;
use crate::channel::pause_before_retry;

/// After so long without a panic a task counts as well again.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// Runs what `start` makes until it ends by itself, or `stop` changes while it is down. `part` names it for a person.
pub(super) async fn supervise<F>(
    part: &'static str,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    mut start: impl FnMut() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut panics = 0_u32;
    loop {
        // It goes with this future where that is dropped.
        let mut task = JoinSet::new();
        task.spawn(start());
        let began = Instant::now();
        let Some(Err(panic)) = task.join_next().await else { return };
        if !panic.is_panic() {
            return;
        }
        if began.elapsed() >= WELL_AFTER {
            panics = 0;
        }
        error!(part, %panic, "a part of the engine ended abnormally; it is started again");
        shared.part_is_down(part, Some(&panic.to_string()));
        tokio::select! {
            () = sleep(pause_before_retry(panics)) => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        panics = panics.saturating_add(1);
        shared.part_is_down(part, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::{Limits, StateDir, Store};

    /// A task that had panicked was gone until the next start, and nothing said so.
    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_is_told_of_and_started_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&StateDir::lock(dir.path()).expect("ours"), Limits::default()).expect("a store");
        let shared = Arc::new(Shared::new(store));
        let (stop, stopped) = watch::channel(false);
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let start = move || {
            let starts = Arc::clone(&counted);
            async move {
                let start = starts.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                assert!(start > 1, "twice");
                std::future::pending::<()>().await;
            }
        };
        let supervised = tokio::spawn(supervise("the driver", Arc::clone(&shared), stopped, start));
        sleep(Duration::from_millis(1100)).await;
        let told = shared.failure().expect("it is down");
        assert!(told.contains("the driver") && told.contains("twice"), "{told}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!((starts.load(Ordering::Relaxed), shared.failure()), (3, None));
        stop.send_replace(true);
        supervised.abort();
    }
}
