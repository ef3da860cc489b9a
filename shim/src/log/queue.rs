//! A log that never holds up the container (docker's `mode=non-blocking`): what the log's disk has not taken waits in a
//! file of the bundle, up to a size; lines beyond it are dropped and counted.
//!
//! ```text
//! shim     spool -> QUEUE                 touches the log's disk when the log is opened at create, and then no more
//! writer   QUEUE -> log, then position    a process of its own (log::writer), which waits for the disk as it has to
//! ```
//! Both go on where the other one was killed, and nothing is lost or told twice. QUEUE's head says how far its entries
//! reach and which marks of the spools they stand for, in one write: it is to the spools what the position is to them in
//! a log that holds up. The position, which the writer keeps as every log's writer does, says how far the queue is in the
//! log. Offsets only grow, and the writer gives back the pages that it has done with. The layout stays as it is: a writer
//! outlives the upgrade of its shim.
//!
//! ```text
//! 0       head    u64: end of the entries, the marks, what was dropped since, flags
//! 4096    entry   u32 length of the text, u32 kind, u64 nanoseconds since 1970, text; and the next
//! ```
//! Lines are dropped from the first that does not fit until half of the queue is free. The gap stays in the head, and
//! grows there, until an entry follows it; it is an entry then, for which the writer puts [`Gap::text`] into the log: at
//! its place, and with the numbers of all that is missing there. A line that was begun when the queue became full is
//! ended in the log, and counts as dropped.

use super::{Mark, Stream, position};
use crate::handover::{descriptor, optional_descriptor};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where entries begin.
pub(super) const FIRST: u64 = 4096;
/// Bytes of an entry before its text.
pub(super) const ENTRY_HEAD: usize = 16;
/// A writer that has ended is followed by another one, but not sooner than this after its start.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines that did not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// Streams of which the log has the begin of the first of them.
    pub(super) cut: [bool; 2],
}

impl Gap {
    fn is_open(&self) -> bool {
        self.bytes != 0
    }

    fn add(&mut self, other: &Gap) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.cut = [0, 1].map(|index| self.cut[index] || other.cut[index]);
    }

    /// The line that stands for them in the log.
    pub(super) fn text(&self, limit: u64) -> String {
        let Gap { lines, bytes, .. } = self;
        format!(
            "[gantry: {lines} lines ({bytes} bytes) were dropped here: the log's buffer of {limit} bytes was full]\n"
        )
    }
}

/// Where a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Line {
    #[default]
    Begins,
    /// Some of the line is in the queue.
    Taken,
    /// Some of the line was dropped, and so is the rest.
    Dropped,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) end: u64,
    marks: [Mark; 2],
    gap: Gap,
    /// Of the gap: the stream of its first line, and the time of its last.
    gap_stream: usize,
    gap_time: u64,
    lines: [Line; 2],
    /// No more comes.
    finished: bool,
}

const FIELDS: usize = 9;

