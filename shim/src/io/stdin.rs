//! Input: from a client's FIFO to the process's pipe or terminal.

use super::fifo::open_fifo;
use crate::error::Error;
use crate::handover::{descriptor, optional_descriptor};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::Path;

const CHUNK: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stdin {
    #[serde(with = "descriptor")]
    fifo: OwnedFd,
    /// Our own write end: while it is there, a client that closes the FIFO is not the end of the input.
    #[serde(with = "optional_descriptor")]
    keep_open: Option<OwnedFd>,
    #[serde(with = "optional_descriptor")]
    target: Option<OwnedFd>,
    pending: Vec<u8>,
    ended: bool,
}

impl Stdin {
    /// None for an empty path.
    pub(crate) fn open(uri: &str) -> Result<Option<Stdin>, Error> {
        if uri.is_empty() {
            return Ok(None);
        }
        let path = Path::new(uri.strip_prefix("fifo://").unwrap_or(uri));
        if !path.is_absolute() {
            return Err(Error::invalid(format!("stdin {uri:?} is not an absolute path: invalid argument")));
        }
        let fifo = open_fifo(path, OFlags::RDONLY)?;
        let keep_open = Some(open_fifo(path, OFlags::WRONLY)?);
        Ok(Some(Stdin { fifo, keep_open, target: None, pending: Vec::new(), ended: false }))
    }

    /// What a daemon is to keep: the FIFO from the client, whose writer would fail without a reader, and the process's
    /// pipe, which would be at its end without a writer.
    pub(crate) fn keepable(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let target = self.target.as_ref().filter(|_| !self.is_closing()).map(|fd| ("stdin", fd.as_fd()));
        [("input", self.fifo.as_fd())].into_iter().chain(target)
    }

    /// The client has said that it will send no more.
    pub(crate) fn is_closing(&self) -> bool {
        self.keep_open.is_none()
    }

    /// Where the input goes.
    pub(crate) fn connect(&mut self, target: OwnedFd) -> Result<(), Error> {
        rustix::io::ioctl_fionbio(&target, true).map_err(|e| Error::step("make stdin non-blocking", e))?;
        self.target = Some(target);
        Ok(())
    }

    /// What to wait for: input while there is none pending, else room for it; always the target's end.
    pub(crate) fn interest(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let target = self.target.as_ref().map(AsFd::as_fd);
        let source = match target {
            Some(_) if self.pending.is_empty() && !self.ended => Some((self.fifo.as_fd(), PollFlags::IN)),
            _ => None,
        };
        let wanted = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        source.into_iter().chain(target.map(|fd| (fd, wanted)))
    }

    /// The client says that it will send no more.
    pub(crate) fn close_input(&mut self) {
        self.keep_open = None;
    }

    /// Moves what can be moved; false once the input is at its end, or nobody reads it any more.
    pub(crate) fn pump(&mut self) -> bool {
        let Some(target) = &self.target else { return true };
        for _ in 0..4 {
            while !self.pending.is_empty() {
                match rustix::io::write(target, &self.pending) {
                    Ok(written) => drop(self.pending.drain(..written)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
            if self.ended {
                return false;
            }
            self.pending.resize(CHUNK, 0);
            let result = rustix::io::read(&self.fifo, &mut self.pending);
            self.pending.truncate(*result.as_ref().unwrap_or(&0));
            match result {
                // The last writer is gone, and ours was closed before it.
                Ok(0) => {
                    self.ended = true;
                    return false;
                }
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return !self.target_is_gone(),
                Err(_) => return false,
            }
        }
        true
    }

    /// The process closed its stdin. Without this check a poll for it would wake the loop for ever.
    fn target_is_gone(&self) -> bool {
        let Some(target) = &self.target else { return false };
        let mut poll = [rustix::event::PollFd::new(target, PollFlags::empty())];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&zero)).is_ok()
            && poll[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }
}
