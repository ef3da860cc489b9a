//! The exchange of events: published by clients, by shims and by this daemon, handed to every subscriber in the
//! order of publication, from the moment of subscription on.

use crate::error::{Error, Result};
use crate::filters::{Fields, Filters, entry, text};
use crate::identifiers;
use prost::{Message, Name};
use proto::any::{self, Any};
use proto::containerd::types::Envelope;
use proto::task::events as payload;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Events a subscriber may lag behind. One that lags further is disconnected rather than served with a gap.
const MAX_BACKLOG: usize = 16 << 10;
/// Largest event, in bytes: a ttrpc frame.
const MAX_EVENT_SIZE: usize = 4 << 20;

#[derive(Default)]
pub(crate) struct Exchange {
    subscribers: Mutex<Subscribers>,
}

#[derive(Default)]
struct Subscribers {
    closed: bool,
    list: Vec<Subscriber>,
}

struct Subscriber {
    filters: Filters,
    queue: mpsc::Sender<Arc<Envelope>>,
}

impl Exchange {
    /// Publishes an event of this daemon.
    pub(crate) fn publish<M: Message + Name>(&self, namespace: &str, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(now()),
            namespace: namespace.to_owned(),
            topic: topic.to_owned(),
            event: Some(any::pack(event)),
        };
        self.send(envelope);
    }

    /// Takes an envelope that somebody else filled in.
    pub(crate) fn forward(&self, envelope: Option<Envelope>) -> Result<()> {
        let mut envelope = envelope.ok_or_else(|| Error::invalid("envelope is missing"))?;
        identifiers::validate(&envelope.namespace)
            .map_err(|error| error.context("event envelope has invalid namespace"))?;
        identifiers::validate_topic(&envelope.topic)
            .map_err(|error| error.context(format_args!("envelope topic {:?}", envelope.topic)))?;
        if envelope.encoded_len() > MAX_EVENT_SIZE {
            return Err(Error::invalid("the event is too large"));
        }
        envelope.timestamp.get_or_insert_with(now);
        let name = |path: &[&str]| field(&envelope, path).unwrap_or_default();
        tracing::debug!(
            namespace = envelope.namespace,
            topic = envelope.topic,
            container = name(&["event", "container_id"]),
            exec = name(&["event", "exec_id"]),
            id = name(&["event", "id"]),
            "event forwarded"
        );
        self.send(envelope);
        Ok(())
    }

    pub(crate) fn subscribe(&self, filters: &[String]) -> Result<mpsc::Receiver<Arc<Envelope>>> {
        let filters = Filters::parse(filters)?;
        let (queue, events) = mpsc::channel(MAX_BACKLOG);
        let mut subscribers = self.lock();
        if !subscribers.closed {
            subscribers.list.push(Subscriber { filters, queue });
        }
        Ok(events)
    }

    /// Ends every subscription; the daemon is stopping.
    pub(crate) fn close(&self) {
        let mut subscribers = self.lock();
        subscribers.closed = true;
        subscribers.list.clear();
    }

    fn send(&self, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        // The lock keeps the order the same for all; sending does not block.
        self.lock().list.retain(|subscriber| {
            if subscriber.queue.is_closed() {
                return false;
            }
            let fields = |path: &[&str]| field(&envelope, path);
            !subscriber.filters.matches(&fields as &dyn Fields)
                || subscriber.queue.try_send(envelope.clone()).is_ok()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}

fn field(envelope: &Envelope, path: &[&str]) -> Option<String> {
    match path {
        ["namespace"] => text(&envelope.namespace),
        ["topic"] => text(&envelope.topic),
        ["event", rest @ ..] => event_field(envelope.event.as_ref()?, rest),
        _ => None,
    }
}

/// Text fields of the known payloads, as containerd's generated accessors give them.
fn event_field(event: &Any, path: &[&str]) -> Option<String> {
    use payload::*;
    use proto::containerd::images::{ImageCreate, ImageDelete, ImageUpdate};
    macro_rules! fields {
        ($($message:ident { $($field:ident),* $(; $map:ident)? })*) => {$(
            if any::is::<$message>(event) {
                let message = any::unpack::<$message>(event).ok()??;
                return match path {
                    $([name] if *name == stringify!($field) => text(&message.$field),)*
                    $([name, rest @ ..] if *name == stringify!($map) => entry(&message.$map, rest),)?
                    _ => None,
                };
            }
        )*};
    }
    fields! {
        TaskCreate { container_id, bundle, checkpoint }
        TaskStart { container_id }
        TaskDelete { container_id, id }
        TaskExit { container_id, id }
        TaskOom { container_id }
        TaskExecAdded { container_id, exec_id }
        TaskExecStarted { container_id, exec_id }
        TaskPaused { container_id }
        TaskResumed { container_id }
        TaskCheckpointed { container_id, checkpoint }
        ContainerCreate { id, image }
        ContainerUpdate { id, image, snapshot_key; labels }
        ContainerDelete { id }
        ImageCreate { name; labels }
        ImageUpdate { name; labels }
        ImageDelete { name }
        NamespaceCreate { name; labels }
        NamespaceUpdate { name; labels }
        NamespaceDelete { name }
        SnapshotPrepare { key, parent, snapshotter }
        SnapshotCommit { key, name, snapshotter }
        SnapshotRemove { key, snapshotter }
        ContentDelete { digest }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(id: &str) -> payload::TaskExit {
        payload::TaskExit { container_id: id.to_owned(), id: id.to_owned(), ..Default::default() }
    }

    #[test]
    fn subscribers_get_what_their_filters_match_in_order() {
        let exchange = Exchange::default();
        let mut all = exchange.subscribe(&[]).unwrap();
        let mut some = exchange
            .subscribe(&[
                "topic==/tasks/exit,event.container_id==b".to_owned(),
                "namespace==other".to_owned(),
            ])
            .unwrap();
        for (namespace, id) in [("ns", "a"), ("ns", "b"), ("other", "c")] {
            exchange.publish(namespace, "/tasks/exit", &exit(id));
        }
        let names = |events: &mut mpsc::Receiver<Arc<Envelope>>| {
            let mut names = Vec::new();
            while let Ok(envelope) = events.try_recv() {
                let event: payload::TaskExit =
                    any::unpack(envelope.event.as_ref().unwrap()).unwrap().unwrap();
                names.push(event.id);
            }
            names
        };
        assert_eq!(names(&mut all), ["a", "b", "c"]);
        assert_eq!(names(&mut some), ["b", "c"]);
    }

    #[test]
    fn who_lags_too_far_is_cut_off_and_the_others_are_not() {
        let exchange = Exchange::default();
        let mut lazy = exchange.subscribe(&[]).unwrap();
        for _ in 0..MAX_BACKLOG + 1 {
            exchange.publish("ns", "/tasks/exit", &exit("a"));
        }
        assert_eq!(exchange.lock().list.len(), 0);
        let mut count = 0;
        while lazy.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, MAX_BACKLOG);
    }

    #[test]
    fn a_bad_envelope_is_refused() {
        let exchange = Exchange::default();
        let good = Envelope { namespace: "ns".into(), topic: "/tasks/exit".into(), ..Default::default() };
        assert!(exchange.forward(Some(good.clone())).is_ok());
        assert!(exchange.forward(None).is_err());
        assert!(exchange.forward(Some(Envelope { namespace: String::new(), ..good.clone() })).is_err());
        assert!(exchange.forward(Some(Envelope { topic: "exit".into(), ..good })).is_err());
    }
}
