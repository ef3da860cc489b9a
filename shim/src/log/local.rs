//! docker's local: an entry is its length, a protobuf message and its length again, so that a log is read from both ends.
//!
//! The message has the text without its newline. A line over 16 KiB comes in parts, which have the time of the first, an
//! id and a number from 1 on; who goes on with the log of a shim that was killed begins anew with both.

use super::Stream;
use super::position::Found;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::task::local_log::{LocalEntry, LocalPart, MAX_LOCAL_ENTRY};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};
use std::time::{SystemTime, UNIX_EPOCH};

/// The unfinished line of each stream.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts([Option<Part>; 2]);

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    id: String,
    ordinal: i32,
    /// Nanoseconds since 1970.
    time: i64,
}

impl Parts {
    pub(super) fn write(&mut self, stream: Stream, text: &[u8], at: SystemTime, out: &mut Vec<u8>) {
        let time = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let unfinished = &mut self.0[stream.index()];
        let (line, is_last) = text.strip_suffix(b"\n").map_or((text, false), |line| (line, true));
        if is_last && unfinished.is_none() {
            return entry(stream, line, time, None, out);
        }
        let mut part = unfinished.take().unwrap_or_else(|| Part { id: random_id(), ordinal: 0, time });
        part.ordinal += 1;
        let metadata = LocalPart { last: is_last, id: part.id.clone(), ordinal: part.ordinal };
        entry(stream, line, part.time, Some(metadata), out);
        if !is_last {
            *unfinished = Some(part);
        }
    }
}

/// As docker's ids are: 64 hexadecimal digits.
fn random_id() -> String {
    let mut bytes = [0; 32];
    // Without it the parts of two lines are told apart by their numbers alone.
    let _ =
        std::fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Field by field, so that the text is copied once.
fn entry(stream: Stream, line: &[u8], time: i64, part: Option<LocalPart>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut bytes = |field, bytes: &[u8]| {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    bytes(1, stream.name().as_bytes());
    if !line.is_empty() {
        bytes(3, line);
    }
    encode_key(2, WireType::Varint, out);
    encode_varint(time as u64, out);
    if let Some(part) = part {
        prost::encoding::bool::encode(4, &true, out);
        prost::encoding::message::encode(5, &part, out);
    }
    let length = ((out.len() - start - 4) as u32).to_be_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

/// The next entry of a log.
pub(super) fn next(log: &mut dyn BufRead) -> io::Result<Found> {
    let mut length = [0; 4];
    let begun = read_full(log, &mut length)?;
    if begun < length.len() {
        return Ok(if begun == 0 { Found::End } else { Found::Torn });
    }
    let count = u32::from_be_bytes(length) as usize;
    if count > MAX_LOCAL_ENTRY {
        return Ok(Found::Torn);
    }
    let mut bytes = vec![0; count + length.len()];
    if read_full(log, &mut bytes)? < bytes.len() {
        return Ok(Found::Torn);
    }
    let Ok(entry) = LocalEntry::decode(&bytes[..count]) else { return Ok(Found::Torn) };
    Ok(Found::Entry { length: (bytes.len() + length.len()) as u64, stream: Stream::named(&entry.source) })
}

/// Fills the buffer as far as there is something.
fn read_full(log: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match log.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entries(mut log: &[u8]) -> Vec<LocalEntry> {
        let mut found = Vec::new();
        while let Some((length, rest)) = log.split_first_chunk::<4>() {
            let (bytes, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            assert_eq!(rest.first_chunk(), Some(length));
            found.push(LocalEntry::decode(bytes).unwrap());
            log = &rest[4..];
        }
        found
    }

    #[test]
    fn parts_of_a_line_have_one_id_and_time() {
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let (mut parts, mut log) = (Parts::default(), Vec::new());
        parts.write(Stream::Stdout, b"whole\n", at(1), &mut log);
        parts.write(Stream::Stdout, b"be", at(2), &mut log);
        parts.write(Stream::Stderr, b"\n", at(3), &mut log);
        parts.write(Stream::Stdout, b"gun\n", at(4), &mut log);
        parts.write(Stream::Stdout, b"rest", at(5), &mut log);
        let found = entries(&log);
        let shown: Vec<_> = found
            .iter()
            .map(|entry| {
                let part = entry.part.as_ref().map(|part| (part.ordinal, part.last));
                let line = String::from_utf8_lossy(&entry.line).into_owned();
                (entry.source.as_str(), line, entry.time / 1_000_000_000, entry.partial, part)
            })
            .collect();
        let expected = [
            ("stdout", "whole".to_owned(), 1, false, None),
            ("stdout", "be".to_owned(), 2, true, Some((1, false))),
            ("stderr", String::new(), 3, false, None),
            ("stdout", "gun".to_owned(), 2, true, Some((2, true))),
            ("stdout", "rest".to_owned(), 5, true, Some((1, false))),
        ];
        assert_eq!(shown, expected);
        let id = |index: usize| found[index].part.as_ref().unwrap().id.clone();
        assert!(id(1) == id(3) && id(3) != id(4) && id(1).len() == 64);
        // Counted from any entry on, and a torn one is told from the end.
        let mut counted = 0;
        let mut reader = log.as_slice();
        while let Found::Entry { length, .. } = next(&mut reader).unwrap() {
            counted += length as usize;
        }
        assert_eq!(counted, log.len());
        for cut in 1..20 {
            assert!(matches!(next(&mut &log[..cut]).unwrap(), Found::Torn), "{cut}");
        }
    }
}
