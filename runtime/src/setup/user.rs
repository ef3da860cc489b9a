//! Who the process is.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Gid, Uid};

use crate::error::{Error, Result, Step};
use crate::spec::User;
use crate::sys;

const DEFAULT_UMASK: u32 = 0o022;

/// The groups come first: once the user is another, nobody lets us change them.
pub(crate) fn apply(user: &User, may_set_groups: bool) -> Result<()> {
    sys::user::umask(user.umask.unwrap_or(DEFAULT_UMASK));
    if may_set_groups {
        sys::user::set_groups(&user.additional_gids).step(|| "setgroups".into())?;
    }
    sys::user::set_gid(user.gid).map_err(|error| refused("setgid", user.gid, error))?;
    sys::user::set_uid(user.uid).map_err(|error| refused("setuid", user.uid, error))
}

fn refused(call: &str, id: u32, source: std::io::Error) -> Error {
    let unmapped = source.raw_os_error() == Some(libc::EINVAL);
    let reason = if unmapped { " (the container's user namespace maps no such id)" } else { "" };
    Error::Step { step: format!("{call} {id}{reason}"), source }
}

/// Let the process open its own standard streams again through /proc/self/fd when it is not root. Only pipes,
/// sockets and terminals are given away: anything else may be a file of the host (CVE-2026-88265).
pub(crate) fn own_standard_streams(user: &User) {
    let standard: [BorrowedFd<'static>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in standard {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => (136..=143).contains(&rustix::fs::major(stat.st_rdev)),
            _ => false,
        };
        if ours && stat.st_uid != user.uid {
            // An unmapped or foreign owner cannot be changed, and the process then does without.
            let _ = rustix::fs::fchown(
                stream.as_fd(),
                Some(Uid::from_raw(user.uid)),
                Some(Gid::from_raw(stat.st_gid)),
            );
        }
    }
}
