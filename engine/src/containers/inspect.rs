//! `GET /containers/{id}/json`.

use super::record::{MountPoint, NetworkMode, Record};
use super::state::{self, Live};
use crate::Ctx;
use crate::containerd::SNAPSHOTTER;
use crate::error::Error;
use crate::logs::Log;
use crate::networks::port_map;
use crate::view::Container;
use proto::docker::container::{Inspect, MountPoint as MountDocument, NetworkSettings};
use proto::docker::image::DriverData;
use proto::docker::network::EndpointSettings;
use std::collections::BTreeMap;

pub(crate) async fn inspect(ctx: &Ctx, container: &Container, size: bool) -> Result<Inspect, Error> {
    let (record, live) = container.look();
    let size_rw =
        if size { Some(ctx.containerd.snapshot_usage(&container.id).await.unwrap_or(0)) } else { None };
    let execs: Vec<String> =
        container.execs().iter().filter(|exec| exec.is_running()).map(|exec| exec.id.clone()).collect();
    let dir = ctx.config.container_dir(&container.id);
    let file = |name: &str| dir.join(name).display().to_string();
    Ok(Inspect {
        id: container.id.clone(),
        created: record.created.to_string(),
        path: record.arguments.first().cloned().unwrap_or_default(),
        args: record.arguments.iter().skip(1).cloned().collect(),
        state: state::document(&record, live),
        image: record.image_id.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: Log::of(ctx, &container.id, &record).map(|log| log.shown_path()).unwrap_or_default(),
        name: format!("/{}", record.name),
        restart_count: record.restart_count,
        driver: SNAPSHOTTER.to_owned(),
        platform: "linux".to_owned(),
        exec_ids: (!execs.is_empty()).then_some(execs),
        host_config: host_config(ctx, &record),
        graph_driver: DriverData { data: None, name: SNAPSHOTTER.to_owned() },
        size_rw,
        size_root_fs: size_rw,
        mounts: record.mounts.iter().filter_map(mount_document).collect(),
        config: record.config.clone(),
        network_settings: network_settings(ctx, &container.id, &record, live),
        ..Inspect::default()
    })
}

/// With the defaults that docker shows filled in.
fn host_config(ctx: &Ctx, record: &Record) -> proto::docker::container::HostConfig {
    let mut host = record.host_config.clone();
    if host.shm_size == 0 {
        host.shm_size = ctx.config.default_shm_size;
    }
    if host.runtime.is_empty() {
        host.runtime = ctx.config.default_runtime.clone();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = ctx.config.default_ipc_mode.clone();
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".to_owned();
    }
    let paths = |list: &[&str]| {
        let list = if host.privileged { &[] } else { list };
        Some(list.iter().map(|path| (*path).to_owned()).collect())
    };
    let (masked, readonly) = (paths(super::spec::security::MASKED), paths(super::spec::security::READONLY));
    host.masked_paths = host.masked_paths.or(masked);
    host.readonly_paths = host.readonly_paths.or(readonly);
    host
}

/// A mount as `inspect` and `ps` show it; tmpfs mounts of `--tmpfs` are not among them in docker either.
pub(crate) fn mount_document(point: &MountPoint) -> Option<MountDocument> {
    use super::record::MountKind;
    Some(MountDocument {
        kind: point.kind.as_str().to_owned(),
        name: point.volume.clone(),
        source: point.source.clone(),
        destination: point.destination.clone(),
        driver: if point.kind == MountKind::Volume { "local".to_owned() } else { String::new() },
        mode: point.mode.clone(),
        rw: point.writable,
        propagation: match point.kind {
            MountKind::Bind if point.propagation.is_empty() => "rprivate".to_owned(),
            MountKind::Bind => point.propagation.clone(),
            _ => String::new(),
        },
    })
}

/// The container's networks by name.
pub(crate) fn networks(ctx: &Ctx, record: &Record, live: Live) -> BTreeMap<String, EndpointSettings> {
    let name = match record.network_mode() {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
        NetworkMode::Container(_) => return BTreeMap::new(),
        NetworkMode::Named(name) => name,
    };
    let up = live.is_up();
    let endpoint = record.run.as_ref().filter(|_| up).and_then(|run| run.endpoint.as_ref());
    let settings = if matches!(record.network_mode(), NetworkMode::Named(_)) {
        EndpointSettings::default()
    } else {
        ctx.networks.settings(name, endpoint, up)
    };
    [(name.to_owned(), settings)].into()
}

fn network_settings(ctx: &Ctx, id: &str, record: &Record, live: Live) -> NetworkSettings {
    let networks = networks(ctx, record, live);
    let up = live.is_up();
    let endpoint = record.run.as_ref().filter(|_| up).and_then(|run| run.endpoint.as_ref());
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| port.clone());
    let published = endpoint.map_or(&[][..], |endpoint| &endpoint.ports);
    let key = match record.network_mode() {
        NetworkMode::Bridge if up => ctx.config.netns_path(id).display().to_string(),
        _ => String::new(),
    };
    NetworkSettings {
        sandbox_id: if up { id.to_owned() } else { String::new() },
        sandbox_key: key,
        ports: if up { port_map(exposed, published) } else { Default::default() },
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        mac_address: bridge.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}
