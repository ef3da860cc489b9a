//! dockerd's flags and daemon.json keys, merged and checked: one struct, valid or refused.
//!
//! A key may stand in the file or on the command line, not in both, as with dockerd. Keys and flags that dockerd
//! has and this engine has not built are refused by name; keys nobody knows are refused too.

mod file;
mod flags;
mod values;

pub(crate) use flags::Flags;
pub(crate) use values::{parse_cidr, parse_size};

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use file::File;
use proto::docker::container::Ulimit;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/gantry/gantryd.json";
pub(crate) const DEFAULT_SOCKET: &str = "unix:///run/gantry/gantry.sock";
/// The runtime used when nothing else is said: `rung`, run by our shim.
pub(crate) const DEFAULT_RUNTIME: &str = "rung";
pub(crate) const DEFAULT_SHIM: &str = "io.containerd.gantry.v2";

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pool {
    pub(crate) base: String,
    pub(crate) size: u8,
}

/// How containers of one runtime name are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// containerd's runtime name, which finds the shim.
    pub(crate) shim: String,
    /// The OCI runtime binary; empty is the shim's own default.
    pub(crate) path: String,
}

impl Runtime {
    /// True when our own shim runs it, which takes our options and writes the log.
    pub(crate) fn is_ours(&self) -> bool {
        self.shim == DEFAULT_SHIM
    }
}

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Unix(PathBuf),
    Tcp(String),
    /// Sockets passed by the service manager.
    Inherited,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) debug: bool,
    pub(crate) log_level: String,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) group: String,
    pub(crate) bridge: String,
    pub(crate) bip: Option<(Ipv4Addr, u8)>,
    pub(crate) address_pools: Vec<Pool>,
    pub(crate) mtu: u32,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) default_binding_ip: Ipv4Addr,
    pub(crate) ip_forward: bool,
    pub(crate) ip_masquerade: bool,
    pub(crate) firewall: bool,
    pub(crate) runtimes: BTreeMap<String, Runtime>,
    pub(crate) default_runtime: String,
    pub(crate) default_ulimits: Vec<Ulimit>,
    pub(crate) default_shm_size: i64,
    /// "private", "host" or empty for the kernel's layout to decide.
    pub(crate) default_cgroupns_mode: String,
    pub(crate) default_ipc_mode: String,
    pub(crate) log_driver: String,
    pub(crate) log_options: BTreeMap<String, String>,
    pub(crate) labels: Vec<String>,
    pub(crate) cgroup_parent: String,
    pub(crate) seccomp_unconfined: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    #[allow(dead_code, reason = "for pull, which is being written")]
    pub(crate) max_concurrent_downloads: usize,
    #[allow(dead_code, reason = "for push, which is not written yet")]
    pub(crate) max_concurrent_uploads: usize,
    pub(crate) experimental: bool,
    pub(crate) validate_only: bool,
}

impl Config {
    /// From the process's arguments and the file they name.
    pub(crate) fn from_args() -> Result<Config> {
        let matches = Flags::command().get_matches();
        Config::from_matches(&matches)
    }

    /// The configuration as it would be if the daemon were started now.
    pub(crate) fn from_matches(matches: &clap::ArgMatches) -> Result<Config> {
        let flags = Flags::from_arg_matches(matches)?;
        let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let file = file::read(&flags.config_file, given("config_file"))?;
        merge(flags, file, given)
    }

    /// `data-root/containers/ID`.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// `exec-root/containers/ID`: FIFOs and markers of the container's current run.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.exec_root.join("containers").join(id)
    }

    /// `exec-root/netns/ID`.
    pub(crate) fn netns_path(&self, id: &str) -> PathBuf {
        self.exec_root.join("netns").join(id)
    }
}

