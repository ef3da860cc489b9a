use super::{Api, done, namespace};
use crate::events::now;
use futures::StreamExt;
use proto::containerd::events::{events_server::Events, *};
use proto::containerd::types::Envelope;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Events for Api {
    type SubscribeStream = futures::stream::BoxStream<'static, Result<Envelope, Status>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let envelope =
            Envelope { timestamp: Some(now()), namespace, topic: request.topic, event: request.event };
        self.0.events.forward(Some(envelope))?;
        done(())
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        self.0.events.forward(request.into_inner().envelope)?;
        done(())
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let events = self.0.events.subscribe(&request.into_inner().filters)?;
        let events = ReceiverStream::new(events).map(|envelope| Ok((*envelope).clone()));
        // The queue ends when the subscriber lagged too far, or the daemon stops.
        let end =
            futures::stream::once(async { Err(Status::unavailable("the event stream ended: unavailable")) });
        done(events.chain(end).boxed())
    }
}
