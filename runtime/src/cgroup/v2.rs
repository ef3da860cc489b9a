//! cgroup v2: one directory, entered by clone3.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::{Driver, Entrance, Paths, ROOT, SubCgroup, devices, limits};
use crate::error::{Error, Result, Step};
use crate::spec::Resources;
use crate::sys;

pub(super) struct Cgroup {
    path: PathBuf,
    paths: Paths,
}

impl Cgroup {
    pub(super) fn plan(path: &str, own: &str) -> Self {
        let own_path = super::own_paths(own).find(|row| row.0.is_empty()).map_or("/", |row| row.1);
        let path = super::locate(Path::new(ROOT), own_path, path);
        Cgroup { paths: BTreeMap::from([(String::new(), path.clone())]), path }
    }

    pub(super) fn open(paths: &Paths) -> Self {
        Cgroup { path: paths.get("").cloned().unwrap_or_default(), paths: paths.clone() }
    }
}

/// Hand every controller that `dir` has down to its children. Where that is refused (a directory with
/// processes of its own) a limit that needs the controller will say so.
fn delegate(dir: &Path) {
    let Ok(available) = super::read_file(dir, "cgroup.controllers") else { return };
    let enabled = super::read_file(dir, "cgroup.subtree_control").unwrap_or_default();
    for controller in available.split_whitespace() {
        if !enabled.split_whitespace().any(|name| name == controller) {
            let _ = super::write_file(dir, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

impl Driver for Cgroup {
    fn paths(&self) -> &Paths {
        &self.paths
    }

    fn refuse_in_use(&self) -> Result<()> {
        super::refuse_populated(&self.path)?;
        super::refuse_frozen(self)
    }

    fn create(&self) -> Result<()> {
        super::make_dirs(&self.path, &mut |_| Ok(()))?;
        let mut ancestors: Vec<_> =
            self.path.ancestors().skip(1).take_while(|dir| dir.starts_with(ROOT)).collect();
        ancestors.reverse();
        ancestors.into_iter().for_each(delegate);
        Ok(())
    }

    fn apply(&self, resources: &Resources, fresh: bool) -> Result<()> {
        for setting in limits::v2(resources)? {
            super::write_file(&self.path, &setting.file, &setting.value)
                .step(|| limits::field(setting.controller))?;
        }
        if fresh {
            let dir = self.open_directory()?;
            match devices::attach_v2(dir.as_fd(), &resources.devices) {
                // An ordinary user may not, and need not: in a user namespace only bound devices can be used.
                Err(error) if error.is_refusal() && crate::rootless::is_ordinary() => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn entrance(&self, below: &[SubCgroup]) -> Result<Entrance> {
        let mut path = self.path.clone();
        for (names, sub) in below {
            if !names.is_empty() {
                return Err(Error::invalid("cgroup v2 has no controllers to choose: give only a path"));
            }
            path = super::below(&self.path, sub);
        }
        let directory =
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.step(|| format!("open {}", path.display()))?;
        Ok(Entrance { clone_into: Some(directory), join: Vec::new() })
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        const PATIENCE_MS: i32 = 10_000;
        super::write_file(&self.path, "cgroup.freeze", if frozen { "1" } else { "0" })?;
        let events = self.path.join("cgroup.events");
        let file = std::fs::File::open(&events).step(|| format!("open {}", events.display()))?;
        let wanted = format!("frozen {}", i32::from(frozen));
        loop {
            let mut text = [0u8; 256];
            let count = rustix::io::pread(&file, &mut text, 0).step(|| "read cgroup.events".into())?;
            if String::from_utf8_lossy(&text[..count]).lines().any(|line| line == wanted) {
                return Ok(());
            }
            if !sys::signal::wait_priority(file.as_fd(), PATIENCE_MS)
                .step(|| "wait for the freezer".into())?
            {
                return Err(Error::invalid("the cgroup does not freeze: some process does not stop"));
            }
        }
    }

    fn is_frozen(&self) -> bool {
        super::read_file(&self.path, "cgroup.freeze").is_ok_and(|text| text == "1")
    }

    fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        match super::list_processes(&self.path, &mut found) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).step(|| format!("list processes of {}", self.path.display()))
            }
            _ => Ok(found),
        }
    }

    fn kill_all(&self) -> Result<()> {
        match super::write_file(&self.path, "cgroup.kill", "1") {
            Ok(()) => Ok(()),
            // Before Linux 5.14.
            Err(_) => super::kill_listed(self),
        }
        .and_then(|()| self.wait_empty())
    }
}

impl Cgroup {
    fn open_directory(&self) -> Result<std::os::fd::OwnedFd> {
        rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open {}", self.path.display()))
    }

    fn wait_empty(&self) -> Result<()> {
        for _ in 0..1000 {
            let events = super::read_file(&self.path, "cgroup.events").unwrap_or_default();
            if !events.lines().any(|line| line == "populated 1") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Error::invalid("some processes of the container do not end"))
    }
}
