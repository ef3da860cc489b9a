use super::{Api, done};
use proto::containerd::version::{VersionResponse, version_server::Version};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Version for Api {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        done(VersionResponse { version: crate::VERSION.to_owned(), revision: String::new() })
    }
}
