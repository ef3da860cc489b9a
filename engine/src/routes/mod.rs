//! Requests to operations: extract, call, respond; one file per group of endpoints.

mod containers;
mod exec;
mod images;
mod networks;
mod system;
mod volumes;

use crate::{Shared, http};
use axum::Router;
use axum::extract::DefaultBodyLimit;

pub(crate) fn router(ctx: Shared) -> Router {
    Router::new()
        .merge(containers::router())
        .merge(exec::router())
        .merge(images::router())
        .merge(networks::router())
        .merge(system::router())
        .merge(volumes::router())
        .fallback(http::no_route)
        .method_not_allowed_fallback(http::no_route)
        // Limits are the extractors'; layers and archives have none.
        .layer(DefaultBodyLimit::disable())
        .with_state(ctx)
}
