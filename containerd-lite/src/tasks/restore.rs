//! After a restart: the bundles on disk say which tasks there are; each is taken up, finished or undone.
//!
//! | the bundle has | then |
//! |---|---|
//! | no `shim-binary-path` | nothing was started: remove it |
//! | `.creating` | Create never answered: undo it, shim and all |
//! | no container record | nobody could ever manage it: undo it |
//! | a shim that knows the task, or does not answer in time | list it |
//! | a shim that answers and does not | Delete was under way: end the shim, remove the bundle |
//! | no shim at its address, but what one has left | shim `adopt`, list it |
//! | no shim at its address, and nothing | shim `delete`, publish exit and delete, remove the bundle |

use super::adopt::Kept;
use super::bundle::Bundle;
use super::shim::{self, Shim};
use super::{Tasks, remove};
use crate::db::schema::CONTAINERS;
use crate::db::{Db, Reader};
use crate::error::{Error, Result};
use futures::StreamExt;
use proto::task::api::*;
use proto::task::process::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Shims asked at the same time.
const PARALLEL: usize = 32;
/// How long a `start` that an earlier daemon ran may still take.
const START_LEFT: Duration = Duration::from_secs(10);
/// How long a Create that an earlier daemon asked for may still take.
const CREATE_LEFT: Duration = Duration::from_secs(10);
/// How long a killed shim may take to be gone.
const KILL_LEFT: Duration = Duration::from_secs(5);

impl Tasks {
    /// Takes up every bundle. Failures are logged: one broken bundle must not keep the daemon down.
    pub(crate) async fn restore(self: &Arc<Self>, db: &Db) -> Result<()> {
        let bundles = self.folders.list()?;
        futures::stream::iter(bundles)
            .for_each_concurrent(PARALLEL, |bundle| async move {
                if let Err(error) = self.restore_one(db, &bundle).await {
                    tracing::error!(namespace = bundle.namespace, id = bundle.id, %error, "restore a task");
                }
            })
            .await;
        self.folders.remove_orphan_work()
    }

    async fn restore_one(self: &Arc<Self>, db: &Db, bundle: &Bundle) -> Result<()> {
        let Some(binary) = bundle.binary() else { return remove(bundle).await };
        if bundle.creation_unfinished() {
            tracing::info!(namespace = bundle.namespace, id = bundle.id, "undo an unfinished create");
            undo_in_shim(bundle).await;
            return self.undo_unfinished(bundle, &binary).await;
        }
        if !db.read(|tx| tx.contains(CONTAINERS, &bundle.namespace, &bundle.id))? {
            tracing::warn!(namespace = bundle.namespace, id = bundle.id, "undo a task without a container");
            undo_in_shim(bundle).await;
            return self.undo_unfinished(bundle, &binary).await;
        }
        let mut connected = connect(bundle).await;
        if connected.is_err() && self.adopt_bundle(bundle, None, &Kept::default()).await.is_ok() {
            connected = connect(bundle).await;
        }
        match connected {
            Ok(Some(shim)) => {
                let key = (bundle.namespace.clone(), bundle.id.clone());
                let shim = Arc::new(shim);
                shim.keep_descriptors().await;
                self.lock().insert(key, Some(shim.clone()));
                self.watch(shim);
                Ok(())
            }
            Ok(None) => self.undo_unfinished(bundle, &binary).await,
            Err(error) => {
                tracing::warn!(namespace = bundle.namespace, id = bundle.id, %error, "clean up after a shim");
                self.clean_up(bundle, 0).await;
                end_processes(&binary, bundle).await;
                Ok(())
            }
        }
    }

    /// Undoes a Create that nobody was told of: the shim first, so that nothing starts behind our back, then
    /// the container, then the bundle.
    pub(super) async fn undo_unfinished(&self, bundle: &Bundle, binary: &Path) -> Result<()> {
        end_processes(binary, bundle).await;
        let deleted = self.launcher.delete(binary, bundle).await;
        remove(bundle).await?;
        if let Err(error) = deleted {
            // A shim that had created nothing has nothing to delete.
            tracing::info!(namespace = bundle.namespace, id = bundle.id, %error, "shim delete");
        }
        Ok(())
    }
}

/// Takes a task down through its shim, as far as the shim answers. It may be in the middle of creating it: State
/// is answered after that, while a runtime killed half-way would leave cgroups that nobody finds again.
async fn undo_in_shim(bundle: &Bundle) {
    let Some(bootstrap) = bundle.bootstrap() else { return };
    let Ok(shim) = Shim::connect(bundle.clone(), &bootstrap).await else { return };
    let id = || bundle.id.clone();
    let asked = StateRequest { id: id(), ..Default::default() };
    let state: Result<StateResponse> = shim.call("State", &asked, Some(CREATE_LEFT)).await;
    if state.is_ok_and(|state| state.status() != Status::Created) {
        let kill =
            KillRequest { id: id(), signal: Signal::KILL.as_raw() as u32, all: true, ..Default::default() };
        let killed: Result<()> = shim.call("Kill", &kill, Some(shim::CONTROL)).await;
        if killed.is_ok() {
            let wait = WaitRequest { id: id(), ..Default::default() };
            let _: Result<WaitResponse> = shim.call("Wait", &wait, Some(shim::CONTROL)).await;
        }
    }
    let delete = DeleteRequest { id: id(), ..Default::default() };
    let _: Result<DeleteResponse> = shim.call("Delete", &delete, Some(shim::CONTROL)).await;
    shim.shut_down().await;
}

