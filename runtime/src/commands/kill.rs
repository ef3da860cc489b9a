use crate::args::Global;
use crate::container::{Container, Request, Status};
use crate::error::{Error, Result, Step};
use crate::rootless::require_rights;
use crate::sys;

pub(super) fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Result<i32> {
    let number =
        sys::signal::parse(signal).ok_or_else(|| Error::invalid(format!("unknown signal {signal:?}")))?;
    let container = Container::load(&global.root, id)?;
    require_rights(global.rootless)?;
    if all {
        return kill_all(&container, number);
    }
    let status = container.status();
    // Without a pid namespace of its own its processes outlive the first one.
    if status == Status::Stopped && number == libc::SIGKILL && !container.record.config.own_pid_namespace {
        container.cgroup().kill_all()?;
    }
    status.allows(Request::Kill)?;
    container.signal(number)?;
    if number == libc::SIGKILL && !container.record.config.own_pid_namespace {
        container.cgroup().kill_all()?;
    }
    Ok(0)
}

/// Also what a stopped container has left is signalled; that nothing is left is no error.
fn kill_all(container: &Container, number: i32) -> Result<i32> {
    if number == libc::SIGKILL {
        return container.cgroup().kill_all().map(|()| 0);
    }
    for pid in container.cgroup().processes()? {
        match sys::signal::kill(pid, number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result.step(|| format!("signal process {pid}"))?,
        }
    }
    Ok(0)
}
