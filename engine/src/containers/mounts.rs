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
        let destination = check_destination(destination).map_err(Error::invalid)?;
        add(&mut points, parse_tmpfs(&destination, options)?)?;
    }
    // Volumes the image or `-v /path` declares: anonymous ones, where nothing else stands.
    for destination in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = check_destination(destination).map_err(|reason| {
            Error::invalid(format!("invalid volume specification: '{destination}': {reason}"))
        })?;
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
fn check_destination(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    let clean = clean(path);
    if clean == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
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

/// `source:destination[:mode]` or `destination`. docker answers a wrong one with 500.
fn parse_bind(text: &str) -> Result<MountPoint, Error> {
    let wrong = || Error::internal(format!("invalid volume specification: '{text}'"));
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
    let mode = Mode::parse(mode)?;
    let is_volume = !source.starts_with('/');
    let kind = if is_volume { "volume" } else { "bind" };
    let misplaced = |reason: &str| {
        Error::internal(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {reason}"
        ))
    };
    let destination = check_destination(destination).map_err(|reason| misplaced(&reason))?;
    if is_volume && !mode.propagation.is_empty() {
        return Err(misplaced("field BindOptions must not be specified"));
    }
    if !is_volume && mode.no_copy {
        return Err(misplaced("field VolumeOptions must not be specified"));
    }
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
    point.mode = mode.text.to_owned();
    point.writable = !mode.read_only;
    point.copy &= !mode.no_copy;
    point.propagation = mode.propagation.to_owned();
    Ok(point)
}

/// The third part of a bind: of each kind of word one at most.
#[derive(Default)]
struct Mode<'a> {
    text: &'a str,
    read_only: bool,
    no_copy: bool,
    propagation: &'a str,
}

impl Mode<'_> {
    fn parse(text: &str) -> Result<Mode<'_>, Error> {
        let mut mode = Mode { text, ..Mode::default() };
        let mut kinds = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "ro" | "rw" => "access",
                // Labels of SELinux and hints of other platforms change nothing here.
                "z" | "Z" => "label",
                "consistent" | "cached" | "delegated" => "consistency",
                "nocopy" => "copy",
                word if PROPAGATIONS.contains(&word) => "propagation",
                _ => "",
            };
            if kind.is_empty() || kinds.contains(&kind) {
                return Err(Error::internal(format!("invalid mode: {text}")));
            }
            kinds.push(kind);
            match kind {
                "access" => mode.read_only = word == "ro",
                "copy" => mode.no_copy = true,
                "propagation" => mode.propagation = word,
                _ => {}
            }
        }
        Ok(mode)
    }
}

fn parse_mount(mount: &Mount) -> Result<MountPoint, Error> {
    let kind = mount.kind.as_str();
    let wrong =
        |reason: String| Error::invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty".to_owned()));
    }
    // Named pipes are Windows's and cluster volumes a swarm's.
    if !matches!(kind, "bind" | "volume" | "tmpfs" | "image") {
        return Err(wrong("mount type unknown".to_owned()));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(format!("invalid mount path: '{}' mount path must be absolute", mount.target)));
    }
    let destination = clean(&mount.target);
    if destination == "/" {
        return Err(wrong("invalid specification: destination can't be '/'".to_owned()));
    }
    let exclusive = |given: bool, name: &str| match given {
        true => Err(Error::invalid(format!("{name} must not be specified on mount type \"{kind}\""))),
        false => Ok(()),
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
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified".to_owned()));
            }
            let given = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = Vec::new();
            if given.size_bytes > 0 {
                options.push(format!("size={}", given.size_bytes));
            }
            if given.mode != 0 {
                options.push(format!("mode={:o}", given.mode));
            }
            for option in given.options.iter().flatten() {
                let option = option.join("=");
                if !is_tmpfs_option(&option) {
                    return Err(wrong(format!("invalid option: {option}")));
                }
                options.push(option);
            }
            Ok(MountPoint { writable: !mount.read_only, options, ..point(MountKind::Tmpfs, &destination) })
        }
        _ if mount.source.is_empty() => Err(wrong("field Source must not be empty".to_owned())),
        other => Err(Error::unimplemented(format!("mount type {other}"))),
    }
}

/// What the kernel and tmpfs take in one list of options.
fn is_tmpfs_option(option: &str) -> bool {
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
    const SETTINGS: [&str; 8] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"];
    let setting = option.split_once('=').map_or("", |(key, _)| key);
    FLAGS.contains(&option) || SETTINGS.contains(&setting)
}

/// `--tmpfs /path:options`: mount flags and tmpfs data in one list.
fn parse_tmpfs(destination: &str, text: &str) -> Result<MountPoint, Error> {
    let mut point = point(MountKind::Tmpfs, destination);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => point.writable = false,
            "rw" => point.writable = true,
            _ if is_tmpfs_option(option) => point.options.push(option.to_owned()),
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
