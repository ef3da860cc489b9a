//! `DELETE /containers/{id}`: the record goes first; whatever a kill leaves after that is named by an id that no
//! record has, and is cleared at the next start.

use super::record::MountKind;
use super::state::Live;
use super::{publish, stop};
use crate::containerd::Found;
use crate::error::Error;
use crate::view::Container;
use crate::{Ctx, volumes};

pub(crate) async fn remove(
    ctx: &Ctx,
    container: &Container,
    reference: &str,
    force: bool,
    with_volumes: bool,
) -> Result<(), Error> {
    let live = container.live();
    let in_progress =
        || Err(Error::conflict(format!("removal of container {reference} is already in progress")));
    if live == Live::Removing {
        return in_progress();
    }
    if live != Live::Down {
        if !force {
            let reason = match live {
                Live::Paused { .. } => "container is paused and must be unpaused first",
                Live::Restarting => {
                    "container is restarting: stop the container before removing or force remove"
                }
                _ => "container is running: stop the container before removing or force remove",
            };
            return Err(Error::conflict(format!("cannot remove container \"{reference}\": {reason}")));
        }
        stop::kill_and_wait(ctx, container).await?;
    }
    let _operation = container.operation.lock().await;
    if ctx.view.by_id(&container.id).is_none() {
        // One that this call has ended may have gone by its `--rm`; any other was removed by somebody else.
        return if live == Live::Down { in_progress() } else { Ok(()) };
    }
    if container.live().is_up() {
        return Err(Error::conflict(format!(
            "container {} was started while it was being removed",
            container.id
        )));
    }
    remove_held(ctx, container, with_volumes).await
}

/// With the operation held and the container down.
pub(crate) async fn remove_held(ctx: &Ctx, container: &Container, with_volumes: bool) -> Result<(), Error> {
    let before = container.live();
    container.set_live(Live::Removing);
    if let Err(error) = ctx.containerd.delete_container(&container.id).await.found() {
        container.set_live(before);
        return Err(Error::from(error).context(format!("cannot remove container {}", container.id)));
    }
    let record = container.record();
    clear(ctx, &container.id).await;
    if with_volumes {
        for point in record.mounts.iter().filter(|p| p.kind == MountKind::Volume && p.anonymous) {
            if let Err(error) = volumes::remove(ctx, &point.volume, Some(&container.id)) {
                tracing::warn!(%error, volume = point.volume, "anonymous volume not removed");
            }
        }
    }
    // Before the view lets it go: whoever waits for `removed` may look at the streams no more.
    container.streams.finish();
    publish(ctx, container, "destroy", &[]);
    ctx.view.remove(container);
    Ok(())
}

/// What belongs to an id without a record.
pub(crate) async fn clear(ctx: &Ctx, id: &str) {
    if let Err(error) = ctx.containerd.remove_snapshot(id).await.found() {
        tracing::warn!(%error, container = id, "snapshot not removed");
    }
    for dir in [ctx.config.container_dir(id), ctx.config.run_dir(id)] {
        let mut removed = std::fs::remove_dir_all(&dir);
        // A log that is being compressed may have got one more file in between.
        for _ in 0..3 {
            if removed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty) {
                removed = std::fs::remove_dir_all(&dir);
            }
        }
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %dir.display(), "directory not removed");
            }
            _ => {}
        }
    }
}
