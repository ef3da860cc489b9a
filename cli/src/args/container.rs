//! Commands on containers. A docker boolean is `--flag`, `--flag=true` or `--flag=false`.

use clap::{ArgAction, Args};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run container in background and print container ID
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) create: Create,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short = 'a', long, value_name = "STREAM", allow_hyphen_values = true)]
    pub(crate) attach: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) tty: bool,
    /// Automatically remove the container when it exits
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) rm: bool,
    /// Assign a name to the container
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) name: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) env_file: Vec<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long, value_name = "SRC:DST[:OPTS]", allow_hyphen_values = true)]
    pub(crate) volume: Vec<String>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "SPEC", allow_hyphen_values = true)]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "DST[:OPTS]", allow_hyphen_values = true)]
    pub(crate) tmpfs: Vec<String>,
    /// Publish a container's port(s) to the host: [[IP:]HOST:]CONTAINER[/PROTO]
    #[arg(short = 'p', long, value_name = "PORT", allow_hyphen_values = true)]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT", allow_hyphen_values = true)]
    pub(crate) expose: Vec<String>,
    /// Connect a container to a network: bridge, host, none or container:NAME
    #[arg(long, value_name = "NETWORK", allow_hyphen_values = true, alias = "net")]
    pub(crate) network: Option<String>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) hostname: Option<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) domainname: Option<String>,
    /// Username or UID
    #[arg(short = 'u', long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "DIR", allow_hyphen_values = true)]
    pub(crate) workdir: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<String>,
    /// Set metadata on a container
    #[arg(short = 'l', long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) label_file: Vec<String>,
    /// Add an annotation to the container
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) annotation: Vec<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Tune container memory swappiness
    #[arg(long, value_name = "0-100", allow_hyphen_values = true)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) cpus: Option<String>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "SHARES", allow_hyphen_values = true)]
    pub(crate) cpu_shares: Option<i64>,
    /// Limit CPU CFS period
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_period: Option<i64>,
    /// Limit CPU CFS quota
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "CPUS", allow_hyphen_values = true)]
    pub(crate) cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "NODES", allow_hyphen_values = true)]
    pub(crate) cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Disable OOM Killer
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i64>,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]", allow_hyphen_values = true)]
    pub(crate) ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) shm_size: Option<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "HOST[:CONTAINER[:RWM]]", allow_hyphen_values = true)]
    pub(crate) device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true)]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true)]
    pub(crate) cap_drop: Vec<String>,
    /// Give extended privileges to this container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) privileged: bool,
    /// Security Options
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) security_opt: Vec<String>,
    /// Mount the container's root filesystem as read only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) read_only: bool,
    /// Add additional groups to join
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    pub(crate) group_add: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub(crate) sysctl: Vec<String>,
    /// PID namespace to use
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub(crate) pid: Option<String>,
    /// IPC mode to use
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub(crate) ipc: Option<String>,
    /// UTS namespace to use
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub(crate) uts: Option<String>,
    /// User namespace to use
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub(crate) userns: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pub(crate) cgroupns: Option<String>,
    /// Optional parent cgroup for the container
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub(crate) cgroup_parent: Option<String>,
    /// Set custom DNS servers
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    pub(crate) dns: Vec<String>,
    /// Set DNS options
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true)]
    pub(crate) dns_search: Vec<String>,
    /// Add a custom host-to-IP mapping
    #[arg(long, value_name = "HOST:IP", allow_hyphen_values = true)]
    pub(crate) add_host: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    pub(crate) ip: Option<String>,
    /// Container MAC address
    #[arg(long, value_name = "MAC", allow_hyphen_values = true)]
    pub(crate) mac_address: Option<String>,
    /// Restart policy to apply when a container exits: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
    pub(crate) restart: Option<String>,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL", allow_hyphen_values = true)]
    pub(crate) stop_signal: Option<String>,
    /// Timeout to stop a container
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Logging driver for the container
    #[arg(long, value_name = "DRIVER", allow_hyphen_values = true)]
    pub(crate) log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) log_opt: Vec<String>,
    /// Runtime to use for this container
    #[arg(long, value_name = "RUNTIME", allow_hyphen_values = true)]
    pub(crate) runtime: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) init: bool,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) cidfile: Option<String>,
    /// Pull image before running: always, missing, never
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
    pub(crate) pull: Option<String>,
    /// Suppress the pull output
    #[arg(short = 'q', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) quiet: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "PLATFORM", allow_hyphen_values = true)]
    pub(crate) platform: Option<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "CONTAINER", allow_hyphen_values = true)]
    pub(crate) volumes_from: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "DRIVER", allow_hyphen_values = true)]
    pub(crate) volume_driver: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "CONTAINER", allow_hyphen_values = true)]
    pub(crate) link: Vec<String>,
    /// Storage driver options for the container
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) storage_opt: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_healthcheck: bool,
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) health_cmd: Option<String>,
    /// Time between running the check
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) health_interval: Option<String>,
    /// Maximum time to allow one check to run
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) health_timeout: Option<String>,
    /// Start period for the container to initialize before starting health-retries countdown
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub(crate) health_start_period: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) health_retries: Option<i64>,
    /// Print help
    // -h is the host name's, as in docker.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image to make the container of
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Program to run instead of the image's, and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Containers by name or ID.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Detached mode: run command in the background
    #[arg(short = 'd', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) interactive: bool,
    /// Give extended privileges to the command
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) tty: bool,
    /// Username or UID
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short = 'l', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) latest: bool,
    /// Don't truncate output
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_trunc: bool,
    /// Only display container IDs
    #[arg(short = 'q', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) quiet: bool,
    /// Display total file sizes
    #[arg(short = 's', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) size: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short = 'a', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) interactive: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Stop and restart.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) timeout: Option<i64>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short = 'f', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) force: bool,
    /// Remove the specified link
    #[arg(short = 'l', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short = 'v', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) volumes: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Show extra details provided to logs
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) details: bool,
    /// Follow log output
    #[arg(short = 'f', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) follow: bool,
    /// Show logs since timestamp (2013-01-02T13:23:37Z) or relative (42m for 42 minutes)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    pub(crate) tail: String,
    /// Show timestamps
    #[arg(short = 't', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) timestamps: bool,
    /// Show logs before a timestamp (2013-01-02T13:23:37Z) or relative (42m for 42 minutes)
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Options of ps
    #[arg(value_name = "PS_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) ps_options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Format output using a Go template, or json
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Display total file sizes
    #[arg(short = 's', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) size: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    #[arg(value_name = "NEW_NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES")]
    pub(crate) cpu_shares: Option<i64>,
    /// Limit CPU CFS period
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<i64>,
    /// Limit CPU CFS quota
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    pub(crate) port: Option<String>,
}
