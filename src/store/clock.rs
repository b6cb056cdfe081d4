//! The wall clock that a store goes by: the system's, or that of a simulation.

use std::time::SystemTime;

use super::nanos::to_nanos;

/// A wall clock. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    simulated: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl Clock {
    /// One that shows what was set last.
    #[cfg(test)]
    pub(crate) fn simulated() -> Self {
        Self { simulated: Some(std::sync::Arc::default()) }
    }

    #[cfg(test)]
    pub(crate) fn set(&self, time: SystemTime) {
        if let Some(simulated) = &self.simulated {
            simulated.store(to_nanos(time), std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// In nanoseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.load(std::sync::atomic::Ordering::SeqCst);
        }
        to_nanos(SystemTime::now())
    }
}
