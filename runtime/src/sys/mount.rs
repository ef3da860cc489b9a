//! The mount API on descriptors: a mount is made detached, given its attributes, then moved onto a target that
//! is held by descriptor, so no path is looked up twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount as raw;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::check;

/// Attributes to set and to clear on a mount, and its propagation (0: unchanged); the kernel's `mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

impl Attributes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

pub(crate) const ATTR_RDONLY: u64 = 0x1;
pub(crate) const ATTR_NOSUID: u64 = 0x2;
pub(crate) const ATTR_NODEV: u64 = 0x4;
pub(crate) const ATTR_NOEXEC: u64 = 0x8;
pub(crate) const ATTR_ATIME: u64 = 0x70;
pub(crate) const ATTR_RELATIME: u64 = 0x0;
pub(crate) const ATTR_NOATIME: u64 = 0x10;
pub(crate) const ATTR_STRICTATIME: u64 = 0x20;
pub(crate) const ATTR_NODIRATIME: u64 = 0x80;
pub(crate) const ATTR_IDMAP: u64 = 0x10_0000;
pub(crate) const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

pub(crate) const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
pub(crate) const PRIVATE: u64 = libc::MS_PRIVATE;
pub(crate) const SLAVE: u64 = libc::MS_SLAVE;
pub(crate) const SHARED: u64 = libc::MS_SHARED;

const AT_RECURSIVE: libc::c_int = 0x8000;

/// Change the mount `fd` is the root of, and with `recursive` all below it.
pub(crate) fn set_attributes(fd: BorrowedFd<'_>, attributes: &Attributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` has the layout of mount_attr and its size is stated; the path is the empty string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    check(result).map(drop)
}

/// A new, detached mount of a filesystem; each option is `key` or `key=value`.
pub(crate) fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    options: &[String],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = raw::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        raw::fsconfig_set_string(&context, "source", source)?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => raw::fsconfig_set_string(&context, key, value)?,
            None => raw::fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    raw::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(raw::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached copy of the mount at what `fd` names, for a bind mount.
pub(crate) fn copy_of(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    copy_at(fd, "", recursive)
}

/// The same for an entry of the folder `fd` names.
pub(crate) fn copy_of_entry(fd: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    copy_at(fd, name, false)
}

/// The same for a path of the host.
pub(crate) fn copy_of_path(path: &str, recursive: bool) -> io::Result<OwnedFd> {
    copy_at(rustix::fs::CWD, path, recursive)
}

fn copy_at(fd: BorrowedFd<'_>, path: &str, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(raw::open_tree(fd, path, flags)?)
}

/// Attach a detached mount on the object `target` names.
pub(crate) fn attach(mount: impl AsFd, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(raw::move_mount(mount.as_fd(), "", target, "", flags)?)
}

/// The same on an entry of a folder that is not yet in anybody else's reach.
pub(crate) fn attach_at(mount: impl AsFd, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(raw::move_mount(mount.as_fd(), "", folder, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// mount(2) on the current directory: for filesystems and remounts that need the old call.
pub(crate) fn classic(source: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let data = super::cstring(data)?;
    Ok(raw::mount(source, ".", kind, MountFlags::from_bits_retain(flags as u32), data.as_c_str())?)
}

/// Change how mounts of the tree at `path` propagate.
pub(crate) fn propagate(path: &str, kind: u64, recursive: bool) -> io::Result<()> {
    let mut flags = MountPropagationFlags::from_bits_retain(kind as u32);
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    Ok(raw::mount_change(path, flags)?)
}

/// Make the current directory the root: the old one is stacked on it, then detached with all it holds.
/// `shared`: some mounts of the old root are shared with the host, which must not be told of the unmount.
pub(crate) fn pivot_to_current(shared: bool) -> io::Result<()> {
    let old_root = shared
        .then(|| rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()?;
    rustix::process::pivot_root(".", ".")?;
    if let Some(old_root) = old_root {
        set_attributes(old_root.as_fd(), &Attributes { propagation: SLAVE, ..Attributes::default() }, true)?;
    }
    raw::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Unmount with all that is mounted below, as soon as nobody uses it.
pub(crate) fn detach(path: &str) -> io::Result<()> {
    Ok(raw::unmount(path, UnmountFlags::DETACH)?)
}

/// The way without pivot_root, for a root on a ramdisk: move the mount to `/`, then change root.
pub(crate) fn move_to_root() -> io::Result<()> {
    raw::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}
