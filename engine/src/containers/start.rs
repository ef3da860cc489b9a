//! `POST /containers/{id}/start`: the record says that the container is wanted up, then its network, FIFOs and task
//! are made. Whatever step fails, the steps before it are undone and the record says why.

use super::record::{Ended, MountKind, NetworkMode, Record, Run};
use super::rootfs::User;
use super::spec::{self, Defaults, Facts, Namespace};
use super::state::{self, Live, Request};
use super::stdio::{Paths, Wanted};
use super::{containerd_record, create, publish, rootfs, save};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::logs::{self, LogOptions};
use crate::networks::{files, ports};
use crate::view::Container;
use crate::{Ctx, Shared};
use proto::any::Any;
use proto::containerd::task_types::Status;
use proto::containerd::{tasks, types};
use proto::task::gantry::{Log, Options};
use proto::task::runc;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// In the run directory once the task has been started: tells a start that was cut short from a lost task.
pub(crate) const STARTED_MARKER: &str = "started";

/// Starts the container; 304 when it runs.
pub(crate) async fn start(ctx: &Shared, container: &Arc<Container>) -> Result<(), Error> {
    let _operation = container.operation.lock().await;
    let (record, live) = container.look();
    state::check(Request::Start, live, &container.id, &record.name)?;
    let record = Record { manually_stopped: false, restart_count: 0, ..(*record).clone() };
    start_held(ctx, container, record).await
}

/// The same with the operation held and the record's counters as they should be.
pub(crate) async fn start_held(
    ctx: &Shared,
    container: &Arc<Container>,
    record: Record,
) -> Result<(), Error> {
    match try_start(ctx, container, record.clone()).await {
        Ok(()) => Ok(()),
        Err(error) => {
            failed(ctx, container, record, &error).await;
            Err(error)
        }
    }
}

async fn try_start(ctx: &Shared, container: &Arc<Container>, record: Record) -> Result<(), Error> {
    let id = &container.id;
    let network = plan_network(ctx, &record)?;
    let requests = ports::requests(&record.config, &record.host_config)?;
    let endpoint = match network {
        Network::Bridge => Some(ctx.networks.allocate(&requests, &record.name)?),
        _ => None,
    };
    let run = Run { started_at: Timestamp::now(), boot: boot_id().to_owned(), endpoint: endpoint.clone() };
    let record = Record { run: Some(run), ..record };
    // The operation's own view of what is allocated, so that a failure anywhere below gives it back.
    container.set_record(record.clone());
    check_bind_sources(&record)?;
    let root = ctx.containerd.snapshot_mounts(id).await?;
    let shares_host = matches!(network, Network::Host);
    let address = endpoint.as_ref().map(|endpoint| endpoint.address);
    files::write(&ctx.config, id, &record, address, ctx.networks.gateway(), shares_host)?;

    let netns = ctx.config.netns_path(id);
    let connect = async {
        match &endpoint {
            Some(endpoint) => ctx.networks.connect(id, &netns, endpoint).await,
            None => Ok(()),
        }
    };
    let describe = async {
        let user = find_user(ctx, &record, root.clone()).await?;
        let facts = facts(ctx, id, &record, user, network.namespace(&netns))?;
        let json = serde_json::to_vec(&spec::build(&record, &facts)?).expect("a spec is JSON");
        ctx.containerd
            .update_container(containerd_record(id, &record, Some(json)), &["spec", "extensions"])
            .await?;
        Ok::<_, Error>(())
    };
    let (connected, described) = tokio::join!(connect, describe);
    connected?;
    described?;

    let wanted = Wanted { stdin: record.config.open_stdin, stdout: true, stderr: !record.config.tty };
    let runtime = &ctx.config.runtimes[&create::runtime_name(ctx, &record.host_config)];
    // A shim of others waits for a reader of every FIFO: it gets none unless somebody is attached.
    let paths = if runtime.is_ours() || container.streams.has_pending() {
        container.streams.create(wanted).map_err(|error| Error::io("create the container's FIFOs", &error))?
    } else {
        std::fs::create_dir_all(ctx.config.run_dir(id))
            .map_err(|error| Error::io("create the container's run directory", &error))?;
        Paths::default()
    };
    if let Some(log) = logs::Log::of(ctx, id, &record) {
        log.make_folder().map_err(|error| Error::io("create the log's folder", &error))?;
    }
    let request = tasks::CreateTaskRequest {
        container_id: id.clone(),
        rootfs: root,
        stdin: paths.stdin,
        stdout: paths.stdout,
        stderr: paths.stderr,
        terminal: record.config.tty,
        options: Some(task_options(ctx, id, &record)),
        ..Default::default()
    };
    ctx.containerd.create_task(request).await.map_err(|error| task_failed(&error))?;
    container.streams.running();
    let pid = ctx.containerd.start_process(id, "").await.map_err(|error| start_failed(&error))?;
    let marker = ctx.config.run_dir(id).join(STARTED_MARKER);
    std::fs::write(&marker, b"").map_err(|error| Error::io("write the start marker", &error))?;
    container.set_live(Live::Running { pid });
    if endpoint.is_some() {
        network_event(ctx, container, "connect");
    }
    publish(ctx, container, "start", &[]);
    Ok(())
}

