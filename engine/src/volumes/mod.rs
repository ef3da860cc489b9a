//! Local volumes: a directory each, `data-root/volumes/NAME/_data`, with its labels beside it. A volume is there
//! when its `volume.json` is; it is in use when a container's record mounts it.

use crate::clock::Timestamp;
use crate::containers::record::MountKind;
use crate::containers::rootfs;
use crate::error::{Error, ErrorKind};
use crate::{Ctx, store};
use proto::containerd::types::Mount;
use proto::docker::Strings;
use proto::docker::volume::{CreateRequest, Volume};
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "volume.json";
const DATA: &str = "_data";
/// docker's mark of a volume nobody has named.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

fn root(ctx: &Ctx) -> PathBuf {
    ctx.config.data_root.join("volumes")
}

/// Where the volume's files are.
pub(crate) fn data_dir(ctx: &Ctx, name: &str) -> PathBuf {
    root(ctx).join(name).join(DATA)
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.len() == 1 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 255
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Makes the volume unless it is there; true when it was made.
pub(crate) fn ensure(ctx: &Ctx, name: &str, anonymous: bool) -> Result<bool, Error> {
    if load(ctx, name)?.is_some() {
        return Ok(false);
    }
    let labels =
        if anonymous { Some(Strings::from([(ANONYMOUS_LABEL.to_owned(), String::new())])) } else { None };
    make(ctx, name, labels)?;
    Ok(true)
}

fn make(ctx: &Ctx, name: &str, labels: Option<Strings>) -> Result<Volume, Error> {
    check_name(name)?;
    let dir = root(ctx).join(name);
    let step = |error: io::Error| Error::io(format!("create volume {name}"), &error);
    std::fs::create_dir_all(dir.join(DATA)).map_err(step)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o701)).map_err(step)?;
    let volume = Volume {
        created_at: Timestamp::from_nanos(Timestamp::now().seconds() * 1_000_000_000).to_string(),
        driver: "local".to_owned(),
        labels,
        mountpoint: dir.join(DATA).display().to_string(),
        name: name.to_owned(),
        options: None,
        scope: "local".to_owned(),
        usage_data: None,
    };
    let bytes = serde_json::to_vec(&volume).expect("a volume is JSON");
    store::replace(&dir.join(DOCUMENT), &bytes).map_err(|error| Error::internal(format!("{error:#}")))?;
    ctx.events.publish("volume", "create", name, Strings::from([("driver".to_owned(), "local".to_owned())]));
    Ok(volume)
}

fn load(ctx: &Ctx, name: &str) -> Result<Option<Volume>, Error> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    let path = root(ctx).join(name).join(DOCUMENT);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::internal(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", path.display()), &error)),
    }
}

pub(crate) fn create(ctx: &Ctx, request: CreateRequest) -> Result<Volume, Error> {
    if !matches!(request.driver.as_str(), "" | "local") {
        return Err(Error::not_found(format!(
            "error looking up volume plugin {0}: plugin \"{0}\" not found",
            request.driver
        )));
    }
    if request.driver_opts.is_some_and(|options| !options.is_empty()) {
        return Err(Error::unimplemented("DriverOpts of the local volume driver"));
    }
    let anonymous = request.name.is_empty();
    let name = if anonymous { crate::containers::random_id() } else { request.name };
    check_name(&name)?;
    if let Some(volume) = load(ctx, &name)? {
        return Ok(volume);
    }
    let mut labels = request.labels;
    if anonymous {
        labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
    }
    make(ctx, &name, labels)
}

pub(crate) fn inspect(ctx: &Ctx, name: &str) -> Result<Volume, Error> {
    load(ctx, name)?.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
}

pub(crate) fn list(ctx: &Ctx) -> Result<Vec<Volume>, Error> {
    let entries = match std::fs::read_dir(root(ctx)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list volumes", &error)),
    };
    let mut volumes = Vec::new();
    for entry in entries.flatten() {
        if let Some(volume) = entry.file_name().to_str().map(|name| load(ctx, name)).transpose()?.flatten() {
            volumes.push(volume);
        }
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

/// Containers that mount the volume.
pub(crate) fn users(ctx: &Ctx, name: &str) -> Vec<String> {
    ctx.view
        .all()
        .iter()
        .filter(|container| {
            container
                .record()
                .mounts
                .iter()
                .any(|point| point.kind == MountKind::Volume && point.volume == name)
        })
        .map(|container| container.id.clone())
        .collect()
}

/// Removes the volume unless a container other than `leaving` uses it.
pub(crate) fn remove(ctx: &Ctx, name: &str, leaving: Option<&str>) -> Result<(), Error> {
    if load(ctx, name)?.is_none() {
        return Err(Error::not_found(format!("get {name}: no such volume")));
    }
    let users: Vec<String> = users(ctx, name).into_iter().filter(|id| Some(id.as_str()) != leaving).collect();
    if !users.is_empty() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("remove {name}: volume is in use - [{}]", users.join(", ")),
        ));
    }
    let dir = root(ctx).join(name);
    // The document last: a removal that is cut short can be repeated.
    let step = |error: io::Error| Error::io(format!("remove volume {name}"), &error);
    std::fs::remove_dir_all(dir.join(DATA)).or_else(gone).map_err(step)?;
    std::fs::remove_dir_all(&dir).map_err(step)?;
    ctx.events.publish("volume", "destroy", name, Strings::from([("driver".to_owned(), "local".to_owned())]));
    Ok(())
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Fills a new volume with what the image has at the mount's destination.
pub(crate) async fn copy_up(
    ctx: &Ctx,
    name: &str,
    snapshot: Vec<Mount>,
    destination: &str,
) -> Result<(), Error> {
    let (target, destination) = (data_dir(ctx, name), destination.to_owned());
    let place = ctx.config.exec_root.clone();
    let copied = tokio::task::spawn_blocking(move || {
        rootfs::with_root(snapshot, place, move |root| copy_from(root, &destination, &target))
    })
    .await
    .map_err(|error| Error::internal(error.to_string()))?;
    copied.map_err(|error| Error::io(format!("copy image content to volume {name}"), &error))
}

fn copy_from(root: BorrowedFd<'_>, destination: &str, target: &Path) -> io::Result<()> {
    let source = match rootfs::open_beneath(root, destination, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(source) => source,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(error) => return Err(error),
    };
    // By descriptor: the name leads to the directory that was opened, whatever happens to its path.
    let source = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
    copy_owner(&std::fs::metadata(&source)?, target)?;
    copy_tree(&source, target)
}

fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let found = std::fs::symlink_metadata(&from)?;
        let kind = found.file_type();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to)?;
            std::os::unix::fs::lchown(&to, Some(found.uid()), Some(found.gid()))?;
        } else if kind.is_dir() {
            std::fs::create_dir(&to)?;
            copy_owner(&found, &to)?;
            copy_tree(&from, &to)?;
        } else if kind.is_file() {
            std::fs::copy(&from, &to)?;
            copy_owner(&found, &to)?;
        }
        // Device nodes, sockets and FIFOs of an image are not taken to the host.
    }
    Ok(())
}

fn copy_owner(found: &std::fs::Metadata, target: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(target, Some(found.uid()), Some(found.gid()))?;
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(found.mode() & 0o7777))
}

/// True when docker, not a person, has named it.
pub(crate) fn is_anonymous(volume: &Volume) -> bool {
    volume.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
}
