//! The container's cgroup: one trait, its drivers for v1 (also hybrid) and v2, and the choice between them.
//!
//! A cgroup is made with all limits set before any process enters it. It is found again by the paths kept in
//! state.json alone, so removal never depends on the configuration still being there.

mod dbus;
pub(crate) mod devices;
pub(crate) mod limits;
mod none;
pub(crate) mod stats;
pub(crate) mod systemd;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Step};
use crate::interrupt::step_done;
use crate::spec::Resources;
use crate::sys::files;

pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Paths by controller as state.json keeps them; the v2 hierarchy has the empty name.
pub(crate) type Paths = BTreeMap<String, PathBuf>;

/// What a process needs to get into the cgroup.
pub(crate) struct Entrance {
    /// Entered by clone3 itself.
    pub(crate) clone_into: Option<OwnedFd>,
    /// Files that the new process writes `0` to.
    pub(crate) join: Vec<OwnedFd>,
}

/// Controllers (none: all), and the path below the container's cgroup.
pub(crate) type SubCgroup = (Vec<String>, String);

pub(crate) trait Driver {
    fn paths(&self) -> &Paths;
    /// Refuse a cgroup that others are using; looks only.
    fn refuse_in_use(&self) -> Result<()>;
    /// Make the directories.
    fn create(&self) -> Result<()>;
    /// Set the limits; `fresh`: nothing is inside yet and devices are to be set too.
    fn apply(&self, resources: &Resources, fresh: bool) -> Result<()>;
    /// For the container's own cgroups, or those below them that are named.
    fn entrance(&self, below: &[SubCgroup]) -> Result<Entrance>;
    fn freeze(&self, frozen: bool) -> Result<()>;
    fn is_frozen(&self) -> bool;
    /// Every process inside, in sub-cgroups too.
    fn processes(&self) -> Result<Vec<i32>>;
    /// SIGKILL to every process inside.
    fn kill_all(&self) -> Result<()>;
    /// The unit by whose name a service manager makes it; then the process is there first and waits to be placed.
    fn unit(&self) -> Option<&str> {
        None
    }
    /// Put the waiting process into its unit and set the limits.
    fn place(&self, _pid: i32, _resources: &Resources) -> Result<()> {
        Ok(())
    }
}

/// The cgroup that config.json names: absolute from the hierarchy's mount, relative from our own cgroup, or a
/// child of our own named after the container.
pub(crate) fn plan(cgroups_path: &str, id: &str, by_systemd: bool) -> Result<Box<dyn Driver>> {
    if by_systemd { Ok(Box::new(systemd::plan(cgroups_path, id)?)) } else { files_driver(cgroups_path, id) }
}

/// The one that works on the files itself.
fn files_driver(cgroups_path: &str, id: &str) -> Result<Box<dyn Driver>> {
    let path = if cgroups_path.is_empty() { id } else { cgroups_path };
    if Path::new(path).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::invalid(format!("cgroupsPath {path:?} may not contain \"..\"")));
    }
    let own = files::read_text("/proc/self/cgroup").step(|| "read /proc/self/cgroup".into())?;
    if is_v2(ROOT) {
        Ok(Box::new(v2::Cgroup::plan(path, &own)))
    } else {
        Ok(Box::new(v1::Cgroup::plan(path, &own)?))
    }
}

/// The v2 cgroup that a process is in.
pub(crate) fn paths_of(pid: i32) -> Result<Paths> {
    let path = format!("/proc/{pid}/cgroup");
    let text = files::read_text(&path).step(|| format!("read {path}"))?;
    let own = own_paths(&text).find(|row| row.0.is_empty()).map_or("/", |row| row.1);
    Ok(Paths::from([(String::new(), locate(Path::new(ROOT), "/", own))]))
}

/// Make the planned cgroup with its limits. Where an ordinary user may make none (`or_none`), the container has none.
pub(crate) fn make(planned: &dyn Driver, resources: &Resources, or_none: &dyn Fn() -> bool) -> Result<Paths> {
    let made = planned.create();
    match made {
        Err(error) if error.is_refusal() && or_none() => {
            // Some hierarchies may have let us.
            let _ = remove(planned.paths());
            let none = none::Cgroup::default();
            none.apply(resources, true).map(|()| Paths::new())
        }
        Err(error) => Err(error),
        Ok(()) => planned.apply(resources, true).map(|()| planned.paths().clone()),
    }
}

/// The cgroup that state.json names.
pub(crate) fn open(paths: &Paths) -> Box<dyn Driver> {
    if paths.is_empty() {
        Box::new(none::Cgroup::default())
    } else if paths.keys().all(String::is_empty) {
        Box::new(v2::Cgroup::open(paths))
    } else {
        Box::new(v1::Cgroup::open(paths))
    }
}

/// Put a process into every directory.
pub(crate) fn enter(paths: &Paths, pid: i32) -> Result<()> {
    for path in paths.values() {
        let file = path.join("cgroup.procs");
        fs::write(&file, pid.to_string()).step(|| format!("adding pid {pid} to {}", file.display()))?;
    }
    Ok(())
}

/// The directory whose processes are frozen together.
pub(crate) fn freezer(paths: &Paths) -> Option<String> {
    let whole_v2 = || paths.get("").filter(|_| paths.len() == 1);
    paths.get("freezer").or_else(whole_v2).map(|path| path.to_string_lossy().into_owned())
}

/// By controller, the directories as seen from the roots of their hierarchies.
pub(crate) fn roots(paths: &Paths) -> Vec<(String, String)> {
    let below = |path: &PathBuf| {
        let path = path.strip_prefix(ROOT).ok()?;
        // One directory of all for each hierarchy, unless there is but one.
        let path = if is_v2(ROOT) { path } else { path.strip_prefix(path.components().next()?).ok()? };
        Some(format!("/{}", path.to_string_lossy()))
    };
    paths.iter().filter_map(|(controller, path)| Some((controller.clone(), below(path)?))).collect()
}

