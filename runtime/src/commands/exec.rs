use std::path::Path;

use crate::args::{ExecOptions, Global};
use crate::bundle::{read_document, validate_process};
use crate::container::{Container, Request};
use crate::error::{Error, Result, Step};
use crate::log::Log;
use crate::rootless::require_rights;
use crate::spawn::{Outcome, exec as spawn_exec};
use crate::spec::{Process, Spec};

pub(super) fn exec(global: &Global, id: &str, options: &ExecOptions, log: &Log) -> Result<i32> {
    require_rights(global.rootless)?;
    let container = Container::load(&global.root, id)?;
    container.status().allows(Request::Exec { ignore_paused: options.ignore_paused })?;
    // A document speaks for itself: flags of the process are ignored beside it.
    let (process, extra) = match &options.process {
        Some(file) => (from_document(&container, file)?, &[][..]),
        None => (from_flags(&container, options)?, &options.capabilities[..]),
    };
    validate_process(&process)?;
    let outcome = spawn_exec::exec(&container, &process, extra, options, log);
    match outcome.step(|| "exec failed".into())? {
        Outcome::Left => Ok(0),
        Outcome::Ended(code) => Ok(code),
    }
}

/// Where the document says nothing of rights and limits, the container's own hold.
fn from_document(container: &Container, file: &str) -> Result<Process> {
    let mut process: Process = read_document(file.into())?;
    let defaults = &container.record.config.process_defaults;
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&defaults.rlimits);
    }
    if process.apparmor_profile.is_empty() {
        process.apparmor_profile.clone_from(&defaults.apparmor_profile);
    }
    if process.selinux_label.is_empty() {
        process.selinux_label.clone_from(&defaults.selinux_label);
    }
    if process.capabilities.is_none() {
        let spec: Spec = read_document(Path::new(&container.record.bundle).join("config.json"))?;
        process.capabilities = spec.process.and_then(|process| process.capabilities);
    }
    Ok(process)
}

/// The container's own process, changed by the flags.
fn from_flags(container: &Container, options: &ExecOptions) -> Result<Process> {
    let spec: Spec = read_document(Path::new(&container.record.bundle).join("config.json"))?;
    let mut process = spec.process.ok_or_else(|| Error::invalid("config.json: process must be specified"))?;
    process.args.clone_from(&options.command);
    process.terminal = options.tty;
    process.console_size = None;
    process.oom_score_adj = None;
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(label) = &options.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if options.no_new_privileges {
        process.no_new_privileges = true;
    }
    process.env.extend(options.env.iter().cloned());
    process.user.additional_gids.extend(&options.additional_gids);
    if let Some((uid, gid)) = options.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    if !options.capabilities.is_empty() && process.capabilities.is_none() {
        process.capabilities = Some(Default::default());
    }
    Ok(process)
}
