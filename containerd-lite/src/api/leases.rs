use super::{Api, done, namespace};
use crate::leases;
use proto::containerd::leases::{leases_server::Leases, *};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Leases for Api {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let lease = Lease { labels: request.labels, ..Default::default() };
        let lease = leases::create(&self.0.db, &namespace, request.id, lease).await?;
        done(CreateResponse { lease: Some(lease) })
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        leases::delete(&self.0.db, &namespace, &request.id).await?;
        if request.sync {
            self.0.collector.collect().await?;
        } else {
            self.0.collector.schedule();
        }
        done(())
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let namespace = namespace(&request)?;
        done(ListResponse { leases: leases::list(&self.0.db, &namespace, &request.into_inner().filters)? })
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        leases::add_resource(&self.0.db, &namespace, &request.id, request.resource).await?;
        done(())
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        leases::delete_resource(&self.0.db, &namespace, &request.id, request.resource).await?;
        self.0.collector.schedule();
        done(())
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().id;
        let mut resources = leases::resources(&self.0.db, &namespace, &id)?;
        // An ingest remembers its lease itself.
        let ingests = self.0.content.ingest_summaries().into_iter();
        let held =
            ingests.filter(|ingest| ingest.namespace == namespace && ingest.lease.as_ref() == Some(&id));
        resources.extend(held.map(|ingest| Resource { id: ingest.reference, r#type: "ingests".to_owned() }));
        done(ListResourcesResponse { resources })
    }
}
