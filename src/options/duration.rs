//! Durations as Go writes them: `300s`, `1h15m30.918s`, `1.5h`, `-.5us`, `0`.
//!
//! Source: `time.ParseDuration` and `Duration.String` of Go's standard library, which stock uses.

use std::fmt;
use std::time::Duration;

/// The largest magnitude on the way: Go counts nanoseconds in an `int64`, whose lowest is 2^63 below zero.
const MAX_MAGNITUDE: u64 = 1 << 63;

/// Why a text is no duration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// Not a sequence of decimal numbers, each with a unit.
    Malformed,
    /// A number without a unit; only `0` needs none.
    MissingUnit,
    /// A unit other than ns, us, ms, s, m and h.
    UnknownUnit(String),
    /// More nanoseconds than an `i64` holds: 292 years.
    TooLong,
    /// Below zero. Go parses it; no setting here has a use for it.
    Negative,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a duration"),
            Self::MissingUnit => f.write_str("missing unit"),
            Self::UnknownUnit(unit) => write!(f, "unknown unit {unit:?}"),
            Self::TooLong => f.write_str("over 292 years"),
            Self::Negative => f.write_str("negative"),
        }
    }
}

impl std::error::Error for DurationError {}

/// Reads Go's notation: an optional sign, then decimal numbers, each with a unit, such as `1h2.5m`.
///
/// # Errors
/// What Go refuses is refused, and so is everything below zero; see [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Malformed);
    }

    let mut total = 0_u64;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (nanoseconds, tail) = parse_term(rest)?;
        total = within_range(total.checked_add(nanoseconds))?;
        rest = tail;
    }
    match (negative, total) {
        (true, 1..) => Err(DurationError::Negative),
        (false, MAX_MAGNITUDE) => Err(DurationError::TooLong),
        _ => Ok(Duration::from_nanos(total)),
    }
}

/// Reads a bare number of the file, which stock (go-options) takes for milliseconds.
pub(super) fn from_milliseconds(number: i64) -> Result<Duration, DurationError> {
    let milliseconds = u64::try_from(number).map_err(|_| DurationError::Negative)?;
    let nanoseconds = within_range(milliseconds.checked_mul(1_000_000))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads one number with its unit; gives its nanoseconds and what follows it.
fn parse_term(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit = unit_nanoseconds(unit)?;

    let whole = if whole.is_empty() {
        0
    } else {
        // Digits alone fail for their number alone.
        whole.parse().map_err(|_| DurationError::TooLong)?
    };
    let nanoseconds = within_range(u64::checked_mul(whole, unit))?;
    let nanoseconds = within_range(nanoseconds.checked_add(fraction_of(fraction, unit)))?;
    Ok((nanoseconds, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn within_range(nanoseconds: Option<u64>) -> Result<u64, DurationError> {
    nanoseconds.filter(|&n| n <= MAX_MAGNITUDE).ok_or(DurationError::TooLong)
}

fn unit_nanoseconds(unit: &str) -> Result<u64, DurationError> {
    Ok(match unit {
        "ns" => 1,
        // The second is the micro sign (U+00B5), the third the Greek letter mu (U+03BC).
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "" => return Err(DurationError::MissingUnit),
        _ => return Err(DurationError::UnknownUnit(unit.to_owned())),
    })
}

/// The nanoseconds of `0.<digits>` units. Digits past what 63 bits hold add nothing, as in Go.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Go's own arithmetic, to the same nanosecond; the product is positive and at most an hour"
)]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut value = 0_u64;
    let mut scale = 1.0;
    for digit in digits.bytes() {
        if value > (MAX_MAGNITUDE - 1) / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > MAX_MAGNITUDE {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

/// Prints a duration in Go's notation: `5m0s`, `1.5ms`, `0s`.
#[derive(Clone, Copy, Debug)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.subsec_nanos();
        match self.0.as_secs() {
            0 if nanoseconds == 0 => f.write_str("0s"),
            0 if nanoseconds < 1_000 => write!(f, "{nanoseconds}ns"),
            0 if nanoseconds < 1_000_000 => write_decimal(f, nanoseconds, 3, "\u{b5}s"),
            0 => write_decimal(f, nanoseconds, 6, "ms"),
            seconds => {
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if seconds >= 60 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}", seconds % 60)?;
                write_fraction(f, nanoseconds, 9)?;
                f.write_str("s")
            }
        }
    }
}

/// Writes `value` with its last `places` digits behind the point.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u32, places: u32, unit: &str) -> fmt::Result {
    let one = 10_u32.pow(places);
    write!(f, "{}", value / one)?;
    write_fraction(f, value % one, places)?;
    f.write_str(unit)
}

