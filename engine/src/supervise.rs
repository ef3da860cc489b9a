//! containerd-lite as our own: found by its socket or started, watched by its pidfd, started again when it dies,
//! and left running when we stop.

use crate::config::Config;
use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

const BINARY: &str = "containerd-lite";
/// How long a start may take until the socket answers.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A pause before starting it again when it has died soon after its start.
const RETRY: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);

/// Its folders and socket.
pub(crate) struct Own {
    binary: PathBuf,
    root: PathBuf,
    state: PathBuf,
    pub(crate) socket: PathBuf,
    log: PathBuf,
    level: String,
}

impl Own {
    pub(crate) fn new(config: &Config) -> Own {
        let state = config.exec_root.join(BINARY);
        let beside =
            std::env::current_exe().ok().map(|exe| exe.with_file_name(BINARY)).filter(|path| path.exists());
        Own {
            binary: beside.unwrap_or_else(|| BINARY.into()),
            root: config.data_root.join(BINARY),
            socket: state.join("containerd.sock"),
            log: state.join("containerd-lite.log"),
            level: if config.debug { "debug".to_owned() } else { config.log_level.clone() },
            state,
        }
    }

    /// The pid of the one that listens, started if none does.
    pub(crate) async fn ensure(&self) -> Result<Pid> {
        if let Some(pid) = listening(&self.socket) {
            return Ok(pid);
        }
        std::fs::create_dir_all(&self.state).with_context(|| format!("create {}", self.state.display()))?;
        std::fs::create_dir_all(&self.root).with_context(|| format!("create {}", self.root.display()))?;
        let watch = SocketWatch::new(&self.state)?;
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--state")
            .arg(&self.state)
            .arg("--address")
            .arg(&self.socket)
            .args(["--log-level", &self.level])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = crate::sys::spawn_detached(&mut command)
            .with_context(|| format!("start {}", self.binary.display()))?;
        tracing::info!(pid = child.id(), "containerd-lite started");
        let child_pid = child.id();
        // Reaped whenever it ends; the thread is no reason for the daemon to stay.
        let (report, exited) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || report.send(child.wait()))?;
        tokio::pin!(exited);
        let listens = async {
            loop {
                if let Some(pid) = listening(&self.socket) {
                    return Ok::<_, anyhow::Error>(pid);
                }
                watch.changed().await?;
            }
        };
        tokio::select! {
            pid = listens => pid,
            status = &mut exited => bail!(
                "{} ended before it listened ({}); its log is {}",
                self.binary.display(),
                status.map_or_else(|e| e.to_string(), |s| s.map_or_else(|e| e.to_string(), |s| s.to_string())),
                self.log.display()
            ),
            () = tokio::time::sleep(START_DEADLINE) => bail!(
                "{} (pid {child_pid}) does not listen on {} after {} s",
                self.binary.display(), self.socket.display(), START_DEADLINE.as_secs()
            ),
        }
    }

    /// Waits for its end and starts it again, for ever.
    pub(crate) async fn keep(self, mut pid: Pid) {
        loop {
            let since = Instant::now();
            if let Err(error) = ended(pid).await {
                tracing::warn!(%error, "containerd-lite cannot be watched");
                tokio::time::sleep(RETRY).await;
            }
            tracing::warn!(pid = pid.as_raw_nonzero(), "containerd-lite has ended");
            if since.elapsed() < SOON {
                tokio::time::sleep(RETRY).await;
            }
            pid = loop {
                match self.ensure().await {
                    Ok(pid) => break pid,
                    Err(error) => {
                        tracing::error!("containerd-lite not started: {error:#}");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            };
        }
    }
}

/// The process that accepts connections there.
fn listening(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    crate::sys::peer_pid(&stream).ok()
}

async fn ended(pid: Pid) -> std::io::Result<()> {
    let fd = match crate::sys::pidfd(pid) {
        Ok(fd) => crate::sys::readable(fd)?,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(error),
    };
    fd.readable().await.map(drop)
}

/// Wakes when a name appears in the state directory; the socket is bound last.
struct SocketWatch(AsyncFd<std::os::fd::OwnedFd>);

impl SocketWatch {
    fn new(dir: &Path) -> Result<SocketWatch> {
        use rustix::fs::inotify;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            dir,
            inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB,
        )?;
        Ok(SocketWatch(crate::sys::readable(fd)?))
    }

    /// A bound socket does not listen yet for a moment: a look every so often besides the wake-ups.
    async fn changed(&self) -> Result<()> {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let mut buffer = [0_u8; 4096];
        tokio::select! {
            ready = self.0.readable() => {
                let mut ready = ready?;
                while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok() {}
                ready.clear_ready();
            }
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        Ok(())
    }
}
