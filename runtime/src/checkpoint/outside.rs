//! What a container has from outside: bind mounts, its cgroups' view, masks, namespaces that it joined, and streams that
//! its caller gave it. criu does not save these; at restore they are put under the names it knows them by.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::criu::Message;
use crate::bundle::read_document;
use crate::error::{Error, Result, Step};
use crate::inroot::{self, Kind};
use crate::setup::mounts::{self, What};
use crate::spec::Linux;
use crate::state;

const FILE: &str = "rung.json";
/// Covers a masked file.
const NULL: &str = "/dev/null";

/// Names of what lies outside, kept beside the images.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outside {
    /// What config.json calls a mount, and what criu does.
    mounts: BTreeMap<String, String>,
    /// What criu calls the standard streams that come from outside.
    streams: BTreeMap<i32, String>,
}

/// A mount that config.json asks for: its place in the container, and what is mounted there.
pub(crate) struct Given {
    pub(crate) place: String,
    pub(crate) source: String,
    /// Passed over where the container has no such path.
    optional: bool,
}

impl Given {
    /// In the order of config.json.
    pub(crate) fn all(steps: &[mounts::Step], masked: &[String]) -> Vec<Given> {
        let mut all = Vec::new();
        for step in steps {
            match &step.what {
                What::Bind { source, .. } => all.push(Given {
                    place: step.destination.clone(),
                    source: source.clone(),
                    optional: false,
                }),
                What::Cgroup { hierarchies, .. } => {
                    all.extend(hierarchies.iter().map(|(name, path)| Given {
                        place: format!("{}/{name}", step.destination).trim_end_matches('/').to_owned(),
                        source: path.clone(),
                        optional: false,
                    }))
                }
                _ => {}
            }
        }
        all.extend(masked.iter().map(|path| Given {
            place: path.clone(),
            source: NULL.into(),
            optional: true,
        }));
        all
    }
}

impl Outside {
    /// Looks at a container that lives, and tells criu what not to save.
    pub(crate) fn look(
        pid: i32,
        given: &[Given],
        joined: &[Joined],
        message: &mut Message,
    ) -> Result<Outside> {
        let root = rustix::fs::open(
            format!("/proc/{pid}/root"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step(|| "open the container's root".into())?;
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).step(|| "read its mounts".into())?;
        let mut outside = Outside::default();
        for mount in given {
            let fd = match inroot::open(root.as_fd(), &mount.place) {
                Err(error) if mount.optional && error.kind() == std::io::ErrorKind::NotFound => continue,
                fd => fd.step(|| format!("open {} of the container", mount.place))?,
            };
            let (id, kind) = mount_of(&fd)?;
            if mount.optional && kind == FileType::Directory {
                // Covered by a filesystem of the container's own.
                continue;
            }
            let point = point_of(&table, id)
                .ok_or_else(|| Error::invalid(format!("{} is no mount of the container", mount.place)))?;
            // criu writes the place between brackets.
            if point.contains(']') {
                return Err(Error::invalid(format!(
                    "a mount at {point:?}, with a bracket, cannot be checkpointed"
                )));
            }
            if outside.mounts.contains_key(&mount.place) {
                continue;
            }
            let key = format!("rung-{}", outside.mounts.len());
            message.message(23, &pair(&point, &key));
            outside.mounts.insert(mount.place.clone(), key);
        }
        for Joined { kind, file, name, .. } in joined {
            let inode = fs::metadata(format!("/proc/{pid}/ns/{file}"))
                .step(|| format!("stat its {kind} namespace"))?
                .ino();
            message.text(37, &format!("{file}[{inode}]:{name}"));
        }
        for number in 0..=2 {
            if let Some(key) = stream(pid, number, &table)? {
                if !key.starts_with("pipe:") {
                    message.text(37, &key);
                }
                outside.streams.insert(number, key);
            }
        }
        Ok(outside)
    }

    pub(crate) fn write(&self, images: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("names can be written");
        state::replace(&images.join(".rung.json"), &images.join(FILE), &text, 0o600)
    }

    pub(crate) fn read(images: &Path) -> Result<Outside> {
        read_document(images.join(FILE))
    }

    /// Tells criu what config.json has for each of its names. Every one must have something.
    pub(crate) fn give_mounts(&self, given: &[Given], message: &mut Message) -> Result<()> {
        for (place, key) in &self.mounts {
            let mount = given.iter().find(|mount| mount.place == *place).ok_or_else(|| {
                Error::invalid(format!(
                    "the checkpoint has a mount at {place:?}, for which config.json has none"
                ))
            })?;
            message.message(23, &pair(key, &mount.source));
        }
        Ok(())
    }

    /// Our own standard streams in the place of the former ones, as descriptors for criu.
    pub(crate) fn give_streams(&self, message: &mut Message) -> Result<Vec<OwnedFd>> {
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let mut passed: BTreeMap<&str, OwnedFd> = BTreeMap::new();
        for (number, key) in &self.streams {
            let Some(stream) = usize::try_from(*number).ok().and_then(|number| own.get(number)) else {
                continue;
            };
            if !passed.contains_key(key.as_str()) {
                passed.insert(key, inherit(message, key, stream)?);
            }
        }
        Ok(passed.into_values().collect())
    }
}

/// A namespace that was there before the container, and how criu is told of it.
pub(crate) struct Joined {
    kind: &'static str,
    /// Under /proc/PID/ns.
    file: &'static str,
    name: &'static str,
    path: String,
}

/// Those that config.json names by path; of others criu knows nothing that would be outside.
pub(crate) fn joined(linux: &Linux) -> Vec<Joined> {
    let rows = [("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS")];
    let named = rows.into_iter().filter_map(|(kind, file, name)| {
        let path =
            linux.namespace(kind).map(|namespace| namespace.path.clone()).filter(|path| !path.is_empty())?;
        Some(Joined { kind, file, name, path })
    });
    named.collect()
}

/// Gives them to criu.
pub(crate) fn give_namespaces(joined: &[Joined], message: &mut Message) -> Result<Vec<OwnedFd>> {
    let give = |Joined { kind, name, path, .. }: &Joined, message: &mut Message| {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open the {kind} namespace {path}"))?;
        inherit(message, name, &fd)
    };
    joined.iter().map(|namespace| give(namespace, message)).collect()
}

/// A copy with a number that criu uses for nothing else.
fn inherit(message: &mut Message, key: &str, fd: impl AsFd) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    const ABOVE_STANDARD: i32 = 10;
    let copy = rustix::io::fcntl_dupfd_cloexec(fd, ABOVE_STANDARD).step(|| "copy a descriptor".into())?;
    let mut entry = Message::default();
    entry.text(1, key);
    entry.number(2, copy.as_raw_fd() as u64);
    message.message(27, &entry);
    Ok(copy)
}

