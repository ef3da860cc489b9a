//! What a container may leave behind: nothing.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mounts, cgroups and processes that carry one of the marks (a container's id, a bundle's path).
pub fn find(marks: &[&str]) -> Vec<String> {
    let marked = |text: &str| marks.iter().any(|mark| text.contains(mark));
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("own mountinfo");
    found.extend(mounts.lines().filter(|line| marked(line)).map(|line| format!("mount {line}")));
    find_cgroups(Path::new("/sys/fs/cgroup"), 0, &marked, &mut found);
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let path = entry.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        if !is_over(&read("stat")) && marked(&read("cgroup")) {
            found.push(format!("process {} in {}", path.display(), read("cgroup").trim_end()));
        }
    }
    found
}

/// What rung has left in its state directory, the filters apart that it keeps by profile for the next container.
pub fn in_state(root: &Path) -> Vec<PathBuf> {
    const MOST_FILTERS: usize = 64;
    let mut left = entries(root);
    if let Some(place) = left.iter().position(|path| path.ends_with("@seccomp")) {
        let filters = entries(&left.swap_remove(place));
        let is_hash = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if filters.len() > MOST_FILTERS || !filters.iter().all(is_hash) {
            left.extend(filters);
        }
    }
    left
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What has ended may wait for a slow pid 1 to take notice of it.
fn is_over(stat: &str) -> bool {
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"))
}

fn find_cgroups(dir: &Path, depth: usize, marked: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    const DEEPEST: usize = 6;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if marked(&path.to_string_lossy()) {
            found.push(format!("cgroup {}", path.display()));
        }
        if depth < DEEPEST {
            find_cgroups(&entry.path(), depth + 1, marked, found);
        }
    }
}

/// Processes that name a folder in their command line or work in it.
pub fn processes(folder: &Path) -> Vec<(i32, String)> {
    let mark = folder.to_str().expect("a plain path");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if here || command.contains(mark) {
            found.push((pid, command));
        }
    }
    found
}

/// Ends what a failed test left in a folder: the processes of [`processes`] and their children, which a shim's
/// containers are; then the mounts.
pub fn clear(folder: &Path) {
    let mut all: Vec<i32> = Vec::new();
    for (pid, _) in processes(folder) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        all.push(pid);
    }
    // Their cgroups can be removed once they are gone.
    end(&all, Duration::from_secs(5));
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in table.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(point).starts_with(folder) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Thaws what a test left paused below the parent cgroup it named: a frozen process does not die of SIGKILL on version 1.
pub fn thaw(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    for (parent, file, word) in [
        (root.join("freezer").join(name), "freezer.state", "THAWED"),
        (root.join("unified").join(name), "cgroup.freeze", "0"),
        (root.join(name), "cgroup.freeze", "0"),
    ] {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            // Opened without creating: only where the kernel has the file.
            let opened = fs::OpenOptions::new().write(true).open(entry.path().join(file));
            let _ = opened.and_then(|mut file| std::io::Write::write_all(&mut file, word.as_bytes()));
        }
    }
}

/// A parent cgroup that a test named, in each hierarchy, with what a failed test left in it.
pub fn remove_cgroups(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for parent in hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(name)) {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            // A container whose shim was killed is nobody's child that clear() knows.
            let inside = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            let inside: Vec<i32> = inside.lines().filter_map(|pid| pid.parse().ok()).collect();
            end(&inside, Duration::from_secs(2));
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(parent);
    }
}

/// SIGKILL to all of them, and waits until they have ended.
fn end(pids: &[i32], patience: Duration) {
    let open = |pid: &i32| pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok();
    let processes: Vec<OwnedFd> = pids.iter().filter_map(open).collect();
    pids.iter().copied().for_each(kill);
    let deadline = Instant::now() + patience;
    for process in &processes {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left));
    }
}

pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
