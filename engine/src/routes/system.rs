//! `/_ping`, `/version`, `/info`, `/events`, `/auth`, and that there are no plugins

use crate::containers::state::Status;
use crate::error::Error;
use crate::http::{JsonBody, Params, ok, stream};
use crate::{Shared, events, server};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA};
use http::{Method, StatusCode};
use proto::docker::filter::Filters;
use proto::docker::system::{
    AddressPool, Commit, Component, ContainerdInfo, ContainerdNamespaces, FirewallInfo, IndexInfo, Info,
    Plugins, RegistryConfig, Runtime, Swarm, Version,
};
use proto::docker::{MAX_API_VERSION, MIN_API_VERSION};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/events", get(follow_events))
        .route("/auth", post(log_in))
        .route("/plugins/{name}/json", get(inspect_plugin))
}

/// Checks credentials at their registry; the client keeps them.
async fn log_in(
    State(ctx): State<Shared>,
    body: JsonBody<proto::docker::image::AuthConfig>,
) -> Result<Response, Error> {
    crate::registry::log_in(body.required()?, &ctx.config.insecure_registries).await?;
    let status = "Login Succeeded".to_owned();
    Ok(ok(&proto::docker::image::AuthResponse { identity_token: String::new(), status }))
}

/// `docker inspect NAME` asks every kind of object in turn and goes on only after 404.
async fn inspect_plugin(Path(name): Path<String>) -> Result<Response, Error> {
    Err(Error::not_found(format!("plugin \"{name}\" not found")))
}

async fn ping(method: Method) -> Response {
    let body = if method == Method::HEAD { "" } else { "OK" };
    (
        StatusCode::OK,
        [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
            (PRAGMA, "no-cache"),
            (http::HeaderName::from_static("builder-version"), "1"),
            (http::HeaderName::from_static("swarm"), "inactive"),
            (CONTENT_LENGTH, if body.is_empty() { "0" } else { "2" }),
        ],
        body,
    )
        .into_response()
}

/// Names as Go has them.
fn architecture() -> String {
    proto::platform::Platform::host().architecture
}

