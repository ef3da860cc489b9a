//! The daemon's life: configuration, containerd, networks, the view, sockets last; then signals.

use crate::config::{Config, Host};
use crate::containerd::Containerd;
use crate::http::Listener;
use crate::{Ctx, Shared, events, http, networks, reconcile, routes, store, supervise, sys, view};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Threads of the runtime: requests are short and wait for other processes.
const WORKERS: usize = 4;
/// How long requests under way may take to end when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

type Level = reload::Handle<Targets, tracing_subscriber::Registry>;

pub(crate) fn run() -> Result<()> {
    let inherited = sys::inherited_sockets();
    let config = Config::from_args()?;
    if config.validate_only {
        println!("configuration OK");
        return Ok(());
    }
    let level = start_logging(&config);
    if !rustix::process::geteuid().is_root() {
        bail!(
            "gantryd needs to be run as root; for one container without a daemon use: gantry --standalone run"
        );
    }
    for dir in [&config.data_root, &config.exec_root] {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))?;
    }
    let _pid_file = PidFile::lock(&config.pidfile)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS.min(std::thread::available_parallelism().map_or(1, Into::into).max(2)))
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(config, inherited, level));
    // A thread may wait for a child that outlives us.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config, inherited: Vec<OwnedFd>, level: Level) -> Result<()> {
    // Installed first: a stop that comes during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let address = match &config.containerd {
        Some(address) => address.clone(),
        None => {
            let own = supervise::Own::new(&config);
            let pid = own.ensure().await?;
            let address = own.socket.clone();
            tokio::spawn(own.keep(pid));
            address
        }
    };
    let store = store::Store::open(&config.data_root)?;
    let networks = networks::Networks::start(&config, &store).await?;
    let hosts = config.hosts.clone();
    let group = config.group.clone();
    let ctx: Shared = Arc::new(Ctx {
        containerd: Containerd::new(&address),
        view: view::View::default(),
        store,
        events: events::Events::new(),
        networks,
        config,
    });
    let (ready, first_round) = oneshot::channel();
    tokio::spawn(reconcile::run(ctx.clone(), ready));
    tokio::select! {
        done = first_round => done.context("the view could not be built")?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }

    let (stop, stopped) = watch::channel(false);
    let mut servers = Vec::new();
    let mut sockets = Vec::new();
    let router = routes::router(ctx.clone());
    for listener in listen(&hosts, &group, inherited, &mut sockets)? {
        servers.push(tokio::spawn(http::serve(listener, router.clone(), stopped.clone())));
    }
    sys::notify_service_manager("READY=1");
    tracing::info!(containerd = %address.display(), "API listens on {}", texts(&hosts));

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload_configuration(&ctx, &level),
        }
    }
    sys::notify_service_manager("STOPPING=1");
    tracing::info!("stopping; containers and containerd are left running");
    stop.send_replace(true);
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
    let drained = futures::future::join_all(servers);
    let _ = tokio::time::timeout(DRAIN, drained).await;
    Ok(())
}

fn texts(hosts: &[Host]) -> String {
    let text = |host: &Host| match host {
        Host::Unix(path) => format!("unix://{}", path.display()),
        Host::Tcp(address) => format!("tcp://{address}"),
        Host::Inherited => "fd://".to_owned(),
    };
    hosts.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn listen(
    hosts: &[Host],
    group: &str,
    mut inherited: Vec<OwnedFd>,
    sockets: &mut Vec<PathBuf>,
) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for host in hosts {
        match host {
            Host::Unix(path) => {
                listeners.push(Listener::Unix(bind_unix(path, group)?));
                sockets.push(path.clone());
            }
            Host::Tcp(address) => {
                tracing::warn!(
                    address,
                    "the API on TCP is not authenticated: every local process is root here"
                );
                let listener = std::net::TcpListener::bind(address)
                    .with_context(|| format!("listen on tcp://{address}"))?;
                listener.set_nonblocking(true)?;
                listeners.push(Listener::Tcp(TcpListener::from_std(listener)?));
            }
            Host::Inherited => {
                if inherited.is_empty() {
                    bail!("fd://: no socket was passed by the service manager");
                }
                for fd in inherited.drain(..) {
                    let listener = std::os::unix::net::UnixListener::from(fd);
                    listener.set_nonblocking(true)?;
                    listeners.push(Listener::Unix(UnixListener::from_std(listener)?));
                }
            }
        }
    }
    Ok(listeners)
}

/// Binds a socket of mode 0660 in place of a dead one; a live one is somebody else's.
fn bind_unix(path: &Path, group: &str) -> Result<UnixListener> {
    let step = || format!("listen on unix://{}", path.display());
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("{}: another process listens there", step());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(step)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(step),
        _ => {}
    }
    // No moment in which others could connect: made without any permission for them.
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = std::os::unix::net::UnixListener::bind(path);
    rustix::process::umask(old);
    let listener = bound.with_context(step)?;
    match group_id(group) {
        Some(gid) => std::os::unix::fs::chown(path, None, Some(gid)).with_context(step)?,
        None if group != "docker" => bail!("group {group} not found"),
        None => tracing::debug!("no group docker: the socket is root's alone"),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).with_context(step)?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

fn group_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// One daemon for one pid file, by a lock that no killed process can leave behind.
struct PidFile {
    /// Holds the lock.
    _file: std::fs::File,
    path: PathBuf,
}

impl PidFile {
    fn lock(path: &Path) -> Result<PidFile> {
        use rustix::fs::{FlockOperation, flock};
        use std::os::unix::fs::MetadataExt;
        let step = || format!("open pid file {}", path.display());
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let mut options = std::fs::File::options();
        options.create(true).truncate(false).read(true).write(true);
        loop {
            let mut file = options.open(path).with_context(step)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let pid = std::fs::read_to_string(path).unwrap_or_default();
                bail!("process with PID {} is still running (pid file {})", pid.trim(), path.display());
            }
            // One that has just stopped may have removed the file between our open and our lock.
            let locked = file.metadata().with_context(step)?;
            if std::fs::metadata(path).is_ok_and(|named| named.ino() == locked.ino()) {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(PidFile { _file: file, path: path.to_owned() });
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Still locked: whoever opens it now is refused, or sees that it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What SIGHUP changes: the log level. The rest is named once.
fn reload_configuration(ctx: &Ctx, level: &Level) {
    sys::notify_service_manager("RELOADING=1");
    match Config::from_args() {
        Ok(config) => {
            let _ = level.reload(targets(&config));
            let attributes =
                [("name".to_owned(), host_name()), ("debug".to_owned(), config.debug.to_string())];
            ctx.events.publish("daemon", "reload", ctx.store.engine_id(), attributes.into());
            tracing::info!(
                level = config.log_level,
                debug = config.debug,
                "configuration reloaded: the log level; other keys need a restart"
            );
        }
        Err(error) => tracing::error!("configuration not reloaded: {error:#}"),
    }
    sys::notify_service_manager("READY=1");
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn targets(config: &Config) -> Targets {
    let level = match (config.debug, config.log_level.as_str()) {
        (true, _) | (_, "debug") => LevelFilter::DEBUG,
        (_, "warn") => LevelFilter::WARN,
        (_, "error" | "fatal") => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    Targets::new().with_target("engine", level).with_default(LevelFilter::WARN)
}

fn start_logging(config: &Config) -> Level {
    let (filter, handle) = reload::Layer::new(targets(config));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    handle
}