/// The shim of a bundle, or nothing when it does not know the task any more. One that takes the connection and
/// does not answer in time is listed all the same: it holds a container, and may only be slow.
async fn connect(bundle: &Bundle) -> Result<Option<Shim>> {
    let bootstrap = bundle.bootstrap().ok_or_else(|| Error::not_found("bootstrap.json"))?;
    let shim = Shim::connect(bundle.clone(), &bootstrap).await?;
    match shim.state("").await {
        Ok(state) => shim.pid.store(state.pid, Ordering::Relaxed),
        Err(error) if shim.is_closed() => return Err(error),
        Err(error) if error.is_not_found() => {
            shim.shut_down().await;
            return Ok(None);
        }
        Err(error) => {
            tracing::warn!(namespace = bundle.namespace, id = bundle.id, %error, "a shim is slow to answer");
        }
    }
    Ok(Some(shim))
}

/// Ends every process of the shim of this bundle: a `start` still under way is let finish, so that it cannot
/// leave a shim after we looked; then the shim itself is killed. Pids are held by descriptor between look and kill.
async fn end_processes(binary: &Path, bundle: &Bundle) {
    let deadline = std::time::Instant::now() + START_LEFT;
    while let Some((_, pidfd)) = find(binary, bundle).into_iter().find(|(starting, _)| *starting) {
        if !ended(pidfd, deadline.saturating_duration_since(std::time::Instant::now())).await {
            break;
        }
    }
    for (_, pidfd) in find(binary, bundle) {
        // Already gone is as good.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        ended(pidfd, KILL_LEFT).await;
    }
}

/// Waits for the end of a process, and says whether it came in time.
async fn ended(pidfd: OwnedFd, limit: Duration) -> bool {
    let wait = move || {
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        matches!(poll(&mut events, Some(&limit)), Ok(1..))
    };
    tokio::task::spawn_blocking(wait).await.unwrap_or(false)
}

/// Processes that run `binary` for this bundle, and whether they are at `start`.
fn find(binary: &Path, bundle: &Bundle) -> Vec<(bool, OwnedFd)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let serves = || {
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            // A shim that forks instead of executing itself again serves under the arguments of its `start`, but
            // leads a session of its own.
            let starting = serves_bundle(&arguments, binary, bundle)? && !leads_session(pid);
            // Another daemon may have a container of the same name: this one's shim sits in this bundle.
            let here = std::fs::read_link(entry.path().join("cwd")).ok()? == bundle.path;
            here.then_some(starting)
        };
        // The descriptor first: when the look after it fits, it holds the process we saw.
        if serves().is_some()
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && let Some(starting) = serves()
        {
            found.push((starting, pidfd));
        }
    }
    found
}

/// Whether a process leads its session: fields 1 and 6 of proc_pid_stat(5) are the same. Not by getsid(2): it answers 0
/// for the session of another pid namespace.
fn leads_session(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero().to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it is in parentheses and may hold anything.
    let session = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(3));
    session == Some(&*pid)
}

/// Whether a command line is that of this bundle's shim, and if so, whether it is its `start`.
fn serves_bundle(cmdline: &[u8], binary: &Path, bundle: &Bundle) -> Option<bool> {
    let arguments: Vec<&str> = cmdline
        .split(|byte| *byte == 0)
        .map(|argument| std::str::from_utf8(argument).unwrap_or(""))
        .collect();
    let program = Path::new(arguments.first()?).file_name()?;
    let flag = |name: &str| {
        arguments
            .windows(2)
            .find(|pair| pair[0].trim_start_matches('-') == name && pair[0].starts_with('-'))
            .map(|pair| pair[1])
    };
    let fits = program == binary.file_name()?
        && flag("namespace") == Some(&bundle.namespace)
        && flag("id") == Some(&bundle.id)
        && !arguments.contains(&"delete");
    fits.then(|| arguments.contains(&"start"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::bundle::Folders;

    #[test]
    fn a_shim_is_known_by_its_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(&dir.path().join("r"), &dir.path().join("s")).unwrap();
        let bundle = folders.create("ns", "web1", b"{}").unwrap();
        let binary = Path::new("/usr/bin/containerd-shim-runc-v2");
        for (line, want) in [
            ("/usr/bin/containerd-shim-runc-v2 -namespace ns -id web1 -address /a", Some(false)),
            ("containerd-shim-runc-v2 --namespace ns -address /a -id web1 start", Some(true)),
            ("/usr/bin/containerd-shim-runc-v2 -namespace ns -id web1 -bundle /b delete", None),
            ("/usr/bin/containerd-shim-runc-v2 -namespace ns -id web2", None),
            ("/usr/bin/containerd-shim-runc-v2 -namespace other -id web1", None),
            ("/usr/bin/vi -namespace ns -id web1", None),
            ("", None),
        ] {
            assert_eq!(serves_bundle(line.replace(' ', "\0").as_bytes(), binary, &bundle), want, "{line}");
        }
    }
}
