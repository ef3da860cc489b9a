//! Points in time as logs, states and the Engine API write them: RFC 3339 in UTC, with as many digits of a fraction as it
//! needs (Go's RFC3339Nano).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// Seconds since the unix epoch, and nanoseconds of the second; shown as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339 {
    pub seconds: i64,
    pub nanos: u32,
}

impl From<SystemTime> for Rfc3339 {
    /// A clock before the epoch is at it.
    fn from(time: SystemTime) -> Rfc3339 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Rfc3339 { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.seconds.div_euclid(DAY));
        let second = self.seconds.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        let (mut nanos, mut digits) = (self.nanos, 9);
        if nanos != 0 {
            while nanos.is_multiple_of(10) {
                nanos /= 10;
                digits -= 1;
            }
            write!(f, ".{nanos:0digits$}")?;
        }
        f.write_str("Z")
    }
}

/// Days since 1970-01-01 to year, month and day of the Gregorian calendar: counted in eras of 400 years that begin on the
/// first of March, so that the leap day is the last of its year.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The way back: days since 1970-01-01.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_709_251_199, 123_456_789, "2024-02-29T23:59:59.123456789Z"),
            (1_732_406_401, 500_000_000, "2024-11-24T00:00:01.5Z"),
            (1_735_689_599, 1_000, "2024-12-31T23:59:59.000001Z"),
        ] {
            assert_eq!(Rfc3339 { seconds, nanos }.to_string(), expected);
        }
    }

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for day in (-800_000..800_000).step_by(97) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }
}
