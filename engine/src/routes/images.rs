//! `/images/...`: to come; until then these endpoints answer 501.

use crate::Shared;
use axum::Router;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
}
