use super::{Api, done};
use proto::containerd::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Health for Api {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    /// The socket is bound when all is ready, so whoever can ask is served.
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        done(HealthCheckResponse { status: ServingStatus::Serving.into() })
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("health watch: not implemented, use Check"))
    }
}
