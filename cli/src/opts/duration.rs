//! Go durations (`1m30s`) and points in time (`2013-01-02T13:23:37Z`, `42m` ago, unix seconds).

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of a Go duration.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        rest = &rest[end..];
        total += number * unit;
    }
    if text.is_empty() || total > 9e18 { Err(invalid()) } else { Ok(total as i64) }
}

/// A point in time as the engine's query parameters want it: seconds with a fraction.
pub(crate) fn point(text: &str) -> Result<String, String> {
    if let Ok(ago) = parse(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        let at = now - ago;
        return Ok(format!("{}.{:09}", at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000)));
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') && !text.is_empty() {
        return Ok(text.to_owned());
    }
    rfc3339(text).ok_or_else(|| format!("failed to parse value as time or duration: {text:?}"))
}

/// A date, a date and time, with or without zone, in seconds since the epoch.
fn rfc3339(text: &str) -> Option<String> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let mut numbers = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let (clock, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => (&time[..at], zone(&time[at..])?),
        None => (time, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':').map(str::parse::<i64>);
    let (hour, minute) = (parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?);
    let second = parts.next().unwrap_or(Ok(0)).ok()?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(format!("{seconds}.{fraction:0<9.9}"))
}

fn zone(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text[1..].split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

/// Days from 1970-01-01, counted in years that begin on the first of March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, expected) in
            [("1m30s", 90_000_000_000), ("1.5h", 5_400_000_000_000), ("10ms", 10_000_000), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in ["", "5", "s", "1d", "1m 2s", "-1s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn points_in_time() {
        assert_eq!(point("1970-01-02T00:00:01Z").unwrap(), "86401.000000000");
        assert_eq!(point("2024-02-29T12:00:00.5+01:00").unwrap(), "1709204400.500000000");
        assert_eq!(point("2024-02-29").unwrap(), "1709164800.000000000");
        assert_eq!(point("1700000000.25").unwrap(), "1700000000.25");
        for bad in ["", "yesterday", "2024-13-01", "2024-02-29T25:00:00Z"] {
            assert!(point(bad).is_err(), "{bad}");
        }
    }
}
