//! Another process in a running container: it joins what the first one is in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode as FileMode, OFlags};

use super::child::{become_root, join_cgroup, join_keyring};
use super::foreground::{self, Process};
use super::parent::{announce, await_exec, failure, set_oom_score};
use super::prepare::{Mode, keyring_name, refuse_wrong_console};
use super::sync::{self, Message};
use super::{Outcome, process};
use crate::args::ExecOptions;
use crate::cgroup::{self, Entrance, SubCgroup};
use crate::container::Container;
use crate::error::{Result, Step};
use crate::log::Log;
use crate::rootless;
use crate::seccomp;
use crate::seccomp::notify::Subject;
use crate::setup::{lsm, namespaces, rlimits, scheduling, terminal};
use crate::spec;
use crate::sys::clone::{self, Side, clone3};
use crate::sys::{self, prctl, scm};

struct Plan {
    process: process::Plan,
    oom_score_adj: Option<i32>,
    /// Namespaces to join, for setns on the first process's pidfd.
    join: u64,
    keyring: Option<std::ffi::CString>,
    console_socket: Option<OwnedFd>,
    cgroups: Vec<SubCgroup>,
    /// The caller is not root, which cannot be seen any more once a user namespace is joined.
    by_ordinary_user: bool,
}

pub(crate) fn exec(
    container: &Container,
    process: &spec::Process,
    extra_caps: &[String],
    options: &ExecOptions,
    log: &Log,
) -> Result<Outcome> {
    let mode = if options.detach { Mode::Detached } else { Mode::Foreground };
    refuse_wrong_console(process.terminal, mode, options.console_socket.is_some())?;
    let pidfd = container.pidfd()?;
    let plan = prepare(container, process, extra_caps, options, log)?;
    let pidfd_socket = options
        .pidfd_socket
        .as_deref()
        .map(scm::connect)
        .transpose()
        .step(|| "connect to the pidfd socket".into())?;
    let signals = (mode == Mode::Foreground).then(foreground::listen).transpose()?;

    log.debug("nsexec container setup: everything is opened; cloning into the container's cgroup");
    let (mut sync, pid) = start_child(container, &plan, pidfd.as_fd())?;
    log.debug(&format!("child process in init(): pid {pid} joins the container's namespaces"));
    let attended = attend_setup(&plan, options, &mut sync, pid, pidfd_socket.as_ref(), log);
    let terminal = attended.map_err(|error| {
        let _ = sys::signal::kill(pid, libc::SIGKILL);
        let _ = sys::signal::wait(pid);
        error.during("unable to start container process")
    })?;
    if mode == Mode::Detached {
        return Ok(Outcome::Left);
    }
    foreground::attend(&mut Process { pid, terminal, signals, ready: None }).map(Outcome::Ended)
}

fn prepare(
    container: &Container,
    process: &spec::Process,
    extra_caps: &[String],
    options: &ExecOptions,
    log: &Log,
) -> Result<Plan> {
    let config = &container.record.config;
    let filter = seccomp::cache::read(&container.dir.seccomp())?;
    let mut plan = process::plan(process, filter, options.preserve_fds)?;
    if plan.seccomp.is_some() {
        plan.listener =
            config.seccomp_receiver.as_ref().map(seccomp::notify::Receiver::connect).transpose()?;
    }
    plan.affinity = scheduling::affinity(process.exec_cpu_affinity.as_ref())?;
    let join = config
        .namespaces
        .iter()
        .filter_map(|kind| namespaces::kind_flag(kind))
        .fold(0, |all, kind| all | kind);
    if join & libc::CLONE_NEWUSER as u64 != 0 {
        plan.may_set_groups = rootless::groups_can_be_set_in(container.record.init_process_pid);
        rootless::refuse_groups(plan.may_set_groups, &process.user)?;
    }
    extra_caps.iter().for_each(|name| plan.capabilities.add(name));
    plan.capabilities.unknown().iter().for_each(|unknown| log.warning(unknown));
    if join & libc::CLONE_NEWUSER as u64 == 0 {
        plan.capabilities.limit_to_own()?.iter().for_each(|left_out| log.warning(left_out));
    }
    Ok(Plan {
        process: plan,
        oom_score_adj: process.oom_score_adj,
        join,
        keyring: if config.no_new_keyring { None } else { Some(keyring_name(&container.record.id)?) },
        console_socket: options
            .console_socket
            .as_deref()
            .map(|path| scm::connect(path).step(|| format!("connect to console socket {path}")))
            .transpose()?,
        cgroups: options.cgroups.clone(),
        by_ordinary_user: !rustix::process::geteuid().is_root(),
    })
}

