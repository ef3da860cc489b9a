//! Device nodes and links under /dev.
//!
//! A process in a user namespace of its own may make no node. Those of the configuration are then made from outside, on a
//! tmpfs that is mounted nowhere (`make_outside`), and bound from there; the usual ones, and all when the runtime itself may
//! make none, are the host's, bound.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::error::{Error, Result, Step};
use crate::inroot::{self, Kind};
use crate::rootless;
use crate::setup::capabilities::lacking;
use crate::setup::mounts::{self, What};
use crate::spec::{Device, IdMapping};
use crate::sys::{files, mount};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    path: String,
    kind: u8,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    /// By the configuration, and not only because every container has it.
    configured: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    nodes: Vec<Node>,
    /// The process will be in a user namespace of its own.
    bind: bool,
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// None when /dev is the host's or a volume: it is then not ours to fill.
pub(crate) fn plan(devices: &[Device], steps: &[mounts::Step], bind: bool) -> Result<Option<Plan>> {
    let foreign = steps.iter().any(|step| {
        matches!(step.what, What::Bind { .. }) && step.destination.trim_end_matches('/') == "/dev"
    });
    if foreign {
        return Ok(None);
    }
    let mut nodes: Vec<Node> = DEFAULTS
        .iter()
        .map(|&(path, major, minor)| Node {
            path: path.into(),
            kind: b'c',
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            configured: false,
        })
        .collect();
    for device in devices {
        let node = node(device)?;
        match nodes.iter_mut().find(|known| known.path == node.path) {
            Some(known) => *known = node,
            None => nodes.push(node),
        }
    }
    Ok(Some(Plan { nodes, bind }))
}

fn node(device: &Device) -> Result<Node> {
    let kind = match device.kind.as_str() {
        "c" | "u" => b'c',
        "b" => b'b',
        "p" => b'p',
        other => {
            return Err(Error::invalid(format!("device {:?} has the unknown type {other:?}", device.path)));
        }
    };
    if !device.path.starts_with('/') || inroot::split(&device.path).is_none() {
        return Err(Error::invalid(format!("device path {:?} is not absolute", device.path)));
    }
    let number = |n: i64| u32::try_from(n).map_err(|_| Error::invalid(format!("{n} is not a device number")));
    Ok(Node {
        path: device.path.clone(),
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
        configured: true,
    })
}

/// For a container in a new user namespace with these mappings, whose parent has the rights of the machine's root: the
/// configured nodes, each named by its place in the plan. None where there are none, or this process may not make them.
pub(crate) fn make_outside(plan: &Plan, uids: &[IdMapping], gids: &[IdMapping]) -> Result<Option<OwnedFd>> {
    if !plan.bind || !plan.nodes.iter().any(|node| node.configured) {
        return Ok(None);
    }
    let mode = ["mode=0755".to_owned()];
    let tree =
        mount::new_filesystem("tmpfs", Some("tmpfs"), &mode, 0).step(|| "new tmpfs for devices".into())?;
    for (place, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.configured) {
        let name = place.to_string();
        match rustix::fs::mknodat(&tree, &name, node.file_type(), Mode::empty(), node.number()) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => return Ok(None),
            Err(error) => return Err(error).step(|| format!("create device {}", node.path)),
        }
        // Who is not mapped is nobody to the container, as the owner of a host's node is.
        let uid = on_the_host(node.uid, uids).map(Uid::from_raw);
        let gid = on_the_host(node.gid, gids).map(Gid::from_raw);
        rustix::fs::chownat(&tree, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| {
                rustix::fs::chmodat(&tree, &name, Mode::from_raw_mode(node.mode), AtFlags::empty())
            })
            .step(|| format!("set the owner and mode of device {}", node.path))?;
    }
    Ok(Some(tree))
}

fn on_the_host(id: u32, mappings: &[IdMapping]) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.size)?;
        mapping.host_id.checked_add(offset)
    })
}

/// The umask must be 0. /dev itself is opened without following links (CVE-2026-41579).
pub(crate) fn apply(root: BorrowedFd<'_>, plan: &Plan, outside: Option<&OwnedFd>) -> Result<()> {
    let dev = inroot::open_or_create(root, "/dev", Kind::Directory, true)
        .step(|| "/dev must be an ordinary directory".into())?;
    let ready = match outside {
        Some(tree) => take_apart(tree, dev.as_fd(), &plan.nodes).step(|| "take over devices".into())?,
        None => Vec::new(),
    };
    for (place, node) in plan.nodes.iter().enumerate() {
        let tree = ready.iter().find(|(its, _)| *its == place).map(|(_, tree)| tree);
        make(root, dev.as_fd(), node, plan.bind, tree).step(|| format!("create device {}", node.path))?;
    }
    for (target, name) in LINKS {
        link(dev.as_fd(), target, name)?;
    }
    if std::fs::exists("/proc/kcore").unwrap_or(false) {
        link(dev.as_fd(), "/proc/kcore", "core")?;
    }
    // A ptmx of the root file system would be the host's terminals.
    inroot::unlink_if_there(dev.as_fd(), "ptmx").step(|| "remove /dev/ptmx".into())?;
    link(dev.as_fd(), "pts/ptmx", "ptmx")
}

