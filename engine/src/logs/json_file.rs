//! docker's json-file: an object a line.

use super::Query;
use super::reader::{BLOCK, Entry, Head};
use proto::docker::log::{JsonLine, Stream};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// `scanned` bytes have no newline.
pub(super) fn head(bytes: &[u8], scanned: usize) -> Head {
    let newline = bytes[scanned..].iter().position(|byte| *byte == b'\n');
    newline.map_or(Head::Unfinished, |at| Head::Entry(scanned + at + 1))
}

/// How many of the last `wanted` lines the file has, and where they begin.
pub(super) fn last(file: &mut File, wanted: usize) -> io::Result<(usize, u64)> {
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, end));
    }
    let mut found = 0;
    let mut at = end;
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let start = at.saturating_sub(BLOCK as u64);
        let piece = &mut block[..(at - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let line_start = start + index as u64 + 1;
            // The newline at the end of the file ends the last line and begins none.
            if line_start < end {
                found += 1;
                if found == wanted {
                    return Ok((found, line_start));
                }
            }
        }
        at = start;
    }
    Ok((found + usize::from(end > 0), 0))
}

pub(super) fn parse(line: &[u8], query: &Query) -> Option<Entry> {
    let line = serde_json::from_slice::<JsonLine<'_>>(line).ok()?;
    let times = query.since.is_some() || query.until.is_some() || query.timestamps;
    let attributes: Vec<String> = match line.attrs {
        Some(attributes) if query.details => {
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect()
        }
        _ => Vec::new(),
    };
    Some(Entry {
        stream: if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        time: if times { line.time.parse().ok() } else { None },
        text: line.log.into_owned().into_bytes(),
        attributes: attributes.join(","),
    })
}
