//! How long callers have waited already. The patience belongs to a wait at one place of a file, not to one request: a
//! program whose call was interrupted, and that calls again, goes on with the same wait.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Pause;

/// The time that was spent waiting through each open file.
#[derive(Debug, Default)]
pub struct Patience(Mutex<HashMap<u64, Spent>>);

#[derive(Debug)]
struct Spent {
    place: u64,
    time: Duration,
}

impl Patience {
    /// What is left of a wait through this handle.
    pub fn left(&self, handle: u64, pause: &Pause) -> Duration {
        let spent = self.lock().get(&handle).filter(|spent| spent.place == pause.place).map(|spent| spent.time);
        pause.patience.saturating_sub(spent.unwrap_or_default())
    }

    /// A wait was interrupted after `time`: the next one at the same place goes on from there.
    pub fn interrupted(&self, handle: u64, pause: &Pause, time: Duration) {
        let mut spent = self.lock();
        let entry = spent.entry(handle).or_insert(Spent { place: pause.place, time: Duration::ZERO });
        if entry.place != pause.place {
            *entry = Spent { place: pause.place, time: Duration::ZERO };
        }
        entry.time += time;
    }

    /// A wait came to its end, or the file was closed.
    pub fn ended(&self, handle: u64) {
        self.lock().remove(&handle);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Spent>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChannelId;

    #[test]
    fn an_interrupted_wait_goes_on_and_an_ended_one_begins_anew() {
        let second = Duration::from_secs;
        let pause = |place| Pause { channel: ChannelId(1), place, patience: second(60), in_vain: String::new() };
        let patience = Patience::default();
        assert_eq!(patience.left(1, &pause(7)), second(60));
        patience.interrupted(1, &pause(7), second(25));
        patience.interrupted(1, &pause(7), second(25));
        assert_eq!(patience.left(1, &pause(7)), second(10));
        assert_eq!(patience.left(2, &pause(7)), second(60), "another open file");
        assert_eq!(patience.left(1, &pause(8)), second(60), "another place");
        patience.interrupted(1, &pause(7), second(25));
        assert_eq!(patience.left(1, &pause(7)), Duration::ZERO);
        patience.ended(1);
        assert_eq!(patience.left(1, &pause(7)), second(60));
    }
}
