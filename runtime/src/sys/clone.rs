//! clone3, setns and unshare.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Which side of the clone this is.
pub(crate) enum Side {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(crate) const NEWTIME: u64 = 0x80;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A new process that goes on from here, in the new namespaces that `flags` name and, on cgroup v2, straight in
/// `cgroup`.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // CLONE_PARENT lends the exit signal of the parent.
    if flags & libc::CLONE_PARENT as u64 != 0 {
        args.exit_signal = 0;
    }
    // SAFETY: no CLONE_VM, so the child runs on its own copy of this stack; the process has one thread, so no
    // lock is held by a thread the child lacks; `args` has the kernel's layout and its stated size.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        crate::interrupt::in_child();
        return Ok(Side::Child);
    }
    // SAFETY: the kernel has stored a new descriptor, owned by nobody else.
    Ok(Side::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Enter the namespaces of kind `kinds` that `fd` names (a namespace file, or a pidfd for several at once).
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: u64) -> io::Result<()> {
    // SAFETY: takes two numbers; the process has one thread.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds as libc::c_int) }.into()).map(drop)
}

pub(crate) fn unshare(kinds: u64) -> io::Result<()> {
    // SAFETY: takes a number; the process has one thread.
    check(unsafe { libc::unshare(kinds as libc::c_int) }.into()).map(drop)
}
