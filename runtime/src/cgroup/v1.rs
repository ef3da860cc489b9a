//! cgroup v1: a directory in each controller's hierarchy. On a hybrid machine also one in the v2 hierarchy, which
//! has no controllers there but frees `kill` and `freeze` of races.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::{Driver, Entrance, Paths, ROOT, SubCgroup, devices, limits};
use crate::error::{Error, Result, Step};
use crate::spec::{Memory, Resources};

pub(super) struct Cgroup {
    paths: Paths,
}

impl Cgroup {
    pub(super) fn plan(path: &str, own: &str) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for (controllers, own_path) in super::own_paths(own) {
            let Some(mount) = find_mount(controllers) else { continue };
            for controller in controllers.split(',') {
                paths.insert(controller.to_owned(), super::locate(&mount, own_path, path));
            }
        }
        if paths.is_empty() {
            return Err(Error::invalid(format!("no cgroup hierarchy is mounted under {ROOT}")));
        }
        Ok(Cgroup { paths })
    }

    pub(super) fn open(paths: &Paths) -> Self {
        Cgroup { paths: paths.clone() }
    }

    /// Each directory once: some hierarchies hold several controllers.
    fn directories(&self) -> impl Iterator<Item = (&str, &Path)> {
        let mut seen: Vec<&Path> = Vec::new();
        self.paths.iter().filter_map(move |(controller, path)| {
            let path = path.as_path();
            if seen.contains(&path) {
                return None;
            }
            seen.push(path);
            Some((controller.as_str(), path))
        })
    }

    /// What is asked for by the name of a controller counts for the whole hierarchy that it is in.
    fn sub_directory(&self, controller: &str, path: &Path, below: &[SubCgroup]) -> PathBuf {
        let together = |name: &String| self.paths.get(name).is_some_and(|other| other == path);
        let wanted = below.iter().rev().find(|(names, _)| {
            if names.is_empty() { !controller.is_empty() } else { names.iter().any(together) }
        });
        wanted.map_or_else(|| path.to_owned(), |(_, sub)| super::below(path, sub))
    }

    fn directory(&self, controller: &str) -> Result<&Path> {
        let missing =
            || Error::invalid(format!("the {controller} cgroup controller is not available on this machine"));
        self.paths.get(controller).map(PathBuf::as_path).ok_or_else(missing)
    }
}

/// Where a hierarchy is mounted, by convention under one directory.
fn find_mount(controllers: &str) -> Option<PathBuf> {
    let mounted = |name: &str| {
        let path = Path::new(ROOT).join(name);
        path.join("cgroup.procs").exists().then_some(path)
    };
    match controllers {
        "" => mounted("unified").filter(|path| super::is_v2(&path.to_string_lossy())),
        named if named.starts_with("name=") => mounted(&named["name=".len()..]),
        list => mounted(list).or_else(|| list.split(',').find_map(mounted)),
    }
}

impl Driver for Cgroup {
    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn refuse_in_use(&self) -> Result<()> {
        self.directories().try_for_each(|(_, path)| super::refuse_populated(path))?;
        super::refuse_frozen(self)
    }

    fn create(&self) -> Result<()> {
        for (controller, path) in self.directories() {
            let mut made = |dir: &Path| if controller == "cpuset" { inherit_cpuset(dir) } else { Ok(()) };
            super::make_dirs(path, &mut made)?;
        }
        // Again, because a new one is as frozen as the one above it.
        super::refuse_frozen(self)
    }

    fn apply(&self, resources: &Resources, fresh: bool) -> Result<()> {
        let mut later: Option<limits::Setting> = None;
        for setting in limits::v1(resources)? {
            let field = || limits::field(setting.controller);
            let dir = self.directory(setting.controller).step(field)?;
            let file = weight_file(dir, &setting.file);
            match super::write_file(dir, &file, &setting.value) {
                // A shorter period can be refused until the quota has been lowered too, which is the next setting.
                Err(_) if setting.file == limits::PERIOD && resources.cpu.quota.is_some_and(|n| n != 0) => {
                    later = Some(setting);
                    continue;
                }
                result => result.step(field)?,
            }
            if setting.file == limits::QUOTA
                && let Some(period) = later.take()
            {
                super::write_file(dir, &period.file, &period.value)?;
            }
            if setting.file == limits::KERNEL_MEMORY {
                refuse_without_effect(dir, &setting)?;
            }
        }
        if resources.memory.limit.is_some() || resources.memory.swap.is_some() {
            set_memory(self.directory("memory")?, &resources.memory)?;
        }
        if fresh && let Some(dir) = self.paths.get("devices") {
            devices::write_v1(dir, &resources.devices)?;
        }
        Ok(())
    }

