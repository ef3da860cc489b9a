//! Telling a service manager when the container is ready (NOTIFY_SOCKET of systemd).
//!
//! The container gets a socket of its own, `notify/notify.sock` in the state directory, bound at /run/notify; the
//! caller's own is never within its reach. Only the line READY= is passed on, with the pid to watch.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Result, Step};
use crate::spec::Mount;
use crate::sys::{files, scm};

/// Where the container finds its socket.
const INSIDE: &str = "/run/notify";

/// Where the caller wants to hear of it.
pub(crate) fn callers_socket() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty())
}

pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={INSIDE}/notify.sock")
}

pub(crate) fn mount(directory: &str) -> Mount {
    Mount {
        destination: INSIDE.into(),
        source: directory.into(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec(),
        ..Mount::default()
    }
}

/// Bound for as long as we wait.
pub(crate) struct Readiness {
    socket: OwnedFd,
    host: String,
    path: PathBuf,
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Before the container's program runs. The directory was made with the container.
pub(crate) fn listen(host: String, path: PathBuf) -> Result<Readiness> {
    let step = || format!("bind {}", path.display());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).step(step)?;
    let _ = fs::remove_file(&path);
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path).step(step)?).step(step)?;
    // Whoever the container's processes are, they may write to it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).step(step)?;
    Ok(Readiness { socket, host, path })
}

impl Readiness {
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Until the container says so, or its first process ends.
    pub(crate) fn wait(&self, pidfd: BorrowedFd<'_>, pid: i32) -> Result<()> {
        use rustix::event::{PollFd, PollFlags};
        loop {
            let mut polls = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            ];
            match rustix::event::poll(&mut polls, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.step(|| "wait for the container to be ready".into())?,
            };
            if self.pass_on(pid)? || !polls[1].revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Read what the container has said; answers whether it is ready, which the host then knows.
    pub(crate) fn pass_on(&self, pid: i32) -> Result<bool> {
        const LONGEST: usize = 4096;
        let mut buffer = [0; LONGEST];
        loop {
            let length = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).step(|| "read from the notify socket".into()),
            };
            let ready = buffer[..length].split(|&b| b == b'\n').find(|line| line.starts_with(b"READY="));
            if let Some(line) = ready {
                return self.tell_host(line, pid).map(|()| true);
            }
        }
    }

    fn tell_host(&self, line: &[u8], pid: i32) -> Result<()> {
        let step = || format!("notify {}", self.host);
        let address = match self.host.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            None => SocketAddrUnix::new(&self.host),
        };
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .step(step)?;
        rustix::net::connect(&socket, &address.step(step)?).step(step)?;
        scm::send(&socket, &[line, b"\n"].concat(), None).step(step)?;
        scm::send(&socket, format!("MAINPID={pid}\n").as_bytes(), None).step(step)?;
        barrier(&socket).step(step)
    }
}

/// The manager closes the descriptor it is sent once it has read all that came before.
fn barrier(socket: &OwnedFd) -> Result<()> {
    const PATIENCE_MS: i32 = 30_000;
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(|| "make a pipe".into())?;
    scm::send(socket, b"BARRIER=1", Some(write.as_fd())).step(|| "send the barrier".into())?;
    drop(write);
    if files::wait_readable(read.as_fd(), PATIENCE_MS).step(|| "wait for the barrier".into())? {
        Ok(())
    } else {
        Err(Error::invalid("the service manager does not answer"))
    }
}
