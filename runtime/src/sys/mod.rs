//! The kernel's calls as safe functions: the only module with `unsafe`. Nothing here decides anything.

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod entry;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod prctl;
pub(crate) mod proc;
pub(crate) mod scheduling;
pub(crate) mod scm;
pub(crate) mod signal;
pub(crate) mod tty;
pub(crate) mod user;

use std::ffi::CString;
use std::io;

/// The C library's convention: -1 means look at errno.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A string for the kernel; one with a NUL inside can name nothing.
pub(crate) fn cstring(text: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The C library's sentence for an error number in lower case: the words that callers of a runtime look for.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let mut buffer = [0 as libc::c_char; 128];
    // SAFETY: the buffer is writable for its stated length; the XSI variant terminates what it writes.
    let failed = unsafe { libc::strerror_r(number, buffer.as_mut_ptr(), buffer.len()) } != 0;
    if failed {
        return format!("errno {number}");
    }
    // SAFETY: strerror_r succeeded, so the buffer holds a terminated string.
    let text = unsafe { std::ffi::CStr::from_ptr(buffer.as_ptr()) };
    text.to_string_lossy().to_ascii_lowercase()
}
