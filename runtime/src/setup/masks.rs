//! Paths that the container shall not see, and paths that it shall not change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::inroot;
use crate::sys::mount::{self, ATTR_RDONLY, Attributes};

/// Files are covered by the host's /dev/null, which is what it seems to be since the host's /dev is still in view
/// (CVE-2025-31133); directories by one empty read-only tmpfs, shared by all. Only what does not exist is
/// passed over.
pub(crate) fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = open_null()?;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        mask_one(root, path, null.as_fd(), &mut empty).step(|| format!("can't mask path {path:?}"))?;
    }
    Ok(())
}

fn mask_one(
    root: BorrowedFd<'_>,
    path: &str,
    null: BorrowedFd<'_>,
    empty: &mut Option<OwnedFd>,
) -> Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let mode = rustix::fs::fstat(&target).step(|| "stat".into())?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Directory {
        let cover = mount::copy_of(null, false).step(|| "bind /dev/null".into())?;
        return mount::attach(&cover, target.as_fd()).step(|| "attach".into());
    }
    match empty {
        Some(attached) => {
            let cover = mount::copy_of(attached.as_fd(), false).step(|| "bind an empty directory".into())?;
            mount::attach(&cover, target.as_fd()).step(|| "attach".into())
        }
        None => {
            let options = ["nr_blocks=1".to_owned(), "nr_inodes=1".to_owned()];
            let cover = mount::new_filesystem("tmpfs", Some("tmpfs"), &options, ATTR_RDONLY)
                .step(|| "new tmpfs".into())?;
            mount::attach(&cover, target.as_fd()).step(|| "attach".into())?;
            *empty = Some(cover);
            Ok(())
        }
    }
}

fn open_null() -> Result<OwnedFd> {
    let null =
        rustix::fs::open("/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open /dev/null".into())?;
    let stat = rustix::fs::fstat(&null).step(|| "stat /dev/null".into())?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null { Ok(null) } else { Err(Error::invalid("/dev/null of the host is not the null device")) }
}

pub(crate) fn make_readonly(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    let readonly = Attributes { set: ATTR_RDONLY, ..Attributes::default() };
    for path in paths {
        let cover = || -> Result<()> {
            let Some(target) = existing(root, path)? else { return Ok(()) };
            let tree = mount::copy_of(target.as_fd(), true).step(|| "bind it on itself".into())?;
            mount::set_attributes(tree.as_fd(), &readonly, true).step(|| "set mount attributes".into())?;
            mount::attach(&tree, target.as_fd()).step(|| "attach".into())
        };
        cover().step(|| format!("can't make {path:?} read-only"))?;
    }
    Ok(())
}

fn existing(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    match inroot::open(root, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error).step(|| "open".into()),
    }
}
