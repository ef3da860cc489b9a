//! `/networks`: the three that are always there.

use crate::Shared;
use crate::containers::record::NetworkMode;
use crate::error::Error;
use crate::http::{Params, ok};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use proto::docker::network::Network;

const FILTER_KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/{id}", get(inspect))
}

async fn list(State(ctx): State<Shared>, params: Params) -> Result<Response, Error> {
    let filters = params.filters(FILTER_KEYS)?;
    if let Some(kind) = filters.get("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let dangling = filters.boolean("dangling")?;
    let mut networks = ctx.networks.documents();
    networks.retain(|network| {
        filters.any("driver", |driver| network.driver == driver)
            && filters.any("id", |id| network.id.starts_with(id))
            && filters.any("name", |name| network.name.contains(name))
            && filters.exact("scope", &network.scope)
            && filters.exact("type", "builtin")
            && filters.labels("label", network.labels.as_ref())
            // The three are never dangling.
            && dangling != Some(true)
    });
    Ok(ok(&networks))
}

async fn inspect(State(ctx): State<Shared>, Path(reference): Path<String>) -> Result<Response, Error> {
    let networks = ctx.networks.documents();
    let by_prefix = |network: &&Network| network.id.starts_with(&reference);
    let found =
        networks.iter().find(|network| network.name == reference).or_else(|| networks.iter().find(by_prefix));
    let mut network =
        found.cloned().ok_or_else(|| Error::not_found(format!("network {reference} not found")))?;
    for container in ctx.view.all() {
        let (record, live) = container.look();
        let member = match record.network_mode() {
            NetworkMode::Bridge => network.name == "bridge",
            NetworkMode::Host => network.name == "host",
            NetworkMode::None => network.name == "none",
            _ => false,
        };
        if member && live.is_up() {
            let endpoint = record.run.as_ref().and_then(|run| run.endpoint.as_ref());
            let resource = ctx.networks.resource(&record.name, endpoint);
            network.containers.get_or_insert_default().insert(container.id.clone(), resource);
        }
    }
    Ok(ok(&network))
}
