//! What goes wrong on purpose. Rates are probabilities from 0 to 1; all of it can be changed while a network runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The faults of a localnet; by default none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Faults {
    /// Of the packets on their way to a courier, those that are lost.
    pub loss: f64,
    /// Of the replies on their way back, those that are lost.
    pub reply_loss: f64,
    /// Of the packets and replies, those that come twice.
    pub duplication: f64,
    /// Of the packets and replies, those that are held up by `delay_ms`.
    pub delay: f64,
    /// How long a held-up packet waits, in milliseconds of the network's time.
    pub delay_ms: u64,
    /// Of the reads that a replica answers, those that are told "no such box" although it is there.
    pub false_not_found: f64,
    /// Of the envelopes that a courier acknowledges, those that it forgets before a replica has them.
    pub ack_then_lost: f64,
    /// Of the envelopes that reach a courier, those that are refused as of another epoch.
    pub stale_epoch: f64,
    /// Of the boxes that are encrypted for writing, those whose place another writer takes first.
    pub conflicting_writer: f64,
    /// Replicas store nothing new.
    pub storage_full: bool,
    /// Every connection is cut after so many bytes to its client; 0: never.
    pub disconnect_after_bytes: u64,
    /// Every connection is cut after so many bytes from its client; 0: never.
    pub disconnect_after_bytes_in: u64,
}

impl Faults {
    /// What is wrong with them, if anything is: a rate that is no probability.
    pub fn check(&self) -> Result<(), String> {
        let rates = [
            ("loss", self.loss),
            ("reply-loss", self.reply_loss),
            ("duplication", self.duplication),
            ("delay", self.delay),
            ("false-not-found", self.false_not_found),
            ("ack-then-lost", self.ack_then_lost),
            ("stale-epoch", self.stale_epoch),
            ("conflicting-writer", self.conflicting_writer),
        ];
        match rates.into_iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            Some((name, rate)) => Err(format!("{name} is a probability, from 0 to 1, and not {rate}")),
            None => Ok(()),
        }
    }

    /// How long a held-up packet waits.
    pub fn delay_for(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_beyond_one_is_refused_by_its_name() {
        assert_eq!(Faults::default().check(), Ok(()));
        let error = Faults { loss: 1.5, ..Faults::default() }.check().expect_err("no probability");
        assert!(error.starts_with("loss"), "{error}");
        assert!(Faults { delay: f64::NAN, ..Faults::default() }.check().is_err());
    }
}
