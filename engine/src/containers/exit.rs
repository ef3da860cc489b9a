//! The end of a container: recorded first, then the task is deleted, the network released, waiters told, and the
//! restart policy or `--rm` followed. Doing it twice does nothing the second time.

use super::record::{Ended, Record};
use super::state::Live;
use super::{publish, remove, restart, save, start};
use crate::clock::Timestamp;
use crate::containerd::Found;
use crate::error::Error;
use crate::view::Container;
use crate::{Ctx, Shared};
use std::sync::Arc;

/// How a first process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub(crate) code: u32,
    pub(crate) at: Timestamp,
    /// The process it was; an exit of an earlier run is not this one's. 0 is not known.
    pub(crate) pid: u32,
    pub(crate) oom_killed: bool,
}

/// Does the work of an exit that containerd has reported.
pub(crate) async fn exited(ctx: &Shared, container: &Arc<Container>, exit: Exit) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    exited_held(ctx, container, exit).await
}

pub(crate) async fn exited_held(ctx: &Shared, container: &Arc<Container>, exit: Exit) -> Result<(), Error> {
    let (record, live) = container.look();
    let Some(run) = record.run.clone() else { return Ok(()) };
    if !live.is_up() || (exit.pid != 0 && live.pid() != Some(exit.pid)) {
        return Ok(());
    }
    let mut record = Record {
        run: None,
        last: Some(Ended {
            started_at: Some(run.started_at),
            finished_at: Some(exit.at),
            exit_code: i64::from(exit.code),
            error: String::new(),
            oom_killed: exit.oom_killed,
        }),
        ..(*record).clone()
    };
    let ran_for = exit.at.since(run.started_at);
    let pause = restart::decide(&record, i64::from(exit.code), ran_for, record.restart_count);
    if pause.is_some() {
        record.restart_count += 1;
    }
    let auto_remove = record.host_config.auto_remove;
    if auto_remove {
        // Its record goes with it; until then a restart finds a run without a task and removes it.
        container.set_record(record);
    } else {
        save(ctx, container, record).await?;
    }
    let netns = ctx.config.netns_path(&container.id);
    let (deleted, ()) = tokio::join!(
        delete_task(ctx, &container.id),
        ctx.networks.disconnect(&container.id, &netns, run.endpoint.as_ref())
    );
    if let Err(error) = deleted {
        tracing::warn!(%error, container = container.id, "ended task not deleted");
    }
    container.streams.finish();
    for exec in container.execs() {
        exec.container_ended(exit.code);
    }
    start::remove_run_dir(ctx, &container.id);
    let seconds = ran_for.as_secs().to_string();
    publish(ctx, container, "die", &[("exitCode", exit.code.to_string()), ("execDuration", seconds)]);
    if run.endpoint.is_some() {
        start::network_event(ctx, container, "disconnect");
    }
    let next = if pause.is_some() { Live::Restarting } else { Live::Down };
    container.ended(next, i64::from(exit.code));
    if let Some(pause) = pause {
        restart::schedule(ctx.clone(), container.clone(), pause);
    } else if auto_remove {
        remove::remove_held(ctx, container, true).await?;
    }
    Ok(())
}

/// Deletes an ended task; gone already is fine.
pub(crate) async fn delete_task(ctx: &Ctx, id: &str) -> Result<(), crate::containerd::Error> {
    ctx.containerd.delete_task(id).await.found().map(drop)
}
