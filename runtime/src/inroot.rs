//! Paths inside a root file system that an image or a container may have filled with hostile links: every step
//! is taken by descriptor and stays beneath the root (CVE-2021-30465, CVE-2024-45310 and their kin).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::sys::files;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// What `path` names beneath `root`, as a descriptor for mounting on.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    or_walk(files::open_in_root(root, path, OFlags::PATH), root, path, false)
}

/// The same, refusing symbolic links: /proc, /sys and /dev must be what they seem (CVE-2019-16884).
pub(crate) fn open_plain(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    or_walk(files::open_in_root_plain(root, path, OFlags::PATH), root, path, true)
}

/// The same, opened for use; a link as the last part is refused.
pub(crate) fn open_for_use(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let (dir, name) = split(path).ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
    let dir = open(root, dir)?;
    Ok(rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Step by step where the filter of a container that we are in ourselves does not know openat2, whose answer for what it
/// does not know is one or the other.
fn or_walk(
    opened: io::Result<OwnedFd>,
    root: BorrowedFd<'_>,
    path: &str,
    plain: bool,
) -> io::Result<OwnedFd> {
    match opened {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            Walk::new(root, plain)?.run(path, None)
        }
        result => result,
    }
}

/// The same, making what is missing on the way: directories, and a last part of the given kind. `plain` refuses
/// links.
pub(crate) fn open_or_create(
    root: BorrowedFd<'_>,
    path: &str,
    kind: Kind,
    plain: bool,
) -> io::Result<OwnedFd> {
    let open = if plain { open_plain } else { open };
    match open(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Walk::new(root, plain)?.run(path, Some(kind))
        }
        result => result,
    }
}

/// One walk from the root down, component by component; `..` goes back up the stack and never above it.
struct Walk {
    stack: Vec<OwnedFd>,
    links: usize,
    plain: bool,
}

impl Walk {
    fn new(root: BorrowedFd<'_>, plain: bool) -> io::Result<Walk> {
        Ok(Walk { stack: vec![root.try_clone_to_owned()?], links: 0, plain })
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.stack[self.stack.len() - 1].as_fd()
    }

    /// Makes what is missing, but nothing without a kind.
    fn run(mut self, path: &str, kind: Option<Kind>) -> io::Result<OwnedFd> {
        let mut todo: Vec<String> = parts(path);
        while let Some(part) = todo.pop() {
            match part.as_str() {
                ".." => {
                    if self.stack.len() > 1 {
                        self.stack.pop();
                    }
                }
                name => {
                    let wanted = if todo.is_empty() { kind } else { kind.map(|_| Kind::Directory) };
                    self.enter(name, wanted, &mut todo)?;
                }
            }
        }
        Ok(self.stack.swap_remove(self.stack.len() - 1))
    }

    fn enter(&mut self, name: &str, wanted: Option<Kind>, todo: &mut Vec<String>) -> io::Result<()> {
        let fd = match (self.open_entry(name), wanted) {
            (Err(error), Some(wanted)) if error.kind() == io::ErrorKind::NotFound => {
                create(self.current(), name, wanted)?;
                self.open_entry(name)?
            }
            (result, _) => result?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Symlink {
            self.stack.push(fd);
            return Ok(());
        }
        self.links += 1;
        if self.plain || self.links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
        let target = target.to_str().map_err(|_| io::Error::from_raw_os_error(libc::EILSEQ))?;
        if target.starts_with('/') {
            self.stack.truncate(1);
        }
        todo.extend(parts(target));
        Ok(())
    }

    /// One name in the current directory: a mount on it is entered, a link is opened itself.
    fn open_entry(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.current(), name, flags, Mode::empty())?)
    }
}

