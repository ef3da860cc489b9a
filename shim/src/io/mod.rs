//! A process's stdio: what the container side holds, and where its bytes go and come from.
//!
//! Output is read only while everything read before has been passed on, so a slow reader slows the container and costs
//! no memory. A reader that is not there (our own clients' FIFOs) is skipped; foreign clients' FIFOs are kept open from
//! both sides as containerd's own shims do, so that a client may leave and come back.
//!
//! Output survives the shim: the container holds a named FIFO of the bundle, for reading too, so that a write neither
//! fails nor is lost while no shim is there. From it the kernel moves bytes on without this process holding any: to the
//! client's FIFO, or, where there is a log, to a [`Spool`]. A terminal's master is the exception, see
//! [`Output::terminal`].

pub(crate) mod console;
mod fifo;
mod output;
mod spool;
mod stdin;
mod survival;

pub(crate) use output::{Interest, Output};
pub(crate) use stdin::Stdin;

use crate::error::Error;
use crate::log::{JsonFile, Stream};
use crate::runtime::Streams;
use console::Console;
use fifo::Sink;
use rustix::fd::OwnedFd;
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Stdio;

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
    /// How the names of our own files begin, in the current directory, the bundle. Empty in the state of a shim that had
    /// none.
    #[serde(default)]
    base: PathBuf,
}

impl Io {
    /// Opens everything, and returns what the runtime command is to be given. With a terminal the streams come later,
    /// through the console socket, so the runtime is given none.
    pub(crate) fn open(
        uris: &Uris,
        readers: Readers,
        log: Option<JsonFile>,
        base: PathBuf,
    ) -> Result<(Io, Streams), Error> {
        let mut io = Io { log, uris: uris.clone(), base, ..Io::default() };
        let streams = io.open_streams(readers);
        if streams.is_err() {
            // Nothing has been written: the client's FIFOs are not at their end, as they would be for `close`.
            io.remove_files();
        }
        streams.map(|streams| (io, streams))
    }

    /// Opens everything for a command that `spawn` starts, and answers that command's pid.
    pub(crate) fn open_for(
        uris: &Uris,
        readers: Readers,
        log: Option<JsonFile>,
        base: PathBuf,
        spawn: impl FnOnce(&Io, Streams) -> Result<u32, Error>,
    ) -> Result<(Io, u32), Error> {
        let (mut io, streams) = Io::open(uris, readers, log, base)?;
        let spawned = spawn(&io, streams).inspect_err(|_| io.close());
        spawned.map(|pid| (io, pid))
    }

    fn open_streams(&mut self, readers: Readers) -> Result<Streams, Error> {
        let uris = self.uris.clone();
        if let Some(log) = &mut self.log {
            let path = survival::position(&self.base);
            log.keep_position(path).map_err(|e| Error::step("make the log's position", e))?;
        }
        if uris.terminal {
            self.console = Some(Console::listen()?);
            let sink = Sink::open(&uris.stdout, readers)?;
            self.outputs.push(Output::unconnected(Stream::Stdout, sink));
            self.stdin = Stdin::open(&uris.stdin)?;
            return Ok(Streams::null());
        }
        let mut streams = Streams::null();
        if let Some(mut stdin) = Stdin::open(&uris.stdin)? {
            let (read, write) =
                rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::step("make a pipe", e))?;
            stdin.connect(write)?;
            self.stdin = Some(stdin);
            streams.stdin = Stdio::from(read);
        }
        for (stream, uri) in [(Stream::Stdout, &uris.stdout), (Stream::Stderr, &uris.stderr)] {
            if uri.is_empty() && self.log.is_none() {
                continue;
            }
            let mut output = Output::unconnected(stream, Sink::open(uri, readers)?);
            let write = output.make_fifo(&self.base, self.log.is_some())?;
            self.outputs.push(output);
            match stream {
                Stream::Stdout => streams.stdout = Stdio::from(write),
                Stream::Stderr => streams.stderr = Stdio::from(write),
            }
        }
        Ok(streams)
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

    /// True once all output has been read and passed on.
    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(Output::is_drained)
    }

    /// Moves what can be moved of output `index`. Called when its container end or its sink became ready. True when the
    /// output has come to its end.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let Some(output) = self.outputs.get_mut(index) else { return false };
        output.pump(self.log.as_mut());
        output.has_ended()
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
