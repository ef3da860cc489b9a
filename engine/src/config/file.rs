//! daemon.json.

use super::Pool;
use anyhow::{Context, Result};
use proto::docker::container::Ulimit;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// daemon.json: dockerd's keys.
#[derive(Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct File {
    pub(super) hosts: Option<Vec<String>>,
    pub(super) debug: Option<bool>,
    pub(super) log_level: Option<String>,
    pub(super) data_root: Option<PathBuf>,
    pub(super) exec_root: Option<PathBuf>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) containerd: Option<PathBuf>,
    pub(super) group: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) bip: Option<String>,
    pub(super) default_address_pools: Option<Vec<Pool>>,
    pub(super) mtu: Option<u32>,
    pub(super) dns: Option<Vec<String>>,
    pub(super) dns_opts: Option<Vec<String>>,
    pub(super) dns_search: Option<Vec<String>>,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) ip_forward: Option<bool>,
    pub(super) ip_masq: Option<bool>,
    pub(super) iptables: Option<bool>,
    pub(super) runtimes: Option<BTreeMap<String, RuntimeFile>>,
    pub(super) default_runtime: Option<String>,
    pub(super) default_ulimits: Option<BTreeMap<String, Ulimit>>,
    pub(super) default_shm_size: Option<serde_json::Value>,
    pub(super) default_cgroupns_mode: Option<String>,
    pub(super) default_ipc_mode: Option<String>,
    pub(super) log_driver: Option<String>,
    pub(super) log_opts: Option<BTreeMap<String, String>>,
    pub(super) labels: Option<Vec<String>>,
    pub(super) cgroup_parent: Option<String>,
    pub(super) seccomp_profile: Option<String>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) insecure_registries: Option<Vec<String>>,
    pub(super) registry_mirrors: Option<Vec<String>>,
    pub(super) max_concurrent_downloads: Option<usize>,
    pub(super) max_concurrent_uploads: Option<usize>,
    pub(super) live_restore: Option<bool>,
    pub(super) shutdown_timeout: Option<u64>,
    pub(super) exec_opts: Option<Vec<String>>,
    pub(super) storage_driver: Option<String>,
    pub(super) userland_proxy: Option<bool>,
    pub(super) experimental: Option<bool>,
    pub(super) features: Option<BTreeMap<String, bool>>,
    pub(super) tls: Option<bool>,
    pub(super) tlsverify: Option<bool>,
    pub(super) tlscacert: Option<String>,
    pub(super) tlscert: Option<String>,
    pub(super) tlskey: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuntimeFile {
    #[serde(default)]
    pub(super) path: String,
    #[serde(default)]
    pub(super) runtime_args: Vec<String>,
    #[serde(default)]
    pub(super) runtime_type: String,
}

pub(super) fn read(path: &Path, required: bool) -> Result<File> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(File::default());
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    let wrong = || format!("unable to configure the daemon with file {}", path.display());
    let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).with_context(wrong)?;
    serde_json::from_value(serde_json::Value::Object(keys)).with_context(wrong)
}
