//! A shim of ours that is killed is followed by another, which adopts what the bundle says and what is kept here.
//!
//! Kept are duplicates of descriptors that would end with the shim: pidfds, which tell the exit status of a process that
//! ends while no shim is there; terminals' masters, whose last close is the end of the terminal; the FIFOs' reading ends,
//! which keep what a container wrote before it ended; the client's end and the process's end of its input.

use super::Tasks;
use super::bundle::Bundle;
use super::shim::{self, Shim};
use super::ttrpc::Failure;
use crate::error::{Context, Error, Result};
use proto::task::api::{CloseIoRequest, StateRequest, StateResponse};
use proto::task::bundle;
use proto::task::gantry::{Descriptor, DescriptorsRequest, DescriptorsResponse};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::PoisonError;
use std::time::Duration;

/// How often an adoption is tried: the one that adopts may be killed too.
const ATTEMPTS: usize = 8;
/// How long a caller waits for a killed shim to be followed by another.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Most descriptors kept of one task.
const MAX_KEPT: usize = 256;

/// By name; see gantry_control.proto.
pub(super) type Kept = BTreeMap<String, OwnedFd>;

impl Tasks {
    /// Another shim in the place of one that was killed.
    pub(super) async fn adopt(&self, shim: &Shim) -> Result<()> {
        if shim.bundle.can_be_adopted() {
            hold(&shim.bundle, &mut *shim.kept.lock().await);
        }
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            match self.adopt_once(shim).await {
                Ok(()) => {
                    shim.keep_descriptors().await;
                    return Ok(());
                }
                // Without anything to adopt, or not of ours.
                Err(error) if !shim.bundle.can_be_adopted() => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::unavailable("no attempt")))
    }

    async fn adopt_once(&self, shim: &Shim) -> Result<()> {
        let earlier = shim.earlier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sharing = self.sharing(shim);
        if sharing.is_empty() {
            let kept = shim.kept.lock().await;
            self.adopt_bundle(&shim.bundle, earlier.as_deref(), &kept).await?;
        } else {
            // One shim adopts the whole group, and needs what is kept of each.
            let mut kept = copy(&*shim.kept.lock().await);
            for other in sharing {
                kept.append(&mut copy(&*other.kept.lock().await));
            }
            self.adopt_bundle(&shim.bundle, earlier.as_deref(), &kept).await?;
        }
        let bootstrap = shim.bundle.bootstrap().ok_or_else(|| Error::not_found("bootstrap.json"))?;
        shim.reconnect(&bootstrap).await?;
        let request = StateRequest { id: shim.bundle.id.clone(), exec_id: String::new() };
        match shim.ask::<_, StateResponse>("State", &request, Some(shim::LOAD)).await {
            Err(Failure::Status(status)) => Err(Error::remote(status.code, &status.message)),
            _ => Ok(()),
        }
    }

    /// Runs `adopt`; `kept` stays open meanwhile.
    pub(super) async fn adopt_bundle(
        &self,
        bundle: &Bundle,
        earlier: Option<&File>,
        kept: &Kept,
    ) -> Result<()> {
        if !bundle.can_be_adopted() {
            return Err(Error::not_found("the state of its shim"));
        }
        let binary = bundle.binary().ok_or_else(|| Error::not_found("shim-binary-path"))?;
        let descriptors: BTreeMap<&str, i32> =
            kept.iter().map(|(name, fd)| (&**name, fd.as_raw_fd())).collect();
        let json = serde_json::json!({"process": std::process::id(), "descriptors": descriptors});
        self.launcher.adopt(&binary, earlier, bundle, json.to_string().as_bytes()).await?;
        tracing::info!(namespace = bundle.namespace, id = bundle.id, "a task was adopted");
        Ok(())
    }
}

fn copy(kept: &Kept) -> Kept {
    kept.iter().filter_map(|(name, fd)| Some((name.clone(), fd.try_clone().ok()?))).collect()
}

/// Holds what a process writes, and execs that have just been started: what has no name, the shim has to be asked for.
fn hold(bundle: &Bundle, kept: &mut Kept) {
    let folders = std::iter::once(bundle.path.clone()).chain(bundle.group_folder());
    for entry in folders.flat_map(std::fs::read_dir).flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_fifo()) && name.starts_with(bundle::IO_PREFIX) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            if let Ok(fifo) = rustix::fs::open(entry.path(), flags, Mode::empty()) {
                kept.insert(name, fifo);
            }
        } else if let Some(exec_id) = name.strip_suffix(".pid").filter(|_| name != bundle::INIT_PID)
            && let Some(pid) =
                std::fs::read_to_string(entry.path()).ok().and_then(|pid| pid.trim().parse().ok())
            && let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()))
        {
            kept.entry(format!("{}/{exec_id}.pid", bundle.id)).or_insert(pidfd);
        }
    }
}