    fn entrance(&self, below: &[SubCgroup]) -> Result<Entrance> {
        let mut entrance = Entrance { clone_into: None, join: Vec::with_capacity(self.paths.len()) };
        for (names, _) in below {
            if let Some(name) = names.iter().find(|name| !self.paths.contains_key(*name)) {
                return Err(Error::invalid(format!("unknown controller {name} in --cgroup")));
            }
        }
        for (controller, path) in self.directories() {
            let path = self.sub_directory(controller, path, below);
            let path = path.as_path();
            if controller.is_empty() {
                entrance.clone_into = Some(open_directory(path)?);
                continue;
            }
            // `tasks` with 0 moves the calling thread alone, which the kernel does without stopping the world.
            let file = path.join("tasks");
            let fd = rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(|| {
                format!("adding pid of the new process to {}", path.join("cgroup.procs").display())
            })?;
            entrance.join.push(fd);
        }
        Ok(entrance)
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let dir = self.directory("freezer")?;
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(10);
        // FREEZING may last for ever while tasks fork: writing the state again lets the kernel finish.
        loop {
            super::write_file(dir, "freezer.state", wanted)?;
            if super::read_file(dir, "freezer.state").step(|| "read freezer.state".into())? == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = super::write_file(dir, "freezer.state", "THAWED");
                return Err(Error::invalid("unable to freeze: some process does not stop"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn is_frozen(&self) -> bool {
        let state = self.paths.get("freezer").and_then(|dir| super::read_file(dir, "freezer.state").ok());
        state.is_some_and(|state| state != "THAWED")
    }

    fn processes(&self) -> Result<Vec<i32>> {
        let dir = ["devices", "pids", "memory", "freezer"].iter().find_map(|name| self.paths.get(*name));
        let dir = dir.or_else(|| self.paths.values().next()).ok_or(Error::NotFound)?;
        let mut found = Vec::new();
        match super::list_processes(dir, &mut found) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).step(|| format!("list processes of {}", dir.display()))
            }
            _ => Ok(found),
        }
    }

    fn kill_all(&self) -> Result<()> {
        // A frozen process cannot die.
        if self.is_frozen() {
            self.freeze(false)?;
        }
        super::kill_listed(self)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open {}", path.display()))
}

/// Weights are the affair of a scheduler of disks: newer kernels have them by the name of the only one left.
fn weight_file(dir: &Path, file: &str) -> String {
    let newer = file.replace("blkio.", "blkio.bfq.");
    if file.contains("weight") && !dir.join(file).exists() && dir.join(&newer).exists() {
        newer
    } else {
        file.to_owned()
    }
}

/// Newer kernels take a limit of kernel memory and have none.
fn refuse_without_effect(dir: &Path, setting: &limits::Setting) -> Result<()> {
    const PAGE: i64 = 65536;
    let has = super::read_file(dir, &setting.file).ok().and_then(|text| text.parse::<i64>().ok());
    match (has, setting.value.parse::<i64>()) {
        (Some(has), Ok(wanted)) if wanted > 0 && (wanted - PAGE..=wanted).contains(&has) => Ok(()),
        (_, Ok(-1)) => Ok(()),
        _ => Err(Error::invalid(format!(
            "resources.memory.kernel: this kernel no longer limits kernel memory ({} has no effect)",
            setting.file
        ))),
    }
}

/// A new cpuset is empty and takes no process until it has CPUs and memory nodes. So may those above it be: of a runtime
/// that was killed in between, or is about to fill them.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read =
            |dir: &Path| super::read_file(dir, file).step(|| format!("read {file} of {}", dir.display()));
        if read(dir)?.is_empty() {
            let mut above = read(parent)?;
            if above.is_empty() {
                inherit_cpuset(parent)?;
                above = read(parent)?;
            }
            super::write_file(dir, file, &above)?;
        }
    }
    Ok(())
}

/// memory+swap may never be below memory, so which is written first depends on which way they move.
fn set_memory(dir: &Path, memory: &Memory) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let current = |file| super::read_file(dir, file).ok().and_then(|text| text.parse::<i64>().ok());
    let limit = memory.limit.filter(|&n| n != 0);
    let mut swap = memory.swap.filter(|&n| n != 0);
    if limit == Some(-1) && swap.is_none() && current(LIMIT_WITH_SWAP).is_some() {
        swap = Some(-1);
    }
    if memory.check_before_update == Some(true)
        && let (Some(limit), Some(usage)) = (limit, current("memory.usage_in_bytes"))
        && limit > 0
        && limit < usage
    {
        return Err(Error::invalid(format!(
            "rejecting memory limit {limit}: usage {usage} is higher, and processes would be killed"
        )));
    }
    let write = |file, value: Option<i64>| match value {
        Some(value) => super::write_file(dir, file, &value.to_string()).step(|| {
            let field = if file == LIMIT { "limit" } else { "swap" };
            format!("linux.resources.memory.{field}")
        }),
        None => Ok(()),
    };
    let raised = match (swap, current(LIMIT_WITH_SWAP)) {
        (Some(-1), _) => true,
        (Some(new), Some(old)) => old < new,
        _ => false,
    };
    if raised {
        write(LIMIT_WITH_SWAP, swap)?;
        write(LIMIT, limit)
    } else {
        write(LIMIT, limit)?;
        write(LIMIT_WITH_SWAP, swap)
    }
}
