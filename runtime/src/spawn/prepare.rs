//! Every decision and every descriptor that creating a container needs, before anything of it exists.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::args::{CreateOptions, Global};
use crate::bundle::{self, Bundle};
use crate::cgroup::{self, Driver};
use crate::error::{Error, Result, Step};
use crate::rootless;
use crate::seccomp;
use crate::setup::{devices, mounts, namespaces, netdevices, rootfs, scheduling};
use crate::spawn::{process, readiness};
use crate::spec::{Hooks, IdMapping, Resources};
use crate::state::{ProcessDefaults, StateDir};
use crate::sys::scm;

/// What becomes of the process once it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It waits at the gate.
    Create,
    /// It runs; we do not wait for it.
    Detached,
    /// It runs and we wait for its end.
    Foreground,
}

pub(crate) struct Prepared {
    pub(crate) mode: Mode,
    /// Whether its user may be one who can make no cgroup; None: look.
    pub(crate) as_rootless: Option<bool>,
    pub(crate) id: String,
    pub(crate) bundle: String,
    pub(crate) oci_version: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) namespaces: namespaces::Plan,
    pub(crate) namespace_kinds: Vec<String>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    pub(crate) cgroup: Box<dyn Driver>,
    pub(crate) resources: Resources,
    pub(crate) rootfs: rootfs::Plan,
    pub(crate) mounts: Vec<mounts::Step>,
    /// The child will be nobody to the host: its bind mounts are made for it.
    pub(crate) open_all_trees: bool,
    /// Who is to hear that the container is ready.
    pub(crate) notify: Option<String>,
    pub(crate) devices: Option<devices::Plan>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) keyring: Option<std::ffi::CString>,
    pub(crate) first_process: scheduling::FirstProcess,
    pub(crate) net_devices: netdevices::Plan,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) hooks: Hooks,
    pub(crate) process: process::Plan,
    pub(crate) defaults: ProcessDefaults,
    pub(crate) seccomp_receiver: Option<seccomp::notify::Receiver>,
    /// What exec will read.
    pub(crate) seccomp_file: Option<seccomp::cache::File>,
    pub(crate) console_socket: Option<OwnedFd>,
    pub(crate) pidfd_socket: Option<OwnedFd>,
    pub(crate) pid_file: Option<String>,
    /// Sentences for the log.
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn prepare(
    caller: &Global,
    dir: &StateDir,
    id: &str,
    bundle: Bundle,
    options: &CreateOptions,
    mode: Mode,
) -> Result<Prepared> {
    let mut spec = bundle.spec;
    let mut process = spec.process.ok_or_else(|| Error::invalid("process must be specified"))?;
    refuse_wrong_console(process.terminal, mode, options.console_socket.is_some())?;
    let notify = readiness::callers_socket();
    if notify.is_some() {
        spec.mounts.push(readiness::mount(&dir.notify_directory().to_string_lossy()));
        process.env.push(readiness::variable());
    }
    let linux = spec.linux;
    let plan_seccomp = |profile| seccomp::plan(profile, &dir.filters());
    let planned = linux.seccomp.as_deref().map(plan_seccomp).transpose();
    let planned = planned.map_err(|error| bundle::misread_seccomp(&bundle.path).unwrap_or(error))?;
    let (filter, receiver, seccomp_file) = match planned {
        Some(planned) => (Some(planned.filter), planned.receiver, Some(planned.file)),
        None => (None, None, None),
    };
    let namespaces = namespaces::plan(&linux)?;
    let mut plan = process::plan(&process, filter, options.preserve_fds)?;
    let mut warnings: Vec<String> = plan.capabilities.unknown().into_iter().collect();
    let own_user_namespace = namespaces.new_user || namespaces.joins_user();
    if !own_user_namespace {
        warnings.extend(plan.capabilities.limit_to_own()?);
    }
    plan.listener = receiver.as_ref().map(seccomp::notify::Receiver::connect).transpose()?;
    plan.may_set_groups = !namespaces.new_user || rootless::may_set_groups(&linux.gid_mappings);
    rootless::refuse_groups(plan.may_set_groups, &process.user)?;
    let cgroup = cgroup::plan(&linux.cgroups_path, id, caller.systemd_cgroup)?;
    let mounts = mounts::plan(&spec.mounts, &bundle.path, &linux, cgroup.paths())?;
    let connect = |path: &Option<String>, what: &str| -> Result<Option<OwnedFd>> {
        path.as_deref()
            .map(|path| scm::connect(path).step(|| format!("connect to {what} {path}")))
            .transpose()
    };
    let root = spec.root.unwrap_or_default();
    let defaults = ProcessDefaults {
        rlimits: process.rlimits.clone(),
        apparmor_profile: process.apparmor_profile.clone(),
        selinux_label: process.selinux_label.clone(),
    };
    Ok(Prepared {
        defaults,
        mode,
        as_rootless: caller.rootless,
        id: id.to_owned(),
        oci_version: spec.oci_version,
        annotations: spec.annotations,
        namespace_kinds: linux.namespaces.iter().map(|namespace| namespace.kind.clone()).collect(),
        rootfs: rootfs::plan(&bundle.rootfs, root.readonly, &linux.rootfs_propagation, options.no_pivot)?,
        devices: devices::plan(&linux.devices, &mounts, own_user_namespace)?,
        open_all_trees: own_user_namespace && rustix::process::geteuid().is_root(),
        mounts,
        notify,
        namespaces,
        cgroup,
        bundle: bundle.path,
        uid_mappings: linux.uid_mappings,
        gid_mappings: linux.gid_mappings,
        resources: linux.resources,
        masked_paths: linux.masked_paths,
        readonly_paths: linux.readonly_paths,
        sysctl: linux.sysctl,
        hostname: spec.hostname,
        domainname: spec.domainname,
        keyring: if options.no_new_keyring { None } else { Some(keyring_name(id)?) },
        first_process: scheduling::first_process(linux.personality.as_ref(), linux.memory_policy.as_ref())?,
        net_devices: netdevices::plan(&linux.net_devices)?.look_up()?,
        oom_score_adj: process.oom_score_adj,
        hooks: spec.hooks,
        process: plan,
        seccomp_receiver: receiver,
        seccomp_file,
        console_socket: connect(&options.console_socket, "console socket")?,
        pidfd_socket: connect(&options.pidfd_socket, "pidfd socket")?,
        pid_file: options.pid_file.clone(),
        warnings,
    })
}

