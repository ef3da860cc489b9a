use super::{Api, done, mask, namespace};
use crate::containers;
use crate::error::Error;
use proto::containerd::containers::{containers_server::Containers, *};
use proto::task::events as payload;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Containers for Api {
    type ListStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<ListContainerMessage, Status>>>;

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let namespace = namespace(&request)?;
        let container = containers::get(&self.0.db, &namespace, &request.into_inner().id)?;
        done(GetContainerResponse { container: Some(container) })
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let namespace = namespace(&request)?;
        let containers = containers::list(&self.0.db, &namespace, &request.into_inner().filters)?;
        done(ListContainersResponse { containers })
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let namespace = namespace(&request)?;
        let containers = containers::list(&self.0.db, &namespace, &request.into_inner().filters)?;
        let messages: Vec<_> = containers
            .into_iter()
            .map(|container| Ok(ListContainerMessage { container: Some(container) }))
            .collect();
        done(tokio_stream::iter(messages))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let namespace = namespace(&request)?;
        let container =
            request.into_inner().container.ok_or_else(|| Error::invalid("container is missing"))?;
        let container = containers::create(&self.0.db, &namespace, container).await?;
        let runtime = container.runtime.clone().map(|runtime| payload::container_create::Runtime {
            name: runtime.name,
            options: runtime.options,
        });
        let event =
            payload::ContainerCreate { id: container.id.clone(), image: container.image.clone(), runtime };
        self.0.events.publish(&namespace, "/containers/create", &event);
        done(CreateContainerResponse { container: Some(container) })
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let container = request.container.ok_or_else(|| Error::invalid("container is missing"))?;
        let container =
            containers::update(&self.0.db, &namespace, container, mask(request.update_mask)).await?;
        let event = payload::ContainerUpdate {
            id: container.id.clone(),
            image: container.image.clone(),
            labels: container.labels.clone(),
            snapshot_key: container.snapshot_key.clone(),
        };
        self.0.events.publish(&namespace, "/containers/update", &event);
        self.0.collector.schedule();
        done(UpdateContainerResponse { container: Some(container) })
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().id;
        containers::delete(&self.0.db, &namespace, &id).await?;
        self.0.events.publish(&namespace, "/containers/delete", &payload::ContainerDelete { id });
        self.0.collector.schedule();
        done(())
    }
}
