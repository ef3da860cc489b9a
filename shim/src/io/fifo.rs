//! Where output goes: nowhere, a FIFO, a file.

use super::Readers;
use crate::error::Error;
use crate::handover::{descriptor, optional_descriptor};
use proto::kind::ErrorKind;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Sink {
    Nowhere,
    /// A file, or a foreign client's FIFO held open from both sides.
    Open(#[serde(with = "descriptor")] OwnedFd),
    /// Our own client's FIFO: open while it has a reader.
    Optional {
        path: PathBuf,
        #[serde(with = "optional_descriptor")]
        writer: Option<OwnedFd>,
    },
}

impl Sink {
    /// `PATH`, `fifo://PATH`, `file://PATH` or empty. (`binary://PATH` is no sink: [`super::logger`].)
    pub(crate) fn open(uri: &str, readers: Readers) -> Result<Sink, Error> {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("fifo", uri));
        let path = rest.split('?').next().unwrap_or_default();
        let decoded = super::logger::decode(path, false);
        // A plain path is no URI.
        let path = if uri.contains("://") { Path::new(&decoded) } else { Path::new(uri) };
        if uri.is_empty() {
            return Ok(Sink::Nowhere);
        }
        if !path.is_absolute() {
            return Err(Error::invalid(format!("stdio {uri:?} is not an absolute path: invalid argument")));
        }
        match (scheme, readers) {
            ("fifo", Readers::Optional) => {
                let mut sink = Sink::Optional { path: path.to_owned(), writer: None };
                sink.find_reader();
                Ok(sink)
            }
            ("fifo", Readers::Expected) => open_fifo(path, OFlags::RDWR).map(Sink::Open),
            ("file", _) => {
                let step = |e| Error::step(format!("open output file {}", path.display()), e);
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).map_err(step)?;
                }
                let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
                let file =
                    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map_err(|e| step(e.into()))?;
                Ok(Sink::Open(file))
            }
            _ => {
                let text = format!(
                    "stdio scheme {scheme:?} is not built here: use a FIFO or file://: not implemented"
                );
                Err(Error::new(ErrorKind::Unimplemented, text))
            }
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Optional { writer: Some(fd), .. } | Sink::Open(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// Opens an optional FIFO if somebody reads it; ENXIO says that nobody does.
    pub(super) fn find_reader(&mut self) {
        if let Sink::Optional { path, writer: writer @ None } = self {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            *writer = rustix::fs::open(&*path, flags, Mode::empty()).ok();
        }
    }

    /// An idle writer learns by POLLERR that its reader went away.
    pub(crate) fn notice_reader_gone(&mut self) {
        if let Sink::Optional { writer: writer @ Some(_), .. } = self {
            let fd = writer.as_ref().expect("matched above");
            let mut poll = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::empty())];
            let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut poll, Some(&zero)).is_ok()
                && poll[0].revents().contains(rustix::event::PollFlags::ERR)
            {
                *writer = None;
            }
        }
    }

    pub(super) fn reader_is_gone(&mut self) {
        if let Sink::Optional { writer, .. } = self {
            *writer = None;
        } else {
            *self = Sink::Nowhere;
        }
    }

    /// Writes what can be written of `pending` and removes it; what has nowhere to go is removed too.
    pub(crate) fn write(&mut self, pending: &mut Vec<u8>) {
        self.find_reader();
        while !pending.is_empty() {
            let Some(fd) = self.fd() else {
                pending.clear();
                return;
            };
            match rustix::io::write(fd, pending) {
                Ok(written) => drop(pending.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // The reader is gone, or the file's disk is full: these bytes are nobody's any more.
                    if let Sink::Optional { writer, .. } = self {
                        *writer = None;
                    }
                    pending.clear();
                }
            }
        }
    }

    /// No output will come: a reader that waits gets its end of file, also one that no byte ever reached. Our own client
    /// knows it from that of a shim that was killed by the FIFO's name, which goes first.
    pub(crate) fn end(&mut self) {
        self.find_reader();
        if let Sink::Optional { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
        *self = Sink::Nowhere;
    }
}

/// Opens a client's FIFO without waiting for the other side.
pub(crate) fn open_fifo(path: &Path, access: OFlags) -> Result<OwnedFd, Error> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::step(format!("open FIFO {}", path.display()), std::io::Error::from(e)))
}
