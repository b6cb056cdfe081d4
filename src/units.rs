//! Sizes, spans of time and dates: how each is written by a person and shown to one. All options, the options of mount(8),
//! the configuration file, the status and the log go through here; no other module parses or prints them.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// No span is longer: 100 years.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads a number of bytes: `1000`, `10k`, `1.5GiB`, `4gb`. `k` and `KiB` are 1,024 bytes, `kB` is 1,000, and so on up to
/// `T`; upper and lower case are the same.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size; sizes are written as 1000, 10k, 1.5GiB or 4GB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let number = digits.trim_end();
    let factor = match unit.strip_suffix("ib").map(|unit| (unit, 1024_u128)) {
        Some(binary) => power(binary),
        None => match unit.strip_suffix('b') {
            Some(prefix) => power((prefix, 1000)),
            None => power((&unit, 1024)),
        },
    };
    let factor = factor.ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 6 {
        return Err(bad());
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
    let too_large = || format!("{text:?} is too large; the largest size is 8000000TiB");
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    let fraction: u128 = fraction.parse().map_err(|_| bad())?;
    let bytes = whole.checked_mul(factor).ok_or_else(too_large)? + fraction * factor / scale;
    u64::try_from(bytes).ok().filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(too_large)
}

fn power((prefix, base): (&str, u128)) -> Option<u128> {
    let exponent = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    Some(base.pow(exponent))
}

/// Reads a span of time: `500ms`, `30s`, `10m`, `1h30m`, `90d`, `2w`. A number without a unit counts seconds.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    span_in(text, "s")
}

/// Reads a span of time of which a number without a unit counts milliseconds.
pub(crate) fn span_ms(text: &str) -> Result<Duration, String> {
    span_in(text, "ms")
}

fn span_in(text: &str, unit: &str) -> Result<Duration, String> {
    let bad = || {
        let bare = if unit == "s" { "30 (seconds)" } else { "1000 (milliseconds)" };
        format!("{text:?} is not a span of time; spans are written as {bare}, 500ms, 10m, 1h30m or 90d")
    };
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let with_unit = if is_bare { format!("{text}{unit}") } else { text.to_owned() };
    // Only what begins with a digit: no signs, and none of the other notations of ISO 8601.
    if !with_unit.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(bad());
    }
    let too_long = || format!("{text:?} is too long; the longest span is 100 years (36600d)");
    let in_range = |span: Duration| if span <= LONGEST { Ok(span) } else { Err(too_long()) };
    if let Some(number) = with_unit.strip_suffix(unit).filter(|_| is_bare) {
        // As floating point: jiff reads no fraction of a millisecond, and nobody types that many seconds.
        let seconds = number.parse::<f64>().map_err(|_| bad())? * if unit == "s" { 1.0 } else { 0.001 };
        return Duration::try_from_secs_f64(seconds).map_err(|_| too_long()).and_then(in_range);
    }
    let letters_only_units = with_unit.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ' '));
    if !letters_only_units {
        return Err(bad());
    }
    let span: Span = match with_unit.parse() {
        Ok(span) => span,
        // jiff has bounds of its own for each unit; a number too large is told as such.
        Err(_) if looks_like_a_span(&with_unit) => return Err(too_long()),
        Err(_) => return Err(bad()),
    };
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    Duration::try_from(duration).map_err(|_| bad()).and_then(in_range)
}

/// Whether it is one number with a unit that spans have.
fn looks_like_a_span(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    digits.len() > 6
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(unit, "ms" | "s" | "m" | "h" | "d" | "w")
}

/// Reads a whole number within this range.
pub(crate) fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|number| digits && range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (first, last) = (*range.start(), *range.end());
            let example = last.min(first.max(3));
            match last {
                u64::MAX => format!("{text:?} is not a whole number, such as {example}"),
                last => format!("{text:?} is not a whole number from {first} to {last}, such as {example}"),
            }
        })
    }
}

/// Reads a date as Unix seconds: `2027-01-31` (its first second, in UTC), `2027-01-31T12:00Z` or with an offset.
pub(crate) fn date(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a date; dates are written as 2027-01-31 or 2027-01-31T12:00:00Z");
    let second = if text.len() == "2027-01-31".len() {
        let day: civil::Date = text.parse().map_err(|_| bad())?;
        TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).map_err(|_| bad())?.as_second()
    } else {
        text.parse::<Timestamp>().map_err(|_| bad())?.as_second()
    };
    u64::try_from(second).map_err(|_| bad())
}

