//! From the flags of `run` and `create` to the Engine API's request.

use super::bad_flag;
use crate::args::container::Create;
use crate::exit::{Failure, Result};
use crate::opts::{device, duration, env, mount, port, restart, size, ulimit};
use proto::docker::container::{Config, CreateRequest, HealthConfig, HostConfig, LogConfig, Resources};
use proto::docker::network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};

/// What is attached, and the request.
pub(crate) struct Wanted {
    pub(crate) request: CreateRequest,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

pub(crate) fn request(args: &Create, detach: bool) -> Result<Wanted> {
    if detach && !args.attach.is_empty() {
        let words = "conflicting options: cannot specify both --attach and --detach";
        return Err(Failure::new(1, words).settled());
    }
    build(args, detach).map_err(bad_flag)
}

/// docker's words for a value that its flag does not take.
fn flag<T>(
    names: &str,
    value: &str,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    read(value).map_err(|reason| format!("invalid argument {value:?} for \"{names}\" flag: {reason}"))
}

/// The same for a flag that may not be given.
fn flag_or<T: Default>(
    names: &str,
    value: Option<&str>,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    value.map_or_else(|| Ok(T::default()), |value| flag(names, value, read))
}

/// The same for one that may be given several times.
fn flags<T>(
    names: &str,
    values: &[String],
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Vec<T>, String> {
    values.iter().map(|value| flag(names, value, &read)).collect()
}

/// What docker's command refuses before it asks the engine.
fn check(args: &Create) -> std::result::Result<(), String> {
    let host = |mode: &str| matches!(mode, "" | "host");
    let container = |mode: &str| mode.strip_prefix("container:").is_some_and(|target| !target.is_empty());
    let modes = [
        ("pid", &args.pid, "PID", [].as_slice(), true),
        ("uts", &args.uts, "UTS", &[], false),
        ("userns", &args.userns, "USER", &[], false),
        ("cgroupns", &args.cgroupns, "CGROUP", &["private"], false),
    ];
    for (name, mode, kind, others, joins) in modes {
        let mode = mode.as_deref().unwrap_or("");
        let known = host(mode) || others.contains(&mode) || (joins && container(mode));
        if !known {
            return Err(format!("--{name}: invalid {kind} mode"));
        }
    }
    if let Some(address) = args.mac_address.as_deref().filter(|address| !is_mac(address)) {
        return Err(format!("{address} is not a valid mac address"));
    }
    if args.health_retries.is_some_and(|count| count < 0) {
        return Err("--health-retries cannot be negative".to_owned());
    }
    let times = [&args.health_interval, &args.health_timeout, &args.health_start_period];
    let checks =
        args.health_cmd.is_some() || args.health_retries.is_some() || times.iter().any(|t| t.is_some());
    if args.no_healthcheck && checks {
        return Err("--no-healthcheck conflicts with --health-* options".to_owned());
    }
    for option in &args.security_opt {
        if !option.contains(['=', ':']) && option != "no-new-privileges" {
            return Err(format!("invalid --security-opt: {option:?}"));
        }
    }
    flags("--add-host", &args.add_host, |text| match text.split_once([':', '=']) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => Ok(()),
        _ => Err(format!("bad format for add-host: {text:?}")),
    })?;
    flags("--dns", &args.dns, |text| match text.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    })?;
    flags("--sysctl", &args.sysctl, |text| {
        let key = text.split('=').next().unwrap_or("");
        let allowed =
            proto::sysctl::OF_IPC.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.");
        if allowed && text.contains('=') { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
    })?;
    Ok(())
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

fn build(args: &Create, detach: bool) -> std::result::Result<Wanted, String> {
    let named = |stream: &str| args.attach.iter().any(|given| given.eq_ignore_ascii_case(stream));
    if let Some(wrong) =
        args.attach.iter().find(|a| !["stdin", "stdout", "stderr"].contains(&a.to_lowercase().as_str()))
    {
        return Err(format!(
            "invalid argument {wrong:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
        ));
    }
    check(args)?;
    let (stdin, stdout, stderr) = match (detach, args.attach.is_empty()) {
        (true, _) => (false, false, false),
        (false, true) => (args.interactive, true, true),
        (false, false) => (named("stdin"), named("stdout"), named("stderr")),
    };
    if args.rm && args.restart.as_deref().is_some_and(|policy| policy != "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let mut host = host_config(args)?;
    let mut exposed = std::collections::BTreeMap::new();
    for spec in &args.expose {
        exposed.extend(port::expose(spec)?.into_iter().map(|port| (port, Default::default())));
    }
    exposed.extend(host.port_bindings.iter().flatten().map(|(port, _)| (port.clone(), Default::default())));
    let mut volumes = std::collections::BTreeMap::new();
    for spec in &args.volume {
        match mount::volume_flag(spec)? {
            mount::Volume::Bind(bind) => host.binds.get_or_insert_default().push(bind),
            mount::Volume::Anonymous(path) => drop(volumes.insert(path, Default::default())),
        }
    }
    let config = Config {
        hostname: args.hostname.clone().unwrap_or_default(),
        domainname: args.domainname.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        attach_stdin: stdin,
        attach_stdout: stdout,
        attach_stderr: stderr,
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        tty: args.tty,
        open_stdin: args.interactive,
        stdin_once: args.interactive && stdin,
        env: Some(env::variables(&args.env_file, &args.env)?),
        cmd: (!args.command.is_empty()).then(|| args.command.clone()),
        healthcheck: health(args)?,
        image: args.image.clone(),
        volumes: Some(volumes),
        working_dir: args.workdir.clone().unwrap_or_default(),
        // An empty --entrypoint takes the image's away.
        entrypoint: args.entrypoint.as_ref().map(|program| vec![program.clone()]),
        labels: Some(env::labels(&args.label_file, &args.label)?),
        stop_signal: args.stop_signal.clone().unwrap_or_default(),
        stop_timeout: args.stop_timeout,
        ..Config::default()
    };
    let request =
        CreateRequest { config, host_config: Some(host), networking_config: Some(networking(args)) };
    Ok(Wanted { request, stdin, stdout, stderr })
}

fn host_config(args: &Create) -> std::result::Result<HostConfig, String> {
    let list = |given: &[String]| (!given.is_empty()).then(|| given.to_vec());
    let mut bindings = Default::default();
    for spec in &args.publish {
        port::publish(spec, &mut bindings)?;
    }
    let mounts: Vec<_> = flags("--mount", &args.mount, mount::parse)?;
    let tmpfs: proto::docker::Strings = args
        .tmpfs
        .iter()
        .map(|spec| {
            spec.split_once(':').map_or((spec.clone(), String::new()), |(d, o)| (d.to_owned(), o.to_owned()))
        })
        .collect();
    let storage = env::pairs("storage-opt", &args.storage_opt)?;
    Ok(HostConfig {
        container_id_file: args.cidfile.clone().unwrap_or_default(),
        log_config: LogConfig {
            kind: args.log_driver.clone().unwrap_or_default(),
            config: Some(env::pairs("log-opt", &args.log_opt)?),
        },
        network_mode: args.network.clone().unwrap_or_else(|| "default".to_owned()),
        port_bindings: Some(bindings),
        restart_policy: restart::parse(args.restart.as_deref().unwrap_or("no"))?,
        auto_remove: args.rm,
        volume_driver: args.volume_driver.clone().unwrap_or_default(),
        volumes_from: list(&args.volumes_from),
        console_size: crate::term::size()
            .filter(|_| args.tty)
            .map_or([0, 0], |(height, width)| [height, width]),
        annotations: Some(env::pairs("annotation", &args.annotation)?),
        cap_add: list(&args.cap_add),
        cap_drop: list(&args.cap_drop),
        cgroupns_mode: args.cgroupns.clone().unwrap_or_default(),
        dns: Some(args.dns.clone()),
        dns_options: Some(args.dns_option.clone()),
        dns_search: Some(args.dns_search.clone()),
        extra_hosts: list(&args.add_host),
        group_add: list(&args.group_add),
        ipc_mode: args.ipc.clone().unwrap_or_default(),
        links: list(&args.link),
        oom_score_adj: args.oom_score_adj.unwrap_or(0),
        pid_mode: args.pid.clone().unwrap_or_default(),
        privileged: args.privileged,
        publish_all_ports: args.publish_all,
        readonly_rootfs: args.read_only,
        security_opt: list(&args.security_opt),
        storage_opt: (!storage.is_empty()).then_some(storage),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        uts_mode: args.uts.clone().unwrap_or_default(),
        userns_mode: args.userns.clone().unwrap_or_default(),
        shm_size: flag_or("--shm-size", args.shm_size.as_deref(), size::parse)?,
        sysctls: Some(env::pairs("sysctl", &args.sysctl)?),
        runtime: args.runtime.clone().unwrap_or_default(),
        resources: resources(args)?,
        mounts: (!mounts.is_empty()).then_some(mounts),
        init: args.init.then_some(true),
        ..HostConfig::default()
    })
}

/// `1.5` CPUs in billionths.
pub(super) fn nano_cpus(text: Option<&str>) -> std::result::Result<i64, String> {
    let Some(text) = text else { return Ok(0) };
    let number: f64 = text.parse().map_err(|_| format!("failed to parse {text} as a rational number"))?;
    if !(0.0..=1e6).contains(&number) {
        return Err(format!("value is out of range: {text}"));
    }
    Ok((number * 1e9).round() as i64)
}

fn resources(args: &Create) -> std::result::Result<Resources, String> {
    let devices: Vec<_> =
        args.device.iter().map(|spec| device::parse(spec)).collect::<std::result::Result<_, _>>()?;
    let ulimits: Vec<_> = flags("--ulimit", &args.ulimit, ulimit::parse)?;
    let rules = (!args.device_cgroup_rule.is_empty()).then(|| args.device_cgroup_rule.clone());
    Ok(Resources {
        cpu_shares: args.cpu_shares.unwrap_or(0),
        memory: flag_or("-m, --memory", args.memory.as_deref(), size::parse)?,
        nano_cpus: flag_or("--cpus", args.cpus.as_deref(), |text| nano_cpus(Some(text)))?,
        cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight: args.blkio_weight.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        devices: Some(devices),
        device_cgroup_rules: rules,
        memory_reservation: flag_or("--memory-reservation", args.memory_reservation.as_deref(), size::parse)?,
        memory_swap: flag_or("--memory-swap", args.memory_swap.as_deref(), size::parse_or_unlimited)?,
        memory_swappiness: Some(args.memory_swappiness.unwrap_or(-1)),
        oom_kill_disable: Some(args.oom_kill_disable),
        pids_limit: Some(args.pids_limit.unwrap_or(0)),
        ulimits: Some(ulimits),
        ..Resources::default()
    })
}

fn health(args: &Create) -> std::result::Result<Option<HealthConfig>, String> {
    if args.no_healthcheck {
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), duration::parse);
    let config = HealthConfig {
        test: args.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
        interval: time(&args.health_interval)?,
        timeout: time(&args.health_timeout)?,
        start_period: time(&args.health_start_period)?,
        retries: args.health_retries.unwrap_or(0),
        ..HealthConfig::default()
    };
    Ok((config != HealthConfig::default()).then_some(config))
}

fn networking(args: &Create) -> NetworkingConfig {
    let mut networking = NetworkingConfig::default();
    if args.ip.is_some() || args.mac_address.is_some() {
        let ipam =
            EndpointIpamConfig { ipv4_address: args.ip.clone().unwrap_or_default(), ..Default::default() };
        let endpoint = EndpointSettings {
            ipam_config: args.ip.is_some().then_some(ipam),
            mac_address: args.mac_address.clone().unwrap_or_default(),
            ..EndpointSettings::default()
        };
        let name = args.network.clone().unwrap_or_else(|| "default".to_owned());
        networking.endpoints_config.get_or_insert_default().insert(name, endpoint);
    }
    networking
}
