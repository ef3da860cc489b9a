use super::{Api, done};
use crate::error::Error;
use crate::filters::{Filters, entry, text};
use crate::snapshots;
use proto::any;
use proto::containerd::introspection::{introspection_server::Introspection, *};
use proto::containerd::types::{Platform, RuntimeRequest};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use tonic::{Request, Response, Status};

const RUNTIME: &str = "io.containerd.runtime.v2";

/// What this daemon is made of, in the names clients look for.
fn plugins(snapshotter_root: &str) -> Vec<Plugin> {
    let linux = Platform {
        os: "linux".to_owned(),
        architecture: proto::platform::Platform::host().architecture,
        ..Default::default()
    };
    let plugin = |kind: &str, id: &str| Plugin {
        r#type: kind.to_owned(),
        id: id.to_owned(),
        platforms: vec![],
        ..Default::default()
    };
    let mut plugins = vec![
        plugin("io.containerd.content.v1", "content"),
        plugin("io.containerd.metadata.v1", "bolt"),
        plugin("io.containerd.event.v1", "exchange"),
        plugin("io.containerd.gc.v1", "scheduler"),
        plugin("io.containerd.lease.v1", "manager"),
        Plugin {
            exports: HashMap::from([("root".to_owned(), snapshotter_root.to_owned())]),
            platforms: vec![linux.clone()],
            ..plugin("io.containerd.snapshotter.v1", snapshots::NAME)
        },
        Plugin { platforms: vec![linux.clone()], ..plugin("io.containerd.differ.v1", "walking") },
        Plugin { platforms: vec![linux], ..plugin(RUNTIME, "task") },
    ];
    const SERVICES: [&str; 12] = [
        "containers",
        "content",
        "diff",
        "events",
        "healthcheck",
        "images",
        "introspection",
        "leases",
        "namespaces",
        "snapshots",
        "tasks",
        "version",
    ];
    plugins.extend(SERVICES.iter().map(|id| plugin("io.containerd.grpc.v1", id)));
    plugins
}

#[tonic::async_trait]
impl Introspection for Api {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters)?;
        let root = self.0.snapshots.overlay().root().display().to_string();
        let matching = |plugin: &Plugin| {
            filters.matches(&|path: &[&str]| match path {
                ["type"] => text(&plugin.r#type),
                ["id"] => text(&plugin.id),
                ["platforms"] => {
                    let names = plugin.platforms.iter().map(|p| format!("{}/{}", p.os, p.architecture));
                    text(&names.collect::<Vec<_>>().join(","))
                }
                ["capabilities"] => text(&plugin.capabilities.join(",")),
                ["exports", rest @ ..] => entry(&plugin.exports, rest),
                _ => None,
            })
        };
        done(PluginsResponse { plugins: plugins(&root).into_iter().filter(matching).collect() })
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        done(ServerResponse {
            uuid: self.0.uuid.clone(),
            pid: std::process::id().into(),
            pidns: std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino()),
            deprecations: vec![],
        })
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let root = self.0.snapshots.overlay().root().display().to_string();
        let plugin = plugins(&root)
            .into_iter()
            .find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id)
            .ok_or_else(|| Error::not_found(format_args!("plugin {}.{}", request.r#type, request.id)))?;
        let mut extra = None;
        if plugin.r#type == RUNTIME
            && let Some(options) = &request.options
        {
            let asked = any::unpack::<RuntimeRequest>(options)
                .map_err(|error| Error::invalid(format_args!("runtime request: {error}")))?
                .ok_or_else(|| Error::invalid(format_args!("options of type {}", options.type_url)))?;
            let info = self.0.tasks.launcher.info(&asked.runtime_path, asked.options.as_ref()).await?;
            extra = Some(any::pack(&info));
        }
        done(PluginInfoResponse { plugin: Some(plugin), extra })
    }
}
