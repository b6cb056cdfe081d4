//! Callers that were interrupted while they wait.
//!
//! The kernel says of each call that waits that a signal came for its caller, once, and does not say which. From then on
//! the caller is in state D until its call is answered. A signal that ends the program ends the wait at once. Any other
//! that its program handles (a child's end, a window's new size, an alarm; a stop, too) has it go on for a short time,
//! in which most waits are over; then the handler's turn has come, and the call gives EINTR. The kernel's FUSE cannot start
//! a call anew afterwards, whatever SA_RESTART says. Ignored and blocked signals interrupt nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// How long a wait goes on after a signal that its program handles.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked at meanwhile whether one came that ends the program.
const LOOK: Duration = Duration::from_millis(50);
/// Interruptions that are remembered of calls that do not wait, or not yet.
const MAX_EARLY: usize = 256;
/// HUP, INT, QUIT, KILL, TERM: what a person sends who wants the program to end, whether it handles it or not.
const FATAL: u64 = bit(1) | bit(2) | bit(3) | bit(9) | bit(15);

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// The calls of a mount that wait. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupts(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<()>>,
    /// One thread may take the interruption before another has begun with the call.
    early: VecDeque<u64>,
}

/// A call, by the number of its request and its thread, 0 where that cannot be seen.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    interrupts: Interrupts,
    unique: u64,
    thread: u32,
}

/// The wait of a call.
pub(super) struct Wait {
    caller: Caller,
    interrupted: oneshot::Receiver<()>,
}

impl Interrupts {
    pub(super) fn caller(&self, unique: u64, thread: u32) -> Caller {
        Caller { interrupts: self.clone(), unique, thread }
    }

    /// The kernel says that a call was interrupted.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut waiting = self.lock();
        match waiting.calls.remove(&unique) {
            // A wait that has just ended needs it no more.
            Some(call) => {
                let _ = call.send(());
            }
            None => {
                if waiting.early.len() == MAX_EARLY {
                    waiting.early.pop_front();
                }
                waiting.early.push_back(unique);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// The thread that called, 0 where it cannot be seen.
    pub(super) fn thread(&self) -> u32 {
        self.thread
    }

    /// From now on it waits.
    pub(super) fn waits(&self) -> Wait {
        let (call, interrupted) = oneshot::channel();
        let mut waiting = self.interrupts.lock();
        match waiting.early.iter().position(|&unique| unique == self.unique) {
            Some(early) => {
                waiting.early.remove(early);
                let _ = call.send(());
            }
            None => drop(waiting.calls.insert(self.unique, call)),
        }
        Wait { caller: self.clone(), interrupted }
    }
}

impl Wait {
    /// Resolves when the wait is to end for a signal's sake.
    pub(super) async fn interrupted(&mut self) {
        if (&mut self.interrupted).await.is_err() {
            return std::future::pending().await;
        }
        let until = Instant::now() + GRACE;
        while Instant::now() < until && !ends(self.caller.thread) {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.caller.interrupts.lock().calls.remove(&self.caller.unique);
    }
}

/// Whether a thread has a signal to take that ends it, or is gone. One that cannot be seen is taken to.
fn ends(thread: u32) -> bool {
    thread == 0
        || match std::fs::read_to_string(format!("/proc/{thread}/status")) {
            Ok(status) => has_fatal_signal(&status),
            Err(_) => true,
        }
}

fn has_fatal_signal(status: &str) -> bool {
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let pending = mask("SigPnd:").unwrap_or(0) | mask("ShdPnd:").unwrap_or(0);
    pending & !mask("SigBlk:").unwrap_or(0) & !mask("SigIgn:").unwrap_or(0) & FATAL != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fatal_signal_that_can_be_taken_ends_a_thread_at_once() {
        let status = |pending: u64, blocked: u64, ignored: u64| {
            format!(
                "Name:\tcat\nSigPnd:\t0\nShdPnd:\t{pending:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            )
        };
        assert!(has_fatal_signal(&status(bit(2), 0, 0)), "Ctrl-C");
        assert!(!has_fatal_signal(&status(bit(2), bit(2), 0)), "blocked");
        assert!(!has_fatal_signal(&status(bit(1), 0, bit(1))), "nohup");
        assert!(!has_fatal_signal(&status(bit(17) | bit(23), 0, 0)), "a child's end and urgent data");
    }

    #[tokio::test(start_paused = true)]
    async fn an_interruption_ends_its_own_wait_before_or_after_it_began() {
        let interrupts = Interrupts::default();
        let (mut first, mut second) = (interrupts.caller(1, 0).waits(), interrupts.caller(2, 0).waits());
        interrupts.interrupt(1);
        interrupts.interrupt(3);
        first.interrupted().await;
        interrupts.caller(3, 0).waits().interrupted().await;
        let patience = tokio::time::timeout(Duration::from_secs(60), second.interrupted()).await;
        assert!(patience.is_err(), "nobody interrupted it");
        drop((first, second));
        assert!(interrupts.lock().calls.is_empty() && interrupts.lock().early.is_empty());
        (0..1000).for_each(|unique| interrupts.interrupt(unique));
        assert_eq!(interrupts.lock().early.len(), MAX_EARLY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handled_signal_leaves_a_wait_its_grace() {
        let interrupts = Interrupts::default();
        // This thread has no signal to take.
        let mut wait = interrupts.caller(1, rustix::thread::gettid().as_raw_pid().cast_unsigned()).waits();
        interrupts.interrupt(1);
        let began = Instant::now();
        wait.interrupted().await;
        assert!(began.elapsed() >= GRACE);
    }
}
