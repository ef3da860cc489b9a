//! The user's terminal: raw mode while a container has it, its size, and the keys that give it back.

use rustix::termios::{OptionalActions, Termios};

pub(crate) fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

pub(crate) fn stdout_is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdout())
}

/// Height and width in characters of the terminal on standard output or input.
pub(crate) fn size() -> Option<(u32, u32)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(rustix::stdio::stdin()))
        .ok()?;
    Some((size.ws_row.into(), size.ws_col.into()))
}

/// Raw mode of standard input, taken back when dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// None where standard input is no terminal.
    pub(crate) fn enter() -> Option<Raw> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// docker's default: ctrl-p ctrl-q.
const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

/// Finds the detach sequence in what is typed.
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `a`, `ctrl-a`, comma-separated.
    pub(crate) fn parse(text: Option<&str>) -> Result<DetachKeys, String> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_KEYS);
        let key = |name: &str| match name.strip_prefix("ctrl-") {
            Some(letter) if letter.len() == 1 => match letter.as_bytes()[0] {
                letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => {
                    Ok(letter.to_ascii_uppercase() & 0x1f)
                }
                _ => Err(format!("Unknown character: '{name}'")),
            },
            None if name.len() == 1 => Ok(name.as_bytes()[0]),
            _ => Err(format!("Unknown character: '{name}'")),
        };
        let keys = text.split(',').map(key).collect::<Result<Vec<u8>, String>>()?;
        Ok(DetachKeys { keys, matched: 0 })
    }

    /// What of `typed` goes to the container, and whether the sequence was completed in it. Keys of a sequence that
    /// was begun and not completed go to the container then.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if self.keys.first() == Some(byte) {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_sequence_is_found_across_reads() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (Vec::new(), true));
        let mut keys = DetachKeys::parse(Some("ctrl-p,q")).unwrap();
        assert_eq!(keys.filter(b"\x10x\x10\x10q"), (b"\x10x\x10".to_vec(), true));
        assert!(DetachKeys::parse(Some("ctrl-1")).is_err());
        assert!(DetachKeys::parse(Some("word")).is_err());
    }
}
