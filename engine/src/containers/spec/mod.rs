//! docker's configuration to OCI's: pure, from a record and what `start` has looked up.

pub(crate) mod devices;
mod mounts;
pub(crate) mod process;
pub(crate) mod resources;
mod seccomp;
pub(crate) mod security;

use super::record::Record;
use super::rootfs::User;
use crate::error::Error;
use devices::Devices;
use proto::docker::container::Ulimit;
use serde_json::{Value, json};
use std::path::PathBuf;

/// One namespace of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Private,
    Host,
    /// Joined by path.
    Path(PathBuf),
}

/// What the record does not say: the host's facts and the daemon's defaults.
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) user: User,
    pub(crate) devices: Devices,
    pub(crate) network: Namespace,
    pub(crate) pid: Namespace,
    pub(crate) ipc: Namespace,
    pub(crate) uts: Namespace,
    /// The kernel runs cgroup v2 alone, where a cgroup namespace is docker's default.
    pub(crate) cgroup_v2: bool,
    pub(crate) files_dir: PathBuf,
    pub(crate) daemon: Defaults,
}

/// The daemon's defaults that reach a spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) cgroup_parent: String,
    pub(crate) cgroupns_mode: String,
    pub(crate) shm_size: i64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp_unconfined: bool,
}

/// Parent of every container's cgroup unless another is chosen.
const CGROUP_PARENT: &str = "/gantry";

/// The whole config.json.
pub(crate) fn build(record: &Record, facts: &Facts) -> Result<Value, Error> {
    let host = &record.host_config;
    let options = security::options(host)?;
    let capabilities = security::capabilities(host)?;
    let no_new_privileges = options.no_new_privileges.unwrap_or(facts.daemon.no_new_privileges);
    let private_cgroup = private_cgroup(record, facts);
    let shm_size = if host.shm_size > 0 { host.shm_size } else { facts.daemon.shm_size };

    let mut limits = resources::limits(&host.resources);
    limits.insert("devices".into(), facts.devices.rules.clone().into());
    let mut linux = json!({
        "cgroupsPath": cgroups_path(record, facts),
        "namespaces": namespaces(facts, private_cgroup),
        "resources": limits,
    });
    if !facts.devices.nodes.is_empty() {
        linux["devices"] = facts.devices.nodes.clone().into();
    }
    let unmasked = host.privileged || options.systempaths_unconfined;
    let paths = |given: &Option<Vec<String>>, default: &[&str]| match given {
        Some(paths) => json!(paths),
        None if unmasked => json!([]),
        None => json!(default),
    };
    linux["maskedPaths"] = paths(&host.masked_paths, security::MASKED);
    linux["readonlyPaths"] = paths(&host.readonly_paths, security::READONLY);
    if let Some(profile) = security::seccomp(host, &options, facts.daemon.seccomp_unconfined, &capabilities) {
        linux["seccomp"] = profile;
    }
    let sysctls = sysctls(record, facts);
    if !sysctls.as_object().is_some_and(serde_json::Map::is_empty) {
        linux["sysctl"] = sysctls;
    }

    let rlimits = resources::rlimits(host, &facts.daemon.ulimits);
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process::process(record, &facts.user, &capabilities, no_new_privileges, rlimits),
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "mounts": mounts::mounts(record, &facts.files_dir, shm_size, private_cgroup),
        "linux": linux,
    });
    if facts.uts == Namespace::Private {
        spec["hostname"] = record.config.hostname.clone().into();
        if !record.config.domainname.is_empty() {
            spec["domainname"] = record.config.domainname.clone().into();
        }
    }
    if let Some(annotations) = host.annotations.as_ref().filter(|a| !a.is_empty()) {
        spec["annotations"] = json!(annotations);
    }
    Ok(spec)
}

fn private_cgroup(record: &Record, facts: &Facts) -> bool {
    let host = &record.host_config;
    match host.cgroupns_mode.as_str() {
        "private" => true,
        "host" => false,
        _ => match facts.daemon.cgroupns_mode.as_str() {
            "private" => !host.privileged,
            "host" => false,
            _ => facts.cgroup_v2 && !host.privileged,
        },
    }
}

fn cgroups_path(record: &Record, facts: &Facts) -> String {
    let parent = [&record.host_config.resources.cgroup_parent, &facts.daemon.cgroup_parent]
        .into_iter()
        .find(|parent| !parent.is_empty())
        .map_or(CGROUP_PARENT, String::as_str);
    format!("/{}/{}", parent.trim_matches('/'), facts.id)
}

fn namespaces(facts: &Facts, private_cgroup: bool) -> Vec<Value> {
    let mut list = vec![json!({ "type": "mount" })];
    for (kind, namespace) in
        [("network", &facts.network), ("uts", &facts.uts), ("pid", &facts.pid), ("ipc", &facts.ipc)]
    {
        match namespace {
            Namespace::Private => list.push(json!({ "type": kind })),
            Namespace::Path(path) => list.push(json!({ "type": kind, "path": path })),
            Namespace::Host => {}
        }
    }
    if private_cgroup {
        list.push(json!({ "type": "cgroup" }));
    }
    list
}

