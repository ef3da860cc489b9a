use super::{Api, done, namespace, to_the_end};
use crate::content::parse_digest;
use crate::error::Error;
use crate::layers;
use proto::containerd::diff::{diff_server::Diff, *};
use proto::containerd::types::Descriptor;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Diff for Api {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let layer = request.diff.ok_or_else(|| Error::invalid("diff is missing"))?;
        let digest = parse_digest(&layer.digest)?;
        let (blob, _) = self.0.content.read(&namespace, &digest)?;
        let daemon = self.0.clone();
        let applied = to_the_end(async move {
            let _turn = daemon.applies.acquire().await.map_err(|error| Error::step("apply", error))?;
            let scratch = daemon.scratch.clone();
            let work =
                move || layers::apply(blob, &layer.media_type, &request.mounts, &scratch, request.sync_fs);
            let applied =
                tokio::task::spawn_blocking(work).await.map_err(|error| Error::step("apply", error))?;
            crate::sys::trim_heap();
            applied.map_err(|error| error.context(format_args!("apply layer {digest}")))
        })
        .await?;
        done(ApplyResponse {
            applied: Some(Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                digest: applied.digest.to_string(),
                size: applied.size as i64,
                ..Default::default()
            }),
        })
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        namespace(&request)?;
        Err(Error::unimplemented("diff of two snapshots").into())
    }
}