impl Head {
    pub(super) fn read(file: &OwnedFd) -> io::Result<Head> {
        let mut bytes = [0; FIELDS * 8];
        if rustix::io::pread(file, &mut bytes, 0)? != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fields = [0; FIELDS];
        for (field, bytes) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
            *field = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        }
        let [end, generations, stdout, stderr, lines, bytes, gap_time, flags, _] = fields;
        let bit = |at: usize| flags >> at & 1 != 0;
        let line = |index: usize| match flags >> (4 + 2 * index) & 3 {
            0 => Line::Begins,
            1 => Line::Taken,
            _ => Line::Dropped,
        };
        Ok(Head {
            end,
            marks: [
                Mark { generation: generations as u32, offset: stdout },
                Mark { generation: (generations >> 32) as u32, offset: stderr },
            ],
            gap: Gap { lines, bytes, cut: [bit(0), bit(1)] },
            gap_stream: usize::from(bit(2)),
            gap_time,
            lines: [line(0), line(1)],
            finished: bit(3),
        })
    }

    /// One write within one page: a kill leaves all of it or nothing.
    fn write(&self, file: &OwnedFd) -> io::Result<()> {
        let [stdout, stderr] = self.marks;
        let generations = u64::from(stdout.generation) | u64::from(stderr.generation) << 32;
        let bits = [self.gap.cut[0], self.gap.cut[1], self.gap_stream == 1, self.finished];
        let flags = bits.iter().enumerate().map(|(at, bit)| u64::from(*bit) << at).sum::<u64>();
        let flags = flags | (self.lines[0] as u64) << 4 | (self.lines[1] as u64) << 6;
        let Gap { lines, bytes, .. } = self.gap;
        let fields: [u64; FIELDS] =
            [self.end, generations, stdout.offset, stderr.offset, lines, bytes, self.gap_time, flags, 0];
        let mut text = [0; FIELDS * 8];
        for (place, field) in text.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        rustix::io::pwrite(file, &text, 0)?;
        Ok(())
    }

    /// The shim waits for room, or for the end.
    pub(super) fn wants_word(&self) -> bool {
        self.gap.is_open() || self.finished
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Message(Stream, &'a [u8]),
    /// Told on this stream.
    Gap(Stream, Gap),
}

impl Entry<'_> {
    fn write(&self, time: u64, out: &mut Vec<u8>) {
        let numbers;
        let (kind, stream, text) = match self {
            Entry::Message(stream, text) => (0, stream, *text),
            Entry::Gap(stream, gap) => {
                numbers = [gap.lines.to_ne_bytes(), gap.bytes.to_ne_bytes()].concat();
                (2 | u32::from(gap.cut[0]) << 2 | u32::from(gap.cut[1]) << 3, stream, numbers.as_slice())
            }
        };
        out.extend_from_slice(&(text.len() as u32).to_ne_bytes());
        out.extend_from_slice(&(kind | stream.index() as u32).to_ne_bytes());
        out.extend_from_slice(&time.to_ne_bytes());
        out.extend_from_slice(text);
    }
}

/// The first entry, its time and its bytes; none where `bytes` have only a part of it.
pub(super) fn first(bytes: &[u8]) -> Option<(Entry<'_>, SystemTime, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let text = rest.get(..u32::from_ne_bytes(*length) as usize)?;
    let kind = u32::from_ne_bytes(*kind);
    let stream = [Stream::Stdout, Stream::Stderr][(kind & 1) as usize];
    let number = |at: usize| text.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
    let entry = if kind & 2 == 0 {
        Entry::Message(stream, text)
    } else {
        let cut = [kind & 4 != 0, kind & 8 != 0];
        Entry::Gap(stream, Gap { lines: number(0)?, bytes: number(8)?, cut })
    };
    let time = UNIX_EPOCH + Duration::from_nanos(u64::from_ne_bytes(*time));
    Some((entry, time, ENTRY_HEAD + text.len()))
}

/// The shim's side.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) path: PathBuf,
    pub(super) position: PathBuf,
    /// Most bytes that wait for the disk, of entries.
    pub(super) limit: u64,
    #[serde(with = "descriptor")]
    file: OwnedFd,
    /// A socket: a byte there says that the queue has changed. A line from there is a complaint, an empty one says that
    /// the position has. None where no writer runs.
    #[serde(with = "optional_descriptor")]
    writer: Option<OwnedFd>,
    /// A complaint that has not come to its end.
    said: Vec<u8>,
    #[serde(skip)]
    started: Option<Instant>,
    head: Head,
    /// What the log had when this was looked up last; each flush looks once.
    logged: u64,
    #[serde(skip)]
    has_looked: bool,
    /// Entries for the next write, and where the lines were before them.
    #[serde(skip)]
    batch: Vec<u8>,
    before: [Line; 2],
    /// There was no room in the bundle: it is tried again with the next output.
    #[serde(skip)]
    has_failed: bool,
}

impl Queue {
    pub(super) fn create(path: PathBuf, position: PathBuf, limit: u64) -> io::Result<Queue> {
        let file = open(&path, OFlags::CREATE | OFlags::TRUNC)?;
        let head = Head { end: FIRST, ..Head::default() };
        head.write(&file)?;
        Ok(Queue::new(path, position, limit, file, head))
    }

