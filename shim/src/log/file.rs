//! A container's log in files: docker's json-file or local, see `json_file` and `local` for what stands in them. A full
//! one becomes FILE.1 or FILE.1.gz, see `rotation`.
//!
//! All messages of one read are written with one O_APPEND write, and then the position. A kill may come between the two,
//! or leave half a line: who goes on with the log counts those beyond the position, and takes a torn one back. Where
//! the disk fills, what was written of a line is taken back and the lines are lost, but the container is not held up.
//!
//! A slow disk holds it up, unless the log has a [`Queue`]: then all of this is done by another process.

use super::json_file::JsonLines;
use super::local::Parts;
use super::position::{self, Position};
use super::queue::Queue;
use super::{Mark, Stream, rotation, writer};
use crate::handover::descriptor;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Instant, SystemTime};

/// The log of one container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogFile {
    path: PathBuf,
    #[serde(with = "descriptor")]
    file: OwnedFd,
    #[serde(default)]
    inode: u64,
    size: u64,
    /// Bytes after which the file is rotated; 0 is never.
    max_size: u64,
    max_file: u32,
    #[serde(default)]
    compress: bool,
    #[serde(flatten)]
    lines: JsonLines,
    /// Of a local log; none where it is a json-file.
    #[serde(default)]
    parts: Option<Parts>,
    /// Lines of the read being handled.
    batch: Vec<u8>,
    /// None in the state of a shim that kept none.
    #[serde(default)]
    position: Option<Position>,
    /// Messages of each stream that an earlier shim has written, but not into the position.
    #[serde(default)]
    ahead: [usize; 2],
    #[serde(skip)]
    rotated: bool,
    /// Bytes that may wait for the disk; 0 where the container waits for it.
    #[serde(default)]
    buffer: u64,
    /// Of such a log, from when its position is kept on; `file` is nothing then.
    #[serde(default)]
    queue: Option<Queue>,
    /// Waits for a full disk: a queue takes what comes meanwhile.
    #[serde(skip)]
    is_patient: bool,
}

impl LogFile {
    /// Opens the log, which may be there from an earlier run of the container and is then continued.
    pub(crate) fn open(
        path: &Path,
        max_size: u64,
        max_file: u32,
        attrs: &BTreeMap<String, String>,
    ) -> io::Result<LogFile> {
        let file = open_append(path)?;
        let (inode, size) = inode_and_size(&file)?;
        let max_file = max_file.max(1);
        Ok(LogFile {
            path: path.to_owned(),
            file,
            inode,
            size,
            max_size,
            max_file,
            compress: false,
            lines: JsonLines::new(attrs),
            parts: None,
            batch: Vec::new(),
            position: None,
            ahead: [0; 2],
            rotated: false,
            buffer: 0,
            queue: None,
            is_patient: false,
        })
    }

    /// Its form is docker's local.
    pub(crate) fn local(self) -> LogFile {
        LogFile { parts: Some(Parts::default()), ..self }
    }

    /// It never holds up the container; so many bytes may wait for its disk, where that is not 0.
    pub(crate) fn buffered(self, bytes: u64) -> LogFile {
        LogFile { buffer: bytes, ..self }
    }

    /// Compresses what is rotated, from here on; and what an earlier run has left to be compressed.
    pub(crate) fn compress(self) -> LogFile {
        let log = LogFile { compress: true, ..self };
        log.start_compressor();
        log
    }

    fn start_compressor(&self) {
        if !self.compress || self.buffer != 0 {
            return;
        }
        // A daemon reads the standard error of a shim that adopts, and has not left its session yet, to the end: it would
        // wait for the compressor.
        let is_heard = self.is_patient || rustix::process::getsid(None) == Ok(rustix::process::getpid());
        let errors = if is_heard { Stdio::inherit() } else { Stdio::null() };
        if let Err(error) = rotation::start_compressor(&self.path, self.max_file, errors) {
            crate::complain!("compress log {}: {error}; it stays as it is", self.path.display());
        }
    }

    /// Keeps the position in a file, from here on.
    pub(crate) fn keep_position(&mut self, path: PathBuf) -> io::Result<()> {
        let queue = path.with_extension("queue");
        let position = Position::create(path.clone())?;
        if self.buffer == 0 {
            position.write(self.inode, self.size);
            self.position = Some(position);
            return Ok(());
        }
        // It is empty until the writer begins: the log may grow by what an earlier run has left.
        self.queue = Some(Queue::create(queue, path, self.buffer)?);
        // The writer opens it anew, and would else not be the only one to hold a file that is rotated away.
        self.file = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        self.start_writer();
        Ok(())
    }

