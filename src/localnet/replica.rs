//! What everybody must know of replicas: their codes, and the epochs that they count (`pigeonhole-internals.md` §3.6, §3.7).

use std::time::Duration;

/// 2017-06-01 00:00:00 UTC, a Thursday, in seconds of Unix time.
pub(super) const EPOCH_ZERO: u64 = 1_496_275_200;
const WEEK: u64 = 7 * 24 * 3600;

pub(super) const SUCCESS: u8 = 0;
pub(super) const BOX_ID_NOT_FOUND: u8 = 1;
pub(super) const INVALID_SIGNATURE: u8 = 3;
pub(super) const DATABASE_FAILURE: u8 = 4;
pub(super) const INVALID_PAYLOAD: u8 = 5;
pub(super) const STORAGE_FULL: u8 = 6;
pub(super) const INTERNAL_ERROR: u8 = 7;
pub(super) const INVALID_EPOCH: u8 = 8;
pub(super) const REPLICATION_FAILED: u8 = 9;
pub(super) const BOX_ALREADY_EXISTS: u8 = 10;
pub(super) const TOMBSTONE: u8 = 11;

/// The replica epoch at a time since the Unix epoch: weeks, which begin on Thursdays.
pub(super) fn replica_epoch(wall: Duration) -> u64 {
    wall.as_secs().saturating_sub(EPOCH_ZERO) / WEEK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_epochs_are_weeks_from_a_thursday() {
        let at = |seconds| replica_epoch(Duration::from_secs(seconds));
        assert_eq!(at(1_795_392_000), 494, "2026-11-23");
        assert_eq!((at(EPOCH_ZERO + WEEK - 1), at(EPOCH_ZERO + WEEK)), (0, 1));
    }
}
