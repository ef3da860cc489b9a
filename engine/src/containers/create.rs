//! `POST /containers/create`: everything is checked, then the record, the snapshot and the volumes are made, in
//! this order, so that what a kill leaves is named by the record.

use super::record::{MountKind, NetworkMode, Record};
use super::stdio::Streams;
use super::{containerd_record, endpoints, mounts, publish, random_id, signal, spec, state};
use crate::clock::Timestamp;
use crate::containerd::SNAPSHOTTER;
use crate::error::Error;
use crate::images::Image;
use crate::networks::{files, ports};
use crate::view::Container;
use crate::{Ctx, images, names, volumes};
use proto::containerd::containers;
use proto::docker::container::{Config, CreateRequest, CreateResponse, HealthConfig, HostConfig};
use proto::platform::Platform;
use std::sync::Arc;

/// What stands for the spec until the first start.
const NO_SPEC: &[u8] = br#"{"ociVersion":"1.2.0"}"#;
/// Names tried for a container that was given none.
const NAME_ATTEMPTS: u32 = 10;

pub(crate) async fn create(
    ctx: &Ctx,
    name: &str,
    platform: &str,
    request: CreateRequest,
) -> Result<CreateResponse, Error> {
    let CreateRequest { mut config, host_config, networking_config } = request;
    if config == Config::default() {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    let mut host = host_config.unwrap_or_default();
    check_host(ctx, &mut config, &mut host)?;
    let image = images::resolve(ctx, &config.image).await?;
    check_platform(&image, &config.image, platform)?;
    merge(&mut config, &image);
    let arguments = arguments(&mut config)?;
    ports::check_exposed(&config)?;
    let networking = networking_config.unwrap_or_default();
    endpoints::check(&config, &host, &networking)?;
    let mut points = mounts::resolve(&config, &host)?;
    images::ensure_unpacked(ctx, &image).await?;

    let id = random_id();
    let name = reserve_name(ctx, name, &id)?;
    if config.hostname.is_empty() {
        config.hostname = default_hostname(&host, &id);
    }
    for point in &mut points {
        if point.kind == MountKind::Volume {
            if point.volume.is_empty() {
                point.volume = random_id();
            }
            point.source = volumes::data_dir(ctx, &point.volume).display().to_string();
        }
    }
    let record = Record {
        version: Record::new_version(),
        name: name.clone(),
        created: Timestamp::now(),
        image_id: image.id.to_string(),
        chain_id: image.chain_id.clone(),
        arguments,
        config,
        host_config: host,
        networking,
        mounts: points,
        restart_count: 0,
        manually_stopped: false,
        last: None,
        run: None,
    };
    if let Err(error) = make(ctx, &id, &record, &image).await {
        undo(ctx, &id).await;
        ctx.view.release(&name, &id);
        return Err(error);
    }
    let streams = Streams::new(ctx.config.run_dir(&id), String::new());
    let container = Container::new(id.clone(), record, state::Live::Down, streams);
    ctx.view.insert(container.clone());
    publish(ctx, &container, "create", &[]);
    Ok(CreateResponse { id, warnings: Vec::new() })
}

async fn make(ctx: &Ctx, id: &str, record: &Record, image: &Image) -> Result<(), Error> {
    let runtime = &ctx.config.runtimes[&runtime_name(ctx, &record.host_config)];
    let mut row = containerd_record(id, record, Some(NO_SPEC.to_vec()));
    row.image = image.names.first().map_or_else(|| image.id.to_string(), ToString::to_string);
    row.runtime = Some(containers::container::Runtime { name: runtime.shim.clone(), options: None });
    row.snapshotter = SNAPSHOTTER.to_owned();
    row.snapshot_key = id.to_owned();
    ctx.containerd.create_container(row).await?;
    let root = ctx.containerd.prepare_snapshot(id, &image.chain_id).await?;
    let dir = ctx.config.container_dir(id);
    std::fs::create_dir_all(&dir).map_err(|error| Error::io(format!("create {}", dir.display()), &error))?;
    for point in record.mounts.iter().filter(|point| point.kind == MountKind::Volume) {
        let created = volumes::ensure(ctx, &point.volume, point.anonymous)?;
        if created && point.copy {
            volumes::copy_up(ctx, &point.volume, root.clone(), &point.destination).await?;
        }
    }
    Ok(())
}

/// Takes back what a failed or cut-short create has made. Volumes with names stay, as docker leaves them.
pub(crate) async fn undo(ctx: &Ctx, id: &str) {
    let _ = ctx.containerd.delete_container(id).await;
    let _ = ctx.containerd.remove_snapshot(id).await;
    let _ = std::fs::remove_dir_all(ctx.config.container_dir(id));
}

fn reserve_name(ctx: &Ctx, wanted: &str, id: &str) -> Result<String, Error> {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    if !wanted.is_empty() {
        if !names::is_valid(wanted) {
            return Err(Error::invalid(format!(
                "Invalid container name ({wanted}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        ctx.view.reserve(wanted, id)?;
        return Ok(wanted.to_owned());
    }
    for attempt in 0..NAME_ATTEMPTS {
        let name = names::generate(attempt);
        if ctx.view.reserve(&name, id).is_ok() {
            return Ok(name);
        }
    }
    let name = id[..12].to_owned();
    ctx.view.reserve(&name, id)?;
    Ok(name)
}

pub(crate) fn runtime_name(ctx: &Ctx, host: &HostConfig) -> String {
    if host.runtime.is_empty() { ctx.config.default_runtime.clone() } else { host.runtime.clone() }
}

fn default_hostname(host: &HostConfig, id: &str) -> String {
    let shares = NetworkMode::parse(&host.network_mode) == NetworkMode::Host || host.uts_mode == "host";
    if shares {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        id[..12].to_owned()
    }
}

fn check_platform(image: &Image, name: &str, platform: &str) -> Result<(), Error> {
    if platform.is_empty() {
        return Ok(());
    }
    let wanted = Platform::parse(platform).map_err(Error::invalid)?;
    let document: serde_json::Value = serde_json::from_slice(&image.config_json).unwrap_or_default();
    let text = |key: &str| document[key].as_str().unwrap_or("").to_owned();
    let (os, architecture) = (text("os"), text("architecture"));
    if wanted.matches(&os, &architecture, &text("variant")) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({os}/{architecture}) does not match the specified platform ({wanted})"
    )))
}

/// Fills in what the image says and the request does not.
fn merge(config: &mut Config, image: &Image) {
    let from = &image.config;
    if config.user.is_empty() {
        config.user = from.user.clone();
    }
    if config.working_dir.is_empty() {
        config.working_dir = from.working_dir.clone();
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = from.stop_signal.clone();
    }
    if config.healthcheck.is_none() {
        config.healthcheck = from.healthcheck.clone();
    }
    let no_entrypoint = config.entrypoint.as_ref().is_none_or(Vec::is_empty);
    if no_entrypoint {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = from.cmd.clone();
        }
        if config.entrypoint.is_none() {
            config.entrypoint = from.entrypoint.clone();
        }
    }
    let own = config.env.clone().unwrap_or_default();
    let mut env: Vec<String> = from.env.clone().unwrap_or_default();
    for variable in &own {
        spec::process::set(&mut env, variable);
    }
    config.env = Some(env);
    for (key, value) in from.labels.iter().flatten() {
        config.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (port, _) in from.exposed_ports.iter().flatten() {
        config.exposed_ports.get_or_insert_default().entry(port.clone()).or_default();
    }
    for (path, _) in from.volumes.iter().flatten() {
        config.volumes.get_or_insert_default().entry(path.clone()).or_default();
    }
}

/// Entrypoint and cmd in one line; docker's refusal when there is none.
fn arguments(config: &mut Config) -> Result<Vec<String>, Error> {
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        // `--entrypoint ""` takes the image's away.
        config.entrypoint = None;
    }
    let all: Vec<String> =
        config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect();
    if all.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    Ok(all)
}

/// Everything that can be refused without looking at the image.
fn check_host(ctx: &Ctx, config: &mut Config, host: &mut HostConfig) -> Result<(), Error> {
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = mounts::clean(&config.working_dir);
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {variable}")));
        }
    }
    if config.network_disabled {
        host.network_mode = "none".to_owned();
    }
    if !ctx.config.runtimes.contains_key(&runtime_name(ctx, host)) {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".to_owned();
    }
    check_network_mode(ctx, config, host)?;
    check_namespaces(ctx, host)?;
    check_restart_policy(host)?;
    check_log(ctx, host)?;
    if host.init == Some(true) {
        return Err(Error::unimplemented("HostConfig.Init"));
    }
    if host.links.as_ref().is_some_and(|links| !links.is_empty()) {
        return Err(Error::unimplemented("HostConfig.Links"));
    }
    if host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(Error::unimplemented("HostConfig.StorageOpt"));
    }
    if host.oom_score_adj.abs() > 1000 {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    if let Some(check) = &config.healthcheck {
        check_healthcheck(check)?;
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    for extra in host.extra_hosts.iter().flatten() {
        files::split_extra_host(extra)?;
    }
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("bad format for dns server: {server}")));
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    spec::resources::check(&mut host.resources, cpus)?;
    spec::security::capabilities(host)?;
    spec::security::options(host)?;
    spec::devices::check(host)?;
    let requests = ports::requests(config, host)?;
    if !requests.is_empty() && matches!(NetworkMode::parse(&host.network_mode), NetworkMode::Container(_)) {
        return Err(Error::invalid(
            "conflicting options: port publishing and the container type network mode",
        ));
    }
    // Published ports are exposed ports.
    for (port, _) in host.port_bindings.iter().flatten() {
        config.exposed_ports.get_or_insert_default().entry(port.clone()).or_default();
    }
    Ok(())
}

