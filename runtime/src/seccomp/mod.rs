//! The container's system call filter: compiled from config.json once for each profile, kept in a file for exec.

pub(crate) mod cache;
mod compile;
pub(crate) mod notify;
mod numbers;

use std::os::fd::OwnedFd;
use std::path::Path;

use serde_json::value::RawValue;

use crate::error::{Error, Result, Step};
use crate::spec::Seccomp;
use crate::sys::prctl::{self, Instruction};

pub(crate) use compile::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) flags: u32,
    pub(crate) program: Vec<Instruction>,
}

pub(crate) struct Planned {
    pub(crate) filter: Filter,
    /// Who decides where the filter does not.
    pub(crate) receiver: Option<notify::Receiver>,
    pub(crate) file: cache::File,
}

/// From `linux.seccomp`, or out of `cache`, a folder of this runtime's alone.
pub(crate) fn plan(profile: &RawValue, cache: &Path) -> Result<Planned> {
    if let Some((filter, file)) = cache::find(cache, profile.get()) {
        return Ok(Planned { filter, receiver: None, file });
    }
    let seccomp: Seccomp = serde_json::from_str(profile.get()).map_err(|error| {
        Error::invalid(format!("parse config.json: linux.seccomp: {error} of that section"))
    })?;
    let filter = filter(&seccomp)?;
    let receiver = notify::receiver(&seccomp)?;
    // The file of one that asks somebody does not say whom.
    let file = match &receiver {
        None => cache::File::new(&filter, profile.get(), cache),
        Some(_) => cache::File::own(&filter),
    };
    Ok(Planned { filter, receiver, file })
}

pub(crate) fn filter(seccomp: &Seccomp) -> Result<Filter> {
    const TSYNC: u32 = 1;
    const NEW_LISTENER: u32 = 8;
    const TSYNC_ESRCH: u32 = 16;
    let mut flags = compile::flags(seccomp.flags.as_deref())?;
    if compile::notifies(seccomp) {
        // With a listener the kernel can report a failure to take all threads along only in this way.
        flags |= NEW_LISTENER | if flags & TSYNC != 0 { TSYNC_ESRCH } else { 0 };
    }
    Ok(Filter { flags, program: compile::compile(seccomp)? })
}

impl Filter {
    /// From here on only what the filter allows can be done. A listener that the profile asks for is answered.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>> {
        prctl::install_seccomp(&self.program, self.flags).step(|| "unable to init seccomp".into())
    }
}
