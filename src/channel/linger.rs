//! When a partial tail box is sealed: a while after the last write, and never too long after its first byte.

use std::time::Duration;

use super::Time;

/// The times that decide: after the last write, after the first byte of the box, after the stream's creation.
#[derive(Clone, Copy, Debug)]
pub struct Linger {
    /// Pause after the last write.
    pub after_last: Duration,
    /// The longest that a first byte waits.
    pub after_first: Duration,
    /// A new stream stays unsent this long, so that a slip can be taken back.
    pub after_creation: Duration,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            after_last: Duration::from_secs(1),
            after_first: Duration::from_secs(10),
            after_creation: Duration::from_secs(2),
        }
    }
}

impl Linger {
    /// The default, but for the pause after the last write. A longer one than the longest makes that longer too.
    pub fn with_pause(pause: Duration) -> Self {
        let linger = Self::default();
        Self { after_last: pause, after_first: linger.after_first.max(pause), ..linger }
    }

    /// When the tail is due, given when its first byte and its newest byte were written.
    pub fn due(&self, first_byte: Time, last_byte: Time) -> Time {
        (last_byte + self.after_last).min(first_byte + self.after_first)
    }

    /// The first time that a stream created at `created` may launch anything.
    pub fn may_launch(&self, created: Time) -> Time {
        created + self.after_creation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_was_chosen_is_waited_for() {
        let linger = Linger::with_pause(Duration::from_secs(30));
        assert_eq!(linger.due(Duration::from_secs(100), Duration::from_secs(100)), Duration::from_secs(130));
        assert_eq!(Linger::with_pause(Duration::ZERO).due(Duration::ZERO, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_new_stream_can_be_taken_back_for_two_seconds() {
        assert_eq!(Linger::default().may_launch(Duration::from_secs(100)), Duration::from_secs(102));
    }

    #[test]
    fn a_steady_trickle_is_sealed_ten_seconds_after_its_first_byte() {
        let linger = Linger::default();
        let second = Duration::from_secs;
        assert_eq!(linger.due(second(100), second(100)), second(101), "one write, then silence");
        assert_eq!(linger.due(second(100), second(109)), second(110), "still writing at the ninth second");
    }
}
