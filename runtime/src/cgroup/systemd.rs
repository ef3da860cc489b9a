//! cgroups that systemd manages: a scope (or a slice) is asked for by D-Bus, with the limits as its properties, so that
//! systemd does not take them back; what it has no properties for is written to the files as without it.
//!
//! A scope begins its life with a process in it. So the container's process is made first and waits until it has been
//! put into its place; only then the limits and the rules for devices are set, and it goes on.

use std::path::PathBuf;

use super::dbus::{Body, Connection, Value};
use super::{Driver, Entrance, Paths, SubCgroup, limits};
use crate::error::{Error, Result, Step};
use crate::ranges::bits;
use crate::spec::Resources;

pub(super) struct Cgroup {
    unit: String,
    slice: String,
    files: Box<dyn Driver>,
}

/// The parts of `slice:prefix:name`, or of nothing.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    slice: String,
    unit: String,
}

fn name(cgroups_path: &str, id: &str, rootless: bool) -> Result<Name> {
    let default = if rootless { "user.slice" } else { "system.slice" };
    let parts: Vec<&str> =
        if cgroups_path.is_empty() { vec!["", "rung", id] } else { cgroups_path.split(':').collect() };
    let [slice, prefix, name] = parts[..] else {
        return Err(Error::invalid(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} instead"
        )));
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    if name.is_empty() || !plain(slice) || !plain(prefix) || !plain(name) {
        return Err(Error::invalid(format!("cgroupsPath {cgroups_path:?} holds no names of systemd units")));
    }
    let slice = if slice.is_empty() { default } else { slice };
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    Ok(Name { slice: slice.to_owned(), unit })
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> Result<PathBuf> {
    let wrong = || Error::invalid(format!("{slice:?} is no name of a slice"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains('/')).ok_or_else(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut whole = String::new();
    for part in name.split('-') {
        if part.is_empty() || part == "." || part == ".." {
            return Err(wrong());
        }
        if !whole.is_empty() {
            whole.push('-');
        }
        whole.push_str(part);
        path.push(format!("{whole}.slice"));
    }
    Ok(path)
}

/// Root's, or that of the user's own session.
fn connect(rootless: bool) -> Result<Connection> {
    if !rootless {
        return Connection::open("/run/systemd/private");
    }
    let dir = std::env::var("XDG_RUNTIME_DIR").map_err(|_| {
        Error::invalid(
            "--systemd-cgroup of an ordinary user needs XDG_RUNTIME_DIR, where the user's systemd is",
        )
    })?;
    Connection::open(&format!("{dir}/systemd/private"))
}

fn is_rootless() -> bool {
    !rustix::process::geteuid().is_root()
}

pub(super) fn plan(cgroups_path: &str, id: &str) -> Result<Cgroup> {
    let rootless = is_rootless();
    let Name { slice, unit } = name(cgroups_path, id, rootless)?;
    let mut path = PathBuf::from("/");
    if rootless {
        path.push(connect(true)?.control_group()?.trim_start_matches('/'));
    }
    path.push(if unit.ends_with(".slice") { slice_path(&unit)? } else { slice_path(&slice)?.join(&unit) });
    let files = super::files_driver(&path.to_string_lossy(), id)?;
    Ok(Cgroup { unit, slice, files })
}

impl Cgroup {
    fn properties(&self, resources: &Resources) -> Vec<(&'static str, Value)> {
        let mut list = Vec::new();
        let positive = |n: Option<i64>| n.filter(|&n| n != 0).map(|n| u64::try_from(n).unwrap_or(u64::MAX));
        if let Some(limit) = positive(resources.memory.limit) {
            list.push(("MemoryMax", Value::Number(limit)));
        }
        if let Some(low) = positive(resources.memory.reservation) {
            list.push(("MemoryLow", Value::Number(low)));
        }
        if let Some(limit) = positive(resources.pids.limit) {
            list.push(("TasksMax", Value::Number(limit)));
        }
        if let Some(shares) = resources.cpu.shares.filter(|&n| n != 0) {
            list.push(("CPUWeight", Value::Number(limits::weight_of_shares(shares))));
        }
        if let Some(quota) = resources.cpu.quota.filter(|&n| n != 0) {
            const SECOND: u64 = 1_000_000;
            let period = resources.cpu.period.filter(|&n| n != 0).unwrap_or(100_000);
            let each_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
                // systemd counts in hundredths of a processor, rounded up as in the original.
                (quota.saturating_mul(SECOND) / period).next_multiple_of(10_000)
            });
            list.push(("CPUQuotaPeriodUSec", Value::Number(period)));
            list.push(("CPUQuotaPerSecUSec", Value::Number(each_second)));
        }
        for (property, numbers) in
            [("AllowedCPUs", &resources.cpu.cpus), ("AllowedMemoryNodes", &resources.cpu.mems)]
        {
            // Not on v1, whose systemd has no such property; what is no list the file itself will refuse.
            if !numbers.is_empty()
                && self.files.paths().len() == 1
                && let Some(mask) = bits(numbers)
            {
                let bytes = mask.iter().flat_map(|word| word.to_le_bytes()).collect();
                list.push((property, Value::Bytes(bytes)));
            }
        }
        list
    }
}

impl Driver for Cgroup {
    fn paths(&self) -> &Paths {
        self.files.paths()
    }

