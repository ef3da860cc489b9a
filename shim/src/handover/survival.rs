//! What the shim knows, in the bundle, for one that adopts the containers after a SIGKILL: the state of an upgrade
//! without its connections, written when something has changed and before anybody is told of it. It is not synced: it
//! has to outlive the process, not the machine.

use super::{STATE_VERSION, without_descriptors};
use crate::container::Shim;
use crate::events::Publisher;
use proto::task::bundle;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Most bytes of a state: the longest queue of events, and all execs.
const MAX_STATE: u64 = 256 << 20;
/// A file of more bytes is not written in place, but replaced.
const MAX_IN_PLACE: u64 = 1 << 20;

#[derive(Serialize)]
struct Leaving<'a> {
    version: u32,
    shim: &'a Shim,
}

#[derive(Deserialize)]
struct Left<T> {
    version: u32,
    /// As a state without a [`Head`] says it.
    #[serde(default)]
    taken: String,
    shim: T,
}

/// The open file of the state. A file that is made anew costs most filesystems more than all else that a shim does, so
/// that there is one for as long as the shim lives: a new state is written where the present one is not, and counts once
/// the first line, which one call writes, says so. Whoever reads it after a SIGKILL has one of the two as a whole.
pub(crate) struct StateFile {
    file: File,
    head: Head,
}

/// The first line, of one length: where the state is, and how many events of its queue were taken after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    at: u64,
    length: u64,
    taken: u32,
}

impl Head {
    const LENGTH: u64 = 33;

    fn text(self) -> String {
        format!("{:010} {:010} {:010}\n", self.at, self.length, self.taken)
    }

    fn parse(text: &[u8]) -> Option<Head> {
        let line = std::str::from_utf8(text.get(..Head::LENGTH as usize)?).ok()?;
        let mut words = line.strip_suffix('\n')?.split(' ');
        let mut next = || words.next()?.parse().ok();
        let head = Head { at: next()?, length: next()?, taken: u32::try_from(next()?).ok()? };
        (head.text() == line).then_some(head)
    }

    /// Of a state of `length` bytes beside this one.
    fn beside(self, length: u64) -> Head {
        let fits_before = Head::LENGTH + length <= self.at;
        let at = if fits_before { Head::LENGTH } else { self.at + self.length };
        Head { at, length, taken: 0 }
    }
}

impl StateFile {
    fn create(text: &[u8]) -> io::Result<StateFile> {
        let beside = format!(".{}", bundle::SHIM_STATE);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let head = Head { at: Head::LENGTH, length: text.len() as u64, taken: 0 };
        file.write_all(&[head.text().as_bytes(), text].concat())?;
        std::fs::rename(beside, bundle::SHIM_STATE)?;
        Ok(StateFile { file, head })
    }

    fn replace(&mut self, text: &[u8]) -> io::Result<()> {
        let head = self.head.beside(text.len() as u64);
        if head.at + head.length > MAX_IN_PLACE {
            *self = StateFile::create(text)?;
            return Ok(());
        }
        self.file.write_all_at(text, head.at)?;
        self.write_head(head)
    }

    /// Another event was taken.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        self.write_head(Head { taken: self.head.taken + 1, ..self.head })
    }

    fn write_head(&mut self, head: Head) -> io::Result<()> {
        self.file.write_all_at(head.text().as_bytes(), 0)?;
        self.head = head;
        Ok(())
    }
}

/// Writes the state if something has changed.
pub(crate) fn keep(shim: &mut Shim) {
    if !(std::mem::take(&mut shim.changed) || shim.publisher.must_be_written()) {
        return;
    }
    let obsolete = std::mem::take(&mut shim.obsolete);
    let file = shim.publisher.state_file();
    let leaving = Leaving { version: STATE_VERSION, shim };
    let text = serde_json::to_vec(&leaving).map_err(io::Error::from);
    let written = text.and_then(|text| match file {
        Some(mut file) => file.replace(&text).map(|()| file),
        None => StateFile::create(&text),
    });
    let file = written.inspect_err(|error| crate::complain!("write {}: {error}", bundle::SHIM_STATE)).ok();
    shim.publisher.written(file);
    obsolete.into_iter().for_each(|path| drop(std::fs::remove_file(path)));
}

/// The shim ends in good order, and leaves nothing to be adopted but events that no daemon has taken.
pub(crate) fn forget(shim: &Shim) {
    if shim.publisher.is_empty() {
        let _ = std::fs::remove_file(bundle::SHIM_STATE);
    }
}

/// The state that a shim has left in a folder, and how many of its events were taken since.
fn read<T: DeserializeOwned>(folder: &Path) -> Result<(Left<T>, u32), Box<dyn std::error::Error>> {
    use std::io::Read;
    let path = folder.join(bundle::SHIM_STATE);
    let step = |e: &dyn std::fmt::Display| format!("read {}: {e}", path.display());
    let mut text = Vec::new();
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(&path);
    let mut opened = opened.map_err(|e| step(&e))?.take(MAX_STATE);
    opened.read_to_end(&mut text).map_err(|e| step(&e))?;
    let head = Head::parse(&text);
    let state = match head {
        Some(head) => {
            let end = head.at.checked_add(head.length).ok_or_else(|| step(&"it has no end"))?;
            text.get(head.at as usize..end as usize).ok_or_else(|| step(&"it is too short"))?
        }
        None => &text,
    };
    let left: Left<T> = without_descriptors(|| serde_json::from_slice(state)).map_err(|e| step(&e))?;
    if left.version != STATE_VERSION {
        return Err(format!("state version {} is not {STATE_VERSION}", left.version).into());
    }
    let taken = head.map_or_else(|| left.taken.parse().unwrap_or_default(), |head| head.taken);
    Ok((left, taken))
}

/// A part of what the shim in a folder knows, or knew.
pub(crate) fn part<T: DeserializeOwned>(folder: &Path) -> Option<T> {
    read(folder).ok().map(|(left, _)| left.shim)
}

/// The events of one that nobody follows, where it has left some.
pub(crate) fn left_events(folder: &Path) -> Option<Publisher> {
    #[derive(Deserialize)]
    struct Events {
        publisher: Publisher,
    }
    let (left, taken) = read::<Events>(folder).ok()?;
    let mut events = left.shim.publisher;
    events.were_taken(taken);
    Some(events).filter(|events| !events.is_empty())
}

/// What an earlier shim has left; every descriptor in it is of /dev/null.
pub(crate) fn left() -> Result<Shim, Box<dyn std::error::Error>> {
    let (mut left, taken) = read::<Shim>(Path::new(""))?;
    left.shim.publisher.were_taken(taken);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_where_the_present_one_is_not() {
        let present = Head { at: Head::LENGTH, length: 100, taken: 7 };
        let after = present.beside(50);
        assert_eq!(after, Head { at: Head::LENGTH + 100, length: 50, taken: 0 });
        assert_eq!(after.beside(100).at, Head::LENGTH);
        assert_eq!(after.beside(101).at, Head::LENGTH + 150);
        assert_eq!(Head::parse(present.text().as_bytes()), Some(present));
        assert_eq!(Head::parse(b"{\"version\":1,\"taken\":\"0000000000\",\"shim\":{}}"), None);
    }
}
