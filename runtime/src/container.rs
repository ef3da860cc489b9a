//! The container from outside: its record, its status as the kernel shows it, and what may be asked of it when.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::cgroup::{self, Driver};
use crate::error::{Error, Result, Step};
use crate::hooks;
use crate::spawn::gate;
use crate::state::{Lock, Record, StateDir};
use crate::sys::{self, files};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

/// What a command wants to do with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Exec { ignore_paused: bool },
    Kill,
    Delete,
    Pause,
    Resume,
    Update,
    Processes,
    Checkpoint,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }

    /// The one table of what is allowed when.
    pub(crate) fn allows(self, request: Request) -> Result<()> {
        use Request as R;
        use Status as S;
        let refuse = |text: &str| Err(Error::WrongState(text.to_owned()));
        match (self, request) {
            (
                S::Created,
                R::Start | R::Exec { .. } | R::Kill | R::Delete | R::Pause | R::Update | R::Processes,
            ) => Ok(()),
            (S::Running, R::Exec { .. } | R::Kill | R::Pause | R::Update | R::Processes | R::Checkpoint) => {
                Ok(())
            }
            (
                S::Paused,
                R::Kill
                | R::Resume
                | R::Update
                | R::Processes
                | R::Checkpoint
                | R::Exec { ignore_paused: true },
            ) => Ok(()),
            (S::Stopped, R::Delete | R::Processes) => Ok(()),

            (S::Running, R::Start) => refuse("cannot start an already running container"),
            (S::Paused, R::Start) => refuse("cannot start a paused container"),
            (S::Stopped, R::Start) => refuse("cannot start a container that has stopped"),
            (S::Stopped, R::Exec { .. }) => refuse("cannot exec in a stopped container"),
            (S::Paused, R::Exec { .. }) => {
                refuse("cannot exec in a paused container (use --ignore-paused to override)")
            }
            (S::Stopped, R::Kill | R::Pause | R::Update) => Err(Error::NotRunning),
            (S::Paused, R::Pause) => Err(Error::NotRunning),
            (_, R::Resume) => Err(Error::NotPaused),
            (S::Created | S::Stopped, R::Checkpoint) => {
                refuse(&format!("Container cannot be checkpointed in {} state", self.name()))
            }
            (S::Running | S::Paused, R::Delete) => refuse("container still running"),
        }
    }
}

pub(crate) struct Container {
    pub(crate) record: Record,
    pub(crate) dir: StateDir,
}

/// The state document of the runtime-spec, with what runc adds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateDocument<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: &'a str,
    pub(crate) rootfs: &'a str,
    pub(crate) created: &'a str,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: &'a std::collections::BTreeMap<String, String>,
    pub(crate) owner: String,
}

impl Container {
    pub(crate) fn load(root: &str, id: &str) -> Result<Container> {
        let container = Container::load_unfinished(root, id)?;
        if container.record.init_process_pid == 0 { Err(Error::NotFound) } else { Ok(container) }
    }

    /// Also one that is being created, or whose `create` was killed.
    pub(crate) fn load_unfinished(root: &str, id: &str) -> Result<Container> {
        let dir = StateDir::of(root, id)?;
        Ok(Container { record: dir.read()?, dir })
    }

    /// Load under the container's lock, for a command that changes it.
    pub(crate) fn lock(root: &str, id: &str) -> Result<(Container, Lock)> {
        let dir = StateDir::of(root, id)?;
        let lock = dir.lock()?;
        Ok((Container { record: dir.read()?, dir }, lock))
    }

    /// The truth is the kernel's: is that very process alive, does it still wait at the gate, is it frozen.
    pub(crate) fn status(&self) -> Status {
        if !self.is_alive() {
            Status::Stopped
        } else if self.cgroup().is_frozen() {
            Status::Paused
        } else if gate::is_waiting(&self.dir) {
            Status::Created
        } else {
            Status::Running
        }
    }

    fn is_alive(&self) -> bool {
        let pid = self.record.init_process_pid;
        pid > 0
            && sys::proc::stat(pid)
                .is_ok_and(|stat| !stat.is_dead() && stat.start_time == self.record.init_process_start)
    }

    pub(crate) fn cgroup(&self) -> Box<dyn Driver> {
        cgroup::open(&self.record.cgroup_paths)
    }

    /// A handle on the first process that cannot come to mean another one.
    pub(crate) fn pidfd(&self) -> Result<OwnedFd> {
        let pidfd = files::pidfd_open(self.record.init_process_pid).map_err(|_| Error::NotRunning)?;
        // Opened first, checked then: from here on the number may be reused, the handle may not.
        if self.is_alive() { Ok(pidfd) } else { Err(Error::NotRunning) }
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        let pidfd = self.pidfd()?;
        match files::pidfd_send_signal(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(Error::NotRunning),
            result => result.step(|| "signaling init process".into())?,
        }
        // A frozen process of v1 sees even SIGKILL only once it is thawed.
        if signal == libc::SIGKILL && self.cgroup().is_frozen() {
            self.cgroup().freeze(false)?;
        }
        Ok(())
    }

