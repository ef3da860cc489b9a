//! Out of memory: a container's cgroup is found when it was created, and watched until it is deleted.

use super::{Handle, Shim};
use crate::cgroup::{Cgroup, Watch};
use proto::task::{events, topic};
use rustix::fd::BorrowedFd;
use std::time::Instant;

impl Shim {
    /// A container runs without its figures rather than not at all.
    pub(super) fn watch_cgroup(&mut self, id: &str, pid: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.cgroup =
            Cgroup::of(pid).inspect_err(|e| crate::complain!("{id}: find its cgroup: {e}")).ok();
        let Some(cgroup) = &container.cgroup else { return };
        container.oom = Watch::begin(cgroup).unwrap_or_else(|e| {
            crate::complain!("{id}: {e}");
            None
        });
    }

    /// What wakes for a kill, with the container's first process.
    pub(crate) fn oom_watches(&self) -> impl Iterator<Item = (Handle, BorrowedFd<'_>)> {
        self.containers
            .values()
            .filter_map(|container| Some((container.init, container.oom.as_ref()?.wakes())))
    }

    pub(crate) fn oom_woken(&mut self, init: Handle) {
        if let Some(process) = self.processes.get(&init) {
            self.notice_oom(&process.container.clone());
        }
    }

    /// When a count of kills is to be looked at once more.
    pub(super) fn oom_deadlines(&self) -> impl Iterator<Item = (&str, Instant)> {
        let watches =
            self.containers.iter().filter_map(|(id, container)| Some((id, container.oom.as_ref()?)));
        watches.filter_map(|(id, watch)| Some((id.as_str(), watch.deadline()?)))
    }

    /// Tells each kill that has not been told.
    pub(super) fn notice_oom(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (Some(cgroup), Some(watch)) = (&container.cgroup, &mut container.oom) else { return };
        if watch.has_killed(cgroup) {
            self.publisher.publish(topic::OOM, &events::TaskOom { container_id: id.to_owned() });
        }
    }
}
