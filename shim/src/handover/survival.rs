//! What the shim knows, in the bundle, for one that adopts the containers after a SIGKILL: the state of an upgrade
//! without its connections, written when something has changed and before anybody is told of it. It is not synced: it
//! has to outlive the process, not the machine.

use super::{STATE_VERSION, without_descriptors};
use crate::container::Shim;
use crate::events::{Publisher, Record, taken_text};
use proto::task::bundle;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of a state: the longest queue of events, and all execs.
const MAX_STATE: u64 = 256 << 20;

#[derive(Serialize)]
struct Leaving<'a> {
    version: u32,
    /// Events of the queue that were taken after this was written; the number is changed in place ([`Record`]).
    taken: String,
    shim: &'a Shim,
}

#[derive(Deserialize)]
struct Left<T> {
    version: u32,
    /// None in a state that always says it by the queue.
    #[serde(default)]
    taken: String,
    shim: T,
}

impl<T> Left<T> {
    fn taken(&self) -> u32 {
        self.taken.parse().unwrap_or_default()
    }
}

/// Writes the state if something has changed.
pub(crate) fn keep(shim: &mut Shim) {
    if !(std::mem::take(&mut shim.changed) || shim.publisher.must_be_written()) {
        return;
    }
    let obsolete = std::mem::take(&mut shim.obsolete);
    let leaving = Leaving { version: STATE_VERSION, taken: taken_text(0), shim };
    let written = serde_json::to_vec(&leaving).map_err(std::io::Error::from).and_then(|text| {
        let file = replace(&text)?;
        let name = b"\"taken\":\"";
        let at = text.windows(name.len()).position(|part| part == name).map_or(0, |at| at + name.len());
        Ok(Record { file, offset: at as u64 })
    });
    let record = written.inspect_err(|error| crate::complain!("write {}: {error}", bundle::SHIM_STATE)).ok();
    shim.publisher.written(record);
    obsolete.into_iter().for_each(|path| drop(std::fs::remove_file(path)));
}

fn replace(text: &[u8]) -> std::io::Result<File> {
    let beside = format!(".{}", bundle::SHIM_STATE);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    std::fs::rename(beside, bundle::SHIM_STATE)?;
    Ok(file)
}

/// The shim ends in good order, and leaves nothing to be adopted but events that no daemon has taken.
pub(crate) fn forget(shim: &Shim) {
    if shim.publisher.is_empty() {
        let _ = std::fs::remove_file(bundle::SHIM_STATE);
    }
}

fn read(folder: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let path = folder.join(bundle::SHIM_STATE);
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
    opened.take(MAX_STATE).read_to_end(&mut text)?;
    Ok(text)
}

/// The events of one that nobody follows, where it has left some.
pub(crate) fn left_events(folder: &Path) -> Option<Publisher> {
    #[derive(Deserialize)]
    struct Events {
        publisher: Publisher,
    }
    let mut left: Left<Events> = serde_json::from_slice(&read(folder).ok()?).ok()?;
    left.shim.publisher.were_taken(left.taken());
    Some(left.shim.publisher).filter(|events| left.version == STATE_VERSION && !events.is_empty())
}

/// What an earlier shim has left; every descriptor in it is of /dev/null.
pub(crate) fn left() -> Result<Shim, Box<dyn std::error::Error>> {
    let text = read(Path::new("")).map_err(|e| format!("open {}: {e}", bundle::SHIM_STATE))?;
    let mut left: Left<Shim> = without_descriptors(|| serde_json::from_slice(&text))
        .map_err(|e| format!("read {}: {e}", bundle::SHIM_STATE))?;
    if left.version != STATE_VERSION {
        return Err(format!("state version {} is not {STATE_VERSION}", left.version).into());
    }
    left.shim.publisher.were_taken(left.taken());
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
