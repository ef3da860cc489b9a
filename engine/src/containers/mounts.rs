//! `Binds`, `Mounts`, `Tmpfs`, and the image's and container's volumes: checked, and resolved to what stands where.

use super::record::{MountKind, MountPoint};
use crate::error::{Error, ErrorKind};
use proto::docker::container::{Config, HostConfig, Mount};
use std::path::{Component, Path};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// Every mount the request asks for. Volumes have no source yet and anonymous ones no name.
pub(crate) fn resolve(config: &Config, host: &HostConfig) -> Result<Vec<MountPoint>, Error> {
    if host.volumes_from.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(Error::unimplemented("HostConfig.VolumesFrom"));
    }
    if !matches!(host.volume_driver.as_str(), "" | "local") {
        return Err(Error::not_found(format!(
            "error looking up volume plugin {0}: plugin \"{0}\" not found",
            host.volume_driver
        )));
    }
    let mut points: Vec<MountPoint> = Vec::new();
    for bind in host.binds.iter().flatten() {
        add(&mut points, parse_bind(bind)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(&mut points, parse_mount(mount)?)?;
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        let destination = check_destination(destination, destination)?;
        add(&mut points, parse_tmpfs(&destination, options)?)?;
    }
    // Volumes the image or `-v /path` declares: anonymous ones, where nothing else stands.
    for destination in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = check_destination(destination, destination)?;
        if !points.iter().any(|point| point.destination == destination) {
            points.push(MountPoint { anonymous: true, ..volume("", &destination) });
        }
    }
    Ok(points)
}

fn add(points: &mut Vec<MountPoint>, point: MountPoint) -> Result<(), Error> {
    if points.iter().any(|other| other.destination == point.destination) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    points.push(point);
    Ok(())
}

fn point(kind: MountKind, destination: &str) -> MountPoint {
    MountPoint {
        kind,
        volume: String::new(),
        source: String::new(),
        destination: destination.to_owned(),
        mode: String::new(),
        writable: true,
        propagation: String::new(),
        recursive: true,
        anonymous: false,
        copy: false,
        create_source: false,
        options: Vec::new(),
    }
}

fn volume(name: &str, destination: &str) -> MountPoint {
    MountPoint { volume: name.to_owned(), copy: true, ..point(MountKind::Volume, destination) }
}

/// Absolute, without `..`, not the root.
fn check_destination(path: &str, specification: &str) -> Result<String, Error> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{specification}': invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let clean = clean(path);
    if clean == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{specification}': invalid specification: destination can't be '/'"
        )));
    }
    Ok(clean)
}

/// Go's path.Clean for absolute paths.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or("")),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// `source:destination[:mode]` or `destination`.
fn parse_bind(text: &str) -> Result<MountPoint, Error> {
    let wrong = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(wrong());
    }
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(wrong()),
    };
    let destination = check_destination(destination, text)?;
    let is_volume = !source.starts_with('/');
    let mut point = if source.is_empty() {
        MountPoint { anonymous: true, ..volume("", &destination) }
    } else if is_volume {
        crate::volumes::check_name(source)?;
        volume(source, &destination)
    } else {
        MountPoint {
            source: clean(source),
            create_source: true,
            ..self::point(MountKind::Bind, &destination)
        }
    };
    point.mode = mode.to_owned();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => point.writable = false,
            "rw" => point.writable = true,
            // Labels of SELinux and hints of other platforms change nothing here.
            "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" if is_volume => point.copy = false,
            option if PROPAGATIONS.contains(&option) && !is_volume => point.propagation = option.to_owned(),
            _ => return Err(Error::internal(format!("invalid mode: {mode}"))),
        }
    }
    Ok(point)
}

