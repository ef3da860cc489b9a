use super::{Api, done, mask};
use crate::error::Error;
use crate::namespaces;
use proto::containerd::namespaces::{namespaces_server::Namespaces, *};
use proto::task::events as payload;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Namespaces for Api {
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let namespace = namespaces::get(&self.0.db, &request.into_inner().name)?;
        done(GetNamespaceResponse { namespace: Some(namespace) })
    }

    async fn list(
        &self,
        _: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        done(ListNamespacesResponse { namespaces: namespaces::list(&self.0.db)? })
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let namespace =
            request.into_inner().namespace.ok_or_else(|| Error::invalid("namespace is missing"))?;
        let namespace = namespaces::create(&self.0.db, namespace).await?;
        let event =
            payload::NamespaceCreate { name: namespace.name.clone(), labels: namespace.labels.clone() };
        self.0.events.publish(&namespace.name, "/namespaces/create", &event);
        done(CreateNamespaceResponse { namespace: Some(namespace) })
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let request = request.into_inner();
        let namespace = request.namespace.ok_or_else(|| Error::invalid("namespace is missing"))?;
        let mask = mask(request.update_mask).unwrap_or_default();
        let namespace = namespaces::update(&self.0.db, namespace, mask).await?;
        let event =
            payload::NamespaceUpdate { name: namespace.name.clone(), labels: namespace.labels.clone() };
        self.0.events.publish(&namespace.name, "/namespaces/update", &event);
        done(UpdateNamespaceResponse { namespace: Some(namespace) })
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        namespaces::delete(&self.0.db, name.clone()).await?;
        self.0.events.publish(&name, "/namespaces/delete", &payload::NamespaceDelete { name: name.clone() });
        done(())
    }
}
