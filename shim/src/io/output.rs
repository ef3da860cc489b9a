//! One stream on its way out of the container.

use super::CHUNK;
use super::fifo::Sink;
use super::spool::Spool;
use super::survival;
use crate::error::Error;
use crate::handover::optional_descriptor;
use crate::log::{Lines, LogFile, Mark, Stream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(super) stream: Stream,
    /// The container's end; none once it has ended.
    #[serde(with = "optional_descriptor")]
    pub(super) source: Option<OwnedFd>,
    /// Of a terminal whose output goes to a log: its master, and the writing end of the FIFO that is the source. The
    /// kernel can move bytes from a terminal into a pipe only.
    #[serde(default, with = "optional_descriptor")]
    pub(super) terminal: Option<OwnedFd>,
    #[serde(default, with = "optional_descriptor")]
    pub(super) feeder: Option<OwnedFd>,
    pub(super) sink: Sink,
    pub(super) lines: Lines,
    pending: Vec<u8>,
    /// The source's name; none where it has none.
    #[serde(default)]
    pub(super) name: PathBuf,
    /// Where the output goes to a log.
    #[serde(default)]
    pub(super) spool: Option<Spool>,
    /// The kernel moves the bytes from the source to the sink.
    #[serde(default)]
    pub(super) direct: bool,
    /// A program of the client reads the source, and this shim only sees its end.
    #[serde(default)]
    pub(super) is_logged: bool,
    /// The sink takes no more for now, though nothing is pending here.
    #[serde(default)]
    full: bool,
}

