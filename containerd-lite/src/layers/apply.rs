//! Unpacks an archive beneath a folder, on descriptors.
//!
//! What keeps an entry inside: its parent folder is opened beneath the root, links on the way resolved as if the
//! root were `/`, and held by descriptor; the entry itself is made, replaced, chowned and chmodded by its own
//! name in that folder or by its own descriptor, never through a link. A hard link's target is found the same way.
//!
//! Onto an overlay's upper folder, a whiteout becomes the kernel's form (a 0/0 character device; the attribute
//! `trusted.overlay.opaque`). Onto a plain folder it deletes what it names, unless this layer brought it.

use super::tar::{Archive, Entry, Kind};
use crate::error::{Context, Error, Result};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Entries of one layer.
const MAX_ENTRIES: u64 = 4_000_000;
/// Bytes one layer may unpack to.
const MAX_BYTES: u64 = 1 << 42;
/// Links followed on the way to one entry, as in the kernel.
const MAX_LINKS: usize = 40;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs's own bookkeeping, not a whiteout.
const META: &[u8] = b".wh..wh.";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// What the layer is unpacked onto.
pub(super) enum Target {
    /// A folder with all that is below; whiteouts delete.
    Plain,
    /// The empty upper folder of an overlay over these, nearest first; whiteouts are left as marks.
    Upper { lowers: Vec<OwnedFd> },
}

struct Unpack {
    root: OwnedFd,
    target: Target,
    /// The parent folder of the last entry: archives list a folder's entries one after the other.
    last_parent: Option<(PathBuf, OwnedFd)>,
    /// Times of folders, set at the end: making entries in them changes them.
    folder_times: Vec<(PathBuf, (i64, u32))>,
    /// On a plain target: what this layer brought, which its own whiteouts do not touch.
    brought: HashSet<PathBuf>,
    bytes: u64,
    buffer: Vec<u8>,
}

/// Unpacks the whole of `reader` into the folder `root`.
pub(super) fn unpack(root: OwnedFd, target: Target, reader: impl Read) -> Result<()> {
    let mut unpack = Unpack {
        root,
        target,
        last_parent: None,
        folder_times: Vec::new(),
        brought: HashSet::new(),
        bytes: 0,
        buffer: vec![0; 128 << 10],
    };
    let mut archive = Archive::new(reader);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(Error::invalid(format_args!("layer has more than {MAX_ENTRIES} entries")));
        }
        let name = || String::from_utf8_lossy(&entry.name).into_owned();
        unpack
            .entry(&entry, &mut archive)
            .map_err(|error| error.context(format_args!("unpack {:?}", name())))?;
    }
    unpack.set_folder_times()?;
    archive.drain()
}

/// The components of a name as it stands, `.` and `..` taken out; nothing when it leads out of the root.
fn clean(name: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if !path.pop() {
                    return None;
                }
            }
            _ => path.push(OsStr::from_bytes(part)),
        }
    }
    Some(path)
}

fn escapes(name: &[u8]) -> Error {
    Error::invalid(format_args!("{:?} leads out of the layer's root", String::from_utf8_lossy(name)))
}

