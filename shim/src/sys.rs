//! The few system calls that rustix does not have, or has as unsafe: the only unsafe code of the shim.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

/// Blocks the signals and returns a descriptor that is readable while one is pending. Children are not affected:
/// std::process clears the signal mask it hands on.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use and outlives the calls; signalfd returns a new
    // descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for number in numbers {
            libc::sigaddset(&mut set, *number);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets a signal that would end the process pass by.
pub(crate) fn ignore_signals(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Forks: true in the child.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: the shim has one thread, so the child's copy of every lock and allocator state is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(true),
        _ => Ok(false),
    }
}

/// Makes `to` (0, 1 or 2) a copy of `from`.
pub(crate) fn replace_stdio(from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
    // SAFETY: dup2 onto a standard descriptor; those are never owned by an OwnedFd here.
    if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal by number to one process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill reads no memory of ours.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a descriptor that the earlier binary of this process has left open and named; an error where none is open.
pub(crate) fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks. Each number stands once in the handed-over state, which the earlier binary wrote from
    // descriptors that it owned, so nobody else owns this one.
    unsafe {
        if number < 3 || libc::fcntl(number, libc::F_GETFD) < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Marks every descriptor but the standard ones to be closed on exec.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: the call changes a flag of descriptors and closes none (CLOSE_RANGE_CLOEXEC).
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a descriptor stay open in the program that this process becomes.
pub(crate) fn keep_over_exec(number: i32) -> io::Result<()> {
    // SAFETY: F_SETFD changes a flag of a descriptor, and closes none.
    if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Becomes another program, with this one's environment; returns only when it cannot.
pub(crate) fn execute(program: &CStr, arguments: &[CString]) -> io::Error {
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: both strings and the array, which ends in null, live until the call.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}
