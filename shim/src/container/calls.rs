//! Runtime commands on their way, and what their end means.

use super::{Handle, ReplyTo, Shim};
use crate::error::Error;
use crate::handover::optional_descriptor;
use crate::process::State;
use crate::runtime;
use prost::Message;
use proto::any;
use proto::task::{api, events, process::ProcessInfo, runc::ProcessDetails, topic};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::PathBuf;

/// A runtime command that was started.
#[derive(Serialize, Deserialize)]
pub(crate) struct Call {
    pub(super) verb: Verb,
    pub(super) handle: Handle,
    pub(super) reply: Option<ReplyTo>,
    /// Where the command writes its errors.
    pub(super) log: PathBuf,
    /// Its standard output, where that matters.
    #[serde(with = "optional_descriptor")]
    pub(super) output: Option<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verb {
    Create,
    Start,
    Exec,
    Kill,
    /// The rest of a container without a private pid namespace is killed after its first process has ended.
    KillRest,
    Pause,
    Resume,
    Checkpoint,
    Restore,
    Update,
    Pids,
    Delete,
    /// Of a new binary, whether it understands the state; names no process.
    Probe,
}

impl Verb {
    /// As error texts name it.
    fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::Exec => "exec",
            Verb::Kill => "kill",
            Verb::KillRest => "killall",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Checkpoint => "checkpoint",
            Verb::Restore => "restore",
            Verb::Update => "update",
            Verb::Pids => "ps",
            Verb::Delete => "delete",
            Verb::Probe => "-check-state",
        }
    }
}

impl Shim {
    /// A runtime command ended with `status`.
    pub(super) fn call_ended(&mut self, call: Call, status: u32) {
        if call.verb == Verb::Probe {
            return self.probed(&call, status);
        }
        let result = if status == 0 {
            Ok(())
        } else {
            Err(runtime::classify(call.verb.name(), &runtime::failure(&call.log, status)))
        };
        if !self.processes.contains_key(&call.handle) {
            return;
        }
        if !matches!(call.verb, Verb::Kill | Verb::KillRest | Verb::Pids) {
            self.process_mut(call.handle).busy = false;
        }
        match call.verb {
            Verb::Create => self.create_ended(call.handle, call.reply, result),
            Verb::Exec => self.exec_started(call.handle, call.reply, result),
            Verb::Start => self.started(call.handle, call.reply, result),
            Verb::Pause | Verb::Resume => self.frozen(&call, result),
            Verb::Checkpoint => self.checkpointed(&call, result),
            Verb::Restore => self.restored(call.handle, call.reply, result),
            Verb::Pids => {
                let answer = self.pids(&call, result);
                self.reply(call.reply, answer);
            }
            Verb::Kill | Verb::Update => {
                self.reply(call.reply, result.map(|()| Vec::new()));
            }
            Verb::KillRest => self.rest_killed(call.handle),
            Verb::Delete => self.runtime_deleted(call.handle, result),
            Verb::Probe => unreachable!("handled above"),
        }
        if self.calls.is_empty() {
            // Whatever these pids were, no command that could have started them is left.
            self.early_exits.clear();
        }
    }

    pub(super) fn reply(&mut self, reply: Option<ReplyTo>, answer: super::Answer) {
        if let Some(reply) = reply {
            self.answer(reply, answer);
        }
    }

    fn started(&mut self, handle: Handle, reply: Option<ReplyTo>, result: Result<(), Error>) {
        let process = self.process_mut(handle);
        match result {
            Ok(()) => {
                process.state = State::Running;
                let (pid, container_id) = (process.pid, process.container.clone());
                self.publisher.publish(topic::START, &events::TaskStart { container_id, pid });
                self.reply(reply, Ok(api::StartResponse { pid }.encode_to_vec()));
            }
            Err(error) => self.reply(reply, Err(error)),
        }
        // The program may have ended before its start command returned.
        self.settle_exit(handle);
    }

    fn frozen(&mut self, call: &Call, result: Result<(), Error>) {
        if result.is_ok() {
            let process = self.process_mut(call.handle);
            let container_id = process.container.clone();
            if call.verb == Verb::Pause {
                process.state = State::Paused;
                self.publisher.publish(topic::PAUSED, &events::TaskPaused { container_id });
            } else {
                process.state = State::Running;
                self.publisher.publish(topic::RESUMED, &events::TaskResumed { container_id });
            }
        }
        self.reply(call.reply, result.map(|()| Vec::new()));
        self.settle_exit(call.handle);
    }

    /// The answer to Pids; an exec's process carries its exec id.
    fn pids(&self, call: &Call, result: Result<(), Error>) -> super::Answer {
        let init = self.process(call.handle);
        let mut pids = match result.and_then(|()| listed(call)) {
            // Not every runtime lists those of a stopped container.
            Err(_) if init.exit.is_some() => Vec::new(),
            listed => listed?,
        };
        // The first process stays listed until it is deleted: a containerd 2 that is started anew takes a task without
        // processes for one that was never made, and drops it with its exit status.
        if pids.is_empty() && init.exit.is_some() {
            pids.push(init.pid);
        }
        let container = self.container(&init.container)?;
        let info = |pid: u32| {
            let exec = container.execs.iter().find(|(_, handle)| self.process(**handle).pid == pid);
            exec.map(|(exec_id, _)| any::pack(&ProcessDetails { exec_id: exec_id.clone() }))
        };
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, info: info(pid) }).collect();
        Ok(api::PidsResponse { processes }.encode_to_vec())
    }
}

/// What the runtime's `ps` has printed.
fn listed(call: &Call) -> Result<Vec<u32>, Error> {
    let output = call.output.as_ref().map(File::try_clone).transpose();
    let output = output.map_err(|e| Error::step("read the runtime's output", e))?;
    let bytes = output.map(runtime::read_output).transpose()?.unwrap_or_default();
    // runc says null for none.
    let pids: Option<Vec<u32>> =
        serde_json::from_slice(&bytes).map_err(|e| Error::step("read the runtime's pids", e))?;
    Ok(pids.unwrap_or_default())
}