    /// A unit that is there already systemd itself refuses to make.
    fn refuse_in_use(&self) -> Result<()> {
        if self.files.paths().len() > 1 { self.files.refuse_in_use() } else { Ok(()) }
    }

    /// On v1 systemd makes its own hierarchy's alone.
    fn create(&self) -> Result<()> {
        if self.files.paths().len() > 1 { self.files.create() } else { Ok(()) }
    }

    fn apply(&self, _resources: &Resources, _fresh: bool) -> Result<()> {
        Ok(())
    }

    fn entrance(&self, below: &[SubCgroup]) -> Result<Entrance> {
        self.files.entrance(below)
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        self.files.freeze(frozen)
    }

    fn is_frozen(&self) -> bool {
        self.files.is_frozen()
    }

    fn processes(&self) -> Result<Vec<i32>> {
        self.files.processes()
    }

    fn kill_all(&self) -> Result<()> {
        self.files.kill_all()
    }

    fn unit(&self) -> Option<&str> {
        Some(&self.unit)
    }

    fn place(&self, pid: i32, resources: &Resources) -> Result<()> {
        let pid = u32::try_from(pid).map_err(|_| Error::invalid("a process id is negative"))?;
        let mut properties = vec![
            ("Description", Value::Text(format!("rung container {}", self.unit))),
            ("DefaultDependencies", Value::Bool(false)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("IOAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
        ];
        if self.unit.ends_with(".slice") {
            properties.push(("Wants", Value::Text(self.slice.clone())));
        } else {
            properties.push(("Slice", Value::Text(self.slice.clone())));
            // The container makes cgroups of its own below, and this program writes to the files.
            properties.push(("Delegate", Value::Bool(true)));
            properties.push(("PIDs", Value::Numbers32(vec![pid])));
        }
        properties.extend(self.properties(resources));
        let body = || Body::default().text(&self.unit).text("replace").properties(&properties).no_others();
        let mut systemd = connect(is_rootless())?;
        let started = match systemd.call_and_wait("StartTransientUnit", &body()) {
            // One of that name has failed and is only remembered.
            Err(failure) if failure.is("org.freedesktop.systemd1.UnitExists") => {
                let _ = systemd.call("ResetFailedUnit", &Body::default().text(&self.unit));
                systemd.call_and_wait("StartTransientUnit", &body())
            }
            result => result,
        };
        started.map_err(|failure| {
            failure.into_error().during(format!("start the systemd unit {}", self.unit))
        })?;
        self.files.apply(resources, true)
    }
}

/// New limits for a unit of a running container; those that it has no properties for are written after.
pub(crate) fn set_properties(unit: &str, paths: &Paths, resources: &Resources) -> Result<()> {
    let cgroup = Cgroup { unit: unit.to_owned(), slice: String::new(), files: super::open(paths) };
    let properties = cgroup.properties(resources);
    if properties.is_empty() {
        return Ok(());
    }
    let body = Body::default().text(unit).bool(true).properties(&properties);
    let answer = connect(is_rootless())?.call("SetUnitProperties", &body);
    answer.map(drop).map_err(|failure| failure.into_error().during(format!("set properties of {unit}")))
}

/// Give the unit up, whether or not it is there.
pub(crate) fn stop(unit: &str) -> Result<()> {
    let mut systemd = connect(is_rootless())?;
    let stopped = systemd.call_and_wait("StopUnit", &Body::default().text(unit).text("replace"));
    let _ = systemd.call("ResetFailedUnit", &Body::default().text(unit));
    match stopped {
        Err(failure) if !failure.is("org.freedesktop.systemd1.NoSuchUnit") => {
            Err(failure.into_error()).step(|| format!("stop the systemd unit {unit}"))
        }
        _ => Ok(()),
    }
}

/// The unit's own folder, for whoever looks for what is left.
#[cfg(test)]
fn path_of(name: &Name) -> Result<PathBuf> {
    Ok(PathBuf::from("/").join(slice_path(&name.slice)?).join(&name.unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_units_in_slices() {
        for (path, slice, unit, place) in [
            ("", "system.slice", "rung-c1.scope", "/system.slice/rung-c1.scope"),
            ("system.slice:docker:abc", "system.slice", "docker-abc.scope", "/system.slice/docker-abc.scope"),
            (":libpod:x", "system.slice", "libpod-x.scope", "/system.slice/libpod-x.scope"),
            ("a-b-c.slice:p:n", "a-b-c.slice", "p-n.scope", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
            ("-.slice:p:n", "-.slice", "p-n.scope", "/p-n.scope"),
        ] {
            let name = name(path, "c1", false).expect(path);
            assert_eq!((name.slice.as_str(), name.unit.as_str()), (slice, unit), "{path}");
            assert_eq!(path_of(&name).expect(path), PathBuf::from(place));
        }
        assert_eq!(name("s.slice:p:x.slice", "c1", false).expect("valid").unit, "x.slice");
        assert_eq!(name("", "c1", true).expect("valid").slice, "user.slice");
        for refused in ["a", "a:b", "a:b:", "a/b.slice:p:n", "a.slice:p:../n", "a:b:c:d"] {
            assert!(name(refused, "c1", false).is_err(), "{refused}");
        }
        for refused in ["a", "a--b.slice", "-a.slice", "..-x.slice", ".slice"] {
            assert!(slice_path(refused).is_err(), "{refused}");
        }
    }
}
