//! Containers: one verb per file.

pub(crate) mod attach;
pub(crate) mod create;
mod endpoints;
pub(crate) mod exit;
pub(crate) mod inspect;
pub(crate) mod list;
mod mounts;
pub(crate) mod pause;
pub(crate) mod prune;
pub(crate) mod record;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rootfs;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stdio;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod wait;

use crate::Ctx;
use crate::error::Error;
use crate::view::Container;
use proto::containerd::containers;
use record::{EXTENSION, Record};

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a changed record to containerd, then shows it. Call with the container's operation held.
pub(crate) async fn save(ctx: &Ctx, container: &Container, record: Record) -> Result<(), Error> {
    ctx.containerd.update_container(containerd_record(&container.id, &record, None), &["extensions"]).await?;
    container.set_record(record);
    Ok(())
}

/// The containerd record of a container. The spec is the runtime's configuration of the next or current run.
pub(crate) fn containerd_record(id: &str, record: &Record, spec: Option<Vec<u8>>) -> containers::Container {
    containers::Container {
        id: id.to_owned(),
        extensions: [(EXTENSION.to_owned(), record.to_any())].into(),
        spec: spec.map(|json| proto::any::document(proto::any::SPEC, json)),
        ..Default::default()
    }
}

/// Publishes an event about a container, with more attributes than the usual.
pub(crate) fn publish(ctx: &Ctx, container: &Container, action: &str, more: &[(&str, String)]) {
    let mut attributes = container.record().attributes();
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    ctx.events.publish("container", action, &container.id, attributes);
}
