//! The sandbox that a containerd 2 may ask a shim for (its `sandboxer = "shim"`): this process itself, in which the pod's
//! containers are tasks like others. It has no process and no mounts of its own.
//!
//! ```text
//! created -> started (SANDBOX_READY) -> stopped (SANDBOX_NOTREADY) -> shut down: the shim ends with its last container
//! ```
//! Its containers are ended by who started them: a stop is refused while one runs.

use super::{Handled, MAX_WAITERS, ReplyTo, Shim, exhausted};
use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::process::State;
use prost::Message;
use proto::any;
use proto::kind::ErrorKind;
use proto::task::{cri, sandbox::*, types};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    id: String,
    created_at: SystemTime,
    is_started: bool,
    /// That of the pod, as a Kubernetes node names it, in which those of its containers lie; empty where nobody did.
    #[serde(default)]
    cgroup: String,
    stopped_at: Option<SystemTime>,
    /// The shim is to end once no container is left.
    is_shut_down: bool,
    waiters: Vec<ReplyTo>,
}

impl Sandbox {
    pub(super) fn forget_connection(&mut self, connection: u64) {
        self.waiters.retain(|waiter| waiter.connection != connection);
    }

    /// That of a shim that was killed: who waited for its end asks again.
    pub(super) fn adopt(&mut self) {
        self.waiters.clear();
    }

    fn end(&self) -> WaitSandboxResponse {
        WaitSandboxResponse { exit_status: 0, exited_at: self.stopped_at.map(Into::into) }
    }
}

impl Shim {
    pub(crate) fn create_sandbox(&mut self, request: CreateSandboxRequest) -> Result<Handled, Error> {
        let id = request.sandbox_id;
        if let Some(sandbox) = &self.sandbox {
            let text = format!("sandbox {}: already exists", sandbox.id);
            return Err(Error::new(ErrorKind::AlreadyExists, text));
        }
        if !crate::args::is_identifier(&id) {
            return Err(Error::invalid(format!("sandbox id {id:?} is not valid: invalid argument")));
        }
        if !request.rootfs.is_empty() {
            let text = "a sandbox with a root filesystem of its own is not built: not implemented";
            return Err(Error::new(ErrorKind::Unimplemented, text));
        }
        let options = request.options.as_ref();
        let config = options.map(any::unpack::<cri::PodSandboxConfig>).transpose();
        let config = config
            .map_err(|e| Error::invalid(format!("options of sandbox {id}: {e}: invalid argument")))?
            .flatten();
        let cgroup = config.and_then(|config| config.linux).map(|linux| linux.cgroup_parent);
        self.sandbox = Some(Sandbox {
            id,
            created_at: SystemTime::now(),
            is_started: false,
            cgroup: cgroup.unwrap_or_default(),
            stopped_at: None,
            is_shut_down: false,
            waiters: Vec::new(),
        });
        Ok(Handled::Now(Vec::new()))
    }

    pub(crate) fn start_sandbox(&mut self, id: &str) -> Result<Handled, Error> {
        let sandbox = self.known_sandbox(id)?;
        if sandbox.is_started || sandbox.stopped_at.is_some() {
            return Err(Error::precondition(format!("sandbox {id} was started before: failed precondition")));
        }
        sandbox.is_started = true;
        let created_at = Some(sandbox.created_at.into());
        let response = StartSandboxResponse { pid: std::process::id(), created_at, spec: None };
        Ok(Handled::Now(response.encode_to_vec()))
    }

    pub(crate) fn platform(&mut self, id: &str) -> Result<Handled, Error> {
        self.known_sandbox(id)?;
        let host = proto::platform::Platform::host();
        let (os, architecture) = (host.os, host.architecture);
        let platform = Some(types::Platform { os, architecture, ..Default::default() });
        Ok(Handled::Now(PlatformResponse { platform }.encode_to_vec()))
    }