/// The parts of a path, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// Another process may have made it meanwhile: what is there then is opened and judged like the rest.
fn create(dir: BorrowedFd<'_>, name: &str, kind: Kind) -> io::Result<()> {
    let result = match kind {
        Kind::Directory => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match result {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

/// A path's directory and last part; a path inside the root that has none names the root itself.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (dir, name) = path.rsplit_once('/')?;
    (!name.is_empty() && name != "." && name != "..")
        .then_some((if dir.is_empty() { "/" } else { dir }, name))
}

/// Remove a file or a link by name, so that something else can be made there.
pub(crate) fn unlink_if_there(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A directory with a root in it; everything is removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("rung-inroot-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("root")).expect("scratch directory");
            Scratch(dir)
        }

        fn root(&self) -> OwnedFd {
            rustix::fs::open(self.0.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .expect("root")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_is_made_outside_the_root() {
        let scratch = Scratch::new("outside");
        let canary = scratch.0.join("canary");
        fs::create_dir(&canary).expect("canary");
        let root = scratch.0.join("root");
        symlink(&canary, root.join("absolute")).expect("link");
        symlink("../canary", root.join("relative")).expect("link");
        symlink("/missing/deep", root.join("dangling")).expect("link");
        let fd = scratch.root();
        for path in ["/absolute/x/y", "/relative/x", "/dangling/x", "/../../canary/x", "/a/../../b/../c"] {
            open_or_create(fd.as_fd(), path, Kind::Directory, false)
                .unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        assert_eq!(fs::read_dir(&canary).expect("canary").count(), 0);
        assert!(root.join("missing/deep/x").is_dir());
        assert!(root.join("canary/x").is_dir());
        assert!(root.join("c").is_dir());
    }

    #[test]
    fn loops_end_and_plain_refuses_links() {
        let scratch = Scratch::new("loops");
        let root = scratch.0.join("root");
        symlink("b", root.join("a")).expect("link");
        symlink("a", root.join("b")).expect("link");
        symlink("/dir", root.join("proc")).expect("link");
        let fd = scratch.root();
        assert!(open_or_create(fd.as_fd(), "/a/x", Kind::File, false).is_err());
        let error = open_or_create(fd.as_fd(), "/proc", Kind::Directory, true).expect_err("a link");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        open_or_create(fd.as_fd(), "/x/file", Kind::File, false).expect("file");
        assert!(root.join("x/file").is_file());
    }

    /// What a walk opens is what the kernel opens.
    #[test]
    fn without_openat2_the_same_is_opened() {
        let scratch = Scratch::new("walk");
        let root = scratch.0.join("root");
        fs::create_dir_all(root.join("dir/inner")).expect("directories");
        fs::write(root.join("dir/file"), "").expect("a file");
        fs::write(scratch.0.join("outside"), "").expect("a file");
        for (target, name) in
            [("/dir", "absolute"), ("../../dir/inner", "up"), ("/outside", "out"), ("loop", "loop")]
        {
            symlink(target, root.join(name)).expect("a link");
        }
        let fd = scratch.root();
        for path in [
            "/",
            "/dir",
            "dir/file",
            "/absolute",
            "/absolute/file",
            "/up",
            "/up/../file",
            "/out",
            "/loop",
            "/../outside",
            "/dir/file/x",
            "/missing",
            "/dir/./inner/../file",
            "/dir/missing/../file",
        ] {
            let inode = |opened: io::Result<OwnedFd>| match opened {
                Ok(fd) => Ok(rustix::fs::fstat(&fd).expect("stat").st_ino),
                Err(error) => Err(error.raw_os_error()),
            };
            let walked = |plain| inode(Walk::new(fd.as_fd(), plain).and_then(|walk| walk.run(path, None)));
            assert_eq!(walked(false), inode(open(fd.as_fd(), path)), "{path}");
            assert_eq!(walked(true), inode(open_plain(fd.as_fd(), path)), "{path}, plain");
        }
        assert!(!root.join("missing").exists());
    }

    #[test]
    fn the_last_part_of_a_path() {
        assert_eq!(split("/dev/null"), Some(("/dev", "null")));
        assert_eq!(split("/x/"), Some(("/", "x")));
        for none in ["/", "", "/a/..", "x"] {
            assert_eq!(split(none), None, "{none:?}");
        }
    }
}
