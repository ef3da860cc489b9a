//! A process's stdio: what the container side holds, and where its bytes go and come from.
//!
//! Output is read only while everything read before has been passed on, so a slow reader slows the container and costs
//! no memory. A reader that is not there (our own clients' FIFOs) is skipped; foreign clients' FIFOs are kept open from
//! both sides as containerd's own shims do, so that a client may leave and come back.
//!
//! Output survives the shim: the container holds a named FIFO of the bundle, for reading too, so that a write neither
//! fails nor is lost while no shim is there. From it the kernel moves bytes on without this process holding any: to the
//! client's FIFO, or, where there is a log, to a [`Spool`]. A terminal's master is the exception, see
//! [`Output::terminal`]. A client's own program may read the FIFO instead: [`logger`].

pub(crate) mod console;
mod fifo;
pub(crate) mod logger;
mod output;
mod spool;
mod stdin;
mod survival;

pub(crate) use output::{Interest, Output};
pub(crate) use stdin::Stdin;

use crate::error::Error;
use crate::log::{LogFile, Stream};
use crate::runtime::Streams;
use console::Console;
use fifo::Sink;
use logger::{Logger, Owner, Program, Ready};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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

impl Uris {
    fn of(&self, stream: Stream) -> &str {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

/// What a process's stdio is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) uris: &'a Uris,
    pub(crate) readers: Readers,
    pub(crate) log: Option<LogFile>,
    /// How the names of our own files begin.
    pub(crate) base: PathBuf,
    pub(crate) owner: Owner,
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
    log: Option<LogFile>,
    /// The client's program that takes the output.
    #[serde(default)]
    pub(crate) logger: Option<Logger>,
    uris: Uris,
    /// How the names of our own files begin, in the current directory, the bundle. Empty in the state of a shim that had
    /// none.
    #[serde(default)]
    base: PathBuf,
}

impl Io {
    /// Opens everything, and returns what the runtime command is to be given. With a terminal the streams come later,
    /// through the console socket, so the runtime is given none.
    pub(crate) fn open(opening: Opening<'_>) -> Result<(Io, Streams), Error> {
        let Opening { uris, readers, log, base, owner } = opening;
        let mut io = Io { log, uris: uris.clone(), base, ..Io::default() };
        let streams = io.open_streams(readers, owner);
        if streams.is_err() {
            // Nothing has been written: the client's FIFOs are not at their end, as they would be for `close`.
            io.remove_files();
        }
        streams.map(|streams| (io, streams))
    }

    /// Opens everything for a command that `spawn` starts, and answers that command's pid.
    pub(crate) fn open_for(
        opening: Opening<'_>,
        spawn: impl FnOnce(&Io, Streams) -> Result<u32, Error>,
    ) -> Result<(Io, u32), Error> {
        let (mut io, streams) = Io::open(opening)?;
        let spawned = spawn(&io, streams).inspect_err(|_| io.close());
        spawned.map(|pid| (io, pid))
    }

    fn open_streams(&mut self, readers: Readers, owner: Owner) -> Result<Streams, Error> {
        let uris = self.uris.clone();
        if let Some(log) = &mut self.log {
            let path = survival::position(&self.base);
            log.keep_position(path).map_err(|e| Error::step("make the log's position", e))?;
        }
        let mut streams = Streams::default();
        let program = self.program();
        if uris.terminal {
            self.console = Some(Console::listen()?);
            let sink = match program {
                Some(program) => {
                    let (sink, ready) = self.start_terminal_logger(&program, owner)?;
                    streams.ready = Some(ready);
                    sink
                }
                None => Sink::open(&uris.stdout, readers)?,
            };
            self.outputs.push(Output::unconnected(Stream::Stdout, sink));
            self.stdin = Stdin::open(&uris.stdin)?;
            return Ok(streams);
        }
        if let Some(mut stdin) = Stdin::open(&uris.stdin)? {
            let (read, write) =
                rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::step("make a pipe", e))?;
            stdin.connect(write)?;
            self.stdin = Some(stdin);
            streams.stdin = Some(read);
        }
        let mut logged = Vec::new();
        for stream in self.streams() {
            let sink = match program {
                Some(_) => Sink::Nowhere,
                None => Sink::open(self.uris.of(stream), readers)?,
            };
            let mut output = Output::unconnected(stream, sink);
            let write = output.make_fifo(&self.base, self.log.is_some())?;
            output.is_logged = program.is_some();
            self.outputs.push(output);
            if program.is_some() {
                logged.push(logger::reading_end(&write)?);
            }
            match stream {
                Stream::Stdout => streams.stdout = Some(write),
                Stream::Stderr => streams.stderr = Some(write),
            }
        }
        if let (Some(program), Ok(outputs)) = (program, <[OwnedFd; 2]>::try_from(logged)) {
            let (logger, ready) = program.start(owner, outputs)?;
            (self.logger, streams.ready) = (Some(logger), Some(ready));
        }
        Ok(streams)
    }

