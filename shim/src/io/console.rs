//! A process's terminal: the runtime makes it and sends its master through a console socket.

use crate::error::Error;
use crate::handover::optional_descriptor;
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, sockopt};
use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the runtime is told, before and after it has sent the master.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Console {
    #[serde(with = "optional_descriptor")]
    listener: Option<UnixListener>,
    socket_path: PathBuf,
    #[serde(with = "optional_descriptor")]
    connection: Option<OwnedFd>,
    #[serde(with = "optional_descriptor")]
    master: Option<OwnedFd>,
    /// Rows and columns that were asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

impl Console {
    /// Makes the socket in the current directory, the bundle, which nobody else can enter.
    pub(crate) fn listen() -> Result<Console, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let step = |e| Error::step("make the console socket", e);
        let (name, listener) = loop {
            let name = PathBuf::from(format!("console-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed)));
            match UnixListener::bind(&name) {
                Ok(listener) => break (name, listener),
                // From before a new binary took over, and perhaps still listened to.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(step(error)),
            }
        };
        listener.set_nonblocking(true).map_err(step)?;
        Ok(Console {
            listener: Some(listener),
            socket_path: name,
            connection: None,
            master: None,
            size: None,
        })
    }

    /// A path for the runtime, whatever its working directory; a bundle's own path may be too long for a socket.
    pub(crate) fn runtime_path(&self) -> String {
        format!("/proc/{}/cwd/{}", std::process::id(), self.socket_path.display())
    }

    /// What to poll for reading.
    pub(crate) fn listening(&self) -> Option<rustix::fd::BorrowedFd<'_>> {
        use rustix::fd::AsFd;
        self.connection.as_ref().map(AsFd::as_fd).or(self.listener.as_ref().map(AsFd::as_fd))
    }

    /// The master, if it has just arrived.
    pub(crate) fn receive(&mut self) -> Option<OwnedFd> {
        if self.connection.is_none() {
            let listener = self.listener.as_ref()?;
            let socket =
                rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
            // Root in a container must not be able to hand us a terminal of its own.
            let peer = sockopt::socket_peercred(&socket).ok()?;
            if peer.uid != rustix::process::geteuid() {
                return None;
            }
            self.connection = Some(socket);
        }
        let connection = self.connection.as_ref()?;
        let mut name = [0u8; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut name)];
        rustix::net::recvmsg(connection, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
        let master = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        // One connection, one message: whatever it was, this socket is done.
        self.connection = None;
        self.stop_listening();
        master
    }

    fn stop_listening(&mut self) {
        if self.listener.take().is_some() {
            let _ = std::fs::remove_file(&self.socket_path);
        }
    }

    pub(crate) fn master(&self) -> Option<rustix::fd::BorrowedFd<'_>> {
        self.master.as_ref().map(rustix::fd::AsFd::as_fd)
    }

    /// That of an earlier shim, which does not listen any more.
    pub(crate) fn adopt(mut self) -> Console {
        self.stop_listening();
        Console { listener: None, socket_path: PathBuf::new(), connection: None, master: None, size: None }
    }

    pub(crate) fn set_master(&mut self, master: OwnedFd) {
        if let Some(size) = self.size.take() {
            let _ = rustix::termios::tcsetwinsize(&master, winsize(size));
        }
        self.master = Some(master);
    }

    /// Width and height in characters.
    pub(crate) fn resize(&mut self, width: u32, height: u32) -> Result<(), Error> {
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = (clamp(height), clamp(width));
        match &self.master {
            Some(master) => {
                let resized = rustix::termios::tcsetwinsize(master, winsize(size));
                resized.map_err(|e| Error::step("resize the terminal", e))
            }
            None => {
                self.size = Some(size);
                Ok(())
            }
        }
    }
}

fn winsize((ws_row, ws_col): (u16, u16)) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop_listening();
    }
}
