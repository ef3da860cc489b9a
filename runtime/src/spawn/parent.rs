//! Creating a container as seen from outside, and giving everything back when it fails.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::foreground::{self, Process};
use super::prepare::{Mode, Prepared};
use super::readiness::{self, Readiness};
use super::sync::{self, Message};
use super::{child, gate};
use crate::cgroup::{self, Entrance};
use crate::container::{Container, state_document};
use crate::error::{Error, Result, Step};
use crate::hooks;
use crate::log::Log;
use crate::rootless;
use crate::setup::capabilities::lacking;
use crate::setup::{devices, idmap, mounts, namespaces, rlimits};
use crate::state::{Config, Lock, Record, StateDir, replace};
use crate::sys::clone::{Side, clone3};
use crate::sys::{self, files, prctl, scm};

/// How it went on after the process was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It waits at the gate or runs without us.
    Left,
    /// It ran in the foreground and ended so.
    Ended(i32),
}

pub(crate) fn create(root: &str, plan: &Prepared, log: &Log) -> Result<Outcome> {
    plan.process.keep_to_ourselves()?;
    let (mut lock, mut container) = claim(root, plan)?;
    let made = make(plan, &mut container, &mut lock, log);
    drop(lock);
    let process = match made {
        Ok(process) => process,
        Err(error) => {
            give_back(&container, log);
            return Err(error);
        }
    };
    plan.warnings.iter().for_each(|warning| log.warning(warning));
    if plan.mode == Mode::Create {
        return Ok(Outcome::Left);
    }
    finish(plan, &container, process, log)
}

/// The container's name, taken; unless others use its cgroup, which is seen before there is a record: what cleans up after
/// a failure must not take them for this container.
pub(super) fn claim(root: &str, plan: &Prepared) -> Result<(Lock, Container)> {
    let dir = StateDir::of(root, &plan.id)?;
    let lock = dir.claim()?;
    if let Err(error) = plan.cgroup.refuse_in_use() {
        let _ = dir.remove();
        return Err(error.during("error setting cgroup config for procHooks process"));
    }
    Ok((lock, Container { record: record(plan), dir }))
}

/// What follows once the program runs.
pub(super) fn finish(
    plan: &Prepared,
    container: &Container,
    mut process: Process,
    log: &Log,
) -> Result<Outcome> {
    if let Err(error) = poststart(container) {
        let _ = container.kill_and_wait();
        give_back(container, log);
        return Err(error);
    }
    if plan.mode == Mode::Detached {
        await_ready(container, process.ready)?;
        return Ok(Outcome::Left);
    }
    let code = foreground::attend(&mut process)?;
    Ok(Outcome::Ended(code))
}

/// If the caller wants to know when the container is ready; before its program runs.
pub(crate) fn listen_for_readiness(container: &Container) -> Result<Option<Readiness>> {
    let path = container.dir.notify_socket();
    let wanted = readiness::callers_socket().filter(|_| container.dir.notify_directory().is_dir());
    wanted.map(|host| readiness::listen(host, path)).transpose()
}

/// A container that ends without ever having been ready keeps nobody waiting.
pub(crate) fn await_ready(container: &Container, ready: Option<Readiness>) -> Result<()> {
    match (ready, container.pidfd()) {
        (Some(ready), Ok(pidfd)) => ready.wait(pidfd.as_fd(), container.record.init_process_pid),
        _ => Ok(()),
    }
}

/// Hooks that run once the program does; one that fails ends the container.
pub(crate) fn poststart(container: &Container) -> Result<()> {
    let state = container.document_as("running", container.record.init_process_pid);
    hooks::run_all(&container.record.config.hooks.poststart, "poststart", &state)
}

fn record(plan: &Prepared) -> Record {
    Record {
        id: plan.id.clone(),
        created: crate::log::rfc3339(std::time::SystemTime::now(), true),
        config: Config {
            rootfs: plan.rootfs.path.clone(),
            namespaces: plan.namespace_kinds.clone(),
            own_pid_namespace: plan.namespaces.new_pid,
            no_new_keyring: plan.keyring.is_none(),
            process_defaults: plan.defaults.clone(),
            seccomp_receiver: plan.seccomp_receiver.clone(),
            hooks: crate::spec::Hooks {
                poststart: plan.hooks.poststart.clone(),
                poststop: plan.hooks.poststop.clone(),
                ..Default::default()
            },
        },
        cgroup_paths: plan.cgroup.paths().clone(),
        systemd_unit: plan.cgroup.unit().unwrap_or_default().to_owned(),
        oci_version: plan.oci_version.clone(),
        bundle: plan.bundle.clone(),
        annotations: plan.annotations.clone(),
        ..Record::default()
    }
}

