//! Events: filters, order, and the forwarding of shims.

use crate::{connect, refused, runtimes};
use integration::containerd_lite::{Daemon, IMAGE};
use proto::any;
use proto::containerd::events::events_client::EventsClient;
use proto::containerd::events::*;
use proto::task::events::{ContainerDelete, TaskExit};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn published_events_reach_whom_they_concern() {
    let daemon = Daemon::start();
    let mut client = EventsClient::new(connect(&daemon).await);
    let filters = vec!["topic~=|^/containers/.*|,event.id==b".to_owned()];
    let mut some = client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner();
    let mut all = client.subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
    for id in ["a", "b"] {
        let event = any::pack(&ContainerDelete { id: id.into() });
        let request = PublishRequest { topic: "/containers/delete".into(), event: Some(event) };
        client.publish(request).await.unwrap();
    }
    let id = |envelope: proto::containerd::types::Envelope| {
        assert_eq!(
            (envelope.namespace.as_str(), envelope.topic.as_str()),
            (daemon.namespace(), "/containers/delete")
        );
        any::unpack::<ContainerDelete>(&envelope.event.unwrap()).unwrap().unwrap().id
    };
    assert_eq!(id(some.message().await.unwrap().unwrap()), "b");
    for want in ["a", "b"] {
        assert_eq!(id(all.message().await.unwrap().unwrap()), want);
    }
    let bad = PublishRequest { topic: "no-slash".into(), ..Default::default() };
    refused(client.publish(bad).await, Code::InvalidArgument, ": invalid argument");
    let bad = SubscribeRequest { filters: vec!["topic=".into()] };
    refused(client.subscribe(bad).await, Code::InvalidArgument, ": invalid argument");
}

#[tokio::test]
async fn the_events_of_a_task_come_in_order() {
    let daemon = Daemon::with_image();
    let mut client = EventsClient::new(connect(&daemon).await);
    let filters = vec!["topic~=^/tasks/".to_owned()];
    let mut events = client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner();
    // Ours where it is built: that of containerd 2 loses its last event when it is shut down too soon after it.
    let runtime = runtimes().last().copied().unwrap();
    let output = daemon.ctr(&["run", "--rm", "--runtime", runtime, IMAGE, "ev1", "/bin/sh", "-c", "exit 5"]);
    assert_eq!(output.status.code(), Some(5));
    let mut topics = Vec::new();
    while topics.last().is_none_or(|topic| topic != "/tasks/delete") {
        let next = tokio::time::timeout(Duration::from_secs(20), events.message()).await;
        let envelope = next.expect("an event in time").unwrap().unwrap();
        if envelope.topic == "/tasks/exit" {
            let exit = any::unpack::<TaskExit>(envelope.event.as_ref().unwrap()).unwrap().unwrap();
            assert_eq!((exit.container_id.as_str(), exit.id.as_str(), exit.exit_status), ("ev1", "ev1", 5));
        }
        topics.push(envelope.topic);
    }
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}
