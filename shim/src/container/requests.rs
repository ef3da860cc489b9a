//! The rest of the task API: questions, signals, and the short runtime commands.

use super::calls::{Call, Verb};
use super::{Handle, Handled, MAX_WAITERS, ReplyTo, Shim, exhausted};
use crate::error::Error;
use crate::process::{Ask, State};
use crate::runtime::{self, Streams};
use prost::Message;
use proto::task::process::Status;
use proto::task::{api, bundle};

impl Shim {
    pub(crate) fn state(&self, request: &api::StateRequest) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        let process = self.process(handle);
        let status = match process.state {
            State::Created => Status::Created,
            State::Running => Status::Running,
            State::Paused => Status::Paused,
            State::Stopped => Status::Stopped,
        };
        let uris = process.io.uris();
        let response = api::StateResponse {
            id: request.id.clone(),
            bundle: self.container(&request.id)?.bundle.display().to_string(),
            pid: process.pid,
            status: status.into(),
            stdin: uris.stdin.clone(),
            stdout: uris.stdout.clone(),
            stderr: uris.stderr.clone(),
            terminal: uris.terminal,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: process.exit.map(|exit| exit.at.into()),
            exec_id: process.exec_id.clone(),
        };
        Ok(Handled::Now(response.encode_to_vec()))
    }

    pub(crate) fn start(&mut self, request: &api::StartRequest, reply: ReplyTo) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        if !request.exec_id.is_empty() {
            return self.start_exec(handle, reply);
        }
        if self.process(handle).restore.is_some() {
            return self.start_restored(handle, reply);
        }
        self.process(handle).allow(Ask::Start)?;
        self.call(Verb::Start, handle, &["start", &request.id], Some(reply))?;
        self.process_mut(handle).busy = true;
        Ok(Handled::Later)
    }

    pub(crate) fn pause(&mut self, id: &str, reply: ReplyTo) -> Result<Handled, Error> {
        self.change(Verb::Pause, Ask::Pause, id, &["pause", id], reply)
    }

    pub(crate) fn resume(&mut self, id: &str, reply: ReplyTo) -> Result<Handled, Error> {
        self.change(Verb::Resume, Ask::Resume, id, &["resume", id], reply)
    }

    pub(crate) fn update(
        &mut self,
        request: &api::UpdateTaskRequest,
        reply: ReplyTo,
    ) -> Result<Handled, Error> {
        let Some(resources) = &request.resources else {
            return Err(Error::invalid("update without resources: invalid argument"));
        };
        let path = self.container(&request.id)?.bundle.join("resources.json");
        super::create::write_whole(&path, &resources.value)?;
        let path = path.display().to_string();
        self.change(
            Verb::Update,
            Ask::Update,
            &request.id,
            &["update", "--resources", &path, &request.id],
            reply,
        )
    }

    fn change(
        &mut self,
        verb: Verb,
        ask: Ask,
        id: &str,
        args: &[&str],
        reply: ReplyTo,
    ) -> Result<Handled, Error> {
        let handle = self.handle(id, "")?;
        self.process(handle).allow(ask)?;
        self.call(verb, handle, args, Some(reply))?;
        self.process_mut(handle).busy = true;
        Ok(Handled::Later)
    }

    /// One process is signalled directly: it is our child and not reaped yet, so its pid is still its own. One that was
    /// adopted is somebody else's child, and is signalled by its descriptor.
    pub(crate) fn kill(&mut self, request: &api::KillRequest, reply: ReplyTo) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        let process = self.process(handle);
        if process.held.is_some() && process.exit.is_none() {
            return Err(Error::not_found("process already finished: not found"));
        }
        if process.pid == 0 {
            return Err(Error::precondition("process not created: failed precondition"));
        }
        crate::process::allow(process.state, Ask::Kill, process.is_init())?;
        if request.all && process.is_init() {
            let signal = request.signal.to_string();
            self.call(Verb::Kill, handle, &["kill", "--all", &request.id, &signal], Some(reply))?;
            return Ok(Handled::Later);
        }
        send_signal(process, request.signal)?;
        Ok(Handled::Now(Vec::new()))
    }

    pub(crate) fn pids_of(&mut self, id: &str, reply: ReplyTo) -> Result<Handled, Error> {
        let init = self.container(id)?.init;
        let (file, stdout) = runtime::output_file()?;
        let container = self.container(id)?;
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        let streams = Streams { stdout: Some(stdout), ..Streams::default() };
        let pid = container.runtime.spawn(&log, &["ps", "--format", "json", id], streams)?;
        let call = Call { verb: Verb::Pids, handle: init, reply: Some(reply), log, output: Some(file) };
        self.calls.insert(pid, call);
        Ok(Handled::Later)
    }

    /// Stats: the cgroup's figures, as they are now.
    pub(crate) fn stats(&self, id: &str) -> Result<Handled, Error> {
        let Some(cgroup) = &self.container(id)?.cgroup else {
            return Err(Error::not_found("cgroup does not exist: not found"));
        };
        let response = api::StatsResponse { stats: Some(cgroup.metrics()) };
        Ok(Handled::Now(response.encode_to_vec()))
    }

    pub(crate) fn resize(&mut self, request: &api::ResizePtyRequest) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        // Without a terminal there is nothing to resize, and containerd's shims do not mind.
        if let Some(console) = &mut self.process_mut(handle).io.console {
            console.resize(request.width, request.height)?;
        }
        Ok(Handled::Now(Vec::new()))
    }

    pub(crate) fn close_io(&mut self, request: &api::CloseIoRequest) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        if request.stdin
            && let Some(stdin) = &mut self.process_mut(handle).io.stdin
        {
            stdin.close_input();
            self.changed = true;
        }
        Ok(Handled::Now(Vec::new()))
    }

    pub(crate) fn wait(&mut self, request: &api::WaitRequest, reply: ReplyTo) -> Result<Handled, Error> {
        let handle = self.handle(&request.id, &request.exec_id)?;
        if self.process(handle).exit.is_some() {
            self.answer_exit(reply, handle);
        } else if self.process(handle).waiters.len() >= MAX_WAITERS {
            return Err(exhausted("clients waiting for one process", MAX_WAITERS));
        } else {
            self.process_mut(handle).waiters.push(reply);
        }
        Ok(Handled::Later)
    }

    /// Also answers for a container it does not know: that is how a daemon asks whether there is one.
    pub(crate) fn connect(&self, id: &str) -> Handled {
        let task_pid = self.handle(id, "").map_or(0, |handle| self.process(handle).pid);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let response = api::ConnectResponse { shim_pid: std::process::id(), task_pid, version };
        Handled::Now(response.encode_to_vec())
    }

    /// Ignored while containers are left, or a sandbox that may get some.
    pub(crate) fn shut_down(&mut self, reply: ReplyTo) -> Handled {
        self.shutdown = self.containers.is_empty() && !self.has_sandbox();
        if !self.shutdown {
            return Handled::Now(Vec::new());
        }
        // A daemon that has the answer runs `delete`, which would tell an event on its way once more.
        self.askers.push(reply);
        Handled::Later
    }

    /// The events are with the daemon, or it does not take them; or the end is off.
    pub(crate) fn answer_shutdown(&mut self) {
        for reply in std::mem::take(&mut self.askers) {
            self.answer(reply, Ok(Vec::new()));
        }
    }

    /// Starts a runtime command whose end is answered to `reply`.
    pub(super) fn call(
        &mut self,
        verb: Verb,
        handle: Handle,
        args: &[&str],
        reply: Option<ReplyTo>,
    ) -> Result<(), Error> {
        let container = self.container(&self.process(handle).container)?;
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        let pid = container.runtime.spawn(&log, args, Streams::default())?;
        self.calls.insert(pid, Call { verb, handle, reply, log, output: None });
        Ok(())
    }
}

fn send_signal(process: &super::Process, signal: u32) -> Result<(), Error> {
    let pid = process.pid;
    let invalid = || Error::invalid(format!("signal {signal} does not exist: invalid argument"));
    let number = i32::try_from(signal).map_err(|_| invalid())?;
    // Signal 0 only asks whether the process is there, and it is.
    if number == 0 {
        return Ok(());
    }
    // Through the raw call: real-time signals have no name in rustix, and the kernel refuses numbers it does not have.
    let number_of_pid = i32::try_from(pid).map_err(|_| invalid())?;
    let result = match &process.pidfd {
        Some(pidfd) if process.adopted => crate::sys::pidfd_kill(pidfd, number),
        _ => crate::sys::kill(number_of_pid, number),
    };
    result.map_err(|e| match e.raw_os_error() {
        Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() => invalid(),
        Some(code) if code == rustix::io::Errno::SRCH.raw_os_error() => {
            Error::not_found("process already finished: not found")
        }
        _ => Error::step(format!("signal {number} to process {pid}"), e),
    })
}
