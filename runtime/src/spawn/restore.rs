//! Bringing a container back from a checkpoint: what [`super::parent`] makes around the process is made here too, and
//! criu makes the process, as a child of ours.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode as FileMode, OFlags};

use super::foreground::{self, Process};
use super::parent::{Outcome, announce, claim, finish, give_back, listen_for_readiness};
use super::prepare::{Mode, Prepared};
use crate::args::RestoreOptions;
use crate::cgroup;
use crate::checkpoint::criu::{Criu, Kind, Message};
use crate::checkpoint::{self, Folders, Given, Joined, ManageCgroups, Outside};
use crate::container::{Container, state_document};
use crate::error::{Error, Result, Step};
use crate::hooks;
use crate::log::Log;
use crate::rootless;
use crate::sys::{self, clone, mount};

/// criu's log in the work folder.
const LOG: &str = "restore.log";

pub(crate) fn restore(
    root: &str,
    plan: &Prepared,
    joined: &[Joined],
    options: &RestoreOptions,
    log: &Log,
) -> Result<Outcome> {
    let images = checkpoint::absolute(&options.criu.image_path)?;
    if !images.is_dir() {
        return Err(Error::invalid(format!("no checkpoint: {} is no folder", images.display())));
    }
    let folders = Folders::make(&options.criu)?;
    let outside = Outside::read(&folders.images).step(|| "read the checkpoint".into())?;
    let (lock, mut container) = claim(root, plan)?;
    let made = make(plan, joined, options, &folders, &outside, &mut container);
    drop(lock);
    match made {
        Ok(process) => finish(plan, &container, process, log),
        Err(error) => {
            // What criu had restored before it failed it has ended itself.
            let _ = container.kill_and_wait();
            give_back(&container, log);
            Err(error)
        }
    }
}

fn make(
    plan: &Prepared,
    joined: &[Joined],
    options: &RestoreOptions,
    folders: &Folders,
    outside: &Outside,
    container: &mut Container,
) -> Result<Process> {
    container.dir.write(&container.record)?;
    if let Some(file) = &plan.seccomp_file {
        file.put(&container.dir.seccomp())?;
    }
    let may_lack = || plan.as_rootless.unwrap_or_else(rootless::is_ordinary);
    container.record.cgroup_paths = cgroup::make(&*plan.cgroup, &plan.resources, &may_lack)?;
    let signals = (plan.mode == Mode::Foreground).then(foreground::listen).transpose()?;
    let ready = listen_for_readiness(container)?;

    let given = Given::all(&plan.mounts, &plan.masked_paths);
    let rootfs = open_rootfs(&plan.rootfs.path)?;
    checkpoint::make_places(&rootfs, &plan.mounts, &given)?;
    let _tmp = Tmp::make(&rootfs);

    let away = Away::go(&plan.rootfs.path)?;
    let started = request(plan, joined, options, folders, outside, &given, container);
    away.back()?;
    let (criu, message, _dirs) = started?;
    // What it restores is born where it is itself.
    match plan.cgroup.unit() {
        Some(_) => plan.cgroup.place(criu.pid(), &plan.resources)?,
        None => cgroup::enter(&container.record.cgroup_paths, criu.pid())?,
    }
    let mut terminal = None;
    let log = folders.work.join(LOG);
    let pid = criu.ask(Kind::Restore, &message, &log, &mut |stage, pid, fd| {
        attend(plan, container, stage, pid, fd, &mut terminal)
    })?;
    if pid != container.record.init_process_pid {
        return Err(Error::invalid(format!("criu restored process {pid} without a word before")));
    }
    announce(pid, plan.pid_file.as_deref(), plan.pidfd_socket.as_ref())?;
    Ok(Process { pid, terminal, signals, ready })
}

fn open_rootfs(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, FileMode::empty()).step(|| format!("open {path}"))
}

