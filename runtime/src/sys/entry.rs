//! The way in without the standard library's own start-up code, which prepares for threads and stack overflows
//! that cannot happen here and costs a noticeable part of a short run.

use std::io;

use rustix::fs::{Mode, OFlags};

/// Defines the executable's `main`, which calls a function that takes the words of the command line.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        // SAFETY: an executable has one symbol of this name, and this is the C library's signature for it.
        #[unsafe(no_mangle)]
        extern "C" fn main(_count: i32, _words: *const *const std::ffi::c_char) -> i32 {
            let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
            // Not by returning: this way out also writes what stdout still holds.
            std::process::exit($run(&words.collect::<Vec<String>>()))
        }
    };
}

/// What that start-up code also does and must be done: a standard stream that is closed is opened on /dev/null,
/// lest a file of ours take its number and reach the container; a reader that is gone is an error, not a signal.
pub(crate) fn prepare_process() -> io::Result<()> {
    while rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).map(is_standard)? {}
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// One with a standard number stays open for good.
fn is_standard(fd: std::os::fd::OwnedFd) -> bool {
    use std::os::fd::{AsRawFd, IntoRawFd};
    fd.as_raw_fd() < 3 && fd.into_raw_fd() < 3
}
