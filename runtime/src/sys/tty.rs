//! Pseudoterminals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Unlock the terminal behind `master` and open its other side without any path (CVE-2025-52565).
pub(crate) fn open_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rustix::pty::unlockpt(master)?;
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    // SAFETY: the ioctl takes open flags by value; on success the kernel returns a new descriptor owned by
    // nobody else.
    let fd = check(
        unsafe {
            libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
        }
        .into(),
    )?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Make `terminal` the controlling terminal of this session's leader.
pub(crate) fn set_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

pub(crate) fn set_size(terminal: impl AsFd, height: u16, width: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
