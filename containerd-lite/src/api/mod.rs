//! The gRPC services, one file each: decode, call, encode.

mod containers;
mod content;
mod diff;
mod events;
mod health;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod snapshots;
mod tasks;
mod version;

use crate::error::{Error, Result};
use crate::identifiers;
use crate::server::Daemon;
use proto::containerd::{LEASE_HEADER, MAX_MESSAGE_SIZE, NAMESPACE_HEADER};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// What every service holds.
#[derive(Clone)]
struct Api(Arc<Daemon>);

/// All services of the daemon.
pub(crate) fn routes(daemon: Arc<Daemon>) -> tonic::service::Routes {
    use proto::containerd as p;
    let api = Api(daemon);
    let mut routes = tonic::service::Routes::builder();
    macro_rules! add {
        ($($service:path),* $(,)?) => {$(
            routes.add_service(
                <$service>::new(api.clone())
                    .max_decoding_message_size(MAX_MESSAGE_SIZE)
                    .max_encoding_message_size(MAX_MESSAGE_SIZE),
            );
        )*};
    }
    add!(
        p::containers::containers_server::ContainersServer<Api>,
        p::content::content_server::ContentServer<Api>,
        p::diff::diff_server::DiffServer<Api>,
        p::events::events_server::EventsServer<Api>,
        p::health::health_server::HealthServer<Api>,
        p::images::images_server::ImagesServer<Api>,
        p::introspection::introspection_server::IntrospectionServer<Api>,
        p::leases::leases_server::LeasesServer<Api>,
        p::namespaces::namespaces_server::NamespacesServer<Api>,
        p::snapshots::snapshots_server::SnapshotsServer<Api>,
        p::tasks::tasks_server::TasksServer<Api>,
        p::version::version_server::VersionServer<Api>,
    );
    // Services that are not built yet are refused by name.
    let router = routes.routes().into_axum_router().fallback(|uri: tonic::codegen::http::Uri| async move {
        let text = format!("{}: not implemented", uri.path().trim_start_matches('/'));
        Status::unimplemented(text).into_http::<tonic::body::Body>()
    });
    router.into()
}

/// The namespace a call works in.
fn namespace<T>(request: &Request<T>) -> Result<String> {
    let required = || Error::precondition("namespace is required");
    let value = request.metadata().get(NAMESPACE_HEADER).ok_or_else(required)?;
    let namespace = value.to_str().map_err(|_| Error::invalid("namespace validation: not a text"))?;
    if namespace.is_empty() {
        return Err(required());
    }
    identifiers::validate(namespace).map_err(|error| error.context("namespace validation"))?;
    Ok(namespace.to_owned())
}

/// The lease that the call's new resources join.
fn lease<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get(LEASE_HEADER)?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn mask(mask: Option<prost_types::FieldMask>) -> Option<Vec<String>> {
    mask.map(|mask| mask.paths)
}

fn done<T>(value: T) -> Result<Response<T>, Status> {
    Ok(Response::new(value))
}

/// Runs `work` to its end, also when the client stops waiting: half of it would leave something behind.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|error| Error::step("request", error))?
}