/// What to poll for, for the event loop.
pub(crate) enum Interest<'a> {
    /// Output to be read, or its end.
    Source(BorrowedFd<'a>),
    /// The end of output that somebody else reads.
    Hangup(BorrowedFd<'a>),
    /// A sink that takes no more for now, or an idle one whose reader may vanish.
    Sink(BorrowedFd<'a>, PollFlags),
}

impl Output {
    pub(super) fn unconnected(stream: Stream, sink: Sink) -> Output {
        Output {
            stream,
            source: None,
            terminal: None,
            feeder: None,
            sink,
            lines: Lines::default(),
            pending: Vec::new(),
            name: PathBuf::new(),
            spool: None,
            direct: false,
            is_logged: false,
            full: false,
        }
    }

    /// As the state of an earlier shim would have it, to be adopted.
    pub(super) fn unrecorded(stream: Stream, name: PathBuf) -> Output {
        let source = std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
        Output { name, source, direct: true, ..Output::unconnected(stream, Sink::Nowhere) }
    }

    /// Makes the FIFO that is the source, and returns the end for the other side.
    pub(super) fn make_fifo(&mut self, base: &Path, has_log: bool) -> Result<OwnedFd, Error> {
        self.name = survival::fifo(base, self.stream);
        let (read, write) = survival::make_fifo(&self.name)?;
        self.source = Some(read);
        if has_log {
            self.spool = Some(Spool::create(survival::spool(base, self.stream))?);
        }
        self.direct = !has_log;
        Ok(write)
    }

    /// The terminal's master: the source itself, or what fills it.
    pub(super) fn connect_terminal(
        &mut self,
        master: OwnedFd,
        base: &Path,
        has_log: bool,
    ) -> Result<(), Error> {
        if has_log && !base.as_os_str().is_empty() {
            let feeder = self.make_fifo(base, true)?;
            rustix::io::ioctl_fionbio(&feeder, true).map_err(|e| Error::step("connect the terminal", e))?;
            self.feeder = Some(feeder);
            self.terminal = Some(master);
        } else {
            self.source = Some(master);
            self.direct = !has_log;
        }
        Ok(())
    }

    pub(crate) fn interest(&self) -> impl Iterator<Item = Interest<'_>> {
        let waits = !self.pending.is_empty() || self.full;
        let is_read = !waits && !self.is_logged;
        let sources = [&self.source, &self.terminal].map(|source| source.as_ref().filter(|_| is_read));
        let hangup = self.source.as_ref().filter(|_| self.is_logged);
        let wanted = if waits { PollFlags::OUT } else { PollFlags::empty() };
        let sink = self.sink.fd().map(|fd| Interest::Sink(fd, wanted));
        let hangup = hangup.map(|fd| Interest::Hangup(fd.as_fd()));
        sources.into_iter().flatten().map(|fd| Interest::Source(fd.as_fd())).chain(hangup).chain(sink)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.source.is_none()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.source.is_none() && self.pending.is_empty()
    }

    pub(super) fn pump(&mut self, mut log: Option<&mut LogFile>) {
        if self.is_logged {
            if self.source.as_ref().is_some_and(is_hung_up) {
                self.end(None);
            }
            return;
        }
        self.sink.notice_reader_gone();
        if self.direct {
            return self.pump_direct();
        }
        if !self.pass_on() {
            return;
        }
        // A bounded number of rounds, so that one busy stream does not keep the loop from the others. Each round ends
        // with what it read passed on: bytes left pending without a sink to poll for would never be looked at again.
        for _ in 0..4 {
            self.feed();
            match self.read() {
                Read::Nothing => {
                    self.trim_spool(log, true);
                    return;
                }
                Read::Ended => return self.end(log),
                Read::Bytes { in_spool } => {
                    if let Some(log) = log.as_deref_mut() {
                        let (now, spool) = (SystemTime::now(), self.spool.as_ref());
                        let mark =
                            |rest| spool.map_or(Mark::default(), |s| s.mark(if in_spool { rest } else { 0 }));
                        self.lines.push(&self.pending, |text, rest| {
                            log.message(self.stream, text, now, mark(rest))
                        });
                        log.flush();
                    }
                    self.trim_spool(log.as_deref_mut(), false);
                }
            }
            // Where up to a thousand files are kept, a rotation is a thousand renames.
            if !self.pass_on() || log.as_deref_mut().is_some_and(LogFile::has_rotated) {
                return;
            }
        }
    }

    /// The client's program has ended: what comes is thrown away.
    pub(super) fn logger_ended(&mut self) {
        self.is_logged = false;
        self.sink.end();
    }

    /// From the source to the client's FIFO, or away where nobody reads. What is moved is never in this process, so that
    /// it is at one of the two whenever the process ends.
    fn pump_direct(&mut self) {
        for _ in 0..4 {
            let Some(source) = &self.source else { return };
            self.sink.find_reader();
            let Some(sink) = self.sink.fd() else {
                match self.read() {
                    Read::Nothing => return,
                    Read::Ended => return self.end(None),
                    Read::Bytes { .. } => self.pending.clear(),
                }
                continue;
            };
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match rustix::pipe::splice(source, None, sink, None, CHUNK, flags) {
                Ok(0) => return self.end(None),
                Ok(_) => self.full = false,
                Err(Errno::INTR) => {}
                // Nothing to be read, or no room for it.
                Err(Errno::AGAIN) => {
                    self.full = !has_room(sink);
                    return;
                }
                Err(Errno::PIPE) => self.sink.reader_is_gone(),
                // The kernel cannot do it with these two: a file that is appended to, say.
                Err(Errno::INVAL) => {
                    self.direct = false;
                    return self.pump(None);
                }
                Err(_) => return self.end(None),
            }
        }
    }

    /// From the terminal into the FIFO, as much as it holds.
    fn feed(&mut self) {
        let (Some(terminal), Some(feeder)) = (&self.terminal, &self.feeder) else { return };
        for _ in 0..16 {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match rustix::pipe::splice(terminal, None, feeder, None, CHUNK, flags) {
                Ok(1..) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // A terminal answers EIO once its last process has closed it. The FIFO ends with what it holds.
                Ok(0) | Err(_) => {
                    (self.terminal, self.feeder) = (None, None);
                    return;
                }
            }
        }
    }

    /// No output will come.
    pub(super) fn end(&mut self, log: Option<&mut LogFile>) {
        if let Some(log) = log {
            let mark = self.spool.as_ref().map_or(Mark::default(), |spool| spool.mark(0));
            self.lines.finish(|text| log.message(self.stream, text, SystemTime::now(), mark));
            log.flush();
        }
        (self.source, self.terminal, self.feeder) = (None, None, None);
        self.full = false;
        self.remove_files();
        self.sink.end();
    }

    pub(super) fn remove_files(&self) {
        // The spool first: where it is not, an adopting shim knows that the output had come to its end.
        if let Some(spool) = &self.spool {
            spool.remove();
        }
        if !self.name.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.name);
        }
    }

    /// What an earlier shim has left in the spool, into the log.
    pub(super) fn replay(&mut self, log: &mut LogFile, mark: Mark) {
        let Some(spool) = &self.spool else { return };
        let mut offset = mark.offset;
        if offset > spool.mark(0).offset {
            // The file has been emptied, and the position not told of it: it is now, for what comes would not be taken
            // for new by yet another shim once it is longer than what was there.
            offset = 0;
            log.move_mark(self.stream, spool.mark(spool.len_from(0)));
        }
        let mut bytes = Vec::new();
        if let Err(error) = spool.read_last(spool.len_from(offset), &mut bytes) {
            crate::complain!("read a spool: {}", std::io::Error::from(error));
        }
        let now = SystemTime::now();
        self.lines.push(&bytes, |text, rest| log.message(self.stream, text, now, spool.mark(rest)));
        log.flush();
    }

    fn trim_spool(&mut self, log: Option<&mut LogFile>, idle: bool) {
        if let (Some(spool), Some(log)) = (&mut self.spool, log) {
            spool.trim(self.lines.unfinished(), idle, |mark| log.move_mark(self.stream, mark));
        }
    }

    /// True once nothing is pending.
    fn pass_on(&mut self) -> bool {
        if !self.pending.is_empty() {
            self.sink.write(&mut self.pending);
        }
        self.pending.is_empty()
    }

    fn read(&mut self) -> Read {
        let Some(source) = &self.source else { return Read::Nothing };
        if let Some(spool) = &mut self.spool {
            match spool.fill(source, CHUNK) {
                Ok(0) => return Read::Ended,
                Ok(count) => {
                    if let Err(error) = spool.read_last(count, &mut self.pending) {
                        crate::complain!("read a spool: {}", std::io::Error::from(error));
                    }
                    return Read::Bytes { in_spool: true };
                }
                Err(Errno::AGAIN) => return Read::Nothing,
                // The disk is full, say. A container that writes on is worth more than what a kill would lose.
                Err(_) => {}
            }
        }
        self.pending.resize(CHUNK, 0);
        let result = rustix::io::read(source, &mut self.pending);
        self.pending.truncate(*result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Read::Ended,
            Ok(_) => Read::Bytes { in_spool: false },
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // A terminal answers EIO once its last process has closed it.
            Err(_) => Read::Ended,
        }
    }
}

