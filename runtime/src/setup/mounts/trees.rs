//! Bind mounts that only the caller can make: those whose owners are mapped, and all of a container whose root may
//! not go where the caller may. They are made, detached, before the clone; the child attaches them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Idmap, Mappings, Step, What};
use crate::error::{Result, Step as _};
use crate::setup::idmap;
use crate::sys::clone::{Side, clone3};
use crate::sys::mount::{self, Attributes, SLAVE};
use crate::sys::{self, files};

/// By the place of their step.
pub(crate) type Trees = BTreeMap<usize, OwnedFd>;

/// `all`: every bind mount, since the child will be nobody to the host.
pub(crate) fn open_early(steps: &[Step], all: bool) -> Result<Trees> {
    let mut trees = Trees::new();
    let mut namespaces: Vec<(&Mappings, OwnedFd)> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let What::Bind { source, recursive } = &step.what else { continue };
        if !all && step.idmap.is_none() {
            continue;
        }
        let tree = mount::copy_of_path(source, *recursive).step(|| format!("bind source {source}"))?;
        // What the child would have made in a namespace that hears of the host and tells it nothing.
        let slave = Attributes { propagation: SLAVE, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), &slave, true).step(|| "set mount propagation".into())?;
        if let Some(map) = &step.idmap {
            map_owners(&tree, map, &mut namespaces)
                .step(|| format!("id-map the mount at {}", step.destination))?;
        }
        trees.insert(place, tree);
    }
    Ok(trees)
}

fn map_owners<'a>(
    tree: &OwnedFd,
    map: &'a Idmap,
    namespaces: &mut Vec<(&'a Mappings, OwnedFd)>,
) -> Result<()> {
    let known = namespaces.iter().position(|(mappings, _)| *mappings == &map.mappings);
    let place = match known {
        Some(place) => place,
        None => {
            namespaces.push((&map.mappings, user_namespace(&map.mappings)?));
            namespaces.len() - 1
        }
    };
    let userns_fd = namespaces[place].1.as_raw_fd() as u64;
    let attributes = Attributes { set: mount::ATTR_IDMAP, userns_fd, ..Attributes::default() };
    mount::set_attributes(tree.as_fd(), &attributes, map.recursive)
        .step(|| "set the mapping (not every filesystem takes one)".into())
}

fn user_namespace(mappings: &Mappings) -> Result<OwnedFd> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open the user namespace {path}"))
    };
    let (uids, gids) = match mappings {
        Mappings::Namespace(path) => return open(path),
        Mappings::Ids(uids, gids) => (uids, gids),
    };
    // A namespace exists through a process in it: one that does nothing, and ends when it is told to or when we
    // are gone, whichever is first.
    let (hold, held) = sys::scm::socketpair().step(|| "make a socket pair".into())?;
    match clone3(libc::CLONE_NEWUSER as u64, None).step(|| "make a user namespace".into())? {
        Side::Child => {
            drop(hold);
            let _ = rustix::io::read(&held, &mut [0; 1]);
            std::process::exit(0)
        }
        Side::Parent { pid, pidfd } => {
            let namespace =
                idmap::write(pid, uids, gids).and_then(|()| open(&format!("/proc/{pid}/ns/user")));
            let _ = files::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::signal::wait(pid);
            namespace
        }
    }
}
