//! The container's first process, from the clone to the exec: straight down, one call a step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::prepare::Prepared;
use super::{gate, process, sync};
use crate::container::state_document;
use crate::error::{Error, Result, Step};
use crate::hooks;
use crate::inroot::{self, Kind};
use crate::seccomp::notify::Subject;
use crate::setup::{devices, lsm, masks, mounts, namespaces, rootfs, sysctl, terminal};
use crate::state::Record;
use crate::sys::{self, clone, prctl};

/// What the child was given beyond the plan.
pub(super) struct Inherited<'a> {
    pub(super) sync: sync::Child,
    pub(super) join_cgroup: Vec<OwnedFd>,
    pub(super) gate: Option<OwnedFd>,
    pub(super) trees: mounts::Trees,
    /// Made for a container that may make none.
    pub(super) devices: Option<OwnedFd>,
    pub(super) record: &'a Record,
}

/// Never returns: the program, or the reason why not to whoever still listens.
pub(super) fn run(plan: &Prepared, inherited: &Inherited<'_>) -> ! {
    let error = init(plan, inherited);
    let reason = error.to_string();
    if !inherited.sync.failed(&reason) {
        // After `start` nobody is left but the container's own output.
        eprintln!("{reason}");
    }
    std::process::exit(if matches!(error, Error::Step { .. } | Error::NotExecuted(_)) { 255 } else { 1 })
}

fn init(plan: &Prepared, inherited: &Inherited<'_>) -> Error {
    match setup(plan, inherited) {
        Ok(program) => {
            let hooks = || {
                let state = state_document(inherited.record, "created", std::process::id() as i32);
                hooks::run_all(&plan.hooks.start_container, "startContainer", &state)
            };
            let hooks: Option<&dyn Fn() -> Result<()>> =
                if plan.hooks.start_container.is_empty() { None } else { Some(&hooks) };
            process::execute(&plan.process, &program, hooks)
        }
        Err(error) => error,
    }
}

fn setup(plan: &Prepared, inherited: &Inherited<'_>) -> Result<process::Program> {
    let sync = &inherited.sync;
    let _ = prctl::set_name(c"rung:init");
    let announcement = plan.process.announcement(&Subject {
        oci_version: &plan.oci_version,
        id: &plan.id,
        status: "creating",
        init_pid: None,
        bundle: &plan.bundle,
        annotations: &plan.annotations,
    })?;
    if plan.cgroup.unit().is_some() {
        sync.place()?;
    }
    if plan.namespaces.new_user {
        sync.mapping()?;
    }
    if plan.namespaces.new_user || plan.namespaces.joins_user() {
        become_root()?;
    }
    join_cgroup(&inherited.join_cgroup)?;
    // A signal to the caller's group or the end of its terminal is none of the container's business.
    rustix::process::setsid().step(|| "setsid".into())?;
    plan.namespaces.after_clone()?;
    // After the cgroup was joined: its place becomes the root of what the container sees.
    if plan.namespaces.new_cgroup {
        clone::unshare(libc::CLONE_NEWCGROUP as u64).step(|| "new cgroup namespace".into())?;
    }
    if plan.namespaces.new_network {
        namespaces::bring_up_loopback()?;
    }
    if !plan.net_devices.is_empty() {
        sync.devices()?;
        plan.net_devices.configure()?;
    }
    set_names(plan)?;
    if let Some(name) = &plan.keyring {
        join_keyring(name)?;
    }

    let root = rootfs::prepare(&plan.rootfs)?;
    sys::user::umask(0);
    let mut late = mounts::Late::new();
    let context =
        mounts::Context { trees: &inherited.trees, has_cgroup: !inherited.record.cgroup_paths.is_empty() };
    mounts::apply(root.as_fd(), &plan.mounts, &context, &mut late)?;
    if let Some(devices) = &plan.devices {
        devices::apply(root.as_fd(), devices, inherited.devices.as_ref())?;
        // While /proc is the host's.
        devices::renew_null_streams(root.as_fd())?;
    }
    let terminal = open_terminal(plan, root.as_fd(), sync)?;
    sys::user::umask(0o022);
    make_cwd(root.as_fd(), &plan.process.cwd);

    run_hooks(plan, inherited, root.as_fd())?;
    // After the hooks, which may have made the network devices that a parameter is for; before the pivot, while
    // /proc is the host's and cannot be a false one.
    sysctl::apply(&plan.sysctl)?;
    lsm::apply(&plan.process.apparmor_profile, &plan.process.selinux_label)?;
    masks::make_readonly(root.as_fd(), &plan.readonly_paths)?;
    masks::mask(root.as_fd(), &plan.masked_paths)?;
    rootfs::enter(&plan.rootfs, root.as_fd())?;
    // From here on nothing can be made in the root.
    rootfs::seal(&plan.rootfs, root.as_fd(), &late)?;
    drop((root, late));

    if let Some(terminal) = terminal {
        terminal::adopt(terminal)?;
    }
    plan.first_process.apply()?;
    let program = process::settle(&plan.process, announcement)?;
    sync.ready()?;
    if let Some(gate) = &inherited.gate {
        gate::wait(gate)?;
    }
    Ok(program)
}

