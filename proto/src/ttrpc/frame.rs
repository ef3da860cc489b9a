//! Frames: `length u32 BE | stream id u32 BE | type u8 | flags u8`, then `length` bytes.

use serde::{Deserialize, Serialize};

/// Bytes before the data.
pub const HEADER_LEN: usize = 10;
/// Largest data part; a peer that announces more is told ResourceExhausted.
pub const MAX_DATA_LEN: usize = 4 << 20;

pub const TYPE_REQUEST: u8 = 1;
pub const TYPE_RESPONSE: u8 = 2;
pub const TYPE_DATA: u8 = 3;

/// One whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream_id: u32,
    pub kind: u8,
    pub flags: u8,
    pub data: Vec<u8>,
}

/// What the decoder makes of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Frame(Frame),
    /// A frame longer than [`MAX_DATA_LEN`]: its data is being skipped, the stream goes on.
    TooLong {
        stream_id: u32,
        kind: u8,
        length: usize,
    },
}

/// Appends a frame to `out`.
pub fn encode(stream_id: u32, kind: u8, flags: u8, data: &[u8], out: &mut Vec<u8>) {
    debug_assert!(data.len() <= MAX_DATA_LEN);
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(&stream_id.to_be_bytes());
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(data);
}

/// Bytes of one connection on their way to frames. Holds at most one frame and what came with it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Data bytes of an over-long frame still to be thrown away.
    skip: usize,
}

impl Decoder {
    /// Takes bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next frame, if it is whole.
    pub fn next_frame(&mut self) -> Option<Decoded> {
        let header: &[u8; HEADER_LEN] = self.buffer.first_chunk()?;
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let stream_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let (kind, flags) = (header[8], header[9]);
        if length > MAX_DATA_LEN {
            let here = (self.buffer.len() - HEADER_LEN).min(length);
            self.buffer.drain(..HEADER_LEN + here);
            self.skip = length - here;
            return Some(Decoded::TooLong { stream_id, kind, length });
        }
        if self.buffer.len() < HEADER_LEN + length {
            return None;
        }
        let data = self.buffer[HEADER_LEN..HEADER_LEN + length].to_vec();
        self.buffer.drain(..HEADER_LEN + length);
        if self.buffer.is_empty() {
            // A big frame's memory is not kept while the connection is idle.
            self.buffer.shrink_to(4096);
        }
        Some(Decoded::Frame(Frame { stream_id, kind, flags, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        encode(1, TYPE_REQUEST, 0, b"one", &mut bytes);
        encode(3, TYPE_RESPONSE, 2, b"", &mut bytes);
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(Decoded::Frame(frame)) = decoder.next_frame() {
                    frames.push((frame.stream_id, frame.kind, frame.flags, frame.data));
                }
            }
            assert_eq!(frames, [(1, TYPE_REQUEST, 0, b"one".to_vec()), (3, TYPE_RESPONSE, 2, Vec::new())]);
        }
    }

    #[test]
    fn an_over_long_frame_is_skipped_and_the_next_one_read() {
        let mut bytes = ((MAX_DATA_LEN + 1) as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 5, TYPE_REQUEST, 0]);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let too_long = Decoded::TooLong { stream_id: 5, kind: TYPE_REQUEST, length: MAX_DATA_LEN + 1 };
        assert_eq!(decoder.next_frame(), Some(too_long));
        decoder.push(&vec![0; MAX_DATA_LEN]);
        assert_eq!(decoder.next_frame(), None);
        let mut rest = vec![0];
        encode(7, TYPE_REQUEST, 0, b"x", &mut rest);
        decoder.push(&rest);
        assert!(matches!(decoder.next_frame(), Some(Decoded::Frame(f)) if f.stream_id == 7));
    }
}
