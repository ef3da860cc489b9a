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
mod tests {
    use super::super::tar::tests::{pax, raw};
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    /// A root with a canary beside it, which no archive may touch.
    struct World {
        dir: tempfile::TempDir,
    }

    const CANARY: &str = "untouched";

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            for folder in ["root", "lower", "outside"] {
                std::fs::create_dir(dir.path().join(folder)).unwrap();
            }
            let world = World { dir };
            std::fs::write(world.path("outside/canary"), CANARY).unwrap();
            std::fs::set_permissions(world.path("outside/canary"), PermissionsExt::from_mode(0o600)).unwrap();
            world
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn root(&self, path: &str) -> PathBuf {
            self.path("root").join(path)
        }

        fn open(&self, path: &str) -> OwnedFd {
            File::open(self.path(path)).unwrap().into()
        }

        fn plain(&self, entries: &[Vec<u8>]) -> Result<()> {
            self.run(Target::Plain, entries)
        }

        fn upper(&self, entries: &[Vec<u8>]) -> Result<()> {
            self.run(Target::Upper { lowers: vec![self.open("lower")] }, entries)
        }

        fn run(&self, target: Target, entries: &[Vec<u8>]) -> Result<()> {
            let mut bytes = entries.concat();
            bytes.extend([0; 1024]);
            let result = unpack(self.open("root"), target, bytes.as_slice());
            let outside: Vec<_> = std::fs::read_dir(self.path("outside")).unwrap().flatten().collect();
            let canary = std::fs::symlink_metadata(self.path("outside/canary")).unwrap();
            assert_eq!(outside.len(), 1, "something was made outside");
            assert_eq!((canary.mode() & 0o7777, canary.nlink()), (0o600, 1), "the canary was changed");
            assert_eq!(std::fs::read_to_string(self.path("outside/canary")).unwrap(), CANARY);
            result
        }

        fn is_whiteout(&self, path: &str) -> bool {
            let meta = std::fs::symlink_metadata(self.root(path)).unwrap();
            meta.file_type().is_char_device() && meta.rdev() == 0
        }

