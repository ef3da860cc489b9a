//! Delete: output first, then the runtime's delete, then the mounts; the answer carries the exit status.

use super::calls::{Call, Verb};
use super::{DeleteStage, Deleted, Deleting, Handle, Handled, MAX_DELETED, Process, ReplyTo, Shim};
use crate::error::Error;
use crate::mounts;
use crate::process::{Ask, State};
use crate::runtime::Streams;
use prost::Message;
use proto::task::{api, bundle, events, topic};
use std::time::{Duration, Instant};

/// How long a delete waits for output to be taken: containerd's shims have the same.
const DRAIN: Duration = Duration::from_secs(10);

impl Shim {
    /// Delete of a container or an exec; answered when all of it is gone.
    pub(crate) fn delete(&mut self, request: &api::DeleteRequest, reply: ReplyTo) -> Result<Handled, Error> {
        let handle = match self.handle(&request.id, &request.exec_id) {
            Ok(handle) => handle,
            Err(unknown) => return self.deleted_before(request).map(Handled::Now).ok_or(unknown),
        };
        let process = self.process_mut(handle);
        process.allow(Ask::Delete)?;
        process.deleting =
            Some(Deleting { reply, deadline: Instant::now() + DRAIN, stage: DeleteStage::Drain });
        self.advance_delete(handle);
        Ok(Handled::Later)
    }

    /// Takes a delete as far as it can go now.
    pub(super) fn advance_delete(&mut self, handle: Handle) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        let Some(deleting) = &mut process.deleting else { return };
        match deleting.stage {
            DeleteStage::Drain => {
                // What never ran has no output to wait for.
                let drained = process.state == State::Created || process.io.is_drained();
                if !drained && Instant::now() < deleting.deadline {
                    process.io.hurry_logger();
                    return;
                }
                if process.exec_id.is_empty() {
                    self.spawn_delete(handle);
                } else {
                    self.exec_deleted(handle);
                }
            }
            DeleteStage::Runtime => {}
            DeleteStage::Reap if process.exit.is_some() || process.pid == 0 => self.container_deleted(handle),
            DeleteStage::Reap => {}
        }
    }

    fn spawn_delete(&mut self, init: Handle) {
        let id = self.process(init).container.clone();
        let container = &self.containers[&id];
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        let spawned = container.runtime.spawn(&log, &["delete", "--force", &id], Streams::default());
        match spawned {
            Ok(pid) => {
                let call = Call { verb: Verb::Delete, handle: init, reply: None, log, output: None };
                self.calls.insert(pid, call);
                if let Some(deleting) = &mut self.process_mut(init).deleting {
                    deleting.stage = DeleteStage::Runtime;
                }
            }
            Err(error) => self.delete_failed(init, error),
        }
    }

    /// The runtime's delete has ended. A container that never ran was killed by it; its exit comes first.
    pub(super) fn runtime_deleted(&mut self, init: Handle, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                if let Some(deleting) = &mut self.process_mut(init).deleting {
                    deleting.stage = DeleteStage::Reap;
                }
                self.advance_delete(init);
            }
            Err(error) => self.delete_failed(init, error),
        }
    }

    /// The container stays as it was, and can be deleted again.
    fn delete_failed(&mut self, init: Handle, error: Error) {
        if let Some(deleting) = self.process_mut(init).deleting.take() {
            self.answer(deleting.reply, Err(error));
        }
    }

    fn container_deleted(&mut self, init: Handle) {
        let mut process = self.processes.remove(&init).expect("its delete is under way");
        process.io.close();
        let container = self.containers.remove(&process.container).expect("its delete is under way");
        for (_, exec) in container.execs {
            let base = self.io_base(exec);
            if let Some(mut exec) = self.processes.remove(&exec) {
                exec.io.remove_named(&base);
                exec.io.close();
            }
        }
        if !container.mounts.is_empty() {
            mounts::unmount_all(&container.rootfs);
        }
        // For the `delete` that daemons run after this one: nothing is left to be done.
        let _ =
            std::fs::rename(container.bundle.join(bundle::OPTIONS), container.bundle.join(bundle::DELETED));
        let response = delete_response(&process);
        let event = events::TaskDelete {
            container_id: process.container.clone(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at,
            id: String::new(),
        };
        self.publisher.publish(topic::DELETE, &event);
        self.end_if_shut_down();
        self.answer_delete(process, &response);
    }

    fn exec_deleted(&mut self, handle: Handle) {
        let mut process = self.processes.remove(&handle).expect("its delete is under way");
        process.io.remove_named(&self.io_base(handle));
        process.io.close();
        if let Some(container) = self.containers.get_mut(&process.container) {
            container.execs.remove(&process.exec_id);
        }
        let response = delete_response(&process);
        self.answer_delete(process, &response);
    }

    fn answer_delete(&mut self, process: Process, response: &api::DeleteResponse) {
        self.changed = true;
        let answer = response.encode_to_vec();
        if let Some(deleting) = process.deleting {
            self.answer(deleting.reply, Ok(answer.clone()));
        }
        if self.deleted.len() == MAX_DELETED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(Deleted { id: process.container, exec_id: process.exec_id, answer });
    }

    fn deleted_before(&self, request: &api::DeleteRequest) -> Option<Vec<u8>> {
        let is_asked =
            |deleted: &&Deleted| (&deleted.id, &deleted.exec_id) == (&request.id, &request.exec_id);
        self.deleted.iter().rev().find(is_asked).map(|deleted| deleted.answer.clone())
    }
}

fn delete_response(process: &super::Process) -> api::DeleteResponse {
    api::DeleteResponse {
        pid: process.pid,
        exit_status: process.exit.map_or(0, |exit| exit.status),
        exited_at: process.exit.map(|exit| exit.at.into()),
    }
}
