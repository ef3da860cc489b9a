//! The one thing done to a network device.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::check;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Set IFF_UP on `lo` of the current network namespace; its addresses come by themselves.
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request =
        InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: libc::IFF_UP as libc::c_short, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the request has the layout of struct ifreq with the flags member of its union.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) }.into())
        .map(drop)
}