/// A criu in the mount namespace that we are in, and what it is to be asked.
fn request(
    plan: &Prepared,
    joined: &[Joined],
    options: &RestoreOptions,
    folders: &Folders,
    outside: &Outside,
    given: &[Given],
    container: &Container,
) -> Result<(Criu, Message, [OwnedFd; 2])> {
    let (mut message, dirs) = checkpoint::common(&options.criu, folders, LOG)?;
    message.text(13, &plan.rootfs.path);
    // Devices that have moved since, and a parent that is us.
    message.flag(6, true);
    message.flag(26, true);
    outside.give_mounts(given, &mut message)?;
    let mut passed = outside.give_streams(&mut message)?;
    passed.extend(checkpoint::give_namespaces(joined, &mut message)?);
    if let Some(profile) = &options.lsm_profile {
        message.text(53, profile);
    }
    if options.criu.manage_cgroups != ManageCgroups::Ignore {
        for (controller, path) in cgroup::roots(&container.record.cgroup_paths) {
            let mut root = Message::default();
            if !controller.is_empty() {
                root.text(1, &controller);
            }
            root.text(2, &path);
            message.message(25, &root);
        }
    }
    Ok((Criu::start(&passed)?, message, dirs))
}

/// Where criu puts the former root while it moves to the new one: without it criu makes a directory of another name, which
/// a root that is read-only refuses.
struct Tmp<'a>(Option<&'a OwnedFd>);

impl Tmp<'_> {
    const NAME: &'static str = "tmp";

    fn make(rootfs: &OwnedFd) -> Tmp<'_> {
        let made = rustix::fs::mkdirat(rootfs, Tmp::NAME, FileMode::from_raw_mode(0o755)).is_ok();
        Tmp(made.then_some(rootfs))
    }
}

impl Drop for Tmp<'_> {
    fn drop(&mut self) {
        if let Some(rootfs) = self.0 {
            let _ = rustix::fs::unlinkat(rootfs, Tmp::NAME, AtFlags::REMOVEDIR);
        }
    }
}

/// criu wants the root file system to be a mount, and works in folders of its own mount namespace. That is one which dies
/// with it, so that nothing is left when we are killed; the hooks run in the caller's again.
struct Away {
    mounts: OwnedFd,
    directory: OwnedFd,
}

impl Away {
    fn go(rootfs: &str) -> Result<Away> {
        let open = |path: &str| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())
                .step(|| format!("open {path}"))
        };
        let away = Away { mounts: open("/proc/self/ns/mnt")?, directory: open(".")? };
        clone::unshare(libc::CLONE_NEWNS as u64).step(|| "make a mount namespace for criu".into())?;
        let bind = || {
            mount::propagate("/", libc::MS_SLAVE, true).step(|| "keep mounts to ourselves".into())?;
            let copy = mount::copy_of_path(rootfs, true).step(|| format!("bind {rootfs}"))?;
            mount::attach(&copy, open_rootfs(rootfs)?.as_fd()).step(|| format!("bind {rootfs} on itself"))
        };
        match bind() {
            Ok(()) => Ok(away),
            Err(error) => away.back().and(Err(error)),
        }
    }

    fn back(self) -> Result<()> {
        clone::setns(self.mounts.as_fd(), libc::CLONE_NEWNS as u64)
            .step(|| "return to the caller's mounts".into())?;
        rustix::process::fchdir(&self.directory).step(|| "return to the caller's directory".into())
    }
}

/// What criu says on its way.
fn attend(
    plan: &Prepared,
    container: &mut Container,
    stage: &str,
    pid: i32,
    fd: Option<OwnedFd>,
    terminal: &mut Option<OwnedFd>,
) -> Result<()> {
    match stage {
        "setup-namespaces" => {
            let state = state_document(&container.record, "creating", pid);
            hooks::run_all(&plan.hooks.prestart, "prestart", &state)?;
            hooks::run_all(&plan.hooks.create_runtime, "createRuntime", &state)
        }
        // The processes wait; nothing of them has run yet.
        "post-restore" => {
            container.record.init_process_pid = pid;
            container.record.init_process_start = sys::proc::stat(pid)
                .step(|| "read the start time of the container's process".into())?
                .start_time;
            container.dir.write(&container.record)
        }
        "orphan-pts-master" => {
            let Some(master) = fd else { return Ok(()) };
            match &plan.console_socket {
                Some(socket) => sys::scm::send(socket, b"/dev/ptmx", Some(master.as_fd()))
                    .step(|| "hand the terminal over".into()),
                None => {
                    *terminal = Some(master);
                    Ok(())
                }
            }
        }
        _ => Ok(()),
    }
}
