//! Time that passed without us: the machine was suspended, or the process was stopped.
//!
//! Deadlines count the time in which the machine runs: `Instant` stands still in a suspension, as the daemon's own timers
//! do. What a suspension breaks is the connection, and only a question shows that. A process that was stopped finds its
//! deadlines passed though the answers may lie in its socket: they are read first. Nothing here, nor anywhere in the
//! session, looks at the wall clock, so its jumps mean nothing.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::time::Instant;

/// How often it is looked, while something is waited for.
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// Less is the noise of two clocks read one after the other, and of a busy machine.
const GAP: Duration = Duration::from_secs(2);
/// What a process that ran again takes to read what came meanwhile.
const CATCH_UP: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Vigil {
    asleep: Duration,
    /// When the session wanted to wake up.
    due: Option<Instant>,
    /// No deadline counts as passed before.
    pub(super) patient_until: Instant,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        Self { asleep: asleep(), due: None, patient_until: now }
    }

    /// Remembers when the session means to wake up.
    pub(super) fn expect(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Whether there was a gap since the last look.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        self.judge(now, asleep())
    }

    fn judge(&mut self, now: Instant, asleep: Duration) -> bool {
        let suspended = asleep.saturating_sub(self.asleep) > GAP;
        self.asleep = asleep;
        let stopped = self.due.take().is_some_and(|due| now.saturating_duration_since(due) > GAP);
        if suspended || stopped {
            self.patient_until = now + CATCH_UP;
        }
        suspended || stopped
    }
}

/// How long the machine has been suspended since it was started.
fn asleep() -> Duration {
    let since_boot = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
    };
    since_boot(ClockId::Boottime).saturating_sub(since_boot(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_and_a_stop_are_noticed_once_and_a_busy_machine_is_neither() {
        let now = Instant::now();
        let mut vigil = Vigil { asleep: Duration::from_secs(7), due: None, patient_until: now };
        assert!(!vigil.judge(now, Duration::from_secs(7)), "nothing happened");
        assert!(!vigil.judge(now, Duration::from_millis(7_900)), "two clocks are not read at once");
        assert!(vigil.judge(now, Duration::from_secs(3_607)), "an hour's suspension");
        assert!(vigil.patient_until > now, "what came meanwhile is read before a deadline counts");
        assert!(!vigil.judge(now, Duration::from_secs(3_607)), "told once");
        vigil.expect(now);
        assert!(!vigil.judge(now + Duration::from_secs(1), Duration::from_secs(3_607)), "a busy machine");
        vigil.expect(now);
        assert!(vigil.judge(now + Duration::from_secs(60), Duration::from_secs(3_607)), "a stopped process");
    }
}