fn make(plan: &Prepared, container: &mut Container, lock: &mut Lock, log: &Log) -> Result<Process> {
    // Before the first thing outside the state directory, so that all of it can be found after a kill.
    container.dir.write(&container.record)?;
    if let Some(file) = &plan.seccomp_file {
        file.put(&container.dir.seccomp())?;
    }
    let may_lack = || plan.as_rootless.unwrap_or_else(rootless::is_ordinary);
    container.record.cgroup_paths = cgroup::make(&*plan.cgroup, &plan.resources, &may_lack)
        .step(|| "error setting cgroup config for procHooks process".into())?;
    let gate = (plan.mode == Mode::Create).then(|| gate::make(&container.dir)).transpose()?;
    // Signals reach the foreground process from its first moment on, and never end us half-way.
    let signals = (plan.mode == Mode::Foreground).then(foreground::listen).transpose()?;

    if plan.notify.is_some() {
        let dir = container.dir.notify_directory();
        fs::create_dir(&dir).step(|| format!("create {}", dir.display()))?;
    }
    let ready = if plan.mode == Mode::Create { None } else { listen_for_readiness(container)? };
    let trees = mounts::open_early(&plan.mounts, plan.open_all_trees)?;
    let devices = match &plan.devices {
        Some(devices) if plan.open_all_trees && plan.namespaces.new_user => {
            devices::make_outside(devices, &plan.uid_mappings, &plan.gid_mappings)?
        }
        _ => None,
    };

    log.debug("nsexec container setup: the cgroup is made and everything opened; cloning");
    let (mut sync, pid, pidfd) = start_child(plan, container, lock, gate, (trees, devices))?;
    let talk = |sync: &mut sync::Parent, container: &mut Container| -> Result<(i32, Option<OwnedFd>)> {
        let pid = if plan.namespaces.joins_user() { replaced(sync, pid)? } else { pid };
        container.record.init_process_pid = pid;
        let terminal = attend_setup(plan, container, sync, pid)?;
        Ok((pid, terminal))
    };
    log.debug(&format!("child process in init(): pid {pid} sets itself up"));
    match talk(&mut sync, container) {
        Ok((pid, terminal)) => {
            log.debug("init: closing the pipe to signal completion: nothing is left to say to it");
            Ok(Process { pid, terminal, signals, ready })
        }
        Err(error) => {
            let _ = files::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let pid = container.record.init_process_pid;
            if pid > 0 {
                let _ = sys::signal::kill(pid, libc::SIGKILL);
                let _ = sys::signal::wait(pid);
            }
            Err(error.during("unable to start container process"))
        }
    }
}

fn start_child(
    plan: &Prepared,
    container: &mut Container,
    lock: &mut Lock,
    gate: Option<OwnedFd>,
    (trees, devices): (mounts::Trees, Option<OwnedFd>),
) -> Result<(sync::Parent, i32, OwnedFd)> {
    let entrance = match plan.cgroup.unit() {
        // It is put into its place once it is there.
        Some(_) if container.record.cgroup_paths.len() == 1 => {
            Entrance { clone_into: None, join: Vec::new() }
        }
        _ => container.cgroup().entrance(&[])?,
    };
    let (sync, child_end) = sync::pair()?;
    let back = plan.namespaces.before_clone()?;
    // What the child inherits is closed to others from its first instruction on (CVE-2016-9962).
    // An ordinary user must be able to write its mappings first.
    if rustix::process::geteuid().is_root() {
        prctl::set_undumpable().step(|| "become undumpable".into())?;
    }
    let inherited = |record| child::Inherited {
        sync: child_end,
        join_cgroup: entrance.join,
        gate,
        trees,
        devices,
        record,
    };
    let into_cgroup = entrance.clone_into.as_ref().map(AsFd::as_fd);
    let flags = if plan.namespaces.joins_user() { 0 } else { plan.namespaces.clone_flags };
    match clone3(flags, into_cgroup)
        .step(|| format!("clone the container's process{}", lacking("CAP_SYS_ADMIN")))?
    {
        Side::Child => {
            drop(sync);
            lock.leave_to_parent();
            let inherited = inherited(&container.record);
            if plan.namespaces.joins_user() {
                replace_by_second_child(plan, &inherited)
            }
            child::run(plan, &inherited)
        }
        Side::Parent { pid, pidfd } => {
            container.record.init_process_pid = pid;
            namespaces::return_to(&back)?;
            Ok((sync, pid, pidfd))
        }
    }
}

/// Namespaces that a joined user namespace shall own can only be made from inside it: a first child joins, and
/// makes the container's process as its own sibling.
fn replace_by_second_child(plan: &Prepared, inherited: &child::Inherited<'_>) {
    let make = || -> Result<Side> {
        rlimits::raise(0, &plan.process.rlimits)?;
        plan.namespaces.join_user()?;
        clone3(plan.namespaces.clone_flags | libc::CLONE_PARENT as u64, None)
            .step(|| "clone the container's process".into())
    };
    match make() {
        Ok(Side::Child) => {}
        Ok(Side::Parent { pid, .. }) => {
            let code = i32::from(inherited.sync.pid(pid).is_err());
            std::process::exit(code)
        }
        Err(error) => {
            inherited.sync.failed(&error.to_string());
            std::process::exit(1)
        }
    }
}