/// Nobody has it open for writing any more.
fn is_hung_up(fifo: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(fifo, PollFlags::empty())];
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&zero)).is_ok() && poll[0].revents().contains(PollFlags::HUP)
}

fn has_room(pipe: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(pipe, PollFlags::OUT)];
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&zero)).is_ok() && poll[0].revents().contains(PollFlags::OUT)
}

enum Read {
    Bytes { in_spool: bool },
    Nothing,
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Io, Readers};

    /// A stream without a reader that always has more than one pump takes: it must leave something to wake for.
    #[test]
    fn a_busy_stream_without_a_reader_is_read_to_its_end() {
        // A file as source never says EAGAIN, so every round of a pump finds its fill.
        let file = tempfile::tempfile().unwrap();
        file.set_len(40 * CHUNK as u64).unwrap();
        let sink = Sink::open("/nonexistent/fifo", Readers::Optional).unwrap();
        let output = Output { source: Some(file.into()), ..Output::unconnected(Stream::Stdout, sink) };
        let mut io = Io { outputs: vec![output], ..Io::default() };
        let mut pumps = 0;
        while !io.is_drained() {
            assert!(io.outputs[0].interest().next().is_some(), "nothing to wake for after {pumps} pumps");
            io.pump(0);
            pumps += 1;
        }
        assert!(pumps > 5, "one pump is bounded");
    }
}
