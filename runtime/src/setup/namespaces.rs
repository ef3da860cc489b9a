//! Namespaces: which are made by the clone, which are joined, and in what order.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::setup::capabilities::lacking;
use crate::setup::idmap;
use crate::spec::{Linux, TimeOffset};
use crate::sys::clone;

const KINDS: [(&str, u64); 8] = [
    ("user", libc::CLONE_NEWUSER as u64),
    ("mount", libc::CLONE_NEWNS as u64),
    ("pid", libc::CLONE_NEWPID as u64),
    ("network", libc::CLONE_NEWNET as u64),
    ("ipc", libc::CLONE_NEWIPC as u64),
    ("uts", libc::CLONE_NEWUTS as u64),
    ("cgroup", libc::CLONE_NEWCGROUP as u64),
    ("time", clone::NEWTIME),
];

/// Their names under /proc/PID/ns, of those that differ from the kind or can be left and entered again.
const FILES: [(&str, u64); 4] = [
    ("net", libc::CLONE_NEWNET as u64),
    ("ipc", libc::CLONE_NEWIPC as u64),
    ("uts", libc::CLONE_NEWUTS as u64),
    ("cgroup", libc::CLONE_NEWCGROUP as u64),
];

/// In the parent, after the clone.
pub(crate) fn return_to(back: &[(OwnedFd, u64)]) -> Result<()> {
    for (fd, flag) in back {
        clone::setns(fd.as_fd(), *flag).step(|| "return to the caller's namespaces".into())?;
    }
    Ok(())
}

pub(crate) fn kind_flag(kind: &str) -> Option<u64> {
    KINDS.iter().find(|row| row.0 == kind).map(|row| row.1)
}

/// Made before the clone.
pub(crate) struct Plan {
    /// For clone3. The cgroup namespace is not among them: it must begin at the container's own cgroup.
    pub(crate) clone_flags: u64,
    pub(crate) new_cgroup: bool,
    pub(crate) new_network: bool,
    pub(crate) new_user: bool,
    pub(crate) new_pid: bool,
    time_offsets: Option<Vec<(String, TimeOffset)>>,
    join_user: Option<OwnedFd>,
    join_pid: Option<OwnedFd>,
    join_time: Option<OwnedFd>,
    join: Vec<(OwnedFd, u64)>,
}

pub(crate) fn validate(linux: &Linux) -> Result<()> {
    let mut seen = 0;
    for namespace in &linux.namespaces {
        let flag = kind_flag(&namespace.kind)
            .ok_or_else(|| Error::invalid(format!("namespace type {:?} is not known", namespace.kind)))?;
        if seen & flag != 0 {
            return Err(Error::invalid(format!(
                "linux.namespaces: malformed spec file: duplicated ns {}",
                namespace.kind
            )));
        }
        seen |= flag;
        if !namespace.path.is_empty() && !namespace.path.starts_with('/') {
            return Err(Error::invalid(format!("namespace path {:?} is not absolute", namespace.path)));
        }
    }
    match linux.namespace("mount") {
        None => {
            return Err(Error::invalid("linux.namespaces: a container needs a mount namespace of its own"));
        }
        Some(mount) if !mount.path.is_empty() => refuse_with_joined_mounts(linux)?,
        Some(_) => {}
    }
    if linux.time_offsets.keys().any(|clock| clock != "monotonic" && clock != "boottime") {
        return Err(Error::invalid("linux.timeOffsets: they are for the clocks monotonic and boottime"));
    }
    if !linux.time_offsets.is_empty() && linux.namespace("time").is_none_or(|ns| !ns.path.is_empty()) {
        return Err(Error::invalid("linux.timeOffsets: they need a new time namespace"));
    }
    idmap::validate(&linux.uid_mappings)?;
    idmap::validate(&linux.gid_mappings)
}

/// What is set through /proc would be set through the /proc of a namespace that others have made.
fn refuse_with_joined_mounts(linux: &Linux) -> Result<()> {
    if !linux.sysctl.is_empty() {
        return Err(Error::invalid("linux.sysctl cannot be set from a joined mount namespace"));
    }
    if linux.namespace("user").is_some_and(|user| user.path.is_empty()) {
        return Err(Error::invalid("a mount namespace cannot be joined from a new user namespace"));
    }
    Ok(())
}

