//! Checkpoint, and the start of a container from one: runc's `checkpoint` and `restore`, called as containerd's shims do.
//!
//! A create that names a checkpoint makes the container known and mounts its rootfs; its processes are there from start
//! on, which is the runtime's restore.

use super::calls::{Call, Verb};
use super::{Handle, Handled, ReplyTo, Shim};
use crate::error::Error;
use crate::handover::Kept;
use crate::io::logger::Owner;
use crate::io::{Io, Opening, Readers};
use crate::log::LogFile;
use crate::process::{Ask, Exit, State};
use prost::Message;
use proto::any;
use proto::task::{api, bundle, events, runc, topic};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// criu's own files, in the bundle, where the client names no folder for them.
const WORK: &str = "criu-work";
/// criu's log of a checkpoint that failed, in the bundle.
const LOG: &str = "criu-dump.log";

/// What a container that was created from a checkpoint is started with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Restore {
    pub(super) images: PathBuf,
    pub(super) work: PathBuf,
    pub(super) log: Option<LogFile>,
}

/// A checkpoint on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    images: PathBuf,
    /// Ours, which goes at the end.
    work: Option<PathBuf>,
}

impl Restore {
    /// Of a create: the checkpoint's folder and the one for criu's own files, or the bundle.
    pub(super) fn new(
        images: &str,
        work: &str,
        bundle: &Path,
        log: Option<LogFile>,
    ) -> Result<Restore, Error> {
        let images = PathBuf::from(images);
        if !images.is_absolute() || !images.is_dir() {
            let text = format!("checkpoint {}: no such folder: not found", images.display());
            return Err(Error::not_found(text));
        }
        let work = if work.is_empty() { bundle.join(WORK) } else { PathBuf::from(work) };
        Ok(Restore { images, work, log })
    }

    /// After the shim that had it open.
    pub(super) fn reopen_log(&mut self) {
        let log = self.log.take().map(LogFile::reopen).transpose();
        self.log = log.unwrap_or_else(|error| {
            crate::complain!("open the container's log anew: {error}");
            None
        });
    }
}

impl Shim {
    pub(crate) fn checkpoint(
        &mut self,
        request: &api::CheckpointTaskRequest,
        reply: ReplyTo,
    ) -> Result<Handled, Error> {
        let options = match request.options.as_ref().filter(|any| !any.type_url.is_empty()) {
            Some(given) => any::unpack::<runc::CheckpointOptions>(given).ok().flatten().ok_or_else(|| {
                Error::invalid(format!("options of type {}: invalid argument", given.type_url))
            })?,
            None => runc::CheckpointOptions::default(),
        };
        if !Path::new(&request.path).is_absolute() {
            return Err(Error::invalid(format!(
                "checkpoint path {:?} is not absolute: invalid argument",
                request.path
            )));
        }
        let handle = self.handle(&request.id, "")?;
        self.process(handle).allow(Ask::Checkpoint)?;
        let own_work = self.container(&request.id)?.bundle.join(WORK);
        let work =
            if options.work_path.is_empty() { own_work.clone() } else { PathBuf::from(&options.work_path) };
        let work_text = work.display().to_string();
        let mut args = vec!["checkpoint", "--image-path", &request.path, "--work-path", &work_text];
        for (is_set, flag) in [
            (options.open_tcp, "--tcp-established"),
            (options.external_unix_sockets, "--ext-unix-sk"),
            (options.terminal, "--shell-job"),
            (options.file_locks, "--file-locks"),
            (!options.exit, "--leave-running"),
        ] {
            if is_set {
                args.push(flag);
            }
        }
        for (flag, value) in
            [("--manage-cgroups-mode", &options.cgroups_mode), ("--parent-path", &options.parent_path)]
        {
            if !value.is_empty() {
                args.extend([flag, value]);
            }
        }
        options.empty_namespaces.iter().for_each(|namespace| args.extend(["--empty-ns", namespace]));
        args.push(&request.id);
        self.call(Verb::Checkpoint, handle, &args, Some(reply))?;
        let process = self.process_mut(handle);
        process.busy = true;
        process.checkpoint = Some(Checkpoint {
            images: PathBuf::from(&request.path),
            work: (work == own_work).then_some(own_work),
        });
        Ok(Handled::Later)
    }

    pub(super) fn checkpointed(&mut self, call: &Call, result: Result<(), Error>) {
        let process = self.process_mut(call.handle);
        let container_id = process.container.clone();
        let Some(Checkpoint { images, work }) = process.checkpoint.take() else { return };
        let log = self.containers[&container_id].bundle.join(LOG);
        let answer = match result {
            Ok(()) => {
                let checkpoint = images.display().to_string();
                self.publisher
                    .publish(topic::CHECKPOINTED, &events::TaskCheckpointed { container_id, checkpoint });
                Ok(Vec::new())
            }
            Err(mut error) => {
                if let Some(work) = &work
                    && std::fs::copy(work.join("dump.log"), &log).is_ok()
                {
                    error.message.push_str(&format!(" path= {}", log.display()));
                }
                Err(error)
            }
        };
        if let Some(work) = work {
            let _ = std::fs::remove_dir_all(work);
        }
        self.reply(call.reply, answer);
        // With the option to exit, criu has ended the processes.
        self.settle_exit(call.handle);
    }