/// Undoes a start and notes why it failed.
async fn failed(ctx: &Ctx, container: &Container, record: Record, error: &Error) {
    let endpoint = container.record().run.as_ref().and_then(|run| run.endpoint.clone());
    tidy_up(ctx, container, endpoint.as_ref()).await;
    let exit_code = exit_code(&error.to_string());
    let last = record.last.clone().unwrap_or_default();
    let record =
        Record { run: None, last: Some(Ended { exit_code, error: error.to_string(), ..last }), ..record };
    let auto_remove = record.host_config.auto_remove;
    if let Err(error) = save(ctx, container, record.clone()).await {
        tracing::warn!(%error, container = container.id, "failed start not recorded");
        container.set_record(record);
    }
    container.ended(Live::Down, exit_code);
    if auto_remove && let Err(error) = super::remove::remove_held(ctx, container, true).await {
        tracing::warn!(%error, container = container.id, "not removed after its failed start");
    }
}

/// Removes task, streams and network of a start that failed or was cut short.
pub(crate) async fn tidy_up(ctx: &Ctx, container: &Container, endpoint: Option<&super::record::Endpoint>) {
    let id = &container.id;
    if let Ok(Some(process)) = ctx.containerd.get_process(id, "").await {
        if process.status() != Status::Stopped {
            // Only an ended task can be deleted.
            let _ = ctx.containerd.kill(id, "", libc::SIGKILL as u32, true).await;
            let _ = ctx.containerd.wait_process(id, "").await;
        }
        if let Err(error) = super::exit::delete_task(ctx, id).await {
            tracing::warn!(%error, container = %id, "task of a failed start not deleted");
        }
    }
    container.streams.finish();
    ctx.networks.disconnect(id, &ctx.config.netns_path(id), endpoint).await;
    remove_run_dir(ctx, id);
}

pub(crate) fn remove_run_dir(ctx: &Ctx, id: &str) {
    let dir = ctx.config.run_dir(id);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, dir = %dir.display(), "run directory not removed");
        }
        _ => {}
    }
}

enum Network {
    Bridge,
    None,
    Host,
    Joined(Namespace),
}

impl Network {
    fn namespace(&self, netns: &Path) -> Namespace {
        match self {
            Network::Bridge => Namespace::Path(netns.to_owned()),
            Network::None => Namespace::Private,
            Network::Host => Namespace::Host,
            Network::Joined(namespace) => namespace.clone(),
        }
    }
}

fn plan_network(ctx: &Ctx, record: &Record) -> Result<Network, Error> {
    match record.network_mode() {
        NetworkMode::Bridge => Ok(Network::Bridge),
        NetworkMode::None => Ok(Network::None),
        NetworkMode::Host => Ok(Network::Host),
        NetworkMode::Named(name) => {
            Err(Error::not_found(format!("failed to set up container networking: network {name} not found")))
        }
        NetworkMode::Container(target) => {
            let target = ctx.view.find(target).map_err(|error| {
                Error::internal(format!("joining network namespace of container: {error}"))
            })?;
            if target.record().network_mode() == NetworkMode::Host {
                return Ok(Network::Joined(Namespace::Host));
            }
            join(&target, "net").map(Network::Joined).ok_or_else(|| {
                let status = state::Status::of(&target.record(), target.live()).as_str();
                Error::conflict(format!(
                    "cannot join network namespace of a non running container: container {} is {status}",
                    target.name()
                ))
            })
        }
    }
}

/// The namespace of a running container.
fn join(target: &Container, kind: &str) -> Option<Namespace> {
    let pid = target.live().pid()?;
    Some(Namespace::Path(PathBuf::from(format!("/proc/{pid}/ns/{kind}"))))
}

fn facts(ctx: &Ctx, id: &str, record: &Record, user: User, network: Namespace) -> Result<Facts, Error> {
    let host = &record.host_config;
    let choose = |mode: &str| if mode == "host" { Namespace::Host } else { Namespace::Private };
    let pid = match host.pid_mode.strip_prefix("container:") {
        Some(target) => {
            let target = ctx.view.find(target)?;
            join(&target, "pid").ok_or_else(|| {
                let id = &target.id;
                Error::internal(format!("failed to join PID namespace: container {id} is not running"))
            })?
        }
        None => choose(&host.pid_mode),
    };
    Ok(Facts {
        id: id.to_owned(),
        user,
        devices: spec::devices::collect(host)?,
        network,
        pid,
        ipc: choose(&host.ipc_mode),
        uts: choose(&host.uts_mode),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        files_dir: ctx.config.container_dir(id),
        daemon: Defaults {
            cgroup_parent: ctx.config.cgroup_parent.clone(),
            cgroupns_mode: ctx.config.default_cgroupns_mode.clone(),
            shm_size: ctx.config.default_shm_size,
            ulimits: ctx.config.default_ulimits.clone(),
            no_new_privileges: ctx.config.no_new_privileges,
            seccomp_unconfined: ctx.config.seccomp_unconfined,
        },
    })
}

