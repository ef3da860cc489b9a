//! Exits: whose they are, when they may be told, and who waits for them.

use super::calls::{Call, Verb};
use super::{Handle, ReplyTo, Rest, Shim};
use crate::process::{Exit, State};
use crate::runtime::Streams;
use prost::Message;
use proto::task::{api, bundle, events, topic};

/// Status of a process that SIGKILL ended, which is the kernel's signal when memory runs out.
const KILLED: u32 = 128 + 9;

impl Shim {
    /// A child was reaped: a runtime command, a process of ours, or an orphan of the container.
    pub(crate) fn reaped(&mut self, pid: u32, exit: Exit) {
        // Kills are told before the exit that they explain, and the kernel has counted them by then: a process may have
        // ended otherwise because another one of its container was killed.
        let own = self.by_pid(pid).map(|handle| self.process(handle).container.clone());
        if let Some(id) = own {
            self.notice_oom(&id);
        } else if exit.status == KILLED {
            // An exec may be killed before its pid is known.
            let ids: Vec<String> = self.containers.keys().cloned().collect();
            ids.iter().for_each(|id| self.notice_oom(id));
        }
        if let Some(call) = self.calls.remove(&pid) {
            self.changed |= !matches!(call.verb, Verb::Pids | Verb::Kill | Verb::Update);
            self.call_ended(call, exit.status);
        } else if let Some(handle) = self.by_pid(pid) {
            self.changed = true;
            let process = self.process_mut(handle);
            (process.held, process.pidfd) = (Some(exit), None);
            self.settle_exit(handle);
        } else if !self.calls.is_empty() {
            self.early_exits.insert(pid, exit);
        }
    }

    fn by_pid(&self, pid: u32) -> Option<Handle> {
        let alive = |process: &super::Process| process.exit.is_none() && process.held.is_none();
        self.processes
            .iter()
            .find(|(_, process)| process.pid == pid && alive(process))
            .map(|(handle, _)| *handle)
    }

    /// A process's pid has just become known; it may have ended already.
    pub(super) fn claim_early_exit(&mut self, handle: Handle) {
        let pid = self.process(handle).pid;
        if let Some(exit) = self.early_exits.remove(&pid) {
            let process = self.process_mut(handle);
            (process.held, process.pidfd) = (Some(exit), None);
        }
        self.settle_exit(handle);
    }

    /// Tells a process's exit as soon as its turn has come: after its own start, and a container's after those of its
    /// execs and after the rest of its processes was killed.
    pub(super) fn settle_exit(&mut self, handle: Handle) {
        let process = self.process(handle);
        let (Some(exit), false) = (process.held, process.busy) else { return };
        if process.is_init() {
            if !self.rest_is_gone(handle) {
                return;
            }
            let container = &self.containers[&self.process(handle).container];
            let alive = |exec: &Handle| {
                let exec = self.process(*exec);
                exec.busy || (exec.pid != 0 && exec.exit.is_none())
            };
            if container.execs.values().any(alive) {
                return;
            }
        }
        let process = self.process_mut(handle);
        process.held = None;
        process.exit = Some(exit);
        process.state = State::Stopped;
        process.io.close_stdin();
        let event = events::TaskExit {
            container_id: process.container.clone(),
            id: if process.is_init() { process.container.clone() } else { process.exec_id.clone() },
            pid: process.pid,
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        };
        let (waiters, is_init) = (std::mem::take(&mut process.waiters), process.is_init());
        let container = process.container.clone();
        self.publisher.publish(topic::EXIT, &event);
        for waiter in waiters {
            self.answer_exit(waiter, handle);
        }
        self.advance_delete(handle);
        if !is_init && let Some(container) = self.containers.get(&container) {
            self.settle_exit(container.init);
        }
    }

    /// True when no process of the container can be alive but its execs. Without a private pid namespace the runtime is
    /// asked to kill the rest first.
    fn rest_is_gone(&mut self, init: Handle) -> bool {
        let id = self.process(init).container.clone();
        let Some(container) = self.containers.get_mut(&id) else { return true };
        if container.private_pids || container.rest == Rest::Killed {
            return true;
        }
        if container.rest == Rest::Alive {
            container.rest = Rest::BeingKilled;
            let log = container.bundle.join(bundle::RUNTIME_LOG);
            let spawned = container.runtime.spawn(&log, &["kill", "--all", &id, "KILL"], Streams::default());
            match spawned {
                Ok(pid) => {
                    let call = Call { verb: Verb::KillRest, handle: init, reply: None, log, output: None };
                    self.calls.insert(pid, call);
                }
                Err(error) => {
                    crate::complain!("{id}: kill the rest of the container: {error}");
                    container.rest = Rest::Killed;
                    return true;
                }
            }
        }
        false
    }

    /// Whatever the command said: what could be killed was.
    pub(super) fn rest_killed(&mut self, init: Handle) {
        let id = self.process(init).container.clone();
        if let Some(container) = self.containers.get_mut(&id) {
            container.rest = Rest::Killed;
        }
        self.settle_exit(init);
    }

    /// Answers a Wait for a process that has ended.
    pub(super) fn answer_exit(&mut self, reply: ReplyTo, handle: Handle) {
        let Some(exit) = self.process(handle).exit else { return };
        let response = api::WaitResponse { exit_status: exit.status, exited_at: Some(exit.at.into()) };
        self.answer(reply, Ok(response.encode_to_vec()));
    }
}
