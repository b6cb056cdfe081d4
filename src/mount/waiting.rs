//! Questions to the file system off the threads that serve others, and answers that are waited for.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::interrupt::Caller;
use crate::fs::{Answer, Fs, FsError};

/// Asks, on a thread that may block.
pub(super) async fn look<T: Send + 'static>(
    fs: &Arc<Fs>,
    question: impl FnOnce(&Fs) -> Result<T, FsError> + Send + 'static,
) -> Result<T, FsError> {
    let fs = Arc::clone(fs);
    let asked = tokio::task::spawn_blocking(move || question(&fs)).await;
    asked.map_err(|error| FsError::new(libc::EIO, error.to_string()))?
}

/// An answer that is waited for where it must be: until the channel changes so that there is one, the patience is at its
/// end, or the caller is interrupted. A call that comes again after that goes on with the same wait.
pub(super) async fn answer<T: Send + 'static>(
    fs: &Arc<Fs>,
    caller: &Caller,
    handle: u64,
    question: impl Fn(&Fs) -> Result<Answer<T>, FsError> + Clone + Send + 'static,
) -> Result<T, FsError> {
    let started = Instant::now();
    let first = match look(fs, question.clone()).await? {
        Answer::Now(answer) => return Ok(answer),
        Answer::Later(pause) => pause,
    };
    let mut changes = fs.owner().store().changes().watch(first.channel);
    let mut wait = caller.waits();
    let mut signal = std::pin::pin!(wait.interrupted());
    loop {
        // Looked at after the watch began, so that no change falls between.
        let pause = match look(fs, question.clone()).await {
            Ok(Answer::Later(pause)) => pause,
            Ok(Answer::Now(answer)) => {
                fs.patience().ended(handle);
                return Ok(answer);
            }
            Err(error) => {
                fs.patience().ended(handle);
                return Err(error);
            }
        };
        let until = started + fs.patience().left(handle, &pause);
        tokio::select! {
            _ = changes.changed() => {}
            () = &mut signal => {
                fs.patience().interrupted(handle, &pause, started.elapsed());
                return Err(FsError::quiet(libc::EINTR, "interrupted"));
            }
            () = sleep_until(until) => {
                fs.patience().ended(handle);
                return Err(pause.timed_out());
            }
        }
    }
}
