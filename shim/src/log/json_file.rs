//! docker's json-file: `{"log":"text\n","stream":"stdout","attrs":{..},"time":"..."}` a line, `attrs` only where there are
//! some.

use super::Stream;
use super::position::Found;
use proto::time::Rfc3339;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::SystemTime;

/// What the lines of one log have in common.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonLines {
    /// `"attrs":{..},` or nothing.
    attrs: Vec<u8>,
    /// The time of the last line, and the end of a line of that time.
    #[serde(skip)]
    stamp: (Option<SystemTime>, Vec<u8>),
}

impl JsonLines {
    pub(super) fn new(attrs: &BTreeMap<String, String>) -> JsonLines {
        JsonLines { attrs: attributes(attrs), stamp: Default::default() }
    }

    pub(super) fn write(&mut self, stream: Stream, text: &[u8], at: SystemTime, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"log\":\"");
        escape(text, out);
        out.extend_from_slice(b"\",\"stream\":\"");
        out.extend_from_slice(stream.name().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.attrs);
        // All lines of one read have its time: it is written out once.
        if self.stamp.0 != Some(at) {
            self.stamp.0 = Some(at);
            self.stamp.1.clear();
            self.stamp.1.extend_from_slice(b"\"time\":\"");
            let _ = writeln!(self.stamp.1, "{}\"}}", Rfc3339::from(at));
        }
        out.extend_from_slice(&self.stamp.1);
    }
}

/// The next line of a log.
pub(super) fn next(log: &mut dyn BufRead) -> io::Result<Found> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(deserialize_with = "stream")]
        stream: Stream,
    }
    let mut line = Vec::new();
    let length = log.read_until(b'\n', &mut line)? as u64;
    Ok(match serde_json::from_slice::<Line>(&line) {
        _ if line.is_empty() => Found::End,
        Ok(found) if line.ends_with(b"\n") => Found::Entry { length, stream: found.stream },
        _ => Found::Torn,
    })
}

fn stream<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Stream, D::Error> {
    let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
    Ok(Stream::named(&name))
}

/// As Go's encoding/json has a map, which sorts, and writes tabs otherwise than docker's own code for messages.
fn attributes(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attrs {
        out.extend_from_slice(if out.is_empty() { b"\"attrs\":{" } else { b"," });
        for (text, end) in [(key, &b":"[..]), (value, b"")] {
            out.push(b'"');
            for (index, part) in text.split('\t').enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b"\\t" });
                escape(part.as_bytes(), &mut out);
            }
            out.push(b'"');
            out.extend_from_slice(end);
        }
    }
    if !out.is_empty() {
        out.extend_from_slice(b"},");
    }
    out
}

/// A JSON string's inside as docker writes it: `<`, `>`, `&` and control characters as \u00XX, broken UTF-8 as U+FFFD.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        // Nearly every byte stays what it is: whole runs are copied.
        while let Some(at) = rest.iter().position(|byte| IS_SPECIAL[usize::from(*byte)]) {
            out.extend_from_slice(&rest[..at]);
            rest = escape_first(&rest[at..], out);
        }
        out.extend_from_slice(rest);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Bytes that do not stand for themselves.
const IS_SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    table
};

/// Writes the first character of `text`, and returns the rest.
fn escape_first<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match text {
        // U+2028 and U+2029, which end a line for some readers.
        [0xe2, 0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            rest
        }
        [byte, rest @ ..] => {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                0xe2 => out.push(*byte),
                _ => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
            rest
        }
        [] => text,
    }
}
