//! `POST /containers/{id}/update`: limits and the restart policy of a container that may run.

use super::record::Record;
use super::{create, publish, save, spec};
use crate::Ctx;
use crate::error::Error;
use crate::view::Container;
use proto::docker::container::{Resources, UpdateRequest, UpdateResponse};

pub(crate) async fn update(
    ctx: &Ctx,
    container: &Container,
    request: UpdateRequest,
) -> Result<UpdateResponse, Error> {
    let _operation = container.operation.lock().await;
    let (record, live) = container.look();
    let mut host = record.host_config.clone();
    overlay(&mut host.resources, request.resources);
    if !request.restart_policy.name.is_empty() {
        if host.auto_remove {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = request.restart_policy;
    }
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    spec::resources::check(&mut host.resources, cpus)?;
    create::check_restart_policy(&host)?;
    let limits = spec::resources::limits(&host.resources);
    if live.is_up() {
        let json = serde_json::to_vec(&limits).expect("limits are JSON");
        let resources = proto::any::document(proto::any::RESOURCES, json);
        ctx.containerd.update_task(&container.id, resources).await.map_err(|error| {
            Error::from(error).context(format!("Cannot update container {}", container.id))
        })?;
    }
    save(ctx, container, Record { host_config: host, ..(*record).clone() }).await?;
    publish(ctx, container, "update", &[]);
    Ok(UpdateResponse::default())
}

/// The members that are set replace the container's.
fn overlay(old: &mut Resources, new: Resources) {
    macro_rules! replace {
        ($($field:ident),*) => { $( if !is_default(&new.$field) { old.$field = new.$field; } )* };
    }
    replace!(
        cpu_shares,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        pids_limit
    );
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
