//! Descriptors and paths: in-root opening, close_range, pidfds, exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::check;

/// Open `path` as seen by a process whose root is `root`: absolute links and `..` stay beneath it, and no
/// /proc magic link is followed.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    openat2(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The same, refusing any symbolic link on the way.
pub(crate) fn open_in_root_plain(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    openat2(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    )
}

fn openat2(root: BorrowedFd<'_>, path: &str, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    // An in-root resolution that races with a rename answers EAGAIN: it is to be tried again.
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => continue,
            result => return Ok(result?),
        }
    }
}

/// The whole of a file whose size the kernel does not tell, in as few reads as can be.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    const MORE: usize = 4096;
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(MORE);
    while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))? > 0 {
        text.reserve(MORE);
    }
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Mark every descriptor from `first` on as closed at exec: nothing of the host reaches the container
/// (CVE-2024-21626).
pub(crate) fn cloexec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes three numbers; marking descriptors does not invalidate their owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    check(result).map(drop)
}

/// Give `fd` the number `number` in what is executed next; returns nothing to own, since exec takes it over.
pub(crate) fn place_at(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 onto a standard descriptor number, which no OwnedFd in this program owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// A descriptor that this process was started with.
pub(crate) fn inherited(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: F_GETFD only reads.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and this program never closes a descriptor it was given.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers; on success the kernel returns a new descriptor owned by nobody else.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks the kernel to fill in the usual one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Wait until the descriptor is readable (a pidfd: until the process has ended), at most `timeout_ms`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one valid pollfd.
        match check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) }.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return Ok(result? > 0),
        }
    }
}

/// Strings in the form exec wants; prepared before the clone.
pub(crate) struct CStrings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        CStrings { _owned: strings, pointers }
    }
}

/// Returns only when it fails.
pub(crate) fn execve(path: &CStr, arguments: &CStrings, environment: &CStrings) -> io::Error {
    // SAFETY: both arrays are null-terminated and their strings live as long as the arrays.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Execute the file behind a descriptor. Returns only when it fails.
pub(crate) fn execveat(file: BorrowedFd<'_>, arguments: &CStrings, environment: &CStrings) -> io::Error {
    // SAFETY: as for execve; the path is the empty string that AT_EMPTY_PATH asks for.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Make the descriptor block (or not) on reads and writes.
pub(crate) fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    let wanted = if on { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
    Ok(rustix::fs::fcntl_setfl(&fd, wanted)?)
}
