//! The container's root filesystem, mounted in the bundle from the mounts that the daemon's snapshotter named.

use crate::error::Error;
use proto::task::types::Mount;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::path::Path;

/// The kernel takes one page of options; overlays of many layers need more, and are then given relative paths.
const MAX_OPTIONS: usize = 4000;

/// Mounts all of `mounts` on `target`, one above the other. After a failure nothing is left mounted.
pub(crate) fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), Error> {
    for mount in mounts {
        if let Err(error) = mount_one(mount, target) {
            unmount_all(target);
            return Err(Error::step(format!("failed to mount rootfs component {}", target.display()), error));
        }
    }
    Ok(())
}

/// Unmounts everything on `target`, lazily: a process that still looks into it keeps it until it ends.
pub(crate) fn unmount_all(target: &Path) {
    // Each call takes off one layer; EINVAL says that nothing is mounted there any more.
    while rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

fn mount_one(mount: &Mount, target: &Path) -> rustix::io::Result<()> {
    let options = Options::parse(&mount.options);
    let target = if mount.target.is_empty() { target.to_owned() } else { beneath(target, &mount.target)? };
    if options.flags.contains(MountFlags::BIND) {
        let recursive = options.flags & (MountFlags::BIND | MountFlags::REC);
        rustix::mount::mount(&*mount.source, &target, "", recursive, None)?;
        let rest = options.flags - recursive;
        if !rest.is_empty() {
            rustix::mount::mount_remount(&target, MountFlags::BIND | rest, "")?;
        }
    } else {
        mount_filesystem(mount, &target, &options)?;
    }
    if let Some(propagation) = options.propagation {
        rustix::mount::mount_change(&target, propagation)?;
    }
    Ok(())
}

fn mount_filesystem(mount: &Mount, target: &Path, options: &Options) -> rustix::io::Result<()> {
    let data = |text: &str| CString::new(text).map_err(|_| rustix::io::Errno::INVAL);
    if options.data.len() < MAX_OPTIONS {
        return rustix::mount::mount(
            &*mount.source,
            target,
            &*mount.r#type,
            options.flags,
            &*data(&options.data)?,
        );
    }
    let Some((dir, data_text)) = compact(&options.data) else { return Err(rustix::io::Errno::NAMETOOLONG) };
    let back = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let target = std::path::absolute(target).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::process::chdir(&*dir)?;
    let result =
        rustix::mount::mount(&*mount.source, &target, &*mount.r#type, options.flags, &*data(&data_text)?);
    rustix::process::fchdir(back)?;
    result
}

/// A mount's own target is a path within the root; it may not leave it.
fn beneath(root: &Path, path: &str) -> rustix::io::Result<std::path::PathBuf> {
    let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let fd = rustix::fs::openat2(
        &dir,
        path.trim_start_matches('/'),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS,
    )?;
    drop(fd);
    Ok(root.join(path.trim_start_matches('/')))
}

/// Overlay directories relative to the directory they have in common, and that directory.
fn compact(data: &str) -> Option<(String, String)> {
    let is_dir =
        |option: &&str| ["lowerdir=", "upperdir=", "workdir="].iter().any(|key| option.starts_with(key));
    let paths =
        || data.split(',').filter(is_dir).flat_map(|o| o.split_once('=').expect("it has one").1.split(':'));
    let first = paths().next()?;
    let mut common = first.rsplit_once('/')?.0;
    while !paths().all(|path| path.strip_prefix(common).is_some_and(|rest| rest.starts_with('/'))) {
        common = common.rsplit_once('/')?.0;
    }
    let relative = |path: &str| path[common.len() + 1..].to_owned();
    let options: Vec<String> = data
        .split(',')
        .map(|option| match option.split_once('=') {
            Some((key, value)) if is_dir(&option) => {
                format!("{key}={}", value.split(':').map(relative).collect::<Vec<_>>().join(":"))
            }
            _ => option.to_owned(),
        })
        .collect();
    (!common.is_empty()).then(|| (common.to_owned(), options.join(",")))
}

struct Options {
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    /// What the filesystem itself is told.
    data: String,
}

impl Options {
    fn parse(options: &[String]) -> Options {
        use MountPropagationFlags as Propagation;
        let mut parsed = Options { flags: MountFlags::empty(), propagation: None, data: String::new() };
        for option in options {
            match option.as_str() {
                "ro" => parsed.flags |= MountFlags::RDONLY,
                "rw" => parsed.flags -= MountFlags::RDONLY,
                "nosuid" => parsed.flags |= MountFlags::NOSUID,
                "nodev" => parsed.flags |= MountFlags::NODEV,
                "noexec" => parsed.flags |= MountFlags::NOEXEC,
                "noatime" => parsed.flags |= MountFlags::NOATIME,
                "nodiratime" => parsed.flags |= MountFlags::NODIRATIME,
                "relatime" => parsed.flags |= MountFlags::RELATIME,
                "sync" => parsed.flags |= MountFlags::SYNCHRONOUS,
                "bind" => parsed.flags |= MountFlags::BIND,
                "rbind" => parsed.flags |= MountFlags::BIND | MountFlags::REC,
                "private" => parsed.propagation = Some(Propagation::PRIVATE),
                "rprivate" => parsed.propagation = Some(Propagation::PRIVATE | Propagation::REC),
                "slave" => parsed.propagation = Some(Propagation::DOWNSTREAM),
                "rslave" => parsed.propagation = Some(Propagation::DOWNSTREAM | Propagation::REC),
                "defaults" | "suid" | "dev" | "exec" | "async" | "loop" => {}
                other => {
                    if !parsed.data.is_empty() {
                        parsed.data.push(',');
                    }
                    parsed.data.push_str(other);
                }
            }
        }
        parsed
    }
}

/// True when something is mounted on `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let attributes = rustix::fs::StatxFlags::BASIC_STATS;
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, attributes)
        .is_ok_and(|stat| stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let options: Vec<String> =
            ["ro", "nodev", "lowerdir=/a:/b", "index=off", "rprivate"].map(String::from).into();
        let parsed = Options::parse(&options);
        assert_eq!(parsed.flags, MountFlags::RDONLY | MountFlags::NODEV);
        assert_eq!(parsed.data, "lowerdir=/a:/b,index=off");
        assert!(parsed.propagation.is_some());
    }

    #[test]
    fn long_overlays_are_given_relative_paths() {
        let data = "index=off,workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=/s/8/fs:/s/77/fs";
        let expected = "index=off,workdir=9/work,upperdir=9/fs,lowerdir=8/fs:77/fs";
        assert_eq!(compact(data), Some(("/s".to_owned(), expected.to_owned())));
        assert_eq!(compact("lowerdir=/a:/b"), None);
    }
}