/// A number of bytes for a person, in powers of 1,024. Rounded down, so that what is not complete never looks complete.
pub(crate) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A span of milliseconds in words, in one unit or two.
pub(crate) fn show_span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Unix seconds as RFC 3339 has it, in UTC; at most the end of the year 9999.
pub(crate) fn show_date(seconds: u64) -> String {
    let latest = Timestamp::MAX.as_second();
    let second = i64::try_from(seconds).unwrap_or(latest).min(latest);
    Timestamp::from_second(second).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("9B", 9),
            ("10k", 10 << 10),
            ("10K", 10 << 10),
            ("512KiB", 512 << 10),
            ("512kib", 512 << 10),
            ("10kB", 10_000),
            ("4gb", 4_000_000_000),
            ("4GB", 4_000_000_000),
            ("4GiB", 4 << 30),
            ("4 GiB", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("1.25K", 1280),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text:?}");
        }
        for text in ["", "K", "-1", "+1", "1.+5K", "1..5K", ".5G", "5.G", "1.0000001G", "1x", "1kbb", "1bk", "٣", "1e3"]
        {
            let error = size(text).expect_err(text);
            assert!(error.contains("not a size") && error.contains("10k"), "{error}");
        }
        for text in ["99999999999T", "18446744073709551615", "9223372036854775808", &"9".repeat(60)] {
            assert!(size(text).expect_err(text).contains("too large"), "{text:?}");
        }
    }

    #[test]
    fn spans_have_units_and_a_bare_number_counts_the_unit_of_its_option() {
        for (text, milliseconds) in [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            ("500ms", 500),
            ("1s", 1000),
            ("1.5s", 1500),
            ("10m", 600_000),
            ("10min", 600_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("90d", 90 * 86_400_000),
            ("2w", 14 * 86_400_000),
        ] {
            assert_eq!(span(text), Ok(Duration::from_millis(milliseconds)), "{text:?}");
        }
        assert_eq!(span_ms("1000"), Ok(Duration::from_secs(1)));
        assert_eq!(span_ms("2s"), Ok(Duration::from_secs(2)));
        for text in
            ["", "soon", "d", "-1", "-1s", "+1s", "1y", "2 months", "5 parsecs", "PT1H", "nan", "inf", "1e300", "٣"]
        {
            let error = span(text).expect_err(text);
            assert!(error.contains("not a span") && error.contains("10m"), "{error}");
        }
        for text in ["999999w", "36601d", "99999999999999999999", "99999999999999999999s"] {
            assert!(span(text).expect_err(text).contains("too long"), "{text:?}");
        }
    }

    #[test]
    fn counts_stay_within_their_range_and_their_type() {
        assert_eq!(count::<u8>(1..=16)("16"), Ok(16));
        assert_eq!(count::<u64>(0..=u64::MAX)("18446744073709551615"), Ok(u64::MAX));
        for text in ["", "0", "17", "+3", "-1", "3.5", "three", "99999999999999999999", "٣"] {
            let error = count::<u8>(1..=16)(text).expect_err(text);
            assert!(error.contains("from 1 to 16, such as 3"), "{error}");
        }
        assert!(count::<u64>(0..=u64::MAX)("x").expect_err("no number").contains("a whole number, such as 3"));
    }

    #[test]
    fn dates_are_days_or_instants() {
        assert_eq!(date("1970-01-02"), Ok(86_400));
        assert_eq!(date("2027-01-31T12:00:00Z"), Ok(1_801_396_800));
        assert_eq!(date("2027-01-31T13:00:00+01:00"), Ok(1_801_396_800));
        for text in ["", "tomorrow", "2027-02-30", "31.1.2027", "2027-01-31T12:00", "1960-01-01"] {
            assert!(date(text).expect_err(text).contains("2027-01-31"), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_short_and_never_rounded_up() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1549, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (20 << 20, "20.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn dates_are_shown_as_those_of_the_calendar() {
        assert_eq!(show_date(0), "1970-01-01T00:00:00Z");
        assert_eq!(show_date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(show_date(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(show_date(u64::MAX), "9999-12-30T22:00:00Z");
    }

    #[test]
    fn spans_are_shown_in_the_units_that_a_person_counts_in() {
        assert_eq!([0, 999, 59_950].map(show_span), ["0.0 s", "0.9 s", "59.9 s"]);
        assert_eq!([60_000, 3_725_000, 90_000_000].map(show_span), ["1 min 0 s", "1 h 2 min", "1 d 1 h"]);
    }
}