    /// That of a shim that was killed. Entries beyond its head come once more.
    pub(super) fn adopt(self) -> io::Result<Queue> {
        let file = open(&self.path, OFlags::empty())?;
        let head = Head::read(&file)?;
        Ok(Queue::new(self.path, self.position, self.limit, file, head))
    }

    fn new(path: PathBuf, position: PathBuf, limit: u64, file: OwnedFd, head: Head) -> Queue {
        Queue {
            path,
            position,
            limit,
            file,
            writer: None,
            said: Vec::new(),
            started: None,
            head,
            logged: FIRST,
            has_looked: false,
            batch: Vec::new(),
            before: head.lines,
            has_failed: false,
        }
    }

    pub(super) fn marks(&self) -> [Mark; 2] {
        self.head.marks
    }

    /// The stream's output up to `mark` is in the queue, or was dropped.
    pub(super) fn move_mark(&mut self, stream: Stream, mark: Mark) {
        self.head.marks[stream.index()] = mark;
    }

    pub(super) fn push(&mut self, stream: Stream, text: &[u8], at: SystemTime) {
        let is_rest = self.head.lines[stream.index()] == Line::Dropped;
        if is_rest || !self.has_room(ENTRY_HEAD + text.len()) {
            return self.drop_text(stream, text, at);
        }
        self.end_gap();
        let is_whole = text.ends_with(b"\n");
        self.head.lines[stream.index()] = if is_whole { Line::Begins } else { Line::Taken };
        Entry::Message(stream, text).write(nanoseconds(at), &mut self.batch);
    }

    fn drop_text(&mut self, stream: Stream, text: &[u8], at: SystemTime) {
        let rest = if text.ends_with(b"\n") { Line::Begins } else { Line::Dropped };
        let line = std::mem::replace(&mut self.head.lines[stream.index()], rest);
        let mut gap =
            Gap { lines: u64::from(line != Line::Dropped), bytes: text.len() as u64, ..Gap::default() };
        gap.cut[stream.index()] = line == Line::Taken;
        self.widen_gap(stream.index(), gap, nanoseconds(at));
    }

    fn widen_gap(&mut self, stream: usize, gap: Gap, time: u64) {
        if !self.head.gap.is_open() {
            self.head.gap_stream = stream;
        }
        self.head.gap.add(&gap);
        self.head.gap_time = time;
    }

    fn end_gap(&mut self) {
        let gap = std::mem::take(&mut self.head.gap);
        if gap.is_open() {
            let stream = [Stream::Stdout, Stream::Stderr][self.head.gap_stream];
            Entry::Gap(stream, gap).write(self.head.gap_time, &mut self.batch);
        }
    }

    /// The bundle has no room for the batch: what it has becomes part of the gap, as if the queue had been full before.
    fn drop_batch(&mut self) {
        let after = self.head;
        self.head.gap = Gap::default();
        // The rest of a line that had been dropped was not pushed into a batch.
        self.head.lines = self.before.map(|line| if line == Line::Dropped { Line::Begins } else { line });
        let batch = std::mem::take(&mut self.batch);
        let mut rest = batch.as_slice();
        while let Some((entry, at, length)) = first(rest) {
            rest = &rest[length..];
            match entry {
                Entry::Message(stream, text) => self.drop_text(stream, text, at),
                Entry::Gap(stream, gap) => self.drop_gap(stream.index(), gap, nanoseconds(at)),
            }
        }
        if after.gap.is_open() {
            self.drop_gap(after.gap_stream, after.gap, after.gap_time);
        }
        for (line, after) in self.head.lines.iter_mut().zip(after.lines) {
            *line = if after == Line::Taken { *line } else { after };
        }
    }

    /// A line that was cut by this gap, and whose begin has been dropped now, was counted with its begin.
    fn drop_gap(&mut self, stream: usize, mut gap: Gap, time: u64) {
        for (cut, line) in gap.cut.iter_mut().zip(&mut self.head.lines) {
            if *cut && std::mem::take(line) == Line::Dropped {
                *cut = false;
                gap.lines -= 1;
            }
        }
        self.widen_gap(stream, gap, time);
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.has_known_room(bytes) || {
            self.look();
            self.has_known_room(bytes)
        }
    }

