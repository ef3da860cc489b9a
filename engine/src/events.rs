//! The engine's own events: live to every subscriber, and a bounded memory of the recent ones for `since`.

use crate::clock::Timestamp;
use proto::docker::Strings;
use proto::docker::event::{Actor, Message};
use proto::docker::filter::Filters;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;

/// Events kept for `since`, as many as docker keeps.
const MEMORY: usize = 256;
/// Events a slow subscriber may be behind before it loses some.
const BACKLOG: usize = 1024;

pub(crate) struct Events {
    recent: Mutex<VecDeque<Arc<Message>>>,
    live: broadcast::Sender<Arc<Message>>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { recent: Mutex::new(VecDeque::with_capacity(MEMORY)), live: broadcast::channel(BACKLOG).0 }
    }

    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: Strings) {
        let now = Timestamp::now();
        let legacy = kind == "container" || kind == "image";
        let from = if kind == "container" {
            attributes.get("image").cloned().unwrap_or_default()
        } else {
            String::new()
        };
        let message = Arc::new(Message {
            status: if legacy { action.to_owned() } else { String::new() },
            id: if legacy { id.to_owned() } else { String::new() },
            from,
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.seconds(),
            time_nano: now.nanos(),
        });
        let mut recent = self.recent.lock().expect("no holder of this lock panics");
        if recent.len() == MEMORY {
            recent.pop_front();
        }
        recent.push_back(message.clone());
        // Sent under the lock, so that a subscriber misses no event and sees none twice.
        let _ = self.live.send(message);
    }

    /// The remembered events from `since` on, and everything after them.
    pub(crate) fn subscribe(
        &self,
        since: Option<Timestamp>,
    ) -> (Vec<Arc<Message>>, broadcast::Receiver<Arc<Message>>) {
        let recent = self.recent.lock().expect("no holder of this lock panics");
        let past = since.map_or_else(Vec::new, |since| {
            recent.iter().filter(|message| message.time_nano >= since.nanos()).cloned().collect()
        });
        (past, self.live.subscribe())
    }

    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

/// True when every given key matches.
pub(crate) fn matches(filters: &Filters, message: &Message) -> bool {
    let attributes = &message.actor.attributes;
    let named = |key: &str, kind: &str| {
        !filters.contains(key)
            || (message.kind == kind
                && filters.get(key).any(|wanted| {
                    message.actor.id.starts_with(wanted)
                        || attributes.get("name").is_some_and(|name| name == wanted)
                        || (kind == "image" && attributes.get("name").is_some_and(|n| n.starts_with(wanted)))
                }))
    };
    let image = || {
        !filters.contains("image")
            || filters.get("image").any(|wanted| {
                let image =
                    if message.kind == "image" { attributes.get("name") } else { attributes.get("image") };
                let bare = |name: &str| {
                    name.rsplit_once(':')
                        .filter(|(_, tag)| !tag.contains('/'))
                        .map_or(name.to_owned(), |(n, _)| n.to_owned())
                };
                message.actor.id == wanted
                    || image.is_some_and(|image| image == wanted || bare(image) == wanted)
            })
    };
    filters.any("event", |wanted| {
        message.action == wanted
            || message.action.split_once(": ").is_some_and(|(action, _)| action == wanted)
    }) && filters.exact("type", &message.kind)
        && filters.exact("scope", &message.scope)
        && filters.labels("label", Some(attributes))
        && named("container", "container")
        && named("network", "network")
        && named("volume", "volume")
        && named("daemon", "daemon")
        && image()
        && !["config", "node", "plugin", "secret", "service"].iter().any(|key| filters.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_events_are_remembered_and_filtered() {
        let events = Events::new();
        for number in 0..300 {
            let attributes =
                Strings::from([("name".into(), format!("n{number}")), ("image".into(), "busybox".into())]);
            events.publish("container", "start", &format!("{number:064}"), attributes);
        }
        let (past, _live) = events.subscribe(Some(Timestamp::from_nanos(0)));
        assert_eq!(past.len(), MEMORY);
        assert_eq!(past[0].from, "busybox");
        let filter = |text: &str| Filters::parse(text).unwrap();
        let hits = |text: &str| past.iter().filter(|message| matches(&filter(text), message)).count();
        assert_eq!(hits(r#"{"container":{"n299":true}}"#), 1);
        assert_eq!(hits(r#"{"type":{"image":true}}"#), 0);
        assert_eq!(hits(r#"{"event":{"start":true},"image":{"busybox":true}}"#), MEMORY);
        assert!(events.subscribe(None).0.is_empty());
    }
}
