//! `stop` and `kill`.

use super::record::Record;
use super::state::Live;
use super::{publish, save};
use crate::Ctx;
use crate::error::{Error, ErrorKind};
use crate::view::Container;
use std::time::Duration;

/// Seconds between the stop signal and SIGKILL unless the container or the request says otherwise.
const DEFAULT_TIMEOUT: i64 = 10;
/// How long the exit after a SIGKILL may take to arrive.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// Sends the stop signal, waits, kills; 304 when it does not run.
pub(crate) async fn stop(
    ctx: &Ctx,
    container: &Container,
    signal: Option<u32>,
    timeout: Option<i64>,
) -> Result<(), Error> {
    mark_stopped(ctx, container).await?;
    let record = container.record();
    if !container.live().is_up() {
        return Err(Error::not_modified());
    }
    let signal = signal.unwrap_or_else(|| record.stop_signal());
    let timeout = timeout.or(record.config.stop_timeout).unwrap_or(DEFAULT_TIMEOUT);
    let mut progress = container.progress();
    progress.mark_unchanged();
    deliver(ctx, container, signal).await?;
    let ended = async {
        let _ = progress.wait_for(|progress| !progress.up).await;
    };
    tokio::pin!(ended);
    let in_time = if timeout < 0 {
        ended.as_mut().await;
        true
    } else {
        tokio::time::timeout(Duration::from_secs(timeout as u64), ended.as_mut()).await.is_ok()
    };
    if !in_time {
        deliver(ctx, container, libc::SIGKILL as u32).await?;
        tokio::time::timeout(KILL_DEADLINE, ended).await.map_err(|_| {
            Error::internal(format!(
                "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                container.id
            ))
        })?;
    }
    publish(ctx, container, "stop", &[]);
    Ok(())
}

/// Takes the restart policy's say from the next exit, and ends a pause before a restart.
async fn mark_stopped(ctx: &Ctx, container: &Container) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    let (record, live) = container.look();
    if live == Live::Restarting {
        container.set_live(Live::Down);
    }
    let matters = !matches!(record.host_config.restart_policy.name.as_str(), "" | "no");
    let changed = Record { manually_stopped: true, ..(*record).clone() };
    if matters && !record.manually_stopped {
        save(ctx, container, changed).await
    } else {
        container.set_record(changed);
        Ok(())
    }
}

/// A signal to the first process, with docker's event.
async fn deliver(ctx: &Ctx, container: &Container, signal: u32) -> Result<(), Error> {
    let paused = matches!(container.live(), Live::Paused { .. });
    match ctx.containerd.kill(&container.id, "", signal, false).await {
        // Gone in between: its exit is on the way.
        Err(error)
            if error.kind() == ErrorKind::NotFound
                || error.message().contains("process already finished") => {}
        Err(error) => {
            return Err(Error::from(error).context(format!("cannot kill container: {}", container.id)));
        }
        Ok(()) => {}
    }
    if paused {
        // A frozen process gets no signal before it is thawed.
        let _ = ctx.containerd.resume(&container.id).await;
    }
    publish(ctx, container, "kill", &[("signal", signal.to_string())]);
    Ok(())
}

/// `POST /containers/{id}/kill`.
pub(crate) async fn kill(
    ctx: &Ctx,
    container: &Container,
    reference: &str,
    signal: u32,
) -> Result<(), Error> {
    let (record, live) = container.look();
    if !live.is_up() {
        return Err(Error::conflict(format!(
            "cannot kill container: {reference}: container {} is not running",
            container.id
        )));
    }
    // docker: without a stop signal of its own every signal counts as a stop, with one only that signal and KILL.
    let own = !record.config.stop_signal.is_empty();
    if !own || signal == libc::SIGKILL as u32 || signal == record.stop_signal() {
        mark_stopped(ctx, container).await?;
    }
    deliver(ctx, container, signal).await
}

/// Kills and waits for the end; for `rm -f`.
pub(crate) async fn kill_and_wait(ctx: &Ctx, container: &Container) -> Result<(), Error> {
    mark_stopped(ctx, container).await?;
    if !container.live().is_up() {
        return Ok(());
    }
    let mut progress = container.progress();
    deliver(ctx, container, libc::SIGKILL as u32).await?;
    tokio::time::timeout(KILL_DEADLINE, progress.wait_for(|progress| !progress.up))
        .await
        .map_err(|_| {
            Error::internal(format!("cannot remove container {}: could not kill container", container.id))
        })?
        .map(drop)
        .map_err(|error| Error::internal(error.to_string()))
}
