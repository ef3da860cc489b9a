use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::Value;

use super::print;
use crate::args::Global;
use crate::cgroup::stats::{OutOfMemory, stats};
use crate::container::{Container, Status};
use crate::error::{Error, Result, Step};
use crate::rootless::require_rights;

pub(super) fn events(global: &Global, id: &str, interval: Duration, once: bool) -> Result<i32> {
    require_rights(global.rootless)?;
    let container = Container::load(&global.root, id)?;
    if container.status() == Status::Stopped {
        return Err(Error::WrongState(format!("container with id {id} is not running")));
    }
    let paths = container.record.cgroup_paths.clone();
    let show = |kind: &str, data: Option<Value>| {
        // Written by hand for the order, which readers know.
        let id = Value::from(id);
        let data = data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
        print(&format!("{{\"type\":\"{kind}\",\"id\":{id}{data}}}\n"))
    };
    if once {
        return show("stats", Some(stats(&paths)));
    }
    let pidfd = container.pidfd()?;
    let mut memory = OutOfMemory::watch(&paths)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polls = [
            PollFd::from_borrowed_fd(memory.descriptor(), PollFlags::IN),
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut polls, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result.step(|| "wait for events".into())?,
        };
        let [oom, ended] = polls.map(|poll| !poll.revents().is_empty());
        if oom && memory.happened() {
            show("oom", None)?;
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            show("stats", Some(stats(&paths)))?;
            next += interval;
        }
    }
}
