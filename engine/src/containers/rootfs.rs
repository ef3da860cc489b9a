//! Looking into a container's root file system from outside: a mount in a namespace of a helper thread, which is
//! gone with the thread, and paths resolved beneath its root by openat2. Image content never steers the host.

use crate::error::Error;
use crate::sys::{Namespaces, apart};
use proto::containerd::types::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A passwd or group file larger than this is not an account list.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// Runs `work` with the root directory of the snapshot behind `mounts`, read-only. `place` is any directory.
pub(crate) fn with_root<T: Send + 'static>(
    mounts: Vec<Mount>,
    place: PathBuf,
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    apart(Namespaces::Mount, move || {
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        let root = open_root(&mounts, &place)?;
        work(root.as_fd())
    })
}

fn open_root(mounts: &[Mount], place: &Path) -> io::Result<OwnedFd> {
    let [only] = mounts else {
        return Err(io::Error::other(format!("a snapshot of {} mounts is not understood", mounts.len())));
    };
    let open = |path: &Path| {
        Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    };
    if only.r#type == "bind" {
        return open(Path::new(&only.source));
    }
    // Read-only, and without the upper directory as such: it is in use or about to be.
    let layers = overlay_layers(&only.options)
        .ok_or_else(|| io::Error::other(format!("a snapshot of type {} is not understood", only.r#type)))?;
    if let [single] = &layers[..] {
        return open(Path::new(single));
    }
    // Names relative to the layers' common directory keep many layers within the one page mount(2) takes.
    let common = common_directory(&layers);
    rustix::process::chdir(&common)?;
    let relative: Vec<&str> =
        layers.iter().map(|layer| layer[common.len()..].trim_start_matches('/')).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", relative.join(":")))?;
    mount(
        "overlay",
        place,
        "overlay",
        MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID,
        options.as_c_str(),
    )?;
    open(place)
}

/// Upper directory first, as lower directories of a read-only overlay stand.
fn overlay_layers(options: &[String]) -> Option<Vec<String>> {
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let mut layers: Vec<String> = value("upperdir=").map(str::to_owned).into_iter().collect();
    layers.extend(value("lowerdir=")?.split(':').map(str::to_owned));
    Some(layers)
}

fn common_directory(paths: &[String]) -> String {
    let mut common: Vec<&str> = paths[0].split('/').collect();
    common.pop();
    for path in paths {
        let shared = path.split('/').zip(&common).take_while(|(a, b)| a == *b).count();
        common.truncate(shared);
    }
    if common.len() <= 1 { "/".to_owned() } else { common.join("/") }
}

/// Opens `path` as a process in the container would find it; never outside `root`.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn read_accounts(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    // NONBLOCK: an image may have put a FIFO there.
    let file = match open_beneath(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_ACCOUNTS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The account lists of a root file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

pub(crate) fn accounts(root: BorrowedFd<'_>) -> io::Result<Accounts> {
    Ok(Accounts { passwd: read_accounts(root, "/etc/passwd")?, group: read_accounts(root, "/etc/group")? })
}

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl Accounts {
    /// `user[:group]` by name or number, and `--group-add`; docker's sentences for what is not there.
    pub(crate) fn user(&self, text: &str, more_groups: &[String]) -> Result<User, Error> {
        let (user_text, group_text) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user_text = if user_text.is_empty() { "0" } else { user_text };
        let number = user_text.parse::<u32>().ok().filter(|n| *n <= i32::MAX as u32);
        let entry = self.passwd_entries().find(|entry| entry.0 == user_text || Some(entry.1) == number);
        let mut user = match (&entry, number) {
            (Some((_, uid, gid, home)), _) => {
                User { uid: *uid, gid: *gid, groups: Vec::new(), home: (*home).to_owned() }
            }
            (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
            (None, None) => {
                return Err(Error::internal(format!(
                    "unable to find user {user_text}: no matching entries in passwd file"
                )));
            }
        };
        if user.home.is_empty() {
            user.home = "/".to_owned();
        }
        match group_text.filter(|group| !group.is_empty()) {
            Some(group) => user.gid = self.group(group)?,
            // Only without an explicit group are the user's others added, as docker does.
            None => {
                if let Some((name, ..)) = entry {
                    user.groups = self
                        .group_entries()
                        .filter(|(_, gid, members)| *gid != user.gid && members.split(',').any(|m| m == name))
                        .map(|(_, gid, _)| gid)
                        .collect();
                }
            }
        }
        for group in more_groups {
            let gid = self.group(group)?;
            if !user.groups.contains(&gid) {
                user.groups.push(gid);
            }
        }
        Ok(user)
    }

    fn group(&self, text: &str) -> Result<u32, Error> {
        let number = text.parse::<u32>().ok();
        self.group_entries()
            .find(|(name, gid, _)| *name == text || Some(*gid) == number)
            .map(|(_, gid, _)| gid)
            .or(number)
            .ok_or_else(|| {
                Error::internal(format!("unable to find group {text}: no matching entries in group file"))
            })
    }

    /// name, uid, gid, home
    fn passwd_entries(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((name, uid, gid, fields.nth(1).unwrap_or("")))
        })
    }

    /// name, gid, members
    fn group_entries(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nredis:x:100:101::/var/lib/redis:\nbroken\n".into(),
            group: "root:x:0:\nwheel:x:10:root,redis\nredis:x:101:\n".into(),
        }
    }

    #[track_caller]
    fn check(text: &str, more: &[&str], uid: u32, gid: u32, groups: &[u32], home: &str) {
        let more: Vec<String> = more.iter().map(|m| m.to_string()).collect();
        let expected = User { uid, gid, groups: groups.to_vec(), home: home.into() };
        assert_eq!(accounts().user(text, &more).unwrap(), expected);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", &[], 0, 0, &[10], "/root");
        check("redis", &["5", "wheel"], 100, 101, &[10, 5], "/var/lib/redis");
        check("100", &[], 100, 101, &[10], "/var/lib/redis");
        check("redis:wheel", &[], 100, 10, &[], "/var/lib/redis");
        check("4000", &[], 4000, 0, &[], "/");
        check("4000:5000", &[], 4000, 5000, &[], "/");
    }

    #[test]
    fn missing_names_have_dockers_sentences() {
        let sentence = |text: &str| accounts().user(text, &[]).unwrap_err().to_string();
        assert_eq!(sentence("nosuch"), "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(sentence("root:nosuch"), "unable to find group nosuch: no matching entries in group file");
    }

    #[test]
    fn layers_are_named_from_their_common_directory() {
        let paths = ["/a/snapshots/12/fs".to_owned(), "/a/snapshots/1/fs".to_owned()];
        assert_eq!(common_directory(&paths), "/a/snapshots");
        assert_eq!(common_directory(&["/x/y".to_owned(), "/z".to_owned()]), "/");
    }
}