fn write_fraction(f: &mut fmt::Formatter<'_>, value: u32, places: u32) -> fmt::Result {
    if value == 0 {
        return Ok(());
    }
    let digits = format!("{value:0width$}", width = places as usize);
    write!(f, ".{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const MINUTE: u64 = 60_000_000_000;
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn reads_what_go_reads() {
        let longest = 9_223_372_036_854_775_807;
        for (text, nanoseconds) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("-0s", 0),
            ("5s", 5 * SECOND),
            ("+5s", 5 * SECOND),
            ("0300s", 300 * SECOND),
            ("5.s", 5 * SECOND),
            (".5s", SECOND / 2),
            ("5.6s", 5_600_000_000),
            ("1.0040s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("1.9ns", 1),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("15m", 15 * MINUTE),
            ("16h", 16 * HOUR),
            ("1.5h", HOUR + 30 * MINUTE),
            ("3h30m", 3 * HOUR + 30 * MINUTE),
            ("30m3h", 3 * HOUR + 30 * MINUTE),
            ("1s1s", 2 * SECOND),
            ("10.5s4m", 4 * MINUTE + 10 * SECOND + SECOND / 2),
            ("1h2m3s4ms5us6ns", HOUR + 2 * MINUTE + 3 * SECOND + 4_005_006),
            // More digits than 63 bits hold: precision ends, the value stands.
            ("0.100000000000000000000h", 6 * MINUTE),
            ("0.3333333333333333333h", 20 * MINUTE),
            ("0.9223372036854775808h", 3_320_413_933_267),
            ("9223372036854775807ns", longest),
            ("9223372036854775.807us", longest),
            ("2562047h47m16.854775807s", longest),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        use DurationError::{Malformed, MissingUnit, TooLong};
        let unknown = |unit: &str| DurationError::UnknownUnit(unit.to_owned());
        for (text, error) in [
            ("", Malformed),
            ("-", Malformed),
            ("+", Malformed),
            ("--1s", Malformed),
            ("s", Malformed),
            (".", Malformed),
            (".s", Malformed),
            ("-.s", Malformed),
            (" 1s", Malformed),
            ("-+1s", Malformed),
            ("3", MissingUnit),
            ("00", MissingUnit),
            ("3.", MissingUnit),
            ("1s5", MissingUnit),
            ("1.5.5s", MissingUnit),
            ("1d", unknown("d")),
            ("1S", unknown("S")),
            ("1s ", unknown("s ")),
            ("1s-2s", unknown("s-")),
            ("1\u{e9}", unknown("\u{e9}")),
            ("9223372036854775808ns", TooLong),
            ("9223372036854775.808us", TooLong),
            ("9223372036854ms775us808ns", TooLong),
            ("3000000h", TooLong),
            ("99999999999999999999s", TooLong),
            ("18446744073709551615ns18446744073709551615ns", TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_lies_before_now() {
        for text in ["-1s", "-1ns", "-.5us", "-9223372036854775808ns"] {
            assert_eq!(parse_duration(text), Err(DurationError::Negative), "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_milliseconds() {
        assert_eq!(from_milliseconds(0), Ok(Duration::ZERO));
        assert_eq!(from_milliseconds(300), Ok(Duration::from_millis(300)));
        assert_eq!(from_milliseconds(-1), Err(DurationError::Negative));
        assert!(from_milliseconds(9_223_372_036_854).is_ok());
        assert_eq!(from_milliseconds(9_223_372_036_855), Err(DurationError::TooLong));
        assert_eq!(from_milliseconds(i64::MAX), Err(DurationError::TooLong));
    }

    #[test]
    fn prints_as_go_prints_and_reads_it_back() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (999, "999ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (30_000_001, "30.000001ms"),
            (SECOND, "1s"),
            (3_300_000_000, "3.3s"),
            (45 * SECOND, "45s"),
            (300 * SECOND, "5m0s"),
            (4 * MINUTE + 5 * SECOND + 1_000_000, "4m5.001s"),
            (HOUR, "1h0m0s"),
            (5 * HOUR + 6 * MINUTE + 7 * SECOND + 1_000_000, "5h6m7.001s"),
            (i64::MAX.unsigned_abs(), "2562047h47m16.854775807s"),
        ] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(GoDuration(duration).to_string(), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }
}
