//! Adoption: a shim was killed, and this one goes on with its containers.
//!
//! A runtime command that was under way has been waited for (launch), and what it did is asked of the runtime. The
//! processes are held by pidfd, and have another parent now: how one ends is told by its stat while nobody has reaped
//! it, then by its pidfd (kernel 6.15). Where neither does, the status is 255, as a containerd says of a task it lost.

use super::exec::Files;
use super::{Handle, Handled, Rest, Shim};
use crate::error::Error;
use crate::handover::Kept;
use crate::io::Readers;
use crate::process::{Exit, State};
use crate::sys;
use prost::Message;
use proto::task::{bundle, events, gantry, topic};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::time::SystemTime;

/// Of a process of which nobody can say how it ended.
const UNKNOWN: u32 = 255;

impl super::Process {
    /// Created from a checkpoint, and not known to run or to have failed yet.
    fn waits_for_restore(&self) -> bool {
        self.restore.is_some() || self.restoring
    }

    /// How a daemon calls a descriptor of this process that it keeps.
    fn kept_name(&self, what: &str) -> String {
        format!("{}/{}.{what}", self.container, self.exec_id)
    }

    /// What wakes at the end of a process that another one reaps.
    pub(crate) fn adopted_pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().filter(|_| self.adopted).map(AsFd::as_fd)
    }
}

impl Shim {
    /// What a daemon is to keep for a shim that adopts.
    pub(crate) fn descriptors(&self) -> Handled {
        let mut descriptors = Vec::new();
        for process in self.processes.values() {
            let pidfd = process.pidfd.iter().map(|fd| ("pid".to_owned(), fd.as_fd()));
            for (name, fd) in pidfd.chain(process.io.keepable()) {
                let Ok(stat) = rustix::fs::fstat(fd) else { continue };
                descriptors.push(gantry::Descriptor {
                    name: process.kept_name(&name),
                    number: fd.as_raw_fd(),
                    device: stat.st_dev,
                    inode: stat.st_ino,
                });
            }
        }
        let process = std::process::id().cast_signed();
        Handled::Now(gantry::DescriptorsResponse { descriptors, process }.encode_to_vec())
    }