/// The user's, and docker's two: ping and low ports without privileges in a network namespace of one's own.
fn sysctls(record: &Record, facts: &Facts) -> Value {
    let mut sysctls = serde_json::Map::new();
    if matches!(facts.network, Namespace::Private | Namespace::Path(_))
        && !record.host_config.network_mode.starts_with("container:")
    {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    for (name, value) in record.host_config.sysctls.iter().flatten() {
        sysctls.insert(name.clone(), value.clone().into());
    }
    sysctls.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::containers::record::{MountKind, MountPoint};
    use proto::docker::container::{Config, HostConfig};

    fn record(host_config: HostConfig) -> Record {
        Record {
            version: Record::new_version(),
            name: "web".into(),
            created: Timestamp::from_nanos(0),
            image_id: String::new(),
            chain_id: String::new(),
            arguments: vec!["sh".into()],
            config: Config {
                hostname: "abc".into(),
                env: Some(vec!["A=1".into(), "PATH=/x".into()]),
                ..Config::default()
            },
            host_config,
            networking: Default::default(),
            mounts: Vec::new(),
            restart_count: 0,
            manually_stopped: false,
            last: None,
            run: None,
        }
    }

    fn facts() -> Facts {
        Facts {
            id: "abc".into(),
            user: User { uid: 0, gid: 0, groups: vec![10], home: "/root".into() },
            devices: devices::collect(&HostConfig::default()).unwrap(),
            network: Namespace::Path("/run/netns/abc".into()),
            pid: Namespace::Private,
            ipc: Namespace::Private,
            uts: Namespace::Private,
            cgroup_v2: true,
            files_dir: "/d".into(),
            daemon: Defaults { shm_size: 64 << 20, ..Defaults::default() },
        }
    }

    #[test]
    fn the_default_container() {
        let spec = build(&record(HostConfig::default()), &facts()).unwrap();
        assert_eq!(spec["process"]["user"], json!({"uid":0,"gid":0,"additionalGids":[10]}));
        assert_eq!(spec["process"]["env"], json!(["PATH=/x", "HOSTNAME=abc", "A=1", "HOME=/root"]));
        assert_eq!(spec["linux"]["cgroupsPath"], "/gantry/abc");
        assert_eq!(
            spec["linux"]["namespaces"],
            json!([{"type":"mount"},{"type":"network","path":"/run/netns/abc"},{"type":"uts"},{"type":"pid"},{"type":"ipc"},{"type":"cgroup"}])
        );
        let destinations: Vec<&str> =
            spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(
            destinations,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/dev/shm",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/etc/hosts"
            ]
        );
        assert!(spec["linux"]["seccomp"].is_object());
        assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), security::MASKED.len());
    }

    #[test]
    fn a_privileged_container_is_not_confined() {
        let spec =
            build(&record(HostConfig { privileged: true, ..HostConfig::default() }), &facts()).unwrap();
        assert!(spec["linux"]["seccomp"].is_null());
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        assert_eq!(
            spec["process"]["capabilities"]["effective"].as_array().unwrap().len(),
            proto::capability::NAMES.len()
        );
    }

    #[test]
    fn the_hosts_namespaces() {
        let facts = Facts {
            network: Namespace::Host,
            pid: Namespace::Host,
            ipc: Namespace::Host,
            uts: Namespace::Host,
            cgroup_v2: false,
            ..facts()
        };
        let spec =
            build(&record(HostConfig { ipc_mode: "host".into(), ..HostConfig::default() }), &facts).unwrap();
        assert_eq!(spec["linux"]["namespaces"], json!([{"type":"mount"}]));
        assert!(spec["hostname"].is_null() && spec["linux"]["sysctl"].is_null());
    }

    #[test]
    fn user_mounts_come_last_and_replace_the_kernels() {
        let mut record = record(HostConfig::default());
        let mount = |kind, destination: &str, options: &[&str]| MountPoint {
            kind,
            volume: String::new(),
            source: "/src".into(),
            destination: destination.into(),
            mode: String::new(),
            writable: false,
            propagation: String::new(),
            recursive: true,
            anonymous: false,
            copy: false,
            create_source: false,
            options: options.iter().map(|o| o.to_string()).collect(),
        };
        record.mounts = vec![
            mount(MountKind::Bind, "/a/b", &[]),
            mount(MountKind::Tmpfs, "/a", &["exec", "size=1m"]),
            mount(MountKind::Bind, "/dev/shm", &[]),
        ];
        let spec = build(&record, &facts()).unwrap();
        let mounts = spec["mounts"].as_array().unwrap();
        assert_eq!(mounts.iter().filter(|m| m["destination"] == "/dev/shm").count(), 1);
        let at = |destination: &str| mounts.iter().position(|m| m["destination"] == destination).unwrap();
        assert!(at("/a") < at("/a/b"));
        assert_eq!(mounts[at("/a")]["options"], json!(["nosuid", "nodev", "exec", "size=1m", "ro"]));
        assert_eq!(mounts[at("/a/b")]["options"], json!(["rbind", "rprivate", "ro"]));
    }
}
