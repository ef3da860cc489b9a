//! What of a process's stdio outlives the shim, and how the next shim takes it up.
//!
//! Beside the bundle's other files, with a number in the name that nobody in the container can know:
//! ```text
//! BASE.stdout BASE.stderr    FIFOs that the container writes
//! BASE.stdout.spool.N        output that has left the FIFO (io::spool)
//! BASE.position              how far it is in the log (log::position)
//! BASE.queue                 what a log that holds up nobody is written from (log::queue)
//! ```
//! What has no name is kept by the daemon, which duplicates the descriptors of [`Io::keepable`].

use super::fifo::{Sink, open_fifo};
use super::logger::Logger;
use super::spool::Spool;
use super::{Io, Output, Readers, Stdin};
use crate::error::Error;
use crate::log::{LogFile, Mark, Stream};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

fn named(base: &Path, suffix: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn fifo(base: &Path, stream: Stream) -> PathBuf {
    named(base, &format!(".{}", stream.name()))
}

pub(super) fn spool(base: &Path, stream: Stream) -> PathBuf {
    named(base, &format!(".{}.spool", stream.name()))
}

pub(super) fn position(base: &Path) -> PathBuf {
    named(base, ".position")
}

/// A FIFO's reading end, non-blocking, and the end for the container: for reading too, so that its writes find a reader
/// while no shim is there.
pub(super) fn make_fifo(name: &Path) -> Result<(OwnedFd, OwnedFd), Error> {
    let step = |e| Error::step("make a FIFO", std::io::Error::from(e));
    make_name(name)?;
    let read = open_fifo(name, OFlags::RDONLY)?;
    // By the descriptor: O_NOFOLLOW would stay in its flags, and criu opens a restored one through a link.
    let opened = format!("/proc/self/fd/{}", read.as_raw_fd());
    let write = rustix::fs::open(opened, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(step)?;
    Ok((read, write))
}

fn make_name(name: &Path) -> Result<(), Error> {
    match rustix::fs::mkfifoat(CWD, name, Mode::from_raw_mode(0o600)) {
        // An exec's is made when the exec becomes known; and a shim may have been killed before it had written that.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::step("make a FIFO", std::io::Error::from(error))),
    }
}

impl Io {
    /// What a daemon is to keep: without another descriptor of it, it ends with the shim.
    pub(crate) fn keepable(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        // A source without a name is a terminal's master, which is named once.
        let sources = self.outputs.iter().filter(|output| !output.name.as_os_str().is_empty());
        let sources =
            sources.filter_map(|output| Some((output.stream.name(), output.source.as_ref()?.as_fd())));
        let master = self.console.iter().filter_map(|console| console.master()).map(|fd| ("master", fd));
        let stdin = self.stdin.iter().flat_map(Stdin::keepable);
        sources.chain(master).chain(stdin).map(|(name, fd)| (name.to_owned(), fd))
    }

    /// For a process that has been started: its streams, where the state was written before they were opened. Only the
    /// first process of a container has a log.
    pub(crate) fn assume_open(&mut self, base: PathBuf, log: Option<LogFile>) {
        if !self.base.as_os_str().is_empty() {
            return;
        }
        (self.base, self.log) = (base, log);
        let is_logged = self.program().is_some();
        for stream in self.streams().into_iter().filter(|_| !self.uris.terminal).collect::<Vec<_>>() {
            let name = fifo(&self.base, stream);
            if name.exists() {
                let mut output = Output::unrecorded(stream, name);
                // Of its logger nothing more is known than that it reads.
                output.is_logged = is_logged;
                self.outputs.push(output);
            }
        }
    }

    /// The FIFOs of an exec that will be started: the daemon holds them from here on, so that nothing is lost where the
    /// exec has ended before the daemon has heard of its start.
    pub(crate) fn make_named(&self, base: &Path) -> Result<(), Error> {
        self.streams()
            .into_iter()
            .filter(|_| !self.uris.terminal)
            .try_for_each(|stream| make_name(&fifo(base, stream)))
    }

    /// Of an exec that is not started.
    pub(crate) fn remove_named(&self, base: &Path) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let _ = std::fs::remove_file(fifo(base, stream));
        }
    }

    /// For a process that has not been started after all: its streams are named, and not more.
    pub(crate) fn forget_open(&mut self) {
        *self = Io { uris: std::mem::take(&mut self.uris), ..Io::default() };
    }

    /// Takes up what an earlier shim has left. `self` is its state, in which no descriptor is what it was; `kept` gives
    /// what the daemon has kept.
    pub(crate) fn adopt(mut self, readers: Readers, mut kept: impl FnMut(&str) -> Option<OwnedFd>) -> Io {
        let complain = |what: &str, error: &dyn std::fmt::Display| crate::complain!("adopt {what}: {error}");
        let mut io = Io { uris: self.uris.clone(), base: self.base.clone(), ..Io::default() };
        let mut marks = [Mark::default(); 2];
        if let Some(log) = self.log.take() {
            match log.adopt(position(&self.base)) {
                Ok((log, found)) => (io.log, marks) = (Some(log), found),
                Err(error) => complain("the log", &error),
            }
        }
        let master = self.console.as_ref().and_then(|_| kept("master"));
        let had_logger = self.logger.as_ref().is_some_and(Logger::lives);
        let logger = self.logger.take().map(Logger::adopt);
        let is_logged = logger.as_ref().is_none_or(Logger::lives);
        let program = io.program();
        if let Some(console) = self.console.take() {
            io.console = Some(console.adopt());
        }
        for left in std::mem::take(&mut self.outputs) {
            let opened = match (&program, &logger, &master) {
                (None, ..) => Sink::open(io.uris.of(left.stream), readers),
                // The one before is at its end of file, with the shim that wrote to it. The process runs already, and
                // does not wait for the program to be ready.
                (Some(program), Some(before), Some(_)) if left.source.is_some() && had_logger => {
                    let started = io.start_terminal_logger(program, before.owner().clone());
                    started.map(|(sink, ready)| {
                        if let Some(logger) = &mut io.logger {
                            logger.hold(ready);
                        }
                        sink
                    })
                }
                _ => Ok(Sink::Nowhere),
            };
            let sink = opened.unwrap_or_else(|error| {
                complain("an output", &error);
                Sink::Nowhere
            });
            let mark = marks[left.stream.index()];
            let source = kept(left.stream.name());
            match left.adopt(sink, source, mark, &self.base, master.as_ref()) {
                Ok(mut output) => {
                    output.is_logged &= is_logged;
                    io.outputs.push(output);
                }
                Err(error) => complain("an output", &error),
            }
        }
        io.logger = io.logger.or(logger);
        // The stream of the write that a kill came after goes first: then the position says all.
        if let Some(log) = &mut io.log {
            let mut order: Vec<&mut Output> = io.outputs.iter_mut().collect();
            order.sort_by_key(|output| std::cmp::Reverse(log.ahead(output.stream)));
            for output in order {
                output.replay(log, marks[output.stream.index()]);
            }
            log.settle();
        }
        io.finish_log();
        if let Some(stdin) = self.stdin.take()
            && let Ok(Some(mut adopted)) = Stdin::open(&io.uris.stdin)
        {
            if stdin.is_closing() {
                adopted.close_input();
            }
            let target = kept("stdin").or_else(|| master.as_ref()?.try_clone().ok());
            match target.map(|target| adopted.connect(target)) {
                Some(Ok(())) => io.stdin = Some(adopted),
                Some(Err(error)) => complain("stdin", &error),
                None => {}
            }
        }
        if let (Some(console), Some(master)) = (&mut io.console, master) {
            console.set_master(master);
        }
        io
    }
}

