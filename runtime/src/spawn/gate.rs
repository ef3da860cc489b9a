//! The gate between create and start: a FIFO in the state directory.
//!
//! The container's first process holds it open for reading and writing and waits for a byte; the descriptor is
//! closed by its exec. So whether anybody has it open for reading is the kernel's own answer to "created or
//! running", and stays right if `start` is killed half-way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::state::StateDir;

/// Make it and open it for the process that is going to wait.
pub(crate) fn make(dir: &StateDir) -> Result<OwnedFd> {
    let path = dir.gate();
    let name = || format!("exec fifo {}", path.display());
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)).step(name)?;
    // Open for writing too: a reader alone would see the end of the file when a look-in closes it.
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(name)
}

/// In the container's process: wait to be started.
pub(crate) fn wait(gate: &OwnedFd) -> Result<()> {
    let mut byte = [0; 1];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(drop).step(|| "wait at the exec fifo".into()),
        }
    }
}

fn open_for_start(dir: &StateDir) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir.gate(), flags, Mode::empty()).ok()
}

pub(crate) fn is_waiting(dir: &StateDir) -> bool {
    open_for_start(dir).is_some()
}

/// Let the waiting process go and wait until it has executed its program or has ended.
pub(crate) fn open(dir: &StateDir) -> Result<()> {
    let gate = open_for_start(dir)
        .ok_or_else(|| Error::WrongState("cannot start an already running container".into()))?;
    rustix::io::write(&gate, b"0").step(|| "write to the exec fifo".into())?;
    // An error condition on the writing side: no reader is left.
    let mut poll = [PollFd::from_borrowed_fd(gate.as_fd(), PollFlags::empty())];
    loop {
        match rustix::event::poll(&mut poll, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.step(|| "wait for the container's process".into())?;
                break;
            }
        }
    }
    let _ = std::fs::remove_file(dir.gate());
    Ok(())
}