pub(crate) fn is_v2(path: &str) -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// Remove the directories with all sub-cgroups. A cgroup stays busy for moments after its last process has
/// ended and nothing tells when that is over on v1, hence the bounded retries.
pub(crate) fn remove(paths: &Paths) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    let mut first_failure = None;
    for path in paths.values() {
        let mut pause = Duration::from_micros(200);
        loop {
            match remove_tree(path) {
                Ok(()) => {
                    step_done();
                    break;
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(source) => {
                    let step = format!("remove cgroup {}", path.display());
                    first_failure.get_or_insert(Error::Step { step, source });
                    break;
                }
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        // On a file system that nobody may change there is nothing of ours.
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for entry in fs::read_dir(path)?.flatten() {
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
            fs::remove_dir(path)
        }
        result => result,
    }
}

/// Make a cgroup directory and those above it that are missing; `made` is told of each new one, topmost first.
fn make_dirs(path: &Path, made: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {
            step_done();
            made(path)
        }
        // One that was killed may have made it and no more.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => made(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent =
                path.parent().ok_or_else(|| Error::invalid("the cgroup hierarchy is not mounted"))?;
            if parent == Path::new(ROOT) || parent == Path::new("/") {
                return Err(Error::Step { step: format!("create cgroup {}", path.display()), source: error });
            }
            make_dirs(parent, made)?;
            make_dirs(path, made)
        }
        Err(source) => Err(Error::Step { step: format!("create cgroup {}", path.display()), source }),
    }
}

/// A cgroup file takes one value by one write.
fn write_file(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    let write = || OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes());
    write().step(|| format!("write {value:?} to {}", path.display()))
}

fn read_file(dir: &Path, file: &str) -> io::Result<String> {
    Ok(files::read_text(dir.join(file))?.trim_end().to_owned())
}

/// The processes of a directory and all below.
fn list_processes(dir: &Path, into: &mut Vec<i32>) -> io::Result<()> {
    into.extend(read_file(dir, "cgroup.procs")?.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            list_processes(&entry.path(), into)?;
        }
    }
    Ok(())
}

/// Refuse to put a container into a cgroup that others are using.
fn refuse_populated(dir: &Path) -> Result<()> {
    let mut found = Vec::new();
    match list_processes(dir, &mut found) {
        Ok(()) if !found.is_empty() => Err(Error::invalid(format!(
            "container's cgroup is not empty: {} process(es) found in {}",
            found.len(),
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Whatever enters a frozen cgroup stands still, the container's first process half-made.
fn refuse_frozen(driver: &dyn Driver) -> Result<()> {
    if driver.is_frozen() {
        return Err(Error::invalid(
            "container's cgroup unexpectedly frozen: thaw it, or give another cgroupsPath",
        ));
    }
    Ok(())
}

/// Signal everything that `processes` lists until nothing is left: a fork may slip through one round.
fn kill_listed(driver: &dyn Driver) -> Result<()> {
    const ROUNDS: usize = 1000;
    for _ in 0..ROUNDS {
        let processes = driver.processes()?;
        let mut alive = false;
        for pid in processes {
            // A zombie stays listed until its parent has seen it.
            if crate::sys::proc::stat(pid).is_ok_and(|stat| !stat.is_dead()) {
                alive = true;
                let _ = crate::sys::signal::kill(pid, libc::SIGKILL);
            }
        }
        if !alive {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::invalid("some processes of the container do not end"))
}

/// A directory below the container's own; the path has no `..`.
fn below(dir: &Path, sub: &str) -> PathBuf {
    let mut path = dir.to_owned();
    path.extend(sub.split('/').filter(|part| !part.is_empty() && *part != "." && *part != ".."));
    path
}

/// The path of each hierarchy in a /proc/PID/cgroup file: `N:controllers:path`.
fn own_paths(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        // A process outside our cgroup namespace's root is shown as /.. and no path of ours.
        Some((controllers, if path.starts_with("/..") { "/" } else { path }))
    })
}

/// `path` as config.json means it, beneath the mount of a hierarchy.
fn locate(mount: &Path, own: &str, path: &str) -> PathBuf {
    let inside = if path.starts_with('/') { path.to_owned() } else { format!("{own}/{path}") };
    let mut located = mount.to_owned();
    located.extend(inside.split('/').filter(|part| !part.is_empty() && *part != "."));
    located
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_from_the_mount_or_relative_to_our_own() {
        let mount = Path::new("/sys/fs/cgroup/memory");
        for (own, path, located) in [
            ("/", "c1", "/sys/fs/cgroup/memory/c1"),
            ("/a/b", "c1", "/sys/fs/cgroup/memory/a/b/c1"),
            ("/a/b", "/docker/c1", "/sys/fs/cgroup/memory/docker/c1"),
            ("/", "//x/./y/", "/sys/fs/cgroup/memory/x/y"),
        ] {
            assert_eq!(locate(mount, own, path), Path::new(located));
        }
    }

    #[test]
    fn own_paths_are_read_from_every_form_of_line() {
        let text = "4:memory:/a:b\n3:cpu,cpuacct:/\n2:name=systemd:/../..\n0::/u\nbroken\n";
        let rows: Vec<_> = own_paths(text).collect();
        assert_eq!(rows, [("memory", "/a:b"), ("cpu,cpuacct", "/"), ("name=systemd", "/"), ("", "/u")]);
    }

    #[test]
    fn a_path_upwards_is_refused() {
        for path in ["../x", "/a/../../b", ".."] {
            assert!(plan(path, "id", false).is_err(), "{path}");
        }
    }
}
