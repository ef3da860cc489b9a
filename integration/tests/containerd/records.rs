//! Namespaces, containers, images: the rules of records, and that they outlive the daemon.

use crate::{connect, refused};
use integration::containerd_lite::{Daemon, Headers};
use prost_types::FieldMask;
use proto::any::{SPEC, document};
use proto::containerd::containers::container::Runtime;
use proto::containerd::containers::containers_client::ContainersClient;
use proto::containerd::containers::*;
use proto::containerd::images::images_client::ImagesClient;
use proto::containerd::images::*;
use proto::containerd::namespaces::namespaces_client::NamespacesClient;
use proto::containerd::namespaces::*;
use proto::containerd::types::Descriptor;
use std::collections::HashMap;
use tonic::Code;

fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        image: "img".into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(document(SPEC, b"{}".to_vec())),
        ..Default::default()
    }
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn create(id: &str) -> CreateContainerRequest {
    CreateContainerRequest { container: Some(container(id)) }
}

#[tokio::test]
async fn a_namespace_is_required_and_must_be_a_name() {
    let daemon = Daemon::start();
    let mut bare = ContainersClient::new(daemon.channel().await);
    let all = ListContainersRequest::default();
    refused(
        bare.list(all.clone()).await,
        Code::FailedPrecondition,
        "namespace is required: failed precondition",
    );
    for namespace in ["../etc", "a/b", "-", "a..b"] {
        let mut client =
            ContainersClient::new(daemon.connect(Headers { namespace: namespace.into(), lease: None }).await);
        refused(client.list(all.clone()).await, Code::InvalidArgument, ": invalid argument");
    }
    assert!(!daemon.root().join("etc").exists());
}

#[tokio::test]
async fn a_service_that_is_not_built_says_its_name() {
    let daemon = Daemon::start();
    let mut client = tonic::client::Grpc::new(daemon.channel().await);
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(
        "/containerd.services.transfer.v1.Transfer/Transfer",
    );
    let codec = tonic_codec::<(), ()>();
    let result: Result<tonic::Response<()>, _> = client.unary(tonic::Request::new(()), path, codec).await;
    refused(
        result,
        Code::Unimplemented,
        "containerd.services.transfer.v1.Transfer/Transfer: not implemented",
    );
}

fn tonic_codec<A, B>() -> tonic_prost::ProstCodec<A, B>
where
    A: prost::Message + Send + 'static,
    B: prost::Message + Default + Send + 'static,
{
    tonic_prost::ProstCodec::default()
}

#[tokio::test]
async fn containers_obey_their_rules() {
    let mut daemon = Daemon::start();
    let mut client = ContainersClient::new(connect(&daemon).await);
    for (id, code) in
        [("", Code::InvalidArgument), ("a/b", Code::InvalidArgument), ("..", Code::InvalidArgument)]
    {
        refused(client.create(create(id)).await, code, ": invalid argument");
    }
    let long = labels(&[("k", &"v".repeat(5000))]);
    let request = CreateContainerRequest { container: Some(Container { labels: long, ..container("x") }) };
    refused(client.create(request).await, Code::InvalidArgument, "key: k: invalid argument");
    client.create(create("web1")).await.unwrap();
    refused(client.create(create("web1")).await, Code::AlreadyExists, "container \"web1\": already exists");
    let missing = GetContainerRequest { id: "web2".into() };
    let text = format!("container \"web2\" in namespace {:?}: not found", daemon.namespace());
    refused(client.get(missing).await, Code::NotFound, &text);
    // A mask changes what it names and nothing else.
    let wanted =
        Container { labels: labels(&[("a", "1"), ("b", "2")]), image: "other".into(), ..container("web1") };
    let request = UpdateContainerRequest {
        container: Some(wanted),
        update_mask: Some(FieldMask { paths: vec!["labels.a".into()] }),
    };
    client.update(request.clone()).await.unwrap();
    let bad = UpdateContainerRequest { update_mask: Some(FieldMask { paths: vec!["id".into()] }), ..request };
    refused(client.update(bad).await, Code::InvalidArgument, ": invalid argument");
    // Records are there after a SIGKILL.
    daemon.restart();
    let mut client = ContainersClient::new(connect(&daemon).await);
    let stored =
        client.get(GetContainerRequest { id: "web1".into() }).await.unwrap().into_inner().container.unwrap();
    assert_eq!((stored.image.as_str(), stored.labels), ("img", labels(&[("a", "1")])));
    client.delete(DeleteContainerRequest { id: "web1".into() }).await.unwrap();
    let again = client.delete(DeleteContainerRequest { id: "web1".into() }).await;
    refused(again, Code::NotFound, "container \"web1\": not found");
}

