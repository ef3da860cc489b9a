//! Carrying the mount steps out. Each target is opened beneath the root, the mount is attached to that very
//! descriptor, and a target inside another filesystem of the kernel is looked at before it is used.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::{ALLOWED_IN_PROC, What};
use crate::error::{Error, Result, Step};
use crate::inroot::{self, Kind};
use crate::sys::mount::{self, ATTR_RDONLY, Attributes};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Mounts that become read-only only once everything inside them has been made.
pub(crate) type Late = Vec<OwnedFd>;

pub(crate) fn apply(
    root: BorrowedFd<'_>,
    steps: &[super::Step],
    context: &super::Context<'_>,
    late: &mut Late,
) -> Result<()> {
    for (place, step) in steps.iter().enumerate() {
        one(root, (place, step), context, late).step(|| {
            format!("error mounting {} to rootfs at {:?}", describe(&step.what), step.destination)
        })?;
    }
    Ok(())
}

fn describe(what: &What) -> String {
    match what {
        What::Bind { source, .. } => format!("{source:?}"),
        What::New { kind, .. } | What::Classic { kind, .. } => format!("{kind:?}"),
        What::Remount { .. } => "new attributes".into(),
        What::Cgroup { .. } => "\"cgroup\"".into(),
    }
}

fn one(
    root: BorrowedFd<'_>,
    (place, step): (usize, &super::Step),
    context: &super::Context<'_>,
    late: &mut Late,
) -> Result<()> {
    match &step.what {
        What::Bind { source, recursive } => match context.trees.get(&place) {
            Some(tree) => bind(root, step, source, tree.as_fd()),
            None => {
                let tree =
                    mount::copy_of_path(source, *recursive).step(|| format!("bind source {source}"))?;
                bind(root, step, source, tree.as_fd())
            }
        },
        What::New { kind, source, options, copy_up } => {
            new(root, step, (kind, source, options), *copy_up, late)
        }
        What::Classic { kind, source, flags, data } => classic(root, step, (kind, source, data), *flags),
        What::Remount { flags, data } => {
            let target = inroot::open(root, &step.destination).step(|| "open the target".into())?;
            if !data.is_empty() {
                at_target(target.as_fd(), || mount::classic("", "", flags | libc::MS_REMOUNT, data))
                    .step(|| format!("remount with {data:?}"))?;
            }
            finish(target.as_fd(), step)
        }
        What::Cgroup { .. } if !context.has_cgroup => {
            let tree = mount::copy_of_path(crate::cgroup::ROOT, true)
                .step(|| "bind the machine's cgroups".into())?;
            bind(root, step, crate::cgroup::ROOT, tree.as_fd())
        }
        What::Cgroup { hierarchies, links } => cgroup(root, step, hierarchies, links),
    }
}

fn bind(root: BorrowedFd<'_>, step: &super::Step, source: &str, tree: BorrowedFd<'_>) -> Result<()> {
    let mode = rustix::fs::fstat(tree).step(|| format!("stat {source}"))?.st_mode;
    let kind =
        if FileType::from_raw_mode(mode) == FileType::Directory { Kind::Directory } else { Kind::File };
    let target = target(root, step, kind)?;
    refuse_proc(target.as_fd(), step, Some(tree))?;
    finish(tree, step)?;
    mount::attach(tree, target.as_fd()).step(|| "attach".into())
}

fn new(
    root: BorrowedFd<'_>,
    step: &super::Step,
    (kind, source, options): (&str, &str, &[String]),
    copy_up: bool,
    late: &mut Late,
) -> Result<()> {
    let of_kernel = matches!(kind, "proc" | "sysfs");
    // A tmpfs without a mode of its own takes that of the directory it covers, as the original does.
    let mut options = options.to_vec();
    if kind == "tmpfs"
        && !options.iter().any(|option| option.starts_with("mode="))
        && let Ok(covered) = inroot::open(root, &step.destination)
    {
        let mode = rustix::fs::fstat(&covered).step(|| "stat the target".into())?.st_mode & 0o7777;
        options.push(format!("mode={mode:o}"));
    }
    let target = if of_kernel {
        inroot::open_or_create(root, &step.destination, Kind::Directory, true)
            .step(|| format!("filesystem {kind:?} must be mounted on ordinary directory"))?
    } else {
        target(root, step, Kind::Directory)?
    };
    if kind != "proc" {
        refuse_proc(target.as_fd(), step, None)?;
    }
    let (mut attributes, mut recursive) = (step.attributes.set, step.recursive_attributes);
    let is_late = kind == "tmpfs" && (attributes | recursive.set) & ATTR_RDONLY != 0;
    if is_late {
        attributes &= !ATTR_RDONLY;
        recursive.set &= !ATTR_RDONLY;
    }
    let source = Some(source).filter(|source| !source.is_empty());
    let fs = mount::new_filesystem(kind, source, &options, attributes).step(|| format!("new {kind}"))?;
    if copy_up {
        copy_tree(target.as_fd(), fs.as_fd()).step(|| "copy the directory up into the tmpfs".into())?;
    }
    recursively(fs.as_fd(), &recursive)?;
    propagate(fs.as_fd(), step)?;
    mount::attach(&fs, target.as_fd()).step(|| "attach".into())?;
    if is_late {
        late.push(fs);
    }
    Ok(())
}