pub(crate) fn plan(linux: &Linux) -> Result<Plan> {
    let mut plan = Plan {
        clone_flags: 0,
        new_cgroup: false,
        new_network: false,
        new_user: false,
        new_pid: false,
        time_offsets: None,
        join_user: None,
        join_pid: None,
        join_time: None,
        join: Vec::new(),
    };
    for namespace in &linux.namespaces {
        let Some(flag) = kind_flag(&namespace.kind) else { continue };
        let kind = namespace.kind.as_str();
        if !namespace.path.is_empty() {
            let fd = rustix::fs::open(&namespace.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step(|| format!("open {kind} namespace {}", namespace.path))?;
            match kind {
                "user" => plan.join_user = Some(fd),
                "pid" => plan.join_pid = Some(fd),
                "time" => plan.join_time = Some(fd),
                _ => plan.join.push((fd, flag)),
            }
            continue;
        }
        match kind {
            "cgroup" => plan.new_cgroup = true,
            "time" => {
                plan.time_offsets = Some(linux.time_offsets.iter().map(|(k, v)| (k.clone(), *v)).collect());
            }
            _ => plan.clone_flags |= flag,
        }
        plan.new_network |= kind == "network";
        plan.new_user |= kind == "user";
        plan.new_pid |= kind == "pid";
    }
    // The mount namespace last: none of the others is then looked for in it.
    plan.join.sort_by_key(|(_, flag)| *flag == libc::CLONE_NEWNS as u64);
    Ok(plan)
}

impl Plan {
    /// A joined user namespace must be entered before the namespaces it is to own are made.
    pub(crate) fn joins_user(&self) -> bool {
        self.join_user.is_some()
    }

    /// In the parent: what concerns only its children (pid, time), and what a child in a new user namespace
    /// would not be allowed to join. Answers the way back: hooks run where the runtime was called.
    pub(crate) fn before_clone(&self) -> Result<Vec<(OwnedFd, u64)>> {
        let back = self.way_back()?;
        if let Some(pid) = &self.join_pid {
            clone::setns(pid.as_fd(), libc::CLONE_NEWPID as u64).step(|| "join the pid namespace".into())?;
        }
        if let Some(offsets) = &self.time_offsets {
            clone::unshare(clone::NEWTIME).step(|| "new time namespace".into())?;
            let text: String =
                offsets.iter().map(|(clock, o)| format!("{clock} {} {}\n", o.secs, o.nanosecs)).collect();
            if !text.is_empty() {
                std::fs::write("/proc/self/timens_offsets", &text).step(|| {
                    let offsets = text.trim_end().replace('\n', ", ");
                    format!("set linux.timeOffsets {offsets}{}", lacking("CAP_SYS_TIME"))
                })?;
            }
        }
        if self.new_user {
            self.join_others()?;
        }
        Ok(back)
    }

    fn way_back(&self) -> Result<Vec<(OwnedFd, u64)>> {
        let mut files = Vec::new();
        if self.join_pid.is_some() {
            files.push(("pid_for_children", libc::CLONE_NEWPID as u64));
        }
        if self.time_offsets.is_some() || (self.new_user && self.join_time.is_some()) {
            files.push(("time", clone::NEWTIME));
        }
        if self.new_user {
            for (_, flag) in &self.join {
                let name = FILES.iter().find(|row| row.1 == *flag).map_or("mnt", |row| row.0);
                files.push((name, *flag));
            }
        }
        files
            .into_iter()
            .map(|(name, flag)| {
                let path = format!("/proc/self/ns/{name}");
                let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                fd.step(|| format!("open {path}")).map(|fd| (fd, flag))
            })
            .collect()
    }

    /// In the process between, when a user namespace is joined.
    pub(crate) fn join_user(&self) -> Result<()> {
        match &self.join_user {
            Some(user) => clone::setns(user.as_fd(), libc::CLONE_NEWUSER as u64)
                .step(|| "join the user namespace".into()),
            None => Ok(()),
        }
    }

    /// In the child.
    pub(crate) fn after_clone(&self) -> Result<()> {
        if !self.new_user {
            self.join_others()?;
        }
        Ok(())
    }

    fn join_others(&self) -> Result<()> {
        if let Some(time) = &self.join_time {
            clone::setns(time.as_fd(), clone::NEWTIME).step(|| "join the time namespace".into())?;
        }
        for (fd, kind) in &self.join {
            clone::setns(fd.as_fd(), *kind).step(|| {
                let name = KINDS.iter().find(|row| row.1 == *kind).map_or("a", |row| row.0);
                format!("join the {name} namespace")
            })?;
        }
        Ok(())
    }
}

/// A new network namespace has its loopback device down.
pub(crate) fn bring_up_loopback() -> Result<()> {
    crate::sys::net::bring_up("lo").step(|| "bring up the loopback device".into())
}
