//! The log that the caller asked for: one record a line, text or JSON, appended to a file or to stderr.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

use proto::time::Rfc3339;

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
    let time = Rfc3339::from(time);
    Rfc3339 { nanos: if nanoseconds { time.nanos } else { 0 }, ..time }.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

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