/// mount(2) works on a path: the current directory, which is entered by descriptor.
fn classic(
    root: BorrowedFd<'_>,
    step: &super::Step,
    (kind, source, data): (&str, &str, &str),
    flags: u64,
) -> Result<()> {
    let target = target(root, step, Kind::Directory)?;
    refuse_proc(target.as_fd(), step, None)?;
    at_target(target.as_fd(), || mount::classic(source, kind, flags, data))
        .step(|| format!("mount {kind}"))?;
    let mounted = inroot::open(root, &step.destination).step(|| "open the mount".into())?;
    recursively(mounted.as_fd(), &step.recursive_attributes)?;
    propagate(mounted.as_fd(), step)
}

fn at_target(target: BorrowedFd<'_>, call: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let here = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the current directory".into())?;
    rustix::process::fchdir(target).step(|| "enter the target".into())?;
    let result = call().step(|| "mount".into());
    rustix::process::fchdir(&here).step(|| "return to the current directory".into())?;
    result
}

fn cgroup(
    root: BorrowedFd<'_>,
    step: &super::Step,
    hierarchies: &[(String, String)],
    links: &[(String, String)],
) -> Result<()> {
    let target = target(root, step, Kind::Directory)?;
    refuse_proc(target.as_fd(), step, None)?;
    let attributes =
        Attributes { set: step.attributes.set, clear: step.attributes.clear, ..Attributes::default() };
    let copy = |path: &str| mount::copy_of_path(path, false).step(|| format!("cgroup {path}"));
    let finish = |tree: BorrowedFd<'_>| {
        recursively(tree, &attributes)?;
        recursively(tree, &step.recursive_attributes)
    };
    if let [(name, path)] = hierarchies
        && name.is_empty()
    {
        let tree = copy(path)?;
        finish(tree.as_fd())?;
        return mount::attach(&tree, target.as_fd()).step(|| "attach".into());
    }
    let writable = step.attributes.set & !ATTR_RDONLY;
    let options = ["mode=755".to_owned()];
    let tmpfs =
        mount::new_filesystem("tmpfs", Some("tmpfs"), &options, writable).step(|| "new tmpfs".into())?;
    mount::attach(&tmpfs, target.as_fd()).step(|| "attach".into())?;
    for (name, path) in hierarchies {
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).step(|| format!("create {name}"))?;
        mount::attach_at(copy(path)?, tmpfs.as_fd(), name).step(|| format!("attach {name}"))?;
    }
    for (controller, name) in links {
        rustix::fs::symlinkat(name, &tmpfs, controller).step(|| format!("link {controller}"))?;
    }
    // The tmpfs and what it shows at once, now that nothing is to be made in it.
    finish(tmpfs.as_fd())
}

fn target(root: BorrowedFd<'_>, step: &super::Step, kind: Kind) -> Result<OwnedFd> {
    inroot::open_or_create(root, &step.destination, kind, false).step(|| "open or create the target".into())
}

/// Nothing may be mounted over the kernel's files in /proc but what is on the list, lest the runtime or the
/// container be shown false ones (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
fn refuse_proc(target: BorrowedFd<'_>, step: &super::Step, source: Option<BorrowedFd<'_>>) -> Result<()> {
    let is_proc =
        |fd: BorrowedFd<'_>| rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type as u64 == PROC_SUPER_MAGIC);
    let on_proc_itself = step.destination.trim_end_matches('/') == "/proc";
    let allowed = match source {
        // The host's /proc in place of a new one, for containers in the host's pid namespace.
        Some(source) if on_proc_itself => is_proc(source),
        _ if on_proc_itself => false,
        _ => !is_proc(target) || ALLOWED_IN_PROC.contains(&step.destination.as_str()),
    };
    if allowed {
        Ok(())
    } else {
        Err(Error::invalid(format!("{:?} cannot be mounted because it is inside /proc", step.destination)))
    }
}

fn finish(fd: BorrowedFd<'_>, step: &super::Step) -> Result<()> {
    if !step.attributes.is_empty() {
        mount::set_attributes(fd, &step.attributes, false).step(|| "set mount attributes".into())?;
    }
    recursively(fd, &step.recursive_attributes)?;
    propagate(fd, step)
}

fn recursively(fd: BorrowedFd<'_>, attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    mount::set_attributes(fd, attributes, true).step(|| "set recursive mount attributes".into())
}

fn propagate(fd: BorrowedFd<'_>, step: &super::Step) -> Result<()> {
    for &(propagation, recursive) in &step.propagation {
        let change = Attributes { propagation, ..Attributes::default() };
        mount::set_attributes(fd, &change, recursive).step(|| "set mount propagation".into())?;
    }
    Ok(())
}

/// Copy a directory of the root file system into the tmpfs that will cover it. Links are copied as links, and
/// nothing is opened through one.
fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let readable =
        rustix::fs::openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&readable, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(&readable, name, flags, Mode::empty())?;
                let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
                copy_tree(inner.as_fd(), copy.as_fd())?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&readable, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut source = File::from(rustix::fs::openat(&readable, name, flags, Mode::empty())?);
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut copy = File::from(rustix::fs::openat(to, name, flags, mode)?);
                io::copy(&mut source, &mut copy)?;
                rustix::fs::fchmod(&copy, mode)?;
            }
            _ => continue,
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
