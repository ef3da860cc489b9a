use super::{Api, done, lease, mask, namespace};
use crate::error::{Error, Result as Answer};
use crate::snapshots::{self, NAME};
use futures::StreamExt;
use proto::containerd::snapshots::{snapshots_server::Snapshots, *};
use proto::task::events as payload;
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// Records per message of a list.
const LIST_SIZE: usize = 100;

fn check_name(snapshotter: &str) -> Answer<()> {
    match snapshotter {
        NAME => Ok(()),
        "" => Err(Error::invalid("snapshotter argument missing")),
        other => Err(Error::invalid(format_args!("snapshotter not loaded: {other}"))),
    }
}

impl Api {
    async fn prepare_kind(
        &self,
        scope: (String, Option<String>),
        kind: Kind,
        (snapshotter, key, parent, labels): (String, String, String, HashMap<String, String>),
    ) -> Answer<Vec<proto::containerd::types::Mount>> {
        check_name(&snapshotter)?;
        let (namespace, lease) = scope;
        let event = payload::SnapshotPrepare { key: key.clone(), parent: parent.clone(), snapshotter };
        let request = snapshots::Request { namespace: namespace.clone(), lease, kind, key, parent, labels };
        let daemon = self.0.clone();
        let mounts = super::to_the_end(async move { daemon.snapshots.prepare(request).await }).await?;
        self.0.events.publish(&namespace, "/snapshot/prepare", &event);
        Ok(mounts)
    }
}

#[tonic::async_trait]
impl Snapshots for Api {
    type ListStream = futures::stream::BoxStream<'static, Result<ListSnapshotsResponse, Status>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let scope = (namespace(&request)?, lease(&request));
        let r = request.into_inner();
        let mounts =
            self.prepare_kind(scope, Kind::Active, (r.snapshotter, r.key, r.parent, r.labels)).await?;
        done(PrepareSnapshotResponse { mounts })
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let scope = (namespace(&request)?, lease(&request));
        let r = request.into_inner();
        let mounts = self.prepare_kind(scope, Kind::View, (r.snapshotter, r.key, r.parent, r.labels)).await?;
        done(ViewSnapshotResponse { mounts })
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Result<Response<MountsResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_name(&request.snapshotter)?;
        done(MountsResponse { mounts: self.0.snapshots.mounts(&namespace, &request.key)? })
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let r = request.into_inner();
        check_name(&r.snapshotter)?;
        self.0.snapshots.commit(&namespace, lease, &r.name, &r.key, r.labels).await?;
        let event = payload::SnapshotCommit { key: r.key, name: r.name, snapshotter: r.snapshotter };
        self.0.events.publish(&namespace, "/snapshot/commit", &event);
        done(())
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let r = request.into_inner();
        check_name(&r.snapshotter)?;
        let folder = self.0.snapshots.remove(&namespace, &r.key).await?;
        let overlay = self.0.snapshots.overlay().clone();
        // The key is free now; the files need not be waited for, and are found again at start if we die.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = overlay.remove(folder) {
                tracing::warn!(%error, "remove a snapshot's files");
            }
        });
        let event = payload::SnapshotRemove { key: r.key, snapshotter: r.snapshotter };
        self.0.events.publish(&namespace, "/snapshot/remove", &event);
        self.0.collector.schedule();
        done(())
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_name(&request.snapshotter)?;
        done(StatSnapshotResponse { info: Some(self.0.snapshots.stat(&namespace, &request.key)?) })
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_name(&request.snapshotter)?;
        let info = request.info.ok_or_else(|| Error::invalid("info is missing"))?;
        let info = self.0.snapshots.update(&namespace, info, mask(request.update_mask)).await?;
        self.0.collector.schedule();
        done(UpdateSnapshotResponse { info: Some(info) })
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_name(&request.snapshotter)?;
        let all = self.0.snapshots.list(&namespace, &request.filters)?;
        let parts: Vec<_> = all.chunks(LIST_SIZE).map(<[Info]>::to_vec).collect();
        done(futures::stream::iter(parts).map(|info| Ok(ListSnapshotsResponse { info })).boxed())
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_name(&request.snapshotter)?;
        let (size, inodes) = self.0.snapshots.usage(&namespace, &request.key).await?;
        done(UsageResponse { size, inodes })
    }

    /// Files of removed snapshots go by themselves; there is nothing left to clean up.
    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        namespace(&request)?;
        check_name(&request.into_inner().snapshotter)?;
        done(())
    }
}