    /// Makes the state of a killed shim this one's.
    pub(crate) fn adopt(&mut self, kept: &Kept) -> Result<(), Error> {
        self.calls.clear();
        self.early_exits.clear();
        self.shutdown = false;
        self.askers.clear();
        self.sandbox.iter_mut().for_each(super::sandbox::Sandbox::adopt);
        self.changed = true;
        for process in self.processes.values_mut() {
            process.waiters.clear();
            process.deleting = None;
            process.busy = false;
        }
        let all: Vec<(String, Handle)> = self.containers.iter().map(|(id, c)| (id.clone(), c.init)).collect();
        let (inits, unmade): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, init)| {
            let process = self.process(*init);
            process.pid != 0 || process.waits_for_restore()
        });
        if inits.is_empty() && !unmade.is_empty() {
            return Err(Error::precondition("a create was under way, which is to be undone"));
        }
        // Who asked for it takes it back, and the others of its group go on.
        unmade.into_iter().for_each(|(id, init)| self.forget_unmade(&id, init));
        for (id, init) in &inits {
            self.adopt_container(id);
            self.find_state(id, *init);
        }
        let handles: Vec<Handle> = self.processes.keys().copied().collect();
        for handle in &handles {
            self.adopt_io(*handle, kept);
            self.adopt_process(*handle, kept);
        }
        // Those of execs come before that of their container by themselves.
        handles.into_iter().for_each(|handle| self.settle_exit(handle));
        Ok(())
    }

    fn forget_unmade(&mut self, id: &str, init: Handle) {
        let base = self.io_base(init);
        self.containers.remove(id);
        if let Some(mut process) = self.processes.remove(&init) {
            process.io.close();
            process.io.remove_named(&base);
        }
    }

    fn adopt_container(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.rest == Rest::BeingKilled {
            container.rest = Rest::Alive;
        }
        if let (Some(cgroup), Some(watch)) = (&container.cgroup, container.oom.take()) {
            container.oom = watch.adopt(cgroup).unwrap_or_else(|e| {
                crate::complain!("{id}: {e}");
                None
            });
        }
    }

    /// A start, pause or resume may have come to its end after the last state was written.
    fn find_state(&mut self, id: &str, init: Handle) {
        let process = self.process(init);
        if process.exit.is_some() || process.held.is_some() || process.waits_for_restore() {
            return;
        }
        let container = &self.containers[id];
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        let found = container.runtime.status(&log, id);
        let (pid, container_id) = (process.pid, id.to_owned());
        let state = match (process.state, found.as_deref()) {
            (State::Created, Some("running")) => {
                self.publisher.publish(topic::START, &events::TaskStart { container_id, pid });
                State::Running
            }
            (State::Created | State::Running, Some("paused")) => {
                self.publisher.publish(topic::PAUSED, &events::TaskPaused { container_id });
                State::Paused
            }
            (State::Paused, Some("running")) => {
                self.publisher.publish(topic::RESUMED, &events::TaskResumed { container_id });
                State::Running
            }
            (state, _) => state,
        };
        self.process_mut(init).state = state;
    }

    fn adopt_io(&mut self, handle: Handle, kept: &Kept) {
        let process = self.process(handle);
        if process.waits_for_restore() {
            return self.adopt_restore(handle, kept);
        }
        if process.is_init() || process.pid != 0 || process.state != State::Created {
            return self.adopt_open_io(handle, kept);
        }
        // The start of an exec may have come to its end after the last state was written.
        let Some(container) = self.containers.get(&process.container) else { return };
        let files = Files::new(&container.bundle, &process.exec_id);
        let (base, has_started) = (self.io_base(handle), super::create::read_pid(&files.pid).is_ok());
        let process = self.process_mut(handle);
        if has_started {
            process.io.assume_open(base, None);
            self.adopt_open_io(handle, kept);
            self.exec_started(handle, None, Ok(()));
        } else {
            process.io.forget_open();
            files.remove();
        }
    }

    pub(super) fn adopt_open_io(&mut self, handle: Handle, kept: &Kept) {
        let container = &self.process(handle).container;
        let is_own = self.containers.get(container).is_some_and(|container| container.own_client);
        let readers = if is_own { Readers::Optional } else { Readers::Expected };
        let process = self.process_mut(handle);
        let io = std::mem::take(&mut process.io);
        process.io = io.adopt(readers, |name| kept.get(&process.kept_name(name)));
    }

    fn adopt_process(&mut self, handle: Handle, kept: &Kept) {
        let process = self.process_mut(handle);
        if process.pid == 0 || process.exit.is_some() {
            return;
        }
        process.adopted = true;
        if process.held.is_some() {
            process.pidfd = None;
            return;
        }
        let open = || {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            (sys::start_time(process.pid) == Some(process.start_time)).then_some(pidfd)
        };
        process.pidfd = kept.get(&process.kept_name("pid")).or_else(open);
        if process.pidfd.is_none() {
            crate::complain!("process {} has ended while no shim was there, and nobody held it", process.pid);
            process.held = Some(Exit { status: UNKNOWN, at: SystemTime::now() });
        }
    }

    /// A process that another one reaps has ended.
    pub(crate) fn adopted_ended(&mut self, handle: Handle) {
        let Some(process) = self.processes.get(&handle) else { return };
        let Some(pidfd) = &process.pidfd else { return };
        // Reaped between the two looks, it is known to the second.
        let status =
            sys::zombie_status(process.pid, process.start_time).or_else(|| sys::reaped_status(pidfd));
        let status = status.map_or(UNKNOWN, |status| match status & 0x7f {
            0 => (status >> 8 & 0xff) as u32,
            signal => 128 + signal as u32,
        });
        self.reaped(process.pid, Exit { status, at: SystemTime::now() });
    }
}
