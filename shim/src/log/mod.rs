//! The container's log, written here so that no daemon is on the data path.

pub(crate) mod json_file;
mod lines;

pub(crate) use json_file::JsonFile;
pub(crate) use lines::Lines;

use serde::{Deserialize, Serialize};

/// An output stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// As logs name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}