impl Output {
    fn adopt(
        self,
        sink: Sink,
        kept: Option<OwnedFd>,
        mark: Mark,
        base: &Path,
        master: Option<&OwnedFd>,
    ) -> Result<Output, Error> {
        let mut output = Output::unconnected(self.stream, sink);
        let step = |e| Error::step("adopt an output", e);
        let master = || master.map(OwnedFd::try_clone).transpose().map_err(step);
        if self.source.is_none() {
            output.end(None);
            return Ok(output);
        }
        (output.direct, output.is_logged) = (self.direct, self.is_logged);
        if self.name.as_os_str().is_empty() {
            output.source = master()?;
            return Ok(output);
        }
        output.name = self.name;
        let name = &output.name;
        output.source = kept.or_else(|| open_fifo(name, OFlags::RDONLY).ok());
        // A reader that came after the last writer had left is never told of a hangup, unless a writer comes once more.
        drop(open_fifo(name, OFlags::WRONLY));
        if self.spool.is_some() {
            // Where it is not any more, the earlier shim had come to the end.
            output.spool = Spool::reopen(spool(base, output.stream), mark).ok();
        }
        if output.source.is_none() || (self.spool.is_some() && output.spool.is_none()) {
            output.end(None);
            return Ok(output);
        }
        if self.terminal.is_some()
            && let Some(master) = master()?
        {
            output.feeder = Some(open_fifo(&output.name, OFlags::WRONLY)?);
            output.terminal = Some(master);
        }
        Ok(output)
    }
}
