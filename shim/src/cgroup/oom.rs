//! Kills by the kernel for want of memory. What wakes us says only that there may be one; the count of kills tells.

use super::Cgroup;
use super::files::Files;
use crate::error::Error;
use crate::handover::descriptor;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::time::{Duration, Instant};

/// Watches one cgroup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// An eventfd registered with `memory.oom_control` (version 1), or an inotify watch of `memory.events` (version 2).
    #[serde(with = "descriptor")]
    wakes: OwnedFd,
    /// Kills that were told.
    told: u64,
    /// When to look once more. After an upgrade at once: it may have come between.
    #[serde(skip, default = "Again::at_once")]
    again: Option<Again>,
}

/// In version 1 the kernel wakes us before it chooses whom to kill, writes its report between, and wakes us once: the
/// count is looked at again for some seconds, ever more seldom.
#[derive(Debug)]
struct Again {
    at: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(3);

impl Again {
    fn after(pause: Duration) -> Option<Again> {
        (pause < LAST_PAUSE).then(|| Again { at: Instant::now() + pause, pause })
    }

    fn at_once() -> Option<Again> {
        Some(Again { at: Instant::now(), pause: FIRST_PAUSE })
    }
}

impl Watch {
    /// None where the cgroup has no memory controller.
    pub(crate) fn begin(cgroup: &Cgroup) -> Result<Option<Watch>, Error> {
        let step = |e: std::io::Error| Error::step("watch for out of memory", e);
        let wakes = match cgroup {
            Cgroup::V1(controllers) => {
                let Some(files) = controllers.get("memory") else { return Ok(None) };
                register(files).map_err(step)?
            }
            Cgroup::V2(files) => {
                let path = files.dir().join("memory.events");
                if !path.exists() {
                    return Ok(None);
                }
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let wakes = inotify::init(flags).map_err(|e| step(e.into()))?;
                inotify::add_watch(&wakes, &path, inotify::WatchFlags::MODIFY).map_err(|e| step(e.into()))?;
                wakes
            }
        };
        Ok(Some(Watch { wakes, told: kills(cgroup).unwrap_or_default(), again: None }))
    }

    /// Goes on with an earlier shim's watch: what was killed meanwhile has not been told.
    pub(crate) fn adopt(self, cgroup: &Cgroup) -> Result<Option<Watch>, Error> {
        Ok(Watch::begin(cgroup)?.map(|watch| Watch { told: self.told, again: Again::at_once(), ..watch }))
    }

    /// When to ask for kills again, though nothing wakes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.again.as_ref().map(|again| again.at)
    }

    pub(crate) fn wakes(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }

    /// True when the kernel has killed since the last call.
    pub(crate) fn has_killed(&mut self, cgroup: &Cgroup) -> bool {
        let (mut buffer, mut was_woken) = ([0; 1024], false);
        while rustix::io::read(&self.wakes, &mut buffer).is_ok_and(|count| count != 0) {
            was_woken = true;
        }
        if was_woken && matches!(cgroup, Cgroup::V1(_)) {
            self.again = Again::after(FIRST_PAUSE);
        } else if let Some(Again { pause, .. }) = self.again.take_if(|again| again.at <= Instant::now()) {
            self.again = Again::after(pause * 2);
        }
        // A cgroup that is gone has no count, and has woken us for the last time.
        let Some(kills) = kills(cgroup) else { return false };
        kills > std::mem::replace(&mut self.told, kills)
    }
}

fn kills(cgroup: &Cgroup) -> Option<u64> {
    let pairs = match cgroup {
        Cgroup::V1(controllers) => controllers.get("memory")?.pairs("memory.oom_control")?,
        Cgroup::V2(files) => files.pairs("memory.events")?,
    };
    Some(pairs.get("oom_kill"))
}

/// `EVENTFD FILE` into `cgroup.event_control`; both may be closed for us then, but the eventfd.
fn register(files: &Files) -> std::io::Result<OwnedFd> {
    let wakes = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(files.dir().join("memory.oom_control"))?;
    let words = format!("{} {}", wakes.as_raw_fd(), control.as_raw_fd());
    // Opened without creating: in a cgroup without the file nothing may appear.
    std::fs::OpenOptions::new()
        .write(true)
        .open(files.dir().join("cgroup.event_control"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, words.as_bytes()))?;
    Ok(wakes)
}