/// A v2 cgroup that hands controllers down takes no process itself: then it is the first process's place.
fn entrance(container: &Container, below: &[SubCgroup]) -> Result<Entrance> {
    let cgroup = container.cgroup();
    let hands_down = |dir: &std::path::PathBuf| {
        std::fs::read(dir.join("cgroup.subtree_control")).is_ok_and(|text| !text.is_empty())
    };
    match cgroup.paths().get("") {
        Some(dir) if cgroup.paths().len() == 1 && below.is_empty() && hands_down(dir) => {
            cgroup::open(&cgroup::paths_of(container.record.init_process_pid)?).entrance(&[])
        }
        _ => cgroup.entrance(below),
    }
}

fn start_child(container: &Container, plan: &Plan, pidfd: BorrowedFd<'_>) -> Result<(sync::Parent, i32)> {
    let entrance = entrance(container, &plan.cgroups)?;
    plan.process.affinity.apply_initial()?;
    let (sync, child_end) = sync::pair()?;
    let mut early = plan.join & libc::CLONE_NEWPID as u64;
    if plan.by_ordinary_user {
        // An ordinary user has rights only inside the user namespace, and the child's files are soon root's.
        early |= plan.join & libc::CLONE_NEWUSER as u64;
        set_oom_score(std::process::id() as i32, plan.oom_score_adj)?;
    }
    prctl::set_undumpable().step(|| "become undumpable".into())?;
    // A pid namespace takes in only children of who joins it. All other joining is the child's.
    if early != 0 {
        clone::setns(pidfd, early).step(|| "join the pid namespace".into())?;
    }
    let into_cgroup = entrance.clone_into.as_ref().map(AsFd::as_fd);
    match clone3(0, into_cgroup).step(|| "clone the new process".into())? {
        Side::Child => {
            drop(sync);
            let error = match setup(container, plan, &child_end, &entrance.join, (pidfd, plan.join & !early))
            {
                Ok(program) => process::execute(&plan.process, &program, None),
                Err(error) => error,
            };
            child_end.failed(&error.to_string());
            std::process::exit(255)
        }
        Side::Parent { pid, .. } => Ok((sync, pid)),
    }
}

fn setup(
    container: &Container,
    plan: &Plan,
    sync: &sync::Child,
    cgroup: &[OwnedFd],
    (pidfd, join): (BorrowedFd<'_>, u64),
) -> Result<process::Program> {
    let _ = prctl::set_name(c"rung:exec");
    let announcement = plan.process.announcement(&Subject {
        oci_version: &container.record.oci_version,
        id: &container.record.id,
        status: "running",
        init_pid: Some(container.record.init_process_pid),
        bundle: &container.record.bundle,
        annotations: &container.record.annotations,
    })?;
    join_cgroup(cgroup)?;
    rustix::process::setsid().step(|| "setsid".into())?;
    // While /proc is the host's.
    lsm::apply(&plan.process.apparmor_profile, &plan.process.selinux_label)?;
    if join & libc::CLONE_NEWUSER as u64 != 0 {
        rlimits::raise(0, &plan.process.rlimits)?;
    }
    if join != 0 {
        clone::setns(pidfd, join).step(|| "join the container's namespaces".into())?;
    }
    if plan.join & libc::CLONE_NEWUSER as u64 != 0 {
        become_root()?;
    }
    if let Some(name) = &plan.keyring {
        join_keyring(name)?;
    }
    if plan.process.terminal {
        let root =
            rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
                .step(|| "open the root".into())?;
        let opened = terminal::open(root.as_fd(), plan.process.console_size)?;
        match &plan.console_socket {
            Some(socket) => terminal::hand_over(socket.as_fd(), &opened)?,
            None => sync.terminal(opened.master.as_fd())?,
        }
        terminal::adopt(opened)?;
    }
    let program = process::settle(&plan.process, announcement)?;
    sync.ready()?;
    Ok(program)
}

fn attend_setup(
    plan: &Plan,
    options: &ExecOptions,
    sync: &mut sync::Parent,
    pid: i32,
    pidfd_socket: Option<&OwnedFd>,
    log: &Log,
) -> Result<Option<OwnedFd>> {
    if !plan.by_ordinary_user {
        set_oom_score(pid, plan.oom_score_adj)?;
    }
    let mut terminal = None;
    loop {
        match sync.receive()? {
            Message::Terminal(master) => terminal = Some(master),
            Message::Ready => break,
            message => return Err(failure(message)),
        }
    }
    log.debug(&format!("setns_init: about to exec {:?}", plan.process.arguments.first()));
    announce(pid, options.pid_file.as_deref(), pidfd_socket)?;
    sync.go()?;
    await_exec(sync)?;
    Ok(terminal)
}
