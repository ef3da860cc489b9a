//! Leases and garbage collection as clients see them.

use crate::{connect, refused};
use integration::containerd_lite::{Daemon, Headers, wait_for};
use integration::oci::digest;
use proto::containerd::content::content_client::ContentClient;
use proto::containerd::content::*;
use proto::containerd::leases::leases_client::LeasesClient;
use proto::containerd::leases::*;
use tonic::Code;

#[tokio::test]
async fn what_a_lease_holds_stays_until_it_is_deleted() {
    let mut daemon = Daemon::start();
    let mut leases = LeasesClient::new(connect(&daemon).await);
    let lease = leases.create(CreateRequest::default()).await.unwrap().into_inner().lease.unwrap();
    assert!(!lease.id.is_empty());
    let again = leases.create(CreateRequest { id: lease.id.clone(), ..Default::default() }).await;
    refused(again, Code::AlreadyExists, ": already exists");
    let headers = Headers { lease: Some(lease.id.clone()), ..daemon.headers() };
    let mut content = ContentClient::new(daemon.connect(headers).await);
    for data in ["held", "also held"] {
        let write = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: data.into(),
            data: data.into(),
            ..Default::default()
        };
        let mut stream = content.write(tokio_stream::iter([write])).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
    }
    // A collection, and a restart: both are still there.
    let other = leases.create(CreateRequest { id: "other".into(), ..Default::default() }).await.unwrap();
    let other = other.into_inner().lease.unwrap().id;
    leases.delete(DeleteRequest { id: other, sync: true }).await.unwrap();
    daemon.restart();
    let mut leases = LeasesClient::new(connect(&daemon).await);
    let mut content = ContentClient::new(connect(&daemon).await);
    let listed = leases.list_resources(ListResourcesRequest { id: lease.id.clone() }).await.unwrap();
    assert_eq!(listed.into_inner().resources.len(), 2);
    for data in ["held", "also held"] {
        assert!(content.info(InfoRequest { digest: digest(data.as_bytes()) }).await.is_ok());
    }
    // One taken out goes by itself, the other with the lease, before the answer.
    let resource = Resource { id: digest(b"held"), r#type: "content".into() };
    leases
        .delete_resource(DeleteResourceRequest { id: lease.id.clone(), resource: Some(resource) })
        .await
        .unwrap();
    let blob = |data: &[u8]| {
        daemon.root().join("io.containerd.content.v1.content/blobs/sha256").join(&digest(data)[7..])
    };
    wait_for(|| !blob(b"held").exists(), || "not collected".to_owned());
    assert!(blob(b"also held").exists());
    leases.delete(DeleteRequest { id: lease.id, sync: true }).await.unwrap();
    assert!(!blob(b"also held").exists());
}

#[tokio::test]
async fn an_unknown_lease_or_resource_is_refused() {
    let daemon = Daemon::start();
    let headers = Headers { lease: Some("none".into()), ..daemon.headers() };
    let mut content = ContentClient::new(daemon.connect(headers).await);
    let write = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "r".into(),
        data: b"x".to_vec(),
        ..Default::default()
    };
    let mut stream = content.write(tokio_stream::iter([write])).await.unwrap().into_inner();
    refused(stream.message().await, Code::NotFound, "lease \"none\": not found");
    refused(content.info(InfoRequest { digest: digest(b"x") }).await, Code::NotFound, ": not found");
    let mut leases = LeasesClient::new(connect(&daemon).await);
    leases.create(CreateRequest { id: "l".into(), ..Default::default() }).await.unwrap();
    let add = |kind: &str, id: &str| AddResourceRequest {
        id: "l".into(),
        resource: Some(Resource { id: id.into(), r#type: kind.into() }),
    };
    refused(
        leases.add_resource(add("task", "t")).await,
        Code::Unimplemented,
        "not supported yet: not implemented",
    );
    refused(leases.add_resource(add("content", "x")).await, Code::InvalidArgument, ": invalid argument");
}
