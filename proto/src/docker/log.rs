//! Byte streams: the frames of a multiplexed stream, and the lines of a json-file log, which the shim writes
//! and the engine reads.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which stream a frame or log line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The daemon's own error text, which ends the stream.
    SystemError = 3,
}

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 8;

/// The header before each chunk of a multiplexed stream.
pub fn frame_header(stream: Stream, length: u32) -> [u8; FRAME_HEADER] {
    let mut header = [stream as u8, 0, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&length.to_be_bytes());
    header
}

/// The stream and length a header announces.
pub fn parse_frame_header(header: [u8; FRAME_HEADER]) -> Option<(Stream, u32)> {
    let stream = match header[0] {
        0 => Stream::Stdin,
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        3 => Stream::SystemError,
        _ => return None,
    };
    Some((stream, u32::from_be_bytes([header[4], header[5], header[6], header[7]])))
}

/// Longest piece of a line kept as one log entry, in bytes; longer lines are split, and only the last piece ends
/// in a newline.
pub const MAX_LOG_PIECE: usize = 16 * 1024;

/// One line of a json-file log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonLine<'a> {
    #[serde(borrow, default)]
    pub log: Cow<'a, str>,
    #[serde(borrow, default)]
    pub stream: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attrs: Option<super::Strings>,
    #[serde(borrow, default)]
    pub time: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_is_stream_and_big_endian_length() {
        let header = frame_header(Stream::Stderr, 0x0102);
        assert_eq!(header, [2, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(parse_frame_header(header), Some((Stream::Stderr, 0x0102)));
        assert_eq!(parse_frame_header([9; 8]), None);
    }

    #[test]
    fn a_log_line_reads_as_docker_wrote_it() {
        let line = r#"{"log":"hi \u003c\n","stream":"stdout","time":"2026-11-24T02:04:34.667180771Z"}"#;
        let parsed: JsonLine<'_> = serde_json::from_str(line).unwrap();
        assert_eq!(parsed.log, "hi <\n");
        assert_eq!(parsed.stream, "stdout");
        assert_eq!(parsed.attrs, None);
    }
}
