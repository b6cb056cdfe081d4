//! Times as the database keeps them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, negative before; the ends of the range stand for what is beyond.
pub(super) fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

pub(super) fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_beyond_the_range_are_kept_as_near_as_can_be() {
        for time in [UNIX_EPOCH, UNIX_EPOCH - Duration::from_nanos(1), UNIX_EPOCH + Duration::new(1 << 33, 7)] {
            assert_eq!(from_nanos(to_nanos(time)), time);
        }
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(to_nanos(far), i64::MAX);
    }
}
