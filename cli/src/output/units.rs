//! Sizes and ages in docker's words.

/// Decimal units with three digits: `1.98MB` (docker's image and container sizes).
pub(crate) fn size(bytes: i64) -> String {
    with_units(bytes as f64, 3)
}

/// Four digits, as progress shows: `1.984MB`.
pub(crate) fn size_fine(bytes: i64) -> String {
    with_units(bytes as f64, 4)
}

fn with_units(bytes: f64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), UNITS[unit])
}

/// Go's %.Ng: so many significant digits, trailing zeros dropped.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 1.0 { 1 } else { value.log10().floor() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs() as i64
}

/// A point in time as docker prints it: `2026-11-24 02:04:34 +0000 UTC`.
pub(crate) fn timestamp(seconds: i64) -> String {
    let (date, clock) = (proto::time::civil(seconds.div_euclid(86_400)), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02} +0000 UTC", date.0, date.1, date.2)
}

/// RFC 3339 in UTC with nine fraction digits, as events are printed.
pub(crate) fn rfc3339(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let text = timestamp(seconds);
    format!("{}T{}.{fraction:09}Z", &text[..10], &text[11..19])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_984_482, "1.98MB"),
            (117_000_000, "117MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(size_fine(1_984_482), "1.984MB");
    }

    #[test]
    fn points_in_time() {
        assert_eq!(timestamp(1_709_164_800), "2024-02-29 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(1_709_164_800_000_000_001), "2024-02-29T00:00:00.000000001Z");
    }
}