/// A duplicate of everything that the shim has named. It may be killed after it has answered: what cannot be taken from it
/// any more stays as it was taken before.
fn renew(
    before: &mut Kept,
    named: Vec<Descriptor>,
    duplicate: impl Fn(&Descriptor) -> Option<OwnedFd>,
) -> Kept {
    let named = named.into_iter().take(MAX_KEPT);
    let take = |descriptor: Descriptor| {
        let copy = duplicate(&descriptor).or_else(|| before.remove(&descriptor.name))?;
        Some((descriptor.name, copy))
    };
    named.filter_map(take).collect()
}

impl Shim {
    /// Takes duplicates of what the next shim would need, in place of those taken before.
    pub(super) async fn keep_descriptors(&self) {
        if !self.bundle.can_be_adopted() {
            return;
        }
        // Held over the call: what is closed between its answer and the duplication would be kept open else.
        let mut kept = self.kept.lock().await;
        match self.duplicate(&mut kept).await {
            Ok(mut taken) => {
                hold(&self.bundle, &mut taken);
                *kept = taken;
            }
            Err(error) => {
                tracing::debug!(namespace = self.bundle.namespace, id = self.bundle.id, %error, "keep descriptors");
            }
        }
    }

    /// Before an exec is started: it may write, and end, before anything else of it is kept.
    pub(super) async fn hold_named(&self) {
        if self.bundle.can_be_adopted() {
            hold(&self.bundle, &mut *self.kept.lock().await);
        }
    }

    async fn duplicate(&self, before: &mut Kept) -> Result<Kept> {
        let response: DescriptorsResponse = self.control("Descriptors", &DescriptorsRequest {}).await?;
        let pid = Pid::from_raw(response.process).ok_or_else(|| Error::invalid("a shim without a pid"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).step(|| "open the shim's process")?;
        // A group's shim names those of its other tasks too.
        let own = format!("{}/", self.bundle.id);
        let mut named = response.descriptors;
        named.retain(|descriptor| descriptor.name.starts_with(&own));
        Ok(renew(before, named, |descriptor| {
            let copy = pidfd_getfd(&pidfd, descriptor.number, PidfdGetfdFlags::empty()).ok()?;
            let stat = rustix::fs::fstat(&copy).ok()?;
            ((stat.st_dev, stat.st_ino) == (descriptor.device, descriptor.inode)).then_some(copy)
        }))
    }

    /// Gives up what is kept of a process; of its descriptors, those whose name begins with `what`.
    pub(super) async fn release(&self, exec_id: &str, what: &str) {
        let prefix = format!("{}/{exec_id}.{what}", self.bundle.id);
        self.kept.lock().await.retain(|name, _| !name.starts_with(&prefix));
    }

    /// CloseIO. No other duplicate is taken before the shim has heard of it, and none of that input after.
    pub(super) async fn close_input(&self, request: &CloseIoRequest) -> Result<()> {
        let name = format!("{}/{}.stdin", request.id, request.exec_id);
        loop {
            let before = self.life.borrow().clone();
            let result = {
                let mut kept = self.kept.lock().await;
                kept.remove(&name);
                self.ask("CloseIO", request, Some(shim::CONTROL)).await
            };
            match result {
                Err(Failure::Closed) if self.is_followed(&before).await => {}
                result => return result.map_err(|failure| self.error("CloseIO", failure)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_shim_cannot_give_stays_as_it_was() {
        let open = || OwnedFd::from(tempfile::tempfile().expect("a file"));
        let named = |name: &str| Descriptor { name: name.to_owned(), ..Descriptor::default() };
        let mut before = Kept::from(["stdin", "pid", "closed since"].map(|name| (name.to_owned(), open())));
        let stdin = before["stdin"].as_raw_fd();
        let live = |descriptor: &Descriptor| (descriptor.name == "pid").then(open);
        let kept = renew(&mut before, ["stdin", "pid", "gone"].map(named).into(), live);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["pid", "stdin"]);
        assert_eq!(kept["stdin"].as_raw_fd(), stdin);
    }
}