/// Who detaches cannot hold a terminal; who stays holds it himself.
pub(super) fn refuse_wrong_console(terminal: bool, mode: Mode, has_socket: bool) -> Result<()> {
    match (terminal, mode, has_socket) {
        (true, Mode::Create | Mode::Detached, false) => Err(Error::invalid(
            "cannot allocate tty if rung will detach without setting console socket: use --console-socket",
        )),
        (false, _, true) | (true, Mode::Foreground, true) => {
            Err(Error::invalid("cannot use console socket if rung will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

pub(super) fn keyring_name(id: &str) -> Result<std::ffi::CString> {
    crate::sys::cstring(format!("_ses.{id}")).step(|| "name the session keyring".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_needs_someone_to_hold_it() {
        for (terminal, mode, socket, fine) in [
            (true, Mode::Create, true, true),
            (true, Mode::Create, false, false),
            (true, Mode::Detached, false, false),
            (true, Mode::Foreground, false, true),
            (true, Mode::Foreground, true, false),
            (false, Mode::Create, false, true),
            (false, Mode::Create, true, false),
            (false, Mode::Foreground, true, false),
        ] {
            assert_eq!(
                refuse_wrong_console(terminal, mode, socket).is_ok(),
                fine,
                "{terminal} {mode:?} {socket}"
            );
        }
    }
}