fn check_network_mode(ctx: &Ctx, config: &Config, host: &mut HostConfig) -> Result<(), Error> {
    match NetworkMode::parse(&host.network_mode) {
        NetworkMode::Container(target) => {
            if target.is_empty() {
                return Err(Error::invalid(
                    "invalid network mode: invalid container format container:<name|id>",
                ));
            }
            if !config.hostname.is_empty() {
                return Err(Error::invalid("conflicting options: hostname and the network mode"));
            }
            // Kept by id: a name may pass to another container. One that is not there is met at the start; said
            // now, the docker command would take it for a missing image and pull.
            if let Ok(target) = ctx.view.find(target) {
                host.network_mode = format!("container:{}", target.id);
            }
            Ok(())
        }
        NetworkMode::Host if host.uts_mode == "host" && !config.hostname.is_empty() => {
            Err(Error::invalid("conflicting options: hostname and the UTS mode"))
        }
        // As docker: unknown networks are met at the start.
        _ => Ok(()),
    }
}

fn check_namespaces(ctx: &Ctx, host: &HostConfig) -> Result<(), Error> {
    match host.pid_mode.as_str() {
        "" | "host" => {}
        mode => match mode.strip_prefix("container:") {
            Some(target) if !target.is_empty() => {
                ctx.view.find(target).map_err(|error| Error::invalid(error.to_string()))?;
            }
            _ => return Err(Error::invalid(format!("invalid PID mode: {mode}"))),
        },
    }
    match host.ipc_mode.as_str() {
        "" | "host" | "private" | "none" => {}
        // Without another container that joins, shareable and private are the same.
        "shareable" => {}
        mode if mode.starts_with("container:") => {
            return Err(Error::unimplemented("HostConfig.IpcMode container:ID"));
        }
        mode => return Err(Error::invalid(format!("invalid IPC mode: {mode}"))),
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Error::invalid("invalid user namespace mode"));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return Err(Error::invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    Ok(())
}

/// Times are in nanoseconds; zero is the default.
fn check_healthcheck(check: &HealthConfig) -> Result<(), Error> {
    const SHORTEST: i64 = 1_000_000;
    for (name, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if time != 0 && time < SHORTEST {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

pub(crate) fn check_restart_policy(host: &HostConfig) -> Result<(), Error> {
    let policy = &host.restart_policy;
    let counts = policy.maximum_retry_count != 0;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if counts => Err(Error::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        )),
        "on-failure" if policy.maximum_retry_count < 0 => {
            Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"))
        }
        "always" | "unless-stopped" | "on-failure" if host.auto_remove => {
            Err(Error::invalid("can't create 'AutoRemove' container with restart policy"))
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn check_log(ctx: &Ctx, host: &mut HostConfig) -> Result<(), Error> {
    if host.log_config.kind.is_empty() {
        host.log_config.kind = ctx.config.log_driver.clone();
        let given = host.log_config.config.get_or_insert_default();
        for (key, value) in &ctx.config.log_options {
            given.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    match host.log_config.kind.as_str() {
        driver if crate::logs::DRIVERS.contains(&driver) => {
            crate::logs::check_options(driver, host.log_config.config.as_ref().unwrap_or(&Default::default()))
        }
        other => Err(Error::invalid(format!(
            "error looking up logging plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

/// For others to know that a container is one of ours and complete.
pub(crate) fn adopt(ctx: &Ctx, id: String, record: Record, live: state::Live) -> Arc<Container> {
    let streams = Streams::new(ctx.config.run_dir(&id), String::new());
    Container::new(id, record, live, streams)
}