async fn find_user(ctx: &Ctx, record: &Record, root: Vec<types::Mount>) -> Result<User, Error> {
    let accounts = read_accounts(ctx, root).await?;
    accounts.user(&record.config.user, record.host_config.group_add.as_deref().unwrap_or(&[]))
}

/// The account lists in a container's root file system.
pub(crate) async fn read_accounts(ctx: &Ctx, root: Vec<types::Mount>) -> Result<rootfs::Accounts, Error> {
    let place = ctx.config.exec_root.clone();
    tokio::task::spawn_blocking(move || rootfs::with_root(root, place, rootfs::accounts))
        .await
        .map_err(|error| Error::internal(error.to_string()))?
        .map_err(|error| Error::io("read the container's accounts", &error))
}

/// Makes missing sources of `-v /path:...`, as docker does; those of `--mount` must be there.
fn check_bind_sources(record: &Record) -> Result<(), Error> {
    for point in record.mounts.iter().filter(|point| point.kind != MountKind::Tmpfs) {
        let source = Path::new(&point.source);
        if source.exists() {
            continue;
        }
        if !point.create_source {
            return Err(Error::invalid(format!(
                "invalid mount config for type \"{}\": {} source path does not exist: {}",
                point.kind.as_str(),
                point.kind.as_str(),
                point.source
            )));
        }
        std::fs::create_dir_all(source).map_err(|error| {
            Error::io(format!("error while creating mount source path '{}'", point.source), &error)
        })?;
    }
    Ok(())
}

/// Our shim's options with the log, or plain runc options for another.
fn task_options(ctx: &Ctx, id: &str, record: &Record) -> Any {
    let runtime = &ctx.config.runtimes[&create::runtime_name(ctx, &record.host_config)];
    let root = ctx.config.exec_root.join(if runtime.path.is_empty() { "rung" } else { "runtime" });
    let options = runc::Options {
        binary_name: runtime.path.clone(),
        root: root.display().to_string(),
        ..Default::default()
    };
    if !runtime.is_ours() {
        return proto::any::pack(&options);
    }
    let log = &record.host_config.log_config;
    let none = Default::default();
    let given = log.config.as_ref().unwrap_or(&none);
    // Checked when the container was created.
    let wanted = LogOptions::parse(&log.kind, given).unwrap_or_default();
    let place = logs::Log::of(ctx, id, record);
    let log = Log {
        driver: log.kind.clone(),
        path: place.map(|log| log.path.display().to_string()).unwrap_or_default(),
        max_size: wanted.max_size,
        max_file: wanted.max_file,
        attrs: logs::attributes(given, record, id).into_iter().collect(),
        compress: wanted.compress,
        max_buffer: wanted.max_buffer,
    };
    proto::task::pack_options(&options, &Options { log: Some(log) })
}

/// docker's words around a task that could not be created, and 400 where the command is at fault.
fn task_failed(error: &crate::containerd::Error) -> Error {
    wrap("failed to create task for container", error)
}

fn start_failed(error: &crate::containerd::Error) -> Error {
    wrap("failed to start container task", error)
}

fn wrap(step: &str, error: &crate::containerd::Error) -> Error {
    let message = format!("{step}: {}", error.message());
    let kind = if exit_code(&message) == 128 { ErrorKind::Internal } else { ErrorKind::InvalidArgument };
    Error::new(kind, message)
}

/// docker's exit code for a container that could not be started: by the runtime's sentence.
pub(crate) fn exit_code(message: &str) -> i64 {
    let lower = message.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if any(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if any(&["permission denied", "is a directory", "not a directory"]) {
        126
    } else {
        128
    }
}

pub(crate) fn network_event(ctx: &Ctx, container: &Container, action: &str) {
    let attributes = [("container", container.id.as_str()), ("name", "bridge"), ("type", "bridge")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    ctx.events.publish("network", action, &ctx.networks.ids.bridge, attributes.into());
}

/// This boot of the kernel.
pub(crate) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_sentence_decides_the_exit_code() {
        for (sentence, code) in [
            ("exec: \"nosuch\": executable file not found in $PATH", 127),
            ("exec: \"/nosuch\": stat /nosuch: no such file or directory", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("cgroup is gone", 128),
        ] {
            assert_eq!(exit_code(sentence), code);
        }
    }
}
