//! Output between the container and its log, in a file that outlives the shim.
//!
//! A read would take bytes out of the container's FIFO into memory that dies with this process. A splice into a file
//! moves them: the kernel does not stop for SIGKILL between the two, so that the file's length says what has left the
//! FIFO. What of the file is in the log, the log's position says, as a generation and an
//! offset in it; an unfinished line stays beyond that offset. A file that has grown is followed by one of the next
//! generation, which begins with the unfinished line; the old one goes once the position names the new one.

use crate::error::Error;
use crate::handover::descriptor;
use crate::log::Mark;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Bytes after which a file is followed by the next.
const MAX_SIZE: u64 = 256 << 10;
/// Bytes that an idle spool whose lines are all in the log may keep.
const MAX_IDLE: u64 = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spool {
    base: PathBuf,
    generation: u32,
    #[serde(with = "descriptor")]
    file: OwnedFd,
    /// The file's length.
    end: u64,
}

impl Spool {
    pub(crate) fn create(base: PathBuf) -> Result<Spool, Error> {
        let file = open(&path(&base, 0), OFlags::CREATE | OFlags::TRUNC).map_err(|e| step(&base, e))?;
        Ok(Spool { base, generation: 0, file, end: 0 })
    }

    /// The file that a position of an earlier shim names.
    pub(crate) fn reopen(base: PathBuf, mark: Mark) -> Result<Spool, Error> {
        let file = open(&path(&base, mark.generation), OFlags::empty()).map_err(|e| step(&base, e))?;
        // The one before, or the one that was about to follow.
        for other in [mark.generation.wrapping_sub(1), mark.generation.wrapping_add(1)] {
            let _ = std::fs::remove_file(path(&base, other));
        }
        let end = rustix::fs::fstat(&file).map_err(|e| step(&base, e))?.st_size as u64;
        Ok(Spool { base, generation: mark.generation, file, end })
    }

    /// Takes what `source` has, up to `most` bytes.
    pub(crate) fn fill(&mut self, source: impl AsFd, most: usize) -> rustix::io::Result<usize> {
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match rustix::pipe::splice(&source, None, &self.file, Some(&mut self.end), most, flags) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// The `count` bytes before the end.
    pub(crate) fn read_last(&self, count: usize, into: &mut Vec<u8>) -> rustix::io::Result<()> {
        into.resize(count, 0);
        let (start, mut read) = (self.end - count as u64, 0);
        while read < count {
            match rustix::io::pread(&self.file, &mut into[read..], start + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(Errno::INTR) => {}
                Err(error) => {
                    into.clear();
                    return Err(error);
                }
            }
        }
        into.truncate(read);
        Ok(())
    }

    /// Bytes from `offset` to the end.
    pub(crate) fn len_from(&self, offset: u64) -> usize {
        self.end.saturating_sub(offset) as usize
    }

    /// What stands `rest` bytes before the end.
    pub(crate) fn mark(&self, rest: usize) -> Mark {
        Mark { generation: self.generation, offset: self.end.saturating_sub(rest as u64) }
    }

    /// Makes room: `unfinished` is all that is not in the log. `commit` puts a mark into the position.
    pub(crate) fn trim(&mut self, unfinished: &[u8], idle: bool, commit: impl FnOnce(Mark)) {
        if unfinished.is_empty() && idle && self.end > MAX_IDLE {
            // A position beyond the end of the file stands for its begin.
            if rustix::fs::ftruncate(&self.file, 0).is_ok() {
                self.end = 0;
                commit(self.mark(0));
            }
        } else if self.end > MAX_SIZE
            && let Ok(next) = self.follow(unfinished)
        {
            let old = path(&self.base, self.generation);
            *self = next;
            commit(self.mark(unfinished.len()));
            let _ = std::fs::remove_file(old);
        }
    }

    fn follow(&self, unfinished: &[u8]) -> std::io::Result<Spool> {
        let generation = self.generation.wrapping_add(1);
        let name = path(&self.base, generation);
        let file = open(&name, OFlags::CREATE | OFlags::TRUNC)?;
        if rustix::io::pwrite(&file, unfinished, 0)? != unfinished.len() {
            let _ = std::fs::remove_file(name);
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Ok(Spool { base: self.base.clone(), generation, file, end: unfinished.len() as u64 })
    }

    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(path(&self.base, self.generation));
    }
}

fn path(base: &Path, generation: u32) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{generation}"));
    PathBuf::from(name)
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
}

fn step(base: &Path, error: Errno) -> Error {
    Error::step(format!("open the spool {}", base.display()), std::io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    /// A spool that is filled, followed by the next, emptied and opened again has what was not in the log.
    #[test]
    fn what_is_not_in_the_log_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("spool");
        let mut spool = Spool::create(base.clone()).unwrap();
        let (read, write) = pipe().unwrap();
        let mut committed = Mark::default();
        let add = |spool: &mut Spool, text: &[u8]| {
            rustix::io::write(&write, text).unwrap();
            assert_eq!(spool.fill(&read, text.len()), Ok(text.len()));
            let mut last = Vec::new();
            spool.read_last(text.len(), &mut last).unwrap();
            assert_eq!(last, text);
        };
        for _ in 0..=MAX_SIZE / (32 << 10) {
            add(&mut spool, &[b'a'; 32 << 10]);
        }
        add(&mut spool, b"unfinished");
        spool.trim(b"unfinished", true, |mark| committed = mark);
        assert_eq!(committed, Mark { generation: 1, offset: 0 });
        add(&mut spool, b" line\n");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 1, "the old generation is gone");
        let mut found = Vec::new();
        let mut again = Spool::reopen(base.clone(), committed).unwrap();
        again.read_last(again.len_from(committed.offset), &mut found).unwrap();
        assert_eq!(found, b"unfinished line\n");
        add(&mut again, &[b'b'; 32 << 10]);
        again.trim(b"", true, |mark| committed = mark);
        assert_eq!((committed, again.len_from(0)), (Mark { generation: 1, offset: 0 }, 0));
        again.remove();
        assert_eq!(names(), 0);
        assert!(Spool::reopen(base, committed).is_err());
    }
}