    fn start_writer(&mut self) {
        let started = writer::start(self);
        if let Err(error) = &started {
            crate::complain!("log {}: start its writer: {error}", self.path.display());
        }
        if let Some(queue) = &mut self.queue {
            queue.has_writer(started.ok());
        }
    }

    /// Begins in the file as it is, where no writer has begun yet; else goes on as after a kill.
    pub(super) fn begin(self, position: PathBuf) -> io::Result<(LogFile, [Mark; 2])> {
        if std::fs::metadata(&position)?.len() != 0 {
            return self.adopt(position);
        }
        // Its name may be gone when the log is free.
        let position = Position::create(position)?;
        let file = open_alone(&self.path)?;
        let (inode, size) = inode_and_size(&file)?;
        position.write(inode, size);
        let log = LogFile { file, inode, size, position: Some(position), ..self };
        log.start_compressor();
        Ok((log, Default::default()))
    }

    /// The log as its writer has it, and the queue that it writes it from.
    pub(super) fn behind_queue(mut self) -> Option<(LogFile, Queue)> {
        let queue = self.queue.take()?;
        Some((LogFile { buffer: 0, is_patient: true, ..self }, queue))
    }

    /// One that nothing was written to yet, after the shim that had opened it.
    pub(crate) fn reopen(self) -> io::Result<LogFile> {
        let file = open_append(&self.path)?;
        let (inode, size) = inode_and_size(&file)?;
        Ok(LogFile { file, inode, size, ..self })
    }

    /// Goes on where an earlier shim was killed. The marks say from where on each stream's output is to be given to
    /// [`LogFile::message`] again, which knows what of it is in the log.
    pub(crate) fn adopt(mut self, position_path: PathBuf) -> io::Result<(LogFile, [Mark; 2])> {
        if let Some(queue) = self.queue.take() {
            let queue = queue.adopt()?;
            let marks = queue.marks();
            self.queue = Some(queue);
            self.start_writer();
            return Ok((self, marks));
        }
        let file = if self.is_patient { open_alone(&self.path)? } else { open_append(&self.path)? };
        let left = position::read(&position_path, &self.path, self.next())?;
        let (inode, size) = inode_and_size(&file)?;
        // Opened without emptying it: until the next write the old position, with the same log, says the same.
        let mut position = Position::open(position_path)?;
        position.marks = left.marks;
        let (batch, parts) = (Vec::new(), self.parts.as_ref().map(|_| Parts::default()));
        let ahead = left.ahead;
        let position = Some(position);
        let log = LogFile { file, inode, size, batch, parts, position, ahead, ..self };
        log.start_compressor();
        Ok((log, left.marks))
    }

    /// How an entry of this log is found in it.
    fn next(&self) -> position::Next {
        if self.parts.is_some() { super::local::next } else { super::json_file::next }
    }

    /// No more comes.
    pub(crate) fn finish(&mut self) {
        self.queue.iter_mut().for_each(Queue::finish);
        self.renew_writer();
    }

    /// What it was given is in the file, as far as the disk is waited for.
    pub(crate) fn is_written(&mut self) -> bool {
        self.queue.as_mut().is_none_or(Queue::is_logged)
    }

    /// What wakes for [`LogFile::woken`].
    pub(crate) fn wakes(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().and_then(Queue::wakes).map(AsFd::as_fd)
    }

    /// The writer has got on, has something to say, or has ended.
    pub(crate) fn woken(&mut self) {
        self.queue.iter_mut().for_each(Queue::woken);
        self.renew_writer();
    }