    pub(crate) fn stop_sandbox(&mut self, id: &str) -> Result<Handled, Error> {
        self.known_sandbox(id)?;
        let runs = |container: &super::Container| {
            matches!(self.process(container.init).state, State::Running | State::Paused)
        };
        if let Some((container, _)) = self.containers.iter().find(|(_, container)| runs(container)) {
            let text = format!("container {container} runs in sandbox {id}: failed precondition");
            return Err(Error::precondition(text));
        }
        let sandbox = self.known_sandbox(id)?;
        sandbox.stopped_at.get_or_insert_with(SystemTime::now);
        let (waiters, end) = (std::mem::take(&mut sandbox.waiters), sandbox.end().encode_to_vec());
        for waiter in waiters {
            self.answer(waiter, Ok(end.clone()));
        }
        Ok(Handled::Now(Vec::new()))
    }

    pub(crate) fn wait_sandbox(&mut self, id: &str, reply: ReplyTo) -> Result<Handled, Error> {
        let sandbox = self.known_sandbox(id)?;
        if sandbox.stopped_at.is_some() {
            return Ok(Handled::Now(sandbox.end().encode_to_vec()));
        }
        if sandbox.waiters.len() >= MAX_WAITERS {
            return Err(exhausted("clients waiting for one sandbox", MAX_WAITERS));
        }
        sandbox.waiters.push(reply);
        Ok(Handled::Later)
    }

    pub(crate) fn sandbox_status(&mut self, id: &str) -> Result<Handled, Error> {
        let sandbox = self.known_sandbox(id)?;
        let is_ready = sandbox.is_started && sandbox.stopped_at.is_none();
        let response = SandboxStatusResponse {
            sandbox_id: id.to_owned(),
            pid: std::process::id(),
            state: if is_ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned(),
            created_at: Some(sandbox.created_at.into()),
            exited_at: sandbox.stopped_at.map(Into::into),
            ..Default::default()
        };
        Ok(Handled::Now(response.encode_to_vec()))
    }

    /// The figures of the pod's cgroup. Without one there are none: a sandbox has no process of its own.
    pub(crate) fn sandbox_metrics(&mut self, id: &str) -> Result<Handled, Error> {
        let name = self.known_sandbox(id)?.cgroup.clone();
        if name.is_empty() {
            return Ok(Handled::Now(SandboxMetricsResponse::default().encode_to_vec()));
        }
        let cgroup = Cgroup::named(&name).map_err(|e| Error::step(format!("find cgroup {name}"), e))?;
        let unknown = || Error::not_found(format!("cgroup {name} of sandbox {id}: not found"));
        let data = Some(cgroup.ok_or_else(unknown)?.metrics());
        let metrics = types::Metric { timestamp: Some(SystemTime::now().into()), id: id.to_owned(), data };
        Ok(Handled::Now(SandboxMetricsResponse { metrics: Some(metrics) }.encode_to_vec()))
    }

    pub(crate) fn ping_sandbox(&mut self, id: &str) -> Result<Handled, Error> {
        self.known_sandbox(id).map(|_| Handled::Now(Vec::new()))
    }

    /// Stops it, and ends the shim as soon as no container is left.
    pub(crate) fn shut_down_sandbox(&mut self, id: &str) -> Result<Handled, Error> {
        let stopped = self.stop_sandbox(id)?;
        self.known_sandbox(id)?.is_shut_down = true;
        self.end_if_shut_down();
        Ok(stopped)
    }

    pub(super) fn has_sandbox(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_shut_down)
    }

    /// A container may have been the last.
    pub(super) fn end_if_shut_down(&mut self) {
        let is_shut_down = self.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_shut_down);
        self.shutdown |= is_shut_down && self.containers.is_empty();
    }

    fn known_sandbox(&mut self, id: &str) -> Result<&mut Sandbox, Error> {
        let unknown = || Error::not_found(format!("sandbox {id}: not found"));
        self.sandbox.as_mut().filter(|sandbox| sandbox.id == id).ok_or_else(unknown)
    }
}