fn pair(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.text(1, key);
    message.text(2, value);
    message
}

/// The number of the mount that a descriptor is on, and what the descriptor is.
fn mount_of(fd: impl AsFd) -> Result<(u64, FileType)> {
    let wanted = StatxFlags::MNT_ID | StatxFlags::TYPE;
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted).step(|| "stat a mount".into())?;
    Ok((stat.stx_mnt_id, FileType::from_raw_mode(u32::from(stat.stx_mode))))
}

/// Where a mount is, by its number (proc_pid_mountinfo(5)).
fn point_of(table: &str, id: u64) -> Option<String> {
    let id = id.to_string();
    let row = table.lines().find(|row| row.split(' ').next() == Some(&id))?;
    row.split(' ').nth(4).map(unescape)
}

/// Blanks, tabs, line ends and backslashes stand in octal.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, letter) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, letter);
    }
    plain
}

/// criu's name of a standard stream that its caller holds the other end of, or whose file lies outside.
fn stream(pid: i32, number: i32, table: &str) -> Result<Option<String>> {
    let path = format!("/proc/{pid}/fd/{number}");
    let Ok(link) = fs::read_link(&path) else { return Ok(None) };
    let link = link.to_string_lossy();
    if link.starts_with("pipe:[") {
        return Ok(Some(link.into_owned()));
    }
    let Ok(stat) = fs::metadata(&path) else { return Ok(None) };
    let kind = FileType::from_raw_mode(stat.mode());
    let info =
        fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).step(|| "read a stream's state".into())?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    let is_inside = id.is_none_or(|id| point_of(table, id).is_some());
    if is_inside || !matches!(kind, FileType::RegularFile | FileType::CharacterDevice | FileType::Fifo) {
        return Ok(None);
    }
    Ok(Some(format!("file[{:x}:{:x}]", id.unwrap_or_default(), stat.ino())))
}

/// What the mounts at restore need in a root file system that may be fresh, or in the mount from outside that they lie in.
pub(crate) fn make_places(rootfs: &OwnedFd, steps: &[mounts::Step], given: &[Given]) -> Result<()> {
    let is_new = |step: &&mounts::Step| matches!(step.what, What::New { .. } | What::Classic { .. });
    for step in steps.iter().filter(is_new) {
        make_place(rootfs, &step.destination, Kind::Directory, given)?;
    }
    for (index, mount) in given.iter().enumerate().filter(|(_, mount)| !mount.optional) {
        let is_dir = fs::metadata(&mount.source).step(|| format!("stat {}", mount.source))?.is_dir();
        let kind = if is_dir { Kind::Directory } else { Kind::File };
        make_place(rootfs, &mount.place, kind, &given[..index])?;
    }
    Ok(())
}

fn make_place(rootfs: &OwnedFd, place: &str, kind: Kind, before: &[Given]) -> Result<()> {
    // Below /proc, /sys and /dev there is nothing before criu has mounted them.
    if ["/proc/", "/sys/", "/dev/"].iter().any(|dir| place.starts_with(dir)) {
        return Ok(());
    }
    let around = before.iter().rev().find_map(|outer| {
        let rest = place.strip_prefix(outer.place.trim_end_matches('/'))?;
        (!outer.optional && rest.starts_with('/')).then_some((outer, rest))
    });
    let step = || format!("make {place} in the root file system");
    match around {
        Some((outer, rest)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let source = rustix::fs::open(&outer.source, flags, Mode::empty())
                .step(|| format!("open {}", outer.source))?;
            inroot::open_or_create(source.as_fd(), rest, kind, false).step(step)?
        }
        None => inroot::open_or_create(rootfs.as_fd(), place, kind, false).step(step)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let table = "21 1 0:5 / /a rw - proc proc rw\n210 1 0:6 / /b\\040c\\134d rw - tmpfs tmpfs rw\n";
        assert_eq!(point_of(table, 21).as_deref(), Some("/a"));
        assert_eq!(point_of(table, 210).as_deref(), Some("/b c\\d"));
        assert_eq!(point_of(table, 2), None);
    }
}
