//! Where a shim is reached and works: its socket, and the folder that holds its state and its FIFOs.
//!
//! A container of its own has its bundle for a folder. Containers of one group, which two annotations name, share a shim:
//! any of them may go first, so that their folder lies beside the socket, and each bundle has a link to the state in it.
//! ```text
//! /run/containerd/s/HASH          the socket: of the daemon's address, the namespace and the group, or container
//! /run/containerd/s/HASH.group/   shim-state.json, io-*
//! ```
//! Who makes, adopts or leaves a group's folder has it locked (flock).

use proto::task::bundle;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::handover;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Annotations that name the group of a container, the first one first.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// How long the start of a container waits for the shim of its group, which was killed, to be followed by another.
const FOLLOWED: Duration = Duration::from_secs(10);

pub(super) struct Home {
    pub(super) bundle: PathBuf,
    pub(super) socket: PathBuf,
    /// The folder of a group.
    group: Option<PathBuf>,
    /// It is no container's: a containerd 2 starts a shim for a sandbox.
    pub(super) is_sandbox: bool,
}

impl Home {
    pub(super) fn of(args: &Args, bundle: PathBuf) -> Result<Home> {
        // A sandbox's bundle may have none; and `delete` comes where there may be nothing left.
        let config = std::fs::read_to_string(bundle.join(bundle::CONFIG)).unwrap_or_default();
        let group = group(&config)?;
        let socket = socket_path(args, group.as_deref().unwrap_or(&args.id))?;
        let group = group.map(|_| group_folder(&socket));
        Ok(Home { bundle, socket, group, is_sandbox: !config.contains("\"process\"") })
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Where its shim works.
    pub(super) fn folder(&self) -> &Path {
        self.group.as_deref().unwrap_or(&self.bundle)
    }

    pub(super) fn enter(&self) -> Result<()> {
        let folder = self.folder();
        std::env::set_current_dir(folder).map_err(|e| step("enter", folder, e))
    }

    /// Keeps others of the group out, where there is a group.
    pub(super) fn lock(&self) -> Result<Option<OwnedFd>> {
        self.group.as_deref().map(lock).transpose()
    }

    /// The socket, or none where a live shim has it.
    pub(super) fn claim(&self) -> Result<(Option<OwnedFd>, Option<UnixListener>)> {
        let deadline = Instant::now() + FOLLOWED;
        loop {
            let lock = self.lock()?;
            if UnixStream::connect(&self.socket).is_ok() || self.others("").is_empty() {
                return Ok((lock, listen(&self.socket)?));
            }
            drop(lock);
            if Instant::now() > deadline {
                return Err("the group's shim is gone, and no other has adopted its containers".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Leaves word in the bundle: the address, and where the state is.
    pub(super) fn sign(&self) -> Result<()> {
        crate::container::write_whole(&self.bundle.join(bundle::ADDRESS), self.address().as_bytes())?;
        let Some(group) = &self.group else { return Ok(()) };
        let link = self.bundle.join(bundle::SHIM_STATE);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(group.join(bundle::SHIM_STATE), &link).map_err(|e| step("make", &link, e))
    }

    /// After the end of a container without its shim: what nobody needs any more.
    pub(super) fn clear(&self, id: &str) {
        let lock = self.lock();
        // Whoever comes last finds no link of the others.
        if self.group.is_some() {
            let _ = std::fs::remove_file(self.bundle.join(bundle::SHIM_STATE));
        }
        if self.group.is_some() && (UnixStream::connect(&self.socket).is_ok() || !self.others(id).is_empty())
        {
            return;
        }
        let _ = std::fs::remove_file(&self.socket);
        if let Some(group) = &self.group {
            let _ = std::fs::remove_dir_all(group);
        }
        drop(lock);
    }

    /// Containers of the group, but this one, that a shim has left and that nobody has taken down.
    fn others(&self, id: &str) -> Vec<String> {
        #[derive(Deserialize)]
        struct Containers {
            containers: BTreeMap<String, Container>,
        }
        #[derive(Deserialize)]
        struct Container {
            bundle: PathBuf,
        }
        let left = self.group.as_deref().and_then(handover::part::<Containers>);
        let containers = left.map(|left| left.containers).unwrap_or_default();
        let others = containers
            .into_iter()
            .filter(|(other, left)| other != id && left.bundle.join(bundle::SHIM_STATE).is_symlink());
        others.map(|(other, _)| other).collect()
    }
}

/// The shim that has this socket ends: `forget` takes its state away, where there is nothing for another.
pub(super) fn leave(socket: &Path, forget: impl FnOnce()) -> Result<()> {
    let group = Some(group_folder(socket)).filter(|group| group.exists());
    let lock = group.as_deref().map(lock).transpose();
    forget();
    let _ = std::fs::remove_file(socket);
    if let Some(group) = group.filter(|group| !group.join(bundle::SHIM_STATE).exists()) {
        let _ = std::fs::remove_dir_all(group);
    }
    lock.map(drop)
}

fn group_folder(socket: &Path) -> PathBuf {
    socket.with_extension("group")
}

/// Waits for the lock of a folder, which is made.
fn lock(folder: &Path) -> Result<OwnedFd> {
    loop {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(step("create", folder, error));
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(opened) = rustix::fs::open(folder, flags, Mode::empty()) else { continue };
        flock(&opened, FlockOperation::LockExclusive).map_err(|e| step("lock", folder, e.into()))?;
        let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let is_it = rustix::fs::stat(folder).map(inode) == rustix::fs::fstat(&opened).map(inode);
        // Else it was removed while we waited.
        if is_it {
            return Ok(opened);
        }
    }
}

/// The container's group, if its document names one.
fn group(config: &str) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    // Hardly any container has one, and the whole document is long.
    if !GROUPS.iter().any(|name| config.contains(name)) {
        return Ok(None);
    }
    let config: Config = serde_json::from_str(config).map_err(|e| format!("read config.json: {e}"))?;
    Ok(GROUPS.iter().find_map(|name| config.annotations.get(*name)).cloned())
}

/// A name that is the same for the same container or group of the same daemon; a bundle's own path may be too long for
/// a socket.
fn socket_path(args: &Args, group: &str) -> Result<PathBuf> {
    let dir = match (rustix::process::geteuid().is_root(), std::env::var_os("XDG_RUNTIME_DIR")) {
        (true, _) => PathBuf::from("/run/containerd/s"),
        (false, Some(dir)) => PathBuf::from(dir).join("containerd/s"),
        (false, None) => PathBuf::from(format!("/tmp/containerd-s-{}", rustix::process::geteuid().as_raw())),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|e| step("create", &dir, e))?;
    let name = Path::new(&args.address).join(&args.namespace).join(group);
    let hash = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(dir.join(hex))
}

/// The socket, or none where a live shim has it.
pub(super) fn listen(path: &Path) -> Result<Option<UnixListener>> {
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            std::fs::remove_file(path).map_err(|e| step("remove the stale socket", path, e))?;
            UnixListener::bind(path).map_err(|e| step("bind", path, e))?
        }
        Err(error) => return Err(step("bind", path, error)),
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| step("chmod", path, e))?;
    Ok(Some(listener))
}

fn step(what: &str, path: &Path, error: std::io::Error) -> Box<dyn Error> {
    format!("{what} {}: {error}", path.display()).into()
}
