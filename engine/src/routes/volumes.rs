//! `/volumes`

use crate::error::Error;
use crate::http::{JsonBody, Params, json, ok};
use crate::{Shared, volumes};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use proto::docker::ApiVersion;
use proto::docker::volume::{CreateRequest, ListResponse, PruneReport};

const FILTER_KEYS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_KEYS: &[&str] = &["all", "label", "label!"];

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(State(ctx): State<Shared>, params: Params) -> Result<Response, Error> {
    let filters = params.filters(FILTER_KEYS)?;
    let dangling = filters.boolean("dangling")?;
    let mut found = volumes::list(&ctx)?;
    found.retain(|volume| {
        filters.any("driver", |driver| volume.driver == driver)
            && filters.any("name", |name| volume.name.contains(name))
            && filters.labels("label", volume.labels.as_ref())
            && dangling.is_none_or(|wanted| volumes::users(&ctx, &volume.name).is_empty() == wanted)
    });
    Ok(ok(&ListResponse { volumes: Some(found), warnings: None }))
}

async fn create(State(ctx): State<Shared>, body: JsonBody<CreateRequest>) -> Result<Response, Error> {
    let request = body.0.unwrap_or_default();
    Ok(json(StatusCode::CREATED, &volumes::create(&ctx, request)?))
}

async fn inspect(State(ctx): State<Shared>, Path(name): Path<String>) -> Result<Response, Error> {
    Ok(ok(&volumes::inspect(&ctx, &name)?))
}

async fn remove(
    State(ctx): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Error> {
    match volumes::remove(&ctx, &name, None) {
        Err(error) if error.kind() == crate::error::ErrorKind::NotFound && params.boolean("force") => {}
        other => other?,
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn prune(
    State(ctx): State<Shared>,
    axum::Extension(version): axum::Extension<ApiVersion>,
    params: Params,
) -> Result<Response, Error> {
    let filters = params.filters(PRUNE_KEYS)?;
    let all = version < ApiVersion::new(1, 42) || filters.boolean("all")? == Some(true);
    let mut report = PruneReport::default();
    for volume in volumes::list(&ctx)? {
        let labels = volume.labels.as_ref();
        let excluded = filters.contains("label!") && filters.labels("label!", labels);
        if (all || volumes::is_anonymous(&volume))
            && filters.labels("label", labels)
            && !excluded
            && volumes::users(&ctx, &volume.name).is_empty()
            && volumes::remove(&ctx, &volume.name, None).is_ok()
        {
            report.volumes_deleted.get_or_insert_default().push(volume.name);
        }
    }
    Ok(ok(&report))
}
