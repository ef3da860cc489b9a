//! Processes added to a running container: create, start, inspect, resize. What must outlive the engine is small:
//! a file beside the FIFOs of every started exec names it, so that a later engine can delete it when it ends.

use crate::clock::Timestamp;
use crate::containers::record::Record;
use crate::containers::rootfs::User;
use crate::containers::spec::process;
use crate::containers::state::{self, Request};
use crate::containers::stdio::{Streams, Wanted};
use crate::containers::{publish, random_id, start};
use crate::error::{Error, ErrorKind};
use crate::view::Container;
use crate::{Ctx, Shared};
use proto::containerd::task_types::Status;
use proto::containerd::tasks::ExecProcessRequest;
use proto::docker::exec::{ExecCreateRequest, ExecInspect, ProcessConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Execs remembered for one container, ended ones included; docker forgets them after minutes.
const MAX_EXECS: usize = 4096;
/// How long after the end of its output an exec that still runs is waited for; and one that does not, whose exit those
/// below us are about to tell.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);
const EXIT_DEADLINES_LONGEST: u32 = 24;
/// Name ending of the file that names a started exec.
pub(crate) const FILE_SUFFIX: &str = ".json";

pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) request: ExecCreateRequest,
    pub(crate) streams: Arc<Streams>,
    state: Mutex<ExecState>,
    ended: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExecState {
    Created,
    /// Being started; the pid is not known yet.
    Starting,
    Running {
        pid: u32,
    },
    Ended {
        code: i32,
        at: Timestamp,
    },
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) id: String,
    pub(crate) request: ExecCreateRequest,
}

