//! Execs: known first, then started.

use super::calls::{Call, Verb};
use super::{Handle, Handled, MAX_EXECS, ReplyTo, Shim, exhausted};
use crate::error::Error;
use crate::io::logger::Owner;
use crate::io::{Io, Opening, Readers, Uris};
use crate::process::{Ask, Exit, State};
use prost::Message;
use proto::kind::ErrorKind;
use proto::task::{api, events, topic};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The exec's files in the bundle, beside those of `proto::task::bundle`.
pub(super) struct Files {
    pub(super) spec: PathBuf,
    pub(super) pid: PathBuf,
    log: PathBuf,
}

impl Files {
    pub(super) fn new(bundle: &Path, exec_id: &str) -> Files {
        let file = |suffix: &str| bundle.join(format!("{exec_id}.{suffix}"));
        Files { spec: file("process.json"), pid: file("pid"), log: file("log.json") }
    }

    fn into_paths(self) -> [PathBuf; 3] {
        [self.spec, self.pid, self.log]
    }

    pub(super) fn remove(&self) {
        for path in [&self.spec, &self.pid, &self.log] {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shim {
    /// Exec: only makes it known, as containerd has it; Start runs it.
    pub(crate) fn exec(&mut self, request: api::ExecProcessRequest) -> Result<Handled, Error> {
        let container = self.container(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("id {}: already exists", request.exec_id),
            ));
        }
        if !crate::args::is_identifier(&request.exec_id) || request.exec_id == "init" {
            let text = format!("exec id {:?} is not valid: invalid argument", request.exec_id);
            return Err(Error::invalid(text));
        }
        if container.execs.len() >= MAX_EXECS {
            return Err(exhausted("execs that were not deleted", MAX_EXECS));
        }
        self.process(container.init).allow(Ask::Exec)?;
        let Some(spec) = request.spec else {
            return Err(Error::invalid("exec without a spec: invalid argument"));
        };
        let uris = Uris {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        // The streams are opened at start; until then only their names are kept.
        let handle = self.add_process(&request.id, &request.exec_id, Io::default(), spec.value);
        let base = self.io_base(handle);
        let io = &mut self.process_mut(handle).io;
        io.remember(uris);
        if let Err(error) = io.make_named(&base) {
            io.remove_named(&base);
            self.processes.remove(&handle);
            return Err(error);
        }
        self.container_mut(&request.id)?.execs.insert(request.exec_id.clone(), handle);
        let event = events::TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.publisher.publish(topic::EXEC_ADDED, &event);
        self.changed = true;
        Ok(Handled::Now(Vec::new()))
    }

    /// Start of an exec: answered when the runtime's exec has ended.
    pub(super) fn start_exec(&mut self, handle: Handle, reply: ReplyTo) -> Result<Handled, Error> {
        let process = self.process(handle);
        let container = self.container(&process.container)?;
        process.allow(Ask::Start)?;
        self.process(container.init).allow(Ask::Exec)?;
        let files = Files::new(&container.bundle, &process.exec_id);
        let readers = if container.own_client { Readers::Optional } else { Readers::Expected };
        super::create::write_whole(&files.spec, &process.spec)?;
        let base = self.io_base(handle);
        let owner = Owner { namespace: self.namespace.clone(), id: process.exec_id.clone() };
        let opening = Opening { uris: process.io.uris(), readers, log: None, base, owner };
        let started = Io::open_for(opening, |io, streams| {
            let console = io.console.as_ref().map(crate::io::console::Console::runtime_path);
            let (spec, pid) = (files.spec.display().to_string(), files.pid.display().to_string());
            let mut arguments = vec!["exec", "--process", &spec, "--pid-file", &pid, "--detach"];
            if let Some(console) = &console {
                arguments.extend(["--console-socket", console]);
            }
            arguments.push(&process.container);
            container.runtime.spawn(&files.log, &arguments, streams)
        });
        let (io, pid) = match started {
            Ok(started) => started,
            Err(error) => {
                files.remove();
                return Err(error);
            }
        };
        let process = self.process_mut(handle);
        process.io = io;
        process.busy = true;
        let call = Call { verb: Verb::Exec, handle, reply: Some(reply), log: files.log, output: None };
        self.calls.insert(pid, call);
        // Which streams it has been given.
        self.changed = true;
        Ok(Handled::Later)
    }

    /// The runtime's exec has ended: the process runs, or never did.
    pub(super) fn exec_started(&mut self, handle: Handle, reply: Option<ReplyTo>, result: Result<(), Error>) {
        self.receive_terminal(handle);
        let process = self.process(handle);
        let files = Files::new(&self.containers[&process.container].bundle, &process.exec_id);
        let pid = result.and_then(|()| super::create::read_pid(&files.pid));
        self.obsolete.extend(files.into_paths());
        let process = self.process_mut(handle);
        process.spec = Vec::new();
        match pid {
            Ok(pid) => {
                process.exists_as(pid);
                process.state = State::Running;
                let event = events::TaskExecStarted {
                    container_id: process.container.clone(),
                    exec_id: process.exec_id.clone(),
                    pid,
                };
                self.publisher.publish(topic::EXEC_STARTED, &event);
                self.reply(reply, Ok(api::StartResponse { pid }.encode_to_vec()));
                self.claim_early_exit(handle);
            }
            Err(error) => {
                process.io.close();
                process.state = State::Stopped;
                process.exit = Some(Exit { status: 255, at: SystemTime::now() });
                let waiters = std::mem::take(&mut process.waiters);
                for waiter in waiters {
                    self.answer_exit(waiter, handle);
                }
                self.reply(reply, Err(error));
            }
        }
    }
}
