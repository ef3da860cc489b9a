//! `--standalone`: the daemons for one command. Their state is in the user's runtime directory; images loaded there are
//! there the next time. Several commands may share them: each holds a lock, and the last one stops the daemons, unless
//! containers are still running.

use crate::client::{Client, Host, Query};
use crate::exit::{Failure, Result};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long daemons may take to listen, or to end.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The daemons of this user, and this command's share in them.
pub(crate) struct Standalone {
    dir: PathBuf,
    lock: File,
}

impl Standalone {
    /// Starts the daemons if they are not there, and waits until they answer.
    pub(crate) async fn start() -> Result<Standalone> {
        let dir = directory()?;
        let step = |what: &str, e: std::io::Error| Failure::new(1, format!("standalone: {what}: {e}"));
        let lock = File::create(dir.join("lock")).map_err(|e| step("make the lock file", e))?;
        // While one command starts the daemons the others wait here.
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| step("lock", e.into()))?;
        let standalone = Standalone { dir, lock };
        if Client::connect(standalone.host()).await.is_err() {
            standalone.launch().await?;
        }
        rustix::fs::flock(&standalone.lock, FlockOperation::LockShared)
            .map_err(|e| step("lock", e.into()))?;
        Ok(standalone)
    }

    pub(crate) fn host(&self) -> Host {
        Host::Unix(self.dir.join("gantry.sock"))
    }

    async fn launch(&self) -> Result<()> {
        let socket = self.dir.join("containerd-lite.sock");
        let manager = spawn(&self.dir, "containerd-lite", |command| {
            command.arg("--root").arg(self.dir.join("content")).arg("--state").arg(self.dir.join("tasks"));
            command.arg("--address").arg(&socket);
        })?;
        wait_for(&socket, manager, &self.dir, "containerd-lite").await?;
        let engine_socket = self.dir.join("gantry.sock");
        let engine = spawn(&self.dir, "gantryd", |command| {
            command.arg("-H").arg(format!("unix://{}", engine_socket.display()));
            command.arg("--containerd").arg(&socket);
            command
                .arg("--data-root")
                .arg(self.dir.join("data"))
                .arg("--exec-root")
                .arg(self.dir.join("run"));
            command.arg("--pidfile").arg(self.dir.join("gantryd.pid"));
        })?;
        wait_for(&engine_socket, engine, &self.dir, "gantryd").await
    }

    /// Stops the daemons if this was the last command and nothing runs.
    pub(crate) async fn finish(self) {
        if rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let running = match Client::connect(self.host()).await {
            Ok(client) => client.get::<Vec<serde_json::Value>>("/containers/json", Query::default()).await,
            Err(_) => return,
        };
        match running {
            Ok(running) if running.is_empty() => {}
            Ok(running) => {
                let count = running.len();
                eprintln!(
                    "gantry: {count} container(s) running: the daemons go on; reach them with --standalone"
                );
                return;
            }
            Err(_) => return,
        }
        for name in ["gantryd", "containerd-lite"] {
            stop(&self.dir, name).await;
        }
    }
}

/// `$XDG_RUNTIME_DIR/gantry`, or a directory of this user's in /run or /tmp; nobody else may enter it.
fn directory() -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(Failure::new(1, "--standalone needs root: rootless containers are not built yet")
            .hint("Run it with sudo, or ask for a gantryd that root has started."));
    }
    let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run"), PathBuf::from);
    let dir = base.join("gantry-standalone");
    let step = |e: std::io::Error| Failure::new(1, format!("standalone: make {}: {e}", dir.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(step)?;
    let owner = std::fs::metadata(&dir).map_err(step)?.uid();
    if owner != uid.as_raw() {
        return Err(Failure::new(1, format!("standalone: {} belongs to user {owner}", dir.display())));
    }
    Ok(dir)
}

/// Starts a daemon in a session of its own, with its log beside its socket. Returns its pid.
fn spawn(dir: &Path, name: &str, arguments: impl FnOnce(&mut Command)) -> Result<u32> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let binary = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name));
    let step = |e: std::io::Error| {
        Failure::new(1, format!("standalone: start {}: {e}", binary.display()))
            .hint("The five programs of Gantry belong into one directory, or into $PATH.")
    };
    let log = File::create(dir.join(format!("{name}.log"))).map_err(step)?;
    let mut command = Command::new(&binary);
    arguments(&mut command);
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(step)?).stderr(log).process_group(0);
    let child = command.spawn().map_err(step)?;
    std::fs::write(dir.join(format!("{name}.started")), child.id().to_string()).map_err(step)?;
    Ok(child.id())
}

/// Waits until the socket takes connections, or the daemon has ended.
async fn wait_for(socket: &Path, pid: u32, dir: &Path, name: &str) -> Result<()> {
    let until = Instant::now() + READY;
    loop {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            return Ok(());
        }
        let ended = has_ended(pid);
        if ended || Instant::now() > until {
            let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing");
            let what = if ended { "ended at once" } else { "does not listen" };
            return Err(Failure::new(1, format!("standalone: {name} {what}: {last}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn has_ended(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    // Reaps it if it is our own child; one of an earlier command is not.
    matches!(rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG), Ok(Some(_)))
        || rustix::process::test_kill_process(pid).is_err()
}

/// SIGTERM to a daemon that a command of ours started, if its pid is still that program.
async fn stop(dir: &Path, name: &str) {
    let file = dir.join(format!("{name}.started"));
    let Some(pid) = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok())
    else {
        return;
    };
    let is_it =
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| name.starts_with(comm.trim()));
    if !is_it {
        return;
    }
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let _ = rustix::process::kill_process(target, Signal::TERM);
    let until = Instant::now() + READY;
    while !has_ended(pid) && Instant::now() < until {
        tokio::time::sleep(POLL).await;
    }
    let _ = std::fs::remove_file(file);
}
