//! The container's cgroup: where it is, its figures as containerd's metrics messages, and whether the kernel killed in it
//! for want of memory. Everything is read from the kernel's files; nothing is written but the registration of the watch.

mod files;
mod oom;
mod v1;
mod v2;

pub(crate) use oom::Watch;

use files::Files;
use proto::any::{self, Any};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where one process's cgroup is, found once: a process that has ended can no longer be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Cgroup {
    /// One directory for each controller (cgroups(7), version 1; also the hybrid layout).
    V1(BTreeMap<String, Files>),
    V2(Files),
}

impl Cgroup {
    /// The cgroup of a process.
    pub(crate) fn of(pid: u32) -> io::Result<Cgroup> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        locate(&groups, &mounts).ok_or_else(|| io::Error::other("no mounted hierarchy has it"))
    }

    /// The cgroup that a client names: a path below each hierarchy's root, or, as systemd has them, a slice. None where it
    /// does not exist.
    pub(crate) fn named(name: &str) -> io::Result<Option<Cgroup>> {
        let path = slice_path(name).unwrap_or_else(|| Path::new("/").join(name).display().to_string());
        // One that leaves the hierarchy is none.
        if Path::new(&path).components().any(|part| part == std::path::Component::ParentDir) {
            return Ok(None);
        }
        let ours = std::fs::read_to_string("/proc/self/cgroup")?;
        let hierarchies = ours.lines().filter_map(|line| line.rsplit_once(':'));
        let groups: String = hierarchies.map(|(hierarchy, _)| format!("{hierarchy}:{path}\n")).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(locate(&groups, &mounts).and_then(Cgroup::existing))
    }

    /// What of it there is.
    fn existing(self) -> Option<Cgroup> {
        match self {
            Cgroup::V1(mut controllers) => {
                controllers.retain(|_, files| files.dir().is_dir());
                (!controllers.is_empty()).then_some(Cgroup::V1(controllers))
            }
            Cgroup::V2(files) => files.dir().is_dir().then_some(Cgroup::V2(files)),
        }
    }

    /// `io.containerd.cgroups.v1.Metrics` or `.v2.Metrics`. What a kernel or a controller does not tell is left out.
    pub(crate) fn metrics(&self) -> Any {
        match self {
            Cgroup::V1(controllers) => any::pack(&v1::metrics(controllers)),
            Cgroup::V2(files) => any::pack(&v2::metrics(files)),
        }
    }
}

/// Where systemd has a slice: `a-b.slice` lies in `a.slice`.
fn slice_path(name: &str) -> Option<String> {
    let slice = name.strip_suffix(".slice").filter(|slice| !slice.contains('/'))?;
    let ends = slice.match_indices('-').map(|(at, _)| at).chain([slice.len()]);
    Some(ends.map(|end| format!("/{}.slice", &slice[..end])).collect())
}

/// From /proc/PID/cgroup and /proc/PID/mountinfo. With any version 1 controller it is version 1, as containerd has it.
fn locate(groups: &str, mounts: &str) -> Option<Cgroup> {
    let mut controllers = BTreeMap::new();
    let mut unified = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        if names.is_empty() {
            unified = directory(mounts, None, path);
        }
        for name in names.split(',').filter(|name| !name.is_empty() && !name.starts_with("name=")) {
            if let Some(dir) = directory(mounts, Some(name), path) {
                controllers.insert(name.to_owned(), Files::new(dir));
            }
        }
    }
    if controllers.is_empty() {
        unified.map(Files::new).map(Cgroup::V2)
    } else {
        Some(Cgroup::V1(controllers))
    }
}

/// Where `path` of a controller's hierarchy is mounted; of the version 2 hierarchy without one.
fn directory(mounts: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let found = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        let below = Path::new(path).strip_prefix(root).ok().or(Path::new(path).strip_prefix("/").ok())?;
        found.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        30 20 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        31 20 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        32 20 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn controllers_are_found_where_they_are_mounted() {
        let groups = "5:cpu,cpuacct:/a/b\n4:memory:/a/c\n3:pids:/a\n2:name=systemd:/x\n0::/u\n";
        let Some(Cgroup::V1(found)) = locate(groups, HYBRID) else { panic!("it is version 1") };
        let paths: Vec<_> = found.iter().map(|(name, files)| (name.as_str(), files.dir())).collect();
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu/a/b"),
            ("cpuacct", "/sys/fs/cgroup/cpu/a/b"),
            ("memory", "/sys/fs/cgroup/memory/a/c"),
        ];
        assert_eq!(paths, expected.map(|(name, path)| (name, Path::new(path))));
    }

    #[test]
    fn a_slice_lies_in_those_that_its_name_begins_with() {
        let path = "/kubepods.slice/kubepods-pod.slice/kubepods-pod-1.slice";
        assert_eq!(slice_path("kubepods-pod-1.slice").as_deref(), Some(path));
        assert_eq!(slice_path("/kubepods/pod1"), None);
        assert!(Cgroup::named("../..").unwrap().is_none());
    }

    #[test]
    fn without_controllers_it_is_version_two() {
        let mounts = "24 20 0:28 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let Some(Cgroup::V2(files)) = locate("0::/outer/box\n", mounts) else { panic!("it is version 2") };
        assert_eq!(files.dir(), Path::new("/sys/fs/cgroup/box"));
        assert!(locate("0::/box\n", "").is_none());
    }
}