#[tokio::test]
async fn lists_are_filtered_and_streamed() {
    let daemon = Daemon::start();
    let mut client = ContainersClient::new(connect(&daemon).await);
    for n in 0..30 {
        let container = Container { labels: labels(&[("n", &n.to_string())]), ..container(&format!("c{n}")) };
        client.create(CreateContainerRequest { container: Some(container) }).await.unwrap();
    }
    for (filters, count) in [
        (vec![], 30),
        (vec!["id==c3"], 1),
        (vec!["id==c3", "labels.n==4"], 2),
        (vec!["labels.n~=^2.$, image==img"], 10),
        (vec!["runtime.name==other"], 0),
    ] {
        let filters: Vec<String> = filters.into_iter().map(str::to_owned).collect();
        let request = ListContainersRequest { filters };
        let list = client.list(request.clone()).await.unwrap().into_inner().containers;
        let mut stream = client.list_stream(request.clone()).await.unwrap().into_inner();
        let mut streamed = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            streamed.extend(message.container);
        }
        assert_eq!((list.len(), &streamed), (count, &list), "{request:?}");
    }
    let request = ListContainersRequest { filters: vec!["id=c3".into()] };
    refused(client.list(request).await, Code::InvalidArgument, ": invalid argument");
}

#[tokio::test]
async fn images_obey_their_rules() {
    let daemon = Daemon::start();
    let mut client = ImagesClient::new(connect(&daemon).await);
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: format!("sha256:{}", "1".repeat(64)),
        size: 2,
        ..Default::default()
    };
    let image = |name: &str, target: &Descriptor| Image {
        name: name.into(),
        target: Some(target.clone()),
        ..Default::default()
    };
    for bad in [
        image("", &target),
        image("a", &Descriptor { digest: "sha256:../../x".into(), ..target.clone() }),
        image("a", &Descriptor { size: 0, ..target.clone() }),
        Image { name: "a".into(), ..Default::default() },
    ] {
        let request = CreateImageRequest { image: Some(bad), ..Default::default() };
        refused(client.create(request).await, Code::InvalidArgument, ": invalid argument");
    }
    let request = CreateImageRequest { image: Some(image("a:1", &target)), ..Default::default() };
    client.create(request.clone()).await.unwrap();
    refused(client.create(request).await, Code::AlreadyExists, "image \"a:1\": already exists");
    refused(client.get(GetImageRequest { name: "b".into() }).await, Code::NotFound, "image \"b\": not found");
    // Removed only while it is what the client thinks it is.
    let other = Descriptor { digest: format!("sha256:{}", "2".repeat(64)), ..target.clone() };
    let delete = |target| DeleteImageRequest { name: "a:1".into(), sync: true, target };
    refused(client.delete(delete(Some(other))).await, Code::NotFound, ": not found");
    client.delete(delete(Some(target))).await.unwrap();
    assert!(client.list(ListImagesRequest::default()).await.unwrap().into_inner().images.is_empty());
}

#[tokio::test]
async fn a_namespace_goes_only_when_it_is_empty() {
    let daemon = Daemon::start();
    let mut namespaces = NamespacesClient::new(daemon.channel().await);
    let namespace = Namespace { name: "team".into(), labels: labels(&[("a", "1")]) };
    namespaces.create(CreateNamespaceRequest { namespace: Some(namespace.clone()) }).await.unwrap();
    let again = namespaces.create(CreateNamespaceRequest { namespace: Some(namespace) }).await;
    refused(again, Code::AlreadyExists, "namespace \"team\": already exists");
    let headers = Headers { namespace: "team".into(), lease: None };
    let mut containers = ContainersClient::new(daemon.connect(headers).await);
    containers.create(create("web1")).await.unwrap();
    let delete = DeleteNamespaceRequest { name: "team".into() };
    let text = "must be empty, but it still has containers: failed precondition";
    refused(namespaces.delete(delete.clone()).await, Code::FailedPrecondition, text);
    containers.delete(DeleteContainerRequest { id: "web1".into() }).await.unwrap();
    namespaces.delete(delete.clone()).await.unwrap();
    refused(namespaces.delete(delete).await, Code::NotFound, "namespace \"team\": not found");
}
