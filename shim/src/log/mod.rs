//! The container's log, written here so that no daemon is on the data path.

mod file;
mod json_file;
mod lines;
mod local;
mod position;
mod queue;
pub(crate) mod rotation;
pub(crate) mod writer;

pub(crate) use file::LogFile;
pub(crate) use lines::Lines;

use serde::{Deserialize, Serialize};

/// An output stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn index(self) -> usize {
        usize::from(self == Stream::Stderr)
    }

    fn named(name: &str) -> Stream {
        if name == Stream::Stderr.name() { Stream::Stderr } else { Stream::Stdout }
    }

    /// As logs name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A place in a stream's spool, up to which its output is in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) generation: u32,
    pub(crate) offset: u64,
}
