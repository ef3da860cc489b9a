//! User namespace mappings, written by the parent for the child.

use std::fs;

use crate::error::{Error, Result, Step};
use crate::rootless;
use crate::spec::IdMapping;

/// The kernel's own limit.
const MOST_EXTENTS: usize = 340;

pub(crate) fn validate(mappings: &[IdMapping]) -> Result<()> {
    if mappings.len() > MOST_EXTENTS {
        return Err(Error::invalid(format!("more than {MOST_EXTENTS} id mappings")));
    }
    if mappings.iter().any(|m| m.size == 0) {
        return Err(Error::invalid("an id mapping has size 0"));
    }
    Ok(())
}

fn text(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

pub(crate) fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    let (uids_done, gids_done) = rootless::map_by_helpers(pid, uids, gids)?;
    if !rustix::process::geteuid().is_root() && !gids_done {
        // An ordinary user may map groups only after giving up setgroups.
        fs::write(format!("/proc/{pid}/setgroups"), "deny").step(|| "deny setgroups".into())?;
    }
    // One write each: the kernel takes a map once and whole.
    if !uids_done {
        fs::write(format!("/proc/{pid}/uid_map"), text(uids))
            .step(|| "linux.uidMappings: write the user id mapping".into())?;
    }
    if !gids_done {
        fs::write(format!("/proc/{pid}/gid_map"), text(gids))
            .step(|| "linux.gidMappings: write the group id mapping".into())?;
    }
    Ok(())
}
