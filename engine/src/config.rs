//! dockerd's flags and daemon.json keys, merged and checked: one struct, valid or refused.
//!
//! A key may stand in the file or on the command line, not in both, as with dockerd. Keys and flags that dockerd
//! has and this engine has not built are refused by name; keys nobody knows are refused too.

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
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
const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// The engine of the Gantry container stack.
#[derive(Parser, Debug)]
#[command(name = "gantryd", version, about, disable_version_flag = true)]
pub(crate) struct Flags {
    /// Print version information and quit
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,
    /// Daemon configuration file
    #[arg(long = "config-file", default_value = DEFAULT_CONFIG_FILE)]
    config_file: PathBuf,
    /// Validate daemon configuration and exit
    #[arg(long)]
    pub(crate) validate: bool,
    /// Daemon socket(s) to connect to (unix:///path, tcp://127.0.0.1:port, fd://)
    #[arg(short = 'H', long = "host")]
    host: Vec<String>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    debug: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")
    #[arg(short = 'l', long = "log-level", default_value = "info")]
    log_level: String,
    /// Root directory of persistent state
    #[arg(long = "data-root", default_value = "/var/lib/gantry")]
    data_root: PathBuf,
    /// Root directory for execution state files
    #[arg(long = "exec-root", default_value = "/run/gantry")]
    exec_root: PathBuf,
    /// Path to use for daemon PID file
    #[arg(short = 'p', long, default_value = "/run/gantry/gantryd.pid")]
    pidfile: PathBuf,
    /// containerd grpc address; without it containerd-lite is started
    #[arg(long)]
    containerd: Option<PathBuf>,
    /// Group for the unix socket
    #[arg(short = 'G', long, default_value = "docker")]
    group: String,
    /// Name of the default network's bridge
    #[arg(short = 'b', long, default_value = "gantry0")]
    bridge: String,
    /// Specify default bridge IP (address/prefix)
    #[arg(long)]
    bip: Option<String>,
    /// Default address pools (base=CIDR,size=N)
    #[arg(long = "default-address-pool")]
    default_address_pool: Vec<String>,
    /// Set the containers' network MTU
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// DNS server to use
    #[arg(long)]
    dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt")]
    dns_opt: Vec<String>,
    /// DNS search domains to use
    #[arg(long = "dns-search")]
    dns_search: Vec<String>,
    /// Default IP when binding container ports
    #[arg(long, default_value = "0.0.0.0")]
    ip: Ipv4Addr,
    /// Enable net.ipv4.ip_forward
    #[arg(long = "ip-forward", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ip_forward: bool,
    /// Enable IP masquerading
    #[arg(long = "ip-masq", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ip_masq: bool,
    /// Enable addition of firewall rules
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    iptables: bool,
    /// Register an additional OCI compatible runtime (name=path)
    #[arg(long = "add-runtime")]
    add_runtime: Vec<String>,
    /// Default OCI runtime for containers
    #[arg(long = "default-runtime", default_value = DEFAULT_RUNTIME)]
    default_runtime: String,
    /// Default ulimits for containers
    #[arg(long = "default-ulimit")]
    default_ulimit: Vec<String>,
    /// Default shm size for containers, in bytes (b, k, m, g)
    #[arg(long = "default-shm-size")]
    default_shm_size: Option<String>,
    /// Default mode for containers cgroup namespace ("host" | "private")
    #[arg(long = "default-cgroupns-mode")]
    default_cgroupns_mode: Option<String>,
    /// Default mode for containers ipc ("shareable" | "private")
    #[arg(long = "default-ipc-mode", default_value = "private")]
    default_ipc_mode: String,
    /// Default driver for container logs
    #[arg(long = "log-driver", default_value = "json-file")]
    log_driver: String,
    /// Default log driver options for containers
    #[arg(long = "log-opt")]
    log_opt: Vec<String>,
    /// Set key=value labels to the daemon
    #[arg(long)]
    label: Vec<String>,
    /// Set parent cgroup for all containers
    #[arg(long = "cgroup-parent", default_value = "")]
    cgroup_parent: String,
    /// Path to seccomp profile; "unconfined" turns filtering off by default
    #[arg(long = "seccomp-profile", default_value = "")]
    seccomp_profile: String,
    /// Set no-new-privileges by default for new containers
    #[arg(long = "no-new-privileges")]
    no_new_privileges: bool,
    /// Enable insecure registry communication
    #[arg(long = "insecure-registry")]
    insecure_registry: Vec<String>,
    /// Preferred registry mirror
    #[arg(long = "registry-mirror")]
    registry_mirror: Vec<String>,
    /// Set the max concurrent downloads
    #[arg(long = "max-concurrent-downloads", default_value_t = 3)]
    max_concurrent_downloads: usize,
    /// Set the max concurrent uploads
    #[arg(long = "max-concurrent-uploads", default_value_t = 5)]
    max_concurrent_uploads: usize,
    /// Containers are always left running when the daemon stops; accepted for compatibility
    #[arg(long = "live-restore")]
    live_restore: bool,
    /// Set the default shutdown timeout
    #[arg(long = "shutdown-timeout", default_value_t = 15)]
    shutdown_timeout: u64,
    /// Runtime execution options (native.cgroupdriver=cgroupfs)
    #[arg(long = "exec-opt")]
    exec_opt: Vec<String>,
    /// Storage driver to use ("overlay2")
    #[arg(short = 's', long = "storage-driver", default_value = "")]
    storage_driver: String,
    /// Ports are published without a proxy process; accepted for compatibility
    #[arg(long = "userland-proxy", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    userland_proxy: bool,
    /// Enable experimental features
    #[arg(long)]
    experimental: bool,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    tls: bool,
    /// Use TLS and verify the remote
    #[arg(long)]
    tlsverify: bool,
    /// Trust certs signed only by this CA
    #[arg(long)]
    tlscacert: Option<String>,
    /// Path to TLS certificate file
    #[arg(long)]
    tlscert: Option<String>,
    /// Path to TLS key file
    #[arg(long)]
    tlskey: Option<String>,
}