impl Exec {
    fn new(
        ctx: &Ctx,
        container: &str,
        id: String,
        request: ExecCreateRequest,
        state: ExecState,
    ) -> Arc<Exec> {
        let streams = Streams::new(ctx.config.run_dir(container), format!("{id}."));
        Arc::new(Exec {
            id,
            container: container.to_owned(),
            request,
            streams: Arc::new(streams),
            ended: watch::channel(matches!(state, ExecState::Ended { .. })).0,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> ExecState {
        *self.state.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state(), ExecState::Running { .. } | ExecState::Starting)
    }

    fn set(&self, state: ExecState) {
        *self.state.lock().expect("no holder of this lock panics") = state;
        if matches!(state, ExecState::Ended { .. }) {
            self.ended.send_replace(true);
        }
    }

    /// Returns when the process's exit is known, so that who has seen the end of its output finds its exit code.
    /// A process that has closed its output and lives on is waited for only so long.
    pub(crate) async fn exit_known(&self, ctx: &Shared, container: &Arc<Container>) {
        let mut ended = self.ended.subscribe();
        for _ in 0..EXIT_DEADLINES_LONGEST {
            let known = tokio::time::timeout(EXIT_DEADLINE, ended.wait_for(|ended| *ended)).await.is_ok();
            if known || matches!(self.state(), ExecState::Running { pid } if runs(pid)) {
                return;
            }
            catch_up(ctx, container, self).await;
        }
    }

    /// The container's first process has ended and taken this one with it.
    pub(crate) fn container_ended(&self, code: u32) {
        if self.is_running() {
            self.streams.finish();
            let killed = if code == 0 { 137 } else { code };
            self.set(ExecState::Ended { code: killed as i32, at: Timestamp::now() });
        }
    }

    pub(crate) fn inspect(&self) -> ExecInspect {
        let state = self.state();
        let request = &self.request;
        let command = request.cmd.clone().unwrap_or_default();
        ExecInspect {
            id: self.id.clone(),
            running: self.is_running(),
            exit_code: match state {
                ExecState::Ended { code, .. } => Some(code),
                ExecState::Created => None,
                _ => None,
            },
            process_config: ProcessConfig {
                tty: request.tty,
                entrypoint: command.first().cloned().unwrap_or_default(),
                arguments: command.iter().skip(1).cloned().collect(),
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: self.container.clone(),
            detach_keys: request.detach_keys.clone(),
            pid: if let ExecState::Running { pid } = state { pid } else { 0 },
        }
    }

    fn file(&self, ctx: &Ctx) -> PathBuf {
        ctx.config.run_dir(&self.container).join(format!("{}{FILE_SUFFIX}", self.id))
    }
}

/// Whether there is such a process, and it has not ended.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `PID (NAME) STATE ...`, where a name may have any character.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// `POST /containers/{id}/exec`.
pub(crate) async fn create(
    ctx: &Ctx,
    container: &Container,
    request: ExecCreateRequest,
) -> Result<String, Error> {
    if request.cmd.as_ref().is_none_or(|command| command.is_empty() || command[0].is_empty()) {
        return Err(Error::invalid("No exec command specified"));
    }
    state::check(Request::Exec, container.live(), &container.id, &container.name())?;
    let keys = &request.detach_keys;
    if crate::containers::attach::parse_detach_keys(keys).is_none() {
        return Err(Error::internal(format!("Invalid escape keys ({keys}) provided")));
    }
    // A name that is none is refused here; numbers need no look into the container's files.
    if request.user.contains(|letter: char| !letter.is_ascii_digit() && letter != ':') {
        user(ctx, container, &request).await.map_err(|error| Error::invalid(error.to_string()))?;
    }
    forget_oldest(container);
    let exec = Exec::new(ctx, &container.id, random_id(), request, ExecState::Created);
    let id = exec.id.clone();
    let command = exec.request.cmd.clone().unwrap_or_default().join(" ");
    container.add_exec(exec);
    publish(ctx, container, &format!("exec_create: {command}"), &[("execID", id.clone())]);
    Ok(id)
}

/// Whom the container's files say the exec's user is.
async fn user(ctx: &Ctx, container: &Container, request: &ExecCreateRequest) -> Result<User, Error> {
    let root = ctx.containerd.snapshot_mounts(&container.id).await?;
    let accounts = start::read_accounts(ctx, root).await?;
    if !request.user.is_empty() {
        return accounts.user(&request.user, &[]);
    }
    let record = container.record();
    accounts.user(&record.config.user, record.host_config.group_add.as_deref().unwrap_or(&[]))
}

/// Keeps the memory of ended execs bounded.
fn forget_oldest(container: &Container) {
    let execs = container.execs();
    if execs.len() < MAX_EXECS {
        return;
    }
    let mut ended: Vec<Timestamp> = execs
        .iter()
        .filter_map(|exec| if let ExecState::Ended { at, .. } = exec.state() { Some(at) } else { None })
        .collect();
    ended.sort_unstable();
    if let Some(limit) = ended.get(ended.len() / 2).copied() {
        container.forget_execs(|exec| matches!(exec.state(), ExecState::Ended { at, .. } if at <= limit));
    }
}

/// Refuses an exec that was started already or whose container cannot take it.
pub(crate) fn begin(container: &Container, exec: &Exec) -> Result<(), Error> {
    state::check(Request::Exec, container.live(), &container.id, &container.name())?;
    let mut state = exec.state.lock().expect("no holder of this lock panics");
    match *state {
        ExecState::Created => {
            *state = ExecState::Starting;
            Ok(())
        }
        ExecState::Ended { .. } => {
            Err(Error::conflict(format!("Error: Exec command {} has already run", exec.id)))
        }
        _ => Err(Error::conflict(format!("Error: Exec command {} is already running", exec.id))),
    }
}

/// Runs a begun exec. A failure is its end, with docker's exit code.
pub(crate) async fn run(
    ctx: &Shared,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    attached: bool,
) -> Result<(), Error> {
    match try_run(ctx, container, exec, attached).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = ctx.containerd.delete_process(&exec.container, &exec.id).await;
            exec.streams.finish();
            let _ = std::fs::remove_file(exec.file(ctx));
            let code = start::exit_code(&error.to_string());
            let code = if code == 128 { 126 } else { code };
            exec.set(ExecState::Ended { code: code as i32, at: Timestamp::now() });
            Err(error)
        }
    }
}

async fn try_run(
    ctx: &Shared,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    attached: bool,
) -> Result<(), Error> {
    let record: Arc<Record> = container.record();
    let request = &exec.request;
    let user = user(ctx, container, request).await?;
    let document = process::exec_process(&record, &user, request)?;
    let wanted = Wanted {
        stdin: attached && request.attach_stdin,
        stdout: attached && (request.attach_stdout || request.tty),
        stderr: attached && request.attach_stderr && !request.tty,
    };
    let paths = exec.streams.create(wanted).map_err(|error| Error::io("create the exec's FIFOs", &error))?;
    let remembered = Remembered { id: exec.id.clone(), request: request.clone() };
    std::fs::write(exec.file(ctx), serde_json::to_vec(&remembered).expect("a request is JSON"))
        .map_err(|error| Error::io("note the exec", &error))?;
    let json = serde_json::to_vec(&document).expect("a process is JSON");
    let task = ExecProcessRequest {
        container_id: container.id.clone(),
        exec_id: exec.id.clone(),
        stdin: paths.stdin,
        stdout: paths.stdout,
        stderr: paths.stderr,
        terminal: request.tty,
        spec: Some(proto::any::document(proto::any::PROCESS, json)),
    };
    let failed = |error: crate::containerd::Error| {
        Error::new(ErrorKind::InvalidArgument, runtime_sentence(error.message()))
    };
    ctx.containerd.exec(task).await.map_err(failed)?;
    exec.streams.running();
    let command = request.cmd.clone().unwrap_or_default().join(" ");
    let pid = ctx.containerd.start_process(&container.id, &exec.id).await.map_err(failed)?;
    {
        let mut state = exec.state.lock().expect("no holder of this lock panics");
        // Its end may have been reported before its start was.
        if *state == ExecState::Starting {
            *state = ExecState::Running { pid };
        }
    }
    publish(ctx, container, &format!("exec_start: {command}"), &[("execID", exec.id.clone())]);
    Ok(())
}

/// `OCI runtime exec failed: ...` of whatever stands around it.
fn runtime_sentence(message: &str) -> String {
    match message.find("OCI runtime exec failed") {
        Some(at) => message[at..].to_owned(),
        None => message.to_owned(),
    }
}

/// containerd reported the end of an exec; also one that an earlier engine started.
pub(crate) async fn exited(ctx: &Shared, container: &Arc<Container>, id: &str, code: u32) {
    // Deleted first: the shim has then drained its output.
    match ctx.containerd.delete_process(&container.id, id).await {
        Err(error) if !error.is_not_found() => tracing::warn!(%error, exec = id, "ended exec not deleted"),
        _ => {}
    }
    let file = ctx.config.run_dir(&container.id).join(format!("{id}{FILE_SUFFIX}"));
    let _ = std::fs::remove_file(file);
    // It may have been told and asked for.
    let Some(exec) = container.exec(id).filter(|exec| exec.is_running()) else { return };
    exec.streams.finish();
    exec.set(ExecState::Ended { code: code as i32, at: Timestamp::now() });
    publish(ctx, container, "exec_die", &[("execID", id.to_owned()), ("exitCode", code.to_string())]);
}

/// Asks for the end of an exec that was told when nobody listened: containerd was away.
pub(crate) async fn catch_up(ctx: &Shared, container: &Arc<Container>, exec: &Exec) {
    if !matches!(exec.state(), ExecState::Running { .. }) {
        return;
    }
    let code = match ctx.containerd.get_process(&container.id, &exec.id).await {
        Ok(Some(process)) if process.status() == Status::Stopped => process.exit_status,
        Ok(None) => {
            // Deleted by who has just been told; else lost with its shim.
            let mut ended = exec.ended.subscribe();
            if tokio::time::timeout(Duration::from_secs(1), ended.wait_for(|ended| *ended)).await.is_ok() {
                return;
            }
            137
        }
        _ => return,
    };
    exited(ctx, container, &exec.id, code).await;
}

/// Finds the execs an earlier engine has started: running ones are taken over, ended ones deleted.
pub(crate) async fn adopt(ctx: &Shared, container: &Arc<Container>) {
    let Ok(entries) = std::fs::read_dir(ctx.config.run_dir(&container.id)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(FILE_SUFFIX)) else { continue };
        if container.exec(id).is_some() {
            continue;
        }
        let remembered = std::fs::read(entry.path())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        let request = remembered.map(|remembered| remembered.request).unwrap_or_default();
        let wanted = Wanted {
            stdin: request.attach_stdin,
            stdout: request.attach_stdout || request.tty,
            stderr: request.attach_stderr && !request.tty,
        };
        let process = ctx.containerd.get_process(&container.id, id).await.ok().flatten();
        let running = process.as_ref().is_some_and(|process| process.status() == Status::Running);
        let pid = process.as_ref().map_or(0, |process| process.pid);
        let exec = Exec::new(ctx, &container.id, id.to_owned(), request, ExecState::Running { pid });
        let _ = exec.streams.adopt(wanted);
        container.add_exec(exec);
        if !running {
            exited(ctx, container, id, process.map_or(137, |process| process.exit_status)).await;
        }
    }
}

pub(crate) async fn resize(ctx: &Ctx, exec: &Exec, height: u32, width: u32) -> Result<(), Error> {
    if !exec.is_running() {
        return Err(Error::conflict(format!("exec {} is not running", exec.id)));
    }
    Ok(ctx.containerd.resize(&exec.container, &exec.id, width, height).await?)
}
