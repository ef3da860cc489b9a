//! docker's local: length, protobuf message, length.

use super::Query;
use super::reader::{Entry, Head};
use crate::clock::Timestamp;
use prost::Message;
use proto::docker::log::Stream;
use proto::task::local_log::{LocalEntry, MAX_LOCAL_ENTRY};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of a length.
const LENGTH: usize = 4;

pub(super) fn head(bytes: &[u8]) -> Head {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Head::Unfinished };
    let whole = u32::from_be_bytes(*length) as usize + 2 * LENGTH;
    // A length that none of ours has, after a crash of the whole machine: the next entry is looked for byte by byte.
    if whole > MAX_LOCAL_ENTRY + 2 * LENGTH {
        return Head::Entry(1);
    }
    if whole <= bytes.len() { Head::Entry(whole) } else { Head::Unfinished }
}

/// How many of the last `wanted` entries the file has, and where they begin.
pub(super) fn last(file: &File, wanted: usize) -> io::Result<(usize, u64)> {
    let (mut found, mut at) = (0, file.metadata()?.len());
    while found < wanted && at > 0 {
        let mut length = [0; LENGTH];
        let Some(place) = at.checked_sub(LENGTH as u64) else { break };
        file.read_exact_at(&mut length, place)?;
        let whole = u64::from(u32::from_be_bytes(length)) + 2 * LENGTH as u64;
        let Some(start) = at.checked_sub(whole) else { break };
        at = start;
        found += 1;
    }
    Ok((found, at))
}

pub(super) fn parse(entry: &[u8], query: &Query) -> Option<Entry> {
    let message = entry.get(LENGTH..entry.len().checked_sub(LENGTH)?)?;
    let mut entry = LocalEntry::decode(message).ok()?;
    let is_unfinished = entry.partial && !entry.part.is_some_and(|part| part.last);
    if !is_unfinished {
        entry.line.push(b'\n');
    }
    let times = query.since.is_some() || query.until.is_some() || query.timestamps;
    let time = u64::try_from(entry.time).ok().map(|time| UNIX_EPOCH + Duration::from_nanos(time));
    Some(Entry {
        stream: if entry.source == "stderr" { Stream::Stderr } else { Stream::Stdout },
        text: entry.line,
        time: time.filter(|_| times).map(Timestamp::from),
        attributes: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task::local_log::LocalPart;

    fn entry(line: &str, partial: bool, last: bool) -> Vec<u8> {
        let part = partial.then(|| LocalPart { last, id: "id".to_owned(), ordinal: 1 });
        let message = LocalEntry {
            source: "stdout".to_owned(),
            time: 1_500_000_000,
            line: line.as_bytes().to_vec(),
            partial,
            part,
        };
        let message = message.encode_to_vec();
        let length = (message.len() as u32).to_be_bytes();
        [&length[..], &message, &length].concat()
    }

    #[test]
    fn entries_are_found_from_both_ends() {
        let parts = [entry("whole", false, false), entry("be", true, false), entry("gun", true, true)];
        let log = parts.concat();
        let (mut rest, mut text) = (&log[..], String::new());
        while let Head::Entry(length) = head(rest) {
            let entry = parse(&rest[..length], &Query { timestamps: true, ..Query::default() }).unwrap();
            assert_eq!(entry.time.unwrap().to_string(), "1970-01-01T00:00:01.5Z");
            text += &String::from_utf8(entry.text).unwrap();
            rest = &rest[length..];
        }
        assert_eq!((text.as_str(), rest.len()), ("whole\nbegun\n", 0));
        assert!(matches!(head(&log[..10]), Head::Unfinished));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&log, 0).unwrap();
        let starts = [0, parts[0].len(), parts[0].len() + parts[1].len(), log.len()].map(|at| at as u64);
        for wanted in 0..=3 {
            assert_eq!(last(&file, wanted).unwrap(), (wanted, starts[3 - wanted]));
        }
        assert_eq!(last(&file, 9).unwrap(), (3, 0));
    }
}