/// A process is nobody in a user namespace until it takes on one of its ids.
pub(super) fn become_root() -> Result<()> {
    sys::user::set_gid(0).step(|| "setgid 0 in the user namespace".into())?;
    sys::user::set_uid(0).step(|| "setuid 0 in the user namespace".into())?;
    // The change of user has made the process dumpable according to a setting of the machine.
    prctl::set_undumpable().step(|| "become undumpable".into())
}

pub(super) fn join_cgroup(files: &[OwnedFd]) -> Result<()> {
    for file in files {
        rustix::io::write(file, b"0").step(|| "join the cgroup".into())?;
    }
    Ok(())
}

/// Kernels may lack keyrings, or the caller have used up its quota: a container without is no less isolated from
/// the caller's keys only if it fails, but the original tolerates a kernel without them.
pub(super) fn join_keyring(name: &std::ffi::CStr) -> Result<()> {
    match prctl::new_session_keyring(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.step(|| "new session keyring".into()),
    }
}

fn set_names(plan: &Prepared) -> Result<()> {
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes())
            .step(|| format!("set the hostname {:?}", plan.hostname))?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes())
            .step(|| format!("set the domainname {:?}", plan.domainname))?;
    }
    Ok(())
}

fn open_terminal(
    plan: &Prepared,
    root: BorrowedFd<'_>,
    sync: &sync::Child,
) -> Result<Option<terminal::Terminal>> {
    if !plan.process.terminal {
        return Ok(None);
    }
    let opened = terminal::open(root, plan.process.console_size)?;
    if plan.devices.is_some() {
        terminal::bind_console(root, &opened)?;
    }
    match &plan.console_socket {
        Some(socket) => terminal::hand_over(socket.as_fd(), &opened)?,
        None => sync.terminal(opened.master.as_fd())?,
    }
    Ok(Some(opened))
}

/// As the original does; where it cannot be made, entering it will say so.
fn make_cwd(root: BorrowedFd<'_>, cwd: &str) {
    let _ = inroot::open_or_create(root, cwd, Kind::Directory, false);
}

fn run_hooks(plan: &Prepared, inherited: &Inherited<'_>, root: BorrowedFd<'_>) -> Result<()> {
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        inherited.sync.hooks()?;
    }
    if !plan.hooks.create_container.is_empty() {
        // Where the original's stand.
        rustix::process::fchdir(root).step(|| "enter the root file system".into())?;
        let state = state_document(inherited.record, "creating", std::process::id() as i32);
        hooks::run_all(&plan.hooks.create_container, "createContainer", &state)?;
    }
    Ok(())
}
