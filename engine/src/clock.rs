//! Points in time as the Engine API writes them: RFC 3339 in UTC with up to nine fraction digits, and unix
//! seconds with an optional fraction in query parameters.

use proto::time::{Rfc3339, days};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the unix epoch; 64 bits reach the year 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp(i64);

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// Go's zero time, which docker writes for "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

impl Timestamp {
    pub(crate) fn now() -> Timestamp {
        SystemTime::now().into()
    }

    pub(crate) fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    pub(crate) fn nanos(self) -> i64 {
        self.0
    }

    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS)
    }

    /// Time passed since `earlier`, zero when the clock went back.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// `seconds[.fraction]`, as query parameters carry it; RFC 3339 too.
    pub(crate) fn parse_query(text: &str) -> Option<Timestamp> {
        if text.contains('T') {
            return text.parse().ok();
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().ok()?;
        Some(Timestamp(seconds.checked_mul(NANOS)?.checked_add(fraction_nanos(fraction)?)?))
    }
}

/// Up to nine digits of a fraction; more are cut off.
fn fraction_nanos(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = &digits[..digits.len().min(9)];
    let value: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(value * 10_i64.pow(9 - digits.len() as u32))
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(after.as_nanos() as i64),
            Err(before) => Timestamp(-(before.duration().as_nanos() as i64)),
        }
    }
}

impl From<&prost_types::Timestamp> for Timestamp {
    fn from(time: &prost_types::Timestamp) -> Timestamp {
        Timestamp(time.seconds.saturating_mul(NANOS).saturating_add(i64::from(time.nanos)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.rem_euclid(NANOS) as u32;
        Rfc3339 { seconds: self.seconds(), nanos }.fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = ();

    fn from_str(text: &str) -> Result<Timestamp, ()> {
        let field = |range: std::ops::Range<usize>| -> Result<i64, ()> {
            let digits = text.get(range).ok_or(())?;
            if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().map_err(|_| ()) } else { Err(()) }
        };
        let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
        let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
        let rest = text.get(19..).ok_or(())?;
        let zone_at = rest.find(['Z', 'z', '+', '-']).ok_or(())?;
        let nanos = match rest[..zone_at].strip_prefix('.') {
            Some(fraction) => fraction_nanos(fraction).ok_or(())?,
            None if zone_at == 0 => 0,
            None => return Err(()),
        };
        let offset = match &rest[zone_at..] {
            "Z" | "z" => 0,
            zone => {
                let (hours, minutes) = zone[1..].split_once(':').ok_or(())?;
                let seconds = hours.parse::<i64>().map_err(|_| ())? * 3600
                    + minutes.parse::<i64>().map_err(|_| ())? * 60;
                if zone.starts_with('-') { -seconds } else { seconds }
            }
        };
        if !(1678..2262).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(());
        }
        let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
        Ok(Timestamp(seconds * NANOS + nanos))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_go_does() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_485_859_239_485_016, "2026-11-24T02:04:19.239485016Z"),
            (1_709_210_096_500_000_000, "2024-02-29T12:34:56.5Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(nanos)));
        }
        assert_eq!("2024-02-29T13:34:56+01:00".parse(), "2024-02-29T12:34:56Z".parse::<Timestamp>());
        for bad in ["", "2024", "2024-02-29T12:34:56", "2024-02-29T12:34:56.Q", NEVER] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn query_times_are_seconds_with_a_fraction() {
        assert_eq!(Timestamp::parse_query("12.5"), Some(Timestamp(12_500_000_000)));
        assert_eq!(Timestamp::parse_query("12"), Some(Timestamp(12 * NANOS)));
        assert_eq!(Timestamp::parse_query("12.000000001"), Some(Timestamp(12 * NANOS + 1)));
        assert_eq!(Timestamp::parse_query("x"), None);
    }
}
