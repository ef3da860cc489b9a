//! Output cut into docker's log messages: one a line, lines over 16 KiB in parts.

use serde::{Deserialize, Serialize};

/// Longest message in bytes; a longer line is cut, and only its last part ends in a newline.
pub(crate) const MAX_MESSAGE: usize = 16 << 10;

/// The unfinished line of one stream.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes output and calls `message` for each whole message in it, in order, with the bytes that follow it.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut message: impl FnMut(&[u8], usize)) {
        while !bytes.is_empty() {
            let room = MAX_MESSAGE - self.partial.len();
            let newline = bytes.iter().take(room).position(|b| *b == b'\n');
            let take = match newline {
                Some(at) => at + 1,
                None if bytes.len() >= room => room,
                None => {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
            };
            let (head, rest) = bytes.split_at(take);
            if self.partial.is_empty() {
                message(head, rest.len());
            } else {
                self.partial.extend_from_slice(head);
                message(&self.partial, rest.len());
                self.partial.clear();
                self.partial.shrink_to(1024);
            }
            bytes = rest;
        }
    }

    /// What has come of the line that is not at its end.
    pub(crate) fn unfinished(&self) -> &[u8] {
        &self.partial
    }

    /// The stream has ended: what is left is a message without a newline.
    pub(crate) fn finish(&mut self, message: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            message(&std::mem::take(&mut self.partial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |m, _| out.push(m.to_vec()));
        }
        lines.finish(|m| out.push(m.to_vec()));
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let expected = [&b"one\n"[..], b"\n", b"two\n", b"rest"];
        let text = b"one\n\ntwo\nrest";
        for cut in 0..text.len() {
            assert_eq!(messages(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib() {
        let mut text = vec![b'a'; 2 * MAX_MESSAGE + 5];
        text.push(b'\n');
        let lengths: Vec<usize> = messages(&[&text]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_MESSAGE, MAX_MESSAGE, 6]);
        // The newline counts: after exactly the limit it is a message of its own, as docker has it.
        let exact = [vec![b'a'; MAX_MESSAGE], b"\nb".to_vec()].concat();
        let lengths: Vec<usize> = messages(&[&exact]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_MESSAGE, 1, 1]);
    }
}