/// Each configured node as a mount of its own. The kernel copies only what is mounted: for that moment the tree lies on /dev.
fn take_apart(tree: &OwnedFd, dev: BorrowedFd<'_>, nodes: &[Node]) -> std::io::Result<Vec<(usize, OwnedFd)>> {
    mount::attach(tree, dev)?;
    let ready = (0..nodes.len())
        .filter(|place| nodes[*place].configured)
        .map(|place| Ok((place, mount::copy_of_entry(tree.as_fd(), &place.to_string())?)))
        .collect();
    mount::detach(&format!("/proc/self/fd/{}", tree.as_raw_fd()))?;
    ready
}

fn link(dev: BorrowedFd<'_>, target: &str, name: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).step(|| format!("link /dev/{name}")),
    }
}

impl Node {
    fn file_type(&self) -> FileType {
        match self.kind {
            b'b' => FileType::BlockDevice,
            b'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        }
    }

    fn number(&self) -> u64 {
        rustix::fs::makedev(self.major, self.minor)
    }
}

fn make(
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    node: &Node,
    bind: bool,
    ready: Option<&OwnedFd>,
) -> Result<()> {
    let (dir_path, name) = inroot::split(&node.path).ok_or_else(|| Error::invalid("it has no name"))?;
    let opened: OwnedFd;
    let dir = if dir_path == "/dev" {
        dev
    } else {
        opened = inroot::open_or_create(root, dir_path, Kind::Directory, false)
            .step(|| format!("open {dir_path}"))?;
        opened.as_fd()
    };
    if let Some(tree) = ready {
        return bind_node(root, node, tree);
    }
    if bind {
        return bind_host_node(root, node);
    }
    let (kind, number) = (node.file_type(), node.number());
    match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(node.mode), number) {
        Ok(()) => {}
        // In the root file system already: good if it is that very device.
        Err(rustix::io::Errno::EXIST) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).step(|| "stat".into())?;
            if FileType::from_raw_mode(stat.st_mode) != kind || (node.kind != b'p' && stat.st_rdev != number)
            {
                return Err(Error::invalid("another file is in its place"));
            }
            return Ok(());
        }
        // Root in somebody's user namespace may make none either.
        Err(rustix::io::Errno::PERM) if rootless::is_ordinary() => return bind_host_node(root, node),
        Err(error) => return Err(error).step(|| format!("mknod{}", lacking("CAP_MKNOD"))),
    }
    if node.uid != 0 || node.gid != 0 {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .step(|| "chown".into())?;
    }
    Ok(())
}

/// Standard streams that are the host's null device become the container's own, as in the originals: the host's is not
/// within its reach then, and a checkpoint has nothing from outside to look for. Where it has none that may be opened they
/// stay.
pub(crate) fn renew_null_streams(root: BorrowedFd<'_>) -> Result<()> {
    let streams = (0..3).filter(|number| files::inherited(*number).is_some_and(is_null));
    let streams: Vec<i32> = streams.collect();
    if streams.is_empty() {
        return Ok(());
    }
    let Ok(own) = inroot::open_plain(root, "/dev/null") else { return Ok(()) };
    // What an image has put there is not even opened.
    if !is_null(own.as_fd()) {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", own.as_raw_fd());
    let own = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let Ok(own) = own else { return Ok(()) };
    for number in streams {
        files::place_at(own.as_fd(), number).step(|| format!("make /dev/null stream {number}"))?;
    }
    Ok(())
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}

fn bind_host_node(root: BorrowedFd<'_>, node: &Node) -> Result<()> {
    let tree = mount::copy_of_path(&node.path, false).step(|| "bind the host's node".into())?;
    bind_node(root, node, &tree)
}

fn bind_node(root: BorrowedFd<'_>, node: &Node, tree: &OwnedFd) -> Result<()> {
    let target = inroot::open_or_create(root, &node.path, Kind::File, true)
        .step(|| "create the mount point".into())?;
    mount::attach(tree, target.as_fd()).step(|| "attach".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(json: &str) -> Device {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn configured_devices_join_or_replace_the_default_ones() {
        let fuse = device(r#"{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438,"uid":1}"#);
        let null = device(r#"{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384}"#);
        let plan = plan(&[fuse, null], &[], false).expect("valid").expect("ours");
        assert_eq!(plan.nodes.len(), DEFAULTS.len() + 1);
        assert_eq!(plan.nodes[0].mode, 0o600);
        assert_eq!((plan.nodes[6].mode, plan.nodes[6].uid), (0o666, 1));
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let mappings = [map(0, 1000, 1), map(1, 100_000, 10)];
        let hosts: Vec<_> = [0, 1, 10, 11].map(|id| on_the_host(id, &mappings)).into();
        assert_eq!(hosts, [Some(1000), Some(100_000), Some(100_009), None]);
        for refused in [
            r#"{"path":"x","type":"c"}"#,
            r#"{"path":"/dev/..","type":"c"}"#,
            r#"{"path":"/dev/x","type":"q"}"#,
            r#"{"path":"/dev/x","type":"c","major":-1}"#,
        ] {
            assert!(node(&device(refused)).is_err(), "{refused}");
        }
    }
}
