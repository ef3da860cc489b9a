//! What the shim knows, in the bundle, for one that adopts the containers after a SIGKILL: the state of an upgrade
//! without its connections, written when something has changed and before anybody is told of it. It is not synced: it
//! has to outlive the process, not the machine.

use super::{STATE_VERSION, without_descriptors};
use crate::container::Shim;
use proto::task::bundle;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// Most bytes of a state: the longest queue of events, and all execs.
const MAX_STATE: u64 = 256 << 20;

#[derive(Serialize)]
struct Leaving<'a> {
    version: u32,
    shim: &'a Shim,
}

#[derive(Deserialize)]
struct Left {
    version: u32,
    shim: Shim,
}

/// Writes the state if something has changed.
pub(crate) fn keep(shim: &mut Shim) {
    if !(std::mem::take(&mut shim.changed) || shim.publisher.must_be_written()) {
        return;
    }
    shim.publisher.written();
    let obsolete = std::mem::take(&mut shim.obsolete);
    let written = serde_json::to_vec(&Leaving { version: STATE_VERSION, shim }).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|text| replace(&text)) {
        crate::complain!("write {}: {error}", bundle::SHIM_STATE);
    }
    obsolete.into_iter().for_each(|path| drop(std::fs::remove_file(path)));
}

fn replace(text: &[u8]) -> std::io::Result<()> {
    let beside = format!(".{}", bundle::SHIM_STATE);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?.write_all(text)?;
    std::fs::rename(beside, bundle::SHIM_STATE)
}

/// The shim ends in good order, and leaves nothing to be adopted but events that no daemon has taken.
pub(crate) fn forget(shim: &Shim) {
    if shim.publisher.is_empty() {
        let _ = std::fs::remove_file(bundle::SHIM_STATE);
    }
}

/// What an earlier shim has left; every descriptor in it is of /dev/null.
pub(crate) fn left() -> Result<Shim, Box<dyn std::error::Error>> {
    use std::io::Read;
    let mut text = Vec::new();
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(bundle::SHIM_STATE);
    opened
        .map_err(|e| format!("open {}: {e}", bundle::SHIM_STATE))?
        .take(MAX_STATE)
        .read_to_end(&mut text)?;
    let left: Left = without_descriptors(|| serde_json::from_slice(&text))
        .map_err(|e| format!("read {}: {e}", bundle::SHIM_STATE))?;
    if left.version != STATE_VERSION {
        return Err(format!("state version {} is not {STATE_VERSION}", left.version).into());
    }
    Ok(left.shim)
}

/// Descriptors that the daemon has kept, which runs `adopt` and holds them meanwhile.
#[derive(Deserialize, Default)]
pub(crate) struct Kept {
    process: i32,
    descriptors: BTreeMap<String, i32>,
    #[serde(skip)]
    pidfd: Option<OwnedFd>,
}

impl Kept {
    /// From what the daemon says on standard input; an empty text is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Kept, Box<dyn std::error::Error>> {
        if text.trim_ascii().is_empty() {
            return Ok(Kept::default());
        }
        let mut kept: Kept = serde_json::from_slice(text).map_err(|e| format!("read what was kept: {e}"))?;
        let daemon = Pid::from_raw(kept.process).ok_or("read what was kept: no process")?;
        kept.pidfd = Some(pidfd_open(daemon, PidfdFlags::empty())?);
        Ok(kept)
    }

    pub(crate) fn get(&self, name: &str) -> Option<OwnedFd> {
        let (pidfd, number) = (self.pidfd.as_ref()?, self.descriptors.get(name)?);
        let got = pidfd_getfd(pidfd, *number, PidfdGetfdFlags::empty());
        got.inspect_err(|e| crate::complain!("take {name}: {}", std::io::Error::from(*e))).ok()
    }
}