    /// Start of a container that was created from a checkpoint: answered when the runtime's restore has ended.
    pub(super) fn start_restored(&mut self, handle: Handle, reply: ReplyTo) -> Result<Handled, Error> {
        let base = self.io_base(handle);
        let process = self.process_mut(handle);
        process.allow(Ask::Start)?;
        let Some(Restore { images, work, log }) = process.restore.take() else {
            return Err(Error::precondition("the checkpoint was restored before: failed precondition"));
        };
        let process = self.process(handle);
        let container = self.container(&process.container)?;
        let readers = if container.own_client { Readers::Optional } else { Readers::Expected };
        let error_log = container.bundle.join(bundle::RUNTIME_LOG);
        let owner = Owner { namespace: self.namespace.clone(), id: process.container.clone() };
        let opening = Opening { uris: process.io.uris(), readers, log, base, owner };
        let started = Io::open_for(opening, |io, streams| {
            let text = |path: &Path| path.display().to_string();
            let (images, work) = (text(&images), text(&work));
            let (dir, pid) = (text(&container.bundle), text(&container.bundle.join(bundle::INIT_PID)));
            let console = io.console.as_ref().map(crate::io::console::Console::runtime_path);
            let mut args =
                vec!["restore", "--detach", "--no-subreaper", "--bundle", &dir, "--pid-file", &pid];
            args.extend(["--image-path", &images, "--work-path", &work]);
            if container.runtime.no_pivot_root {
                args.push("--no-pivot");
            }
            if let Some(console) = &console {
                args.extend(["--console-socket", console]);
            }
            args.push(&process.container);
            container.runtime.spawn(&error_log, &args, streams)
        });
        let (io, pid) = match started {
            Ok(started) => started,
            Err(error) => {
                self.not_restored(handle, &error);
                return Err(error);
            }
        };
        let process = self.process_mut(handle);
        (process.io, process.busy, process.restoring) = (io, true, true);
        let call = Call { verb: Verb::Restore, handle, reply: Some(reply), log: error_log, output: None };
        self.calls.insert(pid, call);
        self.changed = true;
        Ok(Handled::Later)
    }

    pub(super) fn restored(&mut self, handle: Handle, reply: Option<ReplyTo>, result: Result<(), Error>) {
        self.receive_terminal(handle);
        let process = self.process_mut(handle);
        process.restoring = false;
        let container_id = process.container.clone();
        let file = self.containers[&container_id].bundle.join(bundle::INIT_PID);
        match result.and_then(|()| super::create::read_pid(&file)) {
            Ok(pid) => {
                let process = self.process_mut(handle);
                process.exists_as(pid);
                process.state = State::Running;
                self.watch_cgroup(&container_id, pid);
                self.publisher.publish(topic::START, &events::TaskStart { container_id, pid });
                self.reply(reply, Ok(api::StartResponse { pid }.encode_to_vec()));
                self.claim_early_exit(handle);
            }
            Err(error) => {
                self.not_restored(handle, &error);
                self.reply(reply, Err(error));
            }
        }
    }

    /// The start may have come to its end after the last state was written, or before its shim was killed.
    pub(super) fn adopt_restore(&mut self, handle: Handle, kept: &Kept) {
        let container = &self.containers[&self.process(handle).container];
        let log = container.bundle.join(bundle::RUNTIME_LOG);
        let exists = container.runtime.status(&log, &self.process(handle).container).is_some();
        let base = self.io_base(handle);
        let process = self.process_mut(handle);
        if exists {
            if let Some(restore) = process.restore.take() {
                process.io.assume_open(base, restore.log);
            }
            self.adopt_open_io(handle, kept);
            self.restored(handle, None, Ok(()));
        } else if process.restoring {
            self.not_restored(handle, &Error::precondition("the start from a checkpoint was interrupted"));
        } else if let Some(restore) = &mut process.restore {
            restore.reopen_log();
        }
    }

    /// There is no process, and there will be none: what is left can be deleted.
    fn not_restored(&mut self, handle: Handle, error: &Error) {
        crate::complain!("restore: {error}");
        let process = self.process_mut(handle);
        process.restoring = false;
        process.io.close();
        process.state = State::Stopped;
        process.exit = Some(Exit { status: 255, at: SystemTime::now() });
        for waiter in std::mem::take(&mut process.waiters) {
            self.answer_exit(waiter, handle);
        }
    }
}
