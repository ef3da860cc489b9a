//! Capabilities, seccomp and the other `--security-opt`s, masked and read-only paths.

use crate::error::Error;
use proto::capability;
use proto::docker::container::HostConfig;
use serde_json::Value;

/// What a container has by default; docker's list.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
pub(crate) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
pub(crate) const READONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The capabilities left after `--cap-add` and `--cap-drop`.
pub(crate) fn capabilities(host: &HostConfig) -> Result<Vec<&'static str>, Error> {
    if host.privileged {
        return Ok(capability::NAMES.to_vec());
    }
    let add = names("CapAdd", &host.cap_add)?;
    let drop = names("CapDrop", &host.cap_drop)?;
    let base: &[&str] = if add.contains(&"ALL") { &capability::NAMES } else { DEFAULT };
    let kept = |name: &&&str| !drop.contains(&"ALL") && !drop.contains(*name);
    let mut result: Vec<&'static str> = base.iter().filter(kept).copied().collect();
    for name in add {
        if name != "ALL" && !result.contains(&name) {
            result.push(name);
        }
    }
    Ok(result)
}

fn names(field: &str, given: &Option<Vec<String>>) -> Result<Vec<&'static str>, Error> {
    given
        .iter()
        .flatten()
        .map(|text| {
            let upper = text.trim().to_ascii_uppercase();
            if upper == "ALL" {
                return Ok("ALL");
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            capability::NAMES
                .iter()
                .find(|name| **name == full)
                .copied()
                .ok_or_else(|| Error::invalid(format!("invalid {field}: unknown capability: \"{full}\"")))
        })
        .collect()
}

/// `--security-opt`, parsed.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) seccomp: Seccomp,
    pub(crate) systempaths_unconfined: bool,
}

#[derive(Debug, Default)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
}

pub(crate) fn options(host: &HostConfig) -> Result<Options, Error> {
    let mut options = Options::default();
    for text in host.security_opt.iter().flatten() {
        // docker answers these with 500.
        let wrong = || Error::internal(format!("invalid --security-opt 1: \"{text}\""));
        if text == "no-new-privileges" {
            options.no_new_privileges = Some(true);
            continue;
        }
        // The older form has a colon.
        let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
        match (key, value) {
            ("no-new-privileges", "true") => options.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => options.no_new_privileges = Some(false),
            ("no-new-privileges", _) => {
                return Err(Error::internal(format!("invalid --security-opt 2: \"{text}\"")));
            }
            ("seccomp", "unconfined") => options.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => options.seccomp = Seccomp::Default,
            ("seccomp", _) => return Err(Error::unimplemented("a seccomp profile of one's own")),
            ("systempaths", "unconfined") => options.systempaths_unconfined = true,
            // Without AppArmor or SELinux in the kernel docker takes these and they change nothing.
            ("apparmor" | "label", _) => {}
            ("writable-cgroups", _) => return Err(Error::unimplemented("--security-opt writable-cgroups")),
            _ => return Err(Error::internal(format!("invalid --security-opt 2: \"{text}\""))),
        }
    }
    Ok(options)
}

/// `linux.seccomp`, none when unconfined.
pub(crate) fn seccomp(
    host: &HostConfig,
    options: &Options,
    daemon_unconfined: bool,
    capabilities: &[&str],
) -> Option<Value> {
    let unconfined = host.privileged || daemon_unconfined || matches!(options.seccomp, Seccomp::Unconfined);
    (!unconfined).then(|| super::seccomp::default_profile(capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list = |names: &[&str]| Some(names.iter().map(|n| n.to_string()).collect());
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        assert_eq!(capabilities(&host(&[], &[])).unwrap(), DEFAULT);
        assert_eq!(capabilities(&host(&["ALL"], &["MKNOD"])).unwrap().len(), capability::NAMES.len() - 1);
        assert_eq!(capabilities(&host(&["net_admin"], &["ALL"])).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(
            capabilities(&host(&["FOO"], &[])).unwrap_err().to_string(),
            "invalid CapAdd: unknown capability: \"CAP_FOO\""
        );
    }

    #[test]
    fn security_options() {
        let parse = |text: &str| {
            options(&HostConfig { security_opt: Some(vec![text.to_owned()]), ..HostConfig::default() })
        };
        assert_eq!(parse("no-new-privileges").unwrap().no_new_privileges, Some(true));
        assert!(matches!(parse("seccomp=unconfined").unwrap().seccomp, Seccomp::Unconfined));
        assert!(parse("nosuch").is_err() && parse("nosuch=1").is_err());
    }
}
