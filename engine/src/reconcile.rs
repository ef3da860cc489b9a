//! Keeping memory and containerd the same: at the start, after containerd was away, and by its events in between.
//!
//! Each round subscribes first, then lists containers and tasks and brings every container to what they say, then
//! follows the events. What happened while nobody listened is in the lists: a stopped task carries its exit.

use crate::clock::Timestamp;
use crate::containers::exit::{Exit, exited, exited_held};
use crate::containers::record::{EXTENSION, Ended, Record};
use crate::containers::state::Live;
use crate::containers::stdio::Wanted;
use crate::containers::{create, remove, restart, save, start};
use crate::error::Error;
use crate::view::Container;
use crate::{Ctx, Shared, exec};
use proto::any;
use proto::containerd::task_types::{Process, Status};
use proto::containerd::types::Envelope;
use proto::task::{events, topic};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two tries to reach containerd.
const RETRY: Duration = Duration::from_millis(200);
/// Exit code of a container that was up when the machine went down; docker's.
const LOST: i64 = 255;
/// Exit code of a container whose shim is gone with it.
const KILLED: i64 = 137;

/// Runs for ever; `ready` is answered after the first complete round.
pub(crate) async fn run(ctx: Shared, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut complained = false;
    loop {
        match round(&ctx, &mut ready).await {
            Ok(()) => {
                tracing::warn!("containerd has ended the event stream");
                complained = false;
            }
            Err(error) if !complained => {
                tracing::warn!(%error, "containerd is not reachable; trying again");
                complained = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn round(ctx: &Shared, ready: &mut Option<oneshot::Sender<()>>) -> Result<(), Error> {
    ctx.containerd.create_namespace().await?;
    let mut stream = ctx.containerd.subscribe().await?;
    let first = ready.is_some();
    synchronise(ctx, first).await?;
    if let Some(ready) = ready.take() {
        let _ = ready.send(());
    }
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => handle(ctx, envelope),
            Ok(None) => return Ok(()),
            Err(status) => return Err(crate::containerd::from_status("events.subscribe", &status).into()),
        }
    }
}

/// Brings memory, kernel and disk to what containerd's lists say.
async fn synchronise(ctx: &Shared, first: bool) -> Result<(), Error> {
    let rows = ctx.containerd.list_containers().await?;
    let snapshots: HashSet<String> =
        ctx.containerd.list_snapshots().await?.into_iter().map(|snapshot| snapshot.name).collect();
    let tasks: HashMap<String, Process> =
        ctx.containerd.list_tasks().await?.into_iter().map(|task| (task_id(&task), task)).collect();
    let mut known = HashSet::new();
    for row in rows {
        let Some(extension) = row.extensions.get(EXTENSION) else {
            known.insert(row.id);
            continue;
        };
        let record = match Record::from_any(extension) {
            Ok(record) => record,
            Err(reason) => {
                tracing::error!(
                    container = row.id,
                    reason,
                    "record not understood; the container is left alone"
                );
                known.insert(row.id);
                continue;
            }
        };
        known.insert(row.id.clone());
        if first && !snapshots.contains(&row.id) {
            // Its snapshot comes right after the record: this create was cut short.
            tracing::info!(container = row.id, "create was cut short; undone");
            create::undo(ctx, &row.id).await;
            known.remove(&row.id);
            continue;
        }
        if ctx.view.by_id(&row.id).is_none() && first {
            adopt(ctx, row.id.clone(), record, tasks.get(&row.id));
        }
    }
    if first {
        clear_leftovers(ctx, &known, &snapshots).await?;
    }
    // Each on its own, so that one stuck shim holds up nobody else.
    let mut work = Vec::new();
    for container in ctx.view.all() {
        let task = tasks.get(&container.id).cloned();
        let ctx = ctx.clone();
        work.push(tokio::spawn(async move { settle(&ctx, &container, task, first).await }));
    }
    for one in work {
        match one.await {
            Ok(Err(error)) => tracing::warn!(%error, "container not settled"),
            Err(error) => tracing::error!(%error, "settling a container failed"),
            Ok(Ok(())) => {}
        }
    }
    Ok(())
}

fn task_id(task: &Process) -> String {
    // containerd's lists name the container in `id`; `container_id` is for execs.
    if task.id.is_empty() { task.container_id.clone() } else { task.id.clone() }
}

/// Puts a container of an earlier engine into memory.
fn adopt(ctx: &Shared, id: String, record: Record, task: Option<&Process>) {
    let live = match task.map(|task| (task.status(), task.pid)) {
        Some((Status::Running, pid)) => Live::Running { pid },
        Some((Status::Paused | Status::Pausing, pid)) => Live::Paused { pid },
        // Stopped ones are up until `settle` does the work of their exit.
        Some((Status::Stopped, pid)) if record.run.is_some() => Live::Running { pid },
        _ => Live::Down,
    };
    if ctx.view.reserve(&record.name, &id).is_err() {
        tracing::error!(container = id, name = record.name, "name is taken by another container");
    }
    if let Some(endpoint) = record.run.as_ref().and_then(|run| run.endpoint.as_ref()) {
        ctx.networks.adopt(endpoint);
    }
    let (tty, stdin) = (record.config.tty, record.config.open_stdin);
    let container = create::adopt(ctx, id, record, live);
    if live.is_up() {
        let wanted = Wanted { stdin, stdout: true, stderr: !tty };
        if let Err(error) = container.streams.adopt(wanted) {
            tracing::warn!(%error, container = container.id, "streams not taken over");
        }
    }
    ctx.view.insert(container);
}

/// Makes one container what containerd says about its task.
async fn settle(
    ctx: &Shared,
    container: &Arc<Container>,
    task: Option<Process>,
    first: bool,
) -> Result<(), Error> {
    let operation = container.operation.lock().await;
    let (record, live) = container.look();
    // The list is older than the lock: a start that held it meanwhile has made a task that the list does not have. So
    // whatever would take a container down is decided by what its task is now.
    let agrees = |task: &Option<Process>| match task.as_ref().map(Process::status) {
        Some(Status::Running | Status::Paused | Status::Pausing) => record.run.is_some(),
        None => record.run.is_none(),
        _ => false,
    };
    let task = if agrees(&task) { task } else { ctx.containerd.get_process(&container.id, "").await? };
    let status = task.as_ref().map(Process::status);
    match (task, status) {
        (Some(task), Some(Status::Stopped)) => {
            if record.run.is_some() && live.is_up() {
                let exit = Exit {
                    code: task.exit_status,
                    at: exit_time(task.exited_at.as_ref()),
                    pid: task.pid,
                    oom_killed: false,
                };
                exited_held(ctx, container, exit).await?;
            } else {
                // Recorded already; only the task was left.
                start::tidy_up(ctx, container, None).await;
            }
        }
        (Some(task), Some(Status::Running)) if record.run.is_some() => {
            container.set_live(Live::Running { pid: task.pid });
            mark_started(ctx, &container.id);
        }
        (Some(task), Some(Status::Paused | Status::Pausing)) if record.run.is_some() => {
            container.set_live(Live::Paused { pid: task.pid });
        }
        (Some(_), Some(Status::Unknown)) => {
            // Its shim does not answer in time. Nothing is known of it, so nothing is done to it.
            tracing::warn!(container = container.id, "the state of its task is not known");
        }
        (Some(_), _) => {
            // Created and not started, or up without being wanted up: a start that was cut short.
            tracing::info!(container = container.id, "start was cut short; undone");
            undo_start(ctx, container, &record).await?;
        }
        (None, _) => {
            if let Some(run) = record.run.clone() {
                lost(ctx, container, &record, &run).await?;
            }
        }
    }
    drop(operation);
    follow_up(ctx, container, first).await
}

fn mark_started(ctx: &Ctx, id: &str) {
    let marker = ctx.config.run_dir(id).join(start::STARTED_MARKER);
    if !marker.exists() {
        let _ = std::fs::write(marker, b"");
    }
}

/// Takes back what a start made before it was cut short: the container is as before it. One with `--rm` goes, as after a
/// start that failed; it may also be one that has run, and whose removal was cut short after the marker was gone.
async fn undo_start(ctx: &Shared, container: &Arc<Container>, record: &Record) -> Result<(), Error> {
    let endpoint = record.run.as_ref().and_then(|run| run.endpoint.clone());
    start::tidy_up(ctx, container, endpoint.as_ref()).await;
    save(ctx, container, Record { run: None, ..record.clone() }).await?;
    let exit_code = record.last.as_ref().map_or(0, |last| last.exit_code);
    container.ended(Live::Down, exit_code);
    if record.host_config.auto_remove {
        remove::remove_held(ctx, container, true).await?;
    }
    Ok(())
}

/// Wanted up, and no task: the machine was restarted, the shim was killed, or a start was cut short.
async fn lost(
    ctx: &Shared,
    container: &Arc<Container>,
    record: &Record,
    run: &crate::containers::record::Run,
) -> Result<(), Error> {
    let rebooted = run.boot != start::boot_id();
    let started = ctx.config.run_dir(&container.id).join(start::STARTED_MARKER).exists();
    if !rebooted && !started {
        tracing::info!(container = container.id, "start was cut short; undone");
        return undo_start(ctx, container, record).await;
    }
    let exit_code = if rebooted { LOST } else { KILLED };
    start::tidy_up(ctx, container, run.endpoint.as_ref()).await;
    let last = Ended {
        started_at: Some(run.started_at),
        finished_at: Some(Timestamp::now()),
        exit_code,
        error: String::new(),
        oom_killed: false,
    };
    save(ctx, container, Record { run: None, last: Some(last), ..record.clone() }).await?;
    container.ended(Live::Down, exit_code);
    crate::containers::publish(ctx, container, "die", &[("exitCode", exit_code.to_string())]);
    Ok(())
}

/// What follows from a container's state: `--rm` also where containerd was away when its exit was recorded; when the
/// engine starts, restart policies of those that are down. And its execs, when it is up: those of an earlier engine, and
/// ours that may have ended meanwhile.
async fn follow_up(ctx: &Shared, container: &Arc<Container>, first: bool) -> Result<(), Error> {
    let (record, live) = container.look();
    if live.is_up() && first {
        exec::adopt(ctx, container).await;
    } else if live.is_up() {
        for exec in container.execs() {
            exec::catch_up(ctx, container, &exec).await;
        }
    }
    if live != Live::Down {
        return Ok(());
    }
    let has_run = record.last.as_ref().is_some_and(|last| last.started_at.is_some());
    if record.host_config.auto_remove && has_run {
        let _operation = container.operation.lock().await;
        if container.live() == Live::Down && ctx.view.by_id(&container.id).is_some() {
            remove::remove_held(ctx, container, true).await?;
        }
        return Ok(());
    }
    if first && ctx.view.by_id(&container.id).is_some() && restart::at_engine_start(&record) {
        container.set_live(Live::Restarting);
        restart::schedule(ctx.clone(), container.clone(), Duration::ZERO);
    }
    Ok(())
}

/// Snapshots, directories, namespaces, links and rules that belong to no container.
async fn clear_leftovers(
    ctx: &Shared,
    known: &HashSet<String>,
    snapshots: &HashSet<String>,
) -> Result<(), Error> {
    let is_id = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let mut orphans: HashSet<String> = snapshots.iter().filter(|name| is_id(name)).cloned().collect();
    for dir in ["containers"]
        .iter()
        .flat_map(|name| [ctx.config.data_root.join(name), ctx.config.exec_root.join(name)])
    {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        orphans.extend(
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|n| is_id(n)),
        );
    }
    for id in orphans.difference(known) {
        tracing::info!(container = id, "leftover of a removed container cleared");
        remove::clear(ctx, id).await;
    }
    let up: Vec<_> = ctx
        .view
        .all()
        .iter()
        .filter_map(|container| {
            let (record, live) = container.look();
            let endpoint = record.run.as_ref().filter(|_| live.is_up())?.endpoint.clone()?;
            Some((container.id.clone(), endpoint))
        })
        .collect();
    let ids = up.iter().map(|(id, _)| id.clone()).collect();
    ctx.networks.sweep(ctx.config.exec_root.join("netns"), &up, ids).await
}

fn exit_time(time: Option<&prost_types::Timestamp>) -> Timestamp {
    time.filter(|time| time.seconds > 0).map_or_else(Timestamp::now, Timestamp::from)
}

/// One event. Its work may take long and may wait for an operation: it gets a task of its own.
fn handle(ctx: &Shared, envelope: Envelope) {
    let Some(event) = envelope.event else { return };
    match envelope.topic.as_str() {
        topic::EXIT => {
            let Ok(Some(exit)) = any::unpack::<events::TaskExit>(&event) else { return };
            let Some(container) = ctx.view.by_id(&exit.container_id) else { return };
            let ctx = ctx.clone();
            tokio::spawn(async move {
                if exit.id != exit.container_id && !exit.id.is_empty() {
                    exec::exited(&ctx, &container, &exit.id, exit.exit_status).await;
                    return;
                }
                let ended = Exit {
                    code: exit.exit_status,
                    at: exit_time(exit.exited_at.as_ref()),
                    pid: exit.pid,
                    oom_killed: container.take_oom(),
                };
                if let Err(error) = exited(&ctx, &container, ended).await {
                    // containerd was away: the next round finds the stopped task.
                    tracing::warn!(%error, container = container.id, "exit not processed yet");
                }
            });
        }
        topic::OOM => {
            let Ok(Some(oom)) = any::unpack::<events::TaskOom>(&event) else { return };
            if let Some(container) = ctx.view.by_id(&oom.container_id) {
                container.note_oom();
                crate::containers::publish(ctx, &container, "oom", &[]);
            }
        }
        topic::CREATE => {
            // A task that appears although nobody is starting it: the start's engine was killed meanwhile.
            let Ok(Some(created)) = any::unpack::<events::TaskCreate>(&event) else { return };
            let Some(container) = ctx.view.by_id(&created.container_id) else { return };
            let ctx = ctx.clone();
            tokio::spawn(async move {
                let _operation = container.operation.lock().await;
                if container.live().is_up() || container.record().run.is_some() {
                    return;
                }
                start::tidy_up(&ctx, &container, None).await;
            });
        }
        topic::PAUSED | topic::RESUMED => {
            let id = match any::unpack::<events::TaskPaused>(&event) {
                Ok(Some(paused)) => paused.container_id,
                _ => match any::unpack::<events::TaskResumed>(&event) {
                    Ok(Some(resumed)) => resumed.container_id,
                    _ => return,
                },
            };
            if let Some(container) = ctx.view.by_id(&id)
                && let Some(pid) = container.live().pid()
            {
                let paused = envelope.topic == topic::PAUSED;
                container.set_live(if paused { Live::Paused { pid } } else { Live::Running { pid } });
            }
        }
        _ => {}
    }
}