/// daemon.json: dockerd's keys.
#[derive(Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    hosts: Option<Vec<String>>,
    debug: Option<bool>,
    log_level: Option<String>,
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    containerd: Option<PathBuf>,
    group: Option<String>,
    bridge: Option<String>,
    bip: Option<String>,
    default_address_pools: Option<Vec<Pool>>,
    mtu: Option<u32>,
    dns: Option<Vec<String>>,
    dns_opts: Option<Vec<String>>,
    dns_search: Option<Vec<String>>,
    ip: Option<Ipv4Addr>,
    ip_forward: Option<bool>,
    ip_masq: Option<bool>,
    iptables: Option<bool>,
    runtimes: Option<BTreeMap<String, RuntimeFile>>,
    default_runtime: Option<String>,
    default_ulimits: Option<BTreeMap<String, Ulimit>>,
    default_shm_size: Option<serde_json::Value>,
    default_cgroupns_mode: Option<String>,
    default_ipc_mode: Option<String>,
    log_driver: Option<String>,
    log_opts: Option<BTreeMap<String, String>>,
    labels: Option<Vec<String>>,
    cgroup_parent: Option<String>,
    seccomp_profile: Option<String>,
    no_new_privileges: Option<bool>,
    insecure_registries: Option<Vec<String>>,
    registry_mirrors: Option<Vec<String>>,
    max_concurrent_downloads: Option<usize>,
    max_concurrent_uploads: Option<usize>,
    live_restore: Option<bool>,
    shutdown_timeout: Option<u64>,
    exec_opts: Option<Vec<String>>,
    storage_driver: Option<String>,
    userland_proxy: Option<bool>,
    experimental: Option<bool>,
    features: Option<BTreeMap<String, bool>>,
    tls: Option<bool>,
    tlsverify: Option<bool>,
    tlscacert: Option<String>,
    tlscert: Option<String>,
    tlskey: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pool {
    pub(crate) base: String,
    pub(crate) size: u8,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuntimeFile {
    #[serde(default)]
    path: String,
    #[serde(default)]
    runtime_args: Vec<String>,
    #[serde(default)]
    runtime_type: String,
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
        let file = read_file(&flags.config_file, given("config_file"))?;
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

    /// The container's log; docker's name for it.
    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }
}

fn read_file(path: &Path, required: bool) -> Result<File> {
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
    if !["json-file", "none"].contains(&log_driver.as_str()) {
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
    let config = Config {
        hosts: hosts.iter().map(|text| parse_host(text)).collect::<Result<_>>()?,
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
        address_pools: address_pools(flags.default_address_pool, file.default_address_pools)?,
        mtu,
        dns,
        dns_options,
        dns_search,
        default_binding_ip,
        ip_forward,
        ip_masquerade,
        firewall,
        runtimes: runtimes(&flags.add_runtime, file.runtimes.unwrap_or_default())?,
        default_runtime,
        default_ulimits: ulimits(&flags.default_ulimit, file.default_ulimits.unwrap_or_default())?,
        default_shm_size: shm_size(flags.default_shm_size, file.default_shm_size)?,
        default_cgroupns_mode,
        default_ipc_mode,
        log_driver,
        log_options: log_options(&flags.log_opt, file.log_opts.unwrap_or_default())?,
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

fn parse_host(text: &str) -> Result<Host> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(Host::Unix(absolute(Path::new(if path.is_empty() {
            "/run/gantry/gantry.sock"
        } else {
            path
        }))?));
    }
    if let Some(address) = text.strip_prefix("tcp://") {
        let address =
            if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() };
        let parsed: std::net::SocketAddr = address
            .parse()
            .with_context(|| format!("invalid bind address {text}: use tcp://ADDRESS:PORT"))?;
        if !parsed.ip().is_loopback() {
            bail!("{text}: without TLS the engine listens on loopback addresses only");
        }
        return Ok(Host::Tcp(address));
    }
    if text.starts_with("fd://") {
        return Ok(Host::Inherited);
    }
    if text.starts_with('/') {
        return Ok(Host::Unix(PathBuf::from(text)));
    }
    bail!("invalid bind address format: {text}")
}

