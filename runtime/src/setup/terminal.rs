//! The process's terminal: made in the container's own devpts, handed out by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};

use crate::error::{Error, Result, Step};
use crate::inroot::{self, Kind};
use crate::spec::ConsoleSize;
use crate::sys::{files, mount, scm, tty};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Whatever the image put at that path, only the multiplexer of a devpts will do (CVE-2025-52565).
pub(crate) fn open(root: BorrowedFd<'_>, size: Option<ConsoleSize>) -> Result<Terminal> {
    let master = inroot::open_for_use(root, "/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)
        .step(|| "open /dev/pts/ptmx of the container".into())?;
    let stat = rustix::fs::fstat(&master).step(|| "stat /dev/pts/ptmx".into())?;
    let magic = rustix::fs::fstatfs(&master).step(|| "stat /dev/pts".into())?.f_type as u64;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(5, 2)
        && magic == DEVPTS_SUPER_MAGIC;
    if !genuine {
        return Err(Error::invalid("/dev/pts/ptmx of the container is not a pseudoterminal multiplexer"));
    }
    let slave = tty::open_peer(master.as_fd()).step(|| "open the terminal".into())?;
    if let Some(size) = size.filter(|size| size.height > 0 && size.width > 0) {
        tty::set_size(&master, size.height, size.width).step(|| "set the terminal's size".into())?;
    }
    Ok(Terminal { master, slave })
}

/// Before the root is entered.
pub(crate) fn bind_console(root: BorrowedFd<'_>, terminal: &Terminal) -> Result<()> {
    let bind = || -> Result<()> {
        let target =
            inroot::open_or_create(root, "/dev/console", Kind::File, true).step(|| "create it".into())?;
        let tree =
            mount::copy_of(terminal.slave.as_fd(), false).step(|| "copy the terminal's mount".into())?;
        mount::attach(&tree, target.as_fd()).step(|| "attach".into())
    };
    bind().step(|| "/dev/console".into())
}

/// Send the master to whoever will hold it; receivers use the payload as a label.
pub(crate) fn hand_over(socket: BorrowedFd<'_>, terminal: &Terminal) -> Result<()> {
    scm::send(socket, b"/dev/ptmx", Some(terminal.master.as_fd()))
        .step(|| "send the terminal to the console socket".into())
}

/// Make it the standard streams and the controlling terminal of a new session.
pub(crate) fn adopt(terminal: Terminal) -> Result<()> {
    tty::set_controlling(terminal.slave.as_fd()).step(|| "set the controlling terminal".into())?;
    for number in 0..3 {
        files::place_at(terminal.slave.as_fd(), number)
            .step(|| "make the terminal the standard streams".into())?;
    }
    Ok(())
}
