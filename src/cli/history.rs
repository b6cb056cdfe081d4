//! What has gone over the network lately, as a small chart: `pigeonfs status --history`, and the lines of `pigeonfs top`.

use super::output::{self, size};
use super::progress::{columns, is_utf8};
use super::{Stop, output::line};
use crate::engine::status::HistoryStatus;

/// A day.
pub(super) const DAY_MINUTES: u64 = 24 * 60;
/// How many marks a day is shown in, the widest that fits is taken.
const MARKS: [u64; 3] = [72, 48, 24];
/// Columns beside the marks.
const MARGIN: usize = 12;
const LEVELS_UTF8: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const LEVELS_ASCII: [&str; 9] = [" ", ".", ":", "-", "=", "+", "*", "#", "@"];

/// The minutes of a history in so many spans of the same length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spans {
    /// Bytes that were stored in each.
    pub(super) stored: Vec<u64>,
    /// Bytes that arrived in each.
    pub(super) arrived: Vec<u64>,
    /// The bytes that waited to be stored at the end of each.
    pub(super) spool: Vec<u64>,
}

impl Spans {
    /// Divides the history; what does not divide evenly is in the first span.
    pub(super) fn of(history: &HistoryStatus, count: u64) -> Self {
        let count = count.max(1);
        let each = history.minutes.div_ceil(count).max(1);
        let empty = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        let (mut stored, mut arrived, mut spool) = (empty.clone(), empty.clone(), empty);
        let mut known = vec![None; spool.len()];
        for point in &history.points {
            let back = history.now.saturating_sub(point.minute) / each;
            let Some(at) = count.checked_sub(1 + back).and_then(|at| usize::try_from(at).ok()) else { continue };
            stored[at] += point.stored_bytes;
            arrived[at] += point.arrived_bytes;
            known[at] = Some(point.spool_bytes);
        }
        // A minute in which nothing moved has as much waiting as the one before.
        let mut last = 0;
        for (level, known) in spool.iter_mut().zip(known) {
            last = known.unwrap_or(last);
            *level = last;
        }
        Self { stored, arrived, spool }
    }
}

/// Marks whose height is the share of the greatest. Whatever is more than nothing is seen.
pub(super) fn marks(values: &[u64], utf8: bool) -> String {
    let levels = if utf8 { LEVELS_UTF8 } else { LEVELS_ASCII };
    let greatest = values.iter().copied().max().unwrap_or_default().max(1);
    let level = |value: u64| {
        let level = (u128::from(value) * 8).div_ceil(u128::from(greatest));
        levels[usize::try_from(level).unwrap_or(8).min(8)]
    };
    values.iter().map(|&value| level(value)).collect()
}

/// Prints the day.
pub(super) fn show(history: &HistoryStatus) -> Result<(), Stop> {
    if history.points.is_empty() {
        return line("nothing has gone over the network in the last 24 hours");
    }
    let room = columns().saturating_sub(MARGIN) as u64;
    let count = MARKS.into_iter().find(|count| *count <= room).unwrap_or(MARKS[2]);
    let spans = Spans::of(history, count);
    let utf8 = is_utf8();
    let sum = |of: fn(&crate::store::HistoryPoint) -> u64| history.points.iter().map(of).sum::<u64>();
    let most = |of: fn(&crate::store::HistoryPoint) -> u64| history.points.iter().map(of).max().unwrap_or_default();
    output::bytes(format!("the last 24 hours; each mark is {} minutes\n", history.minutes / count).as_bytes())?;
    for (name, values) in [("stored", &spans.stored), ("arrived", &spans.arrived), ("queued", &spans.spool)] {
        output::bytes(format!("{name:<8}|{}|\n", marks(values, utf8)).as_bytes())?;
    }
    let width = usize::try_from(count).unwrap_or(72);
    let middle = width / 2;
    output::bytes(
        format!("{:8} {:<middle$}{:<half$}\n", "", "-24 h", "-12 h", half = width - middle - 3).trim_end().as_bytes(),
    )?;
    output::bytes(b"   now\n")?;
    let told = |what: &str, boxes: u64, bytes: u64, greatest: u64| {
        line(&format!("{what:<8} {} in {boxes} boxes, at most {} a minute", size(bytes), size(greatest)))
    };
    told("stored", sum(|of| of.stored_boxes), sum(|of| of.stored_bytes), most(|of| of.stored_bytes))?;
    told("arrived", sum(|of| of.arrived_boxes), sum(|of| of.arrived_bytes), most(|of| of.arrived_bytes))?;
    line(&format!("{:<8} {} at most", "queued", size(most(|of| of.spool_bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HistoryPoint;

    fn history(points: &[(u64, u64, u64)]) -> HistoryStatus {
        let point = |&(minute, stored_bytes, spool_bytes): &(u64, u64, u64)| HistoryPoint {
            minute,
            stored_bytes,
            spool_bytes,
            ..HistoryPoint::default()
        };
        HistoryStatus { version: 1, now: 1000, minutes: 60, points: points.iter().map(point).collect() }
    }

    #[test]
    fn each_minute_is_in_its_span_and_what_waits_stays_until_it_is_told_otherwise() {
        let told = history(&[(1000, 5, 0), (999, 2, 7), (955, 3, 9), (941, 1, 4), (940, 100, 1)]);
        let spans = Spans::of(&told, 4);
        assert_eq!(spans.stored, [1 + 3, 0, 0, 7][..].to_vec().as_slice());
        assert_eq!(spans.arrived, [0; 4]);
        assert_eq!(Spans::of(&history(&[(941, 1, 4)]), 4).spool, [4; 4], "nothing has moved since");
    }

    #[test]
    fn marks_show_shares_of_the_greatest_and_whatever_there_is() {
        assert_eq!(marks(&[0, 1, 500, 1000], true), " ▁▄█");
        assert_eq!(marks(&[0, 1, 500, 1000], false), " .=@");
        assert_eq!(marks(&[0, 0], true), "  ");
        assert_eq!(marks(&[], true), "");
        assert_eq!(marks(&[u64::MAX, u64::MAX / 2], true), "█▄");
    }
}