/// `address/prefix`.
pub(crate) fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/').with_context(|| format!("invalid CIDR address: {text}"))?;
    let address = address.parse().with_context(|| format!("invalid CIDR address: {text}"))?;
    let prefix = prefix.parse().with_context(|| format!("invalid CIDR address: {text}"))?;
    if prefix > 30 {
        bail!("invalid CIDR address: {text}: no room for a gateway and a container");
    }
    Ok((address, prefix))
}

fn address_pools(flags: Vec<String>, file: Option<Vec<Pool>>) -> Result<Vec<Pool>> {
    let mut pools = file.unwrap_or_default();
    for text in flags {
        let mut base = None;
        let mut size = None;
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("base", value)) => base = Some(value.to_owned()),
                Some(("size", value)) => size = value.parse().ok(),
                _ => bail!("invalid default-address-pool {text}: expected base=CIDR,size=N"),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => pools.push(Pool { base, size }),
            _ => bail!("invalid default-address-pool {text}: expected base=CIDR,size=N"),
        }
    }
    for pool in &pools {
        let (_, prefix) = parse_cidr(&pool.base)?;
        if pool.size < prefix || pool.size > 30 {
            bail!("invalid pool size {} for {}", pool.size, pool.base);
        }
    }
    if pools.is_empty() {
        // docker's own: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in pieces of /20.
        pools.extend((17..32).map(|second| Pool { base: format!("172.{second}.0.0/16"), size: 16 }));
        pools.push(Pool { base: "192.168.0.0/16".to_owned(), size: 20 });
    }
    Ok(pools)
}

fn runtimes(flags: &[String], file: BTreeMap<String, RuntimeFile>) -> Result<BTreeMap<String, Runtime>> {
    let mut runtimes = BTreeMap::new();
    let ours = Runtime { shim: DEFAULT_SHIM.to_owned(), path: String::new() };
    for (name, runtime) in file {
        if !runtime.runtime_args.is_empty() {
            bail!("runtime {name}: runtimeArgs are not supported; point path at a script that adds them");
        }
        let shim =
            if runtime.runtime_type.is_empty() { DEFAULT_SHIM.to_owned() } else { runtime.runtime_type };
        if runtime.path.is_empty() && shim == DEFAULT_SHIM {
            bail!("runtime {name}: either a runtimeType or a path must be configured");
        }
        runtimes.insert(name, Runtime { shim, path: runtime.path });
    }
    for text in flags {
        let (name, path) =
            text.split_once('=').with_context(|| format!("invalid runtime {text}: expected name=path"))?;
        if name.is_empty() || path.is_empty() {
            bail!("invalid runtime {text}: expected name=path");
        }
        if runtimes.contains_key(name) {
            bail!("runtime '{name}' was already defined");
        }
        // As dockerd: a containerd runtime name instead of a path chooses another shim.
        let runtime = if path.starts_with("io.containerd.") {
            Runtime { shim: path.to_owned(), path: String::new() }
        } else {
            Runtime { path: path.to_owned(), ..ours.clone() }
        };
        runtimes.insert(name.to_owned(), runtime);
    }
    if runtimes.insert(DEFAULT_RUNTIME.to_owned(), ours.clone()).is_some() {
        bail!("runtime name '{DEFAULT_RUNTIME}' is reserved");
    }
    // docker's name for "the stock runtime", so that `--runtime runc` in scripts works.
    runtimes.entry("runc".to_owned()).or_insert(Runtime { path: "runc".to_owned(), ..ours });
    Ok(runtimes)
}

fn ulimits(flags: &[String], file: BTreeMap<String, Ulimit>) -> Result<Vec<Ulimit>> {
    let mut limits: BTreeMap<String, Ulimit> = file;
    for text in flags {
        let parse = || -> Option<Ulimit> {
            let (name, values) = text.split_once('=')?;
            let (soft, hard) = values.split_once(':').unwrap_or((values, values));
            Some(Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
        };
        let limit = parse().with_context(|| format!("invalid ulimit argument: {text}"))?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

fn shm_size(flag: Option<String>, file: Option<serde_json::Value>) -> Result<i64> {
    let text = match (flag, file) {
        (Some(text), _) | (None, Some(serde_json::Value::String(text))) => text,
        (None, Some(serde_json::Value::Number(number))) => number.to_string(),
        (None, None) => return Ok(DEFAULT_SHM_SIZE),
        (None, Some(other)) => bail!("invalid default-shm-size {other}"),
    };
    parse_size(&text).with_context(|| format!("invalid default-shm-size {text}"))
}

/// `64m`, `1g`, `1024`.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match &lower[digits.len()..] {
        "" => 1,
        "k" | "ki" => 1 << 10,
        "m" | "mi" => 1 << 20,
        "g" | "gi" => 1 << 30,
        "t" | "ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<i64>().ok().filter(|size| *size >= 0)?.checked_mul(factor)
}

fn log_options(flags: &[String], file: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut options = file;
    for text in flags {
        let (key, value) =
            text.split_once('=').with_context(|| format!("invalid log option {text}: expected key=value"))?;
        options.insert(key.to_owned(), value.to_owned());
    }
    crate::logs::check_options(&options).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(options)
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