async fn version(State(ctx): State<Shared>) -> Result<Response, Error> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let details = [
        ("ApiVersion", MAX_API_VERSION.to_string()),
        ("Arch", architecture()),
        ("Experimental", ctx.config.experimental.to_string()),
        ("KernelVersion", kernel.clone()),
        ("MinAPIVersion", MIN_API_VERSION.to_string()),
        ("Os", "linux".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let engine = Component { name: "Engine".into(), version: VERSION.into(), details: Some(details.into()) };
    let (containerd, revision) = ctx.containerd.version().await.unwrap_or_default();
    let containerd = Component {
        name: "containerd".into(),
        version: containerd,
        details: Some([("GitCommit".to_owned(), revision)].into()),
    };
    Ok(ok(&Version {
        components: vec![engine, containerd],
        version: VERSION.into(),
        api_version: MAX_API_VERSION.to_string(),
        min_api_version: MIN_API_VERSION.to_string(),
        os: "linux".into(),
        arch: architecture(),
        kernel_version: kernel,
        experimental: ctx.config.experimental,
        ..Version::default()
    }))
}

async fn info(State(ctx): State<Shared>) -> Result<Response, Error> {
    let mut counts = [0_u64; 3];
    let all = ctx.view.all();
    for container in &all {
        match container.status() {
            Status::Running | Status::Restarting => counts[0] += 1,
            Status::Paused => counts[1] += 1,
            _ => counts[2] += 1,
        }
    }
    let images = match tokio::time::timeout(Duration::from_secs(5), ctx.containerd.list_images()).await {
        Ok(Ok(images)) => {
            let mut digests: Vec<String> =
                images.into_iter().filter_map(|image| image.target.map(|target| target.digest)).collect();
            digests.sort();
            digests.dedup();
            digests.len() as u64
        }
        _ => 0,
    };
    let config = &ctx.config;
    let system = rustix::system::uname();
    let words = |list: &[&str]| Some(list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let has = |controller: &str| {
        if v2 {
            read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().any(|word| word == controller)
        } else {
            std::path::Path::new("/sys/fs/cgroup").join(controller).exists()
        }
    };
    let (memory, cpu, pids, cpuset) = (has("memory"), has("cpu"), has("pids"), has("cpuset"));
    let runtimes = config
        .runtimes
        .iter()
        .map(|(name, runtime)| {
            let path = if runtime.path.is_empty() { runtime.shim.clone() } else { runtime.path.clone() };
            (name.clone(), Runtime { path, ..Runtime::default() })
        })
        .collect();
    Ok(ok(&Info {
        id: ctx.store.engine_id().to_owned(),
        containers: all.len() as u64,
        containers_running: counts[0],
        containers_paused: counts[1],
        containers_stopped: counts[2],
        images,
        driver: crate::containerd::SNAPSHOTTER.to_owned(),
        driver_status: Some(vec![["driver-type".to_owned(), "io.containerd.snapshotter.v1".to_owned()]]),
        plugins: Plugins {
            volume: words(&["local"]),
            network: words(&["bridge", "host", "null"]),
            authorization: None,
            log: words(crate::logs::DRIVERS),
        },
        memory_limit: memory,
        swap_limit: memory,
        cpu_cfs_period: cpu,
        cpu_cfs_quota: cpu,
        cpu_shares: cpu,
        cpu_set: cpuset,
        pids_limit: pids,
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        debug: config.debug,
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        oom_kill_disable: memory && !v2,
        n_goroutines: std::fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count() as u64),
        system_time: crate::clock::Timestamp::now().to_string(),
        logging_driver: config.log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
        n_events_listener: ctx.events.listeners() as u64,
        kernel_version: system.release().to_string_lossy().into_owned(),
        operating_system: release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        os_version: release("VERSION_ID").unwrap_or_default(),
        os_type: "linux".to_owned(),
        architecture: system.machine().to_string_lossy().into_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: registry_config(config),
        n_cpu: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        mem_total: total_memory(&read("/proc/meminfo")),
        docker_root_dir: config.data_root.display().to_string(),
        name: server::host_name(),
        labels: Some(config.labels.clone()),
        experimental_build: config.experimental,
        server_version: VERSION.to_owned(),
        runtimes,
        default_runtime: config.default_runtime.clone(),
        swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
        live_restore_enabled: true,
        containerd_commit: Commit::default(),
        security_options: words(&["name=seccomp,profile=builtin"]),
        default_address_pools: Some(
            config.address_pools.iter().map(|p| AddressPool { base: p.base.clone(), size: p.size }).collect(),
        ),
        firewall_backend: config.firewall.then(|| FirewallInfo { driver: "nftables".to_owned() }),
        cdi_spec_dirs: Some(Vec::new()),
        containerd: Some(ContainerdInfo {
            address: ctx.containerd.address().display().to_string(),
            namespaces: ContainerdNamespaces {
                containers: crate::containerd::NAMESPACE.to_owned(),
                plugins: String::new(),
            },
        }),
        ..Info::default()
    }))
}

fn registry_config(config: &crate::config::Config) -> RegistryConfig {
    let official = IndexInfo {
        name: "docker.io".to_owned(),
        mirrors: Some(config.registry_mirrors.clone()),
        secure: true,
        official: true,
    };
    let mut indexes = std::collections::BTreeMap::from([("docker.io".to_owned(), official)]);
    let (cidrs, hosts): (Vec<String>, Vec<String>) =
        config.insecure_registries.iter().cloned().partition(|entry| entry.contains('/'));
    for name in hosts {
        let info =
            IndexInfo { name: name.clone(), mirrors: Some(Vec::new()), secure: false, official: false };
        indexes.insert(name, info);
    }
    let mut all = cidrs;
    all.extend(["::1/128".to_owned(), "127.0.0.0/8".to_owned()]);
    RegistryConfig {
        insecure_registry_cidrs: Some(all),
        index_configs: Some(indexes),
        mirrors: Some(config.registry_mirrors.clone()),
    }
}

fn release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn total_memory(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<i64>().ok()).unwrap_or(0)
        * 1024
}

async fn follow_events(State(ctx): State<Shared>, params: Params) -> Result<Response, Error> {
    // As docker: a key it does not know says nothing about any event.
    let filters = Filters::parse(params.text("filters")).map_err(Error::from)?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let text = |name| params.text(name);
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let (past, mut live) = ctx.events.subscribe(since);
    let (body, response) = stream::channel(StatusCode::OK, Some("application/json"));
    tokio::spawn(async move {
        let wanted = |message: &proto::docker::event::Message| {
            until.is_none_or(|until| message.time_nano <= until.nanos()) && events::matches(&filters, message)
        };
        for message in past.iter().filter(|message| wanted(message)) {
            if body.send(stream::json_line(&**message)).await.is_err() {
                return;
            }
        }
        let deadline = async {
            match until {
                Some(until) => tokio::time::sleep(until.since(crate::clock::Timestamp::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        loop {
            let message = tokio::select! {
                () = &mut deadline => return,
                () = body.closed() => return,
                message = live.recv() => message,
            };
            match message {
                Ok(message) if wanted(&message) => {
                    if body.send(stream::json_line(&*message)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    tracing::warn!(count, "a slow reader of events has lost some")
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(response)
}
