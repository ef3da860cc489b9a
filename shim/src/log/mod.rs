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

/// Reads bytes as the end of a log or of a queue, then as output: what is written of it is whole entries for the reader.
#[cfg(fuzzing)]
pub(crate) fn judge(bytes: &[u8]) {
    use position::{Found, Next};
    let whole_entries = |mut log: &[u8], next: Next| {
        let (mut count, length) = (0, log.len());
        let mut found = 0;
        while let Ok(Found::Entry { length, .. }) = next(&mut log) {
            (count, found) = (count + 1, found + length as usize);
        }
        assert!(found <= length);
        (found == length).then_some(count)
    };
    for next in [json_file::next as Next, local::next] {
        whole_entries(bytes, next);
    }
    let mut rest = bytes;
    while let Some((_, _, length)) = queue::first(rest) {
        rest = &rest[length..];
    }
    let (mut json, mut parts) = (json_file::JsonLines::new(&Default::default()), local::Parts::default());
    let (mut lines, mut written, mut count) = (Lines::default(), [Vec::new(), Vec::new()], 0);
    let mut message = |text: &[u8]| {
        count += 1;
        json.write(Stream::Stdout, text, std::time::UNIX_EPOCH, &mut written[0]);
        parts.write(Stream::Stdout, text, std::time::UNIX_EPOCH, &mut written[1]);
    };
    bytes.chunks(7000).for_each(|output| lines.push(output, |text, _| message(text)));
    lines.finish(message);
    assert_eq!(whole_entries(&written[0], json_file::next), Some(count));
    assert_eq!(whole_entries(&written[1], local::next), Some(count));
}