fn parse_mount(mount: &Mount) -> Result<MountPoint, Error> {
    let kind = mount.kind.as_str();
    let wrong =
        |reason: String| Error::invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    if !matches!(kind, "bind" | "volume" | "tmpfs" | "image" | "cluster" | "npipe") {
        return Err(wrong("mount type unknown".to_owned()));
    }
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty".to_owned()));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(format!("invalid mount path: '{}' mount path must be absolute", mount.target)));
    }
    let destination = clean(&mount.target);
    if destination == "/" {
        return Err(wrong("invalid specification: destination can't be '/'".to_owned()));
    }
    let exclusive = |given: bool, name: &str| {
        if given { Err(wrong(format!("field {name} must not be specified"))) } else { Ok(()) }
    };
    match kind {
        "bind" => {
            exclusive(mount.volume_options.is_some(), "VolumeOptions")?;
            exclusive(mount.tmpfs_options.is_some(), "TmpfsOptions")?;
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty".to_owned()));
            }
            if !mount.source.starts_with('/') {
                return Err(wrong(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(wrong(format!("invalid propagation mode: {}", options.propagation)));
            }
            let source = clean(&mount.source);
            if !options.create_mountpoint && !Path::new(&source).exists() {
                return Err(wrong(format!("bind source path does not exist: {source}")));
            }
            Ok(MountPoint {
                source,
                writable: !mount.read_only,
                propagation: options.propagation,
                recursive: !options.non_recursive,
                create_source: options.create_mountpoint,
                ..point(MountKind::Bind, &destination)
            })
        }
        "volume" => {
            exclusive(mount.bind_options.is_some(), "BindOptions")?;
            exclusive(mount.tmpfs_options.is_some(), "TmpfsOptions")?;
            let options = mount.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() {
                return Err(Error::unimplemented("VolumeOptions.Subpath"));
            }
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") || driver.options.is_some_and(|o| !o.is_empty())
            {
                return Err(Error::unimplemented("VolumeOptions.DriverConfig"));
            }
            if !mount.source.is_empty() {
                crate::volumes::check_name(&mount.source)?;
            }
            Ok(MountPoint {
                anonymous: mount.source.is_empty(),
                writable: !mount.read_only,
                copy: !options.no_copy,
                mode: "z".to_owned(),
                ..volume(&mount.source, &destination)
            })
        }
        "tmpfs" => {
            exclusive(mount.bind_options.is_some(), "BindOptions")?;
            exclusive(mount.volume_options.is_some(), "VolumeOptions")?;
            exclusive(!mount.source.is_empty(), "Source")?;
            let given = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = Vec::new();
            if given.size_bytes > 0 {
                options.push(format!("size={}", given.size_bytes));
            }
            if given.mode != 0 {
                options.push(format!("mode={:o}", given.mode));
            }
            for option in given.options.iter().flatten() {
                options.push(option.join("="));
            }
            Ok(MountPoint { writable: !mount.read_only, options, ..point(MountKind::Tmpfs, &destination) })
        }
        other => Err(Error::unimplemented(format!("mount type {other}"))),
    }
}

/// `--tmpfs /path:options`: mount flags and tmpfs data in one list.
fn parse_tmpfs(destination: &str, text: &str) -> Result<MountPoint, Error> {
    const FLAGS: &[&str] = &[
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "defaults",
    ];
    let mut point = point(MountKind::Tmpfs, destination);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let key = option.split('=').next().unwrap_or("");
        match option {
            "ro" => point.writable = false,
            "rw" => point.writable = true,
            _ if FLAGS.contains(&option) => point.options.push(option.to_owned()),
            _ if ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"].contains(&key) => {
                point.options.push(option.to_owned());
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("invalid tmpfs option [\"{option}\"]"),
                ));
            }
        }
    }
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> Result<MountPoint, Error> {
        let host = HostConfig { binds: Some(vec![text.to_owned()]), ..HostConfig::default() };
        resolve(&Config::default(), &host).map(|mut points| points.remove(0))
    }

    #[test]
    fn binds_are_paths_and_volumes() {
        let point = bind("/a/../b:/c/:ro,rslave").unwrap();
        assert_eq!((point.source.as_str(), point.destination.as_str(), point.writable), ("/b", "/c", false));
        assert_eq!(point.propagation, "rslave");
        let point = bind("data:/c:nocopy").unwrap();
        assert_eq!((point.kind, point.volume.as_str(), point.copy), (MountKind::Volume, "data", false));
        assert!(bind("/c").unwrap().anonymous);
    }

    #[test]
    fn wrong_binds_have_dockers_sentences() {
        let sentence = |text: &str| bind(text).unwrap_err().to_string();
        assert_eq!(sentence("/a:/b:bogus"), "invalid mode: bogus");
        assert_eq!(bind("/a:/b:bogus").unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(sentence("a:b:c:d"), "invalid volume specification: 'a:b:c:d'");
        assert!(sentence("/a:/").contains("destination can't be '/'"));
        assert!(sentence("/a:b").contains("mount path must be absolute"));
        assert!(sentence("b@d:/x").contains("includes invalid characters for a local volume name"));
        let host = HostConfig { binds: Some(vec!["/a:/x".into(), "/b:/x".into()]), ..HostConfig::default() };
        assert_eq!(resolve(&Config::default(), &host).unwrap_err().to_string(), "Duplicate mount point: /x");
    }

    #[test]
    fn wrong_mounts_have_dockers_sentences() {
        let sentence = |mount: Mount| parse_mount(&mount).unwrap_err().to_string();
        let mount = |kind: &str, source: &str, target: &str| Mount {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let prefix = |kind: &str| format!("invalid mount config for type \"{kind}\": ");
        assert_eq!(
            sentence(mount("bind", "/nosuch", "/x")),
            prefix("bind") + "bind source path does not exist: /nosuch"
        );
        assert_eq!(sentence(mount("bind", "", "/x")), prefix("bind") + "field Source must not be empty");
        assert_eq!(
            sentence(mount("tmpfs", "/a", "/x")),
            prefix("tmpfs") + "field Source must not be specified"
        );
        assert_eq!(sentence(mount("nosuch", "", "/x")), prefix("nosuch") + "mount type unknown");
        assert_eq!(sentence(mount("volume", "", "")), prefix("volume") + "field Target must not be empty");
    }
}
