//! The command line.

use super::{DEFAULT_CONFIG_FILE, DEFAULT_RUNTIME};
use clap::{ArgAction, Parser};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The engine of the Gantry container stack.
#[derive(Parser, Debug)]
#[command(name = "gantryd", version, about, disable_version_flag = true)]
pub(crate) struct Flags {
    /// Print version information and quit
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    pub(super) version: Option<bool>,
    /// Daemon configuration file
    #[arg(long = "config-file", default_value = DEFAULT_CONFIG_FILE)]
    pub(super) config_file: PathBuf,
    /// Validate daemon configuration and exit
    #[arg(long)]
    pub(crate) validate: bool,
    /// Daemon socket(s) to connect to (unix:///path, tcp://127.0.0.1:port, fd://)
    #[arg(short = 'H', long = "host")]
    pub(super) host: Vec<String>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    pub(super) debug: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")
    #[arg(short = 'l', long = "log-level", default_value = "info")]
    pub(super) log_level: String,
    /// Root directory of persistent state
    #[arg(long = "data-root", default_value = "/var/lib/gantry")]
    pub(super) data_root: PathBuf,
    /// Root directory for execution state files
    #[arg(long = "exec-root", default_value = "/run/gantry")]
    pub(super) exec_root: PathBuf,
    /// Path to use for daemon PID file
    #[arg(short = 'p', long, default_value = "/run/gantry/gantryd.pid")]
    pub(super) pidfile: PathBuf,
    /// containerd grpc address; without it containerd-lite is started
    #[arg(long)]
    pub(super) containerd: Option<PathBuf>,
    /// Group for the unix socket
    #[arg(short = 'G', long, default_value = "docker")]
    pub(super) group: String,
    /// Name of the default network's bridge
    #[arg(short = 'b', long, default_value = "gantry0")]
    pub(super) bridge: String,
    /// Specify default bridge IP (address/prefix)
    #[arg(long)]
    pub(super) bip: Option<String>,
    /// Default address pools (base=CIDR,size=N)
    #[arg(long = "default-address-pool")]
    pub(super) default_address_pool: Vec<String>,
    /// Set the containers' network MTU
    #[arg(long, default_value_t = 1500)]
    pub(super) mtu: u32,
    /// DNS server to use
    #[arg(long)]
    pub(super) dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt")]
    pub(super) dns_opt: Vec<String>,
    /// DNS search domains to use
    #[arg(long = "dns-search")]
    pub(super) dns_search: Vec<String>,
    /// Default IP when binding container ports
    #[arg(long, default_value = "0.0.0.0")]
    pub(super) ip: Ipv4Addr,
    /// Enable net.ipv4.ip_forward
    #[arg(long = "ip-forward", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) ip_forward: bool,
    /// Enable IP masquerading
    #[arg(long = "ip-masq", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) ip_masq: bool,
    /// Enable addition of firewall rules
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) iptables: bool,
    /// Register an additional OCI compatible runtime (name=path)
    #[arg(long = "add-runtime")]
    pub(super) add_runtime: Vec<String>,
    /// Default OCI runtime for containers
    #[arg(long = "default-runtime", default_value = DEFAULT_RUNTIME)]
    pub(super) default_runtime: String,
    /// Default ulimits for containers
    #[arg(long = "default-ulimit")]
    pub(super) default_ulimit: Vec<String>,
    /// Default shm size for containers, in bytes (b, k, m, g)
    #[arg(long = "default-shm-size")]
    pub(super) default_shm_size: Option<String>,
    /// Default mode for containers cgroup namespace ("host" | "private")
    #[arg(long = "default-cgroupns-mode")]
    pub(super) default_cgroupns_mode: Option<String>,
    /// Default mode for containers ipc ("shareable" | "private")
    #[arg(long = "default-ipc-mode", default_value = "private")]
    pub(super) default_ipc_mode: String,
    /// Default driver for container logs
    #[arg(long = "log-driver", default_value = "json-file")]
    pub(super) log_driver: String,
    /// Default log driver options for containers
    #[arg(long = "log-opt")]
    pub(super) log_opt: Vec<String>,
    /// Set key=value labels to the daemon
    #[arg(long)]
    pub(super) label: Vec<String>,
    /// Set parent cgroup for all containers
    #[arg(long = "cgroup-parent", default_value = "")]
    pub(super) cgroup_parent: String,
    /// Path to seccomp profile; "unconfined" turns filtering off by default
    #[arg(long = "seccomp-profile", default_value = "")]
    pub(super) seccomp_profile: String,
    /// Set no-new-privileges by default for new containers
    #[arg(long = "no-new-privileges")]
    pub(super) no_new_privileges: bool,
    /// Enable insecure registry communication
    #[arg(long = "insecure-registry")]
    pub(super) insecure_registry: Vec<String>,
    /// Preferred registry mirror
    #[arg(long = "registry-mirror")]
    pub(super) registry_mirror: Vec<String>,
    /// Set the max concurrent downloads
    #[arg(long = "max-concurrent-downloads", default_value_t = 3)]
    pub(super) max_concurrent_downloads: usize,
    /// Set the max concurrent uploads
    #[arg(long = "max-concurrent-uploads", default_value_t = 5)]
    pub(super) max_concurrent_uploads: usize,
    /// Containers are always left running when the daemon stops; accepted for compatibility
    #[arg(long = "live-restore")]
    pub(super) live_restore: bool,
    /// Set the default shutdown timeout
    #[arg(long = "shutdown-timeout", default_value_t = 15)]
    pub(super) shutdown_timeout: u64,
    /// Runtime execution options (native.cgroupdriver=cgroupfs)
    #[arg(long = "exec-opt")]
    pub(super) exec_opt: Vec<String>,
    /// Storage driver to use ("overlay2")
    #[arg(short = 's', long = "storage-driver", default_value = "")]
    pub(super) storage_driver: String,
    /// Ports are published without a proxy process; accepted for compatibility
    #[arg(long = "userland-proxy", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) userland_proxy: bool,
    /// Enable experimental features
    #[arg(long)]
    pub(super) experimental: bool,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub(super) tls: bool,
    /// Use TLS and verify the remote
    #[arg(long)]
    pub(super) tlsverify: bool,
    /// Trust certs signed only by this CA
    #[arg(long)]
    pub(super) tlscacert: Option<String>,
    /// Path to TLS certificate file
    #[arg(long)]
    pub(super) tlscert: Option<String>,
    /// Path to TLS key file
    #[arg(long)]
    pub(super) tlskey: Option<String>,
}