    /// When to look again whether it has a writer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.as_ref().and_then(Queue::wants_writer)
    }

    fn renew_writer(&mut self) {
        if self.deadline().is_some_and(|at| at <= Instant::now()) {
            self.start_writer();
        }
    }

    /// The names of the position and the queue go with the log's use.
    pub(crate) fn close(self) {
        if let Some(queue) = self.queue {
            return queue.close();
        }
        if let Some(position) = self.position {
            position.remove();
        }
    }

    /// Adds one message to the batch; the stream's output up to `mark` is in the log when it is.
    pub(crate) fn message(&mut self, stream: Stream, text: &[u8], at: SystemTime, mark: Mark) {
        if let Some(queue) = &mut self.queue {
            queue.move_mark(stream, mark);
            return queue.push(stream, text, at);
        }
        if let Some(position) = &mut self.position {
            position.marks[stream.index()] = mark;
        }
        if let Some(rest) = self.ahead[stream.index()].checked_sub(1) {
            self.ahead[stream.index()] = rest;
            return;
        }
        match &mut self.parts {
            None => self.lines.write(stream, text, at, &mut self.batch),
            Some(parts) => parts.write(stream, text, at, &mut self.batch),
        }
        // One write stays a reasonable size, and a rotation bound is kept to within one message.
        if self.batch.len() >= 128 << 10
            || (self.max_size != 0 && self.size + self.batch.len() as u64 >= self.max_size)
        {
            self.flush();
        }
    }

    /// Writes the batch.
    pub(crate) fn flush(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.flush();
            return self.renew_writer();
        }
        if self.batch.is_empty() {
            return;
        }
        if self.max_size != 0 && self.size >= self.max_size {
            self.rotate();
        }
        let mut has_complained = false;
        while let Err(error) = self.write() {
            // Best effort: without it the next line would be glued to a torn one.
            let _ = rustix::fs::ftruncate(&self.file, self.size);
            let (path, lost) = (self.path.display(), self.batch.len());
            if !self.is_patient {
                crate::complain!("log {path}: {error}; {lost} bytes lost");
                break;
            }
            if !std::mem::replace(&mut has_complained, true) {
                crate::complain!("log {path}: {error}; trying again until it can be written");
            }
            writer::pause();
        }
        self.batch.clear();
        self.batch.shrink_to(16 << 10);
        self.write_position();
    }

    /// Whether there was a rotation since this was asked last.
    pub(crate) fn has_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    /// Messages that an earlier shim has written beyond its position.
    pub(crate) fn ahead(&self, stream: Stream) -> usize {
        self.ahead[stream.index()]
    }

    /// All that an earlier shim has left was given: none of it is ahead any more.
    pub(crate) fn settle(&mut self) {
        self.ahead = [0; 2];
        self.write_position();
    }

    fn write_position(&self) {
        // A position that passes over messages which are ahead would make the next shim count them twice.
        if let Some(position) = self.position.as_ref().filter(|_| self.ahead == [0; 2]) {
            position.write(self.inode, self.size);
        }
    }

    /// The stream's spool has another form; what is in the log is the same.
    pub(crate) fn move_mark(&mut self, stream: Stream, mark: Mark) {
        if let Some(queue) = &mut self.queue {
            queue.move_mark(stream, mark);
            queue.flush();
        } else if let Some(position) = &mut self.position {
            position.marks[stream.index()] = mark;
            self.write_position();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.size += self.batch.len() as u64;
        Ok(())
    }

    /// Renames only, so a kill in between loses no line.
    fn rotate(&mut self) {
        let lock = match rotation::make_room(&self.path, self.max_file) {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                crate::complain!("rotate log {}: {error}; going on in it", self.path.display());
                return;
            }
        };
        match open_append(&self.path) {
            Ok(file) => {
                self.inode = inode_and_size(&file).map_or(0, |(inode, _)| inode);
                if self.is_patient {
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                }
                drop(lock);
                (self.file, self.size, self.rotated) = (file, 0, true);
                self.start_compressor();
            }
            Err(error) => {
                crate::complain!("open log {}: {error}; going on in the rotated one", self.path.display())
            }
        }
    }
}

fn inode_and_size(file: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_ino, stat.st_size as u64))
}

fn open_append(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?)
}

