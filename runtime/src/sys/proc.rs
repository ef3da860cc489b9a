//! What /proc says about a process.

use std::io;

/// One process as its stat file shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) start_time: u64,
}

impl Stat {
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// The command name may hold anything, also brackets and blanks: fields are counted from the last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|&b| b == b')')? + 2;
    let mut fields = text.get(after_name..)?.split(|&b| b == b' ');
    let state = *fields.next()?.first()?;
    // Field 22 of the line, the nineteenth after the state.
    let start_time = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let line =
            b"42 (a) R 1 2 3) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0 18446744073709551615";
        assert_eq!(parse_stat(line), Some(Stat { state: b'S', start_time: 12345 }));
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(!stat(std::process::id() as i32).expect("own stat file").is_dead());
    }
}