impl Unpack {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        let path = clean(&entry.name).ok_or_else(|| escapes(&entry.name))?;
        let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
            return self.root_entry(entry);
        };
        let parent = self.parent(parent_path)?;
        let result = match name.as_bytes() {
            OPAQUE => self.opaque(parent.as_fd(), parent_path),
            hidden if hidden.starts_with(META) => Ok(()),
            hidden if hidden.starts_with(WHITEOUT) => {
                self.whiteout(parent.as_fd(), parent_path, OsStr::from_bytes(&hidden[WHITEOUT.len()..]))
            }
            _ => self.place(parent.as_fd(), &path, name, entry, archive),
        };
        self.last_parent = Some((parent_path.to_owned(), parent));
        result
    }

    /// `./`: the root itself gets the entry's owner, mode and times.
    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::invalid("the layer's root can only be a folder"));
        }
        set_attributes(self.root.as_fd(), entry)?;
        self.folder_times.push((PathBuf::new(), entry.mtime));
        Ok(())
    }

    /// The folder an entry goes into, made where it is missing.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd> {
        if let Some((last, fd)) = self.last_parent.take()
            && last == path
        {
            return Ok(fd);
        }
        if path.as_os_str().is_empty() {
            return open_beneath(&self.root, Path::new("."), OFlags::empty())
                .step(|| "open the layer's root");
        }
        match open_beneath(&self.root, path, OFlags::empty()) {
            Ok(fd) => Ok(fd),
            // Missing, or a whiteout of this layer stands in the way.
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_folders(path),
            Err(error) => Err(Error::step(format_args!("open folder {}", path.display()), error)),
        }
    }

    /// Walks to `path` folder by folder. A link is followed as if the root were `/`; `..` in one goes back along
    /// the descriptors, so it cannot pass the root.
    fn make_folders(&mut self, path: &Path) -> Result<OwnedFd> {
        let step = || format!("make folder {}", path.display());
        let root = open_beneath(&self.root, Path::new("."), OFlags::empty()).step(step)?;
        let mut walked: Vec<(OwnedFd, PathBuf)> = vec![(root, PathBuf::new())];
        let mut ahead: VecDeque<Vec<u8>> =
            path.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part == b".." {
                if walked.len() > 1 {
                    walked.pop();
                }
                continue;
            }
            let (here, here_path) = walked.last().expect("the root is never popped");
            let name = OsStr::from_bytes(&part);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match fs::openat(here, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    self.make_missing(here.as_fd(), &here_path.join(name), name)?;
                    fs::openat(here, name, flags, Mode::empty())
                }
                result => result,
            }
            .step(step)?;
            match FileType::from_raw_mode(fs::fstat(&next).step(step)?.st_mode) {
                FileType::Directory => {
                    let next_path = here_path.join(name);
                    walked.push((next, next_path));
                }
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::step(step(), Errno::LOOP));
                    }
                    let link = fs::readlinkat(here, name, Vec::new()).step(step)?;
                    if link.as_bytes().starts_with(b"/") {
                        walked.truncate(1);
                    }
                    let parts = link.as_bytes().split(|byte| *byte == b'/');
                    let parts: Vec<_> = parts.filter(|part| !part.is_empty() && *part != b".").collect();
                    for part in parts.into_iter().rev() {
                        ahead.push_front(part.to_vec());
                    }
                }
                // A whiteout of this layer, then something beneath it: the new folder hides the old one.
                FileType::CharacterDevice if is_whiteout(here.as_fd(), name) => {
                    fs::unlinkat(here, name, AtFlags::empty()).step(step)?;
                    make_folder(here.as_fd(), name)?;
                    let fd = open_entry(here.as_fd(), name).step(step)?;
                    set_opaque(fd.as_fd())?;
                    ahead.push_front(part);
                }
                _ => return Err(Error::step(step(), Errno::NOTDIR)),
            }
        }
        // What only names the folder (O_PATH) is exchanged for what can work on it.
        let (folder, _) = walked.pop().expect("the root is never popped");
        open_entry(folder.as_fd(), OsStr::new(".")).step(step)
    }

    /// A folder the archive has no entry for. Over lower layers it is theirs, copied up: same owner and mode.
    fn make_missing(&self, parent: BorrowedFd<'_>, path: &Path, name: &OsStr) -> Result<()> {
        let step = || format!("make folder {}", path.display());
        make_folder(parent, name)?;
        let Target::Upper { lowers } = &self.target else { return Ok(()) };
        let found = lowers.iter().find_map(|lower| {
            let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fs::openat2(lower, path, flags, Mode::empty(), how).ok()
        });
        if let Some(lower) = found {
            let stat = fs::fstat(&lower).step(step)?;
            let fd = open_entry(parent, name).step(step)?;
            fs::fchown(&fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).step(step)?;
            fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777)).step(step)?;
        }
        Ok(())
    }

    /// Makes an entry, in place of what may be there.
    fn place<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &Path,
        name: &OsStr,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<()> {
        let hides = self.clear(parent, name, entry.kind)?;
        match entry.kind {
            Kind::Directory => {
                match fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(Error::step("mkdir", error)),
                }
                let fd = open_entry(parent, name).step(|| "open")?;
                if hides {
                    set_opaque(fd.as_fd())?;
                }
                set_attributes(fd.as_fd(), entry)?;
                self.folder_times.push((path.to_owned(), entry.mtime));
            }
            Kind::File => self.file(parent, name, entry, archive)?,
            Kind::HardLink => self.hard_link(parent, name, entry)?,
            Kind::Symlink => {
                fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name).step(|| "symlink")?;
                set_node_attributes(parent, name, entry)?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = fs::makedev(entry.device.0, entry.device.1);
                fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device).step(|| "mknod")?;
                set_node_attributes(parent, name, entry)?;
            }
        }
        if matches!(self.target, Target::Plain) {
            self.brought.insert(path.to_owned());
        }
        Ok(())
    }

    /// Removes what an entry replaces; a folder stays for a folder. True when that was a whiteout of this layer.
    fn clear(&self, parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<bool> {
        let there = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(Error::step("stat", error)),
        };
        if there == FileType::Directory && kind == Kind::Directory {
            return Ok(false);
        }
        let hides = matches!(self.target, Target::Upper { .. }) && is_whiteout(parent, name);
        remove_tree(parent, name)?;
        Ok(hides)
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<()> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > MAX_BYTES {
            return Err(Error::invalid(format_args!("layer unpacks to more than {MAX_BYTES} bytes")));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).step(|| "create")?;
        let mut file = File::from(fd);
        let mut content = archive.content();
        loop {
            let read = content.read(&mut self.buffer).step(|| "read")?;
            if read == 0 {
                break;
            }
            file.write_all(&self.buffer[..read]).step(|| "write")?;
        }
        set_attributes(file.as_fd(), entry)?;
        fs::futimens(&file, &timestamps(entry.mtime)).step(|| "set times")
    }

    /// The target must be there, beneath the root, and is taken as it is: a link is linked, not followed.
    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<()> {
        let target = clean(&entry.link).ok_or_else(|| escapes(&entry.link))?;
        let (Some(folder), Some(target_name)) = (target.parent(), target.file_name()) else {
            return Err(Error::invalid("hard link to the layer's root"));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = open_beneath(&self.root, folder, OFlags::empty())
            .step(|| format!("hard link to {}", target.display()))?;
        fs::linkat(&folder, target_name, parent, name, AtFlags::empty())
            .step(|| format!("hard link to {}", target.display()))
    }

    fn whiteout(&mut self, parent: BorrowedFd<'_>, parent_path: &Path, name: &OsStr) -> Result<()> {
        if name.is_empty() || name == "." || name == ".." {
            return Err(Error::invalid(format_args!("invalid whiteout name {name:?}")));
        }
        if matches!(self.target, Target::Plain) {
            // Only what was there before this layer; what came with it stays.
            let path = parent_path.join(name);
            return if self.brought.contains(&path) { Ok(()) } else { remove_tree(parent, name) };
        }
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0);
                fs::mknodat(parent, name, FileType::CharacterDevice, mode, 0).step(|| "make whiteout")
            }
            // This layer brought a folder of that name: it does not merge with the one below.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                set_opaque(open_entry(parent, name).step(|| "open")?.as_fd())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Error::step("stat", error)),
        }
    }

    fn opaque(&mut self, folder: BorrowedFd<'_>, path: &Path) -> Result<()> {
        match &self.target {
            Target::Plain => {
                for name in names(folder)? {
                    if !self.brought.contains(&path.join(&name)) {
                        remove_tree(folder, &name)?;
                    }
                }
                Ok(())
            }
            // The kernel merges the root whatever its attribute says: every name below gets its own mark.
            Target::Upper { lowers } if path.as_os_str().is_empty() => {
                for lower in lowers {
                    for name in names(lower.as_fd())? {
                        match fs::mknodat(folder, &name, FileType::CharacterDevice, Mode::from_raw_mode(0), 0)
                        {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(error) => return Err(Error::step("make whiteout", error)),
                        }
                    }
                }
                Ok(())
            }
            Target::Upper { .. } => set_opaque(folder),
        }
    }

    fn set_folder_times(&mut self) -> Result<()> {
        for (path, mtime) in self.folder_times.iter().rev() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            // Replaced by a later entry, it is no folder any more.
            let Ok(folder) = open_beneath(&self.root, path, OFlags::RDONLY | OFlags::NOFOLLOW) else {
                continue;
            };
            fs::futimens(&folder, &timestamps(*mtime)).step(|| format!("set times of {}", path.display()))?;
        }
        Ok(())
    }
}