/// Once the writer of an earlier run has done with it, which may be waiting for the disk still.
fn open_alone(path: &Path) -> io::Result<OwnedFd> {
    loop {
        let lock = rotation::lock_folder(path)?;
        let file = open_append(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => drop(lock),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(writer::PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, UNIX_EPOCH};

    fn open(dir: &Path, max_size: u64, max_file: u32, attrs: &[(&str, &str)]) -> LogFile {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogFile::open(&dir.join("c-json.log"), max_size, max_file, &attrs).unwrap()
    }

    #[test]
    fn one_that_waits_for_its_container_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = serde_json::to_vec(&open(dir.path(), 0, 1, &[])).unwrap();
        let left: LogFile = crate::handover::without_descriptors(|| serde_json::from_slice(&state)).unwrap();
        let mut log = left.reopen().unwrap();
        log.message(Stream::Stdout, b"x\n", UNIX_EPOCH, Mark::default());
        log.flush();
        let text = std::fs::read_to_string(dir.path().join("c-json.log")).unwrap();
        assert!(text.starts_with(r#"{"log":"x\n","#), "{text}");
    }

    #[test]
    fn a_line_is_docker_s_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 0, 1, &[]);
        let text = "a \"b\" <c>\t\u{20ac}\u{2028}".as_bytes();
        log.message(
            Stream::Stdout,
            &[text, b"\xff\n"].concat(),
            UNIX_EPOCH + Duration::from_millis(1500),
            Mark::default(),
        );
        log.flush();
        let mut log = open(dir.path(), 0, 1, &[("k", "v"), ("a<", "\t\"&")]);
        log.message(Stream::Stderr, b"x", UNIX_EPOCH, Mark::default());
        log.flush();
        let text = std::fs::read_to_string(dir.path().join("c-json.log")).unwrap();
        let expected = concat!(
            r#"{"log":"a \"b\" \u003cc\u003e\u0009€\u2028\ufffd\n","stream":"stdout","time":"1970-01-01T00:00:01.5Z"}"#,
            "\n",
            r#"{"log":"x","stream":"stderr","attrs":{"a\u003c":"\t\"\u0026","k":"v"},"time":"1970-01-01T00:00:00Z"}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn rotation_keeps_max_file_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 300, 3, &[]);
        for n in 0..40 {
            log.message(Stream::Stdout, format!("line {n}\n").as_bytes(), UNIX_EPOCH, Mark::default());
            log.flush();
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["c-json.log", "c-json.log.1", "c-json.log.2"]);
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let all = read("c-json.log.2") + &read("c-json.log.1") + &read("c-json.log");
        assert!(all.lines().last().unwrap().contains("line 39"));
        let first: usize = all.split("line ").nth(1).unwrap().split('\\').next().unwrap().parse().unwrap();
        assert_eq!(all.lines().count(), 40 - first, "no line in between is missing");
    }

    /// Killed after one whole line and half of another were written, and before the position was.
    #[test]
    fn what_is_in_the_log_beyond_the_position_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        let mark = |offset| Mark { generation: 2, offset };
        let add = |log: &mut LogFile, stream, text: &str, offset| {
            log.message(stream, text.as_bytes(), UNIX_EPOCH, mark(offset));
            log.flush();
        };
        for (max_size, rotated) in [(0, false), (60, true)] {
            let mut log = open(dir.path(), max_size, 2, &[]);
            log.keep_position(dir.path().join("position")).unwrap();
            add(&mut log, Stream::Stderr, "zero\n", 5);
            add(&mut log, Stream::Stdout, "one\n", 4);
            let unknown = open(dir.path(), max_size, 2, &[]);
            let mut killed = LogFile { position: None, ..unknown };
            add(&mut killed, Stream::Stdout, "two\n", 8);
            std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"{\"log\":\"thr")
                .unwrap();
            let (mut log, marks) = log.adopt(dir.path().join("position")).unwrap();
            assert_eq!(marks, [mark(4), mark(5)]);
            assert_eq!((log.ahead(Stream::Stdout), log.ahead(Stream::Stderr)), (1, 0), "rotated: {rotated}");
            add(&mut log, Stream::Stdout, "two\n", 8);
            add(&mut log, Stream::Stdout, "three\n", 14);
            log.settle();
            let text = std::fs::read_to_string(&path).unwrap();
            let older = std::fs::read_to_string(dir.path().join("c-json.log.1")).unwrap_or_default();
            let both = older.clone() + &text;
            let found: Vec<&str> = both.lines().filter_map(|line| line.split('"').nth(3)).collect();
            let expected = ["one\\n", "two\\n", "three\\n"];
            assert!(
                rotated != older.is_empty() && found.ends_with(&expected[usize::from(rotated)..]),
                "{both}"
            );
            let (_, marks) = log.adopt(dir.path().join("position")).unwrap();
            assert_eq!(marks, [mark(14), mark(5)]);
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
}