fn replaced(sync: &mut sync::Parent, first: i32) -> Result<i32> {
    let message = sync.receive()?;
    sys::signal::wait(first).step(|| "wait for the first child".into())?;
    match message {
        Message::Pid(pid) => Ok(pid),
        Message::Failed(reason) => Err(Error::invalid(reason)),
        other => Err(Error::invalid(format!("unexpected {other:?} from the first child"))),
    }
}

/// From the clone until the process needs nobody any more.
fn attend_setup(
    plan: &Prepared,
    container: &mut Container,
    sync: &mut sync::Parent,
    pid: i32,
) -> Result<Option<OwnedFd>> {
    container.record.init_process_start =
        sys::proc::stat(pid).step(|| "read the start time of the container's process".into())?.start_time;
    set_oom_score(pid, plan.oom_score_adj)?;
    let mut terminal = None;
    loop {
        match sync.receive()? {
            Message::Place => {
                plan.cgroup
                    .place(pid, &plan.resources)
                    .step(|| "error setting cgroup config for procHooks process".into())?;
                sync.go()?;
            }
            Message::Mapping => {
                rlimits::raise(pid, &plan.process.rlimits)?;
                idmap::write(pid, &plan.uid_mappings, &plan.gid_mappings)?;
                sync.go()?;
            }
            Message::Devices => {
                plan.net_devices.move_to(pid)?;
                sync.go()?;
            }
            Message::Terminal(master) => terminal = Some(master),
            Message::Hooks => {
                let state = state_document(&container.record, "creating", pid);
                hooks::run_all(&plan.hooks.prestart, "prestart", &state)?;
                hooks::run_all(&plan.hooks.create_runtime, "createRuntime", &state)?;
                sync.go()?;
            }
            Message::Ready => {
                // Not earlier: from now on the container is there for others. If we are killed before, the
                // process finds nobody at the other end and ends by itself.
                container.dir.write(&container.record)?;
                announce(pid, plan.pid_file.as_deref(), plan.pidfd_socket.as_ref())?;
                sync.go()?;
                break;
            }
            message => return Err(failure(message)),
        }
    }
    if plan.mode != Mode::Create {
        await_exec(sync)?;
    }
    Ok(terminal)
}

pub(super) fn failure(message: Message) -> Error {
    match message {
        Message::Failed(reason) => Error::invalid(reason).during("error during container init"),
        Message::End => Error::invalid(
            "container init ended unexpectedly: it may have been killed, for instance for lack of memory",
        ),
        other => Error::invalid(format!("unexpected message {other:?}")),
    }
}

/// The socket is closed by the exec itself, so its end says that the program runs.
pub(super) fn await_exec(sync: &mut sync::Parent) -> Result<()> {
    match sync.receive()? {
        Message::End => Ok(()),
        message => Err(failure(message)),
    }
}

/// Lowering needs a right that the runtime may not have; a score that is already there needs none.
pub(super) fn set_oom_score(pid: i32, score: Option<i32>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    if fs::read_to_string(&path).is_ok_and(|text| text.trim().parse() == Ok(score)) {
        return Ok(());
    }
    fs::write(&path, score.to_string())
        .step(|| format!("set oom score adjustment {score}{}", lacking("CAP_SYS_RESOURCE")))
}

/// Tell those who asked which process it is.
pub(super) fn announce(pid: i32, pid_file: Option<&str>, pidfd_socket: Option<&OwnedFd>) -> Result<()> {
    if let Some(socket) = pidfd_socket {
        let pidfd = files::pidfd_open(pid).step(|| "open a pidfd".into())?;
        scm::send(socket, b"pidfd", Some(pidfd.as_fd())).step(|| "send the pidfd".into())?;
    }
    let Some(file) = pid_file else { return Ok(()) };
    let path = Path::new(file);
    let name =
        path.file_name().ok_or_else(|| Error::invalid(format!("pid file {file:?} is not a file name")))?;
    let new = path.with_file_name(format!(".{}", name.to_string_lossy()));
    replace(&new, path, pid.to_string().as_bytes(), 0o644)
}

/// After a failure: nothing of the container stays, and the caller hears of the failure itself only.
pub(super) fn give_back(container: &Container, log: &Log) {
    if !container.record.config.own_pid_namespace
        && let Err(error) = container.cgroup().kill_all()
    {
        log.warning(&error.to_string());
    }
    let result = container.give_cgroup_back().and_then(|()| container.dir.remove());
    if let Err(error) = result {
        log.warning(&format!("clean up after the failed start: {error}"));
    }
}
