//! `pause` and `unpause`; and `resize`, the other request that goes straight to the shim.

use super::publish;
use super::state::{self, Live, Request};
use crate::Ctx;
use crate::error::Error;
use crate::view::Container;

pub(crate) async fn pause(ctx: &Ctx, container: &Container) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    let live = container.live();
    state::check(Request::Pause, live, &container.id, &container.name())?;
    ctx.containerd
        .pause(&container.id)
        .await
        .map_err(|error| Error::from(error).context(format!("cannot pause container {}", container.id)))?;
    // The exit may have come meanwhile, and waits for this operation.
    container.set_live(Live::Paused { pid: live.pid().unwrap_or(0) });
    publish(ctx, container, "pause", &[]);
    Ok(())
}

pub(crate) async fn unpause(ctx: &Ctx, container: &Container) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    let live = container.live();
    state::check(Request::Unpause, live, &container.id, &container.name())?;
    ctx.containerd
        .resume(&container.id)
        .await
        .map_err(|error| Error::from(error).context(format!("cannot unpause container {}", container.id)))?;
    container.set_live(Live::Running { pid: live.pid().unwrap_or(0) });
    publish(ctx, container, "unpause", &[]);
    Ok(())
}

pub(crate) async fn resize(ctx: &Ctx, container: &Container, height: u32, width: u32) -> Result<(), Error> {
    state::check(Request::Resize, container.live(), &container.id, &container.name())?;
    ctx.containerd.resize(&container.id, "", width, height).await?;
    publish(ctx, container, "resize", &[("height", height.to_string()), ("width", width.to_string())]);
    Ok(())
}
