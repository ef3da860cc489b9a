//! The log that the caller asked for: one record a line, text or JSON, appended to a file or to stderr.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::{Global, LogFormat};
use crate::error::{Result, Step};

pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(global: &Global) -> Result<Log> {
        let file = match &global.log {
            None => None,
            Some(path) => Some(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .open(path)
                    .step(|| format!("open log file {path}"))?,
            ),
        };
        Ok(Log { file, format: global.log_format, debug: global.debug })
    }

    /// The error that ends this command: into the log, and always on stderr as its last line.
    pub(crate) fn fatal(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = rfc3339(SystemTime::now(), false);
        let line = match self.format {
            LogFormat::Json => {
                let message = serde_json::Value::from(message);
                format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        };
        // One write a record, so that records of several commands on one file do not mix. A log that cannot be
        // written must not change what the command does.
        let _ = match &self.file {
            Some(file) => (&mut &*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// A time in UTC as the log (whole seconds) and the state (nanoseconds, no trailing zeros) write it.
pub(crate) fn rfc3339(time: SystemTime, nanoseconds: bool) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds && since.subsec_nanos() > 0 {
        let digits = format!("{:09}", since.subsec_nanos());
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Days since 1970 to year, month, day of the Gregorian calendar, by 400-year eras that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_735_689_599, 120_000_000, "2024-12-31T23:59:59.12Z"),
            (1_795_490_475, 1, "2026-11-24T03:21:15.000000001Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos), true), text);
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(1, 5), false), "1970-01-01T00:00:01Z");
    }
}
