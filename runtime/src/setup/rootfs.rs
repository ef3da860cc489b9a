//! The root itself: made a mount of its own in a mount namespace that tells the host nothing, then pivoted to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::setup::mounts::propagation_flag;
use crate::sys::mount::{self, ATTR_RDONLY, Attributes, PRIVATE, SHARED, SLAVE, UNBINDABLE};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) path: String,
    readonly: bool,
    /// As asked for; slave for all where nothing is.
    propagation: Option<(u64, bool)>,
    no_pivot: bool,
}

pub(crate) fn plan(path: &str, readonly: bool, propagation: &str, no_pivot: bool) -> Result<Plan> {
    let propagation = if propagation.is_empty() {
        None
    } else {
        let flag = propagation_flag(propagation);
        Some(flag.ok_or_else(|| Error::invalid(format!("rootfsPropagation={propagation} is not supported")))?)
    };
    Ok(Plan { path: path.to_owned(), readonly, propagation, no_pivot })
}

/// Returns the root as a descriptor of its own mount; everything inside is reached through it.
pub(crate) fn prepare(plan: &Plan) -> Result<OwnedFd> {
    let (kind, recursive) = match plan.propagation {
        // The kernel copies no mount that may not be bound: the new root becomes one when it is entered.
        Some((UNBINDABLE, _)) => (PRIVATE, true),
        other => other.unwrap_or((SLAVE, true)),
    };
    mount::propagate("/", kind, recursive).step(|| "set the propagation of /".into())?;
    if kind == SHARED {
        // pivot_root refuses a root that is shared or lies in a shared mount, and the copy made next is as its
        // original; also the mounts made below must not reach the host.
        make_parent_private(&plan.path)?;
    }
    let root = mount::copy_of_path(&plan.path, true).step(|| format!("root file system {}", plan.path))?;
    let target =
        rustix::fs::open(&plan.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open root file system {}", plan.path))?;
    mount::attach(&root, target.as_fd()).step(|| "attach the root file system".into())?;
    Ok(root)
}

/// The mount that holds the path is the nearest one up which can be changed: only roots of mounts can.
fn make_parent_private(path: &str) -> Result<()> {
    for dir in std::path::Path::new(path).ancestors() {
        match mount::propagate(&dir.to_string_lossy(), PRIVATE, false) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(source) => {
                return Err(Error::Step {
                    step: format!("make the mount at {} private", dir.display()),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Without pivot_root the host's mounts stay in the namespace, out of sight only; and as long as an unmasked /proc or
/// /sys is among them, the kernel lets the container mount one of its own.
fn hide_foreign_proc(root: &str) -> Result<()> {
    let mounts =
        std::fs::read_to_string("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo".into())?;
    let inside = format!("{root}/");
    let foreign = mounts.lines().filter_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let point = unescaped(fields.split(' ').nth(4)?);
        let is_kernels = matches!(kind.split(' ').next(), Some("proc" | "sysfs"));
        (is_kernels && !point.starts_with(&inside)).then_some(point)
    });
    // What lies on others comes after them.
    for point in foreign.collect::<Vec<_>>().iter().rev() {
        match mount::detach(point) {
            // Locked by a user namespace: something is put over it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
                let cover = mount::new_filesystem("tmpfs", Some("tmpfs"), &[], ATTR_RDONLY)
                    .step(|| "new tmpfs".into())?;
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let target =
                    rustix::fs::open(point, flags, Mode::empty()).step(|| format!("open {point}"))?;
                mount::attach(&cover, target.as_fd()).step(|| format!("cover {point}"))?;
            }
            result => result.step(|| format!("unmount {point}"))?,
        }
    }
    Ok(())
}

/// The kernel writes blanks and the like as three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn enter(plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).step(|| "enter the root file system".into())?;
    if plan.no_pivot {
        hide_foreign_proc(&plan.path)?;
        mount::move_to_root().step(|| "move the root file system to /".into())?;
    } else {
        mount::pivot_to_current(plan.propagation.is_some()).step(|| "pivot_root".into())?;
    }
    if let Some((kind, recursive)) = plan.propagation {
        mount::propagate("/", kind, recursive)
            .step(|| "set the propagation of the root file system".into())?;
    }
    Ok(())
}

/// Last of all: nothing can be made in it afterwards.
pub(crate) fn seal(plan: &Plan, root: BorrowedFd<'_>, late: &[OwnedFd]) -> Result<()> {
    let readonly = Attributes { set: ATTR_RDONLY, ..Attributes::default() };
    for fd in late {
        mount::set_attributes(fd.as_fd(), &readonly, false).step(|| "make a mount read-only".into())?;
    }
    if plan.readonly {
        mount::set_attributes(root, &readonly, false)
            .step(|| "make the root file system read-only".into())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        for (text, path) in
            [("/a", "/a"), ("/a\\040b", "/a b"), ("/x\\134y", "/x\\y"), ("/z\\9", "/z\\9"), ("\\", "\\")]
        {
            assert_eq!(unescaped(text), path);
        }
    }
}
