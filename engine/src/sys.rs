//! The kernel, where safe wrappers end: threads with namespaces of their own, and a child that outlives us.

use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

/// Runs `work` on a thread that has left the given namespaces, and ends the thread with it: whatever was mounted
/// or opened in them goes too, however this process ends.
pub(crate) fn apart<T: Send + 'static>(
    namespaces: Namespaces,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("apart".to_owned()).spawn(move || {
        unshare(namespaces)?;
        work()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the helper thread panicked")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    Mount,
    Network,
}

/// Leaves the calling thread's namespaces for new ones; only for threads that end soon.
fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let flags = match namespaces {
        // A mount namespace needs a working directory and root of the thread's own.
        Namespaces::Mount => UnshareFlags::NEWNS | UnshareFlags::FS,
        Namespaces::Network => UnshareFlags::NEWNET,
    };
    // SAFETY: the flags never include FILES: descriptors stay shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// The calling thread leaves its network namespace for a new one.
pub(crate) fn enter_new_network() -> io::Result<()> {
    unshare(Namespaces::Network)
}

/// Starts `command` in a session of its own, so that no signal to ours reaches it.
pub(crate) fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

/// The process at the other end of a unix socket.
pub(crate) fn peer_pid(socket: impl AsFd) -> io::Result<rustix::process::Pid> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.pid)
}

/// A descriptor that turns readable when the process ends.
pub(crate) fn pidfd(pid: rustix::process::Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Makes a FIFO; one that is there already will do.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Sockets that the service manager passed (`LISTEN_FDS`), if they are meant for this process.
pub(crate) fn inherited_sockets() -> Vec<OwnedFd> {
    use std::os::fd::{FromRawFd, RawFd};
    const FIRST: RawFd = 3;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(64);
    (FIRST..FIRST + count as RawFd)
        .map(|fd| {
            // SAFETY: the service manager's protocol gives these descriptors to this process alone, and nothing
            // else here uses them: this is called once, before any file is opened.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
            fd
        })
        .collect()
}

/// Tells the service manager how far we are, if there is one.
pub(crate) fn notify_service_manager(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> io::Result<()> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.send_to(state.as_bytes(), Path::new(&path))?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::debug!(%error, "service manager not notified");
    }
}

/// A descriptor whose readability can be waited for.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open and the same until it is dropped, which the AsyncFd does last.
    let watched =
        unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?;
    Ok(watched)
}
