//! Containers of ordinary users, and of a root that is one only inside a user namespace.
//!
//! What is different for them: there may be no cgroup; ids are mapped by the helpers newuidmap and newgidmap where
//! the user's own are not enough; the process that sets a container up stays readable for us until it is mapped.

use std::fs;
use std::process::Command;

use crate::error::{Error, Result, Step};
use crate::spec::{IdMapping, Linux, User};

/// Whether the kernel gives this process rights over the machine: asked only once something was refused.
pub(crate) fn is_ordinary() -> bool {
    !rustix::process::geteuid().is_root() || is_in_user_namespace()
}

fn is_in_user_namespace() -> bool {
    const WHOLE: [&str; 3] = ["0", "0", "4294967295"];
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(WHOLE)
}

/// Whether XDG_RUNTIME_DIR is for us: also for a root that podman made of an ordinary user by a user namespace, as runc
/// has it; not for one whose name is root, as it is inside a container.
pub(crate) fn has_own_runtime_dir() -> bool {
    let is_called_root = || std::env::var("USER").is_ok_and(|name| name == "root");
    !rustix::process::geteuid().is_root() || (is_in_user_namespace() && !is_called_root())
}

/// Said in one sentence, before anything is tried.
pub(crate) fn require_rights(rootless: Option<bool>) -> Result<()> {
    if rootless == Some(false) && !rustix::process::geteuid().is_root() {
        return Err(Error::invalid("rung needs root when it is called with --rootless=false"));
    }
    Ok(())
}

/// What an ordinary user's container must be like.
pub(crate) fn validate(linux: &Linux) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if linux.namespace("user").is_none() {
        return Err(Error::invalid(
            "rootless containers need a user namespace: see `rung spec --rootless`, or run rung as root",
        ));
    }
    if linux.namespace("time").is_some_and(|time| time.path.is_empty()) {
        return Err(Error::invalid("a new time namespace needs root"));
    }
    if !linux.net_devices.is_empty() {
        return Err(Error::invalid("linux.netDevices needs root: it takes devices from the machine"));
    }
    Ok(())
}

/// An ordinary user may map its own id and nothing more.
fn needs_helper(mappings: &[IdMapping], own: u32) -> bool {
    !matches!(mappings, [one] if one.size == 1 && one.host_id == own)
}

/// Without the helper an ordinary user has to give up setgroups.
pub(crate) fn may_set_groups(gids: &[IdMapping]) -> bool {
    rustix::process::geteuid().is_root() || needs_helper(gids, rustix::process::getegid().as_raw())
}

/// In the user namespace of a process.
pub(crate) fn groups_can_be_set_in(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.trim() == "allow")
}

pub(crate) fn refuse_groups(may_set_groups: bool, user: &User) -> Result<()> {
    if may_set_groups || user.additional_gids.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        "process.user.additionalGids cannot be set: the group mapping of an ordinary user's own id alone takes no \
         further groups (map more of them in linux.gidMappings)",
    ))
}

/// The mapping of a process in a new user namespace, as far as the kernel does not take it from us directly.
/// Answers which of the two were written.
pub(crate) fn map_by_helpers(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(bool, bool)> {
    if rustix::process::geteuid().is_root() {
        return Ok((false, false));
    }
    let by_uid = needs_helper(uids, rustix::process::geteuid().as_raw());
    let by_gid = needs_helper(gids, rustix::process::getegid().as_raw());
    if by_uid {
        run_helper("newuidmap", pid, uids, "/etc/subuid")?;
    }
    if by_gid {
        run_helper("newgidmap", pid, gids, "/etc/subgid")?;
    }
    Ok((by_uid, by_gid))
}

fn run_helper(name: &str, pid: i32, mappings: &[IdMapping], table: &str) -> Result<()> {
    let mut command = Command::new(name);
    command.arg(pid.to_string());
    for mapping in mappings {
        command.args([mapping.container_id, mapping.host_id, mapping.size].map(|n| n.to_string()));
    }
    let output = command.output().step(|| format!("run {name} (Debian has it in the package uidmap)"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::invalid(format!("{name}: {} ({table} says which ids a user may map)", said.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_id_is_mapped_without_help() {
        let map = |host_id, size| IdMapping { container_id: 0, host_id, size };
        for (mappings, helper) in [
            (vec![map(1000, 1)], false),
            (vec![map(1001, 1)], true),
            (vec![map(1000, 2)], true),
            (vec![map(1000, 1), map(100_000, 65536)], true),
            (vec![], true),
        ] {
            assert_eq!(needs_helper(&mappings, 1000), helper, "{mappings:?}");
        }
    }
}
