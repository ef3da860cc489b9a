//! Credentials of this thread. The raw calls, since the process has one thread and the C library's would send
//! signals to others.

use std::io;

use super::check;

pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is valid for the stated number of ids.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

pub(crate) fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

pub(crate) fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// The file mode creation mask; returns the former one.
pub(crate) fn umask(mask: u32) -> u32 {
    // SAFETY: takes a number and cannot fail.
    unsafe { libc::umask(mask) }
}
