//! A process's stdio: what the container side holds, and where its bytes go and come from.
//!
//! Output is read only while everything read before has been passed on, so a slow reader slows the container and costs
//! no memory. A reader that is not there (our own clients' FIFOs) is skipped; foreign clients' FIFOs are kept open from
//! both sides as containerd's own shims do, so that a client may leave and come back.

pub(crate) mod console;
mod fifo;
mod stdin;

pub(crate) use stdin::Stdin;

use crate::error::Error;
use crate::handover::optional_descriptor;
use crate::log::{JsonFile, Lines, Stream};
use crate::runtime::Streams;
use console::Console;
use fifo::Sink;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use std::time::SystemTime;

/// Bytes read from a container at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Where a client wants a process's streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Uris {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// How output FIFOs are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// containerd's contract: the client opens the FIFO sooner or later; output waits for it.
    Expected,
    /// Ours: a reader comes and goes; without one, output goes to the log alone.
    Optional,
}

/// All stdio of one process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Io {
    pub(crate) stdin: Option<Stdin>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) console: Option<Console>,
    log: Option<JsonFile>,
    uris: Uris,
}

/// One stream on its way out of the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    stream: Stream,
    /// The container's end; none once it has ended.
    #[serde(with = "optional_descriptor")]
    source: Option<OwnedFd>,
    sink: Sink,
    lines: Lines,
    pending: Vec<u8>,
}

impl Io {
    /// Opens everything, and returns what the runtime command is to be given. With a terminal the streams come later,
    /// through the console socket, so the runtime is given none.
    pub(crate) fn open(uris: &Uris, readers: Readers, log: Option<JsonFile>) -> Result<(Io, Streams), Error> {
        let mut io = Io { log, uris: uris.clone(), ..Io::default() };
        if uris.terminal {
            io.console = Some(Console::listen()?);
            io.outputs.push(Output::new(Stream::Stdout, None, Sink::open(&uris.stdout, readers)?));
            io.stdin = Stdin::open(&uris.stdin)?;
            return Ok((io, Streams::null()));
        }
        let mut streams = Streams::null();
        if let Some(mut stdin) = Stdin::open(&uris.stdin)? {
            let (read, write) = pipe()?;
            stdin.connect(write)?;
            io.stdin = Some(stdin);
            streams.stdin = Stdio::from(read);
        }
        for (stream, uri) in [(Stream::Stdout, &uris.stdout), (Stream::Stderr, &uris.stderr)] {
            if uri.is_empty() && io.log.is_none() {
                continue;
            }
            let (read, write) = pipe()?;
            rustix::io::ioctl_fionbio(&read, true).map_err(|e| Error::step("make a pipe non-blocking", e))?;
            io.outputs.push(Output::new(stream, Some(read), Sink::open(uri, readers)?));
            match stream {
                Stream::Stdout => streams.stdout = Stdio::from(write),
                Stream::Stderr => streams.stderr = Stdio::from(write),
            }
        }
        Ok((io, streams))
    }

    /// Keeps the names of streams that are opened later.
    pub(crate) fn remember(&mut self, uris: Uris) {
        self.uris = uris;
    }

    pub(crate) fn uris(&self) -> &Uris {
        &self.uris
    }

    /// The terminal's master has arrived: output and input are connected to it.
    pub(crate) fn connect_terminal(&mut self, master: OwnedFd) -> Result<(), Error> {
        let step = |e| Error::step("connect the terminal", e);
        rustix::io::ioctl_fionbio(&master, true).map_err(step)?;
        let duplicate = || rustix::io::fcntl_dupfd_cloexec(&master, 3).map_err(step);
        if let Some(output) = self.outputs.first_mut() {
            output.source = Some(duplicate()?);
        }
        if let Some(stdin) = &mut self.stdin {
            stdin.connect(duplicate()?)?;
        }
        if let Some(console) = &mut self.console {
            console.set_master(master);
        }
        Ok(())
    }