    /// Somebody may have moved it into a cgroup of his own that is frozen, where nothing can end it: back in its own it
    /// goes on, to its end.
    fn bring_back(&self) {
        if let Some(dir) = self.record.cgroup_paths.get("freezer") {
            let _ = std::fs::write(dir.join("cgroup.procs"), self.record.init_process_pid.to_string());
        }
    }

    /// SIGKILL to the first process, and to all others where no pid namespace takes them along; then wait.
    pub(crate) fn kill_and_wait(&self) -> Result<()> {
        const USUAL_MS: i32 = 200;
        const PATIENCE_MS: i32 = 10_000;
        match self.pidfd() {
            Err(Error::NotRunning) => {}
            Err(error) => return Err(error),
            Ok(pidfd) => {
                self.signal(libc::SIGKILL).or_else(|error| match error {
                    Error::NotRunning => Ok(()),
                    other => Err(other),
                })?;
                let ended = |patience| {
                    files::wait_readable(pidfd.as_fd(), patience).step(|| "wait for init process".into())
                };
                if ended(USUAL_MS)? {
                    return Ok(());
                }
                self.bring_back();
                if !ended(PATIENCE_MS)? {
                    return Err(Error::WrongState("container init still running".into()));
                }
            }
        }
        Ok(())
    }

    /// Give back everything a stopped container holds. What fails does not keep the rest from being removed.
    pub(crate) fn destroy(&self, warn: &mut dyn FnMut(&str)) -> Result<()> {
        // Of a `create` that was killed nobody knows the first process.
        if !self.record.config.own_pid_namespace || self.record.init_process_pid == 0 {
            self.cgroup().kill_all()?;
        }
        let cgroup = self.give_cgroup_back();
        let poststop = &self.record.config.hooks.poststop;
        if !poststop.is_empty() {
            let state = self.document_as("stopped", 0);
            for failure in hooks::run_all_ignoring(poststop, &state) {
                warn(&failure.to_string());
            }
        }
        // A cgroup left behind must still be found by a later delete.
        cgroup.and_then(|()| self.dir.remove())
    }

    /// What systemd has made it removes; what it leaves, or never knew of, is removed as any other.
    pub(crate) fn give_cgroup_back(&self) -> Result<()> {
        let unit = &self.record.systemd_unit;
        let stopped = if unit.is_empty() { Ok(()) } else { cgroup::systemd::stop(unit) };
        cgroup::remove(&self.record.cgroup_paths).and(stopped)
    }

    pub(crate) fn document(&self) -> StateDocument<'_> {
        let status = self.status();
        let pid = if status == Status::Stopped { 0 } else { self.record.init_process_pid };
        self.document_as(status.name(), pid)
    }

    pub(crate) fn document_as(&self, status: &'static str, pid: i32) -> StateDocument<'_> {
        state_document(&self.record, status, pid)
    }

    /// Who made the container: the owner of its state directory.
    pub(crate) fn owner(&self) -> String {
        let uid = std::fs::metadata(self.dir.gate().with_file_name("")).map_or(0, |meta| meta.uid());
        user_name(uid).unwrap_or_else(|| format!("#{uid}"))
    }
}

pub(crate) fn state_document<'a>(record: &'a Record, status: &'static str, pid: i32) -> StateDocument<'a> {
    StateDocument {
        oci_version: &record.oci_version,
        id: &record.id,
        pid,
        status,
        bundle: &record.bundle,
        rootfs: &record.config.rootfs,
        created: &record.created,
        annotations: &record.annotations,
        owner: String::new(),
    }
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_when() {
        use Request::*;
        use Status::*;
        let exec = Exec { ignore_paused: false };
        for (status, allowed) in [
            (Created, vec![Start, exec, Kill, Delete, Pause, Update, Processes]),
            (Running, vec![exec, Kill, Pause, Update, Processes, Checkpoint]),
            (Paused, vec![Exec { ignore_paused: true }, Kill, Resume, Update, Processes, Checkpoint]),
            (Stopped, vec![Delete, Processes]),
        ] {
            for request in [Start, exec, Kill, Delete, Pause, Resume, Update, Processes, Checkpoint] {
                assert_eq!(
                    status.allows(request).is_ok(),
                    allowed.contains(&request),
                    "{status:?} {request:?}"
                );
            }
        }
        assert!(Paused.allows(Exec { ignore_paused: true }).is_ok());
    }

    #[test]
    fn refusals_use_the_words_callers_match() {
        for (status, request, text) in [
            (Status::Running, Request::Start, "cannot start an already running container"),
            (Status::Stopped, Request::Start, "cannot start a container that has stopped"),
            (Status::Stopped, Request::Exec { ignore_paused: false }, "cannot exec in a stopped container"),
            (Status::Stopped, Request::Kill, "container not running"),
            (Status::Running, Request::Resume, "container not paused"),
        ] {
            assert_eq!(status.allows(request).expect_err(text).to_string(), text);
        }
    }
}