/// A folder, with every link on the way resolved beneath the root.
fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The folder of this name itself.
fn open_entry(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

fn make_folder(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).step(|| "mkdir")?;
    let fd = open_entry(parent, name).step(|| "open")?;
    // Whatever the umask is.
    fs::fchmod(&fd, Mode::from_raw_mode(0o755)).step(|| "chmod")
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(folder).step(|| "read folder")? {
        let entry = entry.step(|| "read folder")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes an entry and what is beneath it, without following a link. Absent is fine.
fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // std removes trees by descriptor, links unfollowed; the path leads to the parent that is held here.
        Err(Errno::ISDIR | Errno::PERM) => {
            let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
            std::fs::remove_dir_all(path).step(|| "remove what was there")
        }
        Err(error) => Err(Error::step("remove what was there", error)),
    }
}

fn is_whiteout(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    })
}

fn set_opaque(folder: BorrowedFd<'_>) -> Result<()> {
    fs::fsetxattr(folder, OVERLAY_OPAQUE, b"y", XattrFlags::empty()).step(|| format!("set {OVERLAY_OPAQUE}"))
}

/// Attributes an image may set. Not `trusted.*`, above all not overlayfs's own, which point into other layers;
/// not labels of security modules, which are this host's to give.
fn allowed(attribute: &str) -> bool {
    attribute == "security.capability"
        || attribute.starts_with("user.")
        || attribute == "system.posix_acl_access"
        || attribute == "system.posix_acl_default"
}

/// Owner, then attributes, then mode: a change of owner clears capabilities and set-id bits.
fn set_attributes(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).step(|| "chown")?;
    fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).step(|| "chmod")?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| allowed(name)) {
        match fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Error::step(format_args!("set attribute {name}"), error)),
        }
    }
    Ok(())
}

/// The same for what cannot be opened: links, devices, FIFOs. By name in the held folder, links unfollowed.
fn set_node_attributes(parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).step(|| "chown")?;
    if entry.kind != Kind::Symlink {
        // Just made here, by us, as no link.
        fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).step(|| "chmod")?;
    }
    fs::utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).step(|| "set times")
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
