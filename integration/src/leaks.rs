//! What a container may leave behind: nothing.

use std::fs;
use std::path::Path;

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
        // What has ended may wait for a slow pid 1 to take notice of it.
        let is_zombie = read("stat").rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"));
        if !is_zombie && marked(&read("cgroup")) {
            found.push(format!("process {} in {}", path.display(), read("cgroup").trim_end()));
        }
    }
    found
}

fn find_cgroups(dir: &Path, depth: usize, marked: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    const DEEPEST: usize = 6;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if marked(&entry.file_name().to_string_lossy()) {
            found.push(format!("cgroup {}", entry.path().display()));
        }
        if depth < DEEPEST {
            find_cgroups(&entry.path(), depth + 1, marked, found);
        }
    }
}
