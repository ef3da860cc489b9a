//! `process`: who runs what, where, with which environment.

use super::security;
use crate::containers::record::Record;
use crate::containers::rootfs::User;
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process.
pub(crate) fn process(
    record: &Record,
    user: &User,
    capabilities: &[&str],
    no_new_privileges: bool,
    rlimits: Vec<Value>,
) -> Value {
    let config = &record.config;
    let mut process = json!({
        "terminal": config.tty,
        "user": user_document(user),
        "args": record.arguments,
        "env": environment(record, user, config.tty, &[]),
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": capability_sets(user, capabilities),
        "noNewPrivileges": no_new_privileges,
        "oomScoreAdj": record.host_config.oom_score_adj,
    });
    let [height, width] = record.host_config.console_size;
    if config.tty && height != 0 && width != 0 {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into();
    }
    process
}

pub(crate) fn user_document(user: &User) -> Value {
    let mut document = json!({ "uid": user.uid, "gid": user.gid });
    if !user.groups.is_empty() {
        document["additionalGids"] = user.groups.clone().into();
    }
    document
}

/// As execve would leave them: a user other than root has none in effect.
pub(crate) fn capability_sets(user: &User, capabilities: &[&str]) -> Value {
    if user.uid == 0 {
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities })
    } else {
        json!({ "bounding": capabilities })
    }
}

/// The defaults, then the container's own variables, then `more`; the last word on a name wins.
pub(crate) fn environment(record: &Record, user: &User, tty: bool, more: &[String]) -> Vec<String> {
    let mut variables = vec![PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if tty {
        variables.push("TERM=xterm".to_owned());
    }
    for given in record.config.env.iter().flatten().chain(more) {
        set(&mut variables, given);
    }
    if !variables.iter().any(|variable| variable.starts_with("HOME=")) {
        variables.push(format!("HOME={}", user.home));
    }
    variables
}

/// Replaces or appends; a name without a value removes it.
pub(crate) fn set(variables: &mut Vec<String>, given: &str) {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (given, None),
    };
    let same = |variable: &String| variable.split('=').next() == Some(name);
    match (variables.iter().position(same), value) {
        (Some(at), Some(_)) => variables[at] = given.to_owned(),
        (Some(at), None) => drop(variables.remove(at)),
        (None, Some(_)) => variables.push(given.to_owned()),
        (None, None) => {}
    }
}

/// An exec's process: the container's, with what the request changes.
pub(crate) fn exec_process(
    record: &Record,
    user: &User,
    request: &proto::docker::exec::ExecCreateRequest,
) -> Result<Value, crate::error::Error> {
    let host = &record.host_config;
    let options = security::options(host)?;
    let capabilities =
        if request.privileged { proto::capability::NAMES.to_vec() } else { security::capabilities(host)? };
    let more = request.env.clone().unwrap_or_default();
    let cwd = [&request.working_dir, &record.config.working_dir].into_iter().find(|dir| !dir.is_empty());
    let mut process = json!({
        "terminal": request.tty,
        "user": user_document(user),
        "args": request.cmd,
        "env": environment(record, user, request.tty, &more),
        "cwd": cwd.map_or("/", String::as_str),
        "capabilities": capability_sets(user, &capabilities),
        "noNewPrivileges": options.no_new_privileges.unwrap_or(false) && !request.privileged,
        "oomScoreAdj": host.oom_score_adj,
    });
    if let Some([height, width]) =
        request.console_size.filter(|size| request.tty && size[0] != 0 && size[1] != 0)
    {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    let rlimits = super::resources::rlimits(host, &[]);
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into();
    }
    Ok(process)
}
