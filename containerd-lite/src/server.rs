//! Builds the daemon's parts in dependency order, binds the sockets (events before the tasks are taken up, the API last),
//! serves, and drains when told to stop.

use crate::config::{Config, ShimUpgrade};
use crate::content::Store;
use crate::db::{Db, schema};
use crate::events::Exchange;
use crate::gc::Collector;
use crate::snapshots::{Overlay, Snapshots};
use crate::tasks::bundle::Folders;
use crate::tasks::shim::Launcher;
use crate::tasks::{Tasks, ttrpc};
use anyhow::{Context, Result, bail};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};

/// Requests under way may take this long to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// Layers unpacked at the same time: each has a decoder and a thread.
const PARALLEL_APPLIES: usize = 4;
/// HTTP/2 limits: requests under way per connection, and bytes in flight per stream and connection.
const MAX_STREAMS: u32 = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The parts that the services share.
pub(crate) struct Daemon {
    pub(crate) db: Db,
    pub(crate) events: Arc<Exchange>,
    pub(crate) content: Arc<Store>,
    pub(crate) snapshots: Snapshots,
    pub(crate) collector: Collector,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) uuid: String,
    pub(crate) applies: Semaphore,
    /// For mounts of our own, made in private namespaces.
    pub(crate) scratch: PathBuf,
    pub(crate) stopping: Stopping,
}

/// Whether the daemon was told to stop.
pub(crate) struct Stopping(watch::Sender<bool>);

impl Stopping {
    pub(crate) async fn cancelled(&self) {
        let mut stopping = self.0.subscribe();
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

pub(crate) async fn serve(config: Config) -> Result<()> {
    // From here on the signals are ours: a stop that comes during the start is kept for its end.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    // Shims and ctr may close their end at any time; a broken pipe is an error value.
    make_dir(&config.root, 0o711)?;
    make_dir(&config.state, 0o711)?;
    let _root = lock(&config.root)?;
    let _state = lock(&config.state)?;

    let daemon = Arc::new(tokio::task::block_in_place(|| build(&config))?);
    // Before the tasks are taken up: a shim that is told to end there first tries to deliver its events.
    let events_listener = bind(Path::new(&config.ttrpc_address())).await?;
    tokio::spawn(ttrpc::serve_events(events_listener, daemon.events.clone()));
    daemon.tasks.restore(&daemon.db).await?;

    let listener = bind(&config.grpc.address).await?;
    std::os::unix::fs::chown(&config.grpc.address, Some(config.grpc.uid), Some(config.grpc.gid))?;
    let collected = daemon.clone();
    tokio::spawn(async move { collected.collector.run().await });
    // What became garbage just before the last stop.
    daemon.collector.schedule();
    tokio::spawn(upgrade_shims(daemon.clone(), config.shim_upgrade, hangup));

    let stopped = daemon.clone();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; shims and their containers go on");
        stopped.events.close();
        stopped.stopping.0.send_replace(true);
    };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_routes(crate::api::routes(daemon.clone()))
        .serve_with_incoming_shutdown(tokio_stream::wrappers::UnixListenerStream::new(listener), stop);
    tracing::info!(address = config.address(), "serving");
    let overdue = async {
        daemon.stopping.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = server => result.context("serve")?,
        () = overdue => tracing::warn!("requests are still under way after {DRAIN:?}, stopping anyway"),
    }
    for path in [config.grpc.address.clone(), config.ttrpc_address().into()] {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Upgrades of shims, one at a time: when the daemon starts, if that is asked for, and at each SIGHUP.
async fn upgrade_shims(daemon: Arc<Daemon>, when: ShimUpgrade, mut hangup: Signal) {
    if when == ShimUpgrade::OnStart {
        daemon.tasks.upgrade_shims().await;
    }
    while hangup.recv().await.is_some() {
        match when {
            ShimUpgrade::Never => tracing::info!("SIGHUP: shims are never upgraded, by the configuration"),
            ShimUpgrade::OnStart | ShimUpgrade::OnRequest => daemon.tasks.upgrade_shims().await,
        }
    }
}

fn build(config: &Config) -> Result<Daemon> {
    let db = Db::open(&config.root.join("meta.db"))?;
    let uuid = schema::uuid(&db)?;
    let events = Arc::new(Exchange::default());
    let content = Arc::new(Store::open(&config.root, db.clone())?);
    let snapshots = Snapshots::open(db.clone(), Overlay::open(&config.root)?)?;
    let collector = Collector::new(db.clone(), content.clone(), &snapshots);
    let launcher = Launcher {
        address: config.address().to_owned(),
        ttrpc_address: config.ttrpc_address(),
        debug: config.debug(),
    };
    let folders = Folders::open(&config.root, &config.state)?;
    let tasks = Tasks::new(folders, launcher, events.clone());
    let scratch = config.root.join("tmpmounts");
    // Left by an apply that was killed; nothing can be mounted there outside of that apply's own namespace.
    let _ = std::fs::remove_dir_all(&scratch);
    make_dir(&scratch, 0o700)?;
    Ok(Daemon {
        db,
        events,
        content,
        snapshots,
        collector,
        tasks,
        uuid,
        applies: Semaphore::new(PARALLEL_APPLIES),
        scratch,
        stopping: Stopping(watch::Sender::new(false)),
    })
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}

/// One daemon per folder. The lock goes with the process, however it ends; a pid file would not.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another containerd-lite is using {}", dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// A socket only root may use. One left by a daemon that was killed is replaced; one that answers is not.
async fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(dir) = path.parent() {
        make_dir(dir, 0o711)?;
    }
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        bail!("another daemon is listening at {}", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    // Bound beside and renamed, so that nobody finds it before its mode is set.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).with_context(|| format!("listen at {}", path.display()))?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("listen at {}", path.display()))?;
    Ok(listener)
}