fn merge(flags: Flags, file: File, given: impl Fn(&str) -> bool) -> Result<Config> {
    let mut doubled = Vec::new();
    // Takes the file's value unless the flag was given; both is an error, as with dockerd.
    macro_rules! pick {
        ($flag:ident, $file:ident) => {
            match file.$file {
                Some(value) => {
                    if given(stringify!($flag)) {
                        doubled.push(stringify!($file).replace('_', "-"));
                    }
                    value
                }
                None => flags.$flag,
            }
        };
        ($flag:ident) => {
            pick!($flag, $flag)
        };
    }
    let host_texts = pick!(host, hosts);
    let debug = pick!(debug);
    let log_level = pick!(log_level);
    let data_root = pick!(data_root);
    let exec_root = pick!(exec_root);
    let exec_root_given = given("exec_root");
    let pidfile_given = given("pidfile") || file.pidfile.is_some();
    let pidfile = pick!(pidfile);
    let containerd = match (flags.containerd, file.containerd) {
        (Some(_), Some(_)) => {
            doubled.push("containerd".to_owned());
            None
        }
        (flag, file) => flag.or(file),
    };
    let group = pick!(group);
    let bridge = pick!(bridge);
    let bip = match (flags.bip, file.bip) {
        (Some(_), Some(_)) => {
            doubled.push("bip".to_owned());
            None
        }
        (flag, file) => flag.or(file),
    };
    let mtu = pick!(mtu);
    let dns = pick!(dns);
    let dns_options = pick!(dns_opt, dns_opts);
    let dns_search = pick!(dns_search);
    let default_binding_ip = pick!(ip);
    let ip_forward = pick!(ip_forward);
    let ip_masquerade = pick!(ip_masq);
    let firewall = pick!(iptables);
    let default_runtime = pick!(default_runtime);
    let default_ipc_mode = pick!(default_ipc_mode);
    let log_driver = pick!(log_driver);
    let labels = pick!(label, labels);
    let cgroup_parent = pick!(cgroup_parent);
    let seccomp_profile = pick!(seccomp_profile);
    let no_new_privileges = pick!(no_new_privileges);
    let insecure_registries = pick!(insecure_registry, insecure_registries);
    let registry_mirrors = pick!(registry_mirror, registry_mirrors);
    let max_concurrent_downloads = pick!(max_concurrent_downloads);
    let max_concurrent_uploads = pick!(max_concurrent_uploads);
    let _always_so = pick!(live_restore);
    // No container is stopped with the daemon, so nothing has to be waited for.
    let _nothing_to_wait_for = pick!(shutdown_timeout);
    let exec_opts = pick!(exec_opt, exec_opts);
    let storage_driver = pick!(storage_driver);
    let _no_proxy_either_way = pick!(userland_proxy);
    let experimental = pick!(experimental);
    let tls = pick!(tls) | pick!(tlsverify);

    if !doubled.is_empty() {
        bail!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            doubled.join(", ")
        );
    }
    if tls {
        bail!("TLS on the API socket is not implemented by this engine; use a unix socket or ssh");
    }
    if !matches!(storage_driver.as_str(), "" | "overlay2" | "overlayfs" | "overlay") {
        bail!("storage driver {storage_driver} is not supported: containers live in containerd's overlayfs");
    }
    for option in &exec_opts {
        if option != "native.cgroupdriver=cgroupfs" {
            bail!("exec-opt {option} is not supported: only native.cgroupdriver=cgroupfs is");
        }
    }
    if let Some((feature, _)) = file.features.iter().flatten().find(|(name, on)| **on && *name != "buildkit")
        && feature != "containerd-snapshotter"
    {
        tracing::warn!(feature, "feature is not known and has no effect");
    }
    if !["debug", "info", "warn", "error", "fatal"].contains(&log_level.as_str()) {
        bail!("invalid logging level: {log_level}");
    }
    if !crate::logs::DRIVERS.contains(&log_driver.as_str()) {
        bail!("logger: no log driver named '{log_driver}' is registered");
    }
    if !["private", "shareable"].contains(&default_ipc_mode.as_str()) {
        bail!("IPC mode \"{default_ipc_mode}\" is not supported as default");
    }
    let default_cgroupns_mode =
        flags.default_cgroupns_mode.or(file.default_cgroupns_mode).unwrap_or_default();
    if !["", "private", "host"].contains(&default_cgroupns_mode.as_str()) {
        bail!("invalid default cgroup namespace mode ({default_cgroupns_mode}): use \"host\" or \"private\"");
    }
    let seccomp_unconfined = match seccomp_profile.as_str() {
        "" | "builtin" => false,
        "unconfined" => true,
        path => bail!("a seccomp profile file ({path}) as the default is not supported yet"),
    };
    if let Some(bad) = labels.iter().find(|label| !label.contains('=')) {
        bail!("bad attribute format: {bad}");
    }
    if bridge.is_empty() || bridge.len() > 15 || bridge.contains(['/', ' ']) {
        bail!("invalid bridge name {bridge:?}");
    }
    let hosts = if host_texts.is_empty() { vec![DEFAULT_SOCKET.to_owned()] } else { host_texts };
    let log_options = values::log_options(&log_driver, &flags.log_opt, file.log_opts.unwrap_or_default())?;
    let config = Config {
        hosts: hosts.iter().map(|text| values::parse_host(text)).collect::<Result<_>>()?,
        debug,
        log_level,
        // Two daemons with different roots must not fight over one default pid file.
        pidfile: if exec_root_given && !pidfile_given { exec_root.join("gantryd.pid") } else { pidfile },
        data_root: absolute(&data_root)?,
        exec_root: absolute(&exec_root)?,
        containerd: containerd.map(|path| absolute(&path)).transpose()?,
        group,
        bridge,
        bip: bip.as_deref().map(parse_cidr).transpose()?,
        address_pools: values::address_pools(flags.default_address_pool, file.default_address_pools)?,
        mtu,
        dns,
        dns_options,
        dns_search,
        default_binding_ip,
        ip_forward,
        ip_masquerade,
        firewall,
        runtimes: values::runtimes(&flags.add_runtime, file.runtimes.unwrap_or_default())?,
        default_runtime,
        default_ulimits: values::ulimits(&flags.default_ulimit, file.default_ulimits.unwrap_or_default())?,
        default_shm_size: values::shm_size(flags.default_shm_size, file.default_shm_size)?,
        default_cgroupns_mode,
        default_ipc_mode,
        log_driver,
        log_options,
        labels,
        cgroup_parent,
        seccomp_unconfined,
        no_new_privileges,
        insecure_registries,
        registry_mirrors,
        max_concurrent_downloads,
        max_concurrent_uploads,
        experimental,
        validate_only: flags.validate,
    };
    if !config.runtimes.contains_key(&config.default_runtime) {
        bail!("specified default runtime '{}' does not exist", config.default_runtime);
    }
    Ok(config)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("resolve {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str], file: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(&path, file).unwrap();
        let mut all = vec!["gantryd", "--config-file", path.to_str().unwrap()];
        all.extend(arguments);
        Config::from_matches(&Flags::command().try_get_matches_from(all)?)
    }

    #[test]
    fn flags_and_file_are_one_configuration() {
        let config =
            config(&["--data-root", "/d", "-H", "unix:///a", "-H", "tcp://127.0.0.1:1"], r#"{"mtu":1400}"#)
                .unwrap();
        assert_eq!(config.mtu, 1400);
        assert_eq!(config.container_dir("x"), Path::new("/d/containers/x"));
        assert_eq!(config.hosts, [Host::Unix("/a".into()), Host::Tcp("127.0.0.1:1".into())]);
        assert_eq!(config.address_pools[0].base, "172.17.0.0/16");
        assert_eq!(config.runtimes[DEFAULT_RUNTIME].path, "");
    }

    #[track_caller]
    fn refused(arguments: &[&str], file: &str, sentence: &str) {
        let error = format!("{:#}", config(arguments, file).unwrap_err());
        assert!(error.contains(sentence), "{error}");
    }

    #[test]
    fn wrong_configurations_are_refused_with_dockers_sentences() {
        refused(&["--mtu", "9000"], r#"{"mtu":1400}"#, "both as a flag and in the configuration file: mtu");
        refused(&[], r#"{"nosuch":1}"#, "unknown field `nosuch`");
        refused(&[], "{", "unable to configure the daemon with file");
        refused(&["-l", "loud"], "", "invalid logging level: loud");
        refused(&["--tlsverify"], "", "TLS on the API socket is not implemented");
        refused(&["--default-runtime", "x"], "", "specified default runtime 'x' does not exist");
        refused(&["-H", "ftp://x"], "", "invalid bind address format");
        refused(&["-H", "tcp://0.0.0.0:2375"], "", "loopback addresses only");
        refused(&["--bip", "10.0.0.1"], "", "invalid CIDR address: 10.0.0.1");
        refused(&["--log-driver", "syslog"], "", "no log driver named 'syslog'");
        refused(&["--add-runtime", "x"], "", "expected name=path");
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("64m", Some(64 << 20)),
            ("1g", Some(1 << 30)),
            ("10", Some(10)),
            ("1kb", Some(1024)),
            ("x", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