    fn has_known_room(&self, bytes: usize) -> bool {
        let waits = self.waiting();
        let is_less = !self.head.gap.is_open() || waits <= self.limit / 2;
        // As docker's does, an empty one takes anything.
        waits == 0 || (is_less && waits + bytes as u64 <= self.limit)
    }

    /// Bytes that the log does not have, as far as is known.
    fn waiting(&self) -> u64 {
        (self.head.end + self.batch.len() as u64).saturating_sub(self.logged)
    }

    fn look(&mut self) {
        if !std::mem::replace(&mut self.has_looked, true)
            && let Ok(marks) = position::marks(&self.position)
        {
            self.logged = self.logged.max(reached(marks));
        }
    }

    /// Makes what was pushed part of the queue.
    pub(super) fn flush(&mut self) {
        let written = write_all_at(&self.file, &self.batch, self.head.end);
        self.has_failed = written.is_err();
        match written {
            Ok(()) => self.head.end += self.batch.len() as u64,
            Err(_) => self.drop_batch(),
        }
        self.batch.clear();
        self.batch.shrink_to(16 << 10);
        self.commit();
    }

    fn commit(&mut self) {
        self.before = self.head.lines;
        self.has_looked = false;
        if let Err(error) = self.head.write(&self.file) {
            crate::complain!("{}: {error}", self.path.display());
        }
        let Some(writer) = &self.writer else { return };
        // One that has no room for this byte has others to read.
        match rustix::net::send(writer, b"\n", SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.writer = None,
        }
    }

    /// No more comes: the gap is told, if there is one.
    pub(super) fn finish(&mut self) {
        if !self.head.finished {
            self.end_gap();
            self.head.finished = true;
            self.flush();
        }
    }

    /// What is opened for reading alone cannot be written, as what has no room.
    #[cfg(test)]
    pub(super) fn reopen(&mut self, flags: OFlags) {
        self.file = rustix::fs::open(&self.path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }

    /// All is in the log.
    pub(super) fn is_logged(&mut self) -> bool {
        self.has_looked = false;
        self.look();
        self.waiting() == 0 && !self.head.gap.is_open()
    }

    /// When a writer is to be started.
    pub(super) fn wants_writer(&self) -> Option<Instant> {
        let at = self.started.map_or_else(Instant::now, |at| at + PATIENCE);
        self.writer.is_none().then_some(at)
    }

    pub(super) fn has_writer(&mut self, socket: Option<OwnedFd>) {
        (self.writer, self.started) = (socket, Some(Instant::now()));
    }

    /// What wakes when the writer has something to say, or has ended.
    pub(super) fn wakes(&self) -> Option<&OwnedFd> {
        self.writer.as_ref()
    }

    /// Listens to the writer.
    pub(super) fn woken(&mut self) {
        let mut buffer = [0; 512];
        while let Some(writer) = &self.writer {
            match rustix::net::recv(writer, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((count @ 1.., _)) => self.said.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Ok(_) | Err(_) => self.writer = None,
            }
        }
        let whole = self.said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let said: Vec<u8> = self.said.drain(..whole).collect();
        for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            crate::complain!("{}", String::from_utf8_lossy(line));
        }
        if self.head.gap.is_open() && !self.has_failed && self.has_room(0) {
            self.end_gap();
            self.flush();
        }
        self.has_looked = false;
    }

    /// The names go. A writer that waits for its disk writes what is in the queue when it can.
    pub(super) fn close(mut self) {
        self.finish();
        if !self.is_logged() {
            let waits = self.waiting();
            crate::complain!(
                "{}: {waits} bytes are not in the log yet, and nobody waits for them",
                self.path.display()
            );
        }
        for path in [&self.path, &self.position] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// How far a queue is in the log.
pub(super) fn reached(marks: [Mark; 2]) -> u64 {
    marks.map(|mark| mark.offset).into_iter().fold(FIRST, u64::max)
}

pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?)
}

fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn write_all_at(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