        fn is_opaque(&self, path: &str) -> bool {
            let mut value = [0; 1];
            matches!(fs::getxattr(self.root(path), OVERLAY_OPAQUE, &mut value), Ok(1)) && value == *b"y"
        }
    }

    fn file(name: &str, content: &str) -> Vec<u8> {
        raw(b'0', name.as_bytes(), b"", content.as_bytes())
    }

    fn folder(name: &str) -> Vec<u8> {
        raw(b'5', name.as_bytes(), b"", b"")
    }

    fn link(name: &str, target: &str) -> Vec<u8> {
        raw(b'2', name.as_bytes(), target.as_bytes(), b"")
    }

    fn hard_link(name: &str, target: &str) -> Vec<u8> {
        raw(b'1', name.as_bytes(), target.as_bytes(), b"")
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../x", "a/../../x", "..", "../../outside/canary", "/../x", "./../x"] {
            let world = World::new();
            assert!(world.plain(&[file(name, "x")]).is_err(), "{name}");
            assert!(world.upper(&[file(name, "x")]).is_err(), "{name}");
        }
        let world = World::new();
        world.plain(&[file("/abs", "x"), file("a/../b", "x"), file("./c//d/./e", "x")]).unwrap();
        for name in ["abs", "b", "c/d/e"] {
            assert!(world.root(name).is_file(), "{name}");
        }
        for name in ["", ".", "./", "/"] {
            assert!(world.plain(&[file(name, "x")]).is_err() || name.ends_with('/'), "{name}");
            world.plain(&[folder(name)]).unwrap();
        }
    }

    #[test]
    fn links_on_the_way_are_resolved_beneath_the_root() {
        let world = World::new();
        let outside = world.path("outside").display().to_string();
        world.plain(&[link("abs", &outside), file("abs/x", "1")]).unwrap();
        world.plain(&[link("up", "../../../../../outside"), file("up/canary", "2")]).unwrap();
        world.plain(&[link("chain", "abs"), link("loop", "loop"), file("chain/y", "3")]).unwrap();
        assert!(world.plain(&[file("loop/x", "4")]).is_err());
        // What they name is in the root, where it was made.
        let inside = world.root(outside.trim_start_matches('/'));
        assert_eq!(std::fs::read_to_string(inside.join("x")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(inside.join("y")).unwrap(), "3");
        assert_eq!(std::fs::read_to_string(world.root("outside/canary")).unwrap(), "2");
    }

    #[test]
    fn an_entry_replaces_a_link_and_does_not_follow_it() {
        let world = World::new();
        let canary = world.path("outside/canary").display().to_string();
        for entry in [file("l", "evil"), folder("l"), raw(b'6', b"l", b"", b""), link("l", "other")] {
            world.plain(&[link("l", &canary), entry]).unwrap();
            world.upper(&[link("m", &canary), file("m", "evil")]).unwrap();
        }
        // The chmod trick: a link to a folder, then a folder entry of the same name with another mode.
        let outside = world.path("outside").display().to_string();
        world.plain(&[link("d", &outside), folder("d")]).unwrap();
        assert!(std::fs::symlink_metadata(world.root("d")).unwrap().is_dir());
        assert_eq!(std::fs::metadata(world.path("outside")).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn hard_links_stay_inside() {
        let world = World::new();
        let outside = world.path("outside").display().to_string();
        let canary = format!("{outside}/canary");
        for target in [canary.as_str(), "../outside/canary", "../../etc/passwd", "/etc/passwd", ".", ""] {
            assert!(world.plain(&[hard_link("h", target)]).is_err(), "{target}");
        }
        // Through a linked parent, and to a link: the link itself is linked.
        assert!(world.plain(&[link("p", &outside), hard_link("h", "p/canary")]).is_err());
        world.plain(&[link("s", &canary), hard_link("h", "s"), file("h", "evil")]).unwrap();
        // Written through one name it is not: an entry makes a new file.
        world.plain(&[file("a", "1"), hard_link("b", "a"), file("b", "2")]).unwrap();
        assert_eq!(std::fs::read_to_string(world.root("a")).unwrap(), "1");
        world.plain(&[file("a", "1"), hard_link("b", "./a")]).unwrap();
        assert_eq!(std::fs::metadata(world.root("a")).unwrap().nlink(), 2);
    }

    #[test]
    fn whiteouts_over_a_lower_layer_become_marks() {
        let world = World::new();
        std::fs::create_dir(world.path("lower/d")).unwrap();
        std::fs::set_permissions(world.path("lower/d"), PermissionsExt::from_mode(0o1733)).unwrap();
        std::os::unix::fs::chown(world.path("lower/d"), Some(7), Some(8)).unwrap();
        world.upper(&[file(".wh.gone", ""), file("d/.wh.x", ""), file("o/.wh..wh..opq", "")]).unwrap();
        assert!(world.is_whiteout("gone") && world.is_whiteout("d/x") && world.is_opaque("o"));
        // A folder that only the lower layer describes keeps its owner and mode.
        let d = std::fs::metadata(world.root("d")).unwrap();
        assert_eq!((d.mode() & 0o7777, d.uid(), d.gid()), (0o1733, 7, 8));
        // Deleted and made anew in one layer, in both orders: nothing of the old one shows through.
        world.upper(&[file(".wh.n1", ""), folder("n1"), folder("n2"), file(".wh.n2", "")]).unwrap();
        assert!(world.is_opaque("n1") && world.is_opaque("n2"));
        world.upper(&[file(".wh.n3", ""), file("n3/deep/f", "x")]).unwrap();
        assert!(world.is_opaque("n3") && world.root("n3/deep/f").is_file());
        world.upper(&[file("new", "x"), file(".wh.new", "")]).unwrap();
        assert!(world.root("new").is_file());
        // aufs's own files are no whiteouts.
        world.upper(&[folder(".wh..wh.plnk"), file(".wh..wh.aufs", "")]).unwrap();
        assert!(!world.root("..wh.plnk").exists() && !world.root(".wh..wh.aufs").exists());
    }

    #[test]
    fn an_opaque_root_hides_every_name_below() {
        let world = World::new();
        for name in ["a", "b"] {
            std::fs::write(world.path("lower").join(name), "").unwrap();
        }
        world.upper(&[file("a", "mine"), file(".wh..wh..opq", "")]).unwrap();
        assert!(world.root("a").is_file() && world.is_whiteout("b"));
    }

    #[test]
    fn whiteouts_on_a_plain_folder_delete_what_this_layer_did_not_bring() {
        let world = World::new();
        let outside = world.path("outside").display().to_string();
        std::fs::create_dir_all(world.root("d/sub")).unwrap();
        std::fs::write(world.root("d/old"), "").unwrap();
        symlink(&outside, world.root("link")).unwrap();
        symlink(&outside, world.root("d/link")).unwrap();
        world
            .plain(&[
                file("d/new", "x"),
                file("d/.wh..wh..opq", ""),
                file(".wh.link", ""),
                file(".wh.none", ""),
            ])
            .unwrap();
        let left: Vec<_> =
            std::fs::read_dir(world.root("d")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["new"]);
        assert!(!world.root("link").exists());
        world.plain(&[file("kept", "x"), file(".wh.kept", "")]).unwrap();
        assert!(world.root("kept").exists());
        // Through a link: beneath the root, where there is nothing.
        symlink(&outside, world.root("l2")).unwrap();
        world.plain(&[file("l2/.wh.canary", "")]).unwrap();
    }

    #[test]
    fn whiteout_names_that_mean_something_else_are_refused() {
        for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
            let world = World::new();
            std::fs::create_dir(world.root("d")).unwrap();
            assert!(world.plain(&[file(name, "")]).is_err(), "{name}");
            assert!(world.upper(&[file(name, "")]).is_err(), "{name}");
            assert!(world.root("d").exists());
        }
    }

    #[test]
    fn owners_modes_times_and_allowed_attributes() {
        let world = World::new();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let with_attributes = [
            pax(&[
                ("uid", b"1000"),
                ("gid", b"1001"),
                ("mtime", b"1234567890.5"),
                ("SCHILY.xattr.security.capability", &capability),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.security.selinux", b"x"),
            ]),
            file("f", "x"),
        ];
        let parent = [pax(&[("mtime", b"1000000000")]), folder("d"), file("d/late", "x")];
        world.plain(&[with_attributes.concat(), parent.concat()]).unwrap();
        let meta = std::fs::metadata(world.root("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o644));
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
        assert_eq!(std::fs::metadata(world.root("d")).unwrap().mtime(), 1_000_000_000);
        let mut value = [0; 64];
        assert_eq!(fs::getxattr(world.root("f"), "security.capability", &mut value), Ok(20));
        assert!(fs::getxattr(world.root("f"), "trusted.overlay.redirect", &mut value).is_err());
    }

    #[test]
    fn devices_fifos_and_changing_types() {
        let world = World::new();
        let mut device = raw(b'3', b"null", b"", b"");
        device[329..337].copy_from_slice(b"0000001\0");
        device[337..345].copy_from_slice(b"0000003\0");
        let sum: u32 = device[..512]
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        device[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        world.plain(&[device, raw(b'6', b"pipe", b"", b"")]).unwrap();
        assert_eq!(std::fs::metadata(world.root("null")).unwrap().rdev(), fs::makedev(1, 3));
        assert!(std::fs::metadata(world.root("pipe")).unwrap().file_type().is_fifo());
        // The last entry of a name counts, whatever was there.
        world.plain(&[folder("n"), file("n/x", ""), file("n", "1"), folder("n"), file("n", "2")]).unwrap();
        assert_eq!(std::fs::read_to_string(world.root("n")).unwrap(), "2");
        assert!(world.plain(&[file("n/below", "x")]).is_err());
    }

    #[test]
    fn deep_and_repeated_entries_take_no_long_time() {
        let world = World::new();
        let deep = "d/".repeat(1500);
        let mut entries = vec![[pax(&[("path", format!("{deep}f").as_bytes())]), file("x", "")].concat()];
        entries.extend((0..20_000).map(|_| file("o/.wh..wh..opq", "")));
        let start = std::time::Instant::now();
        world.upper(&entries).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(10));
    }
}