    /// The client's program that is to take the output. As containerd has it, standard output's URI says it for both.
    fn program(&self) -> Option<Program> {
        Program::parse(&self.uris.stdout).filter(|_| self.log.is_none())
    }

    /// The output streams that the process has of its own.
    fn streams(&self) -> Vec<Stream> {
        let all = self.log.is_some() || self.program().is_some();
        let mut streams = vec![Stream::Stdout, Stream::Stderr];
        streams.retain(|stream| all || !self.uris.of(*stream).is_empty());
        streams
    }

    /// A program that takes a terminal's output from a new FIFO, which is what its bytes are moved to.
    fn start_terminal_logger(&mut self, program: &Program, owner: Owner) -> Result<(Sink, Ready), Error> {
        let path = survival::fifo(&self.base, Stream::Stdout);
        // A reader of the one before must not have what is meant for this one.
        let _ = std::fs::remove_file(&path);
        let (fifo, _writer) = survival::make_fifo(&path)?;
        let mut sink = Sink::Optional { path, writer: None };
        sink.find_reader();
        let (at_its_end, _) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::step("make a pipe", e))?;
        let started = logger::reading_end(&fifo).and_then(|read| program.start(owner, [read, at_its_end]));
        let (logger, ready) = started.inspect_err(|_| sink.end())?;
        self.logger = Some(logger);
        Ok((sink, ready))
    }

    /// The client's program has ended. It does not bring the process down, nor to a halt.
    pub(crate) fn logger_ended(&mut self) {
        self.logger.iter_mut().for_each(Logger::has_ended);
        self.outputs.iter_mut().for_each(Output::logger_ended);
    }

    /// Once the client's program has all output, it should end.
    pub(crate) fn hurry_logger(&mut self) {
        if self.outputs.iter().all(Output::is_drained)
            && let Some(logger) = &mut self.logger
        {
            logger.hurry();
        }
    }

    pub(crate) fn logger_deadline(&self) -> Option<std::time::Instant> {
        self.logger.as_ref().and_then(Logger::deadline)
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
            output.connect_terminal(duplicate()?, &self.base, self.log.is_some())?;
        }
        if let Some(stdin) = &mut self.stdin {
            stdin.connect(duplicate()?)?;
        }
        if let Some(console) = &mut self.console {
            console.set_master(master);
        }
        Ok(())
    }

    /// True once all output has been read and passed on, and who took it has ended.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.outputs.iter().all(Output::is_drained)
            && !self.logger.as_ref().is_some_and(Logger::lives)
            && self.log.as_mut().is_none_or(LogFile::is_written)
    }

    pub(crate) fn log_wakes(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().and_then(LogFile::wakes)
    }

    pub(crate) fn log_deadline(&self) -> Option<std::time::Instant> {
        self.log.as_ref().and_then(LogFile::deadline)
    }

    pub(crate) fn log_woken(&mut self) {
        self.log.iter_mut().for_each(LogFile::woken);
    }

    /// After the end of an output.
    fn finish_log(&mut self) {
        if !self.outputs.is_empty() && self.outputs.iter().all(Output::has_ended) {
            self.log.iter_mut().for_each(LogFile::finish);
        }
    }

    /// Moves what can be moved of output `index`. Called when its container end or its sink became ready. True when the
    /// output has come to its end.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let Some(output) = self.outputs.get_mut(index) else { return false };
        output.pump(self.log.as_mut());
        let has_ended = output.has_ended();
        if has_ended {
            self.finish_log();
        }
        has_ended
    }

    /// The process has ended: there is nobody left to read input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Gives up on output that nobody takes, and closes everything.
    pub(crate) fn close(&mut self) {
        for output in &mut self.outputs {
            output.end(self.log.as_mut());
        }
        self.finish_log();
        self.logger.iter_mut().for_each(Logger::end);
        self.remove_files();
        *self = Io { uris: std::mem::take(&mut self.uris), ..Io::default() };
    }

    fn remove_files(&mut self) {
        for output in &self.outputs {
            output.remove_files();
        }
        if let Some(log) = self.log.take() {
            log.close();
        }
    }
}