    /// True once all output has been read and passed on.
    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.source.is_none() && output.pending.is_empty())
    }

    /// Moves what can be moved of output `index`. Called when its container end or its sink became ready.
    pub(crate) fn pump(&mut self, index: usize) {
        let Some(output) = self.outputs.get_mut(index) else { return };
        output.pump(self.log.as_mut());
    }

    /// The process has ended: there is nobody left to read input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Gives up on output that nobody takes, and closes everything.
    pub(crate) fn close(&mut self) {
        for output in &mut self.outputs {
            if let Some(log) = &mut self.log {
                output.lines.finish(|text| log.message(output.stream, text, SystemTime::now()));
                log.flush();
            }
        }
        *self = Io { uris: std::mem::take(&mut self.uris), ..Io::default() };
    }
}

/// What to poll for, for the event loop.
pub(crate) enum Interest<'a> {
    /// Output to be read, or its end.
    Source(BorrowedFd<'a>),
    /// A sink that takes no more for now, or an idle one whose reader may vanish.
    Sink(BorrowedFd<'a>, PollFlags),
}

impl Output {
    fn new(stream: Stream, source: Option<OwnedFd>, sink: Sink) -> Output {
        Output { stream, source, sink, lines: Lines::default(), pending: Vec::new() }
    }

    pub(crate) fn interest(&self) -> impl Iterator<Item = Interest<'_>> {
        let source = match &self.source {
            Some(fd) if self.pending.is_empty() => Some(Interest::Source(fd.as_fd())),
            _ => None,
        };
        let wanted = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let sink = self.sink.fd().map(|fd| Interest::Sink(fd, wanted));
        source.into_iter().chain(sink)
    }

    fn pump(&mut self, mut log: Option<&mut JsonFile>) {
        self.sink.notice_reader_gone();
        if !self.pass_on() {
            return;
        }
        // A bounded number of rounds, so that one busy stream does not keep the loop from the others. Each round ends
        // with what it read passed on: bytes left pending without a sink to poll for would never be looked at again.
        for _ in 0..4 {
            match self.read() {
                Read::Nothing => return,
                Read::Ended => {
                    if let Some(log) = log {
                        self.lines.finish(|text| log.message(self.stream, text, SystemTime::now()));
                        log.flush();
                    }
                    self.source = None;
                    self.sink.end();
                    return;
                }
                Read::Bytes => {
                    if let Some(log) = log.as_deref_mut() {
                        let now = SystemTime::now();
                        self.lines.push(&self.pending, |text| log.message(self.stream, text, now));
                        log.flush();
                    }
                }
            }
            if !self.pass_on() {
                return;
            }
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
        self.pending.resize(CHUNK, 0);
        let result = rustix::io::read(source, &mut self.pending);
        self.pending.truncate(*result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Read::Ended,
            Ok(_) => Read::Bytes,
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            // A terminal answers EIO once its last process has closed it.
            Err(_) => Read::Ended,
        }
    }
}

enum Read {
    Bytes,
    Nothing,
    Ended,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::step("make a pipe", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream without a reader that always has more than one pump takes: it must leave something to wake for.
    #[test]
    fn a_busy_stream_without_a_reader_is_read_to_its_end() {
        let uris = Uris { stdout: "/nonexistent/fifo".to_owned(), ..Uris::default() };
        // A file as source never says EAGAIN, so every round of a pump finds its fill.
        let file = tempfile::tempfile().unwrap();
        file.set_len(40 * CHUNK as u64).unwrap();
        let sink = Sink::open(&uris.stdout, Readers::Optional).unwrap();
        let mut io =
            Io { outputs: vec![Output::new(Stream::Stdout, Some(file.into()), sink)], ..Io::default() };
        let mut pumps = 0;
        while !io.is_drained() {
            assert!(io.outputs[0].interest().next().is_some(), "nothing to wake for after {pumps} pumps");
            io.pump(0);
            pumps += 1;
        }
        assert!(pumps > 5, "one pump is bounded");
    }
}
