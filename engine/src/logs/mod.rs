//! A container's log: its options, and the reading side. The shim writes.

mod files;
mod json_file;
mod local;
mod options;
mod reader;

pub(crate) use options::{LogOptions, attributes, check_options};
pub(crate) use reader::stream;

use crate::Ctx;
use crate::clock::Timestamp;
use crate::containers::record::Record;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// The drivers there are.
pub(crate) const DRIVERS: &[&str] = &["json-file", "local", "none"];

/// The folder of a local log, in its container's.
const LOCAL_LOGS: &str = "local-logs";

/// Where a container's log is, and how it is written.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    JsonFile,
    Local,
}

impl Log {
    /// None where the driver keeps none that can be read.
    pub(crate) fn of(ctx: &Ctx, id: &str, record: &Record) -> Option<Log> {
        let dir = ctx.config.container_dir(id);
        match record.host_config.log_config.kind.as_str() {
            "json-file" => Some(Log { path: dir.join(format!("{id}-json.log")), format: Format::JsonFile }),
            "local" => Some(Log { path: dir.join(LOCAL_LOGS).join("container.log"), format: Format::Local }),
            _ => None,
        }
    }

    /// Makes the folder it is in, where that is not the container's own.
    pub(crate) fn make_folder(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match (self.format, self.path.parent()) {
            (Format::Local, Some(folder)) => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
            }
            _ => Ok(()),
        }
    }

    /// The path that is shown: docker shows that of a json-file only.
    pub(crate) fn shown_path(&self) -> String {
        match self.format {
            Format::JsonFile => self.path.display().to_string(),
            Format::Local => String::new(),
        }
    }

    #[cfg(test)]
    fn json_file(path: &std::path::Path) -> Log {
        Log { path: path.to_owned(), format: Format::JsonFile }
    }
}

impl Format {
    /// What `bytes` begin with; in `scanned` of them no entry ends.
    fn head(self, bytes: &[u8], scanned: usize) -> reader::Head {
        match self {
            Format::JsonFile => json_file::head(bytes, scanned),
            Format::Local => local::head(bytes),
        }
    }

    fn parse(self, entry: &[u8], query: &Query) -> Option<reader::Entry> {
        match self {
            Format::JsonFile => json_file::parse(entry, query),
            Format::Local => local::parse(entry, query),
        }
    }

    /// How many of the last `wanted` entries the file has, and where they begin.
    fn last(self, file: &mut File, wanted: usize) -> io::Result<(usize, u64)> {
        match self {
            Format::JsonFile => json_file::last(file, wanted),
            Format::Local => local::last(file, wanted),
        }
    }
}

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) follow: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// The last so many entries; none is all.
    pub(crate) tail: Option<usize>,
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
}

/// `tail`: a number, `all` or nothing; docker takes anything else as all.
pub(crate) fn parse_tail(text: &str) -> Option<usize> {
    text.parse().ok()
}
