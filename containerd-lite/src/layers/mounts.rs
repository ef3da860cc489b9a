//! Where a layer is unpacked: straight into the folder behind a snapshot's mounts where that is possible, else
//! onto the mounts themselves, in a mount namespace that ends with the work.

use super::apply::{Target, unpack};
use super::compression::decompress;
use crate::error::{Context, Error, Result};
use proto::containerd::types::Mount;
use proto::digest::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The digest and size of what was unpacked: the layer's diff id.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Unpacks the layer in `blob` onto `mounts`. With `sync` it is on disk when this returns.
pub(crate) fn apply(
    blob: File,
    media_type: &str,
    mounts: &[Mount],
    scratch: &Path,
    sync: bool,
) -> Result<Applied> {
    let blob = BufReader::with_capacity(256 << 10, blob);
    let mut stream = Hashing { reader: decompress(media_type, blob)?, hasher: Sha256::new(), size: 0 };
    match direct(mounts)? {
        Some((root, target)) => unpack_synced(root, target, &mut stream, sync)?,
        None => on_mounts(mounts, scratch, &mut stream, sync)?,
    }
    Ok(Applied { digest: Digest::from_sha256(&stream.hasher.finalize().into()), size: stream.size })
}

fn unpack_synced(root: OwnedFd, target: Target, reader: impl Read, sync: bool) -> Result<()> {
    let again = sync.then(|| root.try_clone()).transpose().step(|| "open the layer's root")?;
    unpack(root, target, reader)?;
    match again {
        Some(root) => rustix::fs::syncfs(&root).step(|| "sync the layer"),
        None => Ok(()),
    }
}

struct Hashing<R> {
    reader: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

/// The folder to unpack into without mounting: the source of a writable bind, or an overlay's upper folder, when
/// it is empty. What is in it later is then this layer's, which whiteouts need to know.
fn direct(mounts: &[Mount]) -> Result<Option<(OwnedFd, Target)>> {
    let [mount] = mounts else { return Ok(None) };
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    let (folder, lowers) = match mount.r#type.as_str() {
        "bind" if !mount.options.iter().any(|option| option == "ro") => (mount.source.as_str(), None),
        "overlay" => match (option("upperdir="), option("lowerdir=")) {
            // An escaped colon is for the kernel to understand.
            (Some(upper), Some(lower)) if !lower.contains('\\') => (upper, Some(lower)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let root = open_folder(folder)?;
    let empty = rustix::fs::Dir::read_from(&root)
        .step(|| format!("read {folder}"))?
        .flatten()
        .all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."));
    if !empty {
        return Ok(None);
    }
    let target = match lowers {
        None => Target::Plain,
        Some(lowers) => Target::Upper { lowers: lowers.split(':').map(open_folder).collect::<Result<_>>()? },
    };
    Ok(Some((root, target)))
}

fn open_folder(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open {path}"))
}

/// Mounts all in a namespace of this thread's own, so that nothing stays mounted however this ends.
fn on_mounts(mounts: &[Mount], scratch: &Path, stream: &mut (impl Read + Send), sync: bool) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("apply-")
        .tempdir_in(scratch)
        .step(|| format!("make a folder in {}", scratch.display()))?;
    std::thread::scope(|scope| {
        let work = || {
            crate::sys::own_mount_namespace().step(|| "unshare the mount namespace")?;
            for mount in mounts {
                mount_one(mount, dir.path())?;
            }
            let path = dir.path().to_str().ok_or_else(|| Error::invalid("scratch folder is not UTF-8"))?;
            unpack_synced(open_folder(path)?, Target::Plain, stream, sync)
        };
        std::thread::Builder::new()
            .name("apply".to_owned())
            .spawn_scoped(scope, work)
            .step(|| "start a thread")?
            .join()
            .map_err(|_| Error::step("apply", "panic"))?
    })
}

fn mount_one(mount: &Mount, onto: &Path) -> Result<()> {
    let step = || format!("mount {} {}", mount.r#type, mount.source);
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => {}
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            other => data.push(other),
        }
    }
    let data = std::ffi::CString::new(data.join(",")).step(step)?;
    let fstype = if flags.contains(MountFlags::BIND) { "" } else { mount.r#type.as_str() };
    rustix::mount::mount(mount.source.as_str(), onto, fstype, flags, data.as_c_str()).step(step)?;
    if flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
        // A bind takes its flags in a second step.
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(onto, flags, "").step(step)?;
    }
    Ok(())
}
