//! How far the output has come into the log, in a file that outlives the shim: written after each write to the log, in
//! one piece. Lines that are in the log beyond it are from the one write that a kill came after.

use super::{Mark, Stream};
use crate::handover::descriptor;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Seek};
use std::path::{Path, PathBuf};

/// Inode and length of the log, then a generation and an offset for each stream.
const SIZE: usize = 48;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Position {
    path: PathBuf,
    #[serde(with = "descriptor")]
    file: OwnedFd,
    /// Of stdout and stderr.
    pub(super) marks: [Mark; 2],
}

impl Position {
    pub(super) fn create(path: PathBuf) -> io::Result<Position> {
        Position::open_with(path, OFlags::CREATE | OFlags::TRUNC)
    }

    /// The file of an earlier shim; nothing in it changes.
    pub(super) fn open(path: PathBuf) -> io::Result<Position> {
        Position::open_with(path, OFlags::empty())
    }

    fn open_with(path: PathBuf, flags: OFlags) -> io::Result<Position> {
        let flags = flags | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
        Ok(Position { path, file, marks: Default::default() })
    }

    /// One write within one page: a kill leaves all of it or nothing.
    pub(super) fn write(&self, inode: u64, size: u64) {
        let [stdout, stderr] = &self.marks;
        let fields =
            [inode, size, stdout.generation.into(), stdout.offset, stderr.generation.into(), stderr.offset];
        let mut bytes = [0; SIZE];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        if let Err(error) = rustix::io::pwrite(&self.file, &bytes, 0) {
            crate::complain!("{}: {}", self.path.display(), io::Error::from(error));
        }
    }

    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What an earlier shim has left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) marks: [Mark; 2],
    /// Messages of each stream that are in the log beyond the marks.
    pub(super) ahead: [usize; 2],
}

/// Reads the position, and takes a torn line off the end of the log.
pub(super) fn read(path: &Path, log: &Path, next: Next) -> io::Result<Left> {
    let ([inode, size], marks) = fields(path)?;
    Ok(Left { marks, ahead: entries_beyond(log, inode, size, next)? })
}

/// How far it is in the log.
pub(super) fn marks(path: &Path) -> io::Result<[Mark; 2]> {
    fields(path).map(|(_, marks)| marks)
}

/// Inode and length of the log, and the marks.
fn fields(path: &Path) -> io::Result<([u64; 2], [Mark; 2])> {
    let mut bytes = [0; SIZE];
    let mut fields = [0u64; SIZE / 8];
    match std::fs::File::open(path)?.read_exact(&mut bytes) {
        Ok(()) => {
            for (field, place) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
                *field = u64::from_ne_bytes(place.try_into().expect("eight bytes"));
            }
        }
        // Not one line has been written.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    let [inode, size, stdout, stdout_offset, stderr, stderr_offset] = fields;
    let mark = |generation: u64, offset| Mark { generation: generation as u32, offset };
    Ok(([inode, size], [mark(stdout, stdout_offset), mark(stderr, stderr_offset)]))
}

/// What comes next in a log.
pub(super) enum Found {
    Entry {
        /// Bytes.
        length: u64,
        stream: Stream,
    },
    /// Part of an entry, at the end of the log.
    Torn,
    End,
}

/// Reads the next entry of a log.
pub(super) type Next = fn(&mut dyn BufRead) -> io::Result<Found>;

/// Messages of each stream beyond `size` in the log; all that are there, where it has been rotated since.
fn entries_beyond(path: &Path, inode: u64, size: u64, next: Next) -> io::Result<[usize; 2]> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let nofollow = OFlags::NOFOLLOW.bits() as i32;
    let opened = std::fs::OpenOptions::new().read(true).write(true).custom_flags(nofollow).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok([0, 0]),
        opened => opened?,
    };
    let start = if file.metadata()?.ino() == inode { size } else { 0 };
    let mut reader = io::BufReader::new(&file);
    reader.seek(io::SeekFrom::Start(start))?;
    let (mut at, mut ahead) = (start, [0, 0]);
    loop {
        match next(&mut reader)? {
            Found::Entry { length, stream } => {
                at += length;
                ahead[stream.index()] += 1;
            }
            Found::Torn => {
                file.set_len(at)?;
                return Ok(ahead);
            }
            Found::End => return Ok(ahead),
        }
    }
}
